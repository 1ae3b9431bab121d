"""How pairs and masks are sampled."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from typing import Any

from ..backbone import Backbone, is_small
from ..blending import KINDS
from ..errors import InputError
from ..reweighting import DISTANCES, LEVEL, MODES, check_level
from ..reweighting.controller import LEVELLED, MEASURED

SEVEREST = 2
"""Largest severity; beyond it the guidance breaks the image."""


@dataclass(frozen=True)
class GenerationSettings:
    """How pairs are painted.

    steps: DDIM steps. guidance: classifier-free guidance against the null context, 1 for none. severity: how far the
    defect departs from the normal image, 0 to 2 (`sampler.sample_blended`). reweighting, strength, level, distance,
    interval, lookahead: of AAR (Eq. 7, 8). blending: `fresh` or `fixed` noise outside (Eq. 1). eta: DDIM's. crop: paint
    in a box around the mask; None: where the mask covers few latent cells. context: the box's side in sides of the
    mask's. feather: pixels of the model's image over which the paste-back fades in, inside the mask. batch: pairs at a
    time. preview_decoder: file of a TAESD decoder, for the distance `preview`. refine: write the mask of what really
    changed in place of the one that was painted (`refinement.refined`).
    """

    steps: int = 20
    guidance: float = 2.0
    severity: float = 1.0
    reweighting: str = "balanced"
    strength: float = 1.0
    level: float = LEVEL
    distance: str = "latent"
    interval: int = 1
    lookahead: bool = False
    blending: str = "fresh"
    eta: float = 0.0
    crop: bool | None = None
    context: float = 2.5
    feather: float = 1.5
    batch: int = 8
    preview_decoder: str | None = None
    refine: bool = False

    def record(self) -> dict[str, Any]:
        """What run.json keeps; refine is None unless it is asked for, as in runs from before it was there."""
        return {**asdict(self), "refine": self.refine or None}

    def __post_init__(self) -> None:
        for name, known in (("reweighting", MODES), ("distance", DISTANCES), ("blending", KINDS)):
            if getattr(self, name) not in known:
                raise InputError(f"{name} {getattr(self, name)!r} is unknown; choose one of {', '.join(known)}")
        _at_least("interval", self.interval, 1)
        _at_least("batch", self.batch, 1)
        _at_least("context", self.context, 1)
        for name in ("guidance", "severity", "strength", "eta", "feather"):
            _at_least(name, getattr(self, name), 0)
        check_level(self.level)
        if self.severity > SEVEREST:
            raise InputError(f"severity is {self.severity}; it must lie between 0 (no defect) and {SEVEREST}")
        _check_steps(self.steps)
        if self.eta > 1:
            raise InputError(f"eta is {self.eta}; it must lie between 0 (DDIM) and 1 (DDPM)")
        if self.distance == "preview" and self.preview_decoder is None and self.reweighting not in ("off", "uniform"):
            raise InputError("distance 'preview' needs a preview decoder; give a TAESD decoder file, or use 'latent'")


def idle(reweighting: str | None, distance: str | None) -> dict[str, str]:
    """Return the settings that do nothing beside these two, and beside which of them: name -> the other's name."""
    names = () if reweighting in LEVELLED else ("level",)
    names += () if reweighting in tuple(MEASURED) else ("distance", "preview_decoder")
    names += ("strength",) if reweighting == "off" else ()
    return ({} if distance == "preview" else {"preview_decoder": "distance"}) | dict.fromkeys(names, "reweighting")


@dataclass(frozen=True)
class MaskSampling:
    """How masks are sampled (Eq. 10); threshold on the mean over channels, in [0, 1].

    steps, guidance: None: what suits the base model (`on`).
    denoise: share of the steps that are taken, from a view of a shot's mask that is noised so far; 1 begins at
    noise, as published. 0.6 keeps to the shots' shapes; a detector learns a little less of them (docs/evidence.md).
    tries: candidates drawn for each mask wanted, before giving up. batch: candidates at a time.
    """

    steps: int | None = None
    guidance: float | None = None
    denoise: float = 1.0
    threshold: float = 0.6
    tries: int = 24
    batch: int = 16

    def __post_init__(self) -> None:
        if self.steps is not None:
            _check_steps(self.steps)
        if self.guidance is not None:
            _at_least("guidance", self.guidance, 0)
        _at_least("tries", self.tries, 1)
        _at_least("batch", self.batch, 1)
        if not 0 < self.denoise <= 1:
            raise InputError(f"denoise is {self.denoise}; it must lie above 0, and be 1 at most")
        if not 0 < self.threshold < 1:
            raise InputError(f"threshold is {self.threshold}; it must lie between 0 and 1")

    def on(self, base: Backbone) -> MaskSampling:
        """Return the settings with the steps and the guidance that suit a base model where none were given.

        A small one: as measured on the shipped one, whose masks come out larger than the shots' with the paper's
        guidance (benchmarks/README.md). Others: the paper's guidance of 5, and a quarter of the release's 100 steps.
        """
        steps, guidance = (12, 2.0) if is_small(base) else (25, 5.0)
        return replace(
            self, steps=steps if self.steps is None else self.steps,
            guidance=guidance if self.guidance is None else self.guidance,
        )  # fmt: skip


LENGTH = 1000
"""Timesteps of SD 1.x's noise schedule."""


def _at_least(name: str, value: float, least: float) -> None:
    if not (math.isfinite(value) and value >= least):
        raise InputError(f"{name} is {value}; it must be at least {least}")


def _check_steps(steps: int) -> None:
    _at_least("steps", steps, 1)
    if steps > LENGTH:
        raise InputError(f"steps is {steps}; the noise schedule has {LENGTH}")
