"""Learning a dual model: both branches of a pair in one batch, plain loss on both (METHOD 4).

| symbol | meaning | shape |
|---|---|---|
| z | clean latents of P wholes, then of their parts | (2, P, 4, h, w) |
| t, eps | timestep of a pair, the same for both branches; noise, each branch's own | (P,), (2, P, 4, h, w) |
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..backbone.attentions import EditableBackbone
from ..embedding import random_embedding
from ..errors import InputError
from ..geometry import Box, crop_resize, resize_mask
from ..library import Key
from ..progress import Progress
from ..training import Batch, Outcome, Schedule, fit
from ..training.batch import first_scale
from ..training.noising import add_noise, noise_like
from ..training.shots import ShotArrays, check_shots, shot_digests
from .file import DEFECT, OBJECT, nested_contexts
from .layers import RANK, SAIM, SAIM_RANK, DualEdit, new_weights
from .parts import part_of

log = logging.getLogger("adiff")

PAPER_STEPS, PAPER_BATCH, PAPER_LR = 5000, 4, 2e-5
"""DualAnoDiff, sec. 4.1."""
WEIGHT_DECAY = 1e-2
"""AdamW's in the release."""
FLIPS = {"none": ((),), "horizontal": ((), (1,)), "both": ((), (1,), (0,), (0, 1))}
"""Axes of (H, W) that the views of a shot are mirrored along, image and mask alike."""


@dataclass(frozen=True)
class DualSettings:
    """How a dual model is learned. Raises InputError for what is not possible.

    batch: pairs a step. lr: peak learning rate of LoRAs and SAIM; token_lr: of the learned tokens. rank: of the LoRAs.
    saim: `full`, `low` or `off`; saim_rank: inner width of `low`. tokens: k, of each of the two groups. flips: views of
    a shot, `none`, `horizontal` or `both`.
    """

    steps: int = PAPER_STEPS
    batch: int = PAPER_BATCH
    lr: float = PAPER_LR
    token_lr: float = 5e-3
    rank: int = RANK
    saim: str = "full"
    saim_rank: int = SAIM_RANK
    tokens: int = 8
    flips: str = "horizontal"

    def __post_init__(self) -> None:
        for name, known in (("saim", SAIM), ("flips", tuple(FLIPS))):
            if getattr(self, name) not in known:
                raise InputError(f"{name} {getattr(self, name)!r} is unknown; choose one of {', '.join(known)}")
        for name in ("batch", "rank", "saim_rank", "tokens"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)}; it must be at least 1")
        if not self.token_lr > 0:
            raise InputError(f"token_lr is {self.token_lr}; it must be above 0")
        self.schedule()

    def schedule(self) -> Schedule:
        """Return the schedule of a run."""
        return Schedule(self.steps, self.lr, weight_decay=WEIGHT_DECAY)


@dataclass(frozen=True)
class DualResult:
    """weights: of all attentions; object_tokens, defect_tokens: (k, D); float32 on the CPU. outcome: of the loop."""

    weights: dict[str, Tensor]
    object_tokens: Tensor
    defect_tokens: Tensor
    outcome: Outcome


def train_pair(
    backbone: EditableBackbone,
    key: Key,
    shots: Sequence[ShotArrays],
    *,
    settings: DualSettings | None = None,
    seed: int = 0,
    progress: Progress | None = None,
    state: Path | None = None,
    names: Sequence[str] | None = None,
) -> DualResult:
    """Learn LoRAs, SAIM and tokens for one defect type; the backbone stays as it is.

    With `state`, an interrupted run of the same settings goes on where it was. names: the shots' files, for messages.
    Raises InputError for no shots and for masks that are empty or cover everything.
    """
    settings = settings or DualSettings()
    check_shots({key: shots}, "shots")
    called = names or [f"shot {i + 1}" for i in range(len(shots))]
    for name, (_, mask) in zip(called, shots, strict=True):
        if not mask.any() or mask.all():
            raise InputError(
                f"the mask of {name} {'covers everything' if mask.any() else 'is empty'}; part and whole have to "
                "differ: give masks of the defect alone"
            )
    if len(shots) == 1:
        log.warning("one shot of %s: what is learned repeats it; give 3 or more", "/".join(key))
    task = _Pairs(backbone, shots, settings, seed)
    about: dict[str, Any] = {
        "settings": asdict(settings), "base": backbone.fingerprint,
        "shots": shot_digests({key: shots}, None if names is None else {key: names}),
    }  # fmt: skip
    outcome = fit(
        task.parameters, task.batch, settings.schedule(), seed=seed, what="dual model", progress=progress, state=state,
        about=about, rates=dict.fromkeys((OBJECT, DEFECT), settings.token_lr / settings.lr),
        loss_scale=first_scale(backbone.dtype),
    )  # fmt: skip
    found = {name: tensor.detach().float().cpu() for name, tensor in task.parameters.items()}
    return DualResult(object_tokens=found.pop(OBJECT), defect_tokens=found.pop(DEFECT), weights=found, outcome=outcome)


class _Pairs:
    """The parameters, and the loss of pairs of a bank of views."""

    def __init__(self, backbone: EditableBackbone, shots: Sequence[ShotArrays], settings: DualSettings, seed: int):
        self.backbone, self.settings = backbone, settings
        start = torch.Generator().manual_seed(seed)
        tokens = {name: random_embedding(settings.tokens, backbone.context_dim, start) for name in (OBJECT, DEFECT)}
        weights = new_weights(backbone.attentions, start, settings.rank, settings.saim, settings.saim_rank)
        self.parameters = {name: tensor.to(backbone.device) for name, tensor in (tokens | weights).items()}
        self.weights = {name: self.parameters[name] for name in weights}
        self.latents = encode_pairs(backbone, shots, settings.flips, settings.batch)

    def batch(self, step: int, generator: torch.Generator) -> Batch:
        """Draw the pairs of a step: views, timesteps, noise."""
        count = self.settings.batch
        index = torch.randint(self.latents.shape[1], (count,), generator=generator)
        t = torch.randint(len(self.backbone.alphas_cumprod), (count,), generator=generator)
        noise = noise_like(self.latents[:, index], generator)
        return Batch(count, lambda part: self._losses(self.latents[:, index[part]], t[part], noise[:, part]))

    def _losses(self, z: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        """|| eps - eps_theta(z_t, t, e) ||^2 over all cells of both branches of each pair; (P,) float32."""
        pairs = len(t)
        rows, both = torch.arange(2 * pairs).view(2, pairs), t.repeat(2)
        context = nested_contexts(self.parameters[OBJECT], self.parameters[DEFECT], pairs).to(z)
        z_t = add_noise(self.backbone, z.flatten(0, 1), noise.flatten(0, 1), both)
        predicted = self.backbone.predict_noise_edited(z_t, both, context, DualEdit(self.weights, rows))
        error = predicted.float().unflatten(0, (2, pairs)) - noise.float()
        return error.square().mean((0, 2, 3, 4))


@torch.no_grad()
def encode_pairs(backbone: EditableBackbone, shots: Sequence[ShotArrays], flips: str, batch: int = 4) -> Tensor:
    """Encode every view of every shot, whole and part mirrored alike; whole frames, brought to the model's square.

    Returns (2, N, 4, h, w): wholes, then parts.
    """
    size, views = backbone.native_size, []
    for image, mask in shots:
        whole = crop_resize(image, Box(0, 0, mask.shape[1], mask.shape[0]), size)
        part = part_of(whole, resize_mask(mask, size, size))
        both = np.stack([whole.astype(np.float32), part])
        views += [np.flip(both, [axis + 1 for axis in axes]) for axes in FLIPS[flips]]
    pixels = torch.from_numpy(np.stack(views, axis=1)).permute(0, 1, 4, 2, 3) / 127.5 - 1
    latents = [backbone.encode(some) for some in pixels.flatten(0, 1).split(batch)]
    return torch.cat(latents).unflatten(0, (2, -1))
