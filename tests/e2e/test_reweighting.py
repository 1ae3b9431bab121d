"""Re-weighting on ComfyUI's own attention: its modes, its rows, its tokens, and what else patches the model."""

from itertools import combinations

import numpy as np
import pytest
import torch

from adiff.reweighting import LEVEL
from tests.e2e.comfyui import GraphError
from tests.e2e.scenes import ROUNDING, SETTINGS, make_scene, masks, rounding, tokens

MODES = ("uniform", "balanced", "paper", "release")
GREY = 127
"""Weight 1 in the weight maps' pictures."""


def test_every_mode_has_its_own_weights_and_result(server, graph):
    scene = make_scene(server, graph)
    nodes = {mode: scene.ours(reweighting=mode) for mode in ("off", *MODES)}
    latents = {mode: scene.save(node) for mode, node in nodes.items()}
    shown = {mode: scene.show(node[1]) for mode, node in nodes.items()}
    result = server.run(graph)
    maps = {mode: result.images(node)[0, :, :, 0] for mode, node in shown.items()}
    assert (maps["off"] == GREY).all()
    inside = np.zeros((64, 64), dtype=bool)
    inside[24:56, 16:48] = True
    for mode in MODES:
        assert (maps[mode] != GREY).any()
    assert np.abs(maps["uniform"][inside] - 255 * LEVEL / (1 + LEVEL)).max() <= 1
    assert (maps["paper"][~inside] == 0).all()
    assert (maps["balanced"][~inside] == GREY).all()
    assert len(np.unique(maps["balanced"][inside])) > 2
    for one, other in combinations(MODES, 2):
        assert not np.array_equal(maps[one], maps[other])
    for one, other in combinations(("off", *MODES), 2):
        assert rounding(result.latent(latents[one]), result.latent(latents[other])) > ROUNDING


def test_apply_reweighting_serves_any_sampler_node_and_several_in_turn(server, graph):
    scene = make_scene(server, graph)
    patched = scene.reweighted()
    latent = {"positive": scene.positive, "negative": scene.negative, "latent_image": scene.masked()}
    named = {"sampler_name": "euler", "scheduler": "simple"}
    advanced = graph(
        "KSamplerAdvanced", model=patched, add_noise="enable", noise_seed=5, steps=2, cfg=2.0, start_at_step=0,
        end_at_step=10000, return_with_leftover_noise="disable", **named, **latent,
    )  # fmt: skip
    custom = graph(
        "SamplerCustom", model=patched, add_noise=True, noise_seed=5, cfg=2.0,
        sampler=graph("KSamplerSelect", sampler_name="euler"),
        sigmas=graph("BasicScheduler", model=scene.model, scheduler="simple", steps=2, denoise=1.0), **latent,
    )  # fmt: skip
    samplers = [scene.ours(), scene.stock(model=patched), advanced, custom]
    saved = [scene.save(one) for one in samplers]
    plain = scene.save(scene.stock())
    result = server.run(graph)
    first, *others = (result.latent(one) for one in saved)
    assert all(torch.equal(other, first) for other in others)
    assert rounding(first, result.latent(plain)) > 5 * ROUNDING


def test_the_last_reweighting_counts_once(server, graph):
    scene = make_scene(server, graph)
    twice = scene.reweighted(scene.reweighted(reweighting="uniform", reweighting_strength=3.0))
    once, again = scene.save(scene.stock(model=scene.reweighted())), scene.save(scene.stock(model=twice))
    result = server.run(graph)
    assert torch.equal(result.latent(again), result.latent(once))


def test_distances_measure_differently(server, graph):
    scene = make_scene(server, graph)
    given = [
        {"distance": "latent"},
        {"distance": "rgb"},
        {"distance": "preview"},
        {"distance": "vae", "vae": scene.vae},
    ]
    latents = [scene.save(scene.ours(steps=3, **one)) for one in given]
    seldom = scene.save(scene.ours(distance="vae", vae=scene.vae, every=2, steps=3))
    result = server.run(graph)
    every = [result.latent(one) for one in (*latents, seldom)]
    assert all(latent.isfinite().all() for latent in every)
    assert all(not torch.equal(one, other) for one, other in combinations(every, 2))


@pytest.mark.parametrize("mode", MODES)
def test_the_order_of_positive_and_negative_does_not_matter(server, graph, mode):
    scene = make_scene(server, graph, negative=12, boxes=((1, 1, 4, 4), (2, 3, 6, 7)))
    models = [scene.model, graph("ProbeSwapped", model=scene.model), graph("ProbeLittleMemory", model=scene.model)]
    together, swapped, apart = (scene.save(scene.ours(model=one, reweighting=mode)) for one in models)
    result = server.run(graph)
    assert rounding(result.latent(swapped), result.latent(together)) < ROUNDING
    assert rounding(result.latent(apart), result.latent(together)) < ROUNDING


def test_release_weighs_our_tokens_behind_and_before_a_prompt(server, graph):
    scene = make_scene(server, graph)
    prompt = tokens(graph, 7)
    appended = scene.condition(scene.mask, prompt)
    behind = graph("ConditioningConcat", conditioning_to=prompt, conditioning_from=scene.positive)
    before = graph("ConditioningConcat", conditioning_to=scene.positive, conditioning_from=prompt)
    release = scene.reweighted(reweighting="release")
    weighed = [scene.save(scene.stock(model=release, positive=one)) for one in (appended, behind, before)]
    plain = scene.save(scene.stock(positive=behind))
    result = server.run(graph)
    first, *others = (result.latent(one) for one in weighed)
    assert all(rounding(other, first) < ROUNDING for other in others)
    assert rounding(result.latent(plain), first) > 5 * ROUNDING


def test_release_leaves_other_tokens_alone(server, graph):
    """Tokens of zeros have the logit 0, which no weight changes: a difference could only come from the prompt's."""
    scene = make_scene(server, graph)
    zeros = graph("ADiffAnomalyConditioning", defect=_plain(server, graph), mask=scene.mask, strength=0.0)
    prompt = tokens(graph, 7)
    both = graph("ConditioningConcat", conditioning_to=prompt, conditioning_from=zeros)
    release = scene.reweighted(reweighting="release")
    weighed, plain = scene.save(scene.stock(model=release, positive=both)), scene.save(scene.stock(positive=both))
    none = scene.save(scene.stock(model=release, positive=prompt))
    off = scene.save(scene.stock(positive=prompt))
    result = server.run(graph)
    assert rounding(result.latent(weighed), result.latent(plain)) < ROUNDING
    assert torch.equal(result.latent(none), result.latent(off))
    assert "holds none" in server.log


def test_rows_mode_weighs_every_token_wherever_it_stands(server, graph):
    scene = make_scene(server, graph)
    prompt = tokens(graph, 7)
    both = graph("ConditioningCombine", conditioning_1=scene.positive, conditioning_2=prompt)
    area = graph("ConditioningSetArea", conditioning=prompt, width=64, height=64, x=0, y=0, strength=1.0)
    part = graph("ConditioningCombine", conditioning_1=scene.positive, conditioning_2=area)
    half = graph("ConditioningSetMask", conditioning=prompt, mask=scene.mask, strength=1.0, set_cond_area="default")
    masked = graph("ConditioningCombine", conditioning_1=scene.positive, conditioning_2=half)
    latents = [scene.save(scene.ours(positive=one)) for one in (both, part, masked)]
    off = scene.save(scene.ours(positive=both, reweighting="off"))
    result = server.run(graph)
    assert all(result.latent(one).isfinite().all() for one in latents)
    assert rounding(result.latent(off), result.latent(latents[0])) > 5 * ROUNDING


@pytest.mark.parametrize("mode", MODES)
def test_an_area_as_large_as_the_image_is_no_area(server, graph, mode):
    """ComfyUI gives each list of conditions a copy of the other's area, under the name of the one it is a copy of."""
    scene = make_scene(server, graph, negative=12)
    given = {"width": 1.0, "height": 1.0, "x": 0.0, "y": 0.0, "strength": 1.0}
    whole = {
        kind: graph("ConditioningSetAreaPercentage", conditioning=getattr(scene, kind), **given)
        for kind in ("positive", "negative")
    }
    latents = [scene.save(scene.ours(reweighting=mode, **{kind: one})) for kind, one in whole.items()]
    without = scene.save(scene.ours(reweighting=mode))
    result = server.run(graph)
    assert all(rounding(result.latent(one), result.latent(without)) < ROUNDING for one in latents)


@pytest.mark.parametrize(("mode", "by_transformer"), [*((mode, False) for mode in MODES), ("balanced", True)])
def test_another_pack_applied_before_ours_is_still_called(server, graph, mode, by_transformer):
    scene = make_scene(server, graph, negative=12)
    other = graph("ProbeOtherPack", model=scene.model, gain=0.5, by_transformer=by_transformer)
    alone = scene.save(scene.ours(model=other, reweighting="off"))
    without = scene.save(scene.ours(reweighting="off"))
    none = scene.save(scene.ours(model=other, reweighting="uniform", reweighting_strength=0.0))
    both = scene.save(scene.ours(model=other, reweighting=mode))
    result = server.run(graph)
    assert torch.equal(result.latent(none), result.latent(alone))
    assert rounding(result.latent(alone), result.latent(without)) > 5 * ROUNDING
    assert rounding(result.latent(both), result.latent(alone)) > 5 * ROUNDING


def test_another_pack_applied_after_ours_takes_ours_out(server, graph):
    scene = make_scene(server, graph)
    other = graph("ProbeOtherPack", model=scene.model, gain=0.5, by_transformer=False)
    last = graph("ProbeOtherPack", model=scene.reweighted(), gain=0.5, by_transformer=False)
    alone, both = scene.save(scene.stock(model=other)), scene.save(scene.stock(model=last))
    result = server.run(graph)
    assert torch.equal(result.latent(both), result.latent(alone))


def test_a_compiled_model_is_reweighted_as_another(server, graph):
    scene = make_scene(server, graph)
    compiled = graph("ProbeCompiled", model=scene.model)
    plain, ours = scene.save(scene.ours()), scene.save(scene.ours(model=compiled))
    behind = scene.save(scene.stock(model=graph("ProbeCompiled", model=scene.reweighted())))
    result = server.run(graph)
    assert torch.equal(result.latent(ours), result.latent(plain))
    assert torch.equal(result.latent(behind), result.latent(plain))
    assert "TorchCompileModel is left out" in server.log


def test_a_lora_stays_in(server, graph):
    scene = make_scene(server, graph)
    patched = graph("LoraLoaderModelOnly", model=scene.model, lora_name="random.safetensors", strength_model=0.7)
    ours, stock = scene.save(scene.ours(model=patched, reweighting="off")), scene.save(scene.stock(model=patched))
    weighed, without = scene.save(scene.ours(model=patched)), scene.save(scene.ours())
    after = graph("LoraLoaderModelOnly", model=scene.reweighted(), lora_name="random.safetensors", strength_model=0.7)
    behind = scene.save(scene.stock(model=after))
    result = server.run(graph)
    assert torch.equal(result.latent(ours), result.latent(stock))
    assert rounding(result.latent(weighed), result.latent(without)) > 5 * ROUNDING
    assert rounding(result.latent(weighed), result.latent(ours)) > 5 * ROUNDING
    assert torch.equal(result.latent(behind), result.latent(weighed))


def test_a_controlnet_stays_in(server, graph):
    scene = make_scene(server, graph)
    image = graph("EmptyImage", width=64, height=64, batch_size=1, color=0x8040C0)
    net = graph("ControlNetLoader", control_net_name="random.safetensors")
    given = {"strength": 0.5, "start_percent": 0.0, "end_percent": 1.0}
    steered = graph(
        "ControlNetApplyAdvanced", positive=scene.positive, negative=scene.negative, control_net=net, image=image,
        **given,
    )  # fmt: skip
    conds = {"positive": steered, "negative": steered[1]}
    ours, stock = scene.save(scene.ours(reweighting="off", **conds)), scene.save(scene.stock(**conds))
    weighed = [scene.save(scene.ours(reweighting=mode, **conds)) for mode in ("balanced", "release")]
    without = scene.save(scene.ours())
    result = server.run(graph)
    assert torch.equal(result.latent(ours), result.latent(stock))
    assert rounding(result.latent(weighed[0]), result.latent(without)) > 5 * ROUNDING
    assert all(rounding(result.latent(one), result.latent(ours)) > ROUNDING for one in weighed)


@pytest.mark.parametrize("sampler", ["euler_ancestral", "dpmpp_2m_sde", "dpmpp_2s_ancestral", "dpm_2", "uni_pc", "lcm"])
def test_other_samplers(server, graph, sampler):
    scene = make_scene(server, graph)
    latents = [
        scene.save(scene.ours(sampler_name=sampler, blending=one, reweighting=mode))
        for one in ("fixed noise", "fresh noise")
        for mode in ("balanced", "release")
    ]
    result = server.run(graph)
    assert all(result.latent(one).isfinite().all() for one in latents)


def test_a_guider_that_counts_its_conditions_otherwise(server, graph):
    scene = make_scene(server, graph)
    sigmas = graph("BasicScheduler", model=scene.model, scheduler="simple", steps=2, denoise=1.0)
    sampler = graph("KSamplerSelect", sampler_name="euler")
    noise = graph("RandomNoise", noise_seed=5)

    def run(model):
        guider = graph(
            "DualCFGGuider", model=model, cond1=scene.positive, cond2=scene.negative, negative=scene.negative,
            cfg_conds=1.0, cfg_cond2_negative=1.0, style="regular",
        )  # fmt: skip
        latent = graph(
            "SamplerCustomAdvanced", noise=noise, guider=guider, sampler=sampler, sigmas=sigmas,
            latent_image=scene.masked(),
        )  # fmt: skip
        return scene.save(latent)

    settings = {**SETTINGS, "cfg": 1.0}
    dual, single = run(scene.reweighted()), scene.save(scene.stock(model=scene.reweighted(), **settings))
    result = server.run(graph)
    assert rounding(result.latent(dual), result.latent(single)) < ROUNDING


def test_masks_and_normals_must_fit_the_batch_of_any_sampler(server, graph):
    scene = make_scene(server, graph)
    model = scene.reweighted(mask=masks(graph, [(1, 1, 3, 3), (2, 2, 4, 4)]))
    wide = graph("ProbeNormal", seed=3, batch=3, rows=8, columns=8)
    scene.save(scene.stock(model=model, latent_image=wide))
    with pytest.raises(GraphError, match="2 masks for a batch of 3"):
        server.run(graph)


def _plain(server, graph):
    label = server.option("ADiffLoadDefect", "defect", "plain.safetensors / metal / scratch")
    return graph("ADiffLoadDefect", defect=label)
