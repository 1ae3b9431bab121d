"""A small U-Net that says where the defect is, learned from pairs and normal images (METHOD 3, "Localisation").

| symbol | meaning | shape |
|---|---|---|
| x | images, resized to S x S | (B, 3, S, S) in [-1, 1] |
| m | masks | (B, 1, S, S) in {0, 1} |
| p | predicted chance of a defect at each pixel, sigmoid(logits) | (B, 1, S, S) |
| gamma | focusing of the loss | float |

Focal loss (Lin et al., ICCV 2017, Eq. 4, without alpha): -(1 - p_t)^gamma log p_t, p_t = p where m is 1 and 1 - p
elsewhere. The network is our own few lines, with GroupNorm, so that one image scores the same alone and in a batch; it
starts from random weights: nothing here was learned from other people's images. Its first level sees each 2 x 2 pixels
as one place of 12 channels and tells their four scores: a quarter of the time, no pixel lost.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import InputError
from ..generation.seeds import derived_seed, rng_for
from ..geometry import resize_image, resize_mask
from ..progress import NullProgress, Progress
from .metrics import average_precision

PRIOR = 0.01
"""Chance of a defect that the untrained network tells (Lin et al., sec. 4.1)."""
LEVELS = 4
GROUPS = 8
FOLD = 2
"""Side of the pixels that are one place of the first level."""


@dataclass(frozen=True)
class LocalizerSettings:
    """size: side of the network's images, pixels, a multiple of 16. width: channels of its first level, of 8.

    real_share: of a batch's pairs, where both real and synthetic ones are given. jitter: largest change of brightness
    and contrast. check_every: steps between two looks at the validation pairs.
    """

    size: int = 128
    width: int = 16
    steps: int = 400
    batch: int = 8
    lr: float = 2e-3
    gamma: float = 2.0
    real_share: float = 0.5
    jitter: float = 0.1
    check_every: int = 50

    def __post_init__(self) -> None:
        if self.size % (FOLD * 2 ** (LEVELS - 1)) or self.size < 16 or self.width < GROUPS or self.width % GROUPS:
            raise InputError(f"size {self.size}, width {self.width}; expected multiples of 16 and of {GROUPS}")
        if min(self.steps, self.check_every) < 1 or self.batch < 2:
            raise InputError(f"{self.steps} steps of {self.batch}; expected at least 1 step, batches of at least 2")


class Example(NamedTuple):
    """image: (H, W, 3) uint8. mask: (H, W) bool."""

    image: np.ndarray
    mask: np.ndarray

    def resized(self, size: int) -> Example:
        """The same at size x size pixels."""
        return Example(resize_image(self.image, size, size), resize_mask(self.mask, size, size))


class Localizer(nn.Module):
    """Images (B, 3, S, S) in [-1, 1] -> logits (B, 1, S, S); S: a multiple of 16."""

    def __init__(self, width: int = 16):
        super().__init__()
        widths = [width << level for level in range(LEVELS)]
        self.down = nn.ModuleList(_block(a, b) for a, b in zip([3 * FOLD**2, *widths[:-1]], widths, strict=True))
        self.up = nn.ModuleList(_block(a + b, a) for a, b in zip(widths[-2::-1], widths[:0:-1], strict=True))
        self.head = nn.Conv2d(width, FOLD**2, 1)
        nn.init.constant_(self.head.bias, math.log(PRIOR / (1 - PRIOR)))

    def forward(self, x: Tensor) -> Tensor:
        """Score a batch."""
        x, kept = F.pixel_unshuffle(x, FOLD), []
        for level, block in enumerate(self.down):
            x = block(F.max_pool2d(x, 2) if level else x)
            kept.append(x)
        kept.pop()
        for block in self.up:
            skip = kept.pop()
            x = block(torch.cat([F.interpolate(x, size=skip.shape[2:], mode="nearest"), skip], 1))
        return F.pixel_shuffle(self.head(x), FOLD)


def _block(inside: int, out: int) -> nn.Sequential:
    parts = []
    for channels in (inside, out):
        parts += [nn.Conv2d(channels, out, 3, padding=1, bias=False), nn.GroupNorm(GROUPS, out), nn.SiLU()]
    return nn.Sequential(*parts)


def focal_loss(logits: Tensor, m: Tensor, gamma: float) -> Tensor:
    """Mean focal loss over all pixels; logits and m: the same shape."""
    cross_entropy = F.binary_cross_entropy_with_logits(logits, m, reduction="none")
    p = logits.sigmoid()
    return ((p * (1 - m) + (1 - p) * m) ** gamma * cross_entropy).mean()  # the factor is 1 - p_t


@dataclass(frozen=True, eq=False)
class Trained:
    """network: in the state that is kept. step: that state's. curve: (step, AP on the validation pairs)."""

    network: Localizer
    size: int
    step: int
    curve: tuple[tuple[int, float], ...]


def train_localizer(
    real: Sequence[Example],
    synthetic: Sequence[Example],
    normals: Sequence[np.ndarray],
    validation: Sequence[Example] = (),
    *,
    settings: LocalizerSettings | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Trained:
    """Train on pairs, real or synthetic or both, and normal images (H, W, 3) uint8, half a batch each.

    validation: pairs; the state with the best pixel AP on them is kept, of equals the latest. Without them the last
    state is. Raises InputError without any pair or any normal image. Cancelled goes through: nothing is kept.
    """
    settings, progress = settings or LocalizerSettings(), progress or NullProgress()
    if not normals or not (real or synthetic):
        raise InputError(f"{len(real) + len(synthetic)} pairs and {len(normals)} normal images; give at least one each")
    size = settings.size
    pools = [_prepare(pool, size) for pool in (real, synthetic) if pool]
    shares = [1.0] if len(pools) == 1 else [settings.real_share, 1 - settings.real_share]
    plain = np.stack([resize_image(image, size, size) for image in normals])
    held = _prepare(validation, size) if validation else None
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derived_seed(seed, "localizer"))
        network = Localizer(settings.width)
    optimiser = torch.optim.AdamW(network.parameters(), settings.lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, settings.steps)
    rng, curve, best = rng_for(seed, "batches"), [], (-1.0, 0, None)
    progress.start(settings.steps, "localizer")
    for step in range(1, settings.steps + 1):
        x, m = _batch(pools, shares, plain, settings, rng)
        loss = focal_loss(network(x), m, settings.gamma)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        if held is not None and (step % settings.check_every == 0 or step == settings.steps):
            ap = _validate(network, *held)
            curve.append((step, ap))
            if ap >= best[0]:
                best = ap, step, {name: tensor.clone() for name, tensor in network.state_dict().items()}
        progress.update(step, loss=loss.item())
    progress.finish()
    if best[2] is not None:
        network.load_state_dict(best[2])
    return Trained(network.eval().requires_grad_(False), size, best[1] or settings.steps, tuple(curve))


def _prepare(pool: Sequence[Example], size: int) -> tuple[np.ndarray, np.ndarray]:
    """Images (n, S, S, 3) uint8 and masks (n, S, S) bool."""
    images, masks = zip(*(one.resized(size) for one in pool), strict=True)
    return np.stack(images), np.stack(masks)


def _as_tensor(images: np.ndarray) -> Tensor:
    """(n, S, S, 3) uint8 -> (n, 3, S, S) in [-1, 1]."""
    return torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2).float() / 127.5 - 1


def _batch(
    pools: Sequence[tuple[np.ndarray, np.ndarray]], shares: Sequence[float], plain: np.ndarray,
    settings: LocalizerSettings, rng: np.random.Generator,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """A random batch, flipped, turned by quarters, changed in brightness and contrast."""
    images, masks = [], []
    for place in range(settings.batch):
        if place % 2:
            image, mask = plain[rng.integers(len(plain))], np.zeros((settings.size, settings.size), bool)
        else:
            of_images, of_masks = pools[rng.choice(len(pools), p=shares)]
            index = rng.integers(len(of_images))
            image, mask = of_images[index], of_masks[index]
        turns, flip = int(rng.integers(4)), bool(rng.integers(2))
        image, mask = (np.rot90(array[:, ::-1] if flip else array, turns) for array in (image, mask))
        images.append(image)
        masks.append(mask)
    x = _as_tensor(np.stack(images))
    gain, shift = (torch.from_numpy(rng.uniform(-settings.jitter, settings.jitter, (len(x), 1, 1, 1))).float()
                   for _ in range(2))  # fmt: skip
    return x * (1 + gain) + shift, torch.from_numpy(np.stack(masks))[:, None].float()


@torch.no_grad()
def _validate(network: Localizer, images: np.ndarray, masks: np.ndarray) -> float:
    """Pixel AP over prepared pairs."""
    scores = [network(_as_tensor(image[None])).numpy().ravel() for image in images]
    return average_precision(np.concatenate(scores), masks.ravel()) or 0.0


@torch.no_grad()
def score(trained: Trained, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Score an image (H, W, 3) uint8 of any size: p at the network's size (S, S) and at the image's (H, W), float32."""
    small = resize_image(image, trained.size, trained.size)
    p = trained.network(_as_tensor(small[None])).sigmoid()
    large = F.interpolate(p, size=image.shape[:2], mode="bilinear", align_corners=False)
    return p[0, 0].numpy(), large[0, 0].numpy()


Scorer = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
"""Image (H, W, 3) uint8 -> scores at the detector's own size and at the image's."""
