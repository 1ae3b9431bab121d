"""The shots that an inversion is given: known again by their digests, called by their names, their losses followed."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

import numpy as np
from torch import Tensor

from ..errors import InputError
from ..library import Key

ShotArrays = tuple[np.ndarray, np.ndarray]
"""A shot's image (H, W, 3) uint8 and mask (H, W) bool."""


def check_shots(shots: Mapping[Key, Sequence], what: str) -> None:
    """Raise InputError unless every defect has something to learn from; what: "shots" or "masks"."""
    empty = ["/".join(key) for key, of_defect in shots.items() if not len(of_defect)]
    if not shots or empty:
        raise InputError(
            f"no {what} to learn from{': ' + ', '.join(empty) if empty else ''}; give at least one a defect"
        )


def shot_names(shots: Mapping[Key, Sequence], names: Mapping[Key, Sequence[str]] | None) -> dict[Key, list[str]]:
    """Return what each shot is called: its name if there are names, else its number."""
    if names is not None:
        return {key: list(names[key]) for key in shots}
    return {key: [f"shot {i + 1}" for i in range(len(of_defect))] for key, of_defect in shots.items()}


def shot_digests(shots: Mapping[Key, Sequence], names: Mapping[Key, Sequence[str]] | None = None) -> dict[str, str]:
    """Return name -> sha256 of each shot's arrays, by which a run that goes on knows its data."""
    called = shot_names(shots, names)
    return {
        f"{'/'.join(key)}: {name}": digest_of(shot)
        for key in sorted(shots)
        for name, shot in zip(called[key], shots[key], strict=True)
    }


def digest_of(shot: ShotArrays | np.ndarray) -> str:
    """Return the sha256 of a shot's arrays, hex."""
    digest = hashlib.sha256()
    for array in shot if isinstance(shot, tuple) else (shot,):
        digest.update(repr((array.shape, array.dtype.str)).encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


class RecentLosses:
    """The loss of each defect, averaged over its recent steps; `notes` is what a stored state keeps of it."""

    DECAY = 0.9

    def __init__(self, keys: Sequence[Key]):
        self.keys, self.notes = keys, {}

    def note(self, owners: Sequence[int], per_sample: Tensor) -> None:
        """Take in the losses (B,) of samples; owners[i]: the number of sample i's defect."""
        for owner, value in zip(owners, per_sample.detach().tolist(), strict=True):
            name = "/".join(self.keys[owner])
            self.notes[name] = self.DECAY * self.notes.get(name, value) + (1 - self.DECAY) * value

    def by_key(self) -> dict[Key, float]:
        """Return defect -> loss, of those that have one."""
        return {key: self.notes["/".join(key)] for key in self.keys if "/".join(key) in self.notes}
