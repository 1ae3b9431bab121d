"""The library that ships with the demo model: the withheld combinations, learned from 5 shots each."""

from dataclasses import replace
from pathlib import Path

from adiff.backbone import Backbone
from adiff.datasets.surfaces import WITHHELD
from adiff.learning import Shots, learn_anomalies, learn_masks, new_defect
from adiff.library import Library, save_library
from adiff.progress import Progress
from adiff.spatial_encoder import SpatialEncoder, fingerprint
from adiff.training import AnomalySettings, MaskSettings

from .gates import SHOTS, shots_of

STEPS = 200


def train_library(backbone: Backbone, encoder: SpatialEncoder, path: Path, *, seed: int, progress: Progress) -> None:
    """Learn e_a and e_m of each withheld combination as a user would, the encoder frozen, and write them to `path`."""
    shots = {}
    for key in WITHHELD:
        files = tuple(f"{'-'.join(key)}-{index}.png" for index in range(SHOTS))
        shots[key] = Shots(shots_of(seed, key, SHOTS, "shots"), files, (), ())
    entries = {key: new_defect(key, shots[key], backbone) for key in shots}
    entries, _ = learn_anomalies(backbone, entries, shots, encoder, freeze_encoder=True, seed=seed, progress=progress,
                                 settings=AnomalySettings(steps=STEPS, batch=12, early_stop=False))  # fmt: skip
    entries = learn_masks(backbone, entries, shots, seed=seed, progress=progress,
                          settings=MaskSettings(steps=STEPS, batch=12, early_stop=False))  # fmt: skip
    about = {"about": "drawn surfaces, withheld from the demo model's training", "licence": "CC0-1.0"}
    entries = {key: replace(entry, info={**entry.info, **about}) for key, entry in entries.items()}
    save_library(path, Library(entries, backbone.fingerprint, backbone.name, backbone.context_dim,
                               fingerprint(encoder)))  # fmt: skip
