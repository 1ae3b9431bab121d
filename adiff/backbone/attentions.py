"""What a host shows of its U-Net's attentions to a method that edits whole ones, projections included.

An attention is called by its module's name in the single-file layout, without the U-Net's prefix:
`input_blocks.1.1.transformer_blocks.0.attn1` (self), `...attn2` (cross). So weights fit every host.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from . import Backbone


@dataclass(frozen=True)
class AttentionShape:
    """width: C of the hidden states; context: of what keys and values are made of; inner: heads * dim_head."""

    width: int
    context: int
    inner: int


@dataclass(frozen=True)
class Projections:
    """The parts of one attention: its four projections and, between them, attend(q, k, v) of all its heads."""

    to_q: Callable[[Tensor], Tensor]
    to_k: Callable[[Tensor], Tensor]
    to_v: Callable[[Tensor], Tensor]
    to_out: Callable[[Tensor], Tensor]
    attend: Callable[[Tensor, Tensor, Tensor], Tensor]


class LayerEdit(Protocol):
    """Changes every self- and cross-attention of a U-Net while it runs once, at the three places a host lets it in."""

    def sources(self, name: str, hidden: Tensor, context: Tensor) -> Tensor:
        """What keys and values are made of, (B, T, D): context, which in self-attention is hidden (B, N, C) itself."""

    def project(self, name: str, layer: str, x: Tensor, plain: Tensor) -> Tensor:
        """The result of a projection (`to_q`, `to_k`, `to_v`, `to_out`) of x; plain: as the model gives it."""

    def result(self, name: str, hidden: Tensor) -> Tensor:
        """What the attention returns, (B, N, C), behind its last projection."""


def edited_attention(edit: LayerEdit, name: str, parts: Projections, hidden: Tensor, context: Tensor) -> Tensor:
    """Do attention `name` of hidden (B, N, C) to context (B, T, D) with an edit -> (B, N, C)."""
    source = edit.sources(name, hidden, context)
    q = edit.project(name, "to_q", hidden, parts.to_q(hidden))
    k, v = (edit.project(name, layer, source, getattr(parts, layer)(source)) for layer in ("to_k", "to_v"))
    out = parts.attend(q, k, v)
    return edit.result(name, edit.project(name, "to_out", out, parts.to_out(out)))


class EditableBackbone(Backbone, Protocol):
    """A backbone whose attentions can be edited whole.

    attentions: the shape of each by its name. edited_dtype: what they compute in. room: bytes that the device has for
    a training beside the model itself, None where that is not known.
    """

    attentions: dict[str, AttentionShape]
    edited_dtype: torch.dtype
    room: int | None

    def predict_noise_edited(
        self, z_t: Tensor, t: Tensor, context: Tensor, edit: LayerEdit, checkpoint: bool = False
    ) -> Tensor:
        """As `predict_noise`, every attention, its projections included, changed by `edit`.

        checkpoint: the U-Net's blocks are computed once more on the way back and keep less until then.
        """
