"""What a training run is made of, kept in memory to go back to and on disk to go on from."""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from ..errors import InputError
from ..tensor_files import open_safetensors, reason, tensors_of
from .batch import Batch, Gradient
from .processes import is_first, of_first
from .validation import Track, Validation, is_point, measures_at

if TYPE_CHECKING:
    from .loop import Schedule

CLIP_NORM = 1.0  # largest gradient norm, over all parameters
RECENT = 50  # steps over which the reported loss is averaged, and between two states to go back to
SHOTS = "shots"  # of what a run is about: name -> digest of each shot
FUSED = ("cpu", "cuda")  # devices on which AdamW is one kernel


@dataclass(frozen=True)
class Snapshot:
    """A run after `done` steps: its tensors by "kind/name", the curve and best state, and what else it carries."""

    done: int
    tensors: dict[str, Tensor]
    track: Track
    recent: list[float]
    notes: dict[str, float]
    most: int | None
    scale: float


class Run:
    """Parameters, optimiser, average and track of one run, which can be kept and restored."""

    def __init__(
        self, parameters: dict[str, Tensor], schedule: Schedule, rates: Mapping[str, float], notes: dict, scale: float
    ):
        self.parameters, self.schedule, self.notes, self.track = parameters, schedule, notes, Track()
        self.done, self.recent, self.noted, self.broken_off = 0, [], dict(notes), False
        for parameter in parameters.values():
            parameter.requires_grad_(True)
            parameter.grad = None
        groups = [
            {"params": [p for n, p in parameters.items() if rates.get(n, 1.0) == rate], "rate": rate}
            for rate in sorted({rates.get(n, 1.0) for n in parameters})
        ]
        fused = all(p.device.type in FUSED for p in parameters.values())
        self.optimiser = torch.optim.AdamW(
            groups, lr=schedule.lr, betas=(0.9, 0.99), weight_decay=schedule.weight_decay, fused=fused
        )
        self.gradient = Gradient(list(parameters.values()), scale)
        self.average = [p.detach().clone() for p in parameters.values()] if schedule.average else None
        self.kept = self.snapshot()

    @property
    def recent_loss(self) -> float:
        """The loss averaged over the last steps, NaN before the first."""
        return sum(self.recent) / len(self.recent) if self.recent else math.nan

    def shapes(self) -> dict[str, list[int]]:
        """Return the parameters' shapes by name."""
        return {name: list(p.shape) for name, p in self.parameters.items()}

    def step(self, asked: Tensor | Batch) -> bool:
        """Take one step down; returns False, with nothing changed, if the loss or its gradient is not finite."""
        batch = asked if isinstance(asked, Batch) else Batch(1, lambda part: asked[None])
        losses = self.gradient.of(batch)
        value, values = float(losses.mean()), list(self.parameters.values())
        if not math.isfinite(value) or not torch.nn.utils.clip_grad_norm_(values, CLIP_NORM).isfinite():
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
        batch.note(losses)
        self.done += 1
        self.recent = [*self.recent, value][-RECENT:]
        self.noted = dict(self.notes)
        self.broken_off = False
        return True

    def note(self, validation: Validation | None) -> float | None:
        """Bring curve and best state up to the last step, if they are not; returns the measure if one is due."""
        if self.track.noted == self.done:
            return None
        measured = None
        if measures_at(validation, self.done, self.schedule.steps):
            with self.averaged():
                measured = of_first(float(validation.measure()), next(iter(self.parameters.values())).device)
        if measured is not None or is_point(self.done, self.schedule.steps):
            self.track = self.track.add(self.done, self.recent_loss, measured, self._result)
        return measured

    @contextlib.contextmanager
    def averaged(self) -> Iterator[None]:
        """For a while, without gradients, the parameters are their average, if there is one."""
        if self.average is None:
            with torch.no_grad():
                yield
            return
        plain = [p.detach().clone() for p in self.parameters.values()]
        self.broken_off = True
        with torch.no_grad():
            self._put(self.average)
            try:
                yield
            finally:
                self._put(plain)
                self.broken_off = False

    def snapshot(self) -> Snapshot:
        """Copy this state, into main memory: of a GPU's it would take as much as parameters and optimiser do."""
        tensors = {name: tensor.detach().to("cpu", copy=True) for name, tensor in self.tensors().items()}
        return Snapshot(
            self.done, tensors, self.track, list(self.recent), dict(self.noted), self.gradient.most, self.gradient.scale
        )

    def restore(self) -> None:
        """Go to the state that was kept last."""
        to = self.kept
        self.done, self.recent, self.noted, self.broken_off = to.done, list(to.recent), dict(to.notes), False
        self.track, self.gradient.most, self.gradient.scale = to.track, to.most, to.scale
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
                fused = self.optimiser.defaults["fused"]
                device = "cpu" if kind == "step" and not fused else parameter.device  # where AdamW keeps its own
                self.optimiser.state[parameter][kind] = tensor.clone().to(device)

    def finish(self) -> None:
        """Leave the parameters at the best state, else at their average, without gradients; notes as of a whole step.

        Without a measure there is no best state: the last one counts.
        """
        self._take_back_notes()
        for parameter in self.parameters.values():
            parameter.requires_grad_(False)
            parameter.grad = None
        if self.track.best:
            self._put([self.track.state[name] for name in self.parameters])
        elif self.average is not None:
            self._put(self.average)

    def _put(self, tensors: Sequence[Tensor]) -> None:
        for parameter, tensor in zip(self.parameters.values(), tensors, strict=True):
            parameter.data.copy_(tensor)

    def _result(self) -> dict[str, Tensor]:
        """A copy of the parameters as a run that ended here would leave them."""
        values = self.average or [p.detach() for p in self.parameters.values()]
        return {name: value.clone() for name, value in zip(self.parameters, values, strict=True)}

    def _take_back_notes(self) -> None:
        self.notes.clear()
        self.notes.update(self.noted)

    def tensors(self) -> dict[str, Tensor]:
        """What the run is made of, by "kind/name"; the tensors themselves."""
        tensors = {f"parameter/{n}": p.detach() for n, p in self.parameters.items()}
        for i, (name, parameter) in enumerate(self.parameters.items()):
            for kind, value in self.optimiser.state.get(parameter, {}).items():
                tensors[f"{kind}/{name}"] = value
            if self.average is not None:
                tensors[f"average/{name}"] = self.average[i]
        return tensors


def save_state(run: Run, state: Path, identity: str) -> None:
    """Write a run's state, whole or not at all; of several processes the first does."""
    if not is_first():
        return
    tensors = {**run.tensors(), **{f"best/{name}": tensor for name, tensor in run.track.state.items()}}
    told = {
        "done": run.done, "recent": run.recent, "notes": run.noted, "most": run.gradient.most,
        "scale": run.gradient.scale, "track": run.track.told(),
    }  # fmt: skip
    metadata = {"adiff_training": identity, "told": json.dumps(told)}
    held = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    folder = unfinished(state)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        save_file(held, folder / state.name, metadata)
        os.replace(folder / state.name, state)
    except SafetensorError as error:  # of the system's errors it keeps the number
        told = re.search(r"(?:os error|code:) (\d+)", str(error))
        if told is None:
            raise
        raise OSError(int(told[1]), os.strerror(int(told[1])), str(state)) from None
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(state)) from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def unfinished(state: Path) -> Path:
    """Folder where a state is written. What safetensors makes there, of up to 1.6 GB, stays if it is killed."""
    return state.with_name(f".{state.name}.tmp")


def names_in(state: Path) -> set[str]:
    """The defects "product/defect" that a stored state has learned from so far; none if there is no whole one."""
    try:
        with open_safetensors(state, "training state", "use --restart") as file:
            return set(json.loads((file.metadata() or {})["told"])["notes"])
    except (OSError, ValueError, LookupError, TypeError):
        return set()


def resume(run: Run, state: Path | None, identity: str) -> None:
    """Bring a run to the stored state of the same run, if there is one.

    Raises InputError for a damaged file and for the state of another run; a shot that has changed is named.
    """
    if state is not None and is_first():
        shutil.rmtree(unfinished(state), ignore_errors=True)  # of the same training, killed while it wrote
    if state is None or not state.exists():
        return
    with open_safetensors(state, "training state", "use --restart") as file:
        metadata = file.metadata() or {}
        tensors = tensors_of(file)
    stored = metadata.get("adiff_training")
    if stored != identity:
        raise InputError(f"{state} {_difference(stored, identity)}")
    of_run = {name: t for name, t in tensors.items() if not name.startswith("best/")}
    best = {name.removeprefix("best/"): t for name, t in tensors.items() if name not in of_run}
    try:
        told = json.loads(metadata["told"])
        best = {name: t.to(run.parameters[name].device) for name, t in best.items()}
        track = Track.from_told(told.pop("track"), best)
        run.kept = Snapshot(tensors=of_run, track=track, **told)
        run.restore()
    except (LookupError, TypeError, ValueError, AttributeError, RuntimeError, RecursionError) as error:
        raise InputError(f"{state} is a damaged training state ({reason(error)}); use --restart") from None


def _difference(stored: str | None, identity: str) -> str:
    """Say what keeps the run of a stored identity from being this one."""
    try:
        before: Any = json.loads(stored or "")
    except ValueError:
        before = None
    *_, about = json.loads(identity)
    told = before[-1] if isinstance(before, list) and before and isinstance(before[-1], dict) else {}
    then, now = told.get(SHOTS), about.get(SHOTS)
    if isinstance(then, dict) and isinstance(now, dict) and set(then) == set(now):
        changed = sorted(name for name in now if now[name] != then[name])
        if changed:
            return (
                f"goes on only with the same shots, and since it was begun {', '.join(changed)} "
                f"{'has' if len(changed) == 1 else 'have'} changed; put back what was there, or --restart"
            )
    other = sorted(name for name in told.keys() | about.keys() if told.get(name) != about.get(name))
    named = f": another {other[0]}" if told and other and not {"settings", SHOTS} & set(other) else ""
    return f"belongs to a training with other settings or shots{named}; use those, or --restart"
