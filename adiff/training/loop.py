"""One training loop for everything that is learned here: AdamW, warm-up and cosine, clipping, averaging, resume.

Step i draws its data from (seed, i) alone, so a resumed run repeats the unbroken one.
"""

from __future__ import annotations

import json
import logging
import math
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import InputError
from ..progress import Cancelled, NullProgress, Progress
from .batch import Batch
from .state import Run, resume, save_state, unfinished
from .validation import Point, Validation, thinned

log = logging.getLogger("adiff")


@dataclass(frozen=True)
class Schedule:
    """How long and how fast: steps, peak learning rate, warm-up (share of the steps), weight decay, averaging decay.

    average: decay of the exponential moving average of the parameters that a run ends with; 0 for none.
    """

    steps: int
    lr: float
    warm_up: float = 0.05
    weight_decay: float = 0.0
    average: float = 0.0

    def __post_init__(self) -> None:
        if self.steps < 1 or not 0 < self.lr < math.inf:
            raise InputError(
                f"training needs at least 1 step and a positive learning rate; got {self.steps}, {self.lr}"
            )
        if not 0 <= self.average < 1:
            raise InputError(f"the averaging decay is {self.average}; it must be at least 0 and below 1")

    def rate(self, step: int) -> float:
        """Return the learning rate of a step: linear warm-up, then half a cosine down to 1 % of the peak."""
        warm = max(1, round(self.warm_up * self.steps))
        if step < warm:
            return self.lr * (step + 1) / warm
        along = (step - warm) / max(1, self.steps - warm)
        return self.lr * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * along)))


@dataclass(frozen=True)
class Outcome:
    """What a run came to.

    steps: done. loss: averaged over the recent ones. stopped: why before the last one ("", "early" where the held-out
    loss fell no more, "cancelled", "not finite"). curve: at most 200 points. best: step whose state is kept.
    """

    steps: int
    loss: float
    stopped: str = ""
    curve: tuple[Point, ...] = ()
    best: int = 0


def step_generator(seed: int, step: int) -> torch.Generator:
    """Return the CPU generator of one step, a function of seed and step alone."""
    return torch.Generator().manual_seed((seed * 1_000_003 + step) % (2**63))


def fit(
    parameters: Mapping[str, Tensor],
    loss_at: Callable[[int, torch.Generator], Tensor | Batch],
    schedule: Schedule,
    *,
    seed: int,
    what: str,
    progress: Progress | None = None,
    state: Path | None = None,
    save_every: float = 30.0,
    rates: Mapping[str, float] | None = None,
    about: Mapping[str, Any] | None = None,
    notes: dict[str, float] | None = None,
    validation: Validation | None = None,
    preview: Callable[[int], None] | None = None,
    preview_every: int = 50,
    loss_scale: float = 1.0,
) -> Outcome:
    """Minimise `loss_at(step, generator)`, a loss or a Batch, over `parameters` in place.

    state: file from which an interrupted run of the same settings goes on, written every `save_every` seconds, removed
    by `discard_state`. Ctrl-C or Cancelled ends the run with what is learned so far; so does a loss or a gradient that
    is not finite. rates: factors on the learning rate of the parameters named. about: what else must be the same in a
    run that goes on, JSON. notes: numbers that `loss_at` keeps from step to step; they are kept with the state.
    validation: the held-out loss, by which the run stops early; the state in which it was lowest is what the parameters
    end with. Without one it is the last state, or after a loss that is not finite the last one known to be good.
    preview(steps done): called every `preview_every` steps, without gradients, the parameters being what the run would
    end with. loss_scale: factor on the loss of a float16 model, see `Gradient`.
    """
    progress = progress or NullProgress()
    run = Run(dict(parameters), schedule, rates or {}, {} if notes is None else notes, loss_scale)
    identity = json.dumps([what, seed, vars(schedule), run.shapes(), dict(about or {})], sort_keys=True)
    resume(run, state, identity)
    stopped, saved = "", time.monotonic()
    progress.start(schedule.steps, what)
    try:
        run.note(validation)  # of the step after which the state was written
        while run.done < schedule.steps and not _has_enough(run, validation):
            step = run.done
            if not run.step(loss_at(step, step_generator(seed, step))):
                stopped = "not finite"
                _go_back(run, what, step)
                break
            measured = run.note(validation)
            progress.update(run.done, loss=run.recent_loss, **({} if measured is None else {"validation": measured}))
            if preview is not None and run.done % preview_every == 0:
                with run.averaged():
                    preview(run.done)
            if state is not None and time.monotonic() - saved > save_every:
                save_state(run, state, identity)
                saved = time.monotonic()
    except (Cancelled, KeyboardInterrupt):
        stopped = "cancelled"
        if run.broken_off:  # in the middle of an optimiser's step: no state of any step
            run.restore()
        if state is not None:
            save_state(run, state, identity)
    finally:
        run.finish()
    if not stopped and run.done < schedule.steps:
        stopped = "early"
        log.info("%s: stopped at step %d, the held-out loss was lowest at step %d", what, run.done, run.track.best)
    progress.finish()
    return Outcome(run.done, run.recent_loss, stopped, thinned(run.track.curve), run.track.best or run.done)


def discard_state(state: Path | None) -> None:
    """Remove the state of a run whose result is safely stored."""
    if state is not None:
        state.unlink(missing_ok=True)
        shutil.rmtree(unfinished(state), ignore_errors=True)


def _has_enough(run: Run, validation: Validation | None) -> bool:
    return validation is not None and run.track.worse >= validation.patience


def _go_back(run: Run, what: str, step: int) -> None:
    """Leave a step whose loss or gradient was not finite: for the best state, else for the last one kept."""
    if not run.track.best:
        run.restore()
    log.error(
        "%s: loss or gradient not finite at step %d; went back to step %d", what, step + 1, run.track.best or run.done
    )
