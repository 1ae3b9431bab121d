"""One training loop for everything that is learned here: AdamW, warm-up and cosine, clipping, averaging, resume.

Step i draws its data from (seed, i) alone, so a resumed run repeats the unbroken one.
"""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from ..errors import InputError
from ..progress import Cancelled, NullProgress, Progress
from ..storage import write_whole

log = logging.getLogger("adiff")
CLIP_NORM = 1.0  # largest gradient norm, over all parameters
RECENT = 50  # steps over which the reported loss is averaged, and between two states to go back to


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

    def rate(self, step: int) -> float:
        """Return the learning rate of a step: linear warm-up, then half a cosine down to 1 % of the peak."""
        warm = max(1, round(self.warm_up * self.steps))
        if step < warm:
            return self.lr * (step + 1) / warm
        along = (step - warm) / max(1, self.steps - warm)
        return self.lr * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * along)))


@dataclass(frozen=True)
class Outcome:
    """What a run came to: steps done, the recent loss, and why it stopped early ("", "cancelled" or "not finite")."""

    steps: int
    loss: float
    stopped: str = ""


def step_generator(seed: int, step: int) -> torch.Generator:
    """Return the CPU generator of one step, a function of seed and step alone."""
    return torch.Generator().manual_seed((seed * 1_000_003 + step) % (2**63))


def fit(
    parameters: Mapping[str, Tensor],
    loss_at: Callable[[int, torch.Generator], Tensor],
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
) -> Outcome:
    """Minimise `loss_at(step, generator)` over `parameters` in place.

    state: file from which an interrupted run of the same settings goes on, written every `save_every` seconds, removed
    by `discard_state`. Ctrl-C or Cancelled ends the run with what is learned so far; so does a loss or a gradient that
    is not finite, after going back to the last state in which it was. rates: factors on the learning rate of the
    parameters named. about: what else must be the same in a run that goes on, JSON. notes: numbers that `loss_at` keeps
    from step to step; they are kept with the state.
    """
    progress = progress or NullProgress()
    run = _Run(dict(parameters), schedule, rates or {}, {} if notes is None else notes)
    identity = json.dumps([what, seed, vars(schedule), run.shapes(), dict(about or {})], sort_keys=True)
    first = _resume(run, state, identity)
    stopped, saved = "", time.monotonic()
    progress.start(schedule.steps, what)
    try:
        for step in range(first, schedule.steps):
            loss = loss_at(step, step_generator(seed, step))
            if not run.step(loss):
                run.restore()
                stopped = "not finite"
                log.error("%s: loss or gradient not finite at step %d; went back to step %d", what, step + 1, run.done)
                break
            progress.update(run.done, loss=run.recent_loss)
            if state is not None and time.monotonic() - saved > save_every:
                _save(run, state, identity)
                saved = time.monotonic()
    except (Cancelled, KeyboardInterrupt):
        stopped = "cancelled"
        if run.broken_off:  # in the middle of an optimiser's step: no state of any step
            run.restore()
        if state is not None:
            _save(run, state, identity)
    finally:
        run.finish()
    progress.finish()
    return Outcome(run.done, run.recent_loss, stopped)


def discard_state(state: Path | None) -> None:
    """Remove the state of a run whose result is safely stored."""
    if state is not None:
        state.unlink(missing_ok=True)


@dataclass(frozen=True)
class _Snapshot:
    """A run after `done` steps: its tensors by "kind/name", recent losses, and the caller's notes."""

    done: int
    tensors: dict[str, Tensor]
    recent: list[float]
    notes: dict[str, float]


class _Run:
    """Parameters, optimiser and average of one run, which can be kept and restored."""

    def __init__(self, parameters: dict[str, Tensor], schedule: Schedule, rates: Mapping[str, float], notes: dict):
        self.parameters, self.schedule, self.notes = parameters, schedule, notes
        self.done, self.recent, self.noted, self.broken_off = 0, [], dict(notes), False
        for parameter in parameters.values():
            parameter.requires_grad_(True)
            parameter.grad = None
        groups = [
            {"params": [p for n, p in parameters.items() if rates.get(n, 1.0) == rate], "rate": rate}
            for rate in sorted({rates.get(n, 1.0) for n in parameters})
        ]
        self.optimiser = torch.optim.AdamW(
            groups, lr=schedule.lr, betas=(0.9, 0.99), weight_decay=schedule.weight_decay
        )
        self.average = [p.detach().clone() for p in parameters.values()] if schedule.average else None
        self.kept = self.snapshot()

    @property
    def recent_loss(self) -> float:
        """The loss averaged over the last steps, NaN before the first."""
        return sum(self.recent) / len(self.recent) if self.recent else math.nan

    def shapes(self) -> dict[str, list[int]]:
        """Return the parameters' shapes by name."""
        return {name: list(p.shape) for name, p in self.parameters.items()}

    def step(self, loss: Tensor) -> bool:
        """Take one step down; returns False, with nothing changed, if the loss or its gradient is not finite."""
        value = float(loss.detach())
        if not math.isfinite(value):
            return False
        loss.backward()
        values = list(self.parameters.values())
        if not torch.nn.utils.clip_grad_norm_(values, CLIP_NORM).isfinite():
            return False
        if self.done % RECENT == 0:
            self.kept = self.snapshot()
        self.broken_off = True
        for group in self.optimiser.param_groups:
            group["lr"] = group["rate"] * self.schedule.rate(self.done)
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        if self.average is not None:
            decay = min(self.schedule.average, (1 + self.done) / (10 + self.done))
            torch._foreach_lerp_(self.average, [p.detach() for p in values], 1 - decay)
        self.done += 1
        self.recent = [*self.recent, value][-RECENT:]
        self.noted = dict(self.notes)
        self.broken_off = False
        return True

    def snapshot(self) -> _Snapshot:
        """Copy this state."""
        return _Snapshot(
            self.done, {n: t.detach().clone() for n, t in self._tensors().items()}, list(self.recent), dict(self.noted)
        )

    def restore(self, snapshot: _Snapshot | None = None) -> None:
        """Go to a state, by default the last one that was kept."""
        to = snapshot or self.kept
        self.done, self.recent, self.noted, self.broken_off = to.done, list(to.recent), dict(to.notes), False
        self._take_back_notes()
        with torch.no_grad():
            for i, (name, parameter) in enumerate(self.parameters.items()):
                parameter.copy_(to.tensors[f"parameter/{name}"])
                self.optimiser.state.pop(parameter, None)
                if self.average is not None:
                    self.average[i].copy_(to.tensors[f"average/{name}"])
        for full, tensor in to.tensors.items():
            kind, name = full.split("/", 1)
            if kind not in ("parameter", "average"):
                parameter = self.parameters[name]
                device = "cpu" if kind == "step" else parameter.device  # where AdamW keeps its own
                self.optimiser.state[parameter][kind] = tensor.clone().to(device)

    def _take_back_notes(self) -> None:
        self.notes.clear()
        self.notes.update(self.noted)

    def finish(self) -> None:
        """Leave the parameters at their average, without gradients, and the notes as the last whole step left them."""
        self._take_back_notes()
        for i, parameter in enumerate(self.parameters.values()):
            parameter.requires_grad_(False)
            parameter.grad = None
            if self.average is not None:
                parameter.data.copy_(self.average[i])

    def _tensors(self) -> dict[str, Tensor]:
        tensors = {f"parameter/{n}": p.detach() for n, p in self.parameters.items()}
        for i, (name, parameter) in enumerate(self.parameters.items()):
            for kind, value in self.optimiser.state.get(parameter, {}).items():
                tensors[f"{kind}/{name}"] = value
            if self.average is not None:
                tensors[f"average/{name}"] = self.average[i]
        return tensors


def _save(run: _Run, state: Path, identity: str) -> None:
    """Write a run's state, whole or not at all."""
    now = run.snapshot()
    tensors = {name: tensor.cpu().contiguous() for name, tensor in now.tensors.items()}
    told = json.dumps({"done": now.done, "recent": now.recent, "notes": now.notes})
    metadata = {"adiff_training": identity, "told": told}
    write_whole(state, lambda temporary: temporary.write_bytes(save(tensors, metadata=metadata)))


def _resume(run: _Run, state: Path | None, identity: str) -> int:
    """Bring a run to the stored state of the same run if there is one; returns the steps done."""
    if state is None or not state.exists():
        return 0
    try:
        with safe_open(state, "pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}
    except SafetensorError as error:
        raise InputError(f"{state} is no readable training state ({error}); use --restart") from None
    if metadata.get("adiff_training") != identity:
        raise InputError(f"{state} belongs to a training with other settings or shots; use those, or --restart")
    told = json.loads(metadata["told"])
    run.kept = _Snapshot(told["done"], tensors, told["recent"], told["notes"])
    run.restore()
    return run.done
