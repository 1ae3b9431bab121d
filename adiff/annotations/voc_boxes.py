"""Pascal VOC's boxes: an XML file for each photo, of its name, as labelImg writes it; Roboflow's tell polygons too."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from xml.etree.ElementTree import Element

from ..errors import InputError
from ..storage import composed
from .marks import Annotated, Mark, images_in, numbers_of, points_of, polygon, read_xml, rectangle, text_of

logger = logging.getLogger("adiff")


def is_voc(content: object) -> bool:
    """Whether a file's content is VOC's."""
    return isinstance(content, Element) and content.tag == "annotation"


def read_voc_boxes(paths: Sequence[Path], folder: Path) -> list[Annotated]:
    """Read the photos of files with their marks: boxes, polygons where there are any.

    folder: where the photos are, at any depth. Photos without a file are left out. Raises InputError, naming the file,
    for what is damaged, and for a photo that is not there, or may be one of several.
    """
    photos: dict[str, list[Path]] = defaultdict(list)
    for image in images_in(folder, "**/*"):
        photos[composed(image.stem)].append(image)
    found = {}
    for path in paths:
        named = photos.get(composed(path.stem), [])
        beside = [image for image in named if image.parent == path.parent]
        if len(beside or named) != 1:
            told = f"may be {named[0]} or {named[1]}" if named else f"is not in {folder}"
            raise InputError(f"{path}: its photo, which has its name, {told}; give the folder of the images (--images)")
        (image,) = beside or named
        if image in found:
            raise InputError(f"{path} and another file of its name tell of one photo, {image}; take one out")
        content = read_xml(path)
        marks = (_mark(one, f"{path}: object {number}") for number, one in enumerate(content.findall("object")))
        found[image] = Annotated(image, tuple(marks), _size(content, str(path)))
    if bare := sum(map(len, photos.values())) - len(found):
        logger.warning("photos without an XML file: %d of %d; they are left out", bare, bare + len(found))
    return list(found.values())


def _mark(one: Element, where: str) -> Mark:
    label, outline = text_of(one.findtext("name"), where), one.find("polygon")
    if outline is not None:  # x1, y1, x2, y2, ...
        return Mark(label, polygon(points_of(numbers_of([side.text for side in outline], where), where)))
    sides = [one.findtext(f"bndbox/{side}") for side in ("xmin", "ymin", "xmax", "ymax")]
    left, top, right, bottom = (side - 1 for side in numbers_of(sides, where))  # of pixels that count from 1 on
    return Mark(label, rectangle([(left, top), (right, bottom)]), box=True)


def _size(content: Element, where: str) -> tuple[int, int] | None:
    """(H, W); None where there is none, which some programs write as 0."""
    sides = [content.findtext(f"size/{side}") for side in ("height", "width")]
    height, width = (int(side) for side in numbers_of(sides, where)) if None not in sides else (0, 0)
    return (height, width) if height and width else None
