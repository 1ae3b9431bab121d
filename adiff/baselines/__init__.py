"""Baselines that paste in place of generating: one interface, normals, masks or none and shots -> pairs.

| name | what is pasted | masks | needs |
|---|---|---|---|
| crop-paste | a shot's defect, turned and scaled | say where | shots |
| cutpaste | a patch or a scar of the normal image itself | say where and in what shape | |
| draem | a texture, by Perlin noise | say where and in what shape | textures, if there are any |

Each draws from its own generator, a function of the seed, the method and the pair's number.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from functools import partial

import numpy as np

from ..errors import InputError
from ..generation.seeds import rng_for
from ..geometry import mask_box, resize_mask
from ..run_record import PASTING
from .crop_paste import crop_paste
from .cutpaste import cutpaste
from .draem import draem
from .pasting import Pasted, Sources, on_object

METHODS = dict(zip(PASTING, (crop_paste, cutpaste, draem), strict=True))

__all__ = ["METHODS", "Pasted", "Sources", "normal_of", "paste_pairs"]


def paste_pairs(
    method: str,
    normals: Sequence[np.ndarray],
    count: int,
    *,
    shots: Sequence[tuple[np.ndarray, np.ndarray]] = (),
    masks: Sequence[np.ndarray] = (),
    textures: Sequence[np.ndarray] = (),
    objects: Callable[[int], np.ndarray] | None = None,
    skip: Collection[int] = (),
    seed: int = 0,
) -> Iterator[Pasted]:
    """Make `count` pairs out of normal images (H, W, 3) uint8, one after another, but those whose numbers are in skip.

    shots: (image (H, W, 3) uint8, mask (H, W) bool). masks: (H, W) bool, taken in turn and resized to their normal
    image; none: the method's own places and shapes. textures: (H, W, 3) uint8. objects: where the object
    is in a normal image, by its number, (H, W) bool; pairs then lie on it (`pasting.on_object`). Raises InputError for
    a method that is not there, no normal image, an empty mask, and crop-paste without shots.
    """
    if method not in METHODS:
        raise InputError(f"there is no baseline {method!r}; choose from {', '.join(METHODS)}")
    if not len(normals):
        raise InputError(f"no normal images for {method}; give at least one")
    if method == "crop-paste" and not len(shots):
        raise InputError("no shots for crop-paste; give at least one image of the defect with its mask")
    for mask in masks[:count]:
        mask_box(mask)  # raises for an empty one, before the first pair is made
    sources = Sources(shots, textures)
    for number in range(count):
        if number in skip:
            continue
        rng, index = _begun(method, number, len(normals), seed)
        normal = normals[index]
        mask = resize_mask(masks[number % len(masks)], *normal.shape[:2]) if len(masks) else None
        draw = partial(METHODS[method], normal, mask, sources, rng)
        yield Pasted(*(on_object(draw, normal, objects(index), method != "draem") if objects else draw()), index)


def normal_of(method: str, number: int, normals: int, seed: int) -> int:
    """Which of so many normal images `paste_pairs` makes a pair of."""
    return _begun(method, number, normals, seed)[1]


def _begun(method: str, number: int, normals: int, seed: int) -> tuple[np.random.Generator, int]:
    """A pair's own generator, and the normal image that it has drawn first."""
    rng = rng_for(seed, method, number)
    return rng, int(rng.integers(normals))
