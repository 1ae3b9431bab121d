"""The seam between the methods and the hosts: a frozen model of the SD 1.x family.

Training and generation are written against `Backbone`; `load_backbone` fulfils it with diffusers.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from ..devices import best_device
from ..reweighting import AttentionEdit
from .precision import dtype_of

DEMO = "demo"
"""Name of the model shipped with the package."""
SMALL = 256
"""Native size in pixels below which a base model is small, as the shipped one is."""


class Backbone(Protocol):
    """A frozen latent diffusion model that predicts noise under a cross-attention context.

    name: for messages and records. fingerprint: sha256 over the cross-attention's key and value weights. weights: over
    a sample of all of them, LoRAs included, by which a training that goes on knows its model; "" where that is told by
    other means. context_dim: D. latent_downscale: pixels per latent cell. native_size: side in pixels that the model
    was trained at. null_context: (1, T, D), the unconditional context. alphas_cumprod: (1000,) float32. dtype: what it
    computes in; what it gives is float32.
    """

    name: str
    fingerprint: str
    weights: str
    context_dim: int
    latent_downscale: int
    native_size: int
    null_context: Tensor
    alphas_cumprod: Tensor
    device: torch.device
    dtype: torch.dtype

    def encode(self, images: Tensor) -> Tensor:
        """Images (B, 3, H, W) in [-1, 1] -> scaled latents (B, 4, h, w), the posterior's mean."""

    def decode(self, latents: Tensor) -> Tensor:
        """Scaled latents (B, 4, h, w) -> images (B, 3, H, W), about [-1, 1]."""

    def predict_noise(
        self, z_t: Tensor, t: Tensor, context: Tensor, attention_edit: AttentionEdit | None = None
    ) -> Tensor:
        """eps_theta(z_t, t, context): z_t (B, 4, h, w), t (B,) int64, context (B, T, D) -> (B, 4, h, w).

        attention_edit(q, k, v, *, heads, grid) takes the place of every cross-attention (Eq. 8).
        """


def is_small(base: Backbone) -> bool:
    """Whether a base model is of the shipped one's kind, with a small spatial encoder and few training steps."""
    return base.native_size < SMALL


def demo_folder() -> Path:
    """Return the folder of the shipped demo model and its encoder."""
    return Path(__file__).parent / "demo"


def demo_encoder_path() -> Path:
    """Return the shipped small spatial encoder, trained for the demo model."""
    return demo_folder() / "encoder.safetensors"


def demo_library_path() -> Path:
    """Return the shipped library: defects that the demo model's training withheld, learned from 5 shots each."""
    return demo_folder() / "library.safetensors"


def load_backbone(
    base: str = DEMO,
    device: str | None = None,
    precision: str = "float32",
    loras: Sequence[tuple[Path | str, float]] = (),
    compiled: bool = False,
) -> Backbone:
    """Load a frozen base model: `demo`, a single-file checkpoint (.safetensors, .ckpt) or a diffusers folder.

    device: default: the GPU if there is one. precision: one of `precision.PRECISIONS`. loras: files with their weights,
    merged into the U-Net; the fingerprint is that of the merged model, so that a library of the plain base is used with
    a warning, and the name tells them: v1-5+lcm:0.8. compiled: the U-Net, for training. Never reaches for the network,
    never unpickles. Raises InputError for what is not a model of the SD 1.x family and where nothing can be compiled,
    FileNotFoundError for what is not there.
    """
    from .diffusers_host import DiffusersBackbone  # heavy, and not every host needs it
    from .loading import load_folder, load_single_file
    from .lora import merge_lora

    chosen = torch.device(device or best_device())
    dtype = dtype_of(precision, chosen)
    path = _path_of(base)
    parts = load_folder(path) if path.is_dir() else load_single_file(path)
    name = DEMO if base == DEMO else path.stem
    for file, weight in loras:
        lora = Path(file).expanduser()
        merge_lora(parts.unet, lora, weight)
        name += f"+{lora.stem}" if weight == 1 else f"+{lora.stem}:{weight:g}"
    return DiffusersBackbone(name, parts, chosen, dtype, compiled)


def prompt_context(base: str, words: Tensor) -> Tensor | None:
    """Return what a base model's text encoder makes of learned words alone, (k, D) -> context (77, D).

    base: as in `load_backbone`, with the same errors; InputError for words that are no prompt. None for a base without
    a text encoder, as the shipped one.
    """
    from .loading import load_text_encoder
    from .text import context_of

    encoder = load_text_encoder(_path_of(base))
    return None if encoder is None else context_of(encoder, words)[0]


def _path_of(base: str) -> Path:
    path = demo_folder() / "demo.safetensors" if base == DEMO else Path(base).expanduser()
    if not path.exists():
        raise FileNotFoundError(
            f"base model {base!r} is not there; give 'demo', a checkpoint file or a diffusers folder"
        )
    return path
