"""Anomaly KSampler against the stock one, and everything that a batch, a size or a cancel may do to it."""

import time
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from adiff.generation.seeds import generator_for
from adiff.reweighting import dilated_mask
from tests.e2e.checkpoints import SD15_SCALE
from tests.e2e.comfyui import Graph
from tests.e2e.scenes import ROUNDING, make_scene, masks, rounding

THREE = ((1, 1, 4, 4), (2, 3, 6, 7), (4, 0, 8, 5))


@pytest.mark.parametrize("cfg", [1.0, 7.0])
@pytest.mark.parametrize("sampler", ["euler", "euler_ancestral", "dpmpp_2m", "heun", "ddim"])
def test_off_with_fixed_noise_is_the_stock_sampler(server, graph, sampler, cfg):
    scene = make_scene(server, graph)
    changes = {"sampler_name": sampler, "cfg": cfg, "steps": 3}
    ours, stock = scene.save(scene.ours(reweighting="off", **changes)), scene.save(scene.stock(**changes))
    result = server.run(graph)
    assert torch.equal(result.latent(ours), result.latent(stock))
    assert result.latent(ours).isfinite().all()


def test_off_is_the_stock_sampler_from_a_noised_normal_and_for_a_batch(server, graph):
    scene = make_scene(server, graph, boxes=THREE, batch=3)
    changes = {"denoise": 0.6, "scheduler": "karras"}
    ours, stock = scene.save(scene.ours(reweighting="off", **changes)), scene.save(scene.stock(**changes))
    result = server.run(graph)
    assert torch.equal(result.latent(ours), result.latent(stock))


def test_strength_0_and_weight_1_change_no_bit(server, graph):
    scene = make_scene(server, graph)
    off = scene.save(scene.ours(reweighting="off"))
    none = [scene.save(scene.ours(reweighting=m, reweighting_strength=0.0)) for m in ("uniform", "balanced", "paper")]
    result = server.run(graph)
    assert all(torch.equal(result.latent(one), result.latent(off)) for one in none)


def test_a_model_is_the_same_after_our_nodes(server):
    def stock():
        scene = make_scene(server, graph := Graph())
        latent = scene.save(scene.stock())
        result = server.run(graph)
        assert scene.model.node in result.cached and latent.node not in result.cached
        return result.latent(latent)

    scene = make_scene(server, graph := Graph())
    for mode in ("uniform", "balanced", "paper", "release"):
        for blending in ("fixed noise", "fresh noise"):
            scene.save(scene.ours(reweighting=mode, blending=blending))
    server.run(graph)
    before = stock()
    server.run(graph)
    assert torch.equal(stock(), before)


def test_fresh_noise_repeats_and_is_not_fixed_noise(server, graph):
    def fresh():
        scene = make_scene(server, graph := Graph())
        latent = scene.save(scene.ours(blending="fresh noise"))
        result = server.run(graph)
        assert latent.node not in result.cached
        return result.latent(latent)

    once = fresh()
    scene = make_scene(server, graph)
    fixed, normal = scene.save(scene.ours()), scene.save(scene.normal)
    result = server.run(graph)
    again = fresh()
    assert torch.equal(once, again)
    assert rounding(result.latent(fixed), once) > 100 * ROUNDING
    outside = torch.ones(8, 8, dtype=bool)
    outside[3:7, 2:6] = False
    assert rounding(once[..., outside], result.latent(normal)[..., outside]) < ROUNDING


@pytest.mark.parametrize("mode", ["balanced", "release"])
def test_around_the_mask_the_model_sees_the_normal_noised_anew_at_each_step(server, graph, mode):
    """Eq. 1; the release's mask is larger at first, and what is between it and the drawn one is the sampler's own."""
    scene = make_scene(server, graph, boxes=((3, 3, 5, 5),))
    model = graph("ProbeInputs", model=scene.model, name=mode)
    scene.save(scene.ours(model=model, cfg=1.0, steps=3, reweighting=mode, blending="fresh noise"))
    normal = scene.save(scene.normal)
    y = SD15_SCALE * server.run(graph).latent(normal)
    seen = load_file(server.base / "output" / f"{mode}.safetensors")
    m = torch.zeros(1, 1, 8, 8)
    m[..., 3:5, 3:5] = 1
    draws = generator_for(5, "fresh", 0)
    for number in range(3):
        sigma = seen[f"sigma{number}"]
        wanted = y + sigma * torch.randn(4, 8, 8, generator=draws)
        alike = torch.isclose(seen[f"x{number}"], wanted, rtol=1e-5, atol=1e-5).all(1, keepdim=True)
        inside = dilated_mask(m, 999, 3) if (mode, number) == ("release", 0) else m
        if mode == "balanced" or number == 0:
            assert torch.equal(alike, inside == 0)


@pytest.mark.parametrize("sampler", ["euler", "dpm_2", "heun", "dpm_fast"])
def test_what_the_release_dilates_is_back_to_the_mask_at_the_end(server, graph, sampler):
    """Two steps: at the last one the dilation would still reach a cell."""
    scene = make_scene(server, graph)
    ours, normal = scene.save(scene.ours(reweighting="release", sampler_name=sampler)), scene.save(scene.normal)
    result = server.run(graph)
    outside = torch.ones(8, 8, dtype=torch.bool)
    outside[3:7, 2:6] = False
    assert rounding(result.latent(ours)[..., outside], result.latent(normal)[..., outside]) < ROUNDING


@pytest.mark.parametrize("sampler", ["euler", "dpmpp_2m", "heun"])
def test_a_batch_is_its_images_one_by_one(server, graph, sampler):
    """But for float32: sums over another batch round otherwise, and the steps enlarge that, as in the stock sampler."""
    scene = make_scene(server, graph, boxes=THREE, batch=3)
    changes = {"sampler_name": sampler, "steps": 3}
    alone = []
    for number, box in enumerate(THREE):
        normal = graph("LatentFromBatch", samples=scene.normal, batch_index=number, length=1)
        mask = masks(graph, [box])
        alone.append(replace(scene, normal=normal, mask=mask, positive=scene.condition(mask)))

    def both(sample):
        return scene.save(sample(scene)), [scene.save(sample(one)) for one in alone]

    kinds = {
        "stock": both(lambda one: one.stock(**changes)),
        "fixed": both(lambda one: one.ours(**changes)),
        "fresh": both(lambda one: one.ours(blending="fresh noise", **changes)),
    }
    result = server.run(graph)
    apart = {
        kind: rounding(result.latent(batch), torch.cat([result.latent(one) for one in singles]))
        for kind, (batch, singles) in kinds.items()
    }
    assert max(apart.values()) < 10 * apart["stock"] < 0.01


def test_one_normal_serves_many_masks_and_one_mask_many_normals(server, graph):
    scene = make_scene(server, graph, boxes=THREE)
    many_masks = scene.save(scene.ours())
    normals = graph("ProbeNormal", seed=3, batch=2, rows=8, columns=8)
    mask = masks(graph, [THREE[0]])
    many_normals = scene.ours(normal=normals, mask=mask, positive=scene.condition(mask))
    latent, maps = scene.save(many_normals), scene.show(many_normals[1])
    result = server.run(graph)
    assert result.latent(many_masks).shape == (3, 4, 8, 8)
    assert result.latent(latent).shape == (2, 4, 8, 8)
    assert result.images(maps).shape == (2, 64, 64, 3)


@pytest.mark.parametrize(("rows", "columns"), [(9, 13), (16, 8), (7, 7)])
@pytest.mark.parametrize("mode", ["balanced", "release"])
def test_grids_that_are_odd_or_not_square(server, graph, rows, columns, mode):
    scene = make_scene(server, graph, rows=rows, columns=columns, boxes=((1, 2, 5, 7),))
    ours = scene.ours(reweighting=mode, blending="fresh noise")
    latent, off, maps = scene.save(ours), scene.save(scene.ours(reweighting="off")), scene.show(ours[1])
    stock = scene.save(scene.stock())
    result = server.run(graph)
    assert torch.equal(result.latent(off), result.latent(stock))
    assert result.latent(latent).shape == (1, 4, rows, columns)
    assert result.latent(latent).isfinite().all()
    inside = result.images(maps)[0, 16:56, 8:40]
    assert inside.max() > 127


def test_a_mask_of_another_size_covers_the_same_view(server, graph):
    scene = make_scene(server, graph)
    large, small = masks(graph, [(2, 3, 6, 7)], scale=24), masks(graph, [(2, 3, 6, 7)], scale=1)
    latents = [scene.save(scene.ours(mask=mask)) for mask in (scene.mask, large, small)]
    result = server.run(graph)
    first, *others = (result.latent(one) for one in latents)
    assert all(torch.equal(other, first) for other in others)


@pytest.mark.parametrize(("width", "height"), [(71, 64), (128, 142), (8, 8)])
def test_a_mask_of_the_photo_as_it_was_before_the_vae_cut_it_fits(server, graph, width, height):
    """A photo of 71 x 71 becomes 8 x 8 cells; the mask may have been drawn at another scale."""
    scene = make_scene(server, graph)
    mask = graph("ProbeMasks", width=width, height=height, boxes="[[1, 1, 5, 5]]")
    latent = scene.save(scene.ours(mask=mask))
    assert server.run(graph).latent(latent).isfinite().all()


@pytest.mark.parametrize("node", ["ADiffKSampler", "ADiffGenerateMasks"])
def test_a_cancel_leaves_the_model_usable(server, node):
    def small():
        scene = make_scene(server, graph := Graph())
        latent = scene.save(scene.ours(blending="fresh noise"))
        result = server.run(graph)
        return result.latent(latent)

    before = small()
    scene = make_scene(server, graph := Graph())
    if node == "ADiffKSampler":
        scene.save(scene.ours(steps=1000))
    else:
        given = {"count": 256, "seed": 1, "steps": 1000, "cfg": 5.0, "threshold": 0.5, "tries": 200}
        made = graph(node, defect=scene.defect, model=scene.model, vae=scene.vae, empty=scene.negative, **given)
        graph("PreviewAny", source=made[1])
    name = server.queue(graph)
    while not server.running():
        time.sleep(0.02)
    time.sleep(2)
    server.interrupt()
    events = dict(server.wait(name).events)
    assert events["execution_interrupted"]["node_type"] == node
    assert torch.equal(small(), before)
