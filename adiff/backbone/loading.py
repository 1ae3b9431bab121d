"""Reading and writing base models: single files in SD 1.x's key layout, and diffusers folders; offline, no pickles."""

from __future__ import annotations

import json
import pickle
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from ..errors import InputError
from ..storage import write_whole
from .layout import TEXT, UNET, VAE, unet_config, unet_names, vae_config, vae_names

METADATA = "adiff_base"  # what the weights do not tell: heads, vae_groups, scaling_factor, native_size
NULL_CONTEXT = "adiff.null_context"  # (1, T, D), for models without a text encoder
READ = (UNET, VAE, TEXT, NULL_CONTEXT)  # a training's checkpoint also holds averages and optimiser states
NOT_WEIGHTS = (f"{VAE}loss.", f"{VAE}model_ema.")  # what the autoencoder's own training leaves in some files
EMPTY_PROMPT = [49406] + [49407] * 76  # CLIP's ids of the empty prompt: start, then padding (METHOD.md, 2)
SD1_CONTEXT, SD1_CHANNELS = 768, 4


@dataclass(frozen=True)
class Parts:
    """What a backbone is made of: the two networks in diffusers' form and the unconditional context (1, T, D)."""

    unet: UNet2DConditionModel
    vae: AutoencoderKL
    null_context: Tensor


def load_single_file(path: Path) -> Parts:
    """Read a checkpoint in SD 1.x's key layout. Raises InputError for any other file, saying what is missing."""
    tensors, extra = _read(path)
    shapes = {key: tuple(value.shape) for key, value in tensors.items()}
    config = unet_config(shapes, extra)
    _check_family(config, path.name)
    of_vae = vae_config(shapes, extra)
    with torch.device("meta"):  # no first weights are drawn only to be replaced
        unet, vae = UNet2DConditionModel.from_config(config), AutoencoderKL.from_config(of_vae)
    unet_table = unet_names(unet.state_dict(), config["layers_per_block"])
    vae_table = vae_names(vae.state_dict(), len(of_vae["block_out_channels"]))
    _check_all_used(tensors, {*unet_table.values(), *vae_table.values()}, path)
    _fill(unet, unet_table, tensors, path)
    _fill(vae, vae_table, tensors, path)
    if NULL_CONTEXT in tensors:
        return Parts(unet, vae, _checked_null(tensors[NULL_CONTEXT].float(), path))
    return Parts(unet, vae, _empty_prompt(tensors, path))


def load_folder(path: Path) -> Parts:
    """Read a diffusers folder (unet/, vae/, text_encoder/) without reaching for the network."""
    missing = [name for name in ("unet", "vae", "text_encoder") if not (path / name / "config.json").is_file()]
    if missing:
        wanted = ", ".join(f"{name}/config.json" for name in missing)
        raise InputError(f"{path} is no diffusers folder of SD 1.x: it has no {wanted}")
    from transformers import CLIPTextModel

    def part(kind: type, name: str) -> torch.nn.Module:
        try:
            return kind.from_pretrained(path / name, local_files_only=True, use_safetensors=True).float()
        except (OSError, ValueError, RuntimeError, SafetensorError) as error:
            reason = str(error).strip().splitlines()[0]
            raise InputError(
                f"{path / name} cannot be read ({reason}); it needs config.json and .safetensors weights"
            ) from None

    unet = part(UNet2DConditionModel, "unet")
    _check_family(unet.config, str(path))
    return Parts(unet, part(AutoencoderKL, "vae"), _run_text_encoder(part(CLIPTextModel, "text_encoder")))


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


def _check_family(config: Mapping[str, Any], name: str) -> None:
    """Raise InputError for a U-Net that is not SD 1.x's text-to-image one."""
    width, channels = config["cross_attention_dim"], config["in_channels"]
    if width != SD1_CONTEXT:
        raise InputError(
            f"{name}: its context is {width} wide, SD 1.x's is {SD1_CONTEXT}; give a Stable Diffusion 1.x checkpoint"
        )
    if channels != SD1_CHANNELS:
        raise InputError(f"{name}: its U-Net takes {channels} channels, not {SD1_CHANNELS} (an inpainting model?)")


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the tensors that make up the model, and our metadata, of a .safetensors or .ckpt file."""
    suffix = path.suffix.lower()
    if suffix == ".ckpt":
        return _read_pickled(path), {}
    if suffix != ".safetensors":
        raise InputError(f"{path.name}: a base model is a .safetensors or .ckpt file or a diffusers folder")
    try:
        with safe_open(path, "pt") as file:
            extra = json.loads((file.metadata() or {}).get(METADATA, "{}"))
            return {key: file.get_tensor(key) for key in file.keys() if key.startswith(READ)}, extra
    except (SafetensorError, json.JSONDecodeError) as error:
        raise InputError(f"{path.name} is damaged or no safetensors file ({error})") from None


def _read_pickled(path: Path) -> dict[str, Tensor]:
    """Read a .ckpt by torch's loader for weights alone: nothing else in it is built, nothing is run."""
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    # what a damaged pickle raises depends on where it is damaged
    except (
        pickle.UnpicklingError,
        RuntimeError,
        EOFError,
        LookupError,
        ValueError,
        TypeError,
        AttributeError,
    ) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(
            f"{path.name} holds more than weights or is damaged ({reason}); convert it to .safetensors"
        ) from None
    weights = loaded.get("state_dict", loaded) if isinstance(loaded, Mapping) else None
    if not isinstance(weights, Mapping):
        raise InputError(f"{path.name} holds no table of weights; give a checkpoint of the SD 1.x family")
    return {k: v for k, v in weights.items() if isinstance(v, Tensor) and str(k).startswith(READ)}


def _check_all_used(tensors: Mapping[str, Tensor], used: set[str], path: Path) -> None:
    """Raise InputError if a network's weight is left over: the file is of another architecture."""
    over = sorted(k for k in tensors if k.startswith((UNET, VAE)) and k not in used and not k.startswith(NOT_WEIGHTS))
    if over:
        raise InputError(
            f"{path.name}: SD 1.x has no place for the weight {over[0]}"
            + (f" and {len(over) - 1} others" if len(over) > 1 else "")
            + "; the file is of another family"
        )


def _fill(module: torch.nn.Module, names: Mapping[str, str], tensors: Mapping[str, Tensor], path: Path) -> None:
    """Load a module's weights under their single-file names; a missing or misshapen one is an error."""
    wanted, state = module.state_dict(), {}
    for name, key in names.items():
        if key not in tensors:
            raise InputError(f"{path.name}: the weight {key} is missing; the file is incomplete or of another family")
        tensor, shape = tensors[key], tuple(wanted[name].shape)
        if _core(tensor.shape) != _core(shape):
            raise InputError(f"{path.name}: {key} is {tuple(tensor.shape)}, expected {shape}")
        state[name] = tensor.reshape(shape).float()
    module.load_state_dict(state, assign=True)


def _core(shape: tuple[int, ...]) -> tuple[int, ...]:
    """A weight's shape, a 1 x 1 convolution's and a linear layer's being the same."""
    return tuple(shape[:2]) if len(shape) == 4 and tuple(shape[2:]) == (1, 1) else tuple(shape)


def _checked_null(null: Tensor, path: Path) -> Tensor:
    if null.ndim != 3 or null.shape[0] != 1 or null.shape[2] != SD1_CONTEXT or not null.isfinite().all():
        raise InputError(
            f"{path.name}: {NULL_CONTEXT} is {tuple(null.shape)}, expected finite (1, tokens, {SD1_CONTEXT})"
        )
    return null


def _empty_prompt(tensors: Mapping[str, Tensor], path: Path) -> Tensor:
    """Return the file's text encoder's output for the empty prompt, (1, 77, 768)."""
    from transformers import CLIPTextConfig, CLIPTextModel

    # some files, and transformers from version 5, leave out the "text_model." level of the names
    weights = {k.removeprefix(TEXT).removeprefix("text_model."): k for k in tensors if k.startswith(TEXT)}
    if not weights:
        raise InputError(f"{path.name} has no text encoder ({TEXT}...), so its unconditional context is not known")
    layers = [int(m[1]) for name in weights if (m := re.match(r"encoder\.layers\.(\d+)\.", name))]
    config = CLIPTextConfig(
        vocab_size=49408, hidden_size=768, intermediate_size=3072, num_hidden_layers=1 + max(layers, default=0),
        num_attention_heads=12, max_position_embeddings=77, hidden_act="quick_gelu", projection_dim=768,
    )  # fmt: skip
    encoder = CLIPTextModel(config)
    short = {name: name.removeprefix("text_model.") for name in encoder.state_dict()}
    _fill(encoder, {n: weights.get(s, f"{TEXT}text_model.{s}") for n, s in short.items()}, tensors, path)
    return _run_text_encoder(encoder)


@torch.no_grad()
def _run_text_encoder(encoder: torch.nn.Module) -> Tensor:
    return encoder.eval()(input_ids=torch.tensor([EMPTY_PROMPT])).last_hidden_state.float()
