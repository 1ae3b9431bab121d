"""The demo model's U-Net: SD 1.x family at two levels, trained on latents under contexts that imitate captions.

A context is a bag of word tokens (product, tint, defect, colour, size, orientation, place, "mask"), shuffled, each
dropped at random and padded with the null token, so that the model has a language into which an embedding can be
inverted (METHOD.md, 7).
"""

from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from adiff.backbone.schedule import sd1_scheduler
from adiff.latent_grid import latent_mask
from adiff.pixels import as_images
from adiff.progress import Progress
from adiff.training import Schedule, fit

from .bank import MASK_WORD, WORDS, Bank, mask_pictures

CONTEXT_TOKENS = 12  # as many as an anomaly and a spatial embedding have together
CONTEXT_DIM = 768
CONFIG = {
    "sample_size": 16,
    "in_channels": 4,
    "out_channels": 4,
    "block_out_channels": [96, 192],
    "layers_per_block": 1,
    "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"],
    "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"],
    "attention_head_dim": 4,  # diffusers' name for the number of heads
    "cross_attention_dim": CONTEXT_DIM,
}
WORD_DROP, CAPTION_DROP = 0.1, 0.1
BATCH = 16
SHARES = {"normal": 0.25, "defect": 0.55, "mask": 0.2}  # of a batch
DEFECT_WEIGHT = 3.0  # extra loss weight of latent cells with a defect; a weight per cell does not move the optimum
SNR_CAP = 5.0  # min-SNR weighting (Hang et al. 2023, Eq. 7)
MASKS_EVERY = 2  # of the defective pictures, how far apart those are whose masks are trained on as pictures
NULL = len(WORDS)  # index of the null token


def new_unet() -> UNet2DConditionModel:
    """Return an untrained U-Net."""
    return UNet2DConditionModel.from_config(CONFIG)


def caption_tokens(caption: list[int], rng: np.random.Generator | None = None) -> np.ndarray:
    """Return word indices (CONTEXT_TOKENS,): shuffled and thinned with `rng`, as they are without; padded with NULL."""
    words = np.array(caption, int)
    if rng is not None:
        words = rng.permutation(words[rng.random(len(words)) >= WORD_DROP])
        if rng.random() < CAPTION_DROP:
            words = words[:0]
    return np.concatenate([words, np.full(CONTEXT_TOKENS - len(words), NULL)])


@torch.no_grad()
def encode_bank(vae: AutoencoderKL, pictures: np.ndarray, batch: int = 16) -> Tensor:
    """Return scaled latents (N, 4, 16, 16) of pictures (N, S, S, 3) uint8."""
    latents = []
    for start in range(0, len(pictures), batch):
        images = as_images(pictures[start : start + batch])
        latents.append(vae.encode(images).latent_dist.mean * vae.config.scaling_factor)
    return torch.cat(latents)


def _latents(vae: AutoencoderKL, bank: Bank, folder: Path) -> tuple[Tensor, Tensor]:
    """Return latents of all pictures and of the defects' mask pictures, encoded once."""
    kept = folder / "latents.pt"
    if kept.exists():
        return torch.load(kept, weights_only=True)
    shown = bank.defective[::MASKS_EVERY]
    both = encode_bank(vae, bank.images), encode_bank(vae, mask_pictures(bank.masks[shown]))
    torch.save(both, kept)
    return both


def train_unet(bank: Bank, vae: AutoencoderKL, folder: Path, *, seed: int, steps: int, progress: Progress):
    """Return the trained U-Net and the word vectors (len(WORDS) + 1, 768), the null token last."""
    torch.manual_seed(seed)
    unet = new_unet().train().to(memory_format=torch.channels_last)
    words = nn.Embedding(len(WORDS) + 1, CONTEXT_DIM)
    latents, mask_latents = _latents(vae, bank, folder)
    cells = latent_mask(torch.from_numpy(bank.masks)[:, None], 8)
    defective, normal = bank.defective, np.flatnonzero(~bank.masks.any((1, 2)))
    alphas = sd1_scheduler().alphas_cumprod
    weights = (SNR_CAP / (alphas / (1 - alphas))).clamp(max=1)
    mask_word = WORDS.index(MASK_WORD)

    def draw(rng: np.random.Generator):
        kind = rng.choice(list(SHARES), p=list(SHARES.values()))
        if kind == "normal":
            index = int(rng.choice(normal))
        else:
            at = int(rng.integers(len(mask_latents))) if kind == "mask" else int(rng.integers(len(defective)))
            index = int(defective[at * MASKS_EVERY if kind == "mask" else at])
        caption = bank.captions[index]
        if kind == "mask":
            return mask_latents[at], torch.zeros_like(cells[index]), caption_tokens([mask_word, *caption], rng)
        return latents[index], cells[index], caption_tokens(caption, rng)

    def loss_at(step, generator):
        rng = np.random.default_rng((seed, step))
        z, m, tokens = zip(*(draw(rng) for _ in range(BATCH)), strict=True)
        z, m = torch.stack(z), torch.stack(m)
        context = words(torch.from_numpy(np.stack(tokens)))
        t = torch.randint(0, 1000, (BATCH,), generator=generator)
        noise = torch.randn(z.shape, generator=generator)
        level = alphas[t].view(-1, 1, 1, 1)
        noised = (level.sqrt() * z + (1 - level).sqrt() * noise).contiguous(memory_format=torch.channels_last)
        # on a CPU the backward pass of fused attention is slower than the plain one at these sizes
        with torch.autocast("cpu", torch.bfloat16), sdpa_kernel(SDPBackend.MATH):
            predicted = unet(noised, t, context).sample.float()
        error = (1 + DEFECT_WEIGHT * m) * (predicted - noise).square()
        return (weights[t].view(-1, 1, 1, 1) * error).mean()

    parameters = {**dict(unet.named_parameters()), "words": words.weight}
    schedule = Schedule(steps, lr=8e-4, weight_decay=1e-3, average=0.999)
    fit(parameters, loss_at, schedule, seed=seed, what="unet", progress=progress, state=folder / "unet.safetensors",
        save_every=120)
    return unet.eval().requires_grad_(False), words.weight.detach()
