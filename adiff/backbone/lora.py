"""LoRAs merged into a U-Net's weights when it is loaded: W' = W + s (alpha / r) up down (Hu et al. 2021, sec. 4.1).

| symbol | meaning | shape |
|---|---|---|
| W | weight of a linear layer or a convolution | (out, in) or (out, in, h, w) |
| down, up | the LoRA's two factors; r is its rank | (r, in[, h, w]), (out, r[, 1, 1]) |
| alpha | its own scale, r where the file has none | scalar |
| s | the weight that the user gives it | scalar |

| program | names of down (up and alpha alike) |
|---|---|
| kohya, LCM | lora_unet_<name with _ for .>.lora_down.weight; the name diffusers' or the single file's |
| diffusers, peft | unet.<name>.lora_A.weight, or .lora.down.weight, or .processor.to_q_lora.down.weight of old ones |

A library's embeddings stand behind the text encoder, so that a LoRA's part for the text encoder has nothing to act on:
it is left out, which is logged.
"""

from __future__ import annotations

import json
import logging
import math
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from ..errors import InputError
from .layout import UNET, unet_names
from .weights import Weights, core, open_weights

log = logging.getLogger("adiff")

ROLES = {
    "lora_down.weight": "down", "lora_A.weight": "down", "lora_A.default.weight": "down", "lora.down.weight": "down",
    "lora_up.weight": "up", "lora_B.weight": "up", "lora_B.default.weight": "up", "lora.up.weight": "up",
    "alpha": "alpha",
}  # fmt: skip
"""What a key's ending says of its tensor."""
OLD_NAME = re.compile(r"\.processor\.(to_q|to_k|to_v|to_out)_lora\.(down|up)\.weight$")
PREFIXES = ("unet.", "base_model.model.", UNET, "diffusion_model.")
TEXT_ENCODER = ("lora_te_", "lora_te1_", "text_encoder.")
OF_SDXL = ("lora_te2_", "text_encoder_2.")
RELATIVES = {
    r"\.lokr_": "a LoKr", r"\.hada_": "a LoHa", r"\.oft_": "an OFT", r"\.(dora_scale|lora_magnitude)": "a DoRA",
    r"\.lora_mid\.": "a LoRA with Tucker decomposition", r"\.diff(_b)?$": "a file of whole differences",
}  # fmt: skip
"""What is told by name instead of merged."""
Modules = dict[str, dict[str, str]]
"""diffusers' name of a weight -> role (down, up, alpha) -> key in the file."""


def merge_lora(unet: nn.Module, path: Path, weight: float = 1.0) -> None:
    """Add a LoRA to the weights of a U-Net of diffusers', in float32; a failure leaves it half merged.

    weight: s. Raises FileNotFoundError, and InputError for a weight that is not finite, and for a file that is no LoRA,
    is for another model, or holds a key that is not known: no part of it is left out silently.
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no LoRA at {path}")
    if path.suffix.lower() != ".safetensors":
        raise InputError(f"{path}: a LoRA is a .safetensors file; convert it")
    if not math.isfinite(weight):
        raise InputError(f"the weight of the LoRA {path.name} is {weight}; expected a finite number, for instance 0.8")
    parameters = dict(unet.named_parameters())
    with open_weights(path) as weights, torch.no_grad():
        alphas = _peft_alphas(weights)
        for name, keys in _modules(weights, _places(parameters, unet.config.layers_per_block)).items():
            parameter = parameters[name]
            difference = _difference(weights, name, keys, parameter.shape, alphas)
            # a new tensor: the old one may be mapped from the checkpoint's file
            parameter.data = parameter.data + weight * difference.to(parameter.device)


def _places(names: Iterable[str], layers: int) -> dict[str, str]:
    """Every name that a LoRA may call a weight by, with _ for its dots -> diffusers' name of it."""
    places = {}
    for name, single in unet_names([name for name in names if name.endswith(".weight")], layers).items():
        for known in (name, single.removeprefix(UNET)):
            places[known.removesuffix(".weight").replace(".", "_")] = name
    # before attention's output had dropout it was no list
    return places | {place[:-2]: name for place, name in places.items() if place.endswith("_to_out_0")}


def _modules(weights: Weights, places: Mapping[str, str]) -> Modules:
    """The file's keys, sorted by the weight that they change; InputError for those that are not known."""
    modules: Modules = {}
    left_out = 0
    for key in weights.shapes:
        if key.startswith(OF_SDXL):
            raise InputError(f"{weights.name} is a LoRA for SDXL ({key[:100]}); give one for SD 1.x")
        if key.startswith(TEXT_ENCODER):
            left_out += 1
            continue
        place, role = _parse(key, weights.name)
        if place not in places:
            raise InputError(
                f"{weights.name} is for another model: SD 1.x's U-Net has no place for {key[:100]}; "
                "give a LoRA for SD 1.x"
            )
        keys = modules.setdefault(places[place], {})
        if role in keys:
            raise InputError(f"{weights.name}: {keys[role]} and {key} change the same weight; it is damaged")
        keys[role] = key
    if not modules:
        what = "for the text encoder only, which nothing here is read through" if left_out else "empty, no LoRA"
        raise InputError(f"{weights.name} is {what}; give a LoRA for the U-Net of SD 1.x")
    if left_out:
        told = "%s: its %d tensors for the text encoder are left out, as defects are learned behind it"
        log.warning(told, weights.name, left_out)
    return modules


def _parse(key: str, file: str) -> tuple[str, str]:
    """(name of the weight that a key changes, with _ for its dots; role of its tensor)."""
    old = OLD_NAME.search(key)
    found = [(f"{key[: old.start()]}.{old[1]}", old[2])] if old else [
        (key.removesuffix(f".{ending}"), role) for ending, role in ROLES.items() if key.endswith(f".{ending}")
    ]  # fmt: skip
    if not found:
        kind = next((what for pattern, what in RELATIVES.items() if re.search(pattern, key)), "no LoRA known here")
        raise InputError(f"{file} is {kind} ({key[:100]}); give a plain LoRA for SD 1.x")
    name, role = found[0]
    for prefix in PREFIXES:
        name = name.removeprefix(prefix)
    return name.replace(".", "_").removeprefix("lora_unet_"), role


def _peft_alphas(weights: Weights) -> dict[str, float]:
    """Scales that peft keeps in the metadata instead of tensors: of all modules (""), and of some by their names."""
    try:
        config = json.loads(weights.metadata.get("lora_adapter_metadata", "{}"))
        general = config.get("unet.lora_alpha")
        found = {} if general is None else {"": general}
        alphas = {str(k): float(v) for k, v in {**found, **(config.get("unet.alpha_pattern") or {})}.items()}
    except (ValueError, TypeError, AttributeError, OverflowError, RecursionError):
        raise InputError(f"{weights.name}: its metadata lora_adapter_metadata is damaged") from None
    if config.get("unet.use_rslora"):
        raise InputError(f"{weights.name} is a rank-stabilised LoRA, which is not merged; give a plain LoRA")
    return alphas


def _difference(
    weights: Weights, name: str, keys: Mapping[str, str], shape: tuple[int, ...], alphas: Mapping[str, float]
) -> Tensor:
    """(alpha / r) up down for a weight of `shape`; InputError if the factors do not make that."""
    lacking = [role for role in ("down", "up") if role not in keys]
    if lacking:
        raise InputError(f"{weights.name}: its part for {name} has no {lacking[0]} factor; it is incomplete")
    down, up = (weights.read(keys[role]).float() for role in ("down", "up"))
    rank = down.shape[0] if down.ndim else 0
    if not rank or core(up.shape) != (shape[0], rank) or core(down.shape) != (rank, *core(shape)[1:]):
        raise InputError(
            f"{weights.name} is for another model: down {tuple(down.shape)} and up {tuple(up.shape)} make no "
            f"change of {name}, which is {tuple(shape)}"
        )
    alpha = _alpha(weights, name.removesuffix(".weight"), keys, alphas)
    difference = (rank if alpha is None else alpha) / rank * (up.flatten(1) @ down.flatten(1)).reshape(shape)
    if not difference.isfinite().all():
        raise InputError(f"{weights.name}: its part for {name} is not finite; it is damaged")
    return difference


def _alpha(weights: Weights, place: str, keys: Mapping[str, str], alphas: Mapping[str, float]) -> float | None:
    """alpha of one weight, None if the file has none."""
    if "alpha" in keys:
        alpha = weights.read(keys["alpha"])
        if alpha.numel() != 1:
            raise InputError(f"{weights.name}: {keys['alpha']} is {tuple(alpha.shape)}, expected one number")
        return float(alpha)
    own = (alpha for name, alpha in alphas.items() if name and (place == name or place.endswith(f".{name}")))
    return next(own, alphas.get(""))
