"""What the writers of all formats share: the data set they write, and how an image gets into it."""

from __future__ import annotations

import filecmp
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from PIL import Image

from ..datasets.images import Photo, write_png
from ..storage import write_whole
from .runs import Sample

PROVENANCE = "provenance.json"
"""Where the images come from, for formats that have no place of their own for it."""
ORIENTATION = 0x0112
"""EXIF's tag of how a photo is turned; 1 is upright."""


@dataclass(frozen=True)
class Target:
    """A data set to write. categories: product/defect, in order; splits: the ones it has; origin: where all is from."""

    out: Path
    categories: tuple[str, ...]
    splits: tuple[str, ...]
    origin: Mapping[str, Any]
    polygons: bool = False


class Writer(Protocol):
    """Writes one format; what lists the images comes last, in `finish`."""

    def add(self, sample: Sample) -> None:
        """Write an image with what is told of it."""

    def finish(self) -> None:
        """Write what is told of all."""


def copy_image(sample: Sample, folder: Path, suffix: str | None = None) -> Path:
    """Copy an image's file, byte for byte, to folder/stem, unless it is there; returns its path.

    A photo that is upright only by its EXIF tag, which not every reader heeds, becomes an upright PNG, and one of 16
    bits one of 8 (`readable`). suffix: of the name there, the file's own by default.
    """
    source = sample.photo.path
    turned = sample.defect is None and _is_turned(source)  # a pair's image has no such tag
    if turned or is_deep(sample.photo):
        path = folder / f"{sample.stem}{suffix or '.png'}"
        write_png(path, readable(sample.photo))
        return path
    path = folder / f"{sample.stem}{suffix or source.suffix.lower()}"
    if not path.exists() or not filecmp.cmp(source, path, shallow=False):
        write_whole(path, lambda temporary: shutil.copyfile(source, temporary))
    return path


def readable(photo: Photo) -> np.ndarray:
    """A photo's pixels as readers of data sets take them: Pillow's `convert`, which most use, makes 16 bits white."""
    return photo.rgb[:, :, 0] if is_deep(photo) else photo.pixels


def is_deep(photo: Photo) -> bool:
    """Whether a photo has 16 bits."""
    return photo.pixels.dtype == np.uint16


def _is_turned(photo: Path) -> bool:
    with Image.open(photo) as image:
        return image.getexif().get(ORIENTATION, 1) != 1


def lines_of(items: Sequence[str]) -> str:
    """One item a line."""
    return "".join(f"{item}\n" for item in items)
