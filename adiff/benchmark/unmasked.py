"""The ablation's inversion: as `training.anomaly`, with the loss over the whole image in place of Eq. 5.

| symbol | meaning | shape |
|---|---|---|
| z_t, eps | noised latents of a view, its noise | (B, 4, h, w) |
| e_a, e_s | anomaly embedding, spatial embedding E(m) of the view's mask | (B, k, D), (B, n, D) |

Loss = || eps - eps_theta(z_t, t, {e_a, e_s}) ||^2, mean over all cells; without E this is plain textual inversion (Gal
et al., ICLR 2023, Eq. 2).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor

from ..backbone import Backbone
from ..embedding import join_condition, random_embedding
from ..errors import InputError
from ..library import Key
from ..progress import Cancelled, Progress
from ..spatial_encoder import SpatialEncoder
from ..training import AnomalySettings, Batch, fit
from ..training.noising import add_noise, noise_like
from ..training.shots import ShotArrays, check_shots, shot_digests
from ..training.timesteps import draw_timesteps
from ..training.views import ViewBank, choose_views, draw_views


def learn_unmasked(
    backbone: Backbone,
    shots: Mapping[Key, Sequence[ShotArrays]],
    encoder: SpatialEncoder | None,
    *,
    freeze_encoder: bool,
    settings: AnomalySettings,
    seed: int = 0,
    progress: Progress | None = None,
    state: Path | None = None,
) -> dict[Key, Tensor]:
    """Learn e_a (k, D) of every defect, and E with them unless it is frozen or None, without m in the loss.

    The same views, start, batches and noise as `train_anomalies` of the same seed without early stopping. Raises
    Cancelled if stopped (the state is kept), InputError if the loss was not finite.
    """
    check_shots(shots, "shots")
    keys, learned = sorted(shots), encoder is not None and not freeze_encoder
    if encoder is not None:
        encoder.to(backbone.device).train(learned)
    start = torch.Generator().manual_seed(seed)
    embeddings = [random_embedding(settings.tokens, backbone.context_dim, start).to(backbone.device) for _ in keys]
    parameters = {"/".join(key): e for key, e in zip(keys, embeddings, strict=True)}
    if encoder is not None and learned:
        parameters |= {f"encoder {name}": p for name, p in encoder.named_parameters()}
    views = draw_views(
        backbone, [shots[key] for key in keys], draws=settings.draws, seed=seed, crop=settings.crop,
        batch=settings.batch, encoder=None if learned else encoder,
    )  # fmt: skip

    def batch(step: int, generator: torch.Generator) -> Batch:
        index = choose_views(views.owner, len(keys), settings.batch, step, generator)
        t = draw_timesteps(settings.timesteps, len(index), len(backbone.alphas_cumprod), generator)
        noise = noise_like(views.latents[index], generator)

        def losses(part: slice) -> Tensor:
            chosen = index[part]
            e_a = torch.stack([embeddings[owner] for owner in views.owner[chosen.numpy()]])
            z = views.latents[chosen]
            context = join_condition(e_a, _spatial(views, chosen, encoder)).context.to(z.dtype)
            predicted = backbone.predict_noise(add_noise(backbone, z, noise[part], t[part]), t[part], context)
            return (predicted.float() - noise[part].float()).square().mean((1, 2, 3))

        return Batch(len(index), losses)

    outcome = fit(
        parameters, batch, settings.schedule(), seed=seed, what="embeddings, unmasked", progress=progress, state=state,
        about={"settings": asdict(settings), "shots": shot_digests(shots), "base": backbone.fingerprint},
        rates={name: settings.encoder_lr / settings.lr for name in parameters if name.startswith("encoder ")},
    )  # fmt: skip
    if encoder is not None:
        encoder.eval()
    if outcome.stopped == "cancelled":
        raise Cancelled(f"stopped at step {outcome.steps}")
    if outcome.stopped:
        raise InputError(f"the loss was {outcome.stopped} at step {outcome.steps}; give another seed")
    return {key: e.detach().float().cpu() for key, e in zip(keys, embeddings, strict=True)}


def _spatial(views: ViewBank, index: Tensor, encoder: SpatialEncoder | None) -> Tensor | None:
    """e_s of views, (B, n, D): as they were drawn with a frozen E, else through E as it is now."""
    if encoder is None or views.tokens is not None:
        return None if views.tokens is None else views.tokens[index]
    return encoder(views.masks[index].to(next(encoder.parameters())))
