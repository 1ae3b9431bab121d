"""COCO's run lengths of a mask (`maskApi.c` of cocodataset/cocoapi: rleEncode, and rleFrString of compressed ones)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

BITS, MORE, FIRST = 5, 0x20, 48
"""A character carries five bits and says whether more follow; the characters start at "0"."""
LONGEST = 7
"""Characters of a number; more would tell more pixels than any mask has."""


def encode_rle(mask: np.ndarray) -> dict[str, Any]:
    """Return {"size": [H, W], "counts": lengths} of a mask, (H, W) bool.

    Runs go down the columns, the first of pixels that are off, perhaps of none. They stay numbers, as in COCO's own
    annotations: DETR's way of reading them, which transformers and many others have, takes no compressed ones.
    """
    pixels = mask.astype(bool).ravel(order="F")
    bounds = np.flatnonzero(np.diff(pixels, prepend=False, append=not pixels[-1])) if pixels.size else pixels
    return {"size": list(mask.shape), "counts": np.diff(bounds, prepend=0).tolist()}


def decode_rle(counts: str | Sequence[int], size: tuple[int, int]) -> np.ndarray:
    """Return the mask, (H, W) bool, of run lengths: COCO's text, or the lengths themselves.

    size: (H, W), which the lengths have to add up to. Raises ValueError for others, and for another text.
    """
    lengths = _numbers(counts) if isinstance(counts, str) else list(counts)
    if isinstance(counts, str):
        for place in range(3, len(lengths)):
            lengths[place] += lengths[place - 2]
    if any(length < 0 or length != int(length) for length in lengths) or sum(lengths) != size[0] * size[1]:
        raise ValueError(f"they do not add up to {size[0]} x {size[1]} pixels")
    runs = np.repeat(np.arange(len(lengths)) % 2 == 1, np.array(lengths, np.int64))
    return np.ascontiguousarray(runs.reshape(size, order="F"))


def _numbers(text: str) -> list[int]:
    """The whole numbers of a text."""
    numbers, number, bits = [], 0, 0
    for character in text:
        value = ord(character) - FIRST
        if not 0 <= value < 2 * MORE or bits >= BITS * LONGEST:
            raise ValueError(f"{character[:1]!r} is not one of their characters, or a number is too long")
        number |= (value & MORE - 1) << bits
        bits += BITS
        if not value & MORE:
            numbers.append(number - (1 << bits) if value & 1 << BITS - 1 else number)
            number, bits = 0, 0
    if bits:
        raise ValueError("they end in the middle of a number")
    return numbers
