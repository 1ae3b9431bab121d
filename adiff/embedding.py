"""The learned tokens and the condition they form together (METHOD 2, Eq. 5 and 6).

| symbol | meaning | shape |
|---|---|---|
| e_a | anomaly embedding: the appearance of one defect type | (k, D) |
| e_s | spatial embedding of a mask, E(m) | (B, n, D) |
| e_m | mask embedding of one defect type | (k', D) |
| e | condition {e_a, e_s}: tokens of the cross-attention context | (B, k + n, D) |
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import torch
from torch import Tensor

from .backbone import Backbone, is_small
from .errors import InputError

K_ANOMALY = 8
"""k, tokens of an anomaly embedding (AnomalyDiffusion, main text, implementation details)."""
N_SPATIAL = 4
"""n, tokens of a spatial embedding (same place)."""
K_MASK = 4
"""k', tokens of a mask embedding (main text; the supplement says 2)."""
OFF = 0.1
"""Standard deviation of what sets the first tokens off from those of the empty prompt, whose own is about 1."""


@dataclass(frozen=True)
class Condition:
    """A cross-attention context and the place of our tokens in it.

    context: (B, T, D).
    span: [start, stop) of the tokens e = {e_a, e_s} among the T; the logits form of re-weighting (Eq. 8, release)
        weights these and no others.
    """

    context: Tensor
    span: tuple[int, int]


def random_embedding(tokens: int, dim: int, generator: torch.Generator) -> Tensor:
    """Start of an inversion: Gaussian tokens, no word of any vocabulary.

    Their standard deviation, 1, is about that of a CLIP text encoder's output, next to which they are put.
    Returns (tokens, dim) float32 on the CPU.
    """
    if tokens < 1 or dim < 1:
        raise InputError(f"an embedding of {tokens} tokens of width {dim} was asked for; both must be at least 1")
    return torch.randn(tokens, dim, generator=generator)


def first_embedding(base: Backbone, tokens: int, generator: torch.Generator) -> Tensor:
    """Start of an inversion on a base model: the first tokens of its empty prompt, each a little off.

    SD 1.x has learned to rest most of every cross-attention, nine tenths and more, on the token that begins each text.
    Without one the learned tokens would take its place, and would be all but overlooked next to a prompt, which brings
    its own. A small base has no text encoder and no such token; there, tokens of `random_embedding`.
    Returns (tokens, dim) float32 on the CPU.
    """
    noise = random_embedding(tokens, base.context_dim, generator)
    if is_small(base):
        return noise
    empty = base.null_context[0].float().cpu()
    return empty[torch.arange(tokens).clamp(max=len(empty) - 1)] + OFF * noise


def embedding_fingerprint(embedding: Tensor) -> str:
    """Return sha256 over an embedding's float32 values, hex."""
    return hashlib.sha256(embedding.float().cpu().contiguous().numpy().tobytes()).hexdigest()


def join_condition(e_a: Tensor, e_s: Tensor | None = None, text: Tensor | None = None) -> Condition:
    """Join the tokens to one condition, e = {e_a, e_s} (Eq. 6), appended to an ordinary prompt's context if given.

    e_a: (k, D), or (B, k, D) where the images of a batch carry different defects; a mask embedding e_m likewise.
    e_s: (B, n, D) or None. text: (B, T, D), the text encoder's output, or None.
    A batch of one is repeated to the others' B. Device and dtype follow `text` if given, e_a otherwise; gradients
    flow to all three.
    Raises InputError when the widths D or the batches B do not agree.
    """
    named = {"text": text, "e_a": e_a[None] if e_a.ndim == 2 else e_a, "e_s": e_s}
    parts = {name: part for name, part in named.items() if part is not None}
    _check_parts(parts)
    batch = max(part.shape[0] for part in parts.values())
    receiver = e_a if text is None else text
    context = torch.cat([part.to(receiver).expand(batch, -1, -1) for part in parts.values()], dim=1)
    start = 0 if text is None else text.shape[1]
    return Condition(context, (start, context.shape[1]))


def _check_parts(parts: dict[str, Tensor]) -> None:
    shapes = ", ".join(f"{name} {tuple(part.shape)}" for name, part in parts.items())
    if any(part.ndim != 3 for part in parts.values()):
        raise InputError(f"tokens must be (batch, tokens, width), e_a may leave out the batch; got {shapes}")
    if len({part.shape[2] for part in parts.values()}) > 1:
        raise InputError(f"token widths differ: {shapes}; use a defect and an encoder trained for this base model")
    if len({part.shape[0] for part in parts.values()} - {1}) > 1:
        raise InputError(f"batches differ: {shapes}; each must be 1 or the number of images")
