"""Masked inversion: anomaly embeddings and the spatial encoder, learned from few shots (Eq. 5, 6).

| symbol | meaning | shape |
|---|---|---|
| z_t, eps | noised latents of a shot, its noise | (B, 4, h, w) |
| m | anomaly mask on the latent grid | (B, 1, h, w) |
| e_a, e_s | anomaly embedding of the shot's defect, spatial embedding of its mask | (B, k, D), (B, n, D) |

Loss = || m * (eps - eps_theta(z_t, t, {e_a, e_s})) ||^2 over e_a (one per defect) and E (one for all).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor

from ..backbone import Backbone
from ..embedding import K_ANOMALY, first_embedding, join_condition
from ..errors import InputError
from ..library import Key
from ..memory import Parts
from ..progress import Progress
from ..spatial_encoder import SpatialEncoder
from ..spatial_encoder import fingerprint as encoder_fingerprint
from .batch import Batch, first_scale
from .loop import Outcome, fit, step_generator
from .noising import add_noise, noise_like
from .settings import InversionSettings, check_choice
from .shots import RecentLosses, ShotArrays, check_shots, shot_digests, shot_names
from .timesteps import draw_timesteps, fixed_timesteps, timestep_weights
from .validation import HELD_OUT, hold_out, samples_of_each
from .views import MEASURED, ViewBank, choose_views, draw_views, warn_of_few_cells

NORMALISATIONS = ("area", "release")


@dataclass(frozen=True)
class AnomalySettings(InversionSettings):
    """How anomaly embeddings are learned. Raises InputError for what is not possible.

    encoder_lr: for E where it is trained; lr is that of e_a. normalisation: `area` divides each sample's loss by its
    mask's area, `release` by all latent cells. crop: views cut to the defect's surroundings; None: where the defect is
    small. masked: with m in the loss; without, and without E, this is textual inversion (Gal et al. 2023, Eq. 2), to
    compare with. The rest as in InversionSettings.
    """

    steps: int = 100
    batch: int = 8
    lr: float = 5e-2
    tokens: int = K_ANOMALY
    encoder_lr: float = 1e-3
    normalisation: str = "area"
    crop: bool | None = None
    masked: bool = True

    def __post_init__(self) -> None:
        check_choice("normalisation", self.normalisation, NORMALISATIONS)
        super().__post_init__()


@dataclass(frozen=True)
class AnomalyResult:
    """What was learned.

    embeddings: e_a (k, D) of each defect. losses: recent masked loss of each. outcome: of the loop. held_out: place of
    each defect's held-out shot among its shots, empty where all were learned from.
    """

    embeddings: dict[Key, Tensor]
    encoder: SpatialEncoder | None
    losses: dict[Key, float]
    outcome: Outcome
    held_out: dict[Key, int] = field(default_factory=dict)


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
    names: Mapping[Key, Sequence[str]] | None = None,
    preview: Callable[[int, Mapping[Key, Tensor]], None] | None = None,
    preview_every: int = 50,
) -> AnomalyResult:
    """Learn e_a of every defect, and E with them unless it is frozen or None; the backbone stays as it is.

    Each starts as `first_embedding`. With `state`, an interrupted run of the same settings goes on where it was. names:
    the shots' files, for messages. preview(steps done, e_a of each defect): called every `preview_every` steps.
    Raises InputError for a defect without shots or an encoder of another width.
    """
    settings = settings or AnomalySettings()
    check_shots(shots, "shots")
    settings.check_turns(len(shots))
    _check_width(backbone, encoder)
    if settings.crop is False:
        warn_of_few_cells(backbone, shots, shot_names(shots, names))
    learned = encoder is not None and not freeze_encoder
    if encoder is not None:
        encoder.to(backbone.device).train(learned)
    taken, held = hold_out(shots, settings.early_stop)
    task = _Inversion(backbone, taken, encoder, learned, settings, seed, progress)
    about = {
        "settings": asdict(settings), "shots": shot_digests(shots, names),
        "base": [backbone.fingerprint, backbone.weights], "dtype": str(backbone.dtype),
        "encoder": "learned" if learned else encoder and encoder_fingerprint(encoder),
    }  # fmt: skip
    outcome = fit(
        task.parameters, task.batch, settings.schedule(), seed=seed, what="anomaly embeddings",
        progress=progress, state=state, about=about, notes=task.recent.notes,
        rates={n: settings.encoder_lr / settings.lr for n in task.parameters if n.startswith("encoder ")},
        validation=settings.validation(task.held_out_loss(held, progress), len(held)) if held else None,
        preview=preview and (lambda done: preview(done, task.detached())), preview_every=preview_every,
        loss_scale=first_scale(backbone.dtype),
    )  # fmt: skip
    if encoder is not None:
        encoder.eval()
    found = {key: e.float().cpu() for key, e in task.detached().items()}
    return AnomalyResult(found, encoder, task.recent.by_key(), outcome, {key: len(taken[key]) for key in held})


class _Inversion:
    """The embeddings, the encoder, and the loss of samples of a bank of views."""

    def __init__(
        self,
        backbone: Backbone,
        shots: Mapping[Key, Sequence[ShotArrays]],
        encoder: SpatialEncoder | None,
        learned: bool,
        settings: AnomalySettings,
        seed: int,
        progress: Progress | None,
    ):
        self.backbone, self.keys, self.settings, self.seed = backbone, sorted(shots), settings, seed
        self.encoder, self.learned = encoder, learned
        start = torch.Generator().manual_seed(seed)
        self.embeddings = {
            key: first_embedding(backbone, settings.tokens, start).to(backbone.device) for key in self.keys
        }
        self.parameters = {f"anomaly {p}/{d}": e for (p, d), e in self.embeddings.items()}
        if encoder is not None and learned:
            self.parameters |= {f"encoder {name}": p for name, p in encoder.named_parameters()}
        self.views = self._draw([shots[key] for key in self.keys], settings.draws, progress)
        if not settings.masked:
            self.views = replace(self.views, cells=torch.ones_like(self.views.cells))
        self.recent = RecentLosses(self.keys)

    def detached(self) -> dict[Key, Tensor]:
        """A copy of e_a of each defect."""
        return {key: e.detach().clone() for key, e in self.embeddings.items()}

    def batch(self, step: int, generator: torch.Generator) -> Batch:
        """Draw the samples of a step: views, timesteps, noise."""
        views, law = self.views, self.settings.timesteps
        index = choose_views(views.owner, len(self.keys), self.settings.batch, step, generator)
        t = draw_timesteps(law, len(index), len(self.backbone.alphas_cumprod), generator)
        noise = noise_like(views.latents[index], generator)
        weights = timestep_weights(law, self.backbone.alphas_cumprod, t)

        def losses(part: slice) -> Tensor:
            plain = self._losses(views, index[part], t[part], noise[part], self.settings.normalisation)
            return plain * weights[part].to(plain)

        return Batch(len(index), losses, lambda found: self.recent.note(views.owner[index.numpy()], found))

    def held_out_loss(self, shots: Mapping[Key, ShotArrays], progress: Progress | None) -> Callable[[], float]:
        """Return what measures Eq. 5 on views of one shot of each defect, at fixed timesteps, with fixed noise.

        Divided by area, at uniform timesteps and unweighted whatever is trained with, so that runs can be compared.
        """
        each = samples_of_each(len(shots))
        views = self._draw([[shots[key]] for key in self.keys], each, progress)
        t = fixed_timesteps(len(shots), each, len(self.backbone.alphas_cumprod))
        noise = noise_like(views.latents, step_generator(self.seed, HELD_OUT))
        index, parts = torch.arange(len(t)), Parts(self.settings.batch, MEASURED)

        def measure() -> float:
            losses = parts.of(len(t), lambda p: self._losses(views, index[p], t[p], noise[p], "area").tolist())
            return sum(losses) / len(t)

        return measure

    def _draw(self, shots: Sequence[Sequence[ShotArrays]], draws: int, progress: Progress | None) -> ViewBank:
        settings, frozen = self.settings, None if self.learned else self.encoder
        return draw_views(
            self.backbone, shots, draws=draws, seed=self.seed, crop=settings.crop, batch=settings.batch, encoder=frozen,
            progress=progress,
        )  # fmt: skip

    def _losses(self, views: ViewBank, index: Tensor, t: Tensor, noise: Tensor, normalisation: str) -> Tensor:
        """Eq. 5 of samples: `index` (B,) of views, t (B,), noise (B, 4, h, w). Returns (B,) float32."""
        z, cells = views.latents[index], views.cells[index]
        e_a = torch.stack([self.embeddings[self.keys[owner]] for owner in views.owner[index.numpy()]])
        context = join_condition(e_a, self._spatial(views, index)).context.to(z.dtype)
        predicted = self.backbone.predict_noise(add_noise(self.backbone, z, noise, t), t, context)
        return masked_loss(predicted.float() - noise.float(), cells, normalisation)

    def _spatial(self, views: ViewBank, index: Tensor) -> Tensor | None:
        """e_s of the views' masks, (B, n, D); a learned encoder sees each distinct mask once."""
        if not self.learned:
            return None if views.tokens is None else views.tokens[index]
        distinct, place = index.unique(return_inverse=True)
        return self.encoder(views.masks[distinct].to(self.backbone.device, torch.float32))[place]


def _check_width(backbone: Backbone, encoder: SpatialEncoder | None) -> None:
    if encoder is not None and encoder.dim != backbone.context_dim:
        raise InputError(
            f"the encoder's tokens are {encoder.dim} wide, the base model's context {backbone.context_dim}"
        )
