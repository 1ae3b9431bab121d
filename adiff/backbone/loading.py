"""Reading and writing base models: single files in SD 1.x's key layout, and diffusers folders; offline, no pickles."""

from __future__ import annotations

import json
import os
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ..errors import InputError
from .layout import TEXT, unet_config, unet_names, vae_config, vae_names

METADATA = "adiff_base"  # what the weights do not tell: heads, vae_groups, scaling_factor, native_size
NULL_CONTEXT = "adiff.null_context"  # (1, T, D), for models without a text encoder
EMPTY_PROMPT = [49406] + [49407] * 76  # CLIP's ids of the empty prompt: start, then padding (METHOD.md, 2)
SD1_CONTEXT = 768


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
    if config["cross_attention_dim"] != SD1_CONTEXT:
        raise InputError(
            f"{path.name}: its context is {config['cross_attention_dim']} wide, SD 1.x's is {SD1_CONTEXT}; "
            "give a Stable Diffusion 1.x checkpoint"
        )
    if config["in_channels"] != 4:
        raise InputError(f"{path.name}: its U-Net takes {config['in_channels']} channels, not 4 (an inpainting model?)")
    unet = UNet2DConditionModel.from_config(config)
    vae = AutoencoderKL.from_config(vae_config(shapes, extra))
    _fill(unet, unet_names(unet.state_dict(), config["layers_per_block"]), tensors, path)
    _fill(vae, vae_names(vae.state_dict(), len(vae.config.block_out_channels)), tensors, path)
    null = tensors[NULL_CONTEXT].float() if NULL_CONTEXT in tensors else _empty_prompt(_text_weights(tensors, path))
    return Parts(unet, vae, null)


def load_folder(path: Path) -> Parts:
    """Read a diffusers folder (unet/, vae/, text_encoder/) without reaching for the network."""
    missing = [name for name in ("unet", "vae", "text_encoder") if not (path / name / "config.json").is_file()]
    if missing:
        raise InputError(f"{path} is no diffusers folder of SD 1.x: it has no {', '.join(m + '/config.json' for m in missing)}")
    from transformers import CLIPTextModel

    unet = UNet2DConditionModel.from_pretrained(path / "unet", local_files_only=True, use_safetensors=True)
    vae = AutoencoderKL.from_pretrained(path / "vae", local_files_only=True, use_safetensors=True)
    if unet.config.cross_attention_dim != SD1_CONTEXT:
        raise InputError(f"{path}: its context is {unet.config.cross_attention_dim} wide, SD 1.x's is {SD1_CONTEXT}")
    encoder = CLIPTextModel.from_pretrained(path / "text_encoder", local_files_only=True, use_safetensors=True)
    return Parts(unet, vae, _run_text_encoder(encoder))


def save_single_file(path: Path, parts: Parts, extra: dict[str, Any], tensors: dict[str, Tensor] | None = None) -> None:
    """Write a model as one fp16 file in SD 1.x's key layout, atomically.

    extra: what the weights do not tell (heads, vae_groups, native_size, ...), kept as JSON metadata; tensors: more to
    keep under their own names.
    """
    names = unet_names(parts.unet.state_dict(), parts.unet.config.layers_per_block)
    stored = {names[n]: t for n, t in parts.unet.state_dict().items()}
    vae_table = vae_names(parts.vae.state_dict(), len(parts.vae.config.block_out_channels))
    for name, tensor in parts.vae.state_dict().items():
        key = vae_table[name]
        as_convolution = ".mid.attn_1." in key and key.endswith("weight") and tensor.ndim == 2
        stored[key] = tensor[..., None, None] if as_convolution else tensor
    stored |= {NULL_CONTEXT: parts.null_context, **(tensors or {})}
    extra = {**extra, "scaling_factor": parts.vae.config.scaling_factor}
    temporary = path.with_name(path.name + ".tmp")
    save_file({k: t.half().contiguous() for k, t in stored.items()}, temporary, metadata={METADATA: json.dumps(extra)})
    os.replace(temporary, path)


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return all tensors and our metadata of a .safetensors or .ckpt file."""
    if path.suffix == ".ckpt":
        try:
            loaded = torch.load(path, map_location="cpu", weights_only=True)
        except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
            reason = str(error).splitlines()[0]
            raise InputError(f"{path.name} holds more than weights or is damaged ({reason}); convert it to .safetensors") from None
        weights = loaded.get("state_dict", loaded)
        return {k: v for k, v in weights.items() if isinstance(v, Tensor)}, {}
    if path.suffix != ".safetensors":
        raise InputError(f"{path.name}: a base model is a .safetensors or .ckpt file or a diffusers folder")
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            return {key: file.get_tensor(key) for key in file.keys()}, json.loads(metadata.get(METADATA, "{}"))
    except SafetensorError as error:
        raise InputError(f"{path.name} is damaged or no safetensors file ({error})") from None


def _fill(module: torch.nn.Module, names: dict[str, str], tensors: dict[str, Tensor], path: Path) -> None:
    """Load a module's weights under their single-file names; a missing or misshapen one is an error."""
    wanted, state = module.state_dict(), {}
    for name, key in names.items():
        if key not in tensors:
            raise InputError(f"{path.name}: the weight {key} is missing; the file is incomplete or of another family")
        tensor = tensors[key]
        if tensor.numel() != wanted[name].numel():
            raise InputError(f"{path.name}: {key} is {tuple(tensor.shape)}, expected {tuple(wanted[name].shape)}")
        state[name] = tensor.reshape(wanted[name].shape).float()
    module.load_state_dict(state)


def _text_weights(tensors: dict[str, Tensor], path: Path) -> dict[str, Tensor]:
    weights = {k.removeprefix(TEXT): v.float() for k, v in tensors.items() if k.startswith(TEXT)}
    weights.pop("text_model.embeddings.position_ids", None)  # older files carry this constant
    if not weights:
        raise InputError(f"{path.name} has no text encoder ({TEXT}...), so its unconditional context is not known")
    return weights


def _empty_prompt(weights: dict[str, Tensor]) -> Tensor:
    """Return the text encoder's output for the empty prompt, (1, 77, 768)."""
    from transformers import CLIPTextConfig, CLIPTextModel

    layers = 1 + max(int(k.split(".")[3]) for k in weights if k.startswith("text_model.encoder.layers."))
    config = CLIPTextConfig(
        vocab_size=49408, hidden_size=768, intermediate_size=3072, num_hidden_layers=layers, num_attention_heads=12,
        max_position_embeddings=77, hidden_act="quick_gelu", projection_dim=768,
    )
    encoder = CLIPTextModel(config)
    wanted = encoder.state_dict()
    # transformers 5 dropped the "text_model." level of the names
    renamed = weights if any(k.startswith("text_model.") for k in wanted) else {
        k.removeprefix("text_model."): v for k, v in weights.items()
    }
    missing = sorted(set(wanted) - set(renamed) - {"text_model.embeddings.position_ids", "embeddings.position_ids"})
    if missing:
        raise InputError(f"the text encoder is incomplete: {missing[0]} and {len(missing) - 1} more weights are missing")
    encoder.load_state_dict({k: v for k, v in renamed.items() if k in wanted}, strict=False)
    return _run_text_encoder(encoder)


@torch.no_grad()
def _run_text_encoder(encoder: torch.nn.Module) -> Tensor:
    return encoder.eval()(input_ids=torch.tensor([EMPTY_PROMPT])).last_hidden_state.float()
