"""Which guidance paints a defect as its shots show it: the one whose pairs look, on the whole, most like the shots.

| symbol | meaning | shape |
|---|---|---|
| f | descriptors (`scoring.describe`) of pairs painted with guidance g, of the shots | (n, F), (u, F) |

gap(g) = || mean f of the pairs - mean f of the shots ||, over the same normal images, masks and noise for each g.
`scoring.likeness`, the distance to the nearest shot, would not do: it is least for pairs that copy one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

import numpy as np

from ..errors import InputError
from ..progress import NullProgress, Progress
from ..scoring import Eye, ShotReference

LADDER = (1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0)
"""The values that are tried, as far as the gap leads."""
PAIRS, STEPS = 16, 10
"""Pairs to paint for each value; sampling steps at most, as more hardly change the gap (docs/evidence.md)."""
GAIN = 0.05
"""Share of the gap that the next value has to take away: with so few pairs less is chance, and far guidance hardens."""


@dataclass(frozen=True, eq=False)
class GuidanceFit:
    """guidance: the value that was chosen; gaps: of each value that was tried; shots: how many the gaps are to."""

    guidance: float
    gaps: Mapping[float, float]
    shots: int

    def record(self) -> dict[str, Any]:
        """What run.json keeps."""
        gaps = {f"{value:g}": round(self.gaps[value], 4) for value in sorted(self.gaps)}
        return {"value": self.guidance, "gaps": gaps, "shots": self.shots}


def fit_guidance(
    paint: Callable[[float], Iterable[np.ndarray]],
    masks: Sequence[np.ndarray],
    shots: ShotReference,
    eye: Eye,
    *,
    start: float,
    name: str = "the defect",
    progress: Progress | None = None,
) -> GuidanceFit:
    """Try one value of LADDER after another, from `start` on, while the gap falls.

    paint(g): the images (H, W, 3) uint8 of pairs in the masks (H, W) bool, painted with guidance g and otherwise alike.
    shots: to compare with; eye: what sees both, unless the shots bring theirs. name: of the defect, for messages.
    Raises InputError where nothing is known of the shots' look.
    """
    check_shots(shots, name)
    progress, known = progress or NullProgress(), shots.descriptors.mean(0)
    tried = count(1)

    def gap(guidance: float) -> float:
        f = [shots.describe(eye, image, mask) for image, mask in zip(paint(guidance), masks, strict=True)]
        progress.update(next(tried))
        return float(np.linalg.norm(np.mean(f, axis=0) - known))

    progress.start(len(LADDER), f"guidance {name}")
    progress.update(0)
    best, gaps = descend(sorted({*LADDER, start}), start, gap)
    progress.update(len(LADDER))  # the rest need not be tried
    progress.finish()
    return GuidanceFit(best, gaps, len(shots.descriptors))


def check_shots(shots: ShotReference, name: str) -> None:
    """Raise InputError where nothing is known of the shots' look."""
    if shots.descriptors is None:
        raise InputError(
            f"a guidance cannot be fitted to {name}: the library does not say how its shots look to this base model; "
            "give a number, or learn the defect again on this base"
        )


def descend(
    ladder: Sequence[float], start: float, height: Callable[[float], float]
) -> tuple[float, dict[float, float]]:
    """Go from one value of a ladder to its neighbours while that leads down by GAIN; returns the end, and all heights.

    Up first: only where that leads nowhere down the ladder.
    """
    heights: dict[float, float] = {}

    def at(place: int) -> float:
        value = ladder[place]
        if value not in heights:
            heights[value] = height(value)
        return heights[value]

    place = ladder.index(start)
    for way in (1, -1):
        while 0 <= place + way < len(ladder) and at(place + way) < (1 - GAIN) * at(place):
            place += way
    return ladder[place], heights
