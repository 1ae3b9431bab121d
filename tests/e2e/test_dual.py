"""Dual models in a graph: the same pairs as the command line's, whatever the batch; training, cancel, bad input."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from diffusers import UNet2DConditionModel
from PIL import Image
from safetensors.torch import load_file

from adiff.backbone import demo_folder, load_backbone
from adiff.backbone.diffusers_host import DiffusersBackbone
from adiff.backbone.layout import unet_names
from adiff.backbone.loading import Parts, load_single_file
from adiff.datasets.surfaces import render, sample_seed
from adiff.dual import DualModel, DualSampling, DualSettings, load_dual, sample_pairs, save_dual
from adiff.dual.layers import new_weights
from adiff.dual.learning import learn_dual
from adiff.dual.run import draw_pairs
from adiff.learning import Shots
from tests.e2e.checkpoints import SD15_SCALE, random_unet
from tests.e2e.comfyui import Graph, GraphError
from tests.e2e.scenes import masks
from tests.e2e.test_training import Listener, break_off_and_go_on, demo, drawn, offered, states

SIZE, CHANGE = 64, 0.05
NULL_SEED, NULL_TOKENS = 100, 16
"""Of the empty prompt: as many tokens as the nested conditions have, so that both share a batch."""
QUICK = {
    "overwrite": False, "steps": 4, "batch": 1, "learning_rate": 1e-3, "rank": 4, "saim": "low", "bcm": "off",
    "flips": "none", "size": SIZE, "seed": 3, "early_stop": False, "preview_every": 0, "checkpointing": "auto",
}  # fmt: skip


@pytest.fixture(scope="module")
def headless():
    """The graph's random checkpoint with the demo's autoencoder, as the command line has it."""
    unet = UNet2DConditionModel(
        sample_size=SIZE // 8, block_out_channels=(320, 320), layers_per_block=1, attention_head_dim=8,
        down_block_types=("CrossAttnDownBlock2D",) * 2, up_block_types=("CrossAttnUpBlock2D",) * 2,
        cross_attention_dim=768,
    )  # fmt: skip
    names, stored = unet_names(unet.state_dict(), 1), random_unet(1)
    unet.load_state_dict({name: stored[key].half().float() for name, key in names.items()})
    vae = load_single_file(demo_folder() / "demo.safetensors").vae
    vae.register_to_config(scaling_factor=SD15_SCALE)
    null = torch.randn(1, NULL_TOKENS, 768, generator=torch.Generator().manual_seed(NULL_SEED))
    return DiffusersBackbone("sd15", Parts(unet, vae, null), torch.device("cpu"), torch.float32)


@pytest.fixture(scope="module")
def models(server, headless):
    """A random dual model of each kind of BCM, as files of the server; by the kind."""
    made = {}
    for kind in ("off", "paper", "release"):
        rng = torch.Generator().manual_seed(5)
        weights = new_weights(headless.attentions, rng, rank=4, saim="full" if kind == "off" else "low", bcm=kind)
        weights = {n: w + CHANGE * torch.randn(w.shape, generator=rng) for n, w in weights.items()}
        shots = np.zeros((2, SIZE, SIZE), bool)
        shots[:, 20:40, 16:40] = True
        made[kind] = DualModel(
            "metal", "dent", weights, *torch.randn(2, NULL_TOKENS // 2, 768, generator=rng), shots, torch.zeros(2, 8),
            "0" * 64, "random", {"shots": ["a.png", "b.png"]},
            None if kind == "off" else torch.randn(2, 4, 8, 8, generator=rng),
        )  # fmt: skip
        save_dual(server.base / "models" / "adiff_dual" / f"{kind}.safetensors", made[kind])
    return {kind: load_dual(server.base / "models" / "adiff_dual" / f"{kind}.safetensors") for kind in made}


def base(graph, changed=None):
    """The random checkpoint with the demo's VAE."""
    model = graph("CheckpointLoaderSimple", ckpt_name="sd15.safetensors")
    if changed:
        model = graph(changed, model=model)
    empty = graph("ProbeTokens", seed=NULL_SEED, tokens=NULL_TOKENS, rows=1, width=768)
    return {"model": model, "vae": graph("ADiffLoadDemoModel")[1], "empty": empty}


def text(graph, seed, tokens=NULL_TOKENS):
    """Random tokens in the place of a prompt's."""
    return graph("ProbeTokens", seed=seed, tokens=tokens, rows=1, width=768)


def sample(graph, of, dual, **changes):
    """Dual Sampler: [0] image, [1] part, [2] mask, [3] measures."""
    given = {"pairs": 2, "seed": 7, "steps": 2, "cfg": 2.5, "sampler_name": "euler", "scheduler": "simple"}
    return graph("ADiffDualSampler", **of, dual=dual, **given | changes)


def made_by(server, kind, changed=None, **changes):
    """Images and parts, (2, P, H, W, 3), and the measures."""
    graph = Graph()
    pair = sample(graph, base(graph, changed), graph("ADiffLoadDual", dual=f"{kind}.safetensors"), **changes)
    shown = [graph("SaveImage", images=pair[i], filename_prefix="e2e") for i in (0, 1)]
    measures = graph("PreviewAny", source=pair[3])
    result = server.run(graph)
    return np.stack([result.images(one) for one in shown]).astype(int), json.loads(result.text(measures))


@pytest.mark.parametrize("kind", ["off", "paper", "release"])
def test_both_hosts_make_the_same_pairs_of_the_same_seeds(server, headless, models, kind):
    settings, model = DualSampling(2, 2.5), models[kind]

    def draw(ids, generators):
        behind = None if kind == "off" else model.backgrounds[list(ids)]
        return sample_pairs(headless, model, settings, generators, behind)

    expected = [pair for pair, _ in draw_pairs(draw, model.name, settings, range(2), 7).values()]
    found, measures = made_by(server, kind)
    for branch, name in enumerate(("image", "part")):
        pictures = np.stack([getattr(pair, name) for pair in expected]).astype(int)
        assert pictures.std() > 5 and abs(pictures - found[branch]).max() <= 1
    assert [one["seed"] for one in measures] == [7, 7]
    assert [one["area"] for one in measures] == pytest.approx([pair.mask.mean() for pair in expected], abs=0.005)
    assert abs(found[0] - found[1]).max() > 20


@pytest.mark.parametrize("changed", ["ProbeSwapped", "ProbeLittleMemory", "ProbeCompiled"])
def test_rows_are_found_whatever_the_order_and_the_size_of_the_batch(server, models, changed):
    plain, _ = made_by(server, "release")
    other, _ = made_by(server, "release", changed)
    assert abs(plain - other).max() <= 1


def test_a_pair_does_not_depend_on_how_many_there_are(server, models):
    two, _ = made_by(server, "off")
    one, _ = made_by(server, "off", pairs=1)
    assert abs(two[:, :1] - one).max() <= 1


def test_prompts_stand_in_front_of_what_was_learned(server, headless, models):
    """One that is open is the file's, and the empty prompt where the file has none; both hosts agree."""
    null, *texts = (
        torch.randn(NULL_TOKENS, 768, generator=torch.Generator().manual_seed(seed)) for seed in (NULL_SEED, 1, 2)
    )
    known = replace(models["off"], prompts=torch.stack(texts))
    save_dual(server.base / "models" / "adiff_dual" / "words.safetensors", known)
    settings, found = DualSampling(2, 2.5), {}
    for name, file, given in (("file", "words", {}), ("one", "off", {"prompt": 1}), ("other", "words", {"prompt": 2})):
        graph = Graph()
        words = {socket: text(graph, seed) for socket, seed in given.items()}
        pair = sample(graph, base(graph), graph("ADiffLoadDual", dual=f"{file}.safetensors"), pairs=1, **words)
        shown = graph("SaveImage", images=pair, filename_prefix="e2e")
        found[name] = server.run(graph).images(shown).astype(int)
    for name, prompts in (("file", texts), ("one", [texts[0], null]), ("other", [texts[1], texts[1]])):
        model = replace(known, prompts=torch.stack(prompts))
        ((expected, _),) = draw_pairs(
            lambda ids, generators, model=model: sample_pairs(headless, model, settings, generators),
            model.name, settings, range(1), 7,
        ).values()  # fmt: skip
        assert abs(expected.image.astype(int) - found[name][0]).max() <= 1, name
    assert abs(found["file"] - found["one"]).max() > 5 and abs(found["file"] - found["other"]).max() > 5


def train(graph, of, dataset, name, **changes):
    """Train Dual: [0] dual, [1] curve, [2] report."""
    return graph("ADiffTrainDual", dataset=dataset, **of, name=name, **QUICK | changes)


def stored(server, name):
    return load_dual(server.base / "models" / "adiff_dual" / f"{name}.safetensors")


def test_from_photos_to_a_file_to_saved_pairs(server, graph):
    """The same as the command line learns, its blocks computed once; the MODEL is as before to the bit."""
    of = demo(graph)
    before = graph("PreviewAny", source=graph("ProbeWeights", model=of["model"]))
    words = {"prompt": text(graph, 1), "part_prompt": text(graph, 2)}
    learned = train(graph, of, drawn(graph), "from photos", bcm="paper", preview_every=2, checkpointing="on", **words)
    after = graph("PreviewAny", source=graph("ProbeWeights", model=of["model"], after=learned[2]))
    report = graph("PreviewAny", source=learned[2])
    pair = sample(graph, of, learned, pairs=1, steps=4)
    graph("ADiffSavePairs", images=pair, masks=pair[2], folder="dual", product="metal", defect="scratch",
          measures=pair[3])  # fmt: skip
    with Listener(server.url) as events:
        result = server.run(graph)
        events.wait_for(lambda kind, data: kind == "progress" and data["node"] == learned.node and data["value"] == 4)
    assert result.text(before) == result.text(after)
    pictures = [data for kind, data in events.seen if kind == "preview"]
    assert pictures and all(one.width > 2 * one.height - 20 for one in pictures[:1])
    sizes = [one.size for one in pictures if one.size != (512, 512)]  # which the samplers' own are
    assert sizes[-1] == (768, 432)  # the loss curve: a browser goes on showing the last live picture
    image = server.base / "output" / "dual" / "metal" / "test" / "scratch" / "000000.png"
    assert Image.open(image).size == (SIZE, SIZE)
    model, shots = stored(server, "from photos"), [
        render("metal", "scratch", 128, sample_seed(0, "metal", "scratch", "test", i)) for i in range(2)
    ]  # fmt: skip
    assert "metal/scratch, 2 shots of 64 pixels, prompts of 16 tokens" in result.text(report)
    prompts = torch.stack([
        torch.randn(NULL_TOKENS, 768, generator=torch.Generator().manual_seed(seed)) for seed in (1, 2)
    ])  # fmt: skip
    assert torch.equal(model.prompts, prompts)
    settings = DualSettings(steps=4, batch=1, lr=1e-3, rank=4, saim="low", bcm="paper", flips="none", size=SIZE)
    opened = Shots([(one.image, one.mask) for one in shots], ("0", "1"), (), ())
    same = learn_dual(load_backbone("demo"), ("metal", "scratch"), opened, prompts=prompts, settings=settings, seed=3)
    assert model.info["loss"] == pytest.approx(same.info["loss"], rel=2e-3)
    ways_out = [name for name in same.weights if name.endswith((".up", "/out.weight", "bcm.out.weight"))]
    one, other = (torch.cat([of.weights[name].flatten() for name in ways_out]) for of in (model, same))
    assert torch.cosine_similarity(one, other, dim=0) > 0.95
    assert offered(server, "ADiffLoadDual", "dual").count("from photos.safetensors") == 1
    assert not states(server)


def test_a_cancelled_training_goes_on_to_the_same_result(server):
    def build(name, steps=12):
        graph = Graph()
        return graph, train(graph, demo(graph), drawn(graph), name, steps=steps, overwrite=True)

    graph, learned = build("broken")
    break_off_and_go_on(server, graph, learned, learned[2], at=5, steps=12)
    server.run(build("other", steps=1)[0])  # what was learned last would be at hand
    server.run(build("unbroken")[0])
    folder = server.base / "models" / "adiff_dual"
    one, other = (load_file(folder / f"{name}.safetensors") for name in ("broken", "unbroken"))
    assert list(one) == list(other) and all(torch.equal(one[name], other[name]) for name in one)


def test_what_was_deleted_or_gets_another_name_is_written_without_learning_it_again(server):
    """ComfyUI runs no node again because its file is gone."""
    told = []
    with Listener(server.url) as events:
        for name in ("deleted", "deleted", "renamed"):
            graph = Graph()
            learned = train(graph, demo(graph), drawn(graph), name, steps=7, seed=9)
            report = graph("PreviewAny", source=learned[2])
            told.append(server.run(graph).text(report).splitlines()[1])
            path = server.base / "models" / "adiff_dual" / f"{name}.safetensors"
            assert load_dual(path).info["steps"] == 7
            path.unlink()
        events.wait_for_step(learned, 7, 7)
        assert events.steps(learned, 7).count(7) == 1
    assert told[0].startswith("7 steps in ") and all(one.startswith("7 steps, learned before") for one in told[1:])


def test_the_choices_and_defaults_are_the_methods(server):
    from adiff.dual.layers import BCM, SAIM
    from adiff.dual.training import FLIPS

    inputs, settings = server.object_info()["ADiffTrainDual"]["input"]["required"], DualSettings()
    for name, choices in (("saim", SAIM), ("bcm", BCM), ("flips", tuple(FLIPS))):
        assert tuple(inputs[name][1]["options"]) == choices
    for name in ("steps", "batch", "rank", "saim", "bcm", "flips", "early_stop"):
        assert inputs[name][1]["default"] == getattr(settings, name), name
    assert inputs["learning_rate"][1]["default"] == settings.lr


def several_defects(server, graph):
    for defect in ("dent", "hole"):
        folder = server.base / "input" / "two kinds" / defect
        for part in ("images", "masks"):
            (folder / part).mkdir(parents=True, exist_ok=True)
        picture = np.zeros((32, 32, 3), np.uint8)
        picture[8:16, 8:16] = 255
        for part in ("images", "masks"):
            Image.fromarray(picture).save(folder / part / "0.png")
    dataset = graph("ADiffLoadDefectDataset", data="two kinds", product="", defect="", shots=1)
    return train(graph, demo(graph), dataset, "new")


def name_is_a_path(server, graph):
    return train(graph, demo(graph), drawn(graph), "../new")


def name_is_taken(server, graph):
    return train(graph, demo(graph), drawn(graph), "off")


def a_foreground_is_lacking(server, graph):
    return train(graph, demo(graph), drawn(graph), "new", bcm="paper", foreground=masks(graph, [[1, 1, 5, 5]]))


def foreground_without_bcm(server, graph):
    return train(graph, demo(graph), drawn(graph), "new", foreground=masks(graph, [[1, 1, 5, 5]] * 2))


def size_is_no_multiple(server, graph):
    return train(graph, demo(graph), drawn(graph), "new", size=72)


def model_is_sd2(server, graph):
    loader = graph("CheckpointLoaderSimple", ckpt_name="sd20.safetensors")
    return train(graph, demo(graph) | {"model": loader}, drawn(graph), "new")


def file_is_missing(server, graph):
    return graph("ADiffLoadDual", dual="../off.safetensors")[1]


def dual_is_of_another_base(server, graph):
    return sample(graph, demo(graph), graph("ADiffLoadDual", dual="off.safetensors"))[3]


def photo_without_bcm(server, graph):
    photo = graph("ADiffDrawSurface", product="gasket", count=1, size=64, seed=0)
    return sample(graph, base(graph), graph("ADiffLoadDual", dual="off.safetensors"), normal=photo)[3]


def foreground_without_photo(server, graph):
    dual = graph("ADiffLoadDual", dual="paper.safetensors")
    return sample(graph, base(graph), dual, foreground=masks(graph, [[1, 1, 5, 5]]))[3]


def prompts_are_of_two_lengths(server, graph):
    dual = graph("ADiffLoadDual", dual="off.safetensors")
    return sample(graph, base(graph), dual, prompt=text(graph, 1, 7))[3]


def prompt_is_a_combination(server, graph):
    both = graph("ConditioningCombine", conditioning_1=text(graph, 1), conditioning_2=text(graph, 2))
    return train(graph, demo(graph), drawn(graph), "new", prompt=both)


def guidance_is_below_1(server, graph):
    return sample(graph, base(graph), graph("ADiffLoadDual", dual="off.safetensors"), cfg=0.0)[3]


CASES = {
    several_defects: r"a dual model is of one defect, and two kinds holds 2 \(.*dent, .*hole\); name one product",
    name_is_a_path: r"file name '\.\./new' has '/' in it",
    name_is_taken: r"off\.safetensors is in models/adiff_dual already; .*turn overwrite on",
    a_foreground_is_lacking: r"1 foregrounds for 2 photos; give one for each, in the dataset's order",
    foreground_without_bcm: r"foregrounds are for BCM, which is off; turn it on or leave them out",
    size_is_no_multiple: r"size is 72; it must be a multiple of 64 pixels",
    model_is_sd2: r"the model is SD20; this node works on SD 1\.x models",
    file_is_missing: r"there is no dual model '\.\./off\.safetensors' in models/adiff_dual",
    dual_is_of_another_base: r"the dual model was learned on another base model",
    photo_without_bcm: r"metal/dent was learned without BCM and takes no background; leave it out",
    foreground_without_photo: r"the foreground marks the object in photos; connect them to normal",
    prompts_are_of_two_lengths: r"prompt and part_prompt have 7 and 16 tokens; give both",
    prompt_is_a_combination: r"prompt is a combination of 2 prompts; give one",
    guidance_is_below_1: r"cfg",
}


@pytest.mark.parametrize("build", CASES, ids=lambda build: build.__name__)
def test_the_node_says_what_is_wrong(server, graph, models, build):
    graph("PreviewAny", source=build(server, graph))
    with pytest.raises(GraphError) as raised:
        server.run(graph)
    assert re.search(CASES[build], str(raised.value)), str(raised.value)
    assert not (server.base / "models" / "adiff_dual" / "new.safetensors").exists()
