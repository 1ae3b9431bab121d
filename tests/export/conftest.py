"""Runs as `adiff generate` leaves them, written by hand: small, of one defect or several."""

import numpy as np
import pytest

from adiff.datasets.images import write_png
from adiff.storage import write_json

SIZE = (12, 16)


def drawn_labels(number, defects):
    """One part for each defect, the first with a hole, the last of two parts; they lie apart."""
    labels = np.zeros(SIZE, np.uint8)
    for label in range(1, defects + 1):
        top = 1 + 5 * (label - 1)
        labels[top : top + 3, 2 + number % 4 : 6 + number % 4] = label
    labels[2, 3 + number % 4] = 0
    labels[11, 14] = defects
    return labels


def write_pair(folder, number, product, defects, normal):
    rng = np.random.default_rng(number)
    labels, name = drawn_labels(number, len(defects)), f"{number:06d}"
    write_png(folder / "image" / f"{name}.png", rng.integers(0, 256, (*SIZE, 3), np.uint8))
    write_png(folder / "mask" / f"{name}_mask.png", labels > 0)
    if len(defects) > 1:
        write_png(folder / "mask" / f"{name}_labels.png", labels)
    about = {"id": name, "product": product, "defect": "+".join(defects), "normal": normal, "seed": 3, "fill": 0.5}
    write_json(folder / "pairs" / f"{name}.json", about)


@pytest.fixture
def make_run(tmp_path):
    """A maker of runs: `make_run("run", "metal", "scratch", "dent", pairs=5)`; returns the folder.

    photos: normal images that pairs are painted into in turn; with 0 they are whole images, as of a dual model.
    """

    def make(name="run", product="metal", *defects, pairs=5, photos=7):
        folder, defects = tmp_path / name, defects or ("scratch",)
        good = [f"{number}.png" for number in range(photos)]
        plan = {"format": 1, "product": product, "defect": "+".join(defects), "count": pairs, "seed": 3,
                "base": {"name": "demo", "fingerprint": "f" * 64}, "embedding": "e" * 64,
                "normals": good, "environment": {"adiff": "9.9"}}  # fmt: skip
        write_json(folder / "run.json", plan | ({"defects": list(defects)} if len(defects) > 1 else {}))
        for number in range(pairs):
            write_pair(folder, number, product, defects, good[number % photos] if photos else None)
        return folder

    return make


@pytest.fixture
def labels_of():
    return drawn_labels


@pytest.fixture
def normals(tmp_path):
    """Four normal images: three PNGs and a JPEG of another size."""
    from PIL import Image

    folder = tmp_path / "normals"
    for number in range(3):
        write_png(folder / f"{number}.png", np.full((*SIZE, 3), 50 + number, np.uint8))
    Image.new("RGB", (20, 10), "grey").save(folder / "3.JPG")
    return sorted(folder.iterdir())
