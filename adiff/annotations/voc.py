"""Pascal VOC: class numbers as pixels, SegmentationClass/S.png for JPEGImages/S.jpg."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from ..datasets.images import BROKEN, FORMATS, LARGEST
from ..errors import InputError
from .marks import Annotated, Mark, Size, images_in, text_of

CLASSES, IMAGES = "SegmentationClass", "JPEGImages"
UNDECIDED = 255
"""VOC's number of pixels that belong to no class for sure: the outlines of objects."""
NAMES = ("labels.txt", "class_names.txt")
"""Files that name the classes, a line each: from number 1 on (`adiff export`), or after a line of the background."""
COLOURS = "labelmap.txt"
"""File of CVAT's export that names the colours: label:r,g,b:parts:actions."""
GROUND = ("background", "_background_")
"""Lines that name no class."""


def read_voc(root: Path, images: Path | None) -> list[Annotated]:
    """Read the photos of a folder in VOC's layout that have class numbers, with the classes as marks.

    images: the folder of the photos; None takes JPEGImages. Raises InputError for numbers without a name, pixels that
    are no numbers, and photos that are not there.
    """
    folder = images or root / IMAGES
    photos = {path.stem: path for path in images_in(folder)}
    found = []
    for path in images_in(root / CLASSES):
        if path.stem not in photos:
            raise InputError(f"{path}: its photo is not in {folder}; give the folder of the images (--images)")
        found.append(Annotated(photos[path.stem], _marks(path, root)))
    return found


def _marks(path: Path, root: Path) -> tuple[Mark, ...]:
    by_colour = (root / COLOURS).is_file()
    names = _of_colours(root / COLOURS) if by_colour else _of_numbers(root)
    there = set(np.unique(_values(path, by_colour)).tolist()) - ({0} if by_colour else {0, UNDECIDED})
    if unknown := sorted(there - names.keys()):
        told = f"the colour {unknown[0]:#08x}" if by_colour else f"class {unknown[0]}"
        raise InputError(f"{path} holds {told}, which {COLOURS if by_colour else NAMES[0]} in {root} does not name")
    return tuple(Mark(names[one], partial(_of_class, path, one, by_colour)) for one in sorted(there))


def _of_class(path: Path, value: int, by_colour: bool, size: Size) -> np.ndarray:
    values = _values(path, by_colour)
    if values.shape != size:
        raise InputError(f"{path} is {values.shape[1]}x{values.shape[0]}, its photo {size[1]}x{size[0]}")
    return values == value


def _values(path: Path, by_colour: bool) -> np.ndarray:
    """A file's class numbers, or its colours as numbers 0xRRGGBB, (H, W)."""
    try:
        with Image.open(path, formats=FORMATS) as image:
            if image.width * image.height > LARGEST:
                raise InputError(f"{path} is {image.width}x{image.height} pixels; at most {LARGEST} are opened")
            if by_colour:
                red, green, blue = np.moveaxis(np.asarray(image.convert("RGB")).astype(np.int32), 2, 0)
                return red << 16 | green << 8 | blue
            if image.mode not in ("P", "L"):
                raise InputError(f"{path} has colours ({image.mode}), and {COLOURS}, which names them, is not there")
            return np.asarray(image)
    except (*BROKEN, Image.DecompressionBombError, MemoryError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path} cannot be read, it is damaged or cut short: {error}") from None


def _lines(path: Path) -> list[str]:
    try:
        return [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except ValueError:
        raise InputError(f"{path} is no text") from None


def _of_numbers(root: Path) -> dict[int, str]:
    """The names of the classes by number, 0 being the background."""
    path = next((root / name for name in NAMES if (root / name).is_file()), None)
    if path is None:
        raise InputError(f"{root} names no classes; expected {NAMES[0]} there, a class a line from number 1 on")
    lines = [line for line in _lines(path) if line.lower() != "__ignore__"]
    first = 0 if lines and lines[0].lower() in GROUND else 1
    return {number: line for number, line in enumerate(lines, first) if line.lower() not in GROUND}


def _of_colours(path: Path) -> dict[int, str]:
    """The names of the classes by colour, 0xRRGGBB."""
    names = {}
    for line in _lines(path):
        if line.startswith("#"):
            continue
        label, _, rest = line.partition(":")
        try:
            red, green, blue = (int(value) for value in rest.partition(":")[0].split(","))
        except ValueError:
            raise InputError(f"{path} has the line {line[:60]!r}; expected label:red,green,blue") from None
        if label.lower() not in GROUND:
            names[red << 16 | green << 8 | blue] = text_of(label, str(path))
    return names
