"""What annotations mark in a photo, and how it becomes a mask.

Corners are cut to whole pixels and what the outline touches is filled, as OpenCV and Pillow do it, and with them
labelme and ultralytics: a mark thinner than a pixel stays, and the outlines that `adiff export` writes give back their
masks.
"""

from __future__ import annotations

import binascii
import functools
import io
import math
import os
import re
import unicodedata
import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

import numpy as np
from PIL import Image, ImageDraw

from ..datasets.images import BROKEN, LARGEST, SUFFIXES
from ..errors import InputError, listed
from ..storage import composed

Size = tuple[int, int]
"""(H, W) in pixels."""
Points = list[tuple[float, float]]
"""(x, y) in pixels, from the upper left corner of the photo."""
SLACK = 0.04
"""Pixels that rounded shares of a side may take from a whole number; less than what an exported outline lies inside."""
UPLOADED = re.compile("[0-9a-f]{8}-(.+)")
"""Name of a photo in Label Studio, and in it that of the file which was uploaded."""
FARTHEST = 2**20
"""Pixels from the photo's corner; what lies farther away is a damaged number."""


@dataclass(frozen=True)
class Mark:
    """One marked place. label: what it is called. draw: (H, W) -> its mask, (H, W) bool; None for what has no area.

    box: only the box around the place is known.
    """

    label: str
    draw: Callable[[Size], np.ndarray] | None
    box: bool = False


@dataclass(frozen=True)
class Annotated:
    """A photo with all that is marked in it.

    size: (H, W) that its annotation tells, if it does. flags: what its annotation calls it as a whole.
    """

    image: Path
    marks: tuple[Mark, ...]
    size: Size | None = None
    flags: tuple[str, ...] = ()


def polygon(points: Points) -> Callable[[Size], np.ndarray] | None:
    """Return what draws a filled polygon; None for less than three corners."""
    corners = [(_whole(x), _whole(y)) for x, y in points]
    return None if len(corners) < 3 else lambda size: _drawn(size, lambda pen: pen.polygon(corners, 1, 1))


def rectangle(points: Points) -> Callable[[Size], np.ndarray]:
    """Return what draws the upright rectangle around points."""
    xs, ys = zip(*points, strict=True)
    corners = [_whole(side) for side in (min(xs), min(ys), max(xs), max(ys))]
    return lambda size: _drawn(size, lambda pen: pen.rectangle(corners, 1))


def circle(centre: tuple[float, float], radius: float) -> Callable[[Size], np.ndarray]:
    """Return what draws a filled circle."""
    (left, right), (top, bottom) = ([_whole(middle - radius), _whole(middle + radius)] for middle in centre)

    def draw(size: Size) -> np.ndarray:  # Pillow's would take minutes for one that is far larger than the photo
        rows, columns = np.ogrid[: size[0], : size[1]]
        return (2 * columns - left - right) ** 2 + (2 * rows - top - bottom) ** 2 <= (right - left) * (bottom - top)

    return draw


def pasted(part: Callable[[], np.ndarray], corner: tuple[float, float]) -> Callable[[Size], np.ndarray]:
    """Return what draws a mask that is told by the pixels of its box, and by the box's corner.

    part: gives them, (H, W) bool, only when the mask is drawn, as the masks of all are many.
    """
    left, top = (round(value) for value in corner)

    def draw(size: Size) -> np.ndarray:
        mask, pixels = np.zeros(size, bool), part()
        rows, columns = (
            slice(max(0, start), max(0, start + side)) for start, side in zip((top, left), pixels.shape, strict=True)
        )
        target = mask[rows, columns]
        target |= pixels[max(0, -top) :, max(0, -left) :][: target.shape[0], : target.shape[1]]
        return mask

    return draw


def of_png(png: Callable[[], bytes], where: str) -> np.ndarray:
    """Return what is not black in a PNG, or not transparent in one that can be, (H, W) bool.

    Raises InputError, which begins with `where`, for what is no PNG.
    """
    try:
        with Image.open(io.BytesIO(png()), formats=("PNG",)) as image:
            if image.width * image.height > LARGEST:
                raise ValueError("too large")
            clear = "A" in image.mode or "transparency" in image.info
            return np.asarray(image.convert("RGBA").getchannel("A") if clear else image.convert("L")) > 0
    except (*BROKEN, zlib.error, binascii.Error, Image.DecompressionBombError, MemoryError) as error:
        raise InputError(f"{where} has a mask that is no PNG ({str(error)[:60]})") from None


def united(masks: Iterable[np.ndarray]) -> np.ndarray:
    """Return what any of some masks marks; one at a time is in memory, as a photo may have hundreds."""
    return functools.reduce(np.logical_or, masks)


def _whole(place: float) -> int:
    return math.floor(place + SLACK)


def _drawn(size: Size, draw: Callable[[ImageDraw.ImageDraw], None]) -> np.ndarray:
    image = Image.new("L", size[::-1])
    draw(ImageDraw.Draw(image))
    return np.asarray(image) > 0


def points_of(values: object, where: str) -> Points:
    """Read pairs [[x, y], ...], or flat numbers x, y, x, y, ...; raises InputError, which begins with `where`."""
    flat = values
    if isinstance(values, list) and all(isinstance(one, list) and len(one) == 2 for one in values):
        flat = [number for one in values for number in one]
    if not isinstance(flat, list) or len(flat) % 2:
        raise InputError(f"{where} has a place that is no list of x and y")
    for number in flat:
        if not is_number(number) or abs(number) > FARTHEST:
            raise InputError(f"{where} has a place at {str(number)[:40]}; expected pixels from the photo's corner")
    return list(zip(flat[::2], flat[1::2], strict=True))


def numbers_of(texts: Sequence[str | None], where: str) -> list[float]:
    """Read the numbers of a text format; raises InputError, which begins with `where`, for others, and for none."""
    try:
        found = [float(text or "") for text in texts]
    except ValueError:
        found = []
    if len(found) < len(texts) or not all(abs(number) <= FARTHEST for number in found):
        raise InputError(f"{where} has {str(list(texts))[:60]}; expected pixels from the photo's corner")
    return found


def is_number(value: object) -> bool:
    """Whether a value out of JSON is a finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < math.inf


def is_whole(value: object) -> bool:
    """Whether a value out of JSON is a whole number; 3.0 is one, as pandas writes those of a column with gaps."""
    return is_number(value) and value == int(value)


def text_of(value: object, where: str) -> str:
    """Return a label; raises InputError, which begins with `where`, for what is no text."""
    if not isinstance(value, str) or not value.strip():
        told = repr(value[:40]) if isinstance(value, str) else type(value).__name__  # as YAML's may be endless
        raise InputError(f"{where} has the label {told}; expected a name")
    return value.strip()


def size_of(height: object, width: object) -> Size | None:
    """Return (H, W), None where an annotation does not tell both."""
    return (int(height), int(width)) if is_whole(height) and is_whole(width) else None


def find_image(name: str, folders: Sequence[Path], source: Path) -> Path:
    """Return the image of a name that an annotation tells, in the first folder that has it, below its own or directly.

    A file whose name Label Studio has put its own letters before is found by its own.
    Raises InputError if there is none, naming `source`, and for one that a link takes out of its folder.
    """
    parts = PurePosixPath(name.replace("\\", "/")).parts
    inside = [part for part in parts if part not in ("/", "..") and not part.endswith(":")]
    told = "/".join(inside)
    spelt = dict.fromkeys([told, *(unicodedata.normalize(form, told) for form in ("NFC", "NFD"))]) if inside else ()
    tried = [place for name in spelt for place in (name, name.rpartition("/")[2])]
    tried += [own[1] for name in tried if (own := UPLOADED.fullmatch(name))]
    for folder in folders:
        for path in (folder / place for place in tried):
            if os.path.isfile(path):  # false for what no system takes for a name
                if path.suffix.lower() not in SUFFIXES:
                    raise InputError(f"{source}: its image {path} is no PNG, JPEG, BMP, TIFF or WebP; convert it")
                if not path.resolve().is_relative_to(folder.resolve()):
                    raise InputError(f"the link {path} leads out of {folder}; copy what it points to into it")
                return path
    places = listed(map(str, dict.fromkeys(folders)), 3)
    raise InputError(f"{source}: its image {name[:80]!r} is not in {places}; give the folder of the images (--images)")


def files_in(folder: Path, pattern: str = "*") -> list[Path]:
    """Files in a folder, of those below it too with the pattern **/*, by name; what is hidden is left out."""
    found = folder.glob(pattern) if folder.is_dir() else ()
    return sorted(
        path for path in found
        if path.is_file() and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )  # fmt: skip


def images_in(folder: Path, pattern: str = "*") -> list[Path]:
    """Image files among `files_in`."""
    return [path for path in files_in(folder, pattern) if path.suffix.lower() in SUFFIXES]


def by_stem(files: Iterable[Path], folder: Path) -> dict[str, Path]:
    """Files by their place in a folder, without suffix, `composed`; InputError if two share one."""
    found: dict[str, Path] = {}
    for path in files:
        other = found.setdefault(composed(path.relative_to(folder).with_suffix("").as_posix()), path)
        if other is not path:
            raise InputError(f"{other} and {path} differ in their suffix alone; rename one, and what belongs to it")
    return found


def read_lines(path: Path) -> list[str]:
    """A text's lines, also with the mark that some editors begin UTF-8 with; InputError for what is no text."""
    try:
        return path.read_text(encoding="utf-8-sig").splitlines()
    except ValueError:
        raise InputError(f"{path} is no text in UTF-8") from None


def read_xml(path: Path, remedy: str = "") -> Element:
    """Read an XML file's root. Raises InputError, with what to do if that is given, for what is none."""
    try:
        return ElementTree.parse(path).getroot()
    except (ElementTree.ParseError, ValueError, LookupError) as error:  # LookupError: an encoding that is not known
        raise InputError(f"{path} is damaged (no XML: {str(error)[:80]})" + (f"; {remedy}" if remedy else "")) from None


def labels_listed(labels: Sequence[str]) -> str:
    """Labels for a message, each once and cut short."""
    return listed([label[:40] for label in dict.fromkeys(labels)], 8)
