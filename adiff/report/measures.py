"""The measures of pairs in words, in numbers and as histograms."""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from statistics import median
from typing import Any

import numpy as np

from ..contact_sheet import measure_of

BINS = 24
"""Bars of a histogram, at most where values are whole numbers."""
WIDTH, HEIGHT = 240.0, 72.0
"""Of a histogram, in units of its drawing."""
WIDEST = 28.0
"""Of a bar, in the same units."""
NOTHING = "–"
"""What stands for a measure that was not taken."""


@dataclass(frozen=True)
class Measure:
    """How a measure of a pair record (`scoring`) is shown.

    digits: behind the point. ends: of its scale where it has one; others go from 0 to a round number beyond the largest
    value. percent: shown in hundredths. whole: it counts something.
    """

    name: str
    meaning: str
    digits: int = 2
    ends: tuple[float, float] | None = None
    percent: bool = False
    whole: bool = False

    def text(self, value: float | None) -> str:
        """Return a value as it is shown."""
        if value is None:
            return NOTHING
        if self.whole:  # the median of an even number of them may lie between two
            return f"{value:.1f}".removesuffix(".0")
        return f"{100 * value:.1f} %" if self.percent else f"{value:.{self.digits}f}"


MEASURES = (
    Measure(
        "fill",
        "share of the mask's pixels that differ from the model's own round trip of the normal image by more than 10 of "
        "255 levels; where it is low, the defect is not there",
        ends=(0, 1),
    ),
    Measure(
        "seam",
        "how steep the mask's border is, relative to the same pixels of the normal image: 1 is as steep; a defect with "
        "an edge of its own lies above",
    ),
    Measure(
        "likeness",
        "distance to the nearest real shot in the latents of the model's autoencoder, both cut to their masks: the "
        "smaller, the more alike; compare it with the same distance among the shots",
    ),
    Measure(
        "novelty",
        "1 - best overlap of the mask with any shot's over shifts, flips and quarter turns: 0 is the shape of a shot",
        ends=(0, 1),
    ),
    Measure(
        "refined_iou",
        "overlap of the mask that was painted with the part of it that changed (Otsu's threshold): 1 is all of it, "
        "or that nothing did, which fill tells",
        ends=(0, 1),
    ),
    Measure("area", "share of the image that the mask covers", percent=True),
    Measure("components", "separate parts of the mask", digits=0, whole=True),
    Measure("border", "largest share of one of the image's border lines that the mask covers", ends=(0, 1)),
    Measure("leak", "largest change outside the mask, levels of 255: 0 by construction", digits=0),
)
TOLD = (*(measure.name for measure in MEASURES), "likeness_shots", "iou")
"""What is told of pairs in numbers: the measures, their likeness among the shots, the overlap of sampled masks."""
EXTREMES = (("fill_low", min, "fill"), ("leak", max, "leak"))
"""What else is told, and what instead of the median: name, which of the values, measure."""


def values_of(records: Iterable[Mapping[str, Any]], name: str) -> list[float]:
    """Return a measure's values, of the pairs of which it was taken."""
    return [value for record in records if (value := measure_of(record, name)) is not None]


@dataclass(frozen=True)
class Taken:
    """The measures of pairs; pairs: how many there are; values: of each measure, of the pairs of which it was taken."""

    pairs: int
    values: Mapping[str, Sequence[float]]

    @classmethod
    def of(cls, records: Iterable[Mapping[str, Any]]) -> Taken:
        """Take the measures; the records are passed through once and none is kept, as there may be millions."""
        values, pairs = {name: array("d") for name in TOLD}, 0
        for record in records:
            pairs += 1
            for name, found in values.items():
                if (value := measure_of(record, name)) is not None:
                    found.append(value)
        return cls(pairs, values)

    @classmethod
    def together(cls, several: Sequence[Taken]) -> Taken:
        """The measures of several sets of pairs as of one."""
        values = {name: array("d", chain.from_iterable(one.values[name] for one in several)) for name in TOLD}
        return cls(sum(one.pairs for one in several), values)

    def summary(self) -> dict[str, Any]:
        """Return the measures in numbers (METHOD, 6), None where none was taken.

        Keys: pairs; the median of each measure by its name, of likeness_shots (likeness among the shots) and of iou
        (overlap of sampled masks with shots), but of leak the largest; fill_low, the lowest fill.
        """
        medians = {name: median(values) if values else None for name, values in self.values.items()}
        extremes = {name: of(self.values[measure], default=None) for name, of, measure in EXTREMES}
        return {"pairs": self.pairs, **medians, **extremes}


def summarise(records: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the measures of pairs in numbers, as `Taken.summary` does."""
    return Taken.of(records).summary()


@dataclass(frozen=True)
class Bar:
    """One defect type's part of a bar: place and size in the drawing, the type's number, what it stands for."""

    x: float
    y: float
    width: float
    height: float
    group: int
    told: str


@dataclass(frozen=True)
class Histogram:
    """A measure's values over all pairs: bars, the ends of the scale and the median in words, the median's place.

    Without bars if all values are the same.
    """

    measure: Measure
    bars: tuple[Bar, ...]
    low: str
    high: str
    median: str
    median_x: float


def histogram(measure: Measure, groups: Sequence[Sequence[float]]) -> Histogram | None:
    """Draw the values of each defect type, stacked; None if there are none."""
    values = [value for group in groups for value in group]
    if not values:
        return None
    middle = median(values)
    if min(values) == max(values):
        return Histogram(measure, (), measure.text(middle), measure.text(middle), measure.text(middle), 0.0)
    edges = _edges(measure, min(values), max(values))
    counts = np.array([np.histogram(np.clip(group, edges[0], edges[-1]), edges)[0] for group in groups])
    unit, step = HEIGHT / counts.sum(0).max(), WIDTH / (len(edges) - 1)
    bars, width = [], min(step - 1, WIDEST)
    for column in range(len(edges) - 1):
        base = HEIGHT
        for number, count in enumerate(counts[:, column].tolist()):
            if count:
                base -= count * unit
                told = f"{_span(measure, edges[column], edges[column + 1])}: {count}"
                bars.append(Bar((column + 0.5) * step - width / 2, base, width, count * unit, number, told))
    place = WIDTH * (np.clip(middle, edges[0], edges[-1]) - edges[0]) / (edges[-1] - edges[0])
    low, high = (edges[0] + 0.5, edges[-1] - 0.5) if measure.whole else (edges[0], edges[-1])
    return Histogram(measure, tuple(bars), measure.text(low), measure.text(high), measure.text(middle), float(place))


def _edges(measure: Measure, low: float, high: float) -> np.ndarray:
    """Borders of a histogram's bars over values from `low` to `high`, which differ."""
    if measure.whole:
        width = math.ceil((high - low + 1) / BINS)
        return low - 0.5 + width * np.arange(math.ceil((high - low + 1) / width) + 1)
    first, last = measure.ends or (min(low, 0.0), round_up(high))
    return np.linspace(first, last, BINS + 1)


def _span(measure: Measure, low: float, high: float) -> str:
    """The values a bar stands for; for whole numbers the first and the last."""
    first, last = (low + 0.5, high - 0.5) if measure.whole else (low, high)
    return measure.text(first) if first == last else f"{measure.text(first)} to {measure.text(last)}"


def round_up(value: float) -> float:
    """Return the next of 1, 2, 2.5, 5 and 10 times a power of ten; 1 for what is not positive."""
    if value <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return power * next(step for step in (1, 2, 2.5, 5, 10) if value <= step * power * (1 + 1e-9))
