"""Learning a dual model: both branches of a pair in one batch, plain loss on both (METHOD 4).

| symbol | meaning | shape |
|---|---|---|
| z | clean latents of P wholes, then of their parts | (2, P, 4, h, w) |
| t, eps | timestep of a pair, the same for both branches; noise, each branch's own | (P,), (2, P, 4, h, w) |
| z_bg | latents of the wholes' backgrounds, for BCM | (P, 4, h, w) |
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..backbone.attentions import EditableBackbone
from ..embedding import first_embedding
from ..errors import InputError
from ..geometry import Box, crop_resize, resize_mask
from ..library import Key
from ..memory import Parts
from ..pixels import as_images
from ..progress import Progress
from ..training import Batch, Outcome, Schedule, Validation, fit
from ..training.batch import first_scale
from ..training.loop import step_generator
from ..training.noising import add_noise, noise_like
from ..training.shots import ShotArrays, check_shots, digest_of, shot_digests
from ..training.timesteps import fixed_timesteps
from ..training.validation import HELD_OUT, check_held_out, hold_out, samples_of_each, steps_between
from ..training.views import ENCODED, MEASURED
from .background import background_picture, encode_backgrounds, foregrounds_of, see_background
from .file import DEFECT, OBJECT, check_prompts, nested_contexts
from .layers import BCM, RANK, SAIM, SAIM_RANK, DualEdit, batch_of, branches_of, new_weights
from .memory import needs_checkpoints
from .parts import part_of

log = logging.getLogger("adiff")

PAPER_STEPS, PAPER_BATCH, PAPER_LR = 5000, 4, 2e-5
"""DualAnoDiff, sec. 4.1."""
SIZES = 64
"""Pixels that the side of what is learned on is a multiple of: a cell of the U-Net's coarsest grid."""
WEIGHT_DECAY = 1e-2
"""AdamW's in the release."""
FLIPS = {"none": ((),), "horizontal": ((), (1,)), "both": ((), (1,), (0,), (0, 1))}
"""Axes of (H, W) that the views of a shot are mirrored along, image and mask alike."""


@dataclass(frozen=True)
class DualSettings:
    """How a dual model is learned. Raises InputError for what is not possible.

    batch: pairs a step. lr: peak learning rate of LoRAs and SAIM; token_lr: of the learned tokens. rank: of the LoRAs.
    saim: `full`, `low` or `off`; saim_rank: inner width of `low`. tokens: k, of each of the two groups. nested: whether
    the whole's condition has the part's in it (`file.nested_contexts`). flips: views of a shot, `none`, `horizontal` or
    `both`. bcm: `paper`, `release` or `off`. early_stop: with 4 shots or more, end by the loss of one that is held out.
    size: side in pixels of the square that is learned on and sampled at, None for the base model's own.
    """

    steps: int = PAPER_STEPS
    batch: int = PAPER_BATCH
    lr: float = PAPER_LR
    token_lr: float = 5e-3
    rank: int = RANK
    saim: str = "full"
    saim_rank: int = SAIM_RANK
    tokens: int = 8
    nested: bool = True
    flips: str = "horizontal"
    bcm: str = "off"
    early_stop: bool = False
    size: int | None = None

    def __post_init__(self) -> None:
        for name, known in (("saim", SAIM), ("flips", tuple(FLIPS)), ("bcm", BCM)):
            if getattr(self, name) not in known:
                raise InputError(f"{name} {getattr(self, name)!r} is unknown; choose one of {', '.join(known)}")
        for name in ("batch", "rank", "saim_rank", "tokens"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)}; it must be at least 1")
        if self.size is not None and (self.size < SIZES or self.size % SIZES):
            raise InputError(f"size is {self.size}; it must be a multiple of {SIZES} pixels")
        if not self.token_lr > 0:
            raise InputError(f"token_lr is {self.token_lr}; it must be above 0")
        self.schedule()

    def schedule(self) -> Schedule:
        """Return the schedule of a run."""
        return Schedule(self.steps, self.lr, weight_decay=WEIGHT_DECAY)


@dataclass(frozen=True, eq=False)
class Learned:
    """weights: of all attentions; object_tokens, defect_tokens: (k, D). backgrounds: z_bg of the shots, for BCM.

    prompts: contexts in front of the tokens, (2, T, D), as given.
    """

    weights: dict[str, Tensor]
    object_tokens: Tensor
    defect_tokens: Tensor
    backgrounds: Tensor | None
    prompts: Tensor | None


@dataclass(frozen=True, eq=False)
class DualResult(Learned):
    """What was learned, float32 on the CPU. outcome: of the loop; held_out: number of the shot kept aside, or None."""

    outcome: Outcome
    held_out: int | None = None


def train_pair(
    backbone: EditableBackbone,
    key: Key,
    shots: Sequence[ShotArrays],
    *,
    foregrounds: Sequence[np.ndarray] | None = None,
    start: Mapping[str, Tensor] | None = None,
    prompts: Tensor | None = None,
    settings: DualSettings | None = None,
    seed: int = 0,
    progress: Progress | None = None,
    state: Path | None = None,
    names: Sequence[str] | None = None,
    preview: Callable[[int, Learned], None] | None = None,
    preview_every: int = 250,
    checkpoint: bool | None = None,
) -> DualResult:
    """Learn LoRAs, SAIM and tokens for one defect type, and BCM if asked for; the backbone stays as it is.

    foregrounds: where the object is in each shot, (H, W) bool, for BCM; without them it is told by its colour, with a
    word on how that went. start: weights to begin with in the place of new ones, of the same shapes. prompts: texts of
    whole and part as contexts (2, T, D), which stay as they are, in front of the tokens. With `state`, an interrupted
    run of the same settings goes on where it was. names: the shots' files, for messages. preview(steps
    done, what is learned by now): called every `preview_every` steps. checkpoint: whether the model's blocks are
    computed twice to save memory, None for where it does not suffice; what is learned is the same.
    Raises InputError for no shots, or too few to stop early, for masks that are empty or cover everything, and for
    foregrounds without BCM.
    """
    settings = settings or DualSettings()
    check_shots({key: shots}, "shots")
    if settings.early_stop:
        check_held_out({"/".join(key): len(shots)})
    called = names or [f"shot {i + 1}" for i in range(len(shots))]
    check_parts(shots, called)
    if prompts is not None:
        check_prompts(prompts, backbone.context_dim)
    if len(shots) == 1:
        log.warning("one shot of %s: what is learned repeats it; give 3 or more", "/".join(key))
    objects = _objects(shots, foregrounds, called, settings)
    known = [(shot, mask) for shot, mask in zip(shots, objects, strict=True)]
    taken, held = hold_out({key: known}, settings.early_stop)
    task = _Pairs(backbone, taken[key], settings, seed, start or {}, checkpoint, prompts)
    about: dict[str, Any] = {
        "settings": asdict(settings), "base": [backbone.fingerprint, backbone.weights], "dtype": str(backbone.dtype),
        "shots": shot_digests({key: shots}, None if names is None else {key: names}),
        **digests_of_given(foregrounds, start, prompts),
    }  # fmt: skip
    outcome = fit(
        task.parameters, task.batch, settings.schedule(), seed=seed, what="dual model", progress=progress, state=state,
        about=about, rates=dict.fromkeys((OBJECT, DEFECT), settings.token_lr / settings.lr),
        validation=task.validation(held[key]) if held else None,
        preview=preview and (lambda done: preview(done, task.learned())), preview_every=preview_every,
        loss_scale=first_scale(backbone.edited_dtype),
    )  # fmt: skip
    found = task.learned()
    return DualResult(
        {name: tensor.float().cpu() for name, tensor in found.weights.items()},
        *(tokens.float().cpu() for tokens in (found.object_tokens, found.defect_tokens)),
        backgrounds=None if found.backgrounds is None else found.backgrounds.float().cpu(),
        prompts=None if prompts is None else prompts.float().cpu(),
        outcome=outcome, held_out=len(taken[key]) if held else None,
    )  # fmt: skip


def digests_of_given(
    foregrounds: Sequence[np.ndarray] | None, start: Mapping[str, Tensor] | None, prompts: Tensor | None
) -> dict[str, list[str] | str]:
    """Digests of what a training was given beside the shots, of what it was: no other run's goes on with this one's."""
    told: dict[str, list[str] | str] = {}
    if foregrounds is not None:
        told["foreground"] = [digest_of(mask) for mask in foregrounds]
    if prompts is not None:
        told["prompts"] = digest_of(prompts.float().cpu().numpy())
    if start:
        told["start"] = digest_of(np.concatenate([start[name].flatten().cpu().numpy() for name in sorted(start)]))
    return told


def check_parts(shots: Sequence[ShotArrays], names: Sequence[str]) -> None:
    """Raise InputError for masks with which part and whole would be the same, or the part nothing."""
    for name, (_, mask) in zip(names, shots, strict=True):
        if not mask.any() or mask.all():
            raise InputError(
                f"the mask of {name} {'covers everything' if mask.any() else 'is empty'}; part and whole have to "
                "differ: give masks of the defect alone"
            )


def _objects(
    shots: Sequence[ShotArrays], foregrounds: Sequence[np.ndarray] | None, names: Sequence[str], settings: DualSettings
) -> list[np.ndarray | None]:
    """What BCM leaves out of each shot's background: the object and the defect; None where the object fills the frame.

    Without BCM there is none.
    """
    if settings.bcm == "off":
        if foregrounds is not None:
            raise InputError("foregrounds are for BCM, which is off; turn it on or leave them out")
        return [None] * len(shots)
    if foregrounds is not None and len(foregrounds) != len(shots):
        raise InputError(f"{len(foregrounds)} foregrounds for {len(shots)} shots; give one for each shot, in order")
    found = foregrounds_of([image for image, _ in shots], names) if foregrounds is None else foregrounds
    for name, one, (_, mask) in zip(names, found, shots, strict=True):
        if one is not None and one.shape != mask.shape:
            raise InputError(
                f"the foreground of {name} is {one.shape[1]}x{one.shape[0]}, its image "
                f"{mask.shape[1]}x{mask.shape[0]}; they must have the same size"
            )
    return [None if one is None else one | mask for one, (_, mask) in zip(found, shots, strict=True)]


def _begun(new: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What a training begins with of weights given; InputError if the settings ask for others."""
    wrong = [name for name, tensor in given.items() if name not in new or new[name].shape != tensor.shape]
    if wrong:
        raise InputError(
            f"the weights to begin with have {wrong[0]} {tuple(given[wrong[0]].shape)}, the settings ask for "
            f"{tuple(new[wrong[0]].shape) if wrong[0] in new else 'none'}; give the rank and the SAIM that they have"
        )
    return {name: tensor.clone() for name, tensor in given.items()}


Known = tuple[ShotArrays, np.ndarray | None]
"""A shot, and what is left out of its background."""


class _Pairs:
    """The parameters, and the loss of pairs of a bank of views."""

    def __init__(
        self, backbone: EditableBackbone, known: Sequence[Known], settings: DualSettings, seed: int,
        begin: Mapping[str, Tensor], checkpoint: bool | None = False, prompts: Tensor | None = None,
    ):  # fmt: skip
        self.backbone, self.settings, self.seed = backbone, settings, seed
        start = torch.Generator().manual_seed(seed)
        lengths = {OBJECT: settings.tokens * (1 if settings.nested else 2), DEFECT: settings.tokens}
        tokens = {name: first_embedding(backbone, length, start) for name, length in lengths.items()}
        weights = new_weights(
            backbone.attentions, start, settings.rank, settings.saim, settings.saim_rank, settings.bcm
        )
        weights |= _begun(weights, begin)
        self._decides = checkpoint is None
        if checkpoint is None:
            learned = sum(tensor.numel() for tensor in weights.values())
            size = settings.size or backbone.native_size
            checkpoint = needs_checkpoints(backbone, learned, 2 * settings.batch, size)
        self.checkpoint = checkpoint
        self.parameters = {name: tensor.to(backbone.device) for name, tensor in (tokens | weights).items()}
        self.weights = {name: self.parameters[name] for name in weights}
        self.prompts = None if prompts is None else prompts.to(backbone.device)
        self.latents, self.backgrounds = self._encode(known)

    def learned(self) -> Learned:
        """What is learned by now; the tensors are the parameters themselves, without gradients."""
        views = len(FLIPS[self.settings.flips])
        return Learned(
            {name: tensor.detach() for name, tensor in self.weights.items()},
            self.parameters[OBJECT].detach(), self.parameters[DEFECT].detach(),
            None if self.backgrounds is None else self.backgrounds[::views], self.prompts,
        )  # fmt: skip

    def batch(self, step: int, generator: torch.Generator) -> Batch:
        """Draw the pairs of a step: views, timesteps, noise."""
        index = torch.randint(self.latents.shape[1], (self.settings.batch,), generator=generator)
        t = torch.randint(len(self.backbone.alphas_cumprod), (len(index),), generator=generator)
        return self._drawn(self.latents[:, index], self.backgrounds, index, t, generator)

    def validation(self, held: Known) -> Validation:
        """Measure the loss of a shot that nothing is learned from, at fixed timesteps, with fixed noise."""
        latents, backgrounds = self._encode([held])
        t = fixed_timesteps(1, samples_of_each(1), len(self.backbone.alphas_cumprod))
        index = torch.arange(len(t)) % latents.shape[1]
        drawn = self._drawn(latents[:, index], backgrounds, index, t, step_generator(self.seed, HELD_OUT))
        parts = Parts(self.settings.batch, MEASURED)

        def measure() -> float:
            return sum(parts.of(len(t), lambda part: drawn.losses(part).tolist())) / len(t)

        return Validation(measure, steps_between(self.settings.steps))

    def _drawn(
        self, z: Tensor, backgrounds: Tensor | None, index: Tensor, t: Tensor, generator: torch.Generator
    ) -> Batch:
        noise = noise_like(z, generator)
        if backgrounds is None:
            return Batch(len(t), lambda part: self._losses(z[:, part], t[part], noise[:, part]), spare=self._spare)
        behind = backgrounds[index]
        over = noise_like(behind, generator)
        return Batch(
            len(t), lambda part: self._losses(z[:, part], t[part], noise[:, part], (behind[part], over[part])),
            spare=self._spare,
        )  # fmt: skip

    def _spare(self) -> bool:
        """Out of memory: compute the model's blocks twice from here on; False if they are, or are not to be."""
        if self.checkpoint or not self._decides:
            return False
        log.warning("out of memory: the model's blocks are computed twice from here on; what is learned stays the same")
        self.checkpoint = True
        return True

    def _losses(
        self, z: Tensor, t: Tensor, noise: Tensor, background: tuple[Tensor, Tensor] | None = None
    ) -> Tensor:
        """|| eps - eps_theta(z_t, t, e) ||^2 over all cells of both branches of each pair; (P,) float32.

        background: z_bg and its noise, for BCM.
        """
        pairs = len(t)
        rows, both = torch.arange(2 * pairs).view(2, pairs), t.repeat(2)
        context = nested_contexts(self.parameters[OBJECT], self.parameters[DEFECT], pairs, self.prompts).to(z)
        z_t = add_noise(self.backbone, batch_of(z), batch_of(noise), both)
        seen = None if background is None else see_background(self.backbone, *background, t)
        edit = DualEdit(self.weights, rows, seen)
        predicted = self.backbone.predict_noise_edited(z_t, both, context, edit, checkpoint=self.checkpoint)
        error = branches_of(predicted.float()) - noise.float()
        return error.square().mean((0, 2, 3, 4))

    def _encode(self, known: Sequence[Known]) -> tuple[Tensor, Tensor | None]:
        """Latents of all views of shots, (2, N, 4, h, w), and of their backgrounds (N, 4, h, w) for BCM."""
        flips, batch = self.settings.flips, self.settings.batch
        size = self.settings.size or self.backbone.native_size
        latents = encode_pairs(self.backbone, [shot for shot, _ in known], flips, size, batch)
        if self.settings.bcm == "off":
            return latents, None
        pictures = [background_picture(image, mask, size) for (image, _), mask in known]
        views = [np.flip(picture, axes) for picture in pictures for axes in FLIPS[flips]]
        return latents, encode_backgrounds(self.backbone, views, batch)


@torch.no_grad()
def encode_pairs(
    backbone: EditableBackbone, shots: Sequence[ShotArrays], flips: str, size: int, batch: int = 4
) -> Tensor:
    """Encode every view of every shot, whole and part mirrored alike; whole frames, brought to a square of `size`.

    Returns (2, N, 4, h, w): wholes, then parts.
    """
    views = []
    for image, mask in shots:
        whole = crop_resize(image, Box(0, 0, mask.shape[1], mask.shape[0]), size)
        part = part_of(whole, resize_mask(mask, size, size))
        both = np.stack([whole.astype(np.float32), part])
        views += [np.flip(both, [axis + 1 for axis in axes]) for axes in FLIPS[flips]]
    pixels = batch_of(as_images(np.stack(views, axis=1)))
    latents = Parts(batch, ENCODED).of(len(pixels), lambda part: backbone.encode(pixels[part]))
    return branches_of(torch.stack(latents))
