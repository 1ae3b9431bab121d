"""COCO's compressed run lengths of a mask (`maskApi.c` of cocodataset/cocoapi, rleEncode and rleToString)."""

from __future__ import annotations

from typing import Any

import numpy as np

BITS, MORE, FIRST = 5, 0x20, 48
"""A character carries five bits and says whether more follow; the characters start at "0"."""


def encode_rle(mask: np.ndarray) -> dict[str, Any]:
    """Return {"size": [H, W], "counts": text} of a mask, (H, W) bool.

    Runs go down the columns, the first of pixels that are off, perhaps of none; from the fourth on, each is told by how
    much it differs from the one before the last.
    """
    pixels = mask.astype(bool).ravel(order="F")
    bounds = np.flatnonzero(np.diff(pixels, prepend=False, append=not pixels[-1])) if pixels.size else pixels
    counts = np.diff(bounds, prepend=0)
    counts[3:] -= counts[1:-2].copy()
    return {"size": list(mask.shape), "counts": "".join(_characters(int(count)) for count in counts)}


def _characters(number: int) -> str:
    """A whole number, lowest bits first; the last character's highest bit is the sign."""
    text = ""
    while True:
        bits = number & (1 << BITS) - 1
        number >>= BITS
        more = number != (-1 if bits & 1 << BITS - 1 else 0)
        text += chr(bits + MORE * more + FIRST)
        if not more:
            return text
