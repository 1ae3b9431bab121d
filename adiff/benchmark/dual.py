"""The pairs of DualAnoDiff: a dual model of each defect, learned once for the cells that share it, and its runs."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from ..dual import DualModel, DualSampling, DualSettings, load_dual, save_dual
from ..dual.learning import learn_dual
from ..dual.run import generate_dual_run
from ..evaluation.material import Run, read_run
from ..library import Key
from ..progress import Cancelled, Progress
from ..storage import remove_leftovers
from ..training.loop import discard_state
from .learning import Workshop
from .matrix import Recipe, digest_of
from .target import Unit

MODEL = "dual.safetensors"


def make_dual_runs(
    workshop: Workshop, unit: Unit, recipe: Recipe, seed: int, out: Path, progress: Progress
) -> list[Run]:
    """Make the runs of a dual recipe, one for each defect, in `out`; what is there of them is kept.

    Raises Busy if another process is making one, Cancelled when the work is stopped.
    """
    return [_made(workshop, unit, recipe, key, seed, out, progress) for key in unit.keys]


def learn(workshop: Workshop, unit: Unit, recipe: Recipe, key: Key, seed: int, progress: Progress) -> DualModel:
    """Learn a dual model of one defect, or read what was learned before."""
    folder = workshop.out / f"{'-'.join(key)}-{seed}-dual-{digest_of(_learning(workshop, unit, recipe))}"
    path, state = folder / MODEL, folder / ".state.safetensors"
    if not path.exists():
        with workshop.turns.alone(folder.name):
            if not path.exists():  # since it was looked at
                remove_leftovers(folder)
                model = learn_dual(
                    workshop.backbone, key, workshop.shots(unit, recipe)[key], settings=_settings(workshop, recipe),
                    seed=seed, progress=progress, state=state,
                )  # fmt: skip
                save_dual(path, model)
                discard_state(state)
    return load_dual(path)


def _settings(workshop: Workshop, recipe: Recipe) -> DualSettings:
    """How a recipe's models are learned within the budget."""
    return replace(recipe.dual, steps=workshop.budget.dual_steps, lr=workshop.budget.dual_lr)


def _learning(workshop: Workshop, unit: Unit, recipe: Recipe) -> dict[str, Any]:
    """What decides which model is learned."""
    return {"unit": unit.record(), "shots": recipe.shots, "settings": asdict(_settings(workshop, recipe))}


def _made(workshop: Workshop, unit: Unit, recipe: Recipe, key: Key, seed: int, out: Path, progress: Progress) -> Run:
    """The run of one defect, in a folder of its name."""
    model, steps = learn(workshop, unit, recipe, key, seed, progress), recipe.generation.steps
    folder = out / f"{'-'.join(key)}-{seed}-dual-{digest_of(_learning(workshop, unit, recipe), steps)}"
    with workshop.turns.alone(folder.name):
        result = generate_dual_run(
            workshop.backbone, model, count=workshop.budget.pairs, out=folder, settings=DualSampling.of(model, steps),
            seed=seed, progress=progress,
        )  # fmt: skip
    if result.cancelled:
        raise Cancelled(f"stopped after {len(result.pairs)} pairs of {model.name}")
    return read_run(folder)
