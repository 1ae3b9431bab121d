"""The small spatial encoder that ships with the demo model: trained with the library's own masked inversion."""

from pathlib import Path

from adiff.backbone import Backbone
from adiff.progress import Progress
from adiff.spatial_encoder import SpatialEncoder, save_encoder
from adiff.training import AnomalySettings, train_anomalies

from .bank import Bank

SHOTS = 40  # of each known defect


def train_encoder(
    bank: Bank, backbone: Backbone, path: Path, *, seed: int, steps: int, progress: Progress, state: Path
) -> None:
    """Train E jointly with e_a of every known combination (Eq. 5) and write it to `path`; the e_a are not kept."""
    shots: dict[tuple[str, str], list] = {}
    for index in bank.defective:
        product, defect = bank.kinds[index]
        of_kind = shots.setdefault((product, defect), [])
        if len(of_kind) < SHOTS:
            of_kind.append((bank.images[index], bank.masks[index]))
    settings = AnomalySettings(steps=steps, batch=16, lr=1e-2, encoder_lr=1e-3, draws=3, early_stop=False)
    result = train_anomalies(backbone, shots, SpatialEncoder("small", dim=backbone.context_dim, seed=seed),
                             freeze_encoder=False, settings=settings, seed=seed, progress=progress, state=state)
    info = {"base": backbone.name, "base_fingerprint": backbone.fingerprint, "steps": steps, "seed": seed,
            "trained_on": "surfaces, all but the withheld combinations", "loss": result.outcome.loss}
    save_encoder(path, result.encoder, info)
