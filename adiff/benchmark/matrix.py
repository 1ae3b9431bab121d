"""What a benchmark is made of: recipes, variants, cells, and the budget that all cells share."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

from ..backbone import Backbone, is_small
from ..dual import DualSettings
from ..embedding import K_ANOMALY, K_MASK
from ..errors import InputError
from ..evaluation.localizer import LocalizerSettings
from ..generation import GenerationSettings
from ..generation.placing import STAY
from ..training.settings import UNWATCHED_STEPS

if TYPE_CHECKING:
    from .target import Unit

GENERATED, DUAL = "generated", "dual"
"""The sources of pairs that are this project's own, AnomalyDiffusion and DualAnoDiff; others are baselines, of
`baselines` or `baselines.painting`."""
DIGEST = 12
ADDED = ("filtered", "fitted", "mixed")
"""What recipes of older benchmarks have not; where it is False, or None, a recipe is theirs."""


@dataclass(frozen=True)
class Recipe:
    """How a cell's pairs are made, and what its detector learns from.

    source: GENERATED, DUAL, a baseline, or None for no synthetic pairs. real: whether the real shots teach the
    detector too. spatial: with E. masked: with m in the loss (Eq. 5); without, the loss is over the whole image. shots:
    of each defect, a number, a share of all its images, or None for all that may teach. tokens: k. spatial_tokens: n of
    an E learned from scratch; None: the benchmark's own E. mask_tokens: k'. dual: how a dual model is learned, but
    for its steps and rate; its pairs take the steps of `generation`. varied: whether masks are the shots' own, varied,
    instead of learned ones. filtered: whether pairs must keep the limits that the shots set (`auto_filter`). fitted:
    whether the guidance is the one that suits the shots (`generation.guidance`), not that of `generation`. mixed: the
    source of every other pair, None for that of the others. detect: whether a detector is trained. whole: also what
    only a whole product has, the classifier of its defects.
    """

    source: str | None = GENERATED
    real: bool = False
    spatial: bool = True
    masked: bool = True
    shots: int | float | None = None
    tokens: int = K_ANOMALY
    spatial_tokens: int | None = None
    mask_tokens: int = K_MASK
    generation: GenerationSettings = field(default_factory=GenerationSettings)
    dual: DualSettings = field(default_factory=DualSettings)
    varied: bool = False
    filtered: bool = False
    fitted: bool = False
    mixed: str | None = None
    detect: bool = True
    whole: bool = False

    def record(self) -> dict[str, Any]:
        """The recipe as JSON holds it, without what older benchmarks did not know and this one does not use."""
        return {name: value for name, value in asdict(self).items() if value or name not in ADDED}

    def learning(self) -> dict[str, Any]:
        """What of it decides which e_a and E are learned."""
        return {name: getattr(self, name) for name in ("spatial", "masked", "shots", "tokens", "spatial_tokens")}

    def painting(self) -> list[Any]:
        """What of it decides how they are painted, and which pairs are kept."""
        return [asdict(self.generation), *(name for name in ADDED if getattr(self, name) is True)]

    def masks(self) -> dict[str, Any]:
        """What of it decides which masks are sampled."""
        return {"shots": self.shots, **({"varied": True} if self.varied else {"mask_tokens": self.mask_tokens})}


@dataclass(frozen=True)
class Variant:
    """A row of a suite's table. control: the variant that it is compared with, None for none."""

    name: str
    recipe: Recipe
    control: str | None = None


@dataclass(frozen=True)
class Cell:
    """One measurement: a variant of a suite, on a unit of the target, for one seed."""

    suite: str
    variant: Variant
    unit: Unit
    seed: int

    @property
    def place(self) -> tuple[str, str, str, int]:
        """Where in the matrix it stands."""
        return self.suite, self.variant.name, self.unit.name, self.seed

    def about(self) -> dict[str, Any]:
        """What its line says beside what was measured."""
        return {
            "suite": self.suite, "variant": self.variant.name, "unit": self.unit.name, "product": self.unit.product,
            "defects": list(self.unit.defects), "seed": self.seed, "control": self.variant.control,
            "recipe": self.variant.recipe.record(),
        }  # fmt: skip

    def __str__(self) -> str:
        return f"{self.suite}, {self.variant.name}, {self.unit.name}, seed {self.seed}"


@dataclass(frozen=True)
class Budget:
    """What every cell may spend, and where its masks lie, the same for all.

    pairs: of each defect. learn_steps, mask_steps: of an inversion, more for more than four defects that are learned
    together. dual_steps, dual_lr: of a dual model, and the rate that so few steps need.
    shots: of each defect where the recipe says none, None for all that may teach. detector: of every detector. place:
    how masks come onto the object (`generation.placing.PLACES`).
    """

    pairs: int = 48
    learn_steps: int = 100
    mask_steps: int = 150
    dual_steps: int = 150
    dual_lr: float = 1e-3
    shots: int | None = None
    detector: LocalizerSettings = field(default_factory=lambda: LocalizerSettings(steps=200))
    place: str = STAY

    def __post_init__(self) -> None:
        for name in ("pairs", "learn_steps", "mask_steps", "dual_steps", "shots"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise InputError(f"{name} is {value}; it must be at least 1")

    def record(self) -> dict[str, Any]:
        """The budget as JSON holds it, without what older benchmarks did not know and this one does not use."""
        about = asdict(self)
        return {name: value for name, value in about.items() if (name, value) != ("place", STAY)}

    def on(self, base: Backbone) -> Budget:
        """The budget with the method's steps for a base model, if that is not small; nothing is held out of shots."""
        steps = UNWATCHED_STEPS
        return self if is_small(base) else replace(self, learn_steps=steps, mask_steps=steps)

    def places(self) -> list[str]:
        """What of it decides where masks lie."""
        return [] if self.place == STAY else [self.place]


FULL = Budget()
QUICK = Budget(pairs=8, learn_steps=60, mask_steps=60, dual_steps=60, detector=LocalizerSettings(size=64, steps=100))
"""For a first look on a small machine: too little to conclude from."""


def digest_of(*parts: Any) -> str:
    """A short name for what JSON can hold: the same parts, the same name, in every process."""
    text = json.dumps(parts, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "backslashreplace")).hexdigest()[:DIGEST]
