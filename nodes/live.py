"""What is shown while something is learned: a sample of it, painted by the engine with few steps."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from ..adiff.contact_sheet import mask_picture, shot_tile
from ..adiff.datasets.images import Photo
from ..adiff.learning import Shots
from ..adiff.library import Key
from ..adiff.spatial_encoder import SpatialEncoder
from .gradients import LearningProgress, TrainableBackbone
from .pictures import side_by_side

STEPS, TILE, MASKS, SEED = 8, 256, 4, 0
"""Sampling steps; pixels of a picture's side; masks in a picture; of the noise, always the same so as to compare."""

Preview = Callable[[int, Mapping[Key, Tensor]], None]


def painted_preview(
    backbone: TrainableBackbone, shots: Mapping[Key, Shots], encoder: SpatialEncoder | None, progress: LearningProgress
) -> Preview:
    """Show a shot beside the same place painted with what is learned by now; the defects take turns."""
    from ..adiff.generation import GenerationSettings, make_pairs  # takes seconds to import

    settings = GenerationSettings(steps=STEPS, reweighting="off")
    turn = iter(range(1 << 62))

    def show(step: int, embeddings: Mapping[Key, Tensor]) -> None:
        key = list(embeddings)[next(turn) % len(embeddings)]
        image, mask = shots[key].pairs[0]
        generator = torch.Generator().manual_seed(SEED)
        photo = Photo(image, Path("/".join(key)))
        (pair,) = make_pairs(backbone, [photo], [mask], embeddings[key], encoder, settings, [generator])
        tiles = [shot_tile(one, mask, TILE) for one in (image, pair.image)]
        progress.show(step, side_by_side(tiles))

    return show


def mask_preview(backbone: TrainableBackbone, progress: LearningProgress) -> Preview:
    """Show masks sampled from what is learned by now, before any rule; the defects take turns."""
    from ..adiff.generation import MaskSampling
    from ..adiff.generation.mask import draw_candidates

    turn = iter(range(1 << 62))

    def show(step: int, embeddings: Mapping[Key, Tensor]) -> None:
        key = list(embeddings)[next(turn) % len(embeddings)]
        masks = draw_candidates(backbone, embeddings[key], MASKS, MaskSampling(steps=STEPS), SEED, 0)
        tiles = [Image.fromarray(mask_picture(mask)).resize((TILE // 2, TILE // 2)) for mask in masks]
        progress.show(step, side_by_side(tiles))

    return show
