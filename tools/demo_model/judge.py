"""A small network trained on real surfaces that says which product a picture shows and where its defect is."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.transforms.functional import gaussian_blur

from adiff.datasets.surfaces import PRODUCTS
from adiff.pixels import as_images

from .bank import Bank

GRID = 16


class Judge(nn.Module):
    """Pictures (B, 3, S, S) in [-1, 1] -> product logits (B, products), defect logits (B, GRID, GRID)."""

    def __init__(self):
        super().__init__()

        def stage(a, b):
            return nn.Sequential(nn.Conv2d(a, b, 3, 2, 1), nn.GroupNorm(8, b), nn.SiLU(),
                                 nn.Conv2d(b, b, 3, 1, 1), nn.GroupNorm(8, b), nn.SiLU())

        self.body = nn.Sequential(stage(3, 24), stage(24, 48), stage(48, 64))
        self.where = nn.Conv2d(64, 1, 1)
        self.product = nn.Linear(64, len(PRODUCTS))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Judge a batch."""
        features = self.body(images)
        return self.product(features.mean((2, 3))), self.where(features)[:, 0]


def augmented(images: Tensor, rng: np.random.Generator) -> Tensor:
    """Vary colour, sharpness and noise of pictures (B, 3, S, S), so that products are told by their structure.

    Without it the judge goes by fine detail that an autoencoder does not keep: it takes real leather for wood once that
    has been through the VAE.
    """

    def drawn(low: float, high: float, *shape: int) -> Tensor:
        return torch.from_numpy(rng.uniform(low, high, (len(images), *shape)).astype(np.float32))

    grey = images.mean(1, keepdim=True)
    images = torch.where(drawn(0, 1, 1, 1, 1) < 0.3, grey, images)
    images = images * drawn(0.75, 1.25, 3, 1, 1) + drawn(-0.15, 0.15, 1, 1, 1)
    soft = gaussian_blur(images, [7, 7], [1.3, 1.3])
    images = torch.lerp(images, soft, drawn(0, 1, 1, 1, 1))
    noise = torch.from_numpy(rng.standard_normal(images.shape, dtype=np.float32))
    return (images + drawn(0, 0.06, 1, 1, 1) * noise).clamp(-1, 1)


def train_judge(bank: Bank, *, seed: int, steps: int = 700, batch: int = 32) -> Judge:
    """Train on the bank's real pictures, augmented."""
    torch.manual_seed(seed)
    judge = Judge()
    optimiser = torch.optim.AdamW(judge.parameters(), 2e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 3e-3, total_steps=steps)
    labels = np.array([PRODUCTS.index(p) for p, _ in bank.kinds])
    rng = np.random.default_rng(seed)
    for _ in range(steps):
        index = rng.integers(len(bank.images), size=batch)
        masks = torch.from_numpy(bank.masks[index])[:, None].float()
        product, where = judge(augmented(as_images(bank.images[index]), rng))
        target = (F.adaptive_avg_pool2d(masks, GRID)[:, 0] > 0.2).float()
        loss = F.cross_entropy(product, torch.from_numpy(labels[index]))
        loss = loss + 2 * F.binary_cross_entropy_with_logits(where, target, pos_weight=torch.tensor(3.0))
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()
        schedule.step()
    return judge.eval().requires_grad_(False)


def quadrants(where: Tensor) -> list[str | None]:
    """Return for each picture the quadrant with most of its defect, None if none is seen; where: logits (B, g, g)."""
    half = GRID // 2
    heat = where.sigmoid() * (where > 0)
    sums = {f"{v}-{h}": heat[:, rows, columns].sum((1, 2))
            for v, rows in (("top", slice(0, half)), ("bottom", slice(half, None)))
            for h, columns in (("left", slice(0, half)), ("right", slice(half, None)))}
    names, table = list(sums), torch.stack(list(sums.values()), 1)
    return [names[int(row.argmax())] if row.max() > 0 else None for row in table]
