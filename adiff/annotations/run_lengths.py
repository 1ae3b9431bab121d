"""Run lengths in a CSV, a row for each defect of a photo, as those of Severstal's steel (Kaggle, 2019).

| column | what |
|---|---|
| ImageId | the photo's file |
| ClassId | the defect; without it there is one |
| ImageId_ClassId | both, in older files |
| EncodedPixels | start and length of each run, the pixels counted from 1 on down the columns; empty for no defect |
"""

from __future__ import annotations

from collections import defaultdict
from functools import partial
from pathlib import Path

import numpy as np

from ..datasets.readers import DEFECT
from ..errors import InputError
from .marks import Annotated, Mark, Size, find_image, images_in, read_lines, text_of

PHOTO, CLASS, RUNS = "ImageId", "ClassId", "EncodedPixels"
BOTH = f"{PHOTO}_{CLASS}"


def is_run_lengths(content: object) -> bool:
    """Whether the names of a CSV's columns are of run lengths."""
    return isinstance(content, list) and RUNS in content and (PHOTO in content or BOTH in content)


def columns_of(path: Path) -> list[str]:
    """The cells of a CSV's first line; none for what is no text."""
    with path.open(encoding="utf-8-sig", errors="replace") as file:
        return _cells(file.readline(2**16))


def read_run_lengths(path: Path, images: Path | None) -> list[Annotated]:
    """Read the photos of a file with their marks; those that lie beside them and have no row are without marks.

    images: the folder of the photos; None looks around the file. Raises InputError, naming the file, for what is
    damaged and for photos that are not there.
    """
    columns, marks = columns_of(path), defaultdict[str, list[Mark]](list)
    for number, line in enumerate(read_lines(path)[1:], 2):
        cells, where = _cells(line), f"{path}: line {number}"
        if not line.strip():
            continue
        if len(cells) != len(columns):
            raise InputError(f"{where} has {len(cells)} cells, the first line {len(columns)}")
        row = dict(zip(columns, cells, strict=True))
        photo, _, label = row[BOTH].rpartition("_") if BOTH in row else (row[PHOTO], "", row.get(CLASS, DEFECT))
        of_photo = marks[text_of(photo, where)]
        if row[RUNS]:
            of_photo.append(Mark(text_of(label, where), partial(_drawn, row[RUNS], where)))
    places = ("", "images", f"{path.stem}_images", path.stem)
    folders = [images] if images else [path.parent / place for place in places]
    found = [Annotated(find_image(name, folders, path), tuple(of_photo)) for name, of_photo in marks.items()]
    known = {one.image.resolve() for one in found}
    beside = (image for folder in dict.fromkeys(one.image.parent for one in found) for image in images_in(folder))
    return found + [Annotated(image, ()) for image in beside if image.resolve() not in known]


def _cells(line: str) -> list[str]:
    return [cell.strip().strip('"') for cell in line.split(",")]


def _drawn(runs: str, where: str, size: Size) -> np.ndarray:
    pixels = np.zeros(size[0] * size[1], bool)
    try:
        numbers = np.array(runs.split()).astype(np.int64)
    except (ValueError, OverflowError):
        numbers = np.zeros(1, np.int64)
    starts, lengths = numbers[::2], numbers[1::2]
    if len(starts) != len(lengths) or (numbers < 1).any() or (lengths > pixels.size - starts + 1).any():
        raise InputError(f"{where} has {runs[:40]!r} for run lengths; expected start and length of each, from 1 to the "
                         f"{pixels.size} pixels of its photo, {size[1]}x{size[0]}")  # fmt: skip
    for start, length in zip(starts - 1, lengths, strict=True):
        pixels[start : start + length] = True
    return np.ascontiguousarray(pixels.reshape(size, order="F"))
