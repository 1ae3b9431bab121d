"""What the writers of all formats share: the data set they write, and how an image gets into it."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from ..storage import write_whole
from .runs import Sample

PROVENANCE = "provenance.json"
"""Where the images come from, for formats that have no place of their own for it."""


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
    """Copy an image's file, byte for byte, to folder/stem; one that is there is whole. Returns its path.

    suffix: of its name there, the file's own by default.
    """
    source = sample.photo.path
    path = folder / f"{sample.stem}{suffix or source.suffix.lower()}"
    if not path.exists():
        write_whole(path, lambda temporary: shutil.copyfile(source, temporary))
    return path


def lines_of(items: Sequence[str]) -> str:
    """One item a line."""
    return "".join(f"{item}\n" for item in items)
