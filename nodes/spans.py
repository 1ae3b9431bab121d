"""Which tokens of a CONDITIONING are ours, and of which defect.

Nodes between ours and the sampler may put tokens before or behind ours and may drop an entry's extras
(ConditioningConcat keeps those of its first input only). So the tokens are recognised by their values.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

LIMIT = 4096
"""Conditions remembered, the latest."""


class _Tokens(NamedTuple):
    """One image's tokens: digest of the first, how many; of the defect `embedding_fingerprint` and name."""

    first: bytes
    length: int
    fingerprint: str
    name: str


_known: OrderedDict[bytes, _Tokens] = OrderedDict()
"""By the digest of all tokens of one image."""


def remember(tokens: Tensor, fingerprint: str, name: str) -> None:
    """Note tokens e (B, T, D) as ours, each image's; fingerprint, name: of the defect."""
    for row in tokens:
        key = _digest(row)
        _known[key] = _Tokens(_digest(row[0]), row.shape[0], fingerprint, name)
        _known.move_to_end(key)
    while len(_known) > LIMIT:
        _known.popitem(last=False)


def find_span(context: Tensor) -> tuple[int, int] | None:
    """Return [start, stop) of our tokens in a context (B, T, D), adjacent ones joined, or None."""
    start, stop = None, None
    for place, one in _ours(context[0]):
        if stop not in (None, place):
            break
        start, stop = place if start is None else start, place + one.length
    return None if stop is None else (start, stop)


def defects_in(context: Tensor) -> dict[str, str]:
    """Return the defects whose tokens are in a context (B, T, D): fingerprint -> name."""
    return {one.fingerprint: one.name for _, one in _ours(context[0])}


def _ours(row: Tensor) -> Iterator[tuple[int, _Tokens]]:
    """Our tokens among one image's (T, D), and where each begins."""
    lengths: dict[bytes, set[int]] = {}
    for one in _known.values():
        lengths.setdefault(one.first, set()).add(one.length)
    place = 0
    while place < row.shape[0]:
        possible = sorted(lengths.get(_digest(row[place]), ()), reverse=True)
        found = next((one for n in possible if (one := _known.get(_digest(row[place : place + n])))), None)
        if found is not None:
            yield place, found
        place += 1 if found is None else found.length


def _digest(tokens: Tensor) -> bytes:
    return hashlib.sha256(tokens.detach().to("cpu", torch.float32).contiguous().numpy().tobytes()).digest()
