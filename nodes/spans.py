"""Which tokens of a CONDITIONING are ours.

Nodes between ours and the sampler may put tokens before or behind ours and may drop an entry's extras
(ConditioningConcat keeps those of its first input only). So the tokens are recognised by their values.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict

import torch
from torch import Tensor

LIMIT = 4096
"""Conditions remembered, the latest."""
_known: OrderedDict[bytes, tuple[bytes, int]] = OrderedDict()
"""Digest of all tokens of one image -> digest of the first token, number of tokens."""


def remember(tokens: Tensor) -> None:
    """Note tokens e (B, T, D) as ours, each image's."""
    for row in tokens:
        key = _digest(row)
        _known[key] = (_digest(row[0]), row.shape[0])
        _known.move_to_end(key)
    while len(_known) > LIMIT:
        _known.popitem(last=False)


def find_span(context: Tensor) -> tuple[int, int] | None:
    """Return [start, stop) of our tokens in a context (B, T, D), adjacent ones joined, or None."""
    lengths: dict[bytes, set[int]] = {}
    for first, length in _known.values():
        lengths.setdefault(first, set()).add(length)
    start, stop, place, row = None, None, 0, context[0]
    while place < row.shape[0]:
        possible = lengths.get(_digest(row[place]), ())
        length = next((n for n in sorted(possible, reverse=True) if _digest(row[place : place + n]) in _known), None)
        if length is None:
            if stop is not None:
                break
            place += 1
            continue
        start = place if start is None else start
        place = stop = place + length
    return None if stop is None else (start, stop)


def _digest(tokens: Tensor) -> bytes:
    return hashlib.sha256(tokens.detach().to("cpu", torch.float32).contiguous().numpy().tobytes()).digest()
