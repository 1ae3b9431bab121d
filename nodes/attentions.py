"""The attentions of ComfyUI's U-Net, routed to an edit (`adiff.backbone.attentions.LayerEdit`) by three patches each.

    attn1, attn2 patch       what goes into the attention is seen; what keys and values are made of may change
    attn1, attn2 replace     queries, keys and values are changed; what the attention gives is seen
    attn1, attn2 output      behind the last projection: its result is changed

Patches of other packs that a MODEL has already go first, and their replacement of an attention is called for ours.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import comfy.model_management
import torch
from comfy.ldm.modules.attention import BasicTransformerBlock, CrossAttention, optimized_attention
from comfy.ldm.modules.diffusionmodules.openaimodel import ResBlock
from torch import Tensor

from ..adiff.backbone.attentions import AttentionShape, LayerEdit
from ..adiff.backbone.checkpointing import checkpointed
from .gradients import TrainableBackbone, normal_forward
from .host import ComfyBackbone, uncompile

SIDES = {"input_blocks": "input", "middle_block": "middle", "output_blocks": "output"}
BLOCKS = ResBlock, BasicTransformerBlock
"""What a U-Net is made of, as gradient checkpointing takes it."""
SPARED = 8
"""Share, as its divisor, of what the way back keeps that is left with it."""
Place = tuple[str, int, int]
"""A transformer as ComfyUI tells it to a patch: side, number of the block, number in the block."""
EditOf = Callable[[dict[str, Any]], LayerEdit | None]
"""The edit for a call of the U-Net, told from what a patch is given beside its tensors; None leaves it as it is."""


def attention_shapes(model) -> dict[str, AttentionShape]:
    """Return the shape of every attention of a MODEL by its name in the single-file layout."""
    found = {}
    for name, module in model.model.diffusion_model.named_modules():
        if isinstance(module, CrossAttention):
            inner, width = module.to_q.weight.shape
            found[name] = AttentionShape(width, module.to_k.weight.shape[1], inner)
    return found


def route_attentions(model, edit_of: EditOf):
    """Return a clone of a MODEL whose every attention the edit changes that is in force; the MODEL stays as it is.

    It computes on one device, as an edit's tensors and what a route keeps lie there: copies that the MODEL has on other
    cards (MultiGPU CFG Split) are left out.
    """
    routed = model.clone()
    uncompile(routed.wrappers)
    routed.remove_additional_models("multigpu")
    names = _names(routed.model.diffusion_model)
    for kind in ("attn1", "attn2"):
        route = _Route(kind, names, edit_of)
        routed.set_model_patch(route.enter, f"{kind}_patch")
        routed.set_model_patch(route.leave, f"{kind}_output_patch")
        there = routed.model_options["transformer_options"].get("patches_replace", {}).get(kind, {})
        for place in names:
            block = place[:2]
            for key in {block, *(known for known in there if known == place)}:  # by transformer: goes first
                routed.set_model_patch_replace(route.between(there.get(key)), kind, *key)
    return routed


class _Route:
    """The three patches of one kind of attention; what the first two see is kept for the next."""

    def __init__(self, kind: str, names: dict[Place, str], edit_of: EditOf):
        self._kind, self._names, self._edit_of = kind, names, edit_of
        self._edit: LayerEdit | None = None

    def enter(self, hidden: Tensor, context: Tensor, value: Tensor, extra: dict) -> tuple[Tensor, Tensor, Tensor]:
        """Before the projections."""
        self._edit = self._edit_of(extra)
        if self._edit is None:
            return hidden, context, value
        self._name = f"{self._names[(*extra['block'][:2], extra['block_index'])]}.{self._kind}"
        source = self._edit.sources(self._name, hidden, context)
        # another pack may make values of something else than keys; that stays so
        self._into = hidden, source, source if value is context else value
        return self._into

    def between(self, before: Callable | None) -> Callable:
        """Between the projections; before: the replacement that another pack has made of this attention."""

        def replaced(q: Tensor, k: Tensor, v: Tensor, extra: dict) -> Tensor:
            if self._edit is not None:
                layers = zip(("to_q", "to_k", "to_v"), self._into, (q, k, v), strict=True)
                q, k, v = (self._edit.project(self._name, layer, x, plain) for layer, x, plain in layers)
            if before is not None:
                self._out = before(q, k, v, extra)
            else:
                precision = extra.get("attn_precision")
                self._out = optimized_attention(
                    q, k, v, extra["n_heads"], attn_precision=precision, transformer_options=extra
                )
            return self._out

        return replaced

    def leave(self, hidden: Tensor, extra: dict) -> Tensor:
        """Behind the last projection."""
        if self._edit is None:
            return hidden
        edit, self._edit = self._edit, None
        found = edit.result(self._name, edit.project(self._name, "to_out", self._out, hidden))
        self._into = self._out = None
        return found


def _names(unet) -> dict[Place, str]:
    """Name in the single-file layout of every transformer, by its place."""
    found = {}
    for name, module in unet.named_modules():
        if isinstance(module, BasicTransformerBlock):
            side, number, *_, last = name.split(".")
            found[SIDES[side], 0 if side == "middle_block" else int(number), int(last)] = name
    return found


def _unedited(extra: dict[str, Any]) -> None:
    """No edit."""


class _Editable:
    """Adds to a backbone of a MODEL that its attentions can be edited whole; see `EditableBackbone`."""

    def __init__(self, model, *given, **named):
        self._edit_of: EditOf = _unedited
        super().__init__(route_attentions(model, lambda extra: self._edit_of(extra)), *given, **named)
        self.attentions = attention_shapes(model)
        self.edited_dtype: torch.dtype = model.model.manual_cast_dtype or model.model.get_dtype()

    @property
    def routed(self):
        """The clone of the MODEL that edits go through, for ComfyUI's own samplers."""
        return self._model

    @contextmanager
    def editing(self, edit_of: EditOf) -> Iterator[None]:
        """Let another edit be in force for a while."""
        before, self._edit_of = self._edit_of, edit_of
        try:
            yield
        finally:
            self._edit_of = before

    @property
    def room(self) -> int | None:
        """Bytes of a GPU beside the MODEL, whatever is on it now: ComfyUI makes place. None on other devices."""
        if self.device.type in ("cpu", "mps"):
            return None
        whole = comfy.model_management.get_total_memory(self.device)
        return int(whole - comfy.model_management.extra_reserved_memory() - self._model.model_size())

    def predict_noise_edited(
        self, z_t: Tensor, t: Tensor, context: Tensor, edit: LayerEdit, checkpoint: bool = False
    ) -> Tensor:
        """eps_theta(z_t, t, context), every attention, its projections included, changed by `edit`."""

        def edited() -> AbstractContextManager[None]:
            return self.editing(lambda extra: edit)

        unet = self._model.model.diffusion_model
        blocks = [module for module in unet.modules() if isinstance(module, BLOCKS)] if checkpoint else []
        with edited(), checkpointed(blocks, edited, normal_forward):
            return self.predict_noise(z_t, t, context)


class EditableComfyBackbone(_Editable, ComfyBackbone):
    """A `ComfyBackbone` for sampling whose attentions can be edited."""


class EditableTrainableBackbone(_Editable, TrainableBackbone):
    """A `TrainableBackbone` whose attentions can be edited; gradients reach what the edit is made of.

    The loss is to be scaled where `edited_dtype` is float16: there is no factor on gradients within the U-Net, as it
    would stay on those of the edit.
    """

    def _needed(self, z_t: Tensor) -> int:
        whole = super()._needed(z_t)
        return whole if self.room is None or whole <= self.room else whole // SPARED

    def _apply(self, x: Tensor, sigma: Tensor, context: Tensor, options: dict) -> Tensor:
        if self._edit_of is _unedited or not torch.is_grad_enabled():
            return super()._apply(x, sigma, context, options)
        return self._differentiable(x, sigma, context, options)
