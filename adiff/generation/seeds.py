"""Randomness of a run: every generator is a function of the run's seed and of what it is for, nothing else."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import torch


def derived_seed(seed: int | Sequence[int], *purpose: str | int) -> int:
    """Return a 63-bit seed for one purpose, the same in every process and on every machine."""
    own = tuple(int(part) for part in seed) if isinstance(seed, Sequence) else int(seed)  # numpy's print otherwise
    text = repr((own, *purpose))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def generator_for(seed: int | Sequence[int], *purpose: str | int) -> torch.Generator:
    """Return a torch generator on the CPU for one purpose."""
    return torch.Generator().manual_seed(derived_seed(seed, *purpose))


def rng_for(seed: int | Sequence[int], *purpose: str | int) -> np.random.Generator:
    """Return a numpy generator for one purpose."""
    return np.random.default_rng(derived_seed(seed, *purpose))
