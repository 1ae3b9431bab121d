"""Pascal VOC: class numbers as pixels, SegmentationClass/S.png for JPEGImages/S.jpg."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from ..datasets.images import BROKEN, FORMATS, LARGEST
from ..errors import InputError
from ..export.voc import voc_colours
from .marks import Annotated, Mark, Size, by_stem, images_in, read_lines, text_of

logger = logging.getLogger("adiff")

CLASSES, IMAGES = "SegmentationClass", "JPEGImages"
UNDECIDED = 255
"""VOC's number of pixels that belong to no class for sure: the outlines of objects."""
COLOURS = "labelmap.txt"
"""Names as `adiff export`, CVAT and Datumaro write them, label:r,g,b:parts:actions, the colours perhaps left out."""
NAMES = (COLOURS, "class_names.txt", "labels.txt")
"""Files that name the classes, a line each: from number 1 on, or after a line of the background."""
COMMENT = re.compile(r"#(?!.*:\d+,\d+,\d+:)")
"""How a line begins that names no class; a name may begin so too, before its colour."""
GROUND = ("background", "_background_")
"""Lines that name no class."""


def read_voc(root: Path, images: Path | None) -> list[Annotated]:
    """Read the photos of a folder in VOC's layout that have class numbers, with the classes as marks.

    images: the folder of the photos; None takes JPEGImages. Raises InputError for numbers without a name, pixels that
    are no numbers, and photos that are not there.
    """
    folder = images or root / IMAGES
    photos = by_stem(images_in(folder, "**/*"), folder)
    names, by_colour = _named(root)
    found = []
    for stem, path in by_stem(images_in(root / CLASSES, "**/*"), root / CLASSES).items():
        if stem not in photos:
            raise InputError(f"{path}: its photo is not in {folder}; give the folder of the images (--images)")
        if (own := _sides(path)) and (other := _sides(photos[stem])) and own != other:
            raise _unlike(path, own, other)
        found.append(Annotated(photos[stem], _marks(path, names, by_colour)))
    if bare := len(photos) - len(found):
        logger.warning("photos without an image in %s: %d of %d; they are left out", CLASSES, bare, len(photos))
    return found


def _marks(path: Path, names: dict[int, str], by_colour: bool) -> tuple[Mark, ...]:
    there = np.unique(_values(path, by_colour)).tolist()
    if unknown := [one for one in there if one not in names]:
        told = f"the colour {unknown[0]:#08x}" if by_colour else f"class {unknown[0]}"
        raise InputError(f"{path} holds {told}, which has no name; see {', '.join(NAMES)}")
    return tuple(
        Mark(names[one], partial(_of_class, path, one, by_colour)) for one in there if names[one].lower() not in GROUND
    )


def _of_class(path: Path, value: int, by_colour: bool, size: Size) -> np.ndarray:
    values = _values(path, by_colour)
    if values.shape != size:
        raise _unlike(path, values.shape[::-1], size[::-1])
    return values == value


def _sides(path: Path) -> list[int]:
    """An image's sides by its header, the shorter first, as an EXIF tag may turn it; [] of a damaged one."""
    try:
        with Image.open(path, formats=FORMATS) as image:
            return sorted(image.size)
    except (*BROKEN, Image.DecompressionBombError, MemoryError):
        return []


def _unlike(path: Path, own: Sequence[int], photo: Sequence[int]) -> InputError:
    return InputError(f"{path} is {own[0]}x{own[1]}, its photo {photo[0]}x{photo[1]}; they must have the same size")


def _values(path: Path, by_colour: bool) -> np.ndarray:
    """A file's class numbers, which VOC's own colours stand for too, or its colours as numbers 0xRRGGBB, (H, W)."""
    try:
        with Image.open(path, formats=FORMATS) as image:
            if image.width * image.height > LARGEST:
                raise InputError(f"{path} is {image.width}x{image.height} pixels; at most {LARGEST} are opened")
            if not by_colour and image.mode in ("P", "L"):
                return np.asarray(image)
            colours = _packed(np.asarray(image.convert("RGB")))
    except (*BROKEN, Image.DecompressionBombError, MemoryError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path} cannot be read, it is damaged or cut short: {error}") from None
    if by_colour:
        return colours
    own = _packed(voc_colours())
    order = np.argsort(own)
    numbers = order[np.searchsorted(own[order], colours).clip(max=len(own) - 1)]
    if (other := colours[own[numbers] != colours]).size:
        raise InputError(f"{path} has the colour {other[0]:#08x}, which is none of VOC's; name its label in {COLOURS}")
    return numbers


def _packed(colours: np.ndarray) -> np.ndarray:
    """Colours, (..., 3) uint8, as numbers 0xRRGGBB."""
    red, green, blue = np.moveaxis(colours.astype(np.int32), -1, 0)
    return red << 16 | green << 8 | blue


def _named(root: Path) -> tuple[dict[int, str], bool]:
    """The names of the classes, by number (0 is the background) or by colour, 0xRRGGBB, and whether it is by colour."""
    path = next((root / name for name in NAMES if (root / name).is_file()), None)
    if path is None:
        raise InputError(f"{root} names no classes; expected {NAMES[-1]} there, a class a line from number 1 on")
    lines = [line for line in map(str.strip, read_lines(path)) if line]
    lines = [line for line in lines if line.lower() != "__ignore__" and not COMMENT.match(line)]
    told = [line.partition(":") for line in lines] if path.name == COLOURS else [(line, "", "") for line in lines]
    colours = [colour for _, _, rest in told if (colour := rest.partition(":")[0])]
    if colours and len(colours) < len(told):
        raise InputError(
            f"{path} tells a colour for {len(colours)} of {len(told)} labels; expected label:red,green,blue"
        )
    first = 0 if lines and told[0][0].lower() in GROUND else 1
    numbers = [_colour(text, path) for text in colours] or range(first, first + len(told))
    if len(set(numbers)) < len(told):
        raise InputError(f"{path} tells one colour for several labels, which their pixels do not tell apart")
    named = {number: text_of(label, str(path)) for number, (label, _, _) in zip(numbers, told, strict=True)}
    return dict.fromkeys((0,) if colours else (0, UNDECIDED), GROUND[0]) | named, bool(colours)


def _colour(text: str, path: Path) -> int:
    try:
        red, green, blue = (int(value) for value in text.split(","))
    except ValueError:
        raise InputError(f"{path} has the colour {text[:40]!r}; expected red,green,blue") from None
    return red << 16 | green << 8 | blue
