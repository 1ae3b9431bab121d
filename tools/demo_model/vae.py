"""The demo model's VAE: downscale 8, 4 channels, trained on crops centred on defects, then briefly at full size.

The KL weight is tiny and not annealed: with a larger one the latents lose the defects' colours.
"""

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from scipy import ndimage
from torch import Tensor

from adiff.pixels import as_images
from adiff.progress import Progress
from adiff.training import Schedule, fit

from .bank import SIZE, Bank, mask_pictures

CONFIG = {
    "in_channels": 3,
    "out_channels": 3,
    "latent_channels": 4,
    "block_out_channels": [16, 32, 64, 96],
    "layers_per_block": 1,
    "norm_num_groups": 8,
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
    "sample_size": SIZE,
}
KL_WEIGHT = 1e-6
CROP = 64  # pixels
DEFECT_WEIGHT = 4.0  # extra weight of defect pixels in the reconstruction loss
COLOUR_WEIGHT = 2.0  # of what is left of the error after averaging 8 x 8 pixels: hues are learned late without it
WEAK = ("scratch", "contamination", "crack")  # defects that lose contrast
KEPT, CONTRAST_WEIGHT, FEWEST = 0.93, 2.0, 8  # share of the contrast asked for, its weight, pixels of a mask at least
MASK_SHARE = 0.12  # of a batch: mask pictures


def new_vae() -> AutoencoderKL:
    """Return an untrained VAE."""
    return AutoencoderKL.from_config(CONFIG)


def batch_of(bank: Bank, count: int, crop: int, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Return images (count, 3, crop, crop) in [-1, 1] and masks (count, 1, crop, crop): two thirds show a defect."""
    images, masks = [], []
    for _ in range(count):
        defective = rng.random() < 0.7
        index = int(rng.choice(bank.defective)) if defective else int(rng.integers(len(bank.images)))
        image, mask = bank.images[index], bank.masks[index]
        if mask.any():
            rows, columns = np.nonzero(mask)
            at = int(rng.integers(len(rows)))
            centre = np.array([rows[at], columns[at]]) + rng.integers(-crop // 4, crop // 4 + 1, 2)
        else:
            centre = rng.integers(0, SIZE, 2)
        top, left = np.clip(centre - crop // 2, 0, SIZE - crop)
        image, mask = image[top : top + crop, left : left + crop], mask[top : top + crop, left : left + crop]
        if rng.random() < MASK_SHARE:
            image = mask_pictures(mask[None])[0]
        turns, flip = int(rng.integers(4)), bool(rng.integers(2))
        image, mask = np.rot90(image, turns), np.rot90(mask, turns)
        images.append((image[:, ::-1] if flip else image).copy())
        masks.append((mask[:, ::-1] if flip else mask).copy())
    pixels = as_images(np.stack(images))
    return pixels, torch.from_numpy(np.stack(masks))[:, None].float()


def _loss(vae: AutoencoderKL, images: Tensor, masks: Tensor, generator: torch.Generator) -> Tensor:
    posterior = vae.encode(images).latent_dist
    noise = torch.randn(posterior.mean.shape, generator=generator)
    rebuilt = vae.decode(posterior.mean + posterior.std * noise).sample
    return _reconstruction(rebuilt - images, masks) + KL_WEIGHT * posterior.kl().mean()


def _reconstruction(error: Tensor, masks: Tensor) -> Tensor:
    """The loss of an error (B, 3, S, S), heavier on defects and on what is left of it in 8 x 8 pixels."""
    loss = ((1 + DEFECT_WEIGHT * masks) * (error.abs() + error.square())).mean()
    return loss + COLOUR_WEIGHT * F.avg_pool2d(error, 8).abs().mean()


def _contrast(image: Tensor, on: Tensor, around: Tensor) -> Tensor:
    """Root mean square distance of pixels `on` to the mean colour of those `around`; image (3, S, S), masks (S, S)."""
    return (image[:, on] - image[:, around].mean(1, keepdim=True)).square().mean().add(1e-8).sqrt()


def sharpen_decoder(bank: Bank, vae: AutoencoderKL, folder: Path, *, seed: int, steps: int, progress: Progress) -> None:
    """Train the decoder on, at full size, to give thin and pale defects back their contrast; latents stay."""
    defects = np.array([defect for _, defect in bank.kinds])
    pools = ((np.flatnonzero(np.isin(defects, WEAK) & bank.masks.any((1, 2))), 4), (bank.defective, 2),
             (np.flatnonzero(~bank.masks.any((1, 2))), 1))  # fmt: skip

    def loss_at(step: int, generator: torch.Generator) -> Tensor:
        rng = np.random.default_rng((seed, SIZE, step))
        index = np.concatenate([rng.choice(pool, count) for pool, count in pools])
        images = as_images(bank.images[index])
        masks = torch.from_numpy(bank.masks[index])
        with torch.no_grad():
            latents = vae.encode(images).latent_dist.mean
        rebuilt = vae.decode(latents).sample
        lost = []
        for new, old, on in zip(rebuilt, images, bank.masks[index], strict=True):
            if on.sum() >= FEWEST:
                near, far = (torch.from_numpy(ndimage.binary_dilation(on, iterations=n)) for n in (2, 10))
                place = torch.from_numpy(on), far & ~near
                lost.append((KEPT - _contrast(new, *place) / _contrast(old, *place)).relu())
        contrast = torch.stack(lost).square().sum() / len(index)
        return _reconstruction(rebuilt - images, masks[:, None].float()) + CONTRAST_WEIGHT * contrast

    trained = {f"decoder.{name}": p for name, p in vae.decoder.named_parameters()}
    trained |= {f"post_quant_conv.{name}": p for name, p in vae.post_quant_conv.named_parameters()}
    fit(trained, loss_at, Schedule(steps, lr=3e-4), seed=seed, what="decoder", progress=progress,
        state=folder / "decoder.safetensors", save_every=120)  # fmt: skip
    vae.requires_grad_(False)


def train_vae(
    bank: Bank, folder: Path, *, seed: int, steps: int, full_size_steps: int, progress: Progress
) -> AutoencoderKL:
    """Train on crops, then at full size, since GroupNorm sees the whole picture; sets scaling_factor to 1 / std."""
    torch.manual_seed(seed)
    vae = new_vae().train()

    def on(crop: int, count: int):
        def loss_at(step: int, generator: torch.Generator) -> Tensor:
            rng = np.random.default_rng((seed, crop, step))
            return _loss(vae, *batch_of(bank, count, crop, rng), generator)

        return loss_at

    weights = dict(vae.named_parameters())
    for name, loss_at, schedule in (
        ("vae", on(CROP, 16), Schedule(steps, lr=2e-3, warm_up=0.1)),
        ("vae-full-size", on(SIZE, 4), Schedule(full_size_steps, lr=2e-4)),
    ):
        state = folder / f"{name}.safetensors"
        fit(weights, loss_at, schedule, seed=seed, what=name, progress=progress, state=state, save_every=120)
    vae.eval().requires_grad_(False)
    images, _ = batch_of(bank, 64, SIZE, np.random.default_rng((seed, 0)))
    vae.register_to_config(scaling_factor=float(1 / vae.encode(images).latent_dist.mean.std()))
    return vae
