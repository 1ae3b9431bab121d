"""Every template, converted as the front end converts it and run: pairs, nothing outside the mask, fill reported."""

import json

import numpy as np
import pytest
from PIL import Image

from tests.e2e.comfyui import ROOT
from tests.e2e.convert import ui_to_api

TEMPLATES = sorted((ROOT / "workflows").glob("*.json"))
FILES = {"ckpt_name": "sd15_text.safetensors", "lora_name": "random.safetensors"}
"""What stands in for the files that a user chooses."""
SHRINK = 4
"""The checkpoint of the text template paints 512 pixels: a quarter is enough here."""


def small(prompt: dict) -> dict:
    """Put our files in the place of the user's; with them, fewer pixels and steps."""
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
    before = set(output.rglob("*.png"))
    result = server.run(prompt, ui)
    pairs = [node for key in of_kind(prompt, "PreviewAny") if (node := _measures(result.outputs[key]["text"][0]))]
    assert pairs
    for measured in [one for node in pairs for one in node]:
        assert measured["leak"] == 0
        assert 0 <= measured["fill"] <= 1
    written = sorted(set(output.rglob("*.png")) - before)
    images = [p for p in written if p.parts[-3] == "test"]
    assert bool(images) == bool(of_kind(prompt, "ADiffSavePairs"))
    for image in images:
        mask = image.parents[2] / "ground_truth" / image.parent.name / f"{image.stem}_mask.png"
        assert mask in written
        assert set(np.unique(np.asarray(Image.open(mask)))) == {0, 255}
        assert json.loads(Image.open(image).text["workflow"]) == ui


def _measures(text: str) -> list[dict]:
    try:
        found = json.loads(text)
    except ValueError:
        return []
    return found if isinstance(found, list) else []


def test_there_are_templates():
    assert len(TEMPLATES) >= 5
    assert all(path.with_suffix(".jpg").is_file() for path in TEMPLATES)
