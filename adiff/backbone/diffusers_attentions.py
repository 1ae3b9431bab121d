"""The attentions of diffusers' U-Net, routed to an edit for as long as one is in force."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import Attention
from torch import Tensor

from ..reweighting import fused_attention
from .attentions import AttentionShape, LayerEdit, Projections, edited_attention
from .layout import UNET, unet_names

QUERY = ".to_q.weight"


class RoutedAttentions:
    """The attentions of one U-Net by their single-file names; shapes: of each."""

    def __init__(self, unet: UNet2DConditionModel):
        names = unet_names(unet.state_dict(), unet.config.layers_per_block)
        self._modules: dict[str, Attention] = {
            names[name + QUERY].removeprefix(UNET).removesuffix(QUERY): module
            for name, module in unet.named_modules()
            if isinstance(module, Attention)
        }
        self.shapes = {name: _shape(module) for name, module in self._modules.items()}

    @contextmanager
    def edited(self, edit: LayerEdit) -> Iterator[None]:
        """Let `edit` change every attention; at the end the processors are those from before."""
        before = {name: module.processor for name, module in self._modules.items()}
        try:
            for name, module in self._modules.items():
                module.set_processor(_Edited(name, edit))
            yield
        finally:
            for name, module in self._modules.items():
                module.set_processor(before[name])


class _Edited:
    """A processor that hands its attention's parts to an edit."""

    def __init__(self, name: str, edit: LayerEdit):
        self.name, self.edit = name, edit

    def __call__(self, attn: Attention, hidden_states: Tensor, encoder_hidden_states: Tensor | None = None, **_):
        context = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        parts = Projections(
            attn.to_q, attn.to_k, attn.to_v,
            to_out=lambda out: attn.to_out[1](attn.to_out[0](out)),
            attend=partial(fused_attention, heads=attn.heads),
        )  # fmt: skip
        return edited_attention(self.edit, self.name, parts, hidden_states, context)


def _shape(module: Attention) -> AttentionShape:
    inner, width = module.to_q.weight.shape
    return AttentionShape(width, module.to_k.weight.shape[1], inner)
