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
_lengths: OrderedDict[bytes, int] = OrderedDict()


def remember(tokens: Tensor) -> None:
    """Note tokens e (B, T, D) as ours, each image's."""
    for row in tokens:
        key = _digest(row[0])
        _lengths[key] = row.shape[0]
        _lengths.move_to_end(key)
    while len(_lengths) > LIMIT:
        _lengths.popitem(last=False)


def find_span(context: Tensor) -> tuple[int, int] | None:
    """Return [start, stop) of our tokens in a context (B, T, D), adjacent ones joined, or None."""
    start = stop = None
    place = 0
    while place < context.shape[1]:
        length = _lengths.get(_digest(context[0, place]))
        if length is None:
            if stop is not None:
                break
            place += 1
            continue
        start = place if start is None else start
        place = stop = min(place + length, context.shape[1])
    return None if stop is None else (start, stop)


def _digest(token: Tensor) -> bytes:
    return hashlib.sha256(token.detach().to("cpu", torch.float32).contiguous().numpy().tobytes()).digest()
