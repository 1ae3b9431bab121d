"""Behind MultiGPU CFG Split, a card each for positive and negative at the same time (`two_gpus`), all is the same."""

import pytest

from tests.e2e import test_dual
from tests.e2e.checkpoints import running
from tests.e2e.comfyui import Graph
from tests.e2e.scenes import make_scene, rounding
from tests.e2e.test_dynamic import checkpoint
from tests.e2e.test_training import drawn


@pytest.fixture(scope="module")
def cards(comfyui):
    """A server with two cards."""
    if not (comfyui[0] / "comfy" / "multigpu.py").exists():
        pytest.skip("this ComfyUI uses one card")
    with running(comfyui, "two_gpus.py") as server:
        yield server


def split(graph, model):
    """The MODEL on both cards."""
    return graph("MultiGPU_WorkUnits", model=model, max_gpus=2)


def test_a_dual_model_makes_its_pairs_on_one(cards):
    found = []
    for on in (lambda graph, model: model, split):
        graph = Graph()
        of = checkpoint(graph)
        learned = test_dual.train(graph, of, drawn(graph), "one card", steps=1, overwrite=True)
        pair = test_dual.sample(graph, of | {"model": on(graph, of["model"])}, learned)
        shown = graph("SaveImage", images=pair, filename_prefix="e2e")
        found.append(cards.run(graph).images(shown).astype(int))
    assert abs(found[0] - found[1]).max() <= 1


@pytest.mark.parametrize("reweighting", ["balanced", "release"])
def test_a_defect_is_painted_on_both(cards, reweighting):
    latents = []
    for on in (lambda graph, model: model, split):
        graph = Graph()
        scene = make_scene(cards, graph)
        saved = scene.save(scene.ours(model=on(graph, scene.model), reweighting=reweighting))
        latents.append(cards.run(graph).latent(saved))
    assert rounding(*latents) < 1e-5
    assert "Creating deepclone" in cards.log
