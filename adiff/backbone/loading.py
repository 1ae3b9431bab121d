"""Reading and writing base models: single files in SD 1.x's key layout, and diffusers folders; offline, no pickles."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from safetensors.torch import save
from torch import Tensor

from ..errors import InputError
from ..storage import write_whole
from ..tensor_files import BROKEN, reason
from .layout import METADATA, NULL_CONTEXT, SD15_SCALE, UNET, VAE, unet_config, unet_names, vae_config, vae_names
from .recognition import SD1_WIDTH, check_file, check_folder, read_object
from .text import context_of, has_text_encoder, read_text_encoder
from .weights import Weights, fill, open_weights

if TYPE_CHECKING:
    from transformers import CLIPTextModel

WHOLE_NUMBERS = {"heads": 64, "vae_groups": 1024, "native_size": 4096}  # of our metadata, with the most of each
MOST_SCALE = 1e4  # of latents; SD 1.5's is 0.18
SD15_CELLS, MOST_CELLS = 64, 512  # of a side that a U-Net was trained at
NOT_WEIGHTS = (f"{VAE}loss.", f"{VAE}model_ema.")  # what the autoencoder's own training leaves in some files
OLD_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
"""diffusers' names in the autoencoder of the published SD 1.5 folder, and those of today."""


@dataclass(frozen=True)
class Parts:
    """What a backbone is made of: the two networks in diffusers' form and the unconditional context (1, T, D)."""

    unet: UNet2DConditionModel
    vae: AutoencoderKL
    null_context: Tensor


def load_single_file(path: Path) -> Parts:
    """Read a checkpoint in SD 1.x's key layout. Raises InputError for any other file, saying what it is or lacks."""
    with open_weights(path) as weights:
        check_file(weights.shapes, weights.metadata, path)
        extra = _read_extra(weights)
        try:
            of_unet, of_vae = unet_config(weights.shapes, extra), vae_config(weights.shapes, extra)
        except InputError as error:
            raise InputError(f"{weights.name}: {error}") from None
        unet, vae = _build(UNet2DConditionModel, of_unet, path), _build(AutoencoderKL, of_vae, path)
        _check_latents(unet, vae, path)
        unet_table = unet_names(unet.state_dict(), of_unet["layers_per_block"])
        vae_table = vae_names(vae.state_dict(), len(of_vae["block_out_channels"]))
        _check_all_used(weights, {*unet_table.values(), *vae_table.values()})
        null = _stored_null(weights) if NULL_CONTEXT in weights.shapes else None
        fill(unet, unet_table, weights)
        fill(vae, vae_table, weights)
        return Parts(unet, vae, context_of(read_text_encoder(weights)) if null is None else null)


def load_folder(path: Path) -> Parts:
    """Read a diffusers folder (unet/, vae/, text_encoder/). Raises InputError for any other, saying what it is."""
    check_folder(path)
    unet, vae = _read_part(UNet2DConditionModel, path / "unet"), _read_part(AutoencoderKL, path / "vae")
    _check_latents(unet, vae, path)
    return Parts(unet, vae, context_of(_of_folder(path)))


def load_text_encoder(path: Path) -> CLIPTextModel | None:
    """Read the text encoder of a single file or a diffusers folder; None for a file without one, as the shipped one."""
    if path.is_dir():
        check_folder(path)
        return _of_folder(path)
    with open_weights(path) as weights:
        return read_text_encoder(weights) if has_text_encoder(weights) else None


def _of_folder(path: Path) -> CLIPTextModel:
    config = read_object(path / "text_encoder" / "config.json")
    with _open_part(path / "text_encoder", "model") as weights:
        return read_text_encoder(weights, "", config.get("hidden_act", "quick_gelu"))


def save_single_file(path: Path, parts: Parts, extra: dict[str, Any], tensors: dict[str, Tensor] | None = None) -> None:
    """Write a model as one fp16 file in SD 1.x's key layout, atomically.

    extra: what the weights do not tell (heads, vae_groups, native_size, ...), kept as JSON metadata; tensors: more to
    keep under their own names. Raises ValueError for weights that are not finite in fp16.
    """
    names = unet_names(parts.unet.state_dict(), parts.unet.config.layers_per_block)
    stored = {names[n]: t for n, t in parts.unet.state_dict().items()}
    vae_table = vae_names(parts.vae.state_dict(), len(parts.vae.config.block_out_channels))
    for name, tensor in parts.vae.state_dict().items():
        key = vae_table[name]
        as_convolution = ".mid.attn_1." in key and key.endswith("weight") and tensor.ndim == 2
        stored[key] = tensor[..., None, None] if as_convolution else tensor
    stored |= {NULL_CONTEXT: parts.null_context, **(tensors or {})}
    halves = {key: tensor.detach().to("cpu", torch.float16).contiguous() for key, tensor in stored.items()}
    lost = [key for key, tensor in halves.items() if not tensor.isfinite().all()]
    if lost:
        raise ValueError(f"weights beyond float16 or not finite: {', '.join(lost[:3])}; the training diverged")
    metadata = {METADATA: json.dumps({**extra, "scaling_factor": parts.vae.config.scaling_factor})}
    write_whole(path, lambda temporary: temporary.write_bytes(save(halves, metadata=metadata)))


def _read_extra(weights: Weights) -> dict[str, Any]:
    """Our own metadata of a file, {} of other programs' files; InputError for what cannot be."""
    text = weights.metadata.get(METADATA, "{}")
    try:
        extra = json.loads(text)
    except (ValueError, RecursionError):
        extra = None
    if not isinstance(extra, dict):
        raise InputError(f"{weights.name}: its metadata {METADATA} is no JSON object: {text[:40]!r}")
    for name, most in WHOLE_NUMBERS.items():
        value = extra.get(name, 1)
        if type(value) is not int or not 1 <= value <= most:
            raise InputError(f"{weights.name}: its metadata has {name} {str(value)[:40]}; expected 1 to {most}")
    _check_scale(extra.get("scaling_factor", 1.0), f"{weights.name}: its metadata")
    return extra


def _check_scale(scale: Any, where: str) -> None:
    if type(scale) not in (int, float) or not 0 < scale < MOST_SCALE:
        raise InputError(f"{where} has another scaling_factor than a positive number")


def _build(kind: type, config: Mapping[str, Any], path: Path) -> torch.nn.Module:
    """A network of diffusers' without weights; InputError for a configuration that makes none."""
    try:
        with torch.device("meta"):  # no first weights are drawn only to be replaced
            return kind.from_config(dict(config))
    except BROKEN as error:
        raise InputError(f"{path} makes no {kind.__name__} of SD 1.x ({reason(error)})") from None


def _check_latents(unet: torch.nn.Module, vae: torch.nn.Module, path: Path) -> None:
    """Raise InputError if U-Net and autoencoder do not speak of the same latents."""
    channels = (unet.config.in_channels, unet.config.out_channels, vae.config.latent_channels)
    if len(set(channels)) > 1:
        raise InputError(
            f"{path.name}: its U-Net takes {channels[0]} channels and gives {channels[1]}, its autoencoder's latents "
            f"have {channels[2]}; they do not belong together"
        )


def _check_all_used(weights: Weights, used: set[str]) -> None:
    """Raise InputError if a network's weight is left over: the file is of another architecture."""
    names = (name for name in weights.shapes if name.startswith((UNET, VAE)) and not name.startswith(NOT_WEIGHTS))
    over = sorted(name for name in names if name not in used)
    if over:
        raise InputError(
            f"{weights.name}: SD 1.x has no place for the weight {over[0]}"
            + (f" and {len(over) - 1} others" if len(over) > 1 else "")
            + "; the file is of another family"
        )


def _read_part(kind: type, folder: Path) -> torch.nn.Module:
    """One network of a diffusers folder, every one of its weights from the file."""
    network = _build(kind, _config_of(folder), folder)
    with _open_part(folder, "diffusion_pytorch_model") as weights:
        renamed = {_of_today(name): name for name in weights.shapes}
        own = network.state_dict()
        over = sorted(name for today, name in renamed.items() if today not in own)
        if over:
            raise InputError(f"{weights.name} has a weight {over[0]} that config.json knows no place for")
        fill(network, {name: renamed.get(name, name) for name in own}, weights)
    return network


def _config_of(folder: Path) -> dict[str, Any]:
    """The configuration of a part; InputError for a size or a scale that is none.

    The side in cells that a U-Net was trained at may be given twice, for rows and columns, or be left out: SD 1.5's.
    """
    config = read_object(folder / "config.json")
    if folder.name == "vae":
        _check_scale(config.get("scaling_factor", SD15_SCALE), f"{folder.name}/config.json")
        return config
    size = config.get("sample_size")
    size = SD15_CELLS if size is None else size
    sides = size if isinstance(size, list) else [size]
    if not sides or any(type(side) is not int or not 1 <= side <= MOST_CELLS for side in sides) or len(set(sides)) > 1:
        raise InputError(
            f"{folder.name}/config.json has sample_size {str(size)[:40]}; expected a square's side, 1 to {MOST_CELLS}"
        )
    return {**config, "sample_size": sides[0]}


def _of_today(name: str) -> str:
    stem, _, leaf = name.rpartition(".")
    head, _, last = stem.rpartition(".")
    return f"{head}.{OLD_ATTENTION[last]}.{leaf}" if "attentions" in head and last in OLD_ATTENTION else name


def _open_part(folder: Path, stem: str) -> AbstractContextManager[Weights]:
    """Open the weights of a part: float32 if it is there, else float16; pickled ones (.bin) if there are no others."""
    pickled = "pytorch_model" if stem == "model" else stem  # transformers and diffusers differ
    for name in (f"{stem}.safetensors", f"{stem}.fp16.safetensors", f"{pickled}.bin", f"{pickled}.fp16.bin"):
        if (folder / name).is_file():
            return open_weights(folder / name, f"{folder.name}/{name}")
    raise InputError(f"{folder} cannot be read: it needs its weights as {stem}.safetensors, in one file")


def _stored_null(weights: Weights) -> Tensor:
    shape = weights.shapes[NULL_CONTEXT]
    null = weights.read(NULL_CONTEXT).float() if len(shape) == 3 and shape[::2] == (1, SD1_WIDTH) else None
    if null is None or not null.numel() or not null.isfinite().all():
        raise InputError(f"{weights.name}: {NULL_CONTEXT} is {shape}, expected finite (1, tokens, {SD1_WIDTH})")
    return null
