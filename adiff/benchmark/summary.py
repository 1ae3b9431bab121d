"""Lines of cells in numbers: mean, spread and number of each measure, and paired differences to the control.

Nothing is averaged over cells that failed or that a measure is undefined for; n says how many there are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import mean, stdev
from typing import Any

import numpy as np

from ..evaluation.table import UNDEFINED, paired_test
from ..report.measures import NOTHING

EVERY = "all"
"""Name of the summary over all units."""

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Column:
    """How a measure is shown. digits: behind the point, after `scale`. better: whether more is, None for neither."""

    title: str
    meaning: str
    digits: int = 2
    scale: float = 1.0
    better: bool | None = True

    def text(self, value: float, sign: str = "") -> str:
        """Return a value as it is shown; what rounds to nothing has no minus."""
        return f"{round(self.scale * value, self.digits) + 0.0:{sign}.{self.digits}f}"


COLUMNS = {
    "pixel_ap": Column("pixel AP", "average precision over all pixels of the test images, hundredths", 1, 100),
    "pixel_auroc": Column("pixel AUROC", "area under the ROC curve over pixels, hundredths", 1, 100),
    "pixel_f1_max": Column("pixel F1-max", "largest F1 over pixels, hundredths", 1, 100),
    "pro": Column("PRO", "per-region overlap up to a false positive rate of 0.3, hundredths", 1, 100),
    "image_auroc": Column("image AUROC", "area under the ROC curve over images, hundredths", 1, 100),
    "image_ap": Column("image AP", "average precision over images, hundredths", 1, 100),
    "image_f1_max": Column("image F1-max", "largest F1 over images, hundredths", 1, 100),
    "accuracy": Column("accuracy", "share of real images whose defect a classifier tells, hundredths", 1, 100),
    "fill": Column("fill", "share of the mask that visibly changed, mean over pairs"),
    "leak": Column("leak", "largest change outside the mask over all pairs, levels of 255", 0, better=False),
    "likeness": Column("likeness", "distance to the nearest shot in the autoencoder's latents, mean over pairs",
                       better=False),
    "gap": Column("gap", "distance between the mean look of the generated defects and that of unseen real ones",
                  better=False),
    "alignment": Column("alignment", "overlap (IoU, 0 for a mask at random) of the mask with as many pixels, those "
                        "least like the rest of their own image; of real shots alone: that of the test photos"),
    "diversity": Column("diversity", "mean distance of generated defects to each other in the autoencoder's latents, "
                        "within clusters around the shots (IC-LPIPS' formula, not its network); of real shots alone: "
                        "that of the test photos, nearest to which is best", better=None),
    "seam": Column("seam", "steepness of the mask's border relative to the normal image", better=None),
    "novelty": Column("novelty", "1 - best overlap of a mask with any shot's", better=None),
    "inception_score": Column("IS", "Inception Score, mean over defects"),
    "ic_lpips": Column("IC-LPIPS", "mean LPIPS within clusters around the shots, mean over defects"),
    "class_score": Column("class score", "formula of IS on the given network; not IS", 3),
    "cluster_distance": Column("cluster distance", "formula of IC-LPIPS on the given network; not IC-LPIPS", 4),
}  # fmt: skip


@dataclass(frozen=True)
class Spread:
    """mean, standard deviation (None for a single value) and number of values; the values themselves."""

    mean: float
    deviation: float | None
    values: tuple[float, ...]

    @property
    def n(self) -> int:
        return len(self.values)

    def text(self, column: Column, sign: str = "") -> str:
        """Mean ± standard deviation."""
        return column.text(self.mean, sign) + ("" if self.deviation is None else f" ± {column.text(self.deviation)}")


@dataclass(frozen=True)
class Entry:
    """One variant over one unit, or over all: what its cells measured.

    cells, failed: how many have numbers, how many an error. difference: of a measure to the control, pair by pair of
    cells. better: cells whose difference is to the good. by_image: mean difference of the test
    images' own AP where that is the suite's main measure, and p, its test (`paired_test`); None where it cannot be
    taken. undefined: measures that were taken and have no value in any cell.
    """

    variant: str
    control: str | None
    cells: int
    failed: int
    measures: Mapping[str, Spread]
    difference: Mapping[str, Spread]
    better: Mapping[str, int]
    by_image: float | None
    p: float | None
    seconds: float
    undefined: frozenset[str] = frozenset()

    @property
    def taken(self) -> frozenset[str]:
        """Measures that were taken, defined or not."""
        return self.undefined | frozenset(self.measures)

    def text(self, name: str) -> str:
        """A measure as it is shown; NOTHING where it was not taken."""
        if name in self.measures:
            return self.measures[name].text(COLUMNS[name])
        if self.failed and not self.cells:
            return "failed"
        return UNDEFINED if name in self.undefined else NOTHING

    def record(self) -> dict[str, Any]:
        """The entry as JSON."""
        spreads = {
            kind: {name: {"mean": s.mean, "deviation": s.deviation, "n": s.n} for name, s in found.items()}
            for kind, found in (("measures", self.measures), ("difference", self.difference))
        }
        return {"variant": self.variant, "control": self.control, "cells": self.cells, "failed": self.failed, **spreads,
                "undefined": sorted(self.undefined), "better": dict(self.better), "by_image": self.by_image,
                "p": self.p, "seconds": round(self.seconds, 1)}  # fmt: skip


def spread_of(values: Sequence[float | None]) -> Spread | None:
    """Summarise what is defined of some values; None if nothing is."""
    known = tuple(float(value) for value in values if value is not None)
    if not known:
        return None
    return Spread(mean(known), stdev(known) if len(known) > 1 else None, known)


def summarise_suite(rows: Sequence[Row], main: str) -> dict[str, list[Entry]]:
    """Unit -> an entry for each variant, in the lines' order; EVERY first, over all units, if there are several."""
    units = list(dict.fromkeys(row["unit"] for row in rows))
    parts = {EVERY: list(rows)} if len(units) > 1 else {}
    parts |= {unit: [row for row in rows if row["unit"] == unit] for unit in units}
    return {name: [_entry(variant, part, main) for variant in _variants(rows)] for name, part in parts.items()}


def varies(entries: Sequence[Entry], name: str) -> bool:
    """Whether a measure is not the same in all cells of all variants."""
    return len({value for entry in entries if name in entry.measures for value in entry.measures[name].values}) > 1


def best_of(entries: Sequence[Entry], name: str) -> frozenset[str]:
    """Variants with the best mean of a measure, as it is shown; none where all are alike, or more is not better."""
    column = COLUMNS[name]
    shown = {e.variant: float(column.text(e.measures[name].mean)) for e in entries if name in e.measures}
    if column.better is None or len(set(shown.values())) < 2:
        return frozenset()
    best = max(shown.values()) if column.better else min(shown.values())
    return frozenset(variant for variant, value in shown.items() if value == best)


def _variants(rows: Sequence[Row]) -> list[str]:
    return list(dict.fromkeys(row["variant"] for row in rows))


def _entry(variant: str, rows: Sequence[Row], main: str) -> Entry:
    own = [row for row in rows if row["variant"] == variant]
    good = {(row["unit"], row["seed"]): row for row in own if "error" not in row}
    control = next((row["control"] for row in own if row["control"] is not None), None)
    others = {(row["unit"], row["seed"]): row for row in rows if row["variant"] == control and "error" not in row}
    paired = [(row, others[place]) for place, row in good.items() if place in others]
    measures, difference, better = {}, {}, {}
    for name, column in COLUMNS.items():
        if (spread := spread_of([row["measures"].get(name) for row in good.values()])) is not None:
            measures[name] = spread
        gains = [_gain(row, other, name) for row, other in paired]
        if (spread := spread_of(gains)) is not None:
            difference[name] = spread
            if column.better is not None:
                better[name] = sum((gain > 0) if column.better else (gain < 0) for gain in spread.values)
    images = _by_image(paired) if main == "pixel_ap" else np.empty(0)
    undefined = {name for row in good.values() for name in row["measures"]} & set(COLUMNS) - set(measures)
    spent = sum(row.get("spent", 0.0) for row in own)
    by_image, p = (float(images.mean()), paired_test(images)) if len(images) else (None, None)
    return Entry(variant, control, len(good), len(own) - len(good), measures, difference, better, by_image, p, spent,
                 frozenset(undefined))  # fmt: skip


def _gain(row: Row, other: Row, name: str) -> float | None:
    one, two = row["measures"].get(name), other["measures"].get(name)
    return None if one is None or two is None else one - two


def _by_image(paired: Sequence[tuple[Row, Row]]) -> np.ndarray:
    """Differences of the defective test images' own AP, of all units, averaged over the seeds, where defined."""
    by_unit: dict[str, list[np.ndarray]] = {}
    for row, other in paired:
        if "per_image" in row and "per_image" in other:
            values = np.array(row["per_image"], float) - np.array(other["per_image"], float)
            by_unit.setdefault(row["unit"], []).append(values)
    found = np.concatenate([np.empty(0), *(np.mean(of_unit, axis=0) for of_unit in by_unit.values())])
    return found[np.isfinite(found)]
