"""Options that several commands share, and the choices they offer.

The choices repeat names of the library's (a test compares them), because the help must not import torch.
"""

from __future__ import annotations

import math
from enum import Enum
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from ..errors import InputError

of_masks, of_model, of_training, of_dual, of_painting, of_filter, of_work = (
    partial(typer.Option, rich_help_panel=panel)
    for panel in ("Masks", "Base model", "Training", "Dual model", "Painting", "Which pairs are kept", "Work")
)
"""Options in panels of a command's help of their own; what is in none of them comes first."""


class What(str, Enum):
    """What to learn of a defect."""

    defects = "defects"
    masks = "masks"
    both = "both"


class Timesteps(str, Enum):
    """How noise levels are drawn and weighted (`training.LAWS`)."""

    uniform = "uniform"
    min_snr = "min-snr"
    shifted = "shifted"


class Normalisation(str, Enum):
    """What a sample's masked loss is divided by (`training.NORMALISATIONS`)."""

    area = "area"
    release = "release"


class Reweighting(str, Enum):
    """Modes of adaptive attention re-weighting (`reweighting.MODES`)."""

    off = "off"
    uniform = "uniform"
    balanced = "balanced"
    paper = "paper"
    release = "release"


class Distance(str, Enum):
    """Distances that the re-weighting can go by (`reweighting.DISTANCES`)."""

    latent = "latent"
    rgb = "rgb"
    vae = "vae"
    preview = "preview"


class Blending(str, Enum):
    """Noise of the blended outside (`blending.KINDS`)."""

    fixed = "fixed"
    fresh = "fresh"


class Precision(str, Enum):
    """Number formats of a base model (`backbone.precision.PRECISIONS`)."""

    auto = "auto"
    float32 = "float32"
    bfloat16 = "bfloat16"
    float16 = "float16"


VaryShots = Annotated[
    bool,
    of_masks("--vary-shots", help="Masks are the shots' own, mirrored, stretched, turned, scaled and moved, "
             "instead of learned ones."),
]  # fmt: skip
MaskDenoise = Annotated[
    float,
    of_masks("--mask-denoise", min=0.05, max=1.0, help="How far a shot's mask, mirrored, turned and shifted, is made "
             "anew: 1 samples masks from noise, 0.6 keeps to the shots' shapes in half the time."),
]  # fmt: skip
MaskSteps = Annotated[
    int | None,
    of_masks("--mask-steps", min=1, max=1000, help="Sampling steps of a learned mask.  [dim]default: 12 on the demo "
             "model, 25 on one of full size[/dim]"),
]  # fmt: skip
MaskGuidance = Annotated[
    float | None,
    of_masks("--mask-guidance", metavar="SCALE", min=0.0, help="Guidance of learned masks; more makes larger ones.  "
             "[dim]default: 2 on the demo model, 5 on one of full size[/dim]"),
]  # fmt: skip
MaskThreshold = Annotated[
    float,
    of_masks("--mask-threshold", metavar="LEVEL", min=0.05, max=0.95, help="Above which level, of 0 to 1, a sampled "
             "pixel belongs to a learned mask; more makes thinner ones."),
]  # fmt: skip
MASK_SAMPLING = ("mask_denoise", "mask_steps", "mask_guidance", "mask_threshold")
"""What tells how learned masks are sampled (`generation.MaskSampling`)."""


def _check_seed(seed: int) -> int:
    """A bound of the option's own would show its twenty digits in every help."""
    if seed >= 2**64:
        raise typer.BadParameter(f"{seed} is too large; give a number below 2^64")
    return seed


Seed = Annotated[int, of_work("--seed", min=0, callback=_check_seed, help="Everything random follows from it.")]
Base = Annotated[
    str,
    of_model("--base", metavar="BASE", help="Base model: [b]demo[/b], an SD 1.x checkpoint or a diffusers folder."),
]
PrecisionName = Annotated[
    Precision,
    of_model("--precision", help="Number format of the base model; [b]auto[/b]: bfloat16 where the device computes "
             "in it, else float16 with CUDA, else float32."),
]  # fmt: skip
Loras = Annotated[
    list[str] | None,
    of_model("--lora", metavar="FILE[:WEIGHT]", help="LoRA to merge into the base model, once for each."),
]
Resume = Annotated[
    bool, of_work("--resume/--restart", help="Go on with what an interrupted run has left, or begin anew.")
]
Data = Annotated[
    Path,
    typer.Argument(
        metavar="DATA", help="Photos with masks: MVTec layout, images/ and masks/, or 7.png and 7_mask.png."
    ),
]
Shots = Annotated[
    int | None,
    typer.Option("--shots", min=1, help="Learn from the N lowest ids.  [dim]default: the lowest third[/dim]"),
]
LibraryFile = Annotated[Path, typer.Argument(metavar="LIB", help="Library, as `adiff train` writes it.")]
DefectName = Annotated[str, typer.Argument(metavar="PRODUCT/DEFECT", help="Which of the library's defects.")]
EncoderFile = Annotated[
    Path | None,
    of_model("--encoder", metavar="ENC", help="Spatial encoder.  [dim]default: beside LIB, or the demo's[/dim]"),
]


def parse_loras(given: list[str] | None) -> list[tuple[Path, float]]:
    """FILE[:WEIGHT] of each --lora, without a weight 1; InputError for a weight that is not finite.

    The last colon counts, and only before a number: C:\\lcm.safetensors is a file.
    """
    found = []
    for text in given or ():
        file, _, last = text.rpartition(":")
        try:
            weight = float(last)
        except ValueError:
            file, weight = text, 1.0
        if not file or not math.isfinite(weight):
            raise InputError(f"--lora {text} is no FILE[:WEIGHT]; for instance lcm.safetensors:0.8")
        found.append((Path(file), weight))
    return found
