"""Photos and masks as files: every common kind read exactly, never silently reduced; PNGs written atomically."""

from __future__ import annotations

import hashlib
import logging
import struct
import warnings
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError
from PIL.PngImagePlugin import PngInfo

from ..errors import InputError
from ..geometry import paste_back
from ..storage import write_whole

logger = logging.getLogger("adiff")

SUFFIXES = frozenset((".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp"))
"""Suffixes of photos and masks, in lower case."""
LOSSY = frozenset((".jpg", ".jpeg"))
"""Those of files that keep no class numbers: at many qualities JPEG makes black 1."""
FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "WEBP")
"""Pillow's names of them."""
LARGEST = 2**27
"""Pixels of the largest photo that is opened; what claims more is taken for a decompression bomb."""
RUN = 256
"""Pixels that a byte of a BMP tells, at most; for more, a damaged header, Pillow would look for half a minute."""
LUMA = np.array((0.299, 0.587, 0.114))
"""Weights of red, green and blue in grey (ITU-R BT.601)."""
LEVELS_16 = 257
"""Levels of 16 bits in a level of 8: 65535 / 255."""
_dark_told: set[Path] = set()
"""Folders of which it was said that they hold dark 16-bit photos."""
BROKEN = (OSError, SyntaxError, ValueError, EOFError, LookupError, TypeError, ArithmeticError, struct.error, zlib.error)
"""What Pillow's decoders raise for files that are cut short or damaged."""


@dataclass(frozen=True, eq=False)
class Photo:
    """A photo as its file holds it.

    pixels: uint8 (H, W), (H, W, 3) or (H, W, 4), or uint16 (H, W), turned upright as its EXIF tag says. turned: whether
    the tag says anything.
    """

    pixels: np.ndarray
    path: Path
    turned: bool = False

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) in pixels."""
        return self.pixels.shape[0], self.pixels.shape[1]

    @property
    def rgb(self) -> np.ndarray:
        """The photo for the model: (H, W, 3) uint8, 16 bits scaled to 8, transparency dropped, grey repeated."""
        pixels = self.pixels
        if pixels.dtype == np.uint16:
            pixels = np.rint(pixels / LEVELS_16).astype(np.uint8)
        if pixels.ndim == 2:
            return np.repeat(pixels[:, :, None], 3, axis=2)
        return np.ascontiguousarray(pixels[:, :, :3])

    @property
    def rgba(self) -> np.ndarray:
        """The photo with its transparency, (H, W, 4) uint8, where it has one; else as `rgb`."""
        return self.pixels if self.pixels.ndim == 3 and self.pixels.shape[2] == 4 else self.rgb

    def composite(self, generated: np.ndarray, alpha: np.ndarray) -> np.ndarray:
        """Lay a generated image over the photo, in the photo's own kind; bit-identical where alpha is 0.

        generated: (H, W, 3) uint8; for grey photos its luma counts. alpha: (H, W) in [0, 1]. The photo's transparency
        is kept. Returns an array like `pixels`.
        """
        if generated.shape != (*self.size, 3) or generated.dtype != np.uint8:
            raise ValueError(f"generated image {generated.shape} {generated.dtype}; expected {(*self.size, 3)} uint8")
        if self.pixels.ndim == 2:
            grey = generated.astype(np.float64) @ LUMA
            scale = LEVELS_16 if self.pixels.dtype == np.uint16 else 1
            return paste_back(self.pixels, np.rint(grey * scale).astype(self.pixels.dtype), alpha)
        out = self.pixels.copy()
        out[:, :, :3] = paste_back(self.pixels[:, :, :3], generated, alpha)
        return out


@dataclass(frozen=True, eq=False)
class MaskFile:
    """A mask as read: (H, W) bool, whether its file held greys that were cut at half of full scale, or was turned."""

    mask: np.ndarray
    grey: bool
    turned: bool = False


def read_photo(path: Path | str) -> Photo:
    """Read a photo: PNG, JPEG, BMP, TIFF or WebP; grey, RGB, RGBA, palette, CMYK, 1 bit, 16-bit grey.

    Raises InputError for a file that is missing, damaged or too large, has several pages, or holds more than 8 bits a
    colour or other numbers than a photo's (Pillow would reduce those silently).
    """
    path = Path(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what Pillow remarks on is either harmless or an error below
            pixels, turned = _open(path)
    except InputError:
        raise
    except FileNotFoundError as error:
        raise InputError(f"{path} does not exist") from error
    except UnidentifiedImageError as error:
        raise InputError(f"{path} is no image this reads; expected PNG, JPEG, BMP, TIFF or WebP") from error
    except Image.DecompressionBombError as error:
        raise InputError(f"{path} is too large: {error}; at most {LARGEST} pixels are opened") from error
    except BROKEN as error:
        raise InputError(f"{path} cannot be read, it is damaged or cut short: {error}") from error
    except MemoryError as error:  # also a chunk of a few bytes that claims to have four gigabytes
        raise InputError(f"{path} asks for more memory than there is; it is too large, or damaged") from error
    if pixels.dtype == np.uint16 and 0 < int(pixels.max()) < 2**13 and path.parent not in _dark_told:
        _dark_told.add(path.parent)
        logger.warning("%s: 16-bit grey, brightest %d of 65535: it is used as dark as it is, and so are others like it "
                       "in its folder", path, pixels.max())  # fmt: skip
    return Photo(pixels, path, turned)


def name_of(normal: np.ndarray) -> str:
    """Return the name that a normal image (H, W, 3) uint8 has in a graph's pairs: its pixels' digest, as a file.

    An export keeps the pairs of one normal image together, and with it where that is added.
    """
    return f"{hashlib.sha256(normal.tobytes()).hexdigest()[:16]}.png"


def opens(path: Path) -> bool:
    """Whether `read_photo` reads a file."""
    try:
        read_photo(path)
    except InputError:
        return False
    return True


def _open(path: Path) -> tuple[np.ndarray, bool]:
    """Open, check and decode a file, and tell if it was turned; what Pillow raises is left to `read_photo`."""
    # a file's name would let Pillow map an uncompressed TIFF into memory, and turn its size alone
    with open(path, "rb") as file, Image.open(file, formats=FORMATS) as image:
        width, height = image.size
        if width * height > LARGEST:
            raise InputError(f"{path} is {width}x{height} pixels; at most {LARGEST} pixels are opened: cut it up")
        if image.format == "BMP" and width * height > RUN * path.stat().st_size:
            raise InputError(f"{path} is damaged or cut short: {width}x{height} pixels in {path.stat().st_size} bytes")
        _refuse_unfaithful(image, path)
        image.load()
        turned = image.getexif().get(ExifTags.Base.Orientation, 1) in range(2, 9)
        return _pixels(ImageOps.exif_transpose(image), path), turned


def _refuse_unfaithful(image: Image.Image, path: Path) -> None:
    """Raise InputError for what Pillow would open, but not as it is."""
    pages = getattr(image, "n_frames", 1)
    if pages > 1 and image.format != "MPO":  # a phone's JPEG, with previews behind the photo
        raise InputError(f"{path} holds {pages} pages or frames; expected one image a file")
    bits, grey = 8, image.mode in ("I;16", "I;16L", "I;16B", "I;16N", "I")
    if image.format == "PNG":
        with open(path, "rb") as file:
            header = file.read(26)
        bits, grey = header[24], header[25] == 0
    elif image.format == "TIFF":
        bits = max(image.tag_v2.get(258, (1,)))
        if bits > 8 and image.tag_v2.get(262) == 0:
            raise InputError(f"{path} is {bits}-bit grey with white as 0; save it with black as 0")
        if max(image.tag_v2.get(339, (1,))) != 1:
            raise InputError(f"{path} holds signed or floating-point numbers; save it as 8-bit, or as 16-bit grey")
    if bits > 8 and not (bits == 16 and grey):
        colour = "grey" if grey else "colour"
        raise InputError(f"{path} is {bits}-bit {colour}; only 8 bits and 16-bit grey are kept exactly: save it as one")
    if image.mode in ("F", "I") and image.format != "PNG":
        raise InputError(f"{path} has pixels of kind {image.mode!r}; save it as 8-bit, or as 16-bit grey")


def _pixels(image: Image.Image, path: Path) -> np.ndarray:
    """A loaded image as uint8 (H, W), (H, W, 3) or (H, W, 4), or uint16 (H, W)."""
    mode = image.mode
    if mode.startswith("I"):
        return np.array(image).astype(np.uint16)
    if mode in ("LA", "PA", "La", "RGBa") or (mode in ("L", "P", "RGB", "1") and "transparency" in image.info):
        image = image.convert("RGBA")
    elif mode == "1":
        image = image.convert("L")
    elif mode in ("P", "CMYK", "YCbCr", "LAB", "HSV", "RGBX"):
        image = image.convert("RGB")
    elif mode not in ("L", "RGB", "RGBA"):
        raise InputError(f"{path} has pixels of kind {mode!r}; save it as grey, RGB or RGBA")
    return np.array(image)


def read_mask(path: Path | str, shape: tuple[int, int] | None = None, of: str = "defect") -> MaskFile:
    """Read a mask: on from half of full scale, in any colour channel, times its opacity.

    shape: (H, W) of the mask's photo, or None for any. of: what it marks, for messages. The caller tells the user, and
    records, that greys were cut.
    Raises InputError if the file cannot be read, its size differs, or it marks no pixel, or all of them.
    """
    path = Path(path)
    values, full, turned = mask_levels(path, shape)
    height, width = values.shape
    mask = values >= (full + 1) // 2
    if not mask.any():
        most = int(values.max())
        hint = f": its largest value is {most} of {full}, marks start at {(full + 1) // 2}" if most else ""
        if most == 1:
            hint += f"; if it counts in 0 and 1, multiply it by {full}, or let `adiff import` do it"
        raise InputError(f"the mask {path} ({width}x{height}) is empty{hint}; mark the {of} in white on black")
    if mask.all():
        raise InputError(f"the mask {path} ({width}x{height}) marks the whole image; mark the {of} only")
    if path.suffix.lower() not in LOSSY:
        _refuse_labels(values, mask, full, path)
    return MaskFile(mask, bool(((values != 0) & (values != full)).any()), turned)


def mask_levels(path: Path, shape: tuple[int, int] | None = None) -> tuple[np.ndarray, int, bool]:
    """Read a mask's levels, (H, W) uint8 or uint16: of its strongest colour channel, times its opacity.

    shape: (H, W) of the mask's photo, or None for any. Returns full scale too, and whether an EXIF tag turned it.
    Raises InputError if the file cannot be read, or its size differs.
    """
    photo = read_photo(path)
    height, width = photo.size
    if shape is not None and (height, width) != tuple(shape):
        other = f"{shape[1]}x{shape[0]}"
        hint = "" if (width, height) != tuple(shape) else (
            ": one of them lies on its side, and an EXIF tag may have turned the other; save both upright"
        )  # fmt: skip
        raise InputError(f"the mask {path} is {width}x{height}, its image {other}; they must have the same size{hint}")
    pixels, full = photo.pixels, int(np.iinfo(photo.pixels.dtype).max)
    values = pixels if pixels.ndim == 2 else pixels[:, :, :3].max(axis=2)
    if pixels.ndim == 3 and pixels.shape[2] == 4:
        opaque = values.astype(np.uint16) * pixels[:, :, 3]  # of 8 bits each; a large mask as floats takes gigabytes
        values = ((opaque + full // 2) // full).astype(np.uint8)
    return values, full, photo.turned


def _refuse_labels(values: np.ndarray, mask: np.ndarray, full: int, path: Path) -> None:
    """Raise InputError for numbers of classes taken for a mask: one grey, too dark to count, is most of what is not 0.

    Soft edges have many greys; a label image has one for each class, and maybe a white line around them.
    """
    dark = values[~mask & (values != 0)]
    marked = len(dark) + int(mask.sum())
    if 2 * len(dark) <= marked:
        return
    level, count = max(zip(*np.unique(dark, return_counts=True), strict=True), key=lambda found: found[1])
    if 2 * int(count) > marked:
        raise InputError(
            f"the mask {path} holds {level} in {count} of {marked} pixels that are not black, and marks start at "
            f"{(full + 1) // 2} of {full}; write it black and white, an image of class numbers as one mask a class "
            "(`adiff import` does, in Pascal VOC's layout)"
        )


@dataclass(frozen=True)
class StoredImages(Sequence[np.ndarray]):
    """Images (H, W, 3) uint8 that are opened one by one when they are asked for: there may be many large ones."""

    paths: Sequence[Path]

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> np.ndarray:
        return read_photo(self.paths[index]).rgb


def write_png(path: Path | str, array: np.ndarray, text: Mapping[str, str] | None = None) -> None:
    """Write a PNG, whole or not at all.

    array: uint8 (H, W), (H, W, 3) or (H, W, 4), uint16 (H, W), or bool (H, W), written as 0 and 255. Folders are made.
    text: kept in the file as text chunks.
    """
    if array.dtype == bool:
        array = array.astype(np.uint8) * 255
    fits = array.dtype == np.uint8 and (array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (3, 4)))
    if not fits and not (array.dtype == np.uint16 and array.ndim == 2):
        raise ValueError(f"array {array.shape} {array.dtype}; expected uint8 grey, RGB or RGBA, uint16 grey, or a mask")
    image = Image.fromarray(np.ascontiguousarray(array))
    chunks = PngInfo()
    for key, value in (text or {}).items():
        chunks.add_text(key, value)
    write_whole(path, lambda temporary: image.save(temporary, format="PNG", pnginfo=chunks))
