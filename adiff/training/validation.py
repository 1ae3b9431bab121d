"""When to stop: a measure on shots that nothing is learned from, the curve of a run, and its best state.

Early stopping as in Goodfellow, Bengio and Courville, Deep Learning (2016), Algorithm 7.1: every n steps a measure; the
state with the lowest counts; after p measures without a lower one the run ends.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from torch import Tensor

from ..errors import InputError
from ..library import Key

SHOTS = 4
"""Fewest shots of a defect of which one is held out; with fewer each one is worth more in learning."""
SAMPLES = 16
"""Samples of a measure over all defects, at least one of each."""
LEAST_EVERY, MEASURES = 10, 20
"""Fewest steps between two measures, and most measures of a run, unless told otherwise."""
PATIENCE = 5
"""p, measures without a lower one."""
HELD_OUT = -1
"""The step whose generator draws the noise of the held-out loss: before the first."""
POINTS, MOST_POINTS = 50, 200
"""Points of a curve besides those with a measure, and most of a curve that is handed on."""

Point = tuple[int, float, float | None]
"""Step, training loss averaged over recent steps, held-out loss or None where it was not measured."""
Shot = TypeVar("Shot")


@dataclass(frozen=True)
class Validation:
    """measure: the held-out loss with the parameters as they are; every: n, steps; patience: p."""

    measure: Callable[[], float]
    every: int
    patience: int = PATIENCE


@dataclass(frozen=True)
class Track:
    """What is known of a run so far.

    noted: step up to which this holds. curve: its points. best: step of the lowest measure, 0 without one; lowest: that
    measure; worse: measures since; state: the parameters then, by name.
    """

    noted: int = 0
    curve: tuple[Point, ...] = ()
    best: int = 0
    lowest: float = math.inf
    worse: int = 0
    state: Mapping[str, Tensor] = field(default_factory=dict)

    def add(self, step: int, loss: float, measured: float | None, state: Callable[[], Mapping[str, Tensor]]) -> Track:
        """Go on with a point of the curve; `state` is asked for if it is the best."""
        further = replace(self, noted=step, curve=(*self.curve, (step, loss, measured)))
        if measured is None:
            return further
        if measured < self.lowest:
            return replace(further, best=step, lowest=measured, worse=0, state=state())
        return replace(further, worse=self.worse + 1)

    def told(self) -> dict[str, Any]:
        """Return all but the tensors, as JSON holds it."""
        return {name: value for name, value in vars(self).items() if name != "state"}

    @classmethod
    def from_told(cls, told: Mapping[str, Any], state: Mapping[str, Tensor]) -> Track:
        """Return what `told` gave, with its tensors."""
        return cls(**{**told, "curve": tuple((s, loss, measured) for s, loss, measured in told["curve"])}, state=state)


def measures_at(validation: Validation | None, step: int, steps: int) -> bool:
    """Whether the held-out loss is measured after this step: every n of them, and at the end."""
    return validation is not None and (step % validation.every == 0 or step == steps)


def is_point(step: int, steps: int) -> bool:
    """Whether a step without a measure gets a point of the curve."""
    return step % math.ceil(steps / POINTS) == 0 or step == steps


def thinned(curve: Sequence[Point]) -> tuple[Point, ...]:
    """Return at most MOST_POINTS points of a curve, evenly chosen, its first and last among them."""
    last = len(curve) - 1
    if last < MOST_POINTS:
        return tuple(curve)
    return tuple(curve[round(i * last / (MOST_POINTS - 1))] for i in range(MOST_POINTS))


def steps_between(steps: int) -> int:
    """Return n for a run of so many steps, unless told otherwise."""
    return max(LEAST_EVERY, steps // MEASURES)


def samples_of_each(defects: int) -> int:
    """Return the samples of each defect in a measure."""
    return max(1, SAMPLES // defects)


def are_held_out(shots: Iterable[int], wanted: bool = True) -> bool:
    """Whether a shot of each defect is held out; shots: how many each has."""
    return wanted and all(count >= SHOTS for count in shots)


def check_held_out(shots: Mapping[str, int]) -> None:
    """Raise InputError where nothing would be held out, for who asks for it; shots: defect -> how many it has."""
    if few := [name for name, count in shots.items() if not are_held_out([count])]:
        raise InputError(f"to stop early takes {SHOTS} shots or more of each defect, and {few[0]} has {shots[few[0]]}; "
                         "do without it, or give more")  # fmt: skip


def hold_out(
    shots: Mapping[Key, Sequence[Shot]], wanted: bool = True
) -> tuple[dict[Key, list[Shot]], dict[Key, Shot]]:
    """Put the last shot of each defect aside; returns the shots to learn from and those held out.

    A held-out shot only decides when to stop: nothing is learned from it. One run has one end, so unless every defect
    has SHOTS or more nothing is held out, and the run goes to its end on all shots.
    """
    if not are_held_out([len(of_defect) for of_defect in shots.values()], wanted):
        return {key: list(of_defect) for key, of_defect in shots.items()}, {}
    kept = {key: list(of_defect[:-1]) for key, of_defect in shots.items()}
    return kept, {key: of_defect[-1] for key, of_defect in shots.items()}
