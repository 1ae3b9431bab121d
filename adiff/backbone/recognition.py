"""What a file or a folder given as base model is, told from its keys, shapes and metadata; no weight is read.

| sign | tells |
|---|---|
| width of the cross-attention's keys | 768 SD 1.x, 1024 SD 2.x, 1280 LDM with BERT or SDXL's refiner, 2048 SDXL |
| channels into the U-Net | 4 text to image, 8 edits by instruction, 9 inpainting |
| names of the weights | LoRA, embedding, ControlNet, autoencoder or text encoder alone, transformers (SD 3, Flux) |
| a tensor `v_pred`, `modelspec.prediction_type`, `parameterization` in the .yaml beside, the folder's scheduler | v |

That a model of SD 1.x's width predicts v, not noise, does not show in its weights: without one of these signs it is
taken for one that predicts noise.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..storage import read_json_object
from .layout import UNET

Shapes = Mapping[str, tuple[int, ...]]

EXPECTED = "expected a Stable Diffusion 1.x checkpoint or its diffusers folder"
SD1_WIDTH, SD1_CHANNELS = 768, 4
WIDTHS = {1024: "Stable Diffusion 2.x", 1280: "latent diffusion with BERT, or SDXL's refiner", 2048: "SDXL"}
CHANNELS = {8: "a model that edits by instruction (InstructPix2Pix)", 9: "an inpainting model"}
INPAINTING = (
    ": it wants mask and masked image at every step, where the method blends (Eq. 1) and hands over neither; give the "
    "checkpoint it was made from"
)
V_PREDICTION = "a model that predicts v, while losses and sampling here are those of noise (epsilon)"
ZERO_SNR = "a model of a schedule that ends in noise alone (rescale_betas_zero_snr), which SD 1.x's does not"
NOISE = "epsilon"
V_NAMES = ("v", "v_prediction", "v-prediction", "velocity")
YAML_V = re.compile(r"^\s*parameterization:\s*[\"']?v[\"']?\s*$", re.MULTILINE)
MORE_INPUTS = ("addition_embed_type", "class_embed_type", "encoder_hid_dim_type")
"""Settings of a diffusers U-Net that asks for more than a context."""
OWN_KINDS = {"library": "a defect library of adiff's", "spatial_encoder": "a spatial encoder of adiff's"}


def _embedding(shapes: Shapes) -> str:
    if {"clip_g", "clip_l"} & set(shapes):
        return "a textual inversion (an embedding) for SDXL"
    return "a textual inversion (an embedding), which `adiff library import` reads"


SIGNS: tuple[tuple[str, str | Callable[[Shapes], str]], ...] = (
    (r"\.(lora_up|lora_down|lora_A|lora_B|lora\.up|lora\.down)\.|_lora\.(up|down)\.weight$",
     "a LoRA, to be given with --lora beside the model it is for"),
    (r"\.(lokr_w|hada_w|oft_)", "a LoKr, LoHa or OFT file, no whole model"),
    (r"^(control_model|input_hint_block|zero_convs|controlnet_\w+)\.", "a ControlNet"),
    (r"^(ip_adapter|image_proj)\.", "an IP-Adapter"),
    (r"motion_modules\.", "an AnimateDiff motion module"),
    (r"\.time_stack\.", "Stable Video Diffusion"),
    (r"^conditioner\.embedders\.1\.", "SDXL"),
    (r"^conditioner\.embedders\.", "SDXL's refiner"),
    (r"(^|\.)joint_blocks\.|^joint_transformer_blocks\.", "Stable Diffusion 3"),
    (r"(^|\.)double_blocks\.|^single_transformer_blocks\.", "Flux or another transformer of its kind"),
    (r"^(emb_params|clip_g|clip_l)$", _embedding),
    (r"^down_blocks\.\d+\.(resnets|attentions)\.",
     "a U-Net alone in diffusers' layout; give the folder that holds unet/, vae/ and text_encoder/"),
)  # fmt: skip
"""Names that only one kind of file has, looked for in this order."""
ALONE = (
    (r"^(first_stage_model\.)?(encoder|decoder)\.(down|up|mid|conv_in)", "an autoencoder (VAE) alone"),
    (r"^(cond_stage_model|text_model|text_projection|token_embedding|vision_model|transformer\.(text_model|resblocks))"
     r"(\.|$)", "a text encoder (CLIP) alone"),
    (r"^(encoder\.block\.|shared\.weight)", "a text encoder (T5) alone"),
)  # fmt: skip
"""Names of parts of a whole model, which tell something where there is no U-Net."""


def check_file(shapes: Shapes, metadata: Mapping[str, str], path: Path) -> None:
    """Raise InputError, saying what it is, for a file that is no text-to-image checkpoint of SD 1.x.

    shapes: of all its tensors. What is not known to be something else passes; what it lacks shows when it is read.
    """
    found = _by_own_kind(metadata) or _by_names(shapes) or _by_unet(shapes) or _by_prediction(shapes, metadata, path)
    if found:
        raise InputError(f"{path.name} is {found}; {EXPECTED}")


def _by_own_kind(metadata: Mapping[str, str]) -> str | None:
    if "adiff_training" in metadata:
        return "the state of an interrupted training of adiff's"
    kind = metadata.get("kind") if "adiff_format" in metadata else None
    return None if kind is None else OWN_KINDS.get(kind, f"a file of adiff's of kind {kind[:40]!r}")


def _by_names(shapes: Shapes) -> str | None:
    for pattern, what in SIGNS:
        if _any(shapes, pattern):
            return what if isinstance(what, str) else what(shapes)
    if any(name.startswith(UNET) for name in shapes):
        return None
    for pattern, what in ALONE:
        if _any(shapes, pattern):
            return what
    if len(shapes) == 1 and len(next(iter(shapes.values()))) in (1, 2):
        return _embedding(shapes)
    first = f"{', '.join(sorted(shapes)[:2])[:80]!r}, ..." if shapes else "no tensor"
    return f"no model known here (it holds {first})"


def _any(shapes: Shapes, pattern: str) -> bool:
    return any(map(re.compile(pattern).search, shapes))


def _by_unet(shapes: Shapes) -> str | None:
    widths = {shape[1] for name, shape in shapes.items()
              if name.startswith(UNET) and name.endswith("attn2.to_k.weight") and len(shape) == 2}  # fmt: skip
    first = shapes.get(f"{UNET}input_blocks.0.0.weight", ())
    channels = first[1] if len(first) == 4 else SD1_CHANNELS
    return _describe_unet(widths.pop(), channels) if len(widths) == 1 else None


def _describe_unet(width: Any, channels: Any) -> str | None:
    """What a U-Net is by its context's width and its input's channels; None for SD 1.x's text-to-image one."""
    if width != SD1_WIDTH:
        what = WIDTHS.get(width) if isinstance(width, int) else None
        return f"{what or 'of no known family'} (its context is {width} wide, SD 1.x's {SD1_WIDTH})"
    if channels != SD1_CHANNELS:
        what = CHANNELS.get(channels) if isinstance(channels, int) else None
        why = INPAINTING if channels == 9 else ""
        return f"{what or 'no text-to-image model'} (its U-Net takes {channels} channels, not {SD1_CHANNELS}){why}"
    return None


def _by_prediction(shapes: Shapes, metadata: Mapping[str, str], path: Path) -> str | None:
    told = metadata.get("modelspec.prediction_type", "").lower()
    return V_PREDICTION if "v_pred" in shapes or told in V_NAMES or _yaml_says_v(path.with_suffix(".yaml")) else None


def _yaml_says_v(path: Path) -> bool:
    """Whether the configuration that A1111's web UI wants beside such a checkpoint asks for v."""
    if not path.is_file():
        return False
    with open(path, "rb") as file:
        return YAML_V.search(file.read(2**16).decode("utf-8", "replace")) is not None


def check_folder(path: Path) -> None:
    """Raise InputError, saying what it is, for a folder that is no SD 1.x text-to-image model of diffusers'."""
    unet = read_object(path / "unet" / "config.json")
    found = _by_config(unet) if unet else _without_unet(path)
    scheduler = read_object(path / "scheduler" / "scheduler_config.json")
    predicts = scheduler.get("prediction_type", NOISE)
    if found is None and predicts != NOISE:
        found = V_PREDICTION if predicts in V_NAMES else f"a model that predicts {str(predicts)[:40]!r}, not noise"
    if found is None and scheduler.get("rescale_betas_zero_snr"):
        found = ZERO_SNR
    if found:
        raise InputError(f"{path} is {found}; {EXPECTED}")
    missing = [name for name in ("unet", "vae", "text_encoder") if not (path / name / "config.json").is_file()]
    if missing:
        wanted = ", ".join(f"{name}/config.json" for name in missing)
        raise InputError(f"{path} is no diffusers folder of SD 1.x: it has no {wanted}")


def _by_config(unet: Mapping[str, Any]) -> str | None:
    kind = str(unet.get("_class_name", "UNet2DConditionModel"))[:60]
    if kind != "UNet2DConditionModel":
        return f"a diffusers folder with a U-Net of kind {kind}"
    found = _describe_unet(unet.get("cross_attention_dim", 1280), unet.get("in_channels", 4))  # diffusers' defaults
    more = [name for name in MORE_INPUTS if unet.get(name) is not None]
    if found is None and more:
        return f"a model that wants more than a context ({more[0]} {str(unet[more[0]])[:40]})"
    if found is None and unet.get("time_cond_proj_dim") is not None:
        return "an LCM that takes its guidance as an input; give the model it is for and LCM's LoRA with --lora"
    return found


def _without_unet(path: Path) -> str | None:
    pipeline = str(read_object(path / "model_index.json").get("_class_name", ""))[:60]
    if pipeline and pipeline != "StableDiffusionPipeline":
        return f"a diffusers folder of {pipeline}"
    if (path / "config.json").is_file():
        part = str(read_object(path / "config.json").get("_class_name", "of unknown kind"))[:60]
        return f"one part of a model ({part}); give the folder above it"
    return None


def read_object(path: Path) -> dict[str, Any]:
    """The object of a JSON file, empty if there is none; InputError if the file is something else."""
    return read_json_object(path) if path.is_file() else {}
