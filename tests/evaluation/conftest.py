"""A data set and a finished run of its defect, written by hand."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

from adiff.datasets.images import write_png

SIZE = 32


def surface(name):
    """Grey noise, another for each name."""
    return np.random.default_rng([ord(c) for c in name]).integers(80, 120, (SIZE, SIZE, 3), np.uint8)


def defective(name, image=None):
    """A white square on an image of that name; (image, mask)."""
    image, mask = surface(name) if image is None else image.copy(), np.zeros((SIZE, SIZE), bool)
    top, left = np.random.default_rng([ord(c) for c in name]).integers(0, SIZE - 8, 2)
    mask[top : top + 8, left : left + 8] = True
    image[mask] = 230
    return image, mask


def write_run(folder, pairs, defect="scratch", count=None):
    """A run of (normal's name, image, mask)."""
    for number, (normal, image, mask) in enumerate(pairs):
        name = f"{number:06d}"
        write_png(folder / "image" / f"{name}.png", image)
        write_png(folder / "mask" / f"{name}_mask.png", mask)
        (folder / "pairs").mkdir(exist_ok=True)
        record = {"id": name, "product": "metal", "defect": defect, "normal": normal}
        (folder / "pairs" / f"{name}.json").write_text(json.dumps(record))
    plan = {"format": 1, "product": "metal", "defect": defect, "count": count or len(pairs), "seed": 0}
    (folder / "run.json").write_text(json.dumps({**plan, "embedding": "e" * 64}))
    return folder


@pytest.fixture
def work(tmp_path):
    """data: metal with 5 scratches and 5 holes, 4 good to learn from, 2 to test on; run, holes: 8 pairs; the makers."""
    root = tmp_path / "data" / "metal"
    for defect in ("scratch", "hole"):
        for index in range(5):
            image, mask = defective(f"{defect}{index}")
            write_png(root / "test" / defect / f"{index:03d}.png", image)
            write_png(root / "ground_truth" / defect / f"{index:03d}_mask.png", mask)
    for split, count in (("train", 4), ("test", 2)):
        for index in range(count):
            write_png(root / split / "good" / f"{index:03d}.png", surface(f"{split}{index}"))
    runs = {}
    for defect in ("scratch", "hole"):
        pairs = [(f"{i % 4:03d}.png", *defective(f"{defect} pair {i}", surface(f"train{i % 4}"))) for i in range(8)]
        runs[defect] = write_run(tmp_path / f"run-{defect}", pairs, defect)
    return SimpleNamespace(
        data=tmp_path / "data", root=root, run=runs["scratch"], holes=runs["hole"], surface=surface,
        defective=defective, write_run=write_run,
    )  # fmt: skip
