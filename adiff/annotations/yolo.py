"""YOLO: a text for each photo, labels/S.txt for images/S.jpg (docs.ultralytics.com, "Instance Segmentation")."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import yaml

from ..errors import InputError
from .marks import (
    FARTHEST,
    Annotated,
    Mark,
    Points,
    Size,
    by_stem,
    files_in,
    images_in,
    polygon,
    read_lines,
    rectangle,
    text_of,
)

NAMES = ("data.yaml", "data.yml", "dataset.yaml", "classes.txt", "labels/classes.txt")
"""Files that may tell the names of the classes."""
LARGEST = 2**20
"""Bytes of such a file."""


def label_folders(root: Path) -> list[Path]:
    """Folders named labels that have one named images at their side, if there is a text in any of them."""
    found = sorted(folder for folder in root.rglob("labels") if folder.is_dir() and _images_of(folder).is_dir())
    return found if any(files_in(folder, "**/*.txt") for folder in found) else []


def read_yolo(root: Path, names: Path | None = None) -> list[Annotated]:
    """Read the photos below a folder with their marks: polygons, or boxes. Paths that data.yaml tells are not used.

    names: the file with the names of the classes; None looks for it. A photo without a text is without marks. Raises
    InputError, naming the file, for lines that are neither polygons nor boxes, for classes without a name, and for
    texts without a photo.
    """
    names = names or next((root / name for name in NAMES if (root / name).is_file()), None)
    if names is None:
        raise InputError(f"{root} holds YOLO's labels but neither data.yaml nor classes.txt, which name the classes")
    classes, found = _classes(names), []
    folders = label_folders(root)
    if not folders:
        raise InputError(
            f"{root} holds {names.name}, but no labels/ beside an images/ below it; move it to their folder"
        )
    for folder in folders:
        place = _images_of(folder)
        labels = by_stem(files_in(folder, "**/*.txt"), folder)
        for stem, image in by_stem(images_in(place, "**/*"), place).items():
            label = labels.pop(stem, None)
            found.append(Annotated(image, _marks(label, classes) if label else ()))
        if lost := [path for path in labels.values() if path.name != "classes.txt"]:  # which labelImg writes there
            raise InputError(f"{len(lost)} labels in {folder} have no photo in {place}, the first is {lost[0].name}; "
                             "add the photos, or take the labels out")  # fmt: skip
    return found


def _images_of(labels: Path) -> Path:
    return labels.parent / "images"


def _classes(path: Path) -> dict[int, str]:
    """The names of the classes by number."""
    if path.stat().st_size > LARGEST:
        raise InputError(
            f"{path} has {path.stat().st_size >> 10} kB, too much for names of classes; is it the right file?"
        )
    try:
        if path.suffix == ".txt":
            content: object = {"names": [line for line in read_lines(path) if line.strip()]}
        else:
            content = yaml.safe_load(path.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError, yaml.YAMLError) as error:
        raise InputError(f"{path} is damaged ({' '.join(str(error).split())[:80]})") from None
    names = content.get("names") if isinstance(content, dict) else None
    if isinstance(names, list):
        names = dict(enumerate(names))
    if not isinstance(names, dict) or not all(isinstance(number, int) for number in names):
        raise InputError(f"{path} names no classes; expected `names:` with a list, or number: name")
    return {
        number: text_of(name if not isinstance(name, int) else str(name), str(path)) for number, name in names.items()
    }


def _marks(path: Path, classes: dict[int, str]) -> tuple[Mark, ...]:
    lines = enumerate(read_lines(path), 1)
    return tuple(_mark(line, classes, f"{path}: line {number}") for number, line in lines if line.strip())


def _mark(line: str, classes: dict[int, str], where: str) -> Mark:
    first, *rest = line.split()
    try:
        number, values = int(first), [float(value) for value in rest]
    except ValueError:
        raise InputError(f"{where} is {line[:40]!r}; expected a class and shares of the photo's sides") from None
    if number not in classes:
        raise InputError(f"{where} is of class {str(number)[:20]}, and names are given for {len(classes)}")
    if not all(abs(value) < FARTHEST for value in values):
        raise InputError(f"{where} has a place outside the photo")
    if len(values) == 4:
        x, y, width, height = values
        corners = [(x - width / 2, y - height / 2), (x + width / 2, y + height / 2)]
        return Mark(classes[number], partial(_box, corners), box=True)
    if len(values) < 6 or len(values) % 2:
        raise InputError(
            f"{where} has {len(values)} numbers behind its class; expected 4 of a box, or pairs of a polygon"
        )
    return Mark(classes[number], partial(_polygon, list(zip(values[::2], values[1::2], strict=True))))


def _scaled(points: Points, size: Size) -> Points:
    return [(x * size[1], y * size[0]) for x, y in points]


def _polygon(points: Points, size: Size) -> np.ndarray:
    return polygon(_scaled(points, size))(size)


def _box(corners: Points, size: Size) -> np.ndarray:
    (left, top), (right, bottom) = _scaled(corners, size)
    return rectangle([(left, top), (max(left, right - 1), max(top, bottom - 1))])(size)
