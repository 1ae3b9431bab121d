"""With the memory that a newer ComfyUI gives to NVIDIA's cards (`dynamic`) graphs give what they give without it."""

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.e2e.checkpoints import running
from tests.e2e.comfyui import Graph, GraphError
from tests.e2e.learned import dual_weights, embedding
from tests.e2e.scenes import make_scene, rounding
from tests.e2e.test_training import demo, drawn, train


@pytest.fixture(scope="module")
def dynamic(comfyui):
    """A server with that memory."""
    if "class ModelPatcherDynamic" not in (comfyui[0] / "comfy" / "model_patcher.py").read_text():
        pytest.skip("this ComfyUI has no dynamic VRAM")
    with running(comfyui, "dynamic.py") as server:
        yield server


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
    assert torch.equal(embedding(server, demo), embedding(dynamic, demo))


def on_a_lora(graph):
    of, lora = checkpoint(graph), {"lora_name": "random.safetensors", "strength_model": 0.7}
    return of | {"model": graph("LoraLoaderModelOnly", model=of["model"], **lora)}


def test_learning_on_a_checkpoint_reads_it_again_with_its_lora(server, dynamic):
    one, other, plain = (
        embedding(host, of, "small.safetensors")
        for host, of in ((server, on_a_lora), (dynamic, on_a_lora), (dynamic, checkpoint))
    )
    assert rounding(one, other) < 1e-4 < rounding(one, plain)


def test_a_dual_model_learns_on_a_checkpoint(server, dynamic):
    one, other = (dual_weights(host, checkpoint) for host in (server, dynamic))
    assert list(one) == list(other)
    assert all(torch.allclose(one[name], other[name], atol=1e-4) for name in one)


def packed(graph):
    return checkpoint(graph) | {"model": graph("CheckpointLoaderSimple", ckpt_name="packed.safetensors")}


def pack(folder):
    """Write the checkpoint with its attentions' weights in fp8, each with a scale of its own."""
    weights = load_file(folder / "sd15.safetensors")
    for name in [name for name in weights if ".attn" in name and weights[name].ndim == 2]:
        scale = weights[name].float().abs().max() / torch.finfo(torch.float8_e4m3fn).max
        weights[name.removesuffix("weight") + "scale_weight"] = scale
        weights[name] = (weights[name].float() / scale).to(torch.float8_e4m3fn)
    weights["model.diffusion_model.scaled_fp8"] = torch.zeros(2, dtype=torch.float8_e4m3fn)
    save_file(weights, folder / "packed.safetensors")


def test_a_checkpoint_with_packed_weights_is_learned_on(server, dynamic):
    for host in (server, dynamic):
        pack(host.base / "models" / "checkpoints")
    one, other = (dual_weights(host, packed) for host in (server, dynamic))
    assert all(torch.allclose(one[name], other[name], atol=1e-4) for name in one)


def test_a_model_that_cannot_be_read_again_is_refused(dynamic):
    graph = Graph()
    of = checkpoint(graph)
    untold = of | {"model": graph("ProbeUntold", model=of["model"])}
    learned = train(graph, untold, drawn(graph, shots=1), "small.safetensors", steps=1, batch=1)
    graph("PreviewAny", source=learned[3])
    with pytest.raises(GraphError, match=r"use Load Checkpoint, or start ComfyUI with --disable-dynamic-vram"):
        dynamic.run(graph)
