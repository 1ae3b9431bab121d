"""With the memory that a newer ComfyUI gives to NVIDIA's cards (`dynamic`) graphs give what they give without it."""

import tempfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from adiff.library import load_library
from tests.e2e import test_dual
from tests.e2e.checkpoints import write_models
from tests.e2e.comfyui import Graph, GraphError, Server
from tests.e2e.scenes import make_scene, rounding
from tests.e2e.test_training import demo, drawn, save, train


@pytest.fixture(scope="module")
def dynamic(comfyui):
    """A server with that memory."""
    if "class ModelPatcherDynamic" not in (comfyui[0] / "comfy" / "model_patcher.py").read_text():
        pytest.skip("this ComfyUI has no dynamic VRAM")
    with tempfile.TemporaryDirectory(prefix="adiff-e2e-") as base:
        server = Server(*comfyui, Path(base), "dynamic.py")
        write_models(server.base / "models", server.elsewhere)
        server.start()
        yield server
        server.stop()


def checkpoint(graph):
    loader = graph("CheckpointLoaderSimple", ckpt_name="sd15.safetensors")
    empty = graph("ProbeTokens", seed=1, tokens=16, rows=1, width=768)
    return {"model": loader, "vae": loader[2], "empty": empty}


def test_a_checkpoint_is_painted_with_as_elsewhere(server, dynamic):
    latents = []
    for host in (server, dynamic):
        graph = Graph()
        scene = make_scene(host, graph)
        saved = scene.save(scene.ours())
        latents.append(host.run(graph).latent(saved))
    assert rounding(*latents) < 1e-5
    assert "prepared for dynamic VRAM loading" in dynamic.log


def test_the_demo_model_learns_and_its_layers_compute_in_one_precision(server, dynamic):
    """Its file is in half precision, and some of a newer ComfyUI's layers keep a file's."""
    one, other = (_learned(host, demo, {}) for host in (server, dynamic))
    assert torch.equal(one, other)


def test_learning_on_a_checkpoint_reads_it_again_with_its_lora(server, dynamic):
    one, other, plain = (
        _learned(host, of, {"encoder": "small.safetensors"})
        for host, of in ((server, on_a_lora), (dynamic, on_a_lora), (dynamic, checkpoint))
    )
    assert rounding(one, other) < 1e-4 < rounding(one, plain)


def on_a_lora(graph):
    of, lora = checkpoint(graph), {"lora_name": "random.safetensors", "strength_model": 0.7}
    return of | {"model": graph("LoraLoaderModelOnly", model=of["model"], **lora)}


def _learned(host, of, changes):
    graph = Graph()
    save(graph, train(graph, of(graph), drawn(graph, shots=1), steps=1, batch=1, **changes), "dynamic", overwrite=True)
    host.run(graph)
    return load_library(host.base / "models" / "adiff_libraries" / "dynamic.safetensors").get("metal/scratch").anomaly


def test_a_dual_model_learns_on_a_checkpoint(server, dynamic):
    found = []
    for host in (server, dynamic):
        graph = Graph()
        test_dual.train(graph, checkpoint(graph), drawn(graph), "dynamic", steps=1, overwrite=True)
        host.run(graph)
        found.append(load_file(host.base / "models" / "adiff_dual" / "dynamic.safetensors"))
    one, other = found
    assert list(one) == list(other)
    assert all(torch.allclose(one[name], other[name], atol=1e-4) for name in one)


def test_a_model_that_cannot_be_read_again_is_refused(dynamic):
    graph = Graph()
    of = checkpoint(graph)
    save(graph, train(graph, of | {"model": graph("ProbeUntold", model=of["model"])}, drawn(graph, shots=1),
                      "small.safetensors", steps=1, batch=1), "untold")  # fmt: skip
    with pytest.raises(GraphError, match=r"use Load Checkpoint, or start ComfyUI with --disable-dynamic-vram"):
        dynamic.run(graph)
