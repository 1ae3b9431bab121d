"""Mask generation: sample a mask embedding with guidance, decode, threshold, keep what passes the rules (Eq. 10).

It may begin at a noised view of a real mask instead of noise alone (Meng et al. 2022, SDEdit): few draws are empty or
too large then, and new shapes keep to the real ones, the more the less noise.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..backbone import Backbone
from ..datasets.augmentation import augment_mask
from ..embedding import join_condition
from ..errors import InputError
from ..masks import MaskRules, best_aligned_iou, check_mask, clean_mask
from ..memory import Parts
from ..pixels import masks_as_images
from ..progress import NullProgress, Progress
from .sampler import sample_plain
from .seeds import generator_for, rng_for
from .settings import MaskSampling


class TooFewMasks(InputError):
    """The tries are spent; found: the masks that passed."""

    def __init__(self, message: str, found: list[GeneratedMask]):
        super().__init__(message)
        self.found = found


@dataclass(frozen=True)
class GeneratedMask:
    """mask: (S, S) bool at the model's native size; iou: best aligned IoU with a shot's mask; candidate: which draw."""

    mask: np.ndarray
    iou: float
    candidate: int


def sample_masks(
    backbone: Backbone,
    embedding: Tensor,
    count: int,
    *,
    rules: MaskRules,
    shots: Sequence[np.ndarray],
    settings: MaskSampling | None = None,
    seed: int | Sequence[int] = 0,
    progress: Progress | None = None,
    parts: Parts | None = None,
) -> list[GeneratedMask]:
    """Sample `count` masks from e_m (k', D); every one comes out of the diffusion sampler and passes the rules.

    shots: the defect's real masks at native size, to begin at and for the report of likeness; without any, masks begin
    at noise. Candidate i depends on (seed, i) alone.
    parts: what is known of the device's memory.
    Raises TooFewMasks when the tries are spent, saying which rules the candidates broke.
    """
    settings, progress, parts = settings or MaskSampling(), progress or NullProgress(), parts or Parts()
    found: list[GeneratedMask] = []
    broken: Counter[str] = Counter()
    drawn = 0
    if count < 1:
        raise InputError(f"{count} masks were asked for; ask for at least 1")
    progress.start(count, "masks")
    while len(found) < count:
        # a share of failures is expected, so a last, small batch is drawn a little larger than what is left
        ahead = min(settings.batch, max(4, round(1.5 * (count - len(found)))), settings.tries * count - drawn)
        if ahead <= 0:
            reasons = ", ".join(f"{rule} ({n})" for rule, n in broken.most_common())
            raise TooFewMasks(
                f"only {len(found)} of {count} masks passed in {drawn} tries; broken: {reasons}; sample with "
                "another guidance, train it longer, from more varied shots, or use the shots' own masks, varied, or "
                "drawn ones",
                found,
            )

        def draw(part: slice, first: int = drawn) -> list[np.ndarray]:
            of_part = part.stop - part.start, settings, seed, first + part.start
            return list(draw_candidates(backbone, embedding, *of_part, shots))

        masks = parts.of(ahead, draw)
        for number, mask in enumerate(masks, drawn):
            mask = clean_mask(mask, rules.min_component)
            faults = check_mask(mask, rules)
            broken.update(faults)
            if not faults and len(found) < count:
                found.append(GeneratedMask(mask, best_aligned_iou(mask, shots) if len(shots) else 0.0, number))
        drawn += ahead
        progress.update(len(found), tries=drawn)
    progress.finish()
    return found


@torch.no_grad()
def draw_candidates(
    backbone: Backbone, embedding: Tensor, count: int, settings: MaskSampling, seed: int | Sequence[int], first: int,
    shots: Sequence[np.ndarray] = (),
) -> np.ndarray:  # fmt: skip
    """Draw candidates from number `first`: decode, mean over channels, threshold (Eq. 10). (count, S, S) bool.

    shots: real masks (h, w) bool to begin at; without any, or with a `denoise` of 1, candidates begin at noise.
    """
    numbers, settings = range(first, first + count), settings.on(backbone)
    generators = [generator_for(seed, "mask", number) for number in numbers]
    condition = join_condition(embedding.to(backbone.device)[None].expand(count, -1, -1))
    y = None
    if len(shots) and settings.denoise < 1:
        views = [_view(shots, backbone.native_size, rng_for(seed, "view of a mask", number)) for number in numbers]
        y = backbone.encode(masks_as_images(torch.from_numpy(np.stack(views))))
    latents = sample_plain(backbone, condition, settings.steps, settings.guidance, generators, y, settings.denoise)
    brightness = (backbone.decode(latents).float().mean(1) + 1) / 2
    return (brightness > settings.threshold).cpu().numpy()


def _view(shots: Sequence[np.ndarray], size: int, rng: np.random.Generator) -> np.ndarray:
    """A view of one of the masks, as e_m was learned from."""
    return augment_mask(shots[int(rng.integers(len(shots)))], size, rng)
