"""From the shots of a data set to the defects of a library: what is read, what is learned, what is recorded.

The two inversions themselves are in `training`; here their results become library entries.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from .datasets.readers import Dataset, few_shot_split, read_shots
from .errors import InputError
from .geometry import context_box, crop_resize, resize_mask
from .library import Defect, Key, Library, check_base, check_name, load_library
from .progress import Cancelled
from .scoring import describe
from .spatial_encoder import SpatialEncoder, fingerprint
from .versions import versions

if TYPE_CHECKING:
    from .backbone import Backbone
    from .progress import Progress
    from .training import AnomalySettings, MaskSettings, Outcome

PREVIEW = 96
"""Side of a library's pictures, pixels."""


@dataclass(frozen=True)
class Shots:
    """Shots of one defect, opened: images (H, W, 3) uint8 with masks (H, W) bool, and what is recorded of them."""

    pairs: list[tuple[np.ndarray, np.ndarray]]
    files: tuple[str, ...]
    held_out: tuple[str, ...]
    grey_masks: tuple[str, ...]

    @property
    def masks(self) -> list[np.ndarray]:
        return [mask for _, mask in self.pairs]


def open_shots(dataset: Dataset, count: int | None) -> dict[Key, Shots]:
    """Split every defect of a data set (`few_shot_split`) and open the shots to learn from."""
    opened = {}
    for (product, defect), shots in dataset.shots.items():
        check_name(product, "product")
        check_name(defect, "defect")
        taken, rest = few_shot_split(shots, count)
        files = read_shots(taken)
        opened[product, defect] = Shots(
            pairs=[(photo.rgb, mask.mask) for photo, mask in files],
            files=tuple(shot.image.relative_to(dataset.root).as_posix() for shot in taken),
            held_out=tuple(shot.image.relative_to(dataset.root).as_posix() for shot in rest),
            grey_masks=tuple(shot.mask.name for shot, (_, mask) in zip(taken, files, strict=True) if mask.grey),
        )
    return opened


def new_defect(key: Key, shots: Shots, backbone: Backbone) -> Defect:
    """An entry that nothing has been learned for yet: its picture, its shots' masks, descriptors and record."""
    image, mask = shots.pairs[0]
    size = backbone.native_size
    picture = crop_resize(image, context_box(mask, size), PREVIEW)
    return Defect(
        *key,
        preview=torch.from_numpy(np.ascontiguousarray(picture.transpose(2, 0, 1))),
        info={
            "shots": list(shots.files),
            "held_out": list(shots.held_out),
            "grey_masks": list(shots.grey_masks),
            "versions": versions(),
        },
        shot_masks=np.stack([resize_mask(mask, size, size) for mask in shots.masks]),
        likeness=torch.from_numpy(describe(backbone, [image for image, _ in shots.pairs], shots.masks)),
    )


def learn_anomalies(
    backbone: Backbone,
    entries: Mapping[Key, Defect],
    shots: Mapping[Key, Shots],
    encoder: SpatialEncoder | None,
    *,
    freeze_encoder: bool,
    settings: AnomalySettings,
    seed: int,
    progress: Progress | None = None,
    state: Path | None = None,
) -> tuple[dict[Key, Defect], SpatialEncoder | None]:
    """Learn e_a for each entry, all types together (`training.train_anomalies`).

    Returns the entries and the encoder. Raises Cancelled if stopped (the state is kept), InputError if the loss was
    not finite from the start; later on the last good state counts, see `check_finite`.
    """
    from .training import train_anomalies

    result = train_anomalies(
        backbone, {key: shots[key].pairs for key in entries}, encoder, freeze_encoder=freeze_encoder,
        settings=settings, seed=seed, progress=progress, state=state,
    )  # fmt: skip
    about = _told(result.outcome, seed) | {"encoder": fingerprint(result.encoder) if result.encoder else None}
    learned = {
        key: replace(entry, anomaly=result.embeddings[key], info=_noted(entry, "anomaly", about, result.losses))
        for key, entry in entries.items()
    }
    return learned, result.encoder


def learn_masks(
    backbone: Backbone,
    entries: Mapping[Key, Defect],
    shots: Mapping[Key, Shots],
    *,
    settings: MaskSettings,
    seed: int,
    progress: Progress | None = None,
    state: Path | None = None,
) -> dict[Key, Defect]:
    """Learn e_m for each entry (`training.train_masks`); returns the entries; raises as `learn_anomalies`."""
    from .training import train_masks

    masks = {key: shots[key].masks for key in entries}
    result = train_masks(backbone, masks, settings=settings, seed=seed, progress=progress, state=state)
    about = _told(result.outcome, seed)
    return {
        key: replace(entry, mask=result.embeddings[key], info=_noted(entry, "mask", about, result.losses))
        for key, entry in entries.items()
    }


def open_library(path: Path, backbone: Backbone) -> Library:
    """Read the library to add to, or begin an empty one; InputError if it belongs to another base model."""
    if not path.exists():
        return Library({}, backbone.fingerprint, backbone.name, backbone.context_dim)
    library = load_library(path)
    check_base(library, backbone)
    if library.base_fingerprint != backbone.fingerprint:
        raise InputError(
            f"{path} was learned on base {library.base_name!r}, not on {backbone.name!r}; "
            "give that base, another --out, or --restart"
        )
    return library


def check_finite(entries: Mapping[Key, Defect]) -> None:
    """Raise InputError if the training of an entry stopped at a loss that was not finite, saying what is kept."""
    for entry in entries.values():
        for kind in ("anomaly", "mask"):
            about = entry.info.get(kind, {})
            if about.get("stopped"):
                raise InputError(
                    f"the loss of {entry.name}'s {kind} embedding was {about['stopped']}; what is kept is the state "
                    f"of step {about['steps']}; --restart with another seed learns it again"
                )


def _told(outcome: Outcome, seed: int) -> dict[str, Any]:
    """The record of a training; raises for one that has nothing to keep."""
    if outcome.stopped == "cancelled":
        raise Cancelled(f"stopped at step {outcome.steps}")
    if outcome.stopped and outcome.steps == 0:
        raise InputError(f"the loss was {outcome.stopped} from the start, nothing was learned; look at the shots")
    about = {"seed": seed, "steps": outcome.steps}
    return about | {"stopped": outcome.stopped} if outcome.stopped else about


def _noted(entry: Defect, kind: str, about: Mapping[str, Any], losses: Mapping[Key, float]) -> dict[str, Any]:
    return {**entry.info, kind: {**about, "loss": losses.get(entry.key)}}
