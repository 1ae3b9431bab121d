"""The single-file key layout of SD 1.x (CompVis) and diffusers' names for the same weights, as one table both ways.

The architecture is read from the keys and shapes; what they do not tell (heads, GroupNorm groups, latent scale, native
size) is SD 1.5's unless the file's own metadata says otherwise.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from ..errors import InputError

UNET, VAE, TEXT = "model.diffusion_model.", "first_stage_model.", "cond_stage_model.transformer."
METADATA = "adiff_base"
"""Key of a file's JSON metadata that tells what its weights do not: heads, vae_groups, scaling_factor, native_size."""
NULL_CONTEXT = "adiff.null_context"
"""Name of the unconditional context (1, T, D) in a file without a text encoder."""
SD15_HEADS, SD15_GROUPS, SD15_SCALE, SD15_SIZE = 8, 32, 0.18215, 512

_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
_UNET_TOP = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}
_VAE_ATTENTION = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}


def unet_names(names: Iterable[str], layers: int) -> dict[str, str]:
    """Map diffusers' U-Net names to single-file names; layers: resnets per down block."""
    names = list(names)
    with_attention = {int(m[1]) for n in names if (m := re.match(r"up_blocks\.(\d+)\.attentions", n))}

    def renamed(name: str) -> str:
        stem, leaf = name.rsplit(".", 1)
        if stem in _UNET_TOP:
            return f"{_UNET_TOP[stem]}.{leaf}"
        if match := re.match(r"(down|up)_blocks\.(\d+)\.(resnets|attentions)\.(\d+)\.(.+)", stem):
            side, block, kind, place, rest = match[1], int(match[2]), match[3], int(match[4]), match[5]
            number = (layers + 1) * block + place + (1 if side == "down" else 0)
            head = f"{'input' if side == 'down' else 'output'}_blocks.{number}"
            return f"{head}.0.{_RESNET[rest]}.{leaf}" if kind == "resnets" else f"{head}.1.{rest}.{leaf}"
        if match := re.match(r"down_blocks\.(\d+)\.downsamplers\.0\.conv", stem):
            return f"input_blocks.{(layers + 1) * (int(match[1]) + 1)}.0.op.{leaf}"
        if match := re.match(r"up_blocks\.(\d+)\.upsamplers\.0\.conv", stem):
            block = int(match[1])
            return f"output_blocks.{(layers + 1) * block + layers}.{2 if block in with_attention else 1}.conv.{leaf}"
        if match := re.match(r"mid_block\.resnets\.(\d+)\.(.+)", stem):
            return f"middle_block.{2 * int(match[1])}.{_RESNET[match[2]]}.{leaf}"
        if match := re.match(r"mid_block\.attentions\.0\.(.+)", stem):
            return f"middle_block.1.{match[1]}.{leaf}"
        raise InputError(f"the U-Net weight {name} has no place in the single-file layout of SD 1.x")

    return {name: UNET + renamed(name) for name in names}


def vae_names(names: Iterable[str], levels: int) -> dict[str, str]:
    """Map diffusers' VAE names to single-file names; levels: number of resolutions."""

    def renamed(name: str) -> str:
        name = name.replace("conv_norm_out", "norm_out").replace("conv_shortcut", "nin_shortcut")
        if match := re.match(r"(encoder|decoder)\.mid_block\.attentions\.0\.(.+)\.(weight|bias)$", name):
            return f"{match[1]}.mid.attn_1.{_VAE_ATTENTION[match[2]]}.{match[3]}"
        if match := re.match(r"(encoder|decoder)\.mid_block\.resnets\.(\d+)\.(.+)", name):
            return f"{match[1]}.mid.block_{int(match[2]) + 1}.{match[3]}"
        if match := re.match(r"(encoder|decoder)\.(?:down|up)_blocks\.(\d+)\.(.+)", name):
            coder, level, rest = match[1], int(match[2]), match[3]
            side, level = ("down", level) if coder == "encoder" else ("up", levels - 1 - level)
            rest = rest.replace("resnets.", "block.").replace("downsamplers.0", "downsample")
            return f"{coder}.{side}.{level}.{rest.replace('upsamplers.0', 'upsample')}"
        return name

    return {name: VAE + renamed(name) for name in names}


def _shape(shapes: Mapping[str, tuple[int, ...]], key: str, axes: int = 4) -> tuple[int, ...]:
    """The shape of a weight that is read for its sizes; InputError if it is not there or has not so many axes."""
    if key not in shapes:
        raise InputError(f"not a checkpoint of the SD 1.x family: it holds no weight named {key}")
    if len(shapes[key]) != axes:
        raise InputError(f"not a checkpoint of the SD 1.x family: {key} is {tuple(shapes[key])}, expected {axes} axes")
    return tuple(shapes[key])


def unet_config(shapes: Mapping[str, tuple[int, ...]], extra: Mapping[str, Any]) -> dict[str, Any]:
    """Return diffusers' U-Net configuration for a single file's weight shapes; extra: the file's own metadata."""
    first = _shape(shapes, f"{UNET}input_blocks.0.0.weight")
    channels, attention, layers = [], [], []
    number = 1
    while f"{UNET}input_blocks.{number}.0.in_layers.2.weight" in shapes:
        channels.append(_shape(shapes, f"{UNET}input_blocks.{number}.0.in_layers.2.weight")[0])
        attention.append(f"{UNET}input_blocks.{number}.1.norm.weight" in shapes)
        layers.append(0)
        while f"{UNET}input_blocks.{number}.0.in_layers.2.weight" in shapes:
            layers[-1] += 1
            number += 1
        number += 1  # the downsampler between two levels
    if not channels or len(set(layers)) > 1:
        raise InputError(f"the U-Net's levels have {layers} blocks; SD 1.x has the same number, at least one, in each")
    keys = [k for k in shapes if k.startswith(UNET) and k.endswith("attn2.to_k.weight")]
    if not keys:
        raise InputError("the U-Net has no cross-attention; expected a text-conditioned model of the SD 1.x family")
    return {
        "sample_size": extra.get("native_size", SD15_SIZE) // 2 ** max(_levels(shapes) - 1, 0),
        "in_channels": first[1],
        "out_channels": _shape(shapes, f"{UNET}out.2.weight")[0],
        "block_out_channels": channels,
        "layers_per_block": layers[0],
        "down_block_types": ["CrossAttnDownBlock2D" if a else "DownBlock2D" for a in attention],
        "up_block_types": ["CrossAttnUpBlock2D" if a else "UpBlock2D" for a in reversed(attention)],
        "attention_head_dim": extra.get("heads", SD15_HEADS),  # diffusers' name for the number of heads
        "cross_attention_dim": _shape(shapes, keys[0], axes=2)[1],
    }


def _levels(shapes: Mapping[str, tuple[int, ...]]) -> int:
    return len({m[1] for k in shapes if (m := re.match(rf"{re.escape(VAE)}encoder\.down\.(\d+)\.block", k))})


def vae_config(shapes: Mapping[str, tuple[int, ...]], extra: Mapping[str, Any]) -> dict[str, Any]:
    """Return diffusers' VAE configuration for a single file's weight shapes; extra: the file's own metadata."""
    levels = _levels(shapes)
    if not levels:
        raise InputError("the file holds no KL autoencoder (first_stage_model.encoder...); give a full checkpoint")
    layers = len({m[1] for k in shapes if (m := re.match(rf"{re.escape(VAE)}encoder\.down\.0\.block\.(\d+)\.", k))})
    return {
        "in_channels": 3,
        "out_channels": 3,
        "latent_channels": _shape(shapes, f"{VAE}post_quant_conv.weight")[0],
        "block_out_channels": [_shape(shapes, f"{VAE}encoder.down.{i}.block.0.conv1.weight")[0] for i in range(levels)],
        "layers_per_block": layers,
        "norm_num_groups": extra.get("vae_groups", SD15_GROUPS),
        "down_block_types": ["DownEncoderBlock2D"] * levels,
        "up_block_types": ["UpDecoderBlock2D"] * levels,
        "sample_size": extra.get("native_size", SD15_SIZE),
        "scaling_factor": extra.get("scaling_factor", SD15_SCALE),
    }
