"""ComfyUI's side of the seam: masks and latents brought together, a MODEL looked at, both as our `Backbone`.

| ComfyUI | ours |
|---|---|
| LATENT samples z / scale | scaled latents z, `process_latent_in` |
| x = z + sigma noise | z_t = x / sqrt(1 + sigma^2), `calculate_input` |
| IMAGE (B, H, W, 3) in [0, 1] | (B, 3, H, W) in [-1, 1] |
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from weakref import WeakKeyDictionary

import comfy.model_base
import comfy.model_management
import comfy.utils
import numpy as np
import torch
import torch.nn.functional as F
from comfy.patcher_extension import WrappersMP
from comfy.samplers import KSampler
from einops import rearrange
from torch import Tensor

from ..adiff.errors import InputError
from ..adiff.geometry import resize_mask
from ..adiff.latent_grid import latent_mask
from ..adiff.reweighting import AttentionEdit

log = logging.getLogger("adiff")
COMPILED = "torch.compile"
"""ComfyUI's name of the wrapper that TorchCompileModel puts around a U-Net."""
DOWNSCALE = 8
ASPECT = 0.01
"""By how much the shapes of a mask and its image may differ."""
TIMESTEPS = 1000
"""Levels of SD 1.x's noise schedule."""
_fingerprints: WeakKeyDictionary = WeakKeyDictionary()


def mask_batch(mask: Tensor) -> Tensor:
    """Return masks (B, H, W) bool of a MASK; raises InputError for one that marks nothing or everything."""
    values = mask.reshape(-1, *mask.shape[-2:])
    return torch.stack(marks_of(values)) if len(values) else values >= 0.5


def marks_of(masks: Sequence[Tensor]) -> list[Tensor]:
    """Return what each of some masks (H, W), of whatever size, marks, (H, W) bool; raises as `mask_batch` does."""
    marks = [mask >= 0.5 for mask in masks]
    for number, (mask, mark) in enumerate(zip(masks, marks, strict=True), 1):
        told = f"mask {number} of {len(masks)}"
        if not mark.any():
            most = float(mask.max())
            faint = f" (its largest value is {most:.2g}, marks start at 0.5)" if most > 0 else ""
            raise InputError(f"{told} marks nothing{faint}; paint where the defect is, as in Load Image's mask editor")
        if mark.all():
            raise InputError(f"{told} covers the whole image; it must mark the place of the defect")
    return marks


def masks_at(masks: Tensor, size: tuple[int, int]) -> Tensor:
    """Masks (B, H, W) bool at an image's size (rows, columns); raises InputError for those of another shape."""
    (height, width), (rows, columns) = masks.shape[1:], size
    if (height, width) == (rows, columns):
        return masks
    if abs(height * columns - width * rows) > ASPECT * height * columns:
        raise _other_shape(height, width, rows, columns)
    return torch.from_numpy(np.stack([resize_mask(one, rows, columns) for one in masks.cpu().numpy()]))


def _other_shape(height: int, width: int, rows: int, columns: int) -> InputError:
    return InputError(
        f"the mask is {width} x {height}, the image {columns} x {rows}; draw the mask on this image, or scale it "
        "to its size"
    )


def cells_of(mask: Tensor, grid: tuple[int, int]) -> Tensor:
    """Bring masks (B, H, W) to a latent grid, (B, 1, h, w) float32 in {0, 1}: a cell is on if any of its pixels is.

    An image that is no multiple of 8 is cut at its borders as ComfyUI's VAE cuts it; a mask of another size than the
    image is taken to cover the same view. Raises InputError for a mask of another shape, or of which nothing is left.
    """
    height, width = mask.shape[-2:]
    least, most = ([side * DOWNSCALE + cut for side in grid] for cut in (0, DOWNSCALE - 1))  # of the image's sides
    if not least[0] / most[1] / (1 + ASPECT) <= height / width <= (1 + ASPECT) * most[0] / least[1]:
        raise _other_shape(height, width, *least)
    cells = _cells(mask[:, None].float(), grid)
    for number, one in enumerate(cells):
        if not one.any():
            raise InputError(
                f"mask {number + 1} of {len(mask)} lies in the border of the {width} x {height} image that the VAE "
                "cuts off; scale or pad the image to sides that are multiples of 8, and draw the mask on that"
            )
    return cells


def _cells(mask: Tensor, grid: tuple[int, int]) -> Tensor:
    """Masks (B, 1, H, W) in {0, 1} on a grid, whatever is left of them."""
    height, width = mask.shape[-2:]
    if (height // DOWNSCALE, width // DOWNSCALE) == grid:
        top, left = (height % DOWNSCALE) // 2, (width % DOWNSCALE) // 2
        return latent_mask(mask[..., top : top + grid[0] * DOWNSCALE, left : left + grid[1] * DOWNSCALE], DOWNSCALE)
    rows, columns = (-(-side // cells) * cells for side, cells in zip((height, width), grid, strict=True))
    even = F.interpolate(mask, size=(rows, columns), mode="nearest-exact")
    return F.max_pool2d(even, (rows // grid[0], columns // grid[1]))


def to_batch(tensor: Tensor, batch: int, what: str) -> Tensor:
    """Repeat one to a batch; raises InputError for any other number."""
    if tensor.shape[0] not in (1, batch):
        raise InputError(f"{tensor.shape[0]} {what} for a batch of {batch}; give one, or one for each image")
    return tensor.expand(batch, *tensor.shape[1:])


def masks_of(images: Tensor, masks: Tensor) -> np.ndarray:
    """Masks (B, H, W) bool of IMAGE and MASK that are pairs; raises InputError for other numbers or sizes."""
    on = to_batch(mask_batch(masks), len(images), "masks")
    if on.shape[1:] != images.shape[1:3]:
        raise InputError(
            f"the masks are {on.shape[2]} x {on.shape[1]}, the images {images.shape[2]} x {images.shape[1]}; connect "
            "both outputs of the same node"
        )
    return on.cpu().numpy()


def check_sd1(model) -> None:
    """Raise InputError unless a MODEL is of the SD 1.x family, naming what it is."""
    inner = model.model
    config = getattr(inner.model_config, "unet_config", {})
    kind = type(inner.model_config).__name__
    if config.get("context_dim") != 768 or config.get("adm_in_channels") is not None:
        raise InputError(f"the model is {kind}; this node works on SD 1.x models (context width 768)")
    if config.get("in_channels") != 4:
        raise InputError(f"the model takes {config.get('in_channels')} channels (an inpainting model?); use SD 1.x's 4")
    if inner.model_type != comfy.model_base.ModelType.EPS:
        raise InputError(f"the model predicts {inner.model_type.name}; this node works on noise prediction (EPS)")


def uncompile(wrappers: dict) -> None:
    """Take the compiled U-Net of TorchCompileModel out of a MODEL's wrappers, and say so.

    It goes on as it was traced once, whatever the patches of its attentions do from step to step, or from run to run.
    """
    if wrappers.get(WrappersMP.APPLY_MODEL, {}).pop(COMPILED, None):
        log.warning("TorchCompileModel is left out: a compiled model would not see how its attentions change")


def check_context(conditioning: list, batch: int, what: str) -> None:
    """Raise InputError for conditioning of another width than SD 1.x's, or of another batch than the images'."""
    for context, _ in conditioning:
        if context.shape[-1] != 768:
            raise InputError(f"{what} has tokens of width {context.shape[-1]}; SD 1.x's are 768 wide")
        if context.shape[0] not in (1, batch):
            raise InputError(
                f"{what} has {context.shape[0]} rows for a batch of {batch}; give one mask, or one for each image"
            )


def check_sampling(sampler_name: str, scheduler: str) -> None:
    """Raise InputError for a sampler or scheduler that is not there: an older ComfyUI takes its first one instead."""
    check_choice("sampler", sampler_name, KSampler.SAMPLERS)
    check_choice("scheduler", scheduler, KSampler.SCHEDULERS)


def check_choice(what: str, given: str, known: Sequence[str]) -> None:
    """Raise InputError for what is none of a list: an older ComfyUI checks no choice of these nodes."""
    if given not in known:
        raise InputError(f"{what} {given[:80]!r} is not in this ComfyUI; choose one of {', '.join(known)}")


def levels_of(image: torch.Tensor) -> np.ndarray:
    """IMAGE (..., H, W, C) in [0, 1] -> (..., H, W, 3) uint8, rounded: what an 8-bit file held comes back exactly."""
    return (image[..., :3] * 255).round().clamp(0, 255).to(torch.uint8).cpu().numpy()


class ComfyBackbone:
    """A MODEL, a VAE and the empty prompt's CONDITIONING as our frozen base model; see `adiff.backbone.Backbone`.

    The U-Net is loaded when it is first asked for: one that only encodes and decodes leaves it where it is, and needs
    no empty prompt (`null_context` is then None).
    """

    name, weights = "the MODEL in the graph", ""
    context_dim, latent_downscale = 768, DOWNSCALE

    def __init__(self, model, vae, empty: list | None = None, native_size: int = 512):
        check_sd1(model)
        if empty is not None:
            check_context(empty, 1, "the empty prompt")
        self._model, self._vae = model, vae
        self.device, self.dtype = model.load_device, torch.float32
        self.native_size = getattr(model.model, "adiff_native_size", native_size)
        self.null_context = None if empty is None else empty[0][0].to(self.device, self.dtype)
        sigmas = model.get_model_object("model_sampling").sigmas.float()
        self._alphas_cumprod = (1 / (1 + sigmas.square())).to(self.device)
        self._loaded = False

    @property
    def alphas_cumprod(self) -> Tensor:
        """See `adiff.backbone.Backbone`; InputError for a MODEL whose noise schedule another node has cut short."""
        levels = len(self._alphas_cumprod)
        if levels != TIMESTEPS:
            raise InputError(
                f"the model's noise schedule has {levels} levels, not {TIMESTEPS}; connect the model from before the "
                "node that changed it (ModelSamplingDiscrete with lcm)"
            )
        return self._alphas_cumprod

    @property
    def fingerprint(self) -> str:
        """sha256 over the cross-attention's key and value weights as fp16, LoRAs left aside."""
        inner = self._model.model
        if inner not in _fingerprints:
            _fingerprints[inner] = _fingerprint(self._model)
        return _fingerprints[inner]

    def encode(self, images: Tensor) -> Tensor:
        """Images (B, 3, H, W) in [-1, 1] -> scaled latents (B, 4, h, w)."""
        self._loaded = False  # on a small card the VAE takes the U-Net's place
        latents = self._vae.encode(rearrange((images + 1) / 2, "b c h w -> b h w c"))
        return self._model.model.process_latent_in(latents).to(self.device, self.dtype)

    def decode(self, latents: Tensor) -> Tensor:
        """Scaled latents (B, 4, h, w) -> images (B, 3, H, W), [-1, 1]."""
        self._loaded = False
        return pixels_of(self._vae, self._model.model.process_latent_out(latents)).to(self.device)

    def predict_noise(
        self, z_t: Tensor, t: Tensor, context: Tensor, attention_edit: AttentionEdit | None = None
    ) -> Tensor:
        """eps_theta(z_t, t, context), from the host's clean estimate; attention edits are the sampler nodes' affair."""
        if attention_edit is not None:
            raise NotImplementedError("attention edits go through Apply Reweighting in a graph")
        comfy.model_management.throw_exception_if_processing_interrupted()  # a batch of masks has no bar of its own
        if not self._loaded:
            self._load(z_t)
            self._loaded = True
        sigma = (1 / self.alphas_cumprod[t.to(self.device)] - 1).sqrt()
        wide = sigma.view(-1, 1, 1, 1)
        x = z_t * (1 + wide.square()).sqrt()
        options = self._model.model_options["transformer_options"].copy()
        return (x - self._apply(x, sigma, context, options)) / wide

    def _load(self, z_t: Tensor) -> None:
        """Have the U-Net where it computes."""
        comfy.model_management.load_models_gpu([self._model])

    def _apply(self, x: Tensor, sigma: Tensor, context: Tensor, options: dict) -> Tensor:
        """ComfyUI's clean estimate of x (B, 4, h, w) at sigma (B,)."""
        return self._model.model.apply_model(x, sigma, c_crossattn=context, transformer_options=options)


def pixels_of(vae, latents: Tensor) -> Tensor:
    """LATENT samples (B, 4, h, w) -> images (B, 3, H, W) in [-1, 1], on the latents' device."""
    return (rearrange(vae.decode(latents), "b h w c -> b c h w") * 2 - 1).to(latents.device)


def _fingerprint(model) -> str:
    digest = hashlib.sha256()
    weights = model.model.state_dict()
    kinds = ("attn2.to_k.weight", "attn2.to_v.weight")
    for name in sorted(n for n in weights if n.startswith("diffusion_model.") and n.endswith(kinds)):
        kept = model.backup.get(name)
        weight = kept.weight if kept is not None else weights[name]
        digest.update(weight.half().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


class GraphProgress:
    """Our progress interface on ComfyUI's bar, which also raises when the user cancels."""

    def start(self, total: int, what: str) -> None:
        """Begin a bar."""
        self._bar, self._total = comfy.utils.ProgressBar(total), total

    def update(self, done: int, **info: float) -> None:
        """Move the bar; raises ComfyUI's own exception if the user has cancelled."""
        self._bar.update_absolute(done, self._total)

    def finish(self) -> None:
        """Nothing is left to do."""

    def put(self, done: int, picture) -> None:
        """Show a PIL picture beside the bar; the last one a browser shows in the place of what the node gives."""
        self._bar.update_absolute(done, self._total, ("JPEG", picture, max(picture.size)))
