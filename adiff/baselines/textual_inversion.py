"""Plain textual inversion: tokens for whole photos of a defect (Gal et al., ICLR 2023, arXiv 2208.01618, Eq. 2).

| symbol | meaning | shape |
|---|---|---|
| z_t, eps | noised latents of a shot, its noise | (B, 4, h, w) |
| e_a | the tokens that are learned | (k, D) |

Loss = || eps - eps_theta(z_t, t, e_a) ||^2 over whole images: no spatial encoder, no mask in the loss. It is Eq. 5 of
AnomalyDiffusion with a mask that covers everything, so views, schedule and optimiser are those of its own inversion.
What was learned is painted inside a mask by blending alone (Eq. 1): nothing tells the model where the defect goes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from ..backbone import Backbone
from ..embedding import Condition, join_condition
from ..errors import InputError
from ..progress import Cancelled, Progress
from ..training import AnomalySettings, train_anomalies

KEY = ("product", "defect")


def learn_tokens(
    backbone: Backbone,
    shots: Sequence[tuple[np.ndarray, np.ndarray]],
    *,
    settings: AnomalySettings | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Tensor:
    """Learn e_a (k, D) from shots (image (H, W, 3) uint8, mask (H, W) bool), whose masks are not looked at.

    Raises InputError without shots or if the loss was not finite, Cancelled if stopped.
    """
    whole = [(image, np.ones(image.shape[:2], bool)) for image, _ in shots]
    settings = settings or AnomalySettings.for_base(backbone, [len(shots)], early_stop=False, crop=False)
    found = train_anomalies(
        backbone, {KEY: whole}, None, freeze_encoder=True, settings=settings, seed=seed, progress=progress
    )  # fmt: skip
    if found.outcome.stopped == "cancelled":
        raise Cancelled(f"stopped at step {found.outcome.steps}")
    if found.outcome.stopped == "not finite":
        raise InputError("the loss of textual inversion was not finite; give another seed, or look at the shots")
    return found.embeddings[KEY]


def textual_inversion(backbone: Backbone, embedding: Tensor, cells: Tensor) -> tuple[Condition, None]:
    """The condition under which masks (B, 1, h, w) are painted: e_a alone; no edit of the attention."""
    return join_condition(embedding.to(cells.device)[None].expand(len(cells), -1, -1)), None
