"""From the shots of a data set to the defects of a library: what is read, what is learned, what is recorded.

The two inversions themselves are in `training`; here their results become library entries.
"""

from __future__ import annotations

import hashlib
import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from .backbone import is_small
from .datasets.readers import Dataset, Shot, few_shot_split, read_shots
from .errors import InputError
from .geometry import context_box, crop_resize, resize_mask
from .library import Defect, Key, Library, check_base, check_name, load_library
from .library_edit import OF_SHOTS, check_apart, record_of
from .progress import Cancelled
from .scoring import describe
from .spatial_encoder import SpatialEncoder, fingerprint
from .versions import versions

if TYPE_CHECKING:
    from .backbone import Backbone
    from .progress import Progress
    from .training import AnomalyResult, AnomalySettings, MaskResult, MaskSettings

    Preview = Callable[[int, Mapping[Key, Tensor]], None]

log = logging.getLogger("adiff")
PREVIEW = 96
"""Side of a library's pictures, pixels."""
GROWTH = 3.0
"""How many times as large a mask may become at the base's size without a word; thin parts widen to a pixel."""
DIGEST = 16
"""Hexadecimal digits kept of a shot's digest."""
CURVE_DIGITS = 4
"""Significant digits of the losses in a recorded curve."""


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
    """Split every defect of a data set (`few_shot_split`) and open the shots to learn from.

    Warns of image files that are the same, byte for byte, as one to learn from. Raises InputError for names that do not
    do, or look alike.
    """
    opened, splits, names = {}, [], []
    for (product, defect), shots in dataset.shots.items():
        check_name(product, "product")
        check_name(defect, "defect")
        check_apart(f"{product}/{defect}", names)
        names.append(f"{product}/{defect}")
        taken, rest = few_shot_split(shots, count)
        splits.append((taken, rest))
        files = read_shots(taken)
        opened[product, defect] = Shots(
            pairs=[(photo.rgb, mask.mask) for photo, mask in files],
            files=tuple(shot.image.relative_to(dataset.root).as_posix() for shot in taken),
            held_out=tuple(shot.image.relative_to(dataset.root).as_posix() for shot in rest),
            grey_masks=tuple(shot.mask.name for shot, (_, mask) in zip(taken, files, strict=True) if mask.grey),
        )
    _warn_of_repeated(dataset.root, splits)
    return opened


def new_defect(key: Key, shots: Shots, backbone: Backbone) -> Defect:
    """An entry that nothing has been learned for yet: its picture, its shots' masks, descriptors and record."""
    from .training.shots import digest_of

    image, mask = shots.pairs[0]
    size = backbone.native_size
    picture = crop_resize(image, context_box(mask, size), PREVIEW)
    masks = [resize_mask(mask, size, size) for mask in shots.masks]
    growth = max(new.mean() / mask.mean() for new, mask in zip(masks, shots.masks, strict=True))
    if growth > GROWTH:
        log.warning("%s: a mask this small is %.0f times as large in the base's %d x %d pixels, as are masks made of "
                    "it; cut the photos closer to the defect, or give `adiff generate` masks of your own",
                    "/".join(key), growth, size, size)  # fmt: skip
    return Defect(
        *key,
        preview=torch.from_numpy(np.ascontiguousarray(rearrange(picture, "h w c -> c h w"))),
        info={
            "shots": list(shots.files),
            "held_out": list(shots.held_out),
            "digests": [digest_of(pair)[:DIGEST] for pair in shots.pairs],
            "grey_masks": list(shots.grey_masks),
            "versions": versions(),
        },
        shot_masks=np.stack(masks),
        likeness=torch.from_numpy(describe(backbone, [image for image, _ in shots.pairs], shots.masks)),
    )


def new_encoder(backbone: Backbone, seed: int, **tokens: int) -> SpatialEncoder:
    """A spatial encoder for a base model, to be learned from the start; tokens: of each mask, unless the paper's."""
    variant = "small" if is_small(backbone) else "base"
    return SpatialEncoder(variant, dim=backbone.context_dim, seed=seed, **tokens)


def with_shots(entry: Defect | None, key: Key, shots: Shots, backbone: Backbone) -> Defect:
    """An entry that knows its shots: as it is; one that was imported, or is none yet, with what `new_defect` tells."""
    if entry is not None and "shots" in record_of(entry) and entry.shot_masks is not None:
        return entry
    new = new_defect(key, shots, backbone)
    if entry is None:
        return new
    told = {part: getattr(new, part) for part in OF_SHOTS if getattr(entry, part) is None}
    return replace(entry, info={**new.info, **record_of(entry)}, **told)


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
    preview: Preview | None = None,
    preview_every: int = 50,
) -> tuple[dict[Key, Defect], SpatialEncoder | None]:
    """Learn e_a for each entry, all types together (`training.train_anomalies`).

    preview(steps done, e_a of each defect): called every `preview_every` steps; changes nothing of what is learned.
    Returns the entries and the encoder. Raises Cancelled if stopped (the state is kept), InputError if the loss was
    not finite from the start; later on the last good state counts, see `check_finite`.
    """
    from .training import train_anomalies

    result = train_anomalies(
        backbone, {key: shots[key].pairs for key in entries}, encoder, freeze_encoder=freeze_encoder,
        settings=settings, seed=seed, progress=progress, state=state, names={key: shots[key].files for key in entries},
        preview=preview, preview_every=preview_every,
    )  # fmt: skip
    about = _told(result, seed) | {"encoder": fingerprint(result.encoder) if result.encoder else None}
    learned = {
        key: replace(entry, anomaly=result.embeddings[key], info=_noted(entry, "anomaly", about, result, shots[key]))
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
    preview: Preview | None = None,
    preview_every: int = 50,
) -> dict[Key, Defect]:
    """Learn e_m for each entry (`training.train_masks`); returns the entries; raises as `learn_anomalies`."""
    from .training import train_masks

    masks = {key: shots[key].masks for key in entries}
    result = train_masks(
        backbone, masks, settings=settings, seed=seed, progress=progress, state=state,
        names={key: shots[key].files for key in entries}, preview=preview, preview_every=preview_every,
    )  # fmt: skip
    about = _told(result, seed)
    return {
        key: replace(entry, mask=result.embeddings[key], info=_noted(entry, "mask", about, result, shots[key]))
        for key, entry in entries.items()
    }


def open_library(
    path: Path, backbone: Backbone, edit: Callable[[Library], Library] = lambda library: library
) -> Library:  # fmt: skip
    """Read the library to add to, or begin an empty one; InputError if what `edit` leaves is of another base model."""
    if not path.exists():
        return Library({}, backbone.fingerprint, backbone.name, backbone.context_dim)
    library = edit(load_library(path))
    check_base(library, backbone)
    if library.base_fingerprint != backbone.fingerprint:
        raise InputError(
            f"{path} was learned on base {library.base_name!r}, not on {backbone.name!r}; "
            "give that base, another --out, or --restart"
        )
    return library


def changed_shots(entry: Defect, shots: Shots) -> list[str]:
    """Return the files among an entry's shots whose picture or mask is not the one that it was learned from."""
    from .training.shots import digest_of

    before = dict(zip(entry.info.get("shots", ()), entry.info.get("digests", ()), strict=False))
    now = {file: digest_of(pair)[:DIGEST] for file, pair in zip(shots.files, shots.pairs, strict=True)}
    return [file for file, digest in now.items() if before.get(file, digest) != digest]


def check_finite(entries: Mapping[Key, Defect]) -> None:
    """Raise InputError if the training of an entry stopped at a loss that was not finite, saying what is kept."""
    for entry in entries.values():
        for kind in ("anomaly", "mask"):
            about = entry.info.get(kind, {})
            if about.get("stopped") == "not finite":
                raise InputError(
                    f"the loss of {entry.name}'s {kind} embedding was not finite; what is kept is the state "
                    f"of step {about['best']}; --restart with another seed learns it again"
                )


def _told(result: AnomalyResult | MaskResult, seed: int) -> dict[str, Any]:
    """The record of a training; raises for one that has nothing to keep of some defect."""
    outcome, drawn = result.outcome, len(result.losses) == len(result.embeddings)
    if outcome.stopped == "cancelled":
        raise Cancelled(f"stopped at step {outcome.steps}")
    if outcome.stopped and (outcome.best == 0 or not drawn):
        raise InputError(f"the loss was {outcome.stopped} from the start, nothing was learned; look at the shots")
    curve = [[step, _short(loss), None if held is None else _short(held)] for step, loss, held in outcome.curve]
    return {
        "seed": seed, "steps": outcome.steps, "stopped": outcome.stopped, "best": outcome.best, "curve": curve
    }  # fmt: skip


def _short(loss: float) -> float:
    return float(f"{loss:.{CURVE_DIGITS}g}")


def _noted(
    entry: Defect, kind: str, about: Mapping[str, Any], result: AnomalyResult | MaskResult, shots: Shots
) -> dict[str, Any]:
    """An entry's record with that of a training; `validation`: the shot that only decided when to stop, or None."""
    held_out = result.held_out.get(entry.key)
    validation = None if held_out is None else shots.files[held_out]
    return {**entry.info, kind: {**about, "loss": result.losses[entry.key], "validation": validation}}


def _warn_of_repeated(root: Path, splits: Sequence[tuple[Sequence[Shot], Sequence[Shot]]]) -> None:
    """Warn of images that are learned from and are the same file as another shot's, to be tested on or learned from."""
    taken = {shot.image: None for learned, _ in splits for shot in learned}
    rest = {shot.image: None for _, others in splits for shot in others}
    sizes = Counter(path.stat().st_size for path in (*taken, *rest))
    first: dict[str, Path] = {}
    for path in (*taken, *rest):
        if sizes[path.stat().st_size] == 1:  # the same file has the same size: most need not be read
            continue
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        known = first.setdefault(digest, path) if path in taken else first.get(digest, path)
        if known != path:
            names = path.relative_to(root).as_posix(), known.relative_to(root).as_posix()
            if path in taken:
                log.warning("%s and %s are the same image, learned from twice; leave one out", *names)
            else:
                log.warning("%s is held out for tests and is the same image as %s, which is learned from: tests on it "
                            "say too much; leave one out", *names)  # fmt: skip
