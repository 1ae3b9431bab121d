"""Augmented views of shots, encoded once before a training and kept for all of it."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..backbone import Backbone
from ..datasets.augmentation import augment_pair
from ..geometry import FEW_CELLS, needs_crop
from ..latent_grid import latent_mask
from ..library import Key
from ..memory import Parts
from ..pixels import as_images
from ..progress import NullProgress, Progress
from ..spatial_encoder import SpatialEncoder
from .shots import ShotArrays

log = logging.getLogger("adiff")
ENCODER_BATCH = 64
VIEWS = "views of shots"
"""What the encoding of views is called while it goes on: with SD 1.5 on a CPU it takes minutes."""
ENCODED, MEASURED = "encoded", "measured"
"""What is done to views in parts where memory does not suffice: to have their latents, or a held-out loss."""


@dataclass(frozen=True)
class ViewBank:
    """Views of shots.

    latents: (N, 4, h, w). masks: (N, 1, S, S) bool on the CPU. cells: masks on the latent grid, (N, 1, h, w). owner:
    number of each view's defect. tokens: e_s of each mask where the encoder is frozen, (N, n, D).
    """

    latents: Tensor
    masks: Tensor
    cells: Tensor
    owner: np.ndarray
    tokens: Tensor | None = None


@torch.no_grad()
def draw_views(
    backbone: Backbone,
    shots: Sequence[Sequence[ShotArrays]],
    *,
    draws: int,
    seed: int,
    crop: bool | None = None,
    batch: int = 8,
    encoder: SpatialEncoder | None = None,
    progress: Progress | None = None,
) -> ViewBank:
    """Draw `draws` augmented views of every shot and encode them, `batch` at a time; shots[i] are those of defect i.

    crop: views cut to the defect's surroundings; None: where the defect is small. encoder: a frozen one, whose tokens
    are kept with the views.
    """
    owner = np.repeat(np.arange(len(shots)), [len(of_defect) * draws for of_defect in shots])
    views = _views(backbone, shots, draws, seed, crop)
    latents, masks, parts = [], [], Parts(doing=ENCODED)
    progress = progress or NullProgress()
    progress.start(len(owner), VIEWS)
    progress.update(0)  # the first batch alone may take a minute
    for first in range(0, len(owner), batch):
        images, some = zip(*(next(views) for _ in range(min(batch, len(owner) - first))), strict=True)
        pixels = as_images(np.stack(images))
        latents += parts.of(len(pixels), lambda part, pixels=pixels: backbone.encode(pixels[part]))
        masks.append(torch.from_numpy(np.stack(some))[:, None])
        progress.update(first + len(some))
    progress.finish()
    on = torch.cat(masks)
    cells = torch.cat([latent_mask(part, backbone.latent_downscale) for part in masks]).to(backbone.device)
    return ViewBank(torch.stack(latents), on, cells, owner, encoder and _encode_masks(encoder, on, backbone.device))


def choose_views(owner: np.ndarray, defects: int, batch: int, step: int, generator: torch.Generator) -> Tensor:
    """Choose `batch` views: the defects take turns, so that each gets the same share whatever its number of shots."""
    chosen = []
    for i in range(batch):
        of_defect = np.flatnonzero(owner == (step * batch + i) % defects)
        chosen.append(int(of_defect[int(torch.randint(len(of_defect), (), generator=generator))]))
    return torch.tensor(chosen)


def warn_of_few_cells(
    backbone: Backbone, shots: Mapping[Key, Sequence[ShotArrays]], names: Mapping[Key, Sequence[str]]
) -> None:
    """Say which masks are next to nothing on the latent grid where the whole frame is what is seen."""
    small = [
        f"{'/'.join(key)}: {name}"
        for key in sorted(shots)
        for name, (_, mask) in zip(names[key], shots[key], strict=True)
        if float(mask.mean()) * (backbone.native_size / backbone.latent_downscale) ** 2 < FEW_CELLS
    ]
    if small:
        log.warning(
            "%d masks cover fewer than %d latent cells of the whole frame, too few to learn a look from: %s; let their "
            "surroundings be cropped", len(small), FEW_CELLS, ", ".join(small),
        )  # fmt: skip


def _views(
    backbone: Backbone, shots: Sequence[Sequence[ShotArrays]], draws: int, seed: int, crop: bool | None
) -> Iterator[ShotArrays]:
    size = backbone.native_size
    for number, of_defect in enumerate(shots):
        for place, (image, mask) in enumerate(of_defect):
            cut = needs_crop(mask, size, backbone.latent_downscale) if crop is None else crop
            for draw in range(draws):
                rng = np.random.default_rng((seed, number, place, draw))
                yield augment_pair(image, mask, size, rng, crop=cut)


def _encode_masks(encoder: SpatialEncoder, masks: Tensor, device: torch.device) -> Tensor:
    encoder.eval()
    parts = Parts(ENCODER_BATCH, ENCODED)
    return torch.stack(parts.of(len(masks), lambda part: encoder(masks[part].to(device, torch.float32))))
