"""Where the masks of a defect's pairs lie: a heat map over the image."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from ..contact_sheet import Pair, StoredPairs, name_in, pick_evenly
from ..datasets.images import read_mask

CELLS = 48
"""Cells of a heat map's longer side."""
MOST = 500
"""Masks that are looked at, evenly picked: the map of thousands looks no other."""
STOPS = ((0.0, (238, 238, 233)), (0.25, (186, 214, 235)), (0.5, (92, 160, 208)), (0.75, (216, 38, 90)),
         (1.0, (92, 8, 40)))  # fmt: skip
"""Colours from nowhere to the place where most masks lie."""


@dataclass(frozen=True)
class Places:
    """picture: the map, a pixel a cell, brightest at `most`; most: largest share of masks at one place; masks: how many
    were looked at; empty: share of the cells that no mask touches."""

    picture: Image.Image
    most: float
    masks: int
    empty: float


def places_of(pairs: Sequence[Pair]) -> Places | None:
    """Draw the share of masks that lie at each place; None without pairs. Images of other shapes are stretched.

    Raises InputError for a mask that is missing or damaged.
    """
    total, count = None, 0
    for mask in _masks(pairs):
        if total is None:
            scale = CELLS / max(mask.shape)
            total = np.zeros([max(round(side * scale), 1) for side in mask.shape])
        cells = Image.fromarray(mask.astype(np.float32)).resize(total.shape[::-1], Image.Resampling.BOX)
        total += np.asarray(cells)
        count += 1
    if total is None:
        return None
    share = total / count
    return Places(_coloured(share / max(share.max(), 1e-9)), float(share.max()), count, float((share == 0).mean()))


def _masks(pairs: Sequence[Pair]) -> Iterator[np.ndarray]:
    """The masks of pairs, evenly picked; of stored ones nothing else is opened."""
    for number in pick_evenly(range(len(pairs)), MOST):
        if isinstance(pairs, StoredPairs):
            name = name_in(pairs.records[number], "id")
            yield read_mask(pairs.run / "mask" / f"{name}_mask.png").mask
        else:
            yield pairs[number].mask


def _coloured(level: np.ndarray) -> Image.Image:
    """Levels (h, w) in [0, 1] -> a picture in the colours of STOPS."""
    places, colours = zip(*STOPS, strict=True)
    channels = [np.interp(level, places, [colour[c] for colour in colours]) for c in range(3)]
    return Image.fromarray(np.stack(channels, -1).round().astype(np.uint8))
