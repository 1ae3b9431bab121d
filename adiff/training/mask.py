"""Mask inversion: a mask embedding e_m for each defect, learned from its shots' masks as pictures (Eq. 9).

Loss = || eps - eps_theta(z_t, t, e_m) ||^2 with z the encoded mask, white on black.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..backbone import Backbone
from ..datasets.augmentation import augment_mask
from ..embedding import K_MASK, first_embedding, join_condition
from ..library import Key
from ..memory import Parts
from ..pixels import masks_as_images
from ..progress import NullProgress, Progress
from .batch import Batch, first_scale
from .loop import Outcome, fit, step_generator
from .noising import add_noise, noise_like
from .settings import InversionSettings
from .shots import RecentLosses, check_shots, shot_digests
from .timesteps import draw_timesteps, fixed_timesteps, timestep_weights
from .validation import HELD_OUT, hold_out, samples_of_each
from .views import ENCODED, MEASURED, VIEWS


@dataclass(frozen=True)
class MaskSettings(InversionSettings):
    """How mask embeddings are learned. Raises InputError for what is not possible."""

    steps: int = 150
    batch: int = 8
    lr: float = 3e-2
    tokens: int = K_MASK


@dataclass(frozen=True)
class MaskResult:
    """What was learned.

    embeddings: e_m (k', D) of each defect. losses: recent loss of each. outcome: of the loop. held_out: place of each
    defect's held-out mask among its masks, empty where all were learned from.
    """

    embeddings: dict[Key, Tensor]
    losses: dict[Key, float]
    outcome: Outcome
    held_out: dict[Key, int] = field(default_factory=dict)


def train_masks(
    backbone: Backbone,
    masks: Mapping[Key, Sequence[np.ndarray]],
    *,
    settings: MaskSettings | None = None,
    seed: int = 0,
    progress: Progress | None = None,
    state: Path | None = None,
    names: Mapping[Key, Sequence[str]] | None = None,
    preview: Callable[[int, Mapping[Key, Tensor]], None] | None = None,
    preview_every: int = 50,
) -> MaskResult:
    """Learn e_m of every defect from its masks (H, W) bool, all in one loop; the backbone stays as it is.

    names: the masks' files, for messages. preview(steps done, e_m of each defect): called every `preview_every` steps.
    """
    settings = settings or MaskSettings()
    check_shots(masks, "masks")
    settings.check_turns(len(masks))
    taken, held = hold_out(masks, settings.early_stop)
    task = _Inversion(backbone, taken, settings, seed, progress)
    about = {
        "settings": asdict(settings), "shots": shot_digests(masks, names),
        "base": [backbone.fingerprint, backbone.weights], "dtype": str(backbone.dtype),
    }  # fmt: skip
    outcome = fit(
        task.parameters, task.batch, settings.schedule(), seed=seed, what="mask embeddings",
        progress=progress, state=state, about=about, notes=task.recent.notes,
        validation=settings.validation(task.held_out_loss(held, progress), len(held)) if held else None,
        preview=preview and (lambda done: preview(done, task.detached())), preview_every=preview_every,
        loss_scale=first_scale(backbone.dtype),
    )  # fmt: skip
    found = {key: e.float().cpu() for key, e in task.detached().items()}
    return MaskResult(found, task.recent.by_key(), outcome, {key: len(taken[key]) for key in held})


class _Inversion:
    """The embeddings, the bank of latents of each defect's masks, and the loss of samples of them."""

    def __init__(
        self, backbone: Backbone, masks: Mapping[Key, Sequence[np.ndarray]], settings: MaskSettings, seed: int,
        progress: Progress | None,
    ):  # fmt: skip
        self.backbone, self.keys, self.settings, self.seed = backbone, sorted(masks), settings, seed
        start = torch.Generator().manual_seed((seed + 1) % 2**64)
        self.embeddings = {
            key: first_embedding(backbone, settings.tokens, start).to(backbone.device) for key in self.keys
        }
        self.parameters = {f"mask {p}/{d}": e for (p, d), e in self.embeddings.items()}
        self.banks = self._encode([masks[key] for key in self.keys], settings.draws, progress)
        self.recent = RecentLosses(self.keys)

    def detached(self) -> dict[Key, Tensor]:
        """A copy of e_m of each defect."""
        return {key: e.detach().clone() for key, e in self.embeddings.items()}

    def batch(self, step: int, generator: torch.Generator) -> Batch:
        """Draw the samples of a step: the defects take turns; views, timesteps, noise."""
        size, law = self.settings.batch, self.settings.timesteps
        owners = [(step * size + i) % len(self.keys) for i in range(size)]
        banks = [self.banks[owner] for owner in owners]
        z = torch.stack([bank[int(torch.randint(len(bank), (), generator=generator))] for bank in banks])
        t = draw_timesteps(law, size, len(self.backbone.alphas_cumprod), generator)
        noise = noise_like(z, generator)
        weights = timestep_weights(law, self.backbone.alphas_cumprod, t)

        def losses(part: slice) -> Tensor:
            plain = self._losses(z[part], owners[part], t[part], noise[part])
            return plain * weights[part].to(plain)

        return Batch(size, losses, lambda found: self.recent.note(owners, found))

    def held_out_loss(self, masks: Mapping[Key, np.ndarray], progress: Progress | None) -> Callable[[], float]:
        """Return what measures Eq. 9 on views of one mask of each defect, at fixed timesteps, with fixed noise.

        At uniform timesteps and unweighted whatever is trained with, so that runs can be compared.
        """
        each = samples_of_each(len(masks))
        z = torch.cat(self._encode([[masks[key]] for key in self.keys], each, progress))
        t = fixed_timesteps(len(masks), each, len(self.backbone.alphas_cumprod))
        noise, owners = noise_like(z, step_generator(self.seed, HELD_OUT)), np.repeat(np.arange(len(masks)), each)
        parts = Parts(self.settings.batch, MEASURED)

        def measure() -> float:
            losses = parts.of(len(t), lambda p: self._losses(z[p], owners[p], t[p], noise[p]).tolist())
            return sum(losses) / len(t)

        return measure

    def _losses(self, z: Tensor, owners: Sequence[int], t: Tensor, noise: Tensor) -> Tensor:
        """Eq. 9 of samples: z, noise (B, 4, h, w), the numbers of their defects, t (B,). Returns (B,) float32."""
        e_m = torch.stack([self.embeddings[self.keys[owner]] for owner in owners])
        context = join_condition(e_m).context.to(z.dtype)
        predicted = self.backbone.predict_noise(add_noise(self.backbone, z, noise, t), t, context)
        return (predicted.float() - noise.float()).square().mean((1, 2, 3))

    def _encode(
        self, masks: Sequence[Sequence[np.ndarray]], draws: int, progress: Progress | None
    ) -> list[Tensor]:
        """Latents of the views of each defect's masks; masks[i] are those of defect i."""
        progress, banks = progress or NullProgress(), []
        progress.start(draws * sum(map(len, masks)), VIEWS)
        progress.update(0)
        for number, of_defect in enumerate(masks):
            done = sum(map(len, banks))
            banks.append(
                encode_masks(
                    self.backbone, of_defect, draws, (self.seed, number), self.settings.batch,
                    lambda encoded, before=done: progress.update(before + encoded),
                )
            )  # fmt: skip
        progress.finish()
        return banks


@torch.no_grad()
def encode_masks(
    backbone: Backbone, masks: Sequence[np.ndarray], draws: int, seed: tuple[int, int], batch: int,
    told: Callable[[int], object] = lambda encoded: None,
) -> Tensor:
    """Return latents (N, 4, h, w) of augmented masks as pictures, of the whole frame: e_m learns place and size too.

    told(pictures encoded by now): called after each batch.
    """
    pictures = []
    for place, mask in enumerate(masks):
        for draw in range(draws):
            rng = np.random.default_rng((*seed, place, draw))
            pictures.append(augment_mask(mask, backbone.native_size, rng))
    latents, parts = [], Parts(doing=ENCODED)
    for some in torch.from_numpy(np.stack(pictures)).split(batch):
        pixels = masks_as_images(some)
        latents += parts.of(len(pixels), lambda part, pixels=pixels: backbone.encode(pixels[part]))
        told(len(latents))
    return torch.stack(latents)
