"""The background of BCM: what of an image is not the object, and what the U-Net sees in it (METHOD 4).

| symbol | meaning | shape |
|---|---|---|
| foreground | where the object is | (H, W) bool |
| background | image * (1 - foreground) in [-1, 1], so grey where the object is | (H, W, 3) |
| z_bg, eps_bg | its latents; noise that brings them to the images' timestep | (P, 4, h, w) |
| h_bg | what goes into each self-attention for it, unedited, under the unconditional context | (P, N, C) |
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..backbone.attentions import EditableBackbone
from ..datasets.images import read_mask, read_photo
from ..datasets.readers import list_images
from ..errors import InputError
from ..foreground import by_border_colour
from ..geometry import Box, crop_resize, resize_mask
from ..memory import Parts
from ..pixels import as_images
from ..training.noising import add_noise
from ..training.views import ENCODED
from .layers import BackgroundPass
from .parts import part_of

log = logging.getLogger("adiff")
ENDING = "_mask"
"""What a foreground's name may have behind its photo's."""
BLACK = -1.0


@dataclass(frozen=True, eq=False)
class Background:
    """Backgrounds of pairs: z_bg and eps_bg, (P, 4, h, w); black: latents of a black image, (1, 4, h, w), or None.

    With black, guidance's unconditional rows see that in the background's place (the release).
    """

    latents: Tensor
    noise: Tensor
    black: Tensor | None = None


@torch.no_grad()
def see_background(backbone: EditableBackbone, z: Tensor, noise: Tensor, t: Tensor) -> dict[str, Tensor]:
    """h_bg of each self-attention by its name, (P, N, C), at timesteps t (P,); z, noise: (P, 4, h, w)."""
    seen = BackgroundPass()
    null = backbone.null_context.to(z).expand(len(z), -1, -1)
    backbone.predict_noise_edited(add_noise(backbone, z, noise, t), t, null, seen)
    return seen.seen


def background_picture(image: np.ndarray, foreground: np.ndarray | None, size: int) -> np.ndarray:
    """Return what surrounds the object as levels, grey where it is and all grey without a foreground.

    image: (H, W, 3) uint8. foreground: (H, W) bool, or None for an object that fills the frame. Returns (size, size, 3)
    float32 in [0, 255].
    """
    whole = crop_resize(image, Box(0, 0, image.shape[1], image.shape[0]), size)
    outside = np.zeros((size, size), bool) if foreground is None else ~resize_mask(foreground, size, size)
    return part_of(whole, outside)


@torch.no_grad()
def encode_backgrounds(backbone: EditableBackbone, pictures: Sequence[np.ndarray], batch: int = 4) -> Tensor:
    """Latents (N, 4, h, w) of background pictures as `background_picture` makes them."""
    pixels = as_images(np.stack(pictures))
    return torch.stack(Parts(batch, ENCODED).of(len(pixels), lambda part: backbone.encode(pixels[part])))


@torch.no_grad()
def encode_black(backbone: EditableBackbone, size: int) -> Tensor:
    """Latents (1, 4, h, w) of a black image: what the release gives the unconditional rows for a background."""
    return backbone.encode(torch.full((1, 3, size, size), BLACK))


def foregrounds_of(images: Sequence[np.ndarray], names: Sequence[str]) -> list[np.ndarray | None]:
    """Find the object in each image by itself, and say of how many; None for those where it fills the frame."""
    found = [find_foreground(image) for image in images]
    _tell_found([mask is not None for mask in found], names)
    return found


def _tell_found(found: Sequence[bool], names: Sequence[str]) -> None:
    filled = [name for name, one in zip(names, found, strict=True) if not one]
    if filled:
        log.warning(
            "BCM: no background was found in %d of %d photos (%s): it stays blank there; give masks of the object "
            "as foreground, or leave BCM out where it fills the frame", len(filled), len(names), ", ".join(filled[:3]),
        )  # fmt: skip
    else:
        log.info("BCM: the object was told from the background by its colour in %d photos", len(names))


def find_foreground(image: np.ndarray) -> np.ndarray | None:
    """Tell an object from its surroundings by the border's colour (`foreground.by_border_colour`).

    image: (H, W, 3) uint8. Returns (H, W) bool, or None where it is not told for sure: no background is better than one
    with the object in it.
    """
    try:
        (mask,) = by_border_colour([image])
    except InputError:
        return None
    return mask


def read_foregrounds(folder: Path, photos: Sequence[str], shapes: Sequence[tuple[int, int]]) -> list[np.ndarray]:
    """Read the foreground of each photo: the mask of its name, or with `_mask` behind, in `folder`.

    photos: file names, folders before them left aside. shapes: (H, W) of each. Returns (H, W) bool, white in the files.
    Raises InputError for a photo without one, another size, and for masks that are empty or mark the whole image.
    """
    paths = _foreground_files(folder, photos)
    return [read_mask(path, shape, "object").mask for path, shape in zip(paths, shapes, strict=True)]


def _foreground_files(folder: Path, photos: Sequence[str]) -> list[Path]:
    there, stems = {path.stem: path for path in list_images(folder)}, [Path(name).stem for name in photos]
    lacking = [name for name, stem in zip(photos, stems, strict=True) if not {stem, stem + ENDING} & there.keys()]
    if lacking:
        raise InputError(
            f"{folder} holds no foreground for {lacking[0]}; give a mask of the object for each photo, of the same name"
        )
    return [there.get(stem + ENDING) or there[stem] for stem in stems]


def read_backgrounds(
    backbone: EditableBackbone, size: int, normals: Sequence[Path], foreground: Path | None
) -> tuple[Tensor, tuple[str, ...]]:
    """Latents (n, 4, h, w) of what surrounds the object in photos, squares of `size`, and their names.

    One photo is held at a time.
    """
    names, pictures, found = tuple(path.name for path in normals), [], []
    marked = None if foreground is None else _foreground_files(foreground, names)
    for number, path in enumerate(normals):
        image = read_photo(path).rgb
        given = None if marked is None else read_mask(marked[number], image.shape[:2], "object").mask
        mask = find_foreground(image) if given is None else given
        found.append(mask is not None)
        pictures.append(background_picture(image, mask, size))
    if marked is None:
        _tell_found(found, names)
    return encode_backgrounds(backbone, pictures), names
