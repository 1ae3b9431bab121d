"""From the shots of a defect to a dual model: what is learned, and what is recorded of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..backbone.attentions import EditableBackbone
from ..errors import InputError
from ..geometry import resize_mask
from ..learning import Shots
from ..library import Key
from ..progress import Cancelled, Progress
from ..scoring import describe
from ..training.shots import digest_of
from ..versions import versions
from .file import DualModel
from .layers import count_weights
from .training import DualSettings, Learned, digests_of_given, train_pair

DIGEST = 16
"""Hexadecimal digits kept of a shot's digest, as in a library."""


def learn_dual(
    backbone: EditableBackbone,
    key: Key,
    shots: Shots,
    *,
    foregrounds: Sequence[np.ndarray] | None = None,
    start: Mapping[str, Tensor] | None = None,
    prompts: Tensor | None = None,
    settings: DualSettings,
    seed: int = 0,
    progress: Progress | None = None,
    state: Path | None = None,
    preview: Callable[[int, Learned], None] | None = None,
    preview_every: int = 250,
    checkpoint: bool | None = None,
) -> DualModel:
    """Learn one defect type (`training.train_pair`) and put it together with what its pairs are measured against.

    Raises Cancelled if stopped (the state is kept), InputError if the loss was not finite from the start; later on the
    last good state counts, and the record says `stopped`.
    """
    result = train_pair(
        backbone, key, shots.pairs, foregrounds=foregrounds, start=start, prompts=prompts, settings=settings,
        seed=seed, progress=progress, state=state, names=shots.files, preview=preview, preview_every=preview_every,
        checkpoint=checkpoint,
    )
    outcome = result.outcome
    if outcome.stopped == "cancelled":
        raise Cancelled(f"stopped at step {outcome.steps}")
    if outcome.stopped == "not finite" and outcome.best == 0:
        raise InputError("the loss was not finite from the start, nothing was learned; use a lower learning rate")
    size = settings.size or backbone.native_size
    return DualModel(
        *key, result.weights, result.object_tokens, result.defect_tokens,
        shot_masks=np.stack([resize_mask(mask, size, size) for mask in shots.masks]),
        likeness=torch.from_numpy(describe(backbone, [image for image, _ in shots.pairs], shots.masks)),
        base_fingerprint=backbone.fingerprint, base_name=backbone.name,
        info={
            **shots_record(shots), "settings": asdict(settings), "seed": seed, "steps": outcome.steps,
            "loss": outcome.loss, "curve": [list(point) for point in outcome.curve], "stopped": outcome.stopped,
            "best": outcome.best, "validation": None if result.held_out is None else shots.files[result.held_out],
            "foregrounds": "none" if settings.bcm == "off" else "found" if foregrounds is None else "given",
            **digests_of_given(foregrounds, start, prompts), "parameters": count_weights(result.weights),
            "versions": versions(),
        },
        backgrounds=result.backgrounds, prompts=result.prompts,
    )  # fmt: skip


def shots_record(shots: Shots) -> dict[str, list[str]]:
    """What a record says of the shots: files, those held out, digests, masks that were not black and white."""
    return {
        "shots": list(shots.files), "held_out": list(shots.held_out),
        "digests": [digest_of(pair)[:DIGEST] for pair in shots.pairs], "grey_masks": list(shots.grey_masks),
    }  # fmt: skip
