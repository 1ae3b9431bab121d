"""Which pairs are good enough: limits on their measures (METHOD 6), given as numbers or taken from the shots."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from .errors import InputError
from .scoring import ShotReference, likeness, novelty

AUTO = "auto"
"""What stands for a limit that the shots set."""
AUTO_FILL = 0.25
"""Least fill of `auto`: no shot shows what its place looked like before, so this one is a constant."""
AUTO_LIKENESS = 1.5
"""Largest likeness of `auto`, in the largest distance of a shot to its nearest fellow."""
AUTO_NOVELTY = 0.5
"""Least novelty of `auto`, in the smallest novelty of a shot's mask among its fellows."""
LARGEST = 1e12
"""Beyond it a whole number is no measure: a record may be a stranger's, and floats end somewhere."""
DIGITS = 3
"""Decimals of limits that the shots set: a run's record must say the same on every machine."""


@dataclass(frozen=True)
class PairFilter:
    """Limits that a pair must keep; None: there is none; AUTO: as the shots say (`settled`).

    min_fill: share of the mask that must have changed. max_seam: of the mask's border. max_likeness: distance to the
    nearest shot. min_novelty: of the mask's shape.
    """

    min_fill: float | str | None = None
    max_seam: float | None = None
    max_likeness: float | str | None = None
    min_novelty: float | str | None = None

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if value is None or (value == AUTO and name != "max_seam"):
                continue
            ends = (0, 1) if name.startswith("min_") else (0, math.inf)
            is_number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
            if not is_number or not ends[0] <= value <= ends[1]:
                expected = "a number between 0 and 1" if ends[1] == 1 else "a finite number from 0"
                also = "" if name == "max_seam" else f", or {AUTO}"
                raise InputError(f"{name.replace('_', '-')} is {value}; expected {expected}{also}")

    def __bool__(self) -> bool:
        return any(value is not None for value in asdict(self).values())

    def record(self) -> dict[str, float | str]:
        """Return the limits that there are, by name."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    def settled(self, shots: ShotReference, name: str) -> PairFilter:
        """Return the filter of one defect, `name`, with numbers only.

        Raises InputError for a limit on what cannot be measured: likeness without descriptors of the shots, novelty
        without their masks, and for AUTO with fewer than two shots.
        """
        proposed = proposals(shots) if AUTO in asdict(self).values() else {}
        limits = {}
        for limit, (measure, known) in _NEEDS.items():
            asked = getattr(self, limit)
            if asked is not None and getattr(shots, known) is None:
                raise InputError(
                    f"the {measure} of {name} cannot be measured: the library does not describe its shots, or was "
                    f"learned on another base model; leave {limit.replace('_', '-')} out or learn {name} again"
                )
            if asked == AUTO and limit not in proposed:
                raise InputError(f"{name} has one shot only, which sets no {limit.replace('_', '-')}; give a number")
        for limit, asked in asdict(self).items():
            limits[limit] = proposed[limit] if asked == AUTO else asked
        return replace(self, **limits)

    def reasons(self, measures: Mapping[str, Any]) -> tuple[str, ...]:
        """Say which limits a pair breaks, () for none. Raises InputError for a measure that was not taken."""
        broken = []
        for limit, bound in self.record().items():
            side, measure = limit.split("_")
            value = measures.get(measure)
            is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
            if not is_number or (isinstance(value, int) and abs(value) > LARGEST):
                raise InputError(f"a pair has no {measure} to hold against {limit.replace('_', '-')} {bound}")
            keeps = value >= bound if side == "min" else value <= bound
            if not keeps:  # what is not a number keeps nothing
                broken.append(f"{measure} {value:.3g} {'below' if side == 'min' else 'above'} {bound:g}")
        return tuple(broken)


_NEEDS = {"max_likeness": ("likeness", "descriptors"), "min_novelty": ("novelty", "masks")}
"""Limits that compare with the shots: the measure, and what of `ShotReference` it takes."""


def settable(shots: ShotReference) -> set[str]:
    """Return the names of the limits that AUTO can stand for: those that two shots or more of a defect set."""
    given = {limit: getattr(shots, known) for limit, (_, known) in _NEEDS.items()}
    return {"min_fill"} | {limit for limit, of_shots in given.items() if of_shots is not None and len(of_shots) > 1}


def proposals(shots: ShotReference) -> dict[str, float]:
    """Return the limits that AUTO stands for, as far as a defect's shots set them."""
    found, known = {"min_fill": AUTO_FILL}, settable(shots)
    if "max_likeness" in known:
        found["max_likeness"] = round(AUTO_LIKENESS * max(_among(shots.descriptors, likeness)), DIGITS)
    if "min_novelty" in known:
        found["min_novelty"] = round(AUTO_NOVELTY * min(_among(shots.masks, novelty)), DIGITS)
    return found


def auto_filter(shots: Sequence[ShotReference], given: PairFilter | None = None) -> PairFilter:
    """Return `given` with AUTO for every limit it leaves open that the shots of all defects set."""
    given = given or PairFilter()
    known = set.intersection(*map(settable, shots))
    return replace(given, **{limit: AUTO for limit in sorted(known) if getattr(given, limit) is None})


def _among(shots: np.ndarray, measure: Callable[[np.ndarray, np.ndarray], float]) -> list[float]:
    """What each shot scores against the others."""
    return [float(measure(shot, np.delete(shots, i, axis=0))) for i, shot in enumerate(shots)]
