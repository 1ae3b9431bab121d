"""COCO: one JSON file for many photos (cocodataset.org, "Data format", object detection and instance segmentation)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError
from ..export.rle import decode_rle
from ..storage import read_json_object
from .marks import (
    Annotated,
    Mark,
    Size,
    find_image,
    is_number,
    is_whole,
    points_of,
    polygon,
    rectangle,
    size_of,
    text_of,
    united,
)

KEYS = {"images", "annotations", "categories"}
"""What a file has; captions, for instance, have no categories."""


def is_coco(content: object) -> bool:
    """Whether a JSON file's content is COCO's."""
    return isinstance(content, dict) and isinstance(content.get("images"), list) and content.keys() >= KEYS


def read_coco(path: Path, images: Path | None, root: Path | None = None) -> list[Annotated]:
    """Read the photos of a file with their marks: polygons, run lengths, or boxes where there is nothing else.

    images: the folder of the photos, or of the splits'; None looks around the file, and in `root`. Raises InputError,
    naming the file, for what is not COCO's and for photos that are not there.
    """
    content = read_json_object(path)
    if not is_coco(content):
        raise InputError(f"{path} is no COCO file; expected images, annotations and categories in it")
    names, marks = {}, defaultdict(list)
    for number, one in enumerate(_entries(content, "categories", path)):
        name = text_of(one.get("name"), f"{path}: category {number}")
        if names.setdefault(one.get("id"), name) != name:
            raise InputError(f"{path}: the categories {names[one.get('id')][:40]} and {name[:40]} have one id; the "
                             "marks of which cannot be told")  # fmt: skip
    for number, one in enumerate(_entries(content, "annotations", path)):
        where = f"{path}: annotation {number}"
        category = _id(one.get("category_id"), where)
        if category not in names:
            raise InputError(f"{where} is of category {str(category)[:40]}, which the file does not name")
        marks[_id(one.get("image_id"), where)].append(_mark(one, names[category], where))
    folders, found = _folders(path, [images] if images else [path.parent, path.parent.parent, root or path.parent]), []
    of_id: dict[float | str, str] = {}
    of_image: dict[Path, str] = {}
    for number, one in enumerate(_entries(content, "images", path)):
        where = f"{path}: image {number}"
        key, name = _id(one.get("id"), where), text_of(one.get("file_name"), where)
        image = find_image(name, folders, path)
        for what, known in (("id", of_id.setdefault(key, name)), ("photo", of_image.setdefault(image, name))):
            if known != name:
                raise InputError(f"{where} ({name[:80]}) has the {what} of another one ({known[:80]})")
        found.append(Annotated(image, tuple(marks.get(key, ())), size_of(one.get("height"), one.get("width"))))
    if missing := [key for key in marks if key not in of_id]:
        raise InputError(f"{path}: {len(missing)} images that annotations name are not in its list, the first with the "
                         f"id {str(missing[0])[:40]}")  # fmt: skip
    return found


def _folders(path: Path, places: list[Path]) -> list[Path]:
    """Where a file's photos may be: in a place, in images there, in the folder of the file's split."""
    inside = ("", path.stem.removeprefix("instances_"), "images", f"images/{path.stem.removeprefix('instances_')}")
    return [place / name for place in places for name in inside]


def _entries(content: dict[str, Any], name: str, path: Path) -> list[dict[str, Any]]:
    entries = content.get(name)
    if not isinstance(entries, list) or not all(isinstance(one, dict) for one in entries):
        raise InputError(f"{path} is damaged: its {name} are no list of objects")
    if not all(_is_id(one.get("id", 0)) for one in entries):
        raise InputError(f"{path} is damaged: the ids of its {name} are no whole numbers, or texts")
    return entries


def _is_id(value: object) -> bool:
    return isinstance(value, str) or is_whole(value)


def _id(value: object, where: str) -> float | str:
    if not _is_id(value):
        raise InputError(f"{where} has the id {str(value)[:40]}; expected a whole number")
    return value


def _mark(one: dict[str, Any], label: str, where: str) -> Mark:
    shape = one.get("segmentation")
    if isinstance(shape, dict):
        return Mark(label, _runs(shape, where))
    if shape:
        if not isinstance(shape, list):
            raise InputError(f"{where} has a segmentation that is neither polygons nor run lengths")
        if drawn := [draw for part in shape if (draw := polygon(points_of(part, where)))]:
            return Mark(label, _together(drawn))
    box = one.get("bbox")
    if not isinstance(box, list) or len(box) != 4:
        return Mark(label, None)
    (left, top), (width, height) = points_of(box, where)
    if width <= 0 or height <= 0:
        return Mark(label, None)
    return Mark(label, rectangle([(left, top), (max(left, left + width - 1), max(top, top + height - 1))]), box=True)


def _together(parts: list[Callable[[Size], np.ndarray]]) -> Callable[[Size], np.ndarray]:
    return lambda size: united(draw(size) for draw in parts)


def _runs(shape: dict[str, Any], where: str) -> Callable[[Size], np.ndarray]:
    counts = shape.get("counts")
    if not isinstance(counts, str) and not (isinstance(counts, list) and all(map(is_number, counts))):
        raise InputError(f"{where} has run lengths that are neither text nor numbers")

    def draw(size: Size) -> np.ndarray:
        if shape.get("size") != list(size):
            told = str(shape.get("size"))[:40]
            raise InputError(f"{where} is of an image of {told} (height, width), its photo has {list(size)}")
        try:
            return decode_rle(counts, size)
        except ValueError as error:
            raise InputError(f"{where} has run lengths that are damaged: {error}") from None

    return draw
