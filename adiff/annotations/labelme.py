"""labelme: a JSON file beside each photo (github.com/wkentaro/labelme, `LabelFile`)."""

from __future__ import annotations

import base64
import math
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError
from ..storage import read_json_object
from .marks import (
    Annotated,
    Mark,
    Size,
    circle,
    find_image,
    images_in,
    of_png,
    pasted,
    points_of,
    polygon,
    rectangle,
    size_of,
    text_of,
)


def is_labelme(content: object) -> bool:
    """Whether a JSON file's content is labelme's."""
    return isinstance(content, dict) and isinstance(content.get("shapes"), list)


def read_labelme(paths: Sequence[Path], images: Path | None, bare: bool = True) -> list[Annotated]:
    """Read the photos of files with their marks: polygons, rectangles, circles and masks; and the flags that are set.

    images: the folder of the photos; None takes the file's own. bare: with the photos that have no file, as such
    without marks. Raises InputError, naming the file, for what is not labelme's and for photos that are not there.
    """
    found = [_read(path, [images] if images else [path.parent]) for path in paths]
    known = {one.image.resolve() for one in found}
    folders = [images] if images else list(dict.fromkeys(path.parent for path in paths))
    rest = [image for folder in folders if bare for image in images_in(folder) if image.resolve() not in known]
    own = {path.stem: path for path in paths} if images else {}
    if odd := [path for image in rest if (path := own.get(image.stem, image.with_suffix(".json"))).exists()]:
        raise InputError(f"{odd[0]} is no labelme file, or tells of another photo; mend it, or take it out")
    return found + [Annotated(image, ()) for image in dict.fromkeys(rest)]


def _read(path: Path, folders: list[Path]) -> Annotated:
    content = read_json_object(path)
    if not is_labelme(content):
        raise InputError(f"{path} is no labelme file; expected shapes in it")
    name = content.get("imagePath")
    if not isinstance(name, str) or not name:
        raise InputError(f"{path} names no photo (imagePath)")
    marks = []
    for number, shape in enumerate(content["shapes"]):
        where = f"{path}: shape {number}"
        if not isinstance(shape, dict):
            raise InputError(f"{where} is damaged")
        marks.append(Mark(text_of(shape.get("label"), where), _draw(shape, where)))
    size = size_of(content.get("imageHeight"), content.get("imageWidth"))
    flags = content.get("flags")
    set_ = tuple(flag for flag, is_set in flags.items() if is_set is True) if isinstance(flags, dict) else ()
    return Annotated(find_image(name, folders, path), tuple(marks), size, set_)


def _draw(shape: dict[str, Any], where: str) -> Callable[[Size], np.ndarray] | None:
    kind, points = shape.get("shape_type", "polygon"), points_of(shape.get("points"), where)
    if kind == "rectangle" and len(points) == 2:
        return rectangle(points)
    if kind == "circle" and len(points) == 2:
        return circle(points[0], math.dist(*points))
    if kind == "mask" and len(points) == 2:
        return pasted(partial(of_png, partial(_png, shape.get("mask")), where), points[0])
    return polygon(points) if kind in ("polygon", "rectangle", "oriented_rectangle", "rotation") else None


def _png(data: object) -> bytes:
    return base64.b64decode(data if isinstance(data, str) else "", validate=True)
