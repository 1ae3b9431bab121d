"""Every template, converted as the front end converts it and run: pairs, nothing outside the mask, fill reported."""

import json
from itertools import combinations

import numpy as np
import pytest
from PIL import Image

from tests.e2e.comfyui import ROOT, Link
from tests.e2e.convert import ui_to_api

TEMPLATES = sorted((ROOT / "workflows").glob("*.json"))
DEMO = "ADiffLoadDemoModel"
FILES = {"ckpt_name": "sd15_text.safetensors", "lora_name": "random.safetensors"}
"""What stands in for the files that a user chooses."""
SHRINK = 4
"""The checkpoint of the text template paints 512 pixels: a quarter is enough here."""
LEARNT = {"ADiffTrainDefects": {"steps": 4, "batch": 2}, "ADiffTrainMasks": {"steps": 24, "batch": 4},
          "ADiffTrainLocalizer": {"steps": 4, "size": 32}, "ADiffDualSampler": {"steps": 2},
          "ADiffTrainDual": {"steps": 2, "batch": 1, "preview_every": 0}}  # fmt: skip
"""Enough for masks to be found."""


def small(prompt: dict) -> dict:
    """Put our files in the place of the user's; with them, fewer pixels and steps. Learn for a few steps only."""
    for node in prompt.values():
        node["inputs"] |= LEARNT.get(node["class_type"], {})
    if not any(name in node["inputs"] for node in prompt.values() for name in FILES):
        return prompt
    for node in prompt.values():
        inputs = node["inputs"]
        inputs |= {name: file for name, file in FILES.items() if name in inputs}
        if "steps" in inputs:
            inputs["steps"] = 2
        if node["class_type"] in ("ADiffDrawSurface", "SolidMask", "MaskComposite"):
            for name in {"size", "width", "height", "x", "y"} & set(inputs):
                inputs[name] //= SHRINK
    return prompt


def of_kind(prompt: dict, kind: str) -> list[str]:
    return [key for key, node in prompt.items() if node["class_type"] == kind]


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.stem)
def test_a_template_runs(server, path):
    ui = json.loads(path.read_text())
    prompt = small(ui_to_api(ui, server.object_info()))
    output = server.base / "output"
    if of_kind(prompt, "ADiffLoadDual"):
        learn_dual(server)
    before = set(output.rglob("*.png"))
    result = server.run(prompt, ui)
    told = [node for key in of_kind(prompt, "PreviewAny") if (node := _measures(result.outputs[key]["text"][0]))]
    pairs = [node for node in told if "leak" in node[0]]
    dual = [node for node in told if "leak" not in node[0]]
    assert bool(dual) == bool(of_kind(prompt, "ADiffDualSampler"))
    assert all(one["area"] > 0 for node in dual for one in node)
    shows = of_kind(prompt, "ADiffFinishPair") and not of_kind(prompt, "ADiffFilterPairs")  # that saves them only
    assert bool(pairs) == bool(shows)
    learned_here = bool(of_kind(prompt, DEMO))
    for measured in [one for node in pairs for one in node]:
        assert measured["leak"] == 0
        assert 0 <= measured["fill"] <= 1
        assert 0 <= measured["novelty"] <= 1
        assert ("likeness" in measured) == learned_here
    written = sorted(set(output.rglob("*.png")) - before)
    images = [p for p in written if p.parts[-3] == "test"]
    assert bool(images) == bool(of_kind(prompt, "ADiffSavePairs"))
    for image in images:
        mask = image.parents[2] / "ground_truth" / image.parent.name / f"{image.stem}_mask.png"
        assert mask in written
        assert set(np.unique(np.asarray(Image.open(mask)))) == {0, 255}
        assert json.loads(Image.open(image).text["workflow"]) == ui


def learn_dual(server):
    """Run the template that the other dual ones need, unless it has been."""
    if not list((server.base / "models" / "adiff_dual").glob("metal scratch.safetensors")):
        (path,) = [path for path in TEMPLATES if path.stem.startswith("Train a dual")]
        server.run(small(ui_to_api(json.loads(path.read_text()), server.object_info())))


@pytest.mark.parametrize("start", ["Generate from a drawn mask", "Stock KSampler", "Compare"])
def test_a_template_runs_with_an_sd15_checkpoint_in_the_place_of_the_demo_model(server, start):
    """As the note in each says. The learned masks are left out: a random checkpoint finds none."""
    (path,) = [path for path in TEMPLATES if path.stem.startswith(start)]
    prompt = ui_to_api(json.loads(path.read_text()), server.object_info())
    (loader,) = of_kind(prompt, DEMO)
    prompt[loader] = {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": ""}}
    empty = {"text": "", "clip": [loader, 1]}
    prompt["empty"] = {"class_type": "CLIPTextEncode", "inputs": empty}
    places = {0: [loader, 0], 1: [loader, 2], 2: ["empty", 0]}
    for node in prompt.values():
        for name, value in node["inputs"].items():
            if isinstance(value, list) and value[0] == loader and node["inputs"] is not empty:
                node["inputs"][name] = places[value[1]]
    for node in prompt.values():
        node["inputs"] |= {name: file for name, file in FILES.items() if name in node["inputs"]}
        node["inputs"] |= {"steps": 2} if "steps" in node["inputs"] else {}
    result = server.run(prompt)
    measured = [one for key in of_kind(prompt, "PreviewAny") for one in _measures(result.outputs[key]["text"][0])]
    assert measured and all(one["leak"] == 0 for one in measured)


def test_the_modes_weigh_differently_on_the_demo_model(server):
    (path,) = [path for path in TEMPLATES if path.stem.startswith("Compare")]
    prompt = ui_to_api(json.loads(path.read_text()), server.object_info())
    ours = {prompt[key]["inputs"]["reweighting"]: key for key in of_kind(prompt, "ADiffKSampler")}
    shown = {mode: f"{mode} shown" for mode in ours}
    for mode, key in ours.items():
        prompt[key]["inputs"]["steps"] = 4
        prompt[shown[mode]] = {"class_type": "PreviewImage", "inputs": {"images": [key, 1]}}
    result = server.run(prompt)
    maps = {mode: result.images(Link(node))[0, :, :, 0].astype(int) for mode, node in shown.items()}
    assert set(maps) == {"off", "uniform", "balanced", "release"}
    assert (maps.pop("off") == 127).all()  # weight 1
    assert all((one != 127).any() for one in maps.values())
    assert all((one != other).any() for one, other in combinations(maps.values(), 2))


def _measures(text: str) -> list[dict]:
    try:
        found = json.loads(text)
    except ValueError:
        return []
    return found if isinstance(found, list) else []


def test_there_are_templates():
    assert len(TEMPLATES) >= 5
    assert all(path.with_suffix(".jpg").is_file() for path in TEMPLATES)
