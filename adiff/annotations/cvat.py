"""CVAT for images 1.1: one XML file for many photos (docs.cvat.ai, "XML annotation format")."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from xml.etree.ElementTree import Element

import numpy as np

from ..datasets.images import LARGEST
from ..errors import InputError
from ..export.rle import decode_rle
from .marks import (
    Annotated,
    Mark,
    Points,
    Size,
    find_image,
    numbers_of,
    pasted,
    points_of,
    polygon,
    read_xml,
    rectangle,
    text_of,
)

CORNERS = 90
"""Corners of the polygon that stands for an ellipse."""


def is_cvat(content: object) -> bool:
    """Whether a file's content is CVAT's."""
    return isinstance(content, Element) and content.tag == "annotations"


def read_cvat(path: Path, images: Path | None) -> list[Annotated]:
    """Read the photos of a file with their marks: polygons, masks, ellipses and boxes, turned ones too.

    images: the folder of the photos; None looks around the file. Raises InputError, naming the file, for what is
    damaged, for photos that are not there, and for a video's tracks.
    """
    content = read_xml(path)
    if content.find("track") is not None:
        raise InputError(f"{path} holds tracks of a video; export CVAT for images, or COCO, together with the images")
    folders, found = [images] if images else [path.parent / "images", path.parent], []
    for number, one in enumerate(content.findall("image")):
        where = f"{path}: image {number}"
        name = "/".join(filter(None, (one.get("subset"), text_of(one.get("name"), where))))
        marks = (_mark(shape, f"{where}, shape {count}") for count, shape in enumerate(one) if shape.tag != "tag")
        height, width = (int(side) for side in _numbers(one, where, "height", "width"))
        found.append(Annotated(find_image(name, folders, path), tuple(marks), (height, width)))
    return found


def _mark(shape: Element, where: str) -> Mark:
    return Mark(text_of(shape.get("label"), where), _draw(shape, where), box=shape.tag == "box")


def _draw(shape: Element, where: str) -> Callable[[Size], np.ndarray] | None:
    if shape.tag == "polygon":
        pairs = [pair.split(",") for pair in (shape.get("points") or "").split(";")]
        return polygon(points_of([numbers_of(pair, where) for pair in pairs], where))
    if shape.tag == "box":
        return _box(_numbers(shape, where, "xtl", "ytl", "xbr", "ybr"), _turn(shape, where))
    if shape.tag == "ellipse":
        return _ellipse(_numbers(shape, where, "cx", "cy", "rx", "ry"), _turn(shape, where))
    if shape.tag == "mask":
        left, top, width, height = _numbers(shape, where, "left", "top", "width", "height")
        return pasted(partial(_part, shape.get("rle") or "", (int(height), int(width)), where), (left, top))
    return None  # points, lines and cuboids


def _box(sides: Sequence[float], turn: float) -> Callable[[Size], np.ndarray] | None:
    left, top, right, bottom = sides
    if right <= left or bottom <= top:
        return None
    if not turn:
        return rectangle([(left, top), (max(left, right - 1), max(top, bottom - 1))])
    x, y = (left + right) / 2, (top + bottom) / 2
    corners = [(left - x, top - y), (right - x, top - y), (right - x, bottom - y), (left - x, bottom - y)]
    return polygon(_turned(corners, (x, y), turn))


def _ellipse(sides: Sequence[float], turn: float) -> Callable[[Size], np.ndarray] | None:
    x, y, rx, ry = sides
    angles = (math.tau * step / CORNERS for step in range(CORNERS))
    return polygon(_turned([(rx * math.cos(angle), ry * math.sin(angle)) for angle in angles], (x, y), turn))


def _turned(points: Points, middle: tuple[float, float], turn: float) -> Points:
    """Points around (0, 0) turned clockwise, by degrees, and moved to their middle."""
    (x, y), sine, cosine = middle, math.sin(math.radians(turn)), math.cos(math.radians(turn))
    return [(x + dx * cosine - dy * sine, y + dx * sine + dy * cosine) for dx, dy in points]


def _turn(shape: Element, where: str) -> float:
    (turn,) = numbers_of([shape.get("rotation", "0")], where)
    return turn


def _numbers(one: Element, where: str, *names: str) -> list[float]:
    """Attributes that are numbers."""
    return numbers_of([one.get(name) for name in names], where)


def _part(rle: str, size: Size, where: str) -> np.ndarray:
    """A mask's pixels in its box, (H, W) bool; its runs go along the rows, the first of pixels that are off."""
    height, width = size
    try:
        if not 0 < height * width <= LARGEST:
            raise ValueError(f"{width} x {height} pixels")
        return decode_rle([int(count) for count in rle.split(",")], (width, height)).T
    except ValueError as error:
        raise InputError(f"{where} has run lengths that are damaged: {str(error)[:60]}") from None
