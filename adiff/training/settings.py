"""What both inversions can be told."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from ..backbone import Backbone, is_small
from ..errors import InputError
from .loop import Schedule
from .timesteps import LAWS
from .validation import PATIENCE, Validation, are_held_out, steps_between

TYPES = 4
"""Defects learned together that the method's steps are for; each of more of them gets as many samples."""
FULL_STEPS, UNWATCHED_STEPS = 1000, 300
"""The method's steps on a base model that is not small: at most, and where no held-out shot ends a run that copies its
shots. Those that the settings say were found on the shipped one.
"""
Settings = TypeVar("Settings", bound="InversionSettings")


@dataclass(frozen=True)
class InversionSettings:
    """How embeddings are learned. Raises InputError for what is not possible.

    batch: samples a step, over all defects. lr: peak learning rate of the embeddings. tokens: of each. draws: augmented
    views of each shot. They are drawn and encoded once, before the first step, and serve the whole run: at 512 pixels a
    view takes 64 KB as float32 latents and, for anomalies, 256 KB as a mask. timesteps: how noise levels are drawn and
    weighted (`timesteps.LAWS`). average: decay of the moving average that a run ends with, 0 for none. early_stop: end
    by the loss of held-out shots where every defect has 4 or more (`validation.hold_out`). validate_every: steps
    between two such measures, None for a twentieth of the run and at least 10. patience: measures without a lower one
    after which the run ends.
    """

    steps: int
    batch: int
    lr: float
    tokens: int
    draws: int = 16
    timesteps: str = "uniform"
    average: float = 0.0
    early_stop: bool = True
    validate_every: int | None = None
    patience: int = PATIENCE

    def __post_init__(self) -> None:
        check_choice("timesteps", self.timesteps, LAWS)
        for name in ("steps", "batch", "tokens", "draws", "validate_every", "patience"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"{name} is {value}; it must be at least 1")
        self.schedule()

    @classmethod
    def for_base(cls: type[Settings], base: Backbone, shots: Sequence[int], **given: Any) -> Settings:
        """The method's settings for defects learned together on a base model, but for those that are `given`.

        shots: how many each of the defects has. Unless `steps` are given, more of them for a model that is not small,
        most where held-out shots decide when to stop, and more for more defects. Unless `lr` is, it falls with the root
        of the steps that a defect gets, as the drift of Adam's noisy steps grows with it. Raises InputError as
        `check_turns`.
        """
        types = len(shots)
        settings, share = cls(**given), max(1, types / TYPES)
        if "steps" not in given:
            full = FULL_STEPS if are_held_out(shots, settings.early_stop) else UNWATCHED_STEPS
            settings = replace(settings, steps=round((cls.steps if is_small(base) else full) * share))
        if "lr" not in given:
            settings = replace(settings, lr=cls.lr * min(1, math.sqrt(cls.steps * share / settings.steps)))
        settings.check_turns(types)
        return settings

    def check_turns(self, types: int) -> None:
        """Raise InputError where not each of that many defects, which take turns, is drawn: it would stay random."""
        if self.steps < self.turn(types):
            raise InputError(
                f"of {types} defects {self.steps * self.batch} would be drawn (steps {self.steps}, batch {self.batch}) "
                f"and the others not learned; take at least {self.turn(types)} steps, or larger batches"
            )

    def turn(self, types: int) -> int:
        """Return the steps until each of that many defects has been drawn."""
        return math.ceil(types / self.batch)

    def schedule(self) -> Schedule:
        """Return the schedule of a run."""
        return Schedule(self.steps, self.lr, average=self.average)

    def validation(self, measure: Callable[[], float], types: int) -> Validation:
        """Return when a held-out loss of that many defects is measured, and when it ends the run.

        First when each has been drawn: the state with the lowest one is what is kept.
        """
        every = self.validate_every or max(steps_between(self.steps), self.turn(types))
        return Validation(measure, every, self.patience)


def check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    """Raise InputError for a setting that is none of its choices."""
    if value not in choices:
        raise InputError(f"{name} {value!r} is unknown; choose one of {choices}")
