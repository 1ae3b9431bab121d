"""With an attention that has no gradient (`sage`), the server's or another pack's, the same is learned as without."""

import tempfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.e2e import test_dual
from tests.e2e.comfyui import Graph, Server
from tests.e2e.test_training import demo, drawn, save, stored, train


@pytest.fixture(scope="module")
def sage(comfyui):
    """A server with such an attention."""
    with tempfile.TemporaryDirectory(prefix="adiff-e2e-") as base:
        server = Server(*comfyui, Path(base), "sage.py")
        server.start()
        yield server
        server.stop()


def patched(graph):
    of = demo(graph)
    return of | {"model": graph("ProbeSage", model=of["model"])}


def test_embeddings_are_learned(server, sage):
    found = []
    for host, of in ((server, demo), (sage, demo), (sage, patched)):
        graph = Graph()
        save(graph, train(graph, of(graph), drawn(graph, shots=1), steps=1, batch=1), "sage", overwrite=True)
        host.run(graph)
        found.append(stored(host, "sage").get("metal/scratch").anomaly)
    plain, *others = found
    assert all(torch.equal(other, plain) for other in others)


def test_a_dual_model_is_learned(server, sage):
    found = []
    for host, of in ((server, demo), (sage, demo), (sage, patched)):
        graph = Graph()
        test_dual.train(graph, of(graph), drawn(graph), "sage", steps=1, overwrite=True)
        host.run(graph)
        found.append(load_file(host.base / "models" / "adiff_dual" / "sage.safetensors"))
    plain, *others = found
    assert all(torch.equal(other[name], weight) for other in others for name, weight in plain.items())
