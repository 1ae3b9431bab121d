"""Gradient checkpointing of a U-Net's blocks (Chen et al. 2016, arXiv 1604.06174): memory for time.

A block keeps what goes into it in the place of all that its inside needs for the way back, and runs once more when its
turn comes there. The gradients are the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

from torch import nn
from torch.utils.checkpoint import checkpoint

Forward = Callable[..., Any]


def forward_of(block: nn.Module) -> Forward:
    """Return what a block does at present."""
    return block.forward


@contextmanager
def checkpointed(
    blocks: Sequence[nn.Module], again: Callable[[], AbstractContextManager],
    forward: Callable[[nn.Module], Forward] = forward_of,
) -> Iterator[None]:  # fmt: skip
    """Let each block keep only what goes into it; afterwards all is as before.

    again(): in force each time a block runs once more, which is after this has ended. forward(block): does what the
    block does, then too.
    """
    before = [vars(block).get("forward") for block in blocks]  # another's patch of one block alone
    for block in blocks:
        block.forward = partial(_kept, forward(block), again)
    try:
        yield
    finally:
        for block, own in zip(blocks, before, strict=True):
            if own is None:
                del block.forward
            else:
                block.forward = own


def _kept(forward: Forward, again: Callable[[], AbstractContextManager], *args, **kwargs) -> Any:
    """Do forward(*args, **kwargs), checkpointed; a host writes on into what it passes as a dict."""
    args = [dict(one) if isinstance(one, dict) else one for one in args]
    kwargs = {name: dict(one) if isinstance(one, dict) else one for name, one in kwargs.items()}
    return checkpoint(
        forward, *args, use_reentrant=False, preserve_rng_state=False, context_fn=lambda: (nullcontext(), again()),
        **kwargs,
    )  # fmt: skip
