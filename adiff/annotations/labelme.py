"""labelme: a JSON file beside each photo (github.com/wkentaro/labelme, `LabelFile`)."""

from __future__ import annotations

import base64
import binascii
import io
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..datasets.images import BROKEN, LARGEST
from ..errors import InputError
from ..storage import read_json_object
from .marks import Annotated, Mark, Size, circle, find_image, images_in, points_of, polygon, rectangle, size_of, text_of


def is_labelme(content: object) -> bool:
    """Whether a JSON file's content is labelme's."""
    return isinstance(content, dict) and isinstance(content.get("shapes"), list)


def read_labelme(paths: Sequence[Path], images: Path | None, bare: bool = True) -> list[Annotated]:
    """Read the photos of files with their marks: polygons, rectangles, circles and masks.

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
    return Annotated(find_image(name, folders, path), tuple(marks), size)


def _draw(shape: dict[str, Any], where: str) -> Callable[[Size], np.ndarray] | None:
    kind, points = shape.get("shape_type", "polygon"), points_of(shape.get("points"), where)
    if kind == "rectangle" and len(points) == 2:
        return rectangle(points)
    if kind == "circle" and len(points) == 2:
        return circle(points[0], math.dist(*points))
    if kind == "mask" and len(points) == 2:
        return _pasted(shape.get("mask"), points[0], where)
    return polygon(points) if kind in ("polygon", "rectangle", "oriented_rectangle", "rotation") else None


def _pasted(data: object, corner: tuple[float, float], where: str) -> Callable[[Size], np.ndarray]:
    """Return what draws a mask that is told by the PNG of its box; opened only then, as the masks of all are many."""
    left, top = (round(value) for value in corner)

    def draw(size: Size) -> np.ndarray:
        mask, part = np.zeros(size, bool), _opened(data, where)
        rows, columns = (
            slice(max(0, start), max(0, start + side)) for start, side in zip((top, left), part.shape, strict=True)
        )
        target = mask[rows, columns]
        target |= part[max(0, -top) :, max(0, -left) :][: target.shape[0], : target.shape[1]]
        return mask

    return draw


def _opened(data: object, where: str) -> np.ndarray:
    try:
        raw = base64.b64decode(data if isinstance(data, str) else "", validate=True)
        with Image.open(io.BytesIO(raw), formats=("PNG",)) as image:
            if image.width * image.height > LARGEST:
                raise ValueError("too large")
            return np.asarray(image.convert("L")) > 0
    except (*BROKEN, binascii.Error, Image.DecompressionBombError, MemoryError) as error:
        raise InputError(f"{where} has a mask that is no PNG ({str(error)[:60]})") from None
