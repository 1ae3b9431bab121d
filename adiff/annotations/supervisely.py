"""Supervisely: SET/ann/PHOTO.json for SET/img/PHOTO (developer.supervisely.com, "Annotation JSON format")."""

from __future__ import annotations

import base64
import zlib
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ..datasets.images import LARGEST
from ..errors import InputError
from ..storage import read_json_object
from .marks import Annotated, Mark, Size, find_image, of_png, pasted, points_of, polygon, rectangle, size_of, text_of

IMAGES = "img"
"""The folder of a data set's photos, beside ann."""


def is_supervisely(content: object) -> bool:
    """Whether a JSON file's content is what Supervisely tells of a photo."""
    if not isinstance(content, dict):
        return False
    return isinstance(content.get("objects"), list) and isinstance(content.get("size"), dict)


def read_supervisely(paths: Sequence[Path], images: Path | None) -> list[Annotated]:
    """Read the photos of files with their marks: polygons with their holes, masks and rectangles.

    images: the folder of the photos; None takes img beside the files' own. Every photo has a file, those without marks
    too. Raises InputError, naming the file, for what is damaged, for photos that are not there, and for two files that
    tell of one.
    """
    found = [_read(path, [images] if images else [path.parent.parent / IMAGES, path.parent]) for path in paths]
    told: dict[Path, Path] = {}
    for path, one in zip(paths, found, strict=True):
        if (other := told.setdefault(one.image, path)) != path:
            raise InputError(f"{other} and {path} tell of one photo, {one.image}; give each data set, and its photos, "
                             "in a command of its own")  # fmt: skip
    return found


def _read(path: Path, folders: list[Path]) -> Annotated:
    content = read_json_object(path)
    marks = []
    for number, one in enumerate(content["objects"]):
        where = f"{path}: object {number}"
        if not isinstance(one, dict):
            raise InputError(f"{where} is damaged")
        kind = one.get("geometryType")
        marks.append(Mark(text_of(one.get("classTitle"), where), _draw(kind, one, where), box=kind == "rectangle"))
    size = size_of(content["size"].get("height"), content["size"].get("width"))
    return Annotated(find_image(path.stem, folders, path), tuple(marks), size)


def _draw(kind: object, one: dict[str, Any], where: str) -> Callable[[Size], np.ndarray] | None:
    if kind == "bitmap":
        told = _table(one.get("bitmap"), where)
        (corner,) = points_of([told.get("origin")], where)
        return pasted(partial(of_png, partial(_png, told.get("data")), where), corner)
    if kind not in ("polygon", "rectangle"):
        return None
    told = _table(one.get("points"), where)
    outline, holes = points_of(told.get("exterior"), where), told.get("interior") or []
    if kind == "rectangle":
        return rectangle(outline) if len(outline) == 2 else None
    if not isinstance(holes, list):
        raise InputError(f"{where} has holes that are no list")
    filled, cut = polygon(outline), [hole for points in holes if (hole := polygon(points_of(points, where)))]
    return filled and (lambda size: _without(filled(size), [hole(size) for hole in cut]))


def _without(mask: np.ndarray, holes: Sequence[np.ndarray]) -> np.ndarray:
    return np.logical_and.reduce([mask, *(~hole for hole in holes)])


def _table(value: object, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise InputError(f"{where} is damaged")
    return value


def _png(data: object) -> bytes:
    """The PNG of a mask, which is most often deflated once more; cut at four bytes a pixel of the largest photo."""
    raw = base64.b64decode(data if isinstance(data, str) else "", validate=True)
    return raw if raw.startswith(b"\x89PNG") else zlib.decompressobj().decompress(raw, 4 * LARGEST)
