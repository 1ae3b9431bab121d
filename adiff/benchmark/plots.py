"""Dot plots of a suite as inline SVG: each cell a pale dot, the mean a full one, its deviation a line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..report.measures import round_up
from .summary import COLUMNS, Entry

WIDTH, LINE = 320.0, 18.0
"""Of the drawing, which is stretched to its place, and height of one variant's line in it, pixels."""


@dataclass(frozen=True)
class Mark:
    """One variant's part of a plot: places in the drawing, and what it says in words."""

    name: str
    y: float
    dots: tuple[float, ...]
    mean: float
    low: float
    high: float
    told: str


@dataclass(frozen=True)
class Plot:
    """marks: variants that have the measure. low, high: ends of the scale in words. height: of the drawing."""

    title: str
    better: str
    marks: tuple[Mark, ...]
    low: str
    high: str
    height: float


def plot(entries: Sequence[Entry], name: str) -> Plot | None:
    """Draw a measure of a suite's variants; None if fewer than two have it."""
    column = COLUMNS[name]
    found = [(entry.variant, entry.measures[name]) for entry in entries if name in entry.measures]
    if len(found) < 2:
        return None
    ends = [spread.mean + side * (spread.deviation or 0.0) for _, spread in found for side in (-1, 1)]
    values = [value for _, spread in found for value in spread.values] + ends
    least, most = _scale(min(values), max(values))
    if column.scale == 100:  # a share, told in hundredths
        least, most = max(least, 0.0), min(most, 1.0)

    def x(value: float) -> float:
        return WIDTH * (value - least) / (most - least)

    marks = []
    for number, (variant, spread) in enumerate(found):
        aside = spread.deviation or 0.0
        told = f"{variant}: {spread.text(column)}, n {spread.n}"
        marks.append(Mark(variant, (number + 0.5) * LINE, tuple(map(x, spread.values)), x(spread.mean),
                          x(spread.mean - aside), x(spread.mean + aside), told))  # fmt: skip
    better = {True: "more is better", False: "less is better", None: ""}[column.better]
    return Plot(column.title, better, tuple(marks), column.text(least), column.text(most), LINE * len(found))


def _scale(low: float, high: float) -> tuple[float, float]:
    """Round ends around values: a tenth of their range beyond, on a step that is a round number."""
    if low == high:
        low, high = low - 0.5 * abs(low or 1), high + 0.5 * abs(high or 1)
    step = round_up((high - low) / 10)
    return step * ((low - step / 2) // step), step * -((-high - step / 2) // step)
