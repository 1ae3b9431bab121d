"""One cell, from its recipe to its numbers."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..backbone import Backbone
from ..evaluation.localizer import Example
from ..progress import Progress
from .learning import Workshop
from .matrix import Budget, Cell
from .measures import RealLook, Weights, detect, of_pairs, of_product
from .pairs import make_runs
from .turns import Turns

LEARNED, RUNS = "learned", "runs"
"""Folders of a benchmark's: what was learned, and the pairs."""


class Bench:
    """What all cells share: the base model, the budget, the folder.

    encoder: file of a trained E, or None; foreground: folder of masks of the object, or None (`Workshop`). weights: of
    networks learned elsewhere; weighed: their record. turns: this process's part in the work, which others may share.
    """

    def __init__(
        self, backbone: Backbone, encoder: Path | None, budget: Budget, out: Path, weights: Weights | None = None,
        foreground: Path | None = None,
    ):  # fmt: skip
        self.backbone, self.budget, self.out, self.weights = backbone, budget, out, weights or Weights()
        self.weighed = self.weights.record()
        self.turns = Turns(out)
        self.workshop = Workshop(backbone, encoder, budget, out / LEARNED, self.turns, foreground)
        self.real_look = RealLook(backbone)
        self._tested: set[str] = set()  # units of which it was said what is undefined

    def measure(self, cell: Cell, progress: Progress) -> dict[str, Any]:
        """Make and measure a cell; returns its line. Raises Busy if another process is making what it needs."""
        recipe, unit, seconds = cell.variant.recipe, cell.unit, {}
        with _taken(seconds, "pairs"):
            runs = make_runs(self.workshop, unit, recipe, cell.seed, self.out / RUNS, progress)
        line: dict[str, Any] = {"runs": [run.folder.name for run in runs]}
        with _taken(seconds, "measures"):
            look = self.real_look.compare(runs, unit) if runs else self.real_look.reference(unit)
            measures: dict[str, Any] = {**(of_pairs(runs) if runs else {}), **look}
        if recipe.detect:
            with _taken(seconds, "detector"):
                real = self._real(cell) if recipe.real else []
                of = None if unit.name in self._tested else unit.name
                found = detect(runs, real, unit, self.budget.detector, cell.seed, progress, of)
                self._tested.add(unit.name)
            measures |= found.tested.metrics
            line |= {"per_image": list(found.tested.per_image), "pairs": dict(found.pairs), "step": found.step}
        if recipe.whole:
            with _taken(seconds, "product"):
                measures |= of_product(runs, unit, self.budget.detector, self.weights, cell.seed, progress)
            line["weights"] = self.weighed
        return {**cell.about(), "measures": measures, **line, "seconds": seconds}

    def _real(self, cell: Cell) -> list[Example]:
        opened = self.workshop.shots(cell.unit, cell.variant.recipe)
        return [Example(*pair) for shots in opened.values() for pair in shots.pairs]


@contextmanager
def _taken(seconds: dict[str, float], phase: str) -> Iterator[None]:
    began = time.monotonic()
    yield
    seconds[phase] = round(time.monotonic() - began, 2)
