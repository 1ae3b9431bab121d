"""One training loop for everything that is learned here: AdamW, warm-up and cosine, clipping, averaging, resume.

Step i draws its data from (seed, i) alone, so a resumed run repeats the unbroken one.
"""

from __future__ import annotations

import json
import logging
import math
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ..errors import InputError
from ..progress import Cancelled, NullProgress, Progress

log = logging.getLogger("adiff")
CLIP_NORM = 1.0  # largest gradient norm, over all parameters
RECENT = 50  # steps over which the reported loss is averaged


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
            raise InputError(f"training needs at least 1 step and a positive learning rate; got {self.steps}, {self.lr}")

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
) -> Outcome:
    """Minimise `loss_at(step, generator)` over `parameters` in place.

    state: file from which an interrupted run of the same settings goes on, written every `save_every` seconds, removed
    by `discard_state`. Ctrl-C or Cancelled ends the run with what is learned so far; so does a loss that is not finite,
    after going back to the last state in which it was. rates: factors on the learning rate of the parameters named.
    """
    progress = progress or NullProgress()
    run = _Run(dict(parameters), schedule, seed, what, state, rates or {})
    first = run.resume()
    recent: list[float] = []
    stopped, done, saved = "", first, time.monotonic()
    progress.start(schedule.steps, what)
    try:
        for step in range(first, schedule.steps):
            loss = loss_at(step, step_generator(seed, step))
            value = float(loss.detach())
            if not math.isfinite(value):
                stopped, done = "not finite", run.restore()
                log.error("%s: the loss is %s at step %d; went back to step %d", what, value, step + 1, done)
                break
            if step % RECENT == 0:
                run.keep(step)
            loss.backward()
            run.step(step)
            done = step + 1
            recent = [*recent[-RECENT + 1 :], value]
            progress.update(done, loss=sum(recent) / len(recent))
            if state is not None and time.monotonic() - saved > save_every:
                run.save(done)
                saved = time.monotonic()
    except (Cancelled, KeyboardInterrupt):
        stopped = "cancelled"
        if state is not None:
            run.save(done)
    progress.finish()
    run.finish()
    return Outcome(done, sum(recent) / len(recent) if recent else math.nan, stopped)


def discard_state(state: Path | None) -> None:
    """Remove the state of a run whose result is safely stored."""
    if state is not None:
        state.unlink(missing_ok=True)


class _Run:
    """Parameters, optimiser and average of one run, as tensors that can be kept, restored and stored."""

    def __init__(self, parameters: dict[str, Tensor], schedule: Schedule, seed: int, what: str,
                 state: Path | None, rates: Mapping[str, float]):
        self.parameters, self.schedule, self.state = parameters, schedule, state
        for parameter in parameters.values():
            parameter.requires_grad_(True)
        groups = [
            {"params": [p for n, p in parameters.items() if rates.get(n, 1.0) == rate], "rate": rate}
            for rate in sorted({rates.get(n, 1.0) for n in parameters})
        ]
        self.optimiser = torch.optim.AdamW(groups, lr=schedule.lr, betas=(0.9, 0.99), weight_decay=schedule.weight_decay)
        self.average = [p.detach().clone() for p in parameters.values()] if schedule.average else None
        shapes = {name: list(p.shape) for name, p in parameters.items()}
        self.identity = json.dumps([what, seed, vars(schedule), shapes], sort_keys=True)
        self.kept: tuple[int, dict[str, Tensor]] = (0, self._tensors())

    def step(self, step: int) -> None:
        """Apply the gradients of one step and clear them."""
        values = list(self.parameters.values())
        torch.nn.utils.clip_grad_norm_(values, CLIP_NORM)
        for group in self.optimiser.param_groups:
            group["lr"] = group["rate"] * self.schedule.rate(step)
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        if self.average is not None:
            decay = min(self.schedule.average, (1 + step) / (10 + step))
            torch._foreach_lerp_(self.average, [p.detach() for p in values], 1 - decay)

    def _tensors(self) -> dict[str, Tensor]:
        tensors = {f"parameter/{n}": p.detach() for n, p in self.parameters.items()}
        for i, (name, parameter) in enumerate(self.parameters.items()):
            for kind, value in self.optimiser.state.get(parameter, {}).items():
                tensors[f"{kind}/{name}"] = value
            if self.average is not None:
                tensors[f"average/{name}"] = self.average[i]
        return tensors

    def keep(self, step: int) -> None:
        """Remember this state as the last good one."""
        self.kept = (step, {n: t.clone() for n, t in self._tensors().items()})

    def restore(self) -> int:
        """Go back to the last good state and return its step."""
        step, tensors = self.kept
        self._load(tensors)
        return step

    def _load(self, tensors: dict[str, Tensor]) -> None:
        with torch.no_grad():
            for i, (name, parameter) in enumerate(self.parameters.items()):
                parameter.copy_(tensors[f"parameter/{name}"])
                of_this = {n.split("/", 1)[0] for n in tensors if n.split("/", 1)[1] == name}
                kinds = of_this - {"parameter", "average"}
                if kinds:
                    self.optimiser.state[parameter] = {
                        kind: tensors[f"{kind}/{name}"].clone().to("cpu" if kind == "step" else parameter.device)
                        for kind in sorted(kinds)
                    }
                if self.average is not None:
                    self.average[i].copy_(tensors[f"average/{name}"])

    def save(self, step: int) -> None:
        """Write the state, atomically."""
        self.state.parent.mkdir(parents=True, exist_ok=True)
        temporary = self.state.with_name(self.state.name + ".tmp")
        tensors = {n: t.detach().cpu().contiguous().clone() for n, t in self._tensors().items()}
        save_file(tensors, temporary, metadata={"adiff_training": self.identity, "step": str(step)})
        os.replace(temporary, self.state)

    def resume(self) -> int:
        """Load a stored state of the same run if there is one and return its step, else 0."""
        if self.state is None or not self.state.exists():
            return 0
        try:
            with safe_open(self.state, "pt") as file:
                metadata = file.metadata() or {}
                tensors = {name: file.get_tensor(name) for name in file.keys()}
        except SafetensorError as error:
            raise InputError(f"{self.state} is no readable training state ({error}); use --restart") from None
        if metadata.get("adiff_training") != self.identity:
            raise InputError(f"{self.state} belongs to a training with other settings; use those, or --restart")
        self._load(tensors)
        self.keep(int(metadata["step"]))
        return int(metadata["step"])

    def finish(self) -> None:
        """Leave the parameters at their average, without gradients."""
        for i, parameter in enumerate(self.parameters.values()):
            parameter.requires_grad_(False)
            parameter.grad = None
            if self.average is not None:
                parameter.data.copy_(self.average[i])
