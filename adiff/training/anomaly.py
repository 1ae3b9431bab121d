"""Masked inversion: anomaly embeddings and the spatial encoder, learned from few shots (Eq. 5, 6).

| symbol | meaning | shape |
|---|---|---|
| z_t, eps | noised latents of a shot, its noise | (B, 4, h, w) |
| m | anomaly mask on the latent grid | (B, 1, h, w) |
| e_a, e_s | anomaly embedding of the shot's defect, spatial embedding of its mask | (B, k, D), (B, n, D) |

Loss = || m * (eps - eps_theta(z_t, t, {e_a, e_s})) ||^2 over e_a (one per defect) and E (one for all).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..backbone import Backbone
from ..datasets.augmentation import augment_pair
from ..embedding import K_ANOMALY, join_condition, random_embedding
from ..errors import InputError
from ..geometry import latent_mask, needs_crop
from ..progress import Progress
from ..spatial_encoder import SpatialEncoder
from ..spatial_encoder import fingerprint as encoder_fingerprint
from .loop import Outcome, Schedule, fit
from .noising import add_noise, noise_like

NORMALISATIONS = ("area", "release")
Key = tuple[str, str]
ShotArrays = tuple[np.ndarray, np.ndarray]
"""A shot's image (H, W, 3) uint8 and mask (H, W) bool."""


@dataclass(frozen=True)
class AnomalySettings:
    """How anomaly embeddings are learned. Raises InputError for what is not possible.

    batch: samples a step, over all defects. lr: for e_a; encoder_lr: for E where it is trained. draws: augmented views
    of each shot, encoded once. normalisation: `area` divides each sample's loss by its mask's area, `release` by all
    latent cells. crop: views cut to the defect's surroundings; None: where the defect is small.
    """

    steps: int = 200
    batch: int = 8
    lr: float = 2e-2
    encoder_lr: float = 1e-3
    tokens: int = K_ANOMALY
    draws: int = 16
    normalisation: str = "area"
    crop: bool | None = None

    def __post_init__(self) -> None:
        if self.normalisation not in NORMALISATIONS:
            raise InputError(f"normalisation {self.normalisation!r} is unknown; choose one of {NORMALISATIONS}")
        check_counts(self, "steps", "batch", "tokens", "draws")


@dataclass(frozen=True)
class AnomalyResult:
    """embeddings: e_a (k, D) of each defect; losses: recent masked loss of each; outcome: of the loop."""

    embeddings: dict[Key, Tensor]
    encoder: SpatialEncoder | None
    losses: dict[Key, float]
    outcome: Outcome


@dataclass(frozen=True)
class ViewBank:
    """Views of all shots: latents (N, 4, h, w), pixel masks (N, 1, S, S), cells (N, 1, h, w), defect of each."""

    latents: Tensor
    masks: Tensor
    cells: Tensor
    owner: np.ndarray


def masked_loss(error: Tensor, cells: Tensor, normalisation: str = "area") -> Tensor:
    """|| m * error ||^2 of each sample (Eq. 5), over its mask's area (`area`) or over all latent cells (`release`).

    error: (B, C, h, w). cells: m, (B, 1, h, w). Returns (B,).
    """
    squared = (cells * error).square().sum((1, 2, 3)) / error.shape[1]
    if normalisation == "release":
        return squared / (cells.shape[2] * cells.shape[3])
    return squared / cells.sum((1, 2, 3)).clamp(min=1)


def train_anomalies(
    backbone: Backbone,
    shots: Mapping[Key, Sequence[ShotArrays]],
    encoder: SpatialEncoder | None,
    *,
    freeze_encoder: bool,
    settings: AnomalySettings | None = None,
    seed: int = 0,
    progress: Progress | None = None,
    state: Path | None = None,
) -> AnomalyResult:
    """Learn e_a of every defect, and E with them unless it is frozen or None; the backbone stays as it is.

    e_a starts random. With `state`, an interrupted run of the same settings goes on where it was.
    Raises InputError for a defect without shots or an encoder of another width.
    """
    settings = settings or AnomalySettings()
    _check(backbone, shots, encoder)
    keys = sorted(shots)
    start = torch.Generator().manual_seed(seed)
    embeddings = {
        key: random_embedding(settings.tokens, backbone.context_dim, start).to(backbone.device) for key in keys
    }
    views = draw_views(backbone, [shots[key] for key in keys], settings, seed)
    parameters = {f"anomaly {p} {d}": e for (p, d), e in embeddings.items()}
    learned = encoder is not None and not freeze_encoder
    if encoder is not None:
        encoder.to(backbone.device).train(learned)
        parameters |= {f"encoder {name}": p for name, p in encoder.named_parameters() if learned}
    fixed = None if encoder is None or learned else _encode_masks(encoder, views.masks)
    losses = RecentLosses(keys)

    def loss_at(step: int, generator: torch.Generator) -> Tensor:
        index = _choose(views.owner, len(keys), settings.batch, step, generator)
        z, cells = views.latents[index], views.cells[index]
        owners = views.owner[index.numpy()]
        e_a = torch.stack([embeddings[keys[o]] for o in owners])
        e_s = None if encoder is None else encoder(views.masks[index].to(e_a)) if learned else fixed[index]
        context = join_condition(e_a, e_s).context.to(z.dtype)
        t = torch.randint(0, len(backbone.alphas_cumprod), (len(index),), generator=generator)
        noise = noise_like(z, generator)
        predicted = backbone.predict_noise(add_noise(backbone, z, noise, t), t, context)
        per_sample = masked_loss(predicted.float() - noise.float(), cells, settings.normalisation)
        losses.note(owners, per_sample)
        return per_sample.mean()

    about = {
        "settings": asdict(settings), "shots": digest_of(shots), "base": backbone.fingerprint,
        "encoder": "learned" if learned else encoder and encoder_fingerprint(encoder),
    }  # fmt: skip
    outcome = fit(
        parameters, loss_at, Schedule(settings.steps, settings.lr), seed=seed, what="anomaly embeddings",
        progress=progress, state=state, about=about, notes=losses.notes,
        rates={n: settings.encoder_lr / settings.lr for n in parameters if n.startswith("encoder ")},
    )  # fmt: skip
    if encoder is not None:
        encoder.eval()
    return AnomalyResult(
        {k: e.detach().float().cpu() for k, e in embeddings.items()}, encoder, losses.by_key(), outcome
    )


@torch.no_grad()
def draw_views(
    backbone: Backbone, shots: Sequence[Sequence[ShotArrays]], settings: AnomalySettings, seed: int
) -> ViewBank:
    """Draw `settings.draws` augmented views of every shot and encode them once; shots[i] are those of defect i."""
    size, images, masks, owner = backbone.native_size, [], [], []
    for number, of_defect in enumerate(shots):
        for place, (image, mask) in enumerate(of_defect):
            crop = needs_crop(mask, size, backbone.latent_downscale) if settings.crop is None else settings.crop
            for draw in range(settings.draws):
                rng = np.random.default_rng((seed, number, place, draw))
                view, view_mask = augment_pair(image, mask, size, rng, crop=crop)
                images.append(view)
                masks.append(view_mask)
                owner.append(number)
    latents = []
    for i in range(0, len(images), settings.batch):
        batch = torch.from_numpy(np.stack(images[i : i + settings.batch])).permute(0, 3, 1, 2).float() / 127.5 - 1
        latents.append(backbone.encode(batch))
    on = torch.from_numpy(np.stack(masks))[:, None].float()
    cells = latent_mask(on, backbone.latent_downscale)
    return ViewBank(torch.cat(latents), on.to(backbone.device), cells.to(backbone.device), np.array(owner))


def _check(backbone: Backbone, shots: Mapping[Key, Sequence[ShotArrays]], encoder: SpatialEncoder | None) -> None:
    empty = ["/".join(key) for key, of_defect in shots.items() if not len(of_defect)]
    if not shots or empty:
        raise InputError(
            f"no shots to learn from{': ' + ', '.join(empty) if empty else ''}; give at least one a defect"
        )
    if encoder is not None and encoder.dim != backbone.context_dim:
        raise InputError(
            f"the encoder's tokens are {encoder.dim} wide, the base model's context {backbone.context_dim}"
        )


@torch.no_grad()
def _encode_masks(encoder: SpatialEncoder, masks: Tensor) -> Tensor:
    encoder.eval()
    return torch.cat([encoder(part) for part in masks.split(64)])


def _choose(owner: np.ndarray, defects: int, batch: int, step: int, generator: torch.Generator) -> Tensor:
    """Choose `batch` views: the defects take turns, so that each gets the same share whatever its number of shots."""
    chosen = []
    for i in range(batch):
        of_defect = np.flatnonzero(owner == (step * batch + i) % defects)
        chosen.append(int(of_defect[int(torch.randint(len(of_defect), (), generator=generator))]))
    return torch.tensor(chosen)


def check_counts(settings: object, *names: str) -> None:
    """Raise InputError for a setting that counts something and is below 1."""
    for name in names:
        if getattr(settings, name) < 1:
            raise InputError(f"{name} is {getattr(settings, name)}; it must be at least 1")


def digest_of(shots: Mapping[Key, Sequence]) -> str:
    """Return a sha256 over the shots' arrays, by which a run that goes on knows its data."""
    digest = hashlib.sha256()
    for key in sorted(shots):
        for shot in shots[key]:
            for array in shot if isinstance(shot, tuple) else (shot,):
                digest.update(repr((key, array.shape, array.dtype.str)).encode())
                digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


class RecentLosses:
    """The loss of each defect, averaged over its recent steps; `notes` is what a stored state keeps of it."""

    DECAY = 0.9

    def __init__(self, keys: Sequence[Key]):
        self.keys, self.notes = keys, {}

    def note(self, owners: Sequence[int], per_sample: Tensor) -> None:
        """Take in the losses (B,) of samples; owners[i]: the number of sample i's defect."""
        for owner, value in zip(owners, per_sample.detach().tolist(), strict=True):
            name = "/".join(self.keys[owner])
            self.notes[name] = self.DECAY * self.notes.get(name, value) + (1 - self.DECAY) * value

    def by_key(self) -> dict[Key, float]:
        """Return defect -> loss, of those that have one."""
        return {key: self.notes["/".join(key)] for key in self.keys if "/".join(key) in self.notes}
