"""The named suites: each a question and the few variants that answer it.

| suite | asks | of the paper |
|---|---|---|
| ablation | what each part of the method adds | Table 6 |
| reweighting | what AAR adds, and what its adaptivity adds to a uniform weight of the same mean | |
| adaptivity | what makes adaptivity add something to that uniform weight | |
| steps | where more sampling steps stop helping | |
| guidance | what a guidance adds that is fitted to the shots | |
| uplift | whether synthetic pairs help a detector, against real shots alone and against pasting | |
| curation | whether a detector learns more from refined masks, or from pairs that keep the shots' limits | |
| shots | how many real shots are needed | |
| shares | the same by share of all images | Table 7 |
| tokens | how many tokens e_a, e_s and e_m need | Table 8 |
| grid | SAE x AAR, for the eye | Fig. 7 |
| dual | what DualAnoDiff gives beside AnomalyDiffusion, and what each of its parts adds | its ablations |
| paper | localisation, detection and classification for a whole product | main tables |
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Any

from ..baselines import METHODS as PASTING
from ..dual import DualSettings
from ..embedding import K_ANOMALY, K_MASK, N_SPATIAL
from ..errors import InputError
from ..generation import GenerationSettings
from ..reweighting import LEVEL
from .matrix import DUAL, GENERATED, Cell, Recipe, Variant
from .measures import QUALITY
from .target import Unit

REAL, WITH = "real", " + "
VARIED = "shots' masks varied"
"""Of pairs whose masks are the shots' own, varied, instead of learned ones."""
MIXED = "generated and crop-paste, half each"
PAIRS = ("fill", "leak", "likeness", "gap", "seam", "novelty")
"""Measures of pairs (METHOD 6), and their gap to real defects (`measures.gap`)."""
PIXELS = ("pixel_ap", "pixel_auroc", "pixel_f1_max", "pro")
IMAGES = ("image_auroc", "image_ap", "image_f1_max")
NUMBERS_OF_STEPS = (10, 15, 20, 30, 50, 200)
NUMBERS_OF_SHOTS = (1, 2, 3, 5, 10)
SHARES = (0.1, 0.2, 0.3, 0.4, 0.5)
GUIDANCES = (1.0, 1.5, 3.0)
"""Beside the default of 2."""
LEVELS = (1.0, 1.25, 1.5, 2.0)
"""Mean weights inside the mask."""


@dataclass(frozen=True)
class Suite:
    """question: what it asks. shown: columns of its table. main: the one that is plotted first and tested."""

    question: str
    variants: tuple[Variant, ...]
    shown: tuple[str, ...]
    main: str


def _ablation() -> tuple[Variant, ...]:
    off = replace(GenerationSettings(), reweighting="off")
    plain = "textual inversion"
    rows = {
        plain: Recipe(spatial=False, masked=False, generation=off),
        f"{plain} + Prompt-to-Prompt": Recipe("prompt-to-prompt", spatial=False, masked=False, generation=off),
        "SAE": Recipe(masked=False, generation=off),
        "SAE + masked loss": Recipe(generation=off),
        "masked loss + AAR": Recipe(spatial=False),
        "all": Recipe(),
    }
    return tuple(Variant(name, recipe, None if name == plain else plain) for name, recipe in rows.items())


def _reweighting() -> tuple[Variant, ...]:
    """Each mode beside `off` and, where it has a level, beside the uniform weight of the same mean.

    The uniform weight of mean 1 is `off`.
    """
    found: list[Variant] = []

    def add(mode: str, control: str | None, **changes: Any) -> str:
        generation = replace(GenerationSettings(), reweighting=mode, **changes)
        name = _told(mode, changes)
        found.append(Variant(name, Recipe(generation=generation, detect=False), control))
        return name

    surroundings: list[dict[str, Any]] = [{}, {"blending": "fixed"}, *({"guidance": g} for g in GUIDANCES)]
    for around in surroundings:
        off = add("off", None if not around else _told("off", {}), **around)
        for level in LEVELS if not around else (LEVEL,):
            uniform = off if level == 1 else add("uniform", off, level=level, **around)
            add("balanced", uniform, level=level, **around)
        if not around:
            for distance in ("rgb", "vae"):
                add("balanced", f"uniform, mean {LEVEL:g}", level=LEVEL, distance=distance)
            add("release", off)
            add("paper", off)
    return tuple(found)


def _adaptivity() -> tuple[Variant, ...]:
    """The default beside the uniform weight of its mean, and what could make it add more than that."""
    default, uniform, wider = GenerationSettings(), f"uniform, mean {LEVEL:g}", 1 + LEVEL / 2
    rows = {
        uniform: replace(default, reweighting="uniform"),
        f"balanced, mean {LEVEL:g}": default,
        "map of the same step": replace(default, lookahead=True),
        "map at every 5th step": replace(default, interval=5),
        "map of the first step alone": replace(default, interval=default.steps),
        "decoded distance": replace(default, distance="vae"),
        # 1 + s (l r - 1), r of mean 1 and spread 1/2, has the mean 1 + s (l - 1) = LEVEL and the spread s l / 2
        "spread x 1.5": replace(default, strength=wider, level=1 + (LEVEL - 1) / wider),
    }
    return tuple(
        Variant(name, Recipe(generation=generation, detect=False), None if name == uniform else uniform)
        for name, generation in rows.items()
    )


def _told(mode: str, changes: dict[str, Any]) -> str:
    """A mode and what is not the default, in words."""
    parts = [mode]
    for name, value in changes.items():
        if name == "level":
            parts.append(f"mean {value:g}")
        else:
            parts.append(value if isinstance(value, str) else f"{name} {value:g}")
    return ", ".join(parts)


def _steps() -> tuple[Variant, ...]:
    last = f"{NUMBERS_OF_STEPS[-1]} steps"
    made = [(f"{n} steps", replace(GenerationSettings(), steps=n)) for n in NUMBERS_OF_STEPS]
    return tuple(
        Variant(name, Recipe(generation=g, detect=False), None if name == last else last) for name, g in made
    )


def _guidance() -> tuple[Variant, ...]:
    """The default beside the guidance that is fitted to the shots, for pairs alone and beside real shots."""
    found = []
    for name, recipe in ((GENERATED, Recipe()), (f"{REAL}{WITH}{GENERATED}", Recipe(real=True))):
        found += [Variant(name, recipe), Variant(f"{name}, fitted", replace(recipe, fitted=True), name)]
    return tuple(found)


def _uplift() -> tuple[Variant, ...]:
    recipes = {REAL: Recipe(source=None, real=True)}
    recipes |= {f"{REAL}{WITH}{name}": Recipe(source=name, real=True) for name in (*PASTING, GENERATED)}
    recipes[GENERATED] = Recipe()
    for name in (f"{REAL}{WITH}{GENERATED}", GENERATED):
        recipes[f"{name}, {VARIED}"] = replace(recipes[name], varied=True)
    recipes[f"{REAL}{WITH}{MIXED}"] = Recipe(mixed="crop-paste", real=True)
    return tuple(Variant(name, recipe, None if name == REAL else REAL) for name, recipe in recipes.items())


def _curation() -> tuple[Variant, ...]:
    """Generated pairs as they come, with masks of what changed, and those that pass; beside real shots and alone."""
    changed = {
        "refined masks": {"generation": replace(GenerationSettings(), refine=True)},
        "filtered": {"filtered": True},
    }
    found = []
    for name, recipe in ((f"{REAL}{WITH}{GENERATED}", Recipe(real=True)), (GENERATED, Recipe())):
        found.append(Variant(name, recipe))
        found += [Variant(f"{name}, {kind}", replace(recipe, **change), name) for kind, change in changed.items()]
    return tuple(found)


def _shots(numbers: Sequence[int | float]) -> tuple[Variant, ...]:
    found = []
    for number in numbers:
        told = f"{number:.0%}" if isinstance(number, float) else str(number)
        found.append(Variant(f"{told} {REAL}", Recipe(source=None, real=True, shots=number)))
        both = Recipe(real=True, shots=number)
        found.append(Variant(f"{told} {REAL}{WITH}{GENERATED}", both, f"{told} {REAL}"))
    return tuple(found)


def _tokens() -> tuple[Variant, ...]:
    """Around the paper's k = 8, n = 4, k' = 4; E is learned from scratch in all of them."""
    counts = [(k, n, K_MASK) for k in (8, 16) for n in (4, 8)]
    counts += [(K_ANOMALY, N_SPATIAL, k) for k in (2, 16)]
    names = [f"k {k}, n {n}, k' {of_mask}" for k, n, of_mask in counts]
    control = f"k {K_ANOMALY}, n {N_SPATIAL}, k' {K_MASK}"
    return tuple(
        Variant(name, Recipe(tokens=k, spatial_tokens=n, mask_tokens=of_mask), None if name == control else control)
        for name, (k, n, of_mask) in zip(names, counts, strict=True)
    )


def _dual() -> tuple[Variant, ...]:
    """Both methods, each beside real shots and alone, and pairs of models that lack a part, or have another one.

    Pairs alone tell of the parts, but of low-rank SAIM, which looks as good by its pairs and is not for a detector.
    """
    both, alone = f"{REAL}{WITH}{GENERATED}", (f"{GENERATED} alone", f"{DUAL} alone")
    found = [
        Variant(REAL, Recipe(source=None, real=True)),
        Variant(both, Recipe(real=True), REAL),
        Variant(alone[0], Recipe(), REAL),
        Variant(f"{REAL}{WITH}{DUAL}", Recipe(DUAL, real=True), both),
        Variant(alone[1], Recipe(DUAL), alone[0]),
    ]
    other = {
        "low-rank SAIM": {"saim": "low"}, "without SAIM": {"saim": "off"}, "with BCM": {"bcm": "paper"},
        "without nested conditions": {"nested": False},
    }  # fmt: skip
    for told, changes in other.items():
        recipe = Recipe(DUAL, dual=replace(DualSettings(), **changes), detect=False)
        found.append(Variant(f"{DUAL}, {told}", recipe, alone[1]))
    low = Recipe(DUAL, real=True, dual=replace(DualSettings(), saim="low"))
    found.append(Variant(f"{REAL}{WITH}{DUAL}, low-rank SAIM", low, f"{REAL}{WITH}{DUAL}"))
    return tuple(found)


def _grid() -> tuple[Variant, ...]:
    off = replace(GenerationSettings(), reweighting="off")
    rows = {
        "neither": Recipe(spatial=False, generation=off, detect=False),
        "SAE": Recipe(generation=off, detect=False),
        "AAR": Recipe(spatial=False, detect=False),
        "SAE + AAR": Recipe(detect=False),
    }
    return tuple(Variant(name, recipe, None if name == "neither" else "neither") for name, recipe in rows.items())


SUITES = {
    "ablation": Suite("What does each part of the method add?", _ablation(), (*PIXELS[:3], *PAIRS), "pixel_ap"),
    "reweighting": Suite(
        "What does re-weighting add, and its adaptivity to a uniform weight of the same mean?", _reweighting(), PAIRS,
        "fill",
    ),
    "adaptivity": Suite(
        "What makes adaptivity add something to a uniform weight of the same mean?", _adaptivity(), PAIRS, "fill"
    ),
    "steps": Suite("Where do more sampling steps stop helping?", _steps(), PAIRS, "gap"),
    "guidance": Suite(
        "What does a guidance add that is fitted to the shots?", _guidance(), (*PIXELS[:1], "pro", *PAIRS), "gap"
    ),
    "uplift": Suite(
        "Do synthetic pairs help a detector?", _uplift(), (*PIXELS, *IMAGES, "fill", "gap"), "pixel_ap"
    ),
    "curation": Suite(
        "Does a detector learn more from refined masks, or from pairs that keep the shots' limits?", _curation(),
        (*PIXELS, *IMAGES, "fill", "gap"), "pixel_ap",
    ),
    "shots": Suite("How many real shots are needed?", _shots(NUMBERS_OF_SHOTS), (*PIXELS, *PAIRS), "pixel_ap"),
    "shares": Suite("Which share of the images is needed?", _shots(SHARES), (*PIXELS, *PAIRS), "pixel_ap"),
    "tokens": Suite("How many tokens are needed?", _tokens(), (*PIXELS[:3], *PAIRS), "pixel_ap"),
    "grid": Suite("What do E and re-weighting do to the images?", _grid(), PAIRS, "fill"),
    "dual": Suite(
        "What does DualAnoDiff give beside AnomalyDiffusion, and what does each of its parts add?", _dual(),
        ("pixel_ap", "pro", "alignment", "gap", "diversity", "likeness", *IMAGES, "novelty", "fill", "leak"),
        "pixel_ap",
    ),
    "paper": Suite(
        "What does a detector, and a classifier, learn from generated pairs alone?",
        (Variant("all", Recipe(whole=True)),), (*PIXELS, *IMAGES, "accuracy", *QUALITY, *PAIRS[:4]), "pixel_ap",
    ),
}  # fmt: skip


def cells_of(units: Mapping[str, Sequence[Unit]], seeds: int, wanted: Sequence[str] = ()) -> list[Cell]:
    """The cells of suites, a whole pass over all of them for each seed: a run broken off is even in all but seeds.

    units: suite -> what it is measured on. wanted: as `variants_of` takes them.
    """
    variants = variants_of(list(units), wanted)
    return [
        Cell(name, variant, unit, seed)
        for seed in range(seeds)
        for name, of_suite in units.items()
        for unit in of_suite
        for variant in variants[name]
    ]  # fmt: skip


def variants_of(suites: Sequence[str], wanted: Sequence[str] = ()) -> dict[str, list[Variant]]:
    """Suite -> its variants of the wanted names, with the controls that they are compared with; () for all.

    wanted: names, with * for any letters, each of a variant of at least one of the suites; else InputError.
    """
    found: dict[str, list[Variant]] = {}
    for suite in suites:
        named = [variant for variant in SUITES[suite].variants if any(fnmatchcase(variant.name, one) for one in wanted)]
        kept = {variant.name for variant in named} | {variant.control for variant in named}
        found[suite] = [variant for variant in SUITES[suite].variants if not wanted or variant.name in kept]
    names = [variant.name for suite in suites for variant in SUITES[suite].variants]
    if unknown := [one for one in wanted if not any(fnmatchcase(name, one) for name in names)]:
        raise InputError(f"there is no variant {unknown[0]!r}; choose from {'; '.join(dict.fromkeys(names))}")
    return found
