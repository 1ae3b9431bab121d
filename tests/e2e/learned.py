"""What one step of a training learns on a server, to be compared with another server's."""

from safetensors.torch import load_file

from tests.e2e import test_dual
from tests.e2e.comfyui import Graph
from tests.e2e.test_training import drawn, save, stored, train


def embedding(host, base_of, encoder="demo (built in)"):
    """The tokens of metal/scratch, (8, 768); base_of(graph): the base model's links."""
    graph = Graph()
    learned = train(graph, base_of(graph), drawn(graph, shots=1), encoder, steps=1, batch=1)
    save(graph, learned, "compared", overwrite=True)
    host.run(graph)
    return stored(host, "compared").get("metal/scratch").anomaly


def dual_weights(host, base_of):
    """The tensors of a dual model's file, by their names."""
    graph = Graph()
    test_dual.train(graph, base_of(graph), drawn(graph), "compared", steps=1, overwrite=True)
    host.run(graph)
    return load_file(host.base / "models" / "adiff_dual" / "compared.safetensors")
