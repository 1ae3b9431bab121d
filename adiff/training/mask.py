"""Mask inversion: a mask embedding e_m for each defect, learned from its shots' masks as pictures (Eq. 9).

Loss = || eps - eps_theta(z_t, t, e_m) ||^2 with z the encoded mask, white on black.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..backbone import Backbone
from ..datasets.augmentation import augment_pair
from ..embedding import K_MASK, join_condition, random_embedding
from ..errors import InputError
from ..progress import Progress
from .anomaly import Key, RecentLosses, check_counts, digest_of
from .loop import Outcome, Schedule, fit
from .noising import add_noise, noise_like


@dataclass(frozen=True)
class MaskSettings:
    """How mask embeddings are learned. draws: augmented views of each mask, encoded once. Raises InputError."""

    steps: int = 150
    batch: int = 8
    lr: float = 3e-2
    tokens: int = K_MASK
    draws: int = 16

    def __post_init__(self) -> None:
        check_counts(self, "steps", "batch", "tokens", "draws")


@dataclass(frozen=True)
class MaskResult:
    """embeddings: e_m (k', D) of each defect; losses: recent loss of each; outcome: of the loop."""

    embeddings: dict[Key, Tensor]
    losses: dict[Key, float]
    outcome: Outcome


def train_masks(
    backbone: Backbone,
    masks: Mapping[Key, Sequence[np.ndarray]],
    *,
    settings: MaskSettings | None = None,
    seed: int = 0,
    progress: Progress | None = None,
    state: Path | None = None,
) -> MaskResult:
    """Learn e_m of every defect from its masks (H, W) bool, all in one loop; the backbone stays as it is."""
    settings = settings or MaskSettings()
    empty = ["/".join(key) for key, of_defect in masks.items() if not len(of_defect)]
    if not masks or empty:
        raise InputError(
            f"no masks to learn from{': ' + ', '.join(empty) if empty else ''}; give at least one a defect"
        )
    keys = sorted(masks)
    start = torch.Generator().manual_seed(seed + 1)
    embeddings = {
        key: random_embedding(settings.tokens, backbone.context_dim, start).to(backbone.device) for key in keys
    }
    banks = [_encode(backbone, masks[key], settings, (seed, number)) for number, key in enumerate(keys)]
    losses = RecentLosses(keys)

    def loss_at(step: int, generator: torch.Generator) -> Tensor:
        owners = [(step * settings.batch + i) % len(keys) for i in range(settings.batch)]
        z = torch.stack([banks[o][int(torch.randint(len(banks[o]), (), generator=generator))] for o in owners])
        t = torch.randint(0, len(backbone.alphas_cumprod), (len(z),), generator=generator)
        noise = noise_like(z, generator)
        context = join_condition(torch.stack([embeddings[keys[o]] for o in owners])).context.to(z.dtype)
        predicted = backbone.predict_noise(add_noise(backbone, z, noise, t), t, context)
        per_sample = (predicted.float() - noise.float()).square().mean((1, 2, 3))
        losses.note(owners, per_sample)
        return per_sample.mean()

    parameters = {f"mask {p} {d}": e for (p, d), e in embeddings.items()}
    about = {"settings": asdict(settings), "shots": digest_of(masks), "base": backbone.fingerprint}
    outcome = fit(
        parameters, loss_at, Schedule(settings.steps, settings.lr), seed=seed, what="mask embeddings",
        progress=progress, state=state, about=about, notes=losses.notes,
    )  # fmt: skip
    return MaskResult({k: e.detach().float().cpu() for k, e in embeddings.items()}, losses.by_key(), outcome)


@torch.no_grad()
def _encode(backbone: Backbone, masks: Sequence[np.ndarray], settings: MaskSettings, seed: tuple[int, int]) -> Tensor:
    """Return latents (N, 4, h, w) of augmented masks as pictures, of the whole frame: e_m learns place and size too."""
    pictures = []
    for place, mask in enumerate(masks):
        picture = np.repeat(mask[..., None].astype(np.uint8) * 255, 3, axis=-1)
        for draw in range(settings.draws):
            rng = np.random.default_rng((*seed, place, draw))
            _, view = augment_pair(picture, mask, backbone.native_size, rng, crop=False)
            pictures.append(np.repeat(view[None].astype(np.float32) * 2 - 1, 3, axis=0))
    stacked = torch.from_numpy(np.stack(pictures))
    return torch.cat([backbone.encode(part) for part in stacked.split(settings.batch)])
