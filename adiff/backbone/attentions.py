"""What a host shows of its U-Net's attentions to a method that edits whole ones, projections included.

An attention is called by its module's name in the single-file layout, without the U-Net's prefix:
`input_blocks.1.1.transformer_blocks.0.attn1` (self), `...attn2` (cross). So weights fit every host.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

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
    """Takes the place of every self- and cross-attention of a U-Net while it runs once."""

    def __call__(self, name: str, parts: Projections, hidden: Tensor, context: Tensor) -> Tensor:
        """Attention `name` of hidden (B, N, C) to context (B, T, D), hidden itself in self-attention -> (B, N, C)."""


class EditableBackbone(Backbone, Protocol):
    """A backbone whose attentions can be edited whole; attentions: the shape of each by its name."""

    attentions: dict[str, AttentionShape]

    def predict_noise_edited(self, z_t: Tensor, t: Tensor, context: Tensor, edit: LayerEdit) -> Tensor:
        """As `predict_noise`, every attention, its projections included, done by `edit`."""
