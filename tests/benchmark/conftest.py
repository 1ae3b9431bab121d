"""A data set of one product, cells that cost little, and lines written by hand."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

from adiff.benchmark import Bench, Budget, open_units
from adiff.datasets.images import write_png
from adiff.evaluation.localizer import LocalizerSettings
from adiff.generation import GeneratedMask, sources
from adiff.spatial_encoder import SpatialEncoder, save_encoder

SIZE = 64
DETECTOR = LocalizerSettings(size=16, width=8, steps=2, batch=2)
TINY = Budget(pairs=3, learn_steps=1, mask_steps=1, dual_steps=1, detector=DETECTOR)


def picture(name, defective=False):
    """Grey noise, another for each name, with a white box of its own place if it is defective; (image, mask)."""
    rng = np.random.default_rng([ord(c) for c in name])
    image, mask = rng.integers(80, 120, (SIZE, SIZE, 3), np.uint8), np.zeros((SIZE, SIZE), bool)
    if defective:
        top, left = rng.integers(2, SIZE - 26, 2)
        mask[top : top + 20, left : left + 22] = True
        image[mask] = 230
    return image, mask


@pytest.fixture
def data(tmp_path):
    """metal: 6 scratches, 6 holes, 4 good to learn from, 2 good to test on."""
    root = tmp_path / "data" / "metal"
    for defect in ("scratch", "hole"):
        for index in range(6):
            image, mask = picture(f"{defect}{index}", True)
            write_png(root / "test" / defect / f"{index:03d}.png", image)
            write_png(root / "ground_truth" / defect / f"{index:03d}_mask.png", mask)
    for split, count in (("train", 4), ("test", 2)):
        for index in range(count):
            write_png(root / split / "good" / f"{split}{index}.png", picture(f"{split}{index}")[0])
    return tmp_path / "data"


@pytest.fixture
def square_masks(monkeypatch):
    """A random model's masks pass no rule: draw squares in their place. Returns how many were drawn."""
    drawn = []

    def sample_masks(backbone, embedding, count, **_):
        made = []
        for number in range(count):
            mask = np.zeros((backbone.native_size,) * 2, bool)
            mask[10:34, 8 + 4 * number : 32 + 4 * number] = True
            drawn.append(mask)
            made.append(GeneratedMask(mask, 0.5, number))
        return made

    monkeypatch.setattr(sources, "sample_masks", sample_masks)
    return drawn


@pytest.fixture
def work(tmp_path, data, backbone, square_masks):
    """units: of metal's scratches; bench(out): with the tiny model; encoder: its file."""
    encoder = tmp_path / "encoder.safetensors"
    save_encoder(encoder, SpatialEncoder("small"), {})
    return SimpleNamespace(
        data=data, encoder=encoder, units=open_units(data, ["metal"], ["scratch"])[0], drawn=square_masks,
        bench=lambda name="out", budget=TINY: Bench(backbone, encoder, budget, tmp_path / name),
    )  # fmt: skip


@pytest.fixture
def line():
    """A maker of lines as they stand in rows.jsonl."""

    def make(variant, value=0.5, *, suite="ablation", unit="metal/scratch", seed=0, control=None, **more):
        return {
            "suite": suite, "variant": variant, "unit": unit, "product": "metal", "defects": ["scratch"], "seed": seed,
            "control": control, "recipe": {}, "measures": {"pixel_ap": value, "fill": 0.25}, "spent": 60.0, **more,
        }  # fmt: skip

    return make


@pytest.fixture
def folder(tmp_path):
    """A maker of a benchmark's folder from lines."""

    def make(rows, target="surfaces"):
        out = tmp_path / "bench"
        out.mkdir()
        files = {name: ["a.png"] for name in ("train", "test", "train_normals", "test_normals", "dropped")}
        budget = {"pairs": 48, "learn_steps": 200, "dual_steps": 150, "detector": {"steps": 400, "size": 128}}
        plan = {"target": target, "base": {"name": "demo"}, "budget": budget, "units": {"metal/scratch": files},
                "commands": ["adiff benchmark <surfaces> --out bench"]}  # fmt: skip
        (out / "benchmark.json").write_text(json.dumps(plan))
        (out / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        return out

    return make
