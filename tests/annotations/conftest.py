"""Annotated photos, small, written by hand."""

import json

import numpy as np
import pytest

from adiff.datasets.images import write_png

SIZE = (12, 16)


@pytest.fixture
def photos(tmp_path):
    """Four photos of 16 x 12 pixels in a folder, 0.png to 3.png."""
    folder = tmp_path / "photos"
    for number in range(4):
        write_png(folder / f"{number}.png", np.random.default_rng(number).integers(0, 256, (*SIZE, 3), np.uint8))
    return folder


@pytest.fixture
def coco(tmp_path, photos):
    """A maker of COCO files of the photos: `coco((0, "scratch", {"segmentation": ...}), ...)`; returns the file."""

    def make(*marks, path=tmp_path / "instances.json", count=4, **changes):
        labels = list(dict.fromkeys(label for _, label, _ in marks))
        content = {
            "images": [{"id": n + 1, "file_name": f"{n}.png", "height": 12, "width": 16} for n in range(count)],
            "categories": [{"id": n + 1, "name": label} for n, label in enumerate(labels)],
            "annotations": [
                {"id": n, "image_id": photo + 1, "category_id": labels.index(label) + 1, **shape}
                for n, (photo, label, shape) in enumerate(marks)
            ],
            **changes,
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content))
        return path

    return make


@pytest.fixture
def labelme(photos):
    """A maker of labelme's files beside the photos: `labelme(0, ("scratch", "polygon", points), ...)`."""

    def make(number, *shapes, **changes):
        path = photos / f"{number}.json"
        told = [dict(zip(("label", "shape_type", "points", "mask"), shape, strict=False)) for shape in shapes]
        content = {"imagePath": f"{number}.png", "imageHeight": 12, "imageWidth": 16, "shapes": told, **changes}
        path.write_text(json.dumps(content))
        return path

    return make


@pytest.fixture
def masks(tmp_path):
    """The masks below a folder, by their path, as numbers 0 and 1."""
    from PIL import Image

    def read(out):
        found = sorted(out.rglob("ground_truth/*/*.png"))
        return {path.relative_to(out).as_posix(): (np.asarray(Image.open(path)) > 0).astype(int) for path in found}

    return read
