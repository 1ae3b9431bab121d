"""Where a run's masks come from: the user's files, a mask embedding of the library, or the shots' own, varied."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from torch import Tensor

from ..backbone import Backbone
from ..datasets.images import Photo, read_mask
from ..embedding import embedding_fingerprint
from ..errors import InputError
from ..masks import MaskRules
from ..memory import Parts
from ..outline import enlarge_mask
from ..variation import MaskVariation
from .mask import GeneratedMask, TooFewMasks, sample_masks
from .seeds import derived_seed, rng_for
from .settings import MaskSampling

Chosen = tuple[np.ndarray, dict[str, Any]]
"""A mask (H, W) bool and the record of where it came from."""


@dataclass(frozen=True)
class NoMask:
    """A pair for which there is no mask, and why."""

    reason: str


class Batch(NamedTuple):
    """The unit of a run's work: its seed, the batch's number, and the numbers of its pairs (or of some of them)."""

    seed: int
    number: int
    ids: Sequence[int]


class MaskSource(Protocol):
    """Where a run's masks come from."""

    def masks(self, backbone: Backbone, photos: Sequence[Photo], batch: Batch) -> list[Chosen | NoMask]:
        """Return a mask for each photo, or why it has none; batch.ids are the numbers of their pairs."""

    def files(self, number: int, normal: Path) -> list[Path]:
        """Return the files that a pair's mask comes from, on its normal image."""

    def record(self, base: Backbone) -> dict[str, Any]:
        """Return what run.json keeps of the source, of a run on this base model."""


@dataclass(frozen=True)
class FolderMasks:
    """Masks in files, one each, taken in turn; each is resized to its photo if they differ.

    normals: of each mask the name of the normal image that it was placed on, and is painted into, or None where any
    will do; () if that is so for all. square: whether they are the model's own, which lie on a photo that is not square
    as those of `LearnedMasks` do.
    """

    paths: Sequence[Path]
    normals: Sequence[str | None] = ()
    square: bool = False

    def __post_init__(self) -> None:
        if not self.paths:
            raise InputError("no mask files were given; give at least one")
        if len(self.normals) not in (0, len(self.paths)):
            raise ValueError(f"{len(self.normals)} normal images for {len(self.paths)} masks; expected one for each")

    def check(self, count: int, normals: Sequence[Path]) -> None:
        """Read all that a run of `count` pairs wants, so that none stops it halfway; raises as `read_mask`.

        Raises InputError for a mask whose normal image is not among `normals`.
        """
        names = {path.name for path in normals}
        for path, name in zip(self.paths[:count], self.normals, strict=False):
            if name is not None and name not in names:
                raise InputError(
                    f"mask {path} was placed on the normal image {name}, which is not among those given; give the "
                    "images that the masks were placed on, or masks placed on these"
                )
        for path in self.paths[:count]:
            read_mask(path)

    def normal_of(self, number: int) -> str | None:
        """The name of the normal image that a pair's mask belongs on; None for any."""
        return self.normals[number % len(self.paths)] if self.normals else None

    def masks(self, backbone: Backbone, photos: Sequence[Photo], batch: Batch) -> list[Chosen | NoMask]:
        """Read the pairs' masks; one of another aspect than its photo is none for it."""
        found = []
        for number, photo in zip(batch.ids, photos, strict=True):
            (path,) = self.files(number, photo.path)
            mask = read_mask(path).mask
            if self.square and mask.shape[0] == mask.shape[1]:
                mask = _on_photo(mask, photo, rng_for(batch.seed, "mask place", number))
            else:
                mask = fitted(mask, photo, path)
            found.append(mask if isinstance(mask, NoMask) else (mask, {"kind": "file", "path": path.name}))
        return found

    def files(self, number: int, normal: Path) -> list[Path]:
        """Return the mask."""
        return [self.paths[number % len(self.paths)]]

    def record(self, base: Backbone) -> dict[str, Any]:
        """Return the files' names, and those of the normal images that they belong on, None as in older runs."""
        return {"kind": "folder", "files": [p.name for p in self.paths], "normals": list(self.normals) or None}


def fitted(mask: np.ndarray, photo: Photo, path: Path) -> np.ndarray | NoMask:
    """Resize a file's mask (h, w) bool to its photo; one of another aspect is none for it."""
    height, width = photo.size
    if abs(mask.shape[0] * width - mask.shape[1] * height) > 0.01 * width * mask.shape[0]:
        return NoMask(
            f"mask {path.name} is {mask.shape[1]} x {mask.shape[0]}, its photo {photo.path.name} {width} x {height}; "
            "give masks of the photos' size, or at least of their shape"
        )
    return enlarge_mask(mask, height, width)


@dataclass(frozen=True, eq=False)
class LearnedMasks:
    """Masks sampled from a mask embedding e_m (k', D); shots: the real masks at the model's native size."""

    embedding: Tensor
    rules: MaskRules
    shots: Sequence[np.ndarray]
    sampling: MaskSampling = MaskSampling()
    parts: Parts = field(default_factory=Parts)

    def masks(self, backbone: Backbone, photos: Sequence[Photo], batch: Batch) -> list[Chosen | NoMask]:
        """Sample the pairs' masks; on a photo that is not square each lies in a square somewhere along it.

        Where too few pass the rules, the last pairs have none.
        """
        found: list[Chosen | NoMask] = []
        seed = derived_seed(batch.seed, "masks of batch", batch.number)
        try:
            drawn, reason = self._sample(backbone, len(photos), seed), ""
        except TooFewMasks as error:
            drawn, reason = error.found, str(error)
        for number, photo, one in zip(batch.ids, photos, drawn, strict=False):
            rng = rng_for(batch.seed, "mask place", number)
            record = {"kind": "learned", "iou": round(one.iou, 4), "candidate": one.candidate}
            found.append((_on_photo(one.mask, photo, rng), record))
        return found + [NoMask(reason)] * (len(photos) - len(found))

    def files(self, number: int, normal: Path) -> list[Path]:
        """Return none."""
        return []

    def _sample(self, backbone: Backbone, count: int, seed: int) -> list[GeneratedMask]:
        return sample_masks(
            backbone, self.embedding, count, rules=self.rules, shots=self.shots, settings=self.sampling, seed=seed,
            parts=self.parts,
        )  # fmt: skip

    def record(self, base: Backbone) -> dict[str, Any]:
        """Return the embedding's fingerprint, the rules and the sampling settings."""
        return {
            "kind": "learned", "embedding": embedding_fingerprint(self.embedding), "rules": self.rules.record(),
            "sampling": asdict(self.sampling.on(base)),
        }  # fmt: skip


def _on_photo(mask: np.ndarray, photo: Photo, rng: np.random.Generator) -> np.ndarray:
    height, width = photo.size
    side = min(height, width)
    top, left = int(rng.integers(height - side + 1)), int(rng.integers(width - side + 1))
    whole = np.zeros((height, width), bool)
    whole[top : top + side, left : left + side] = enlarge_mask(mask, side, side)
    return whole


@dataclass(frozen=True, eq=False)
class ShotMasks:
    """The shots' own masks, varied (`variation`); nothing has to be learned for them. shots: (h, w) bool each."""

    shots: Sequence[np.ndarray]

    def masks(self, backbone: Backbone, photos: Sequence[Photo], batch: Batch) -> list[Chosen | NoMask]:
        """Vary a shot's mask for each photo; where none fits, the pair has none."""
        variation, found = MaskVariation(self.shots), []
        for number, photo in zip(batch.ids, photos, strict=True):
            try:
                one = variation.draw(photo.size, rng_for(batch.seed, "shot's mask", number))
            except InputError as error:
                found.append(NoMask(str(error)))
                continue
            about = {"kind": "shot", "shot": one.shot, "turn": round(one.turn, 2), "scale": round(one.scale, 4)}
            found.append((one.mask, about))
        return found

    def files(self, number: int, normal: Path) -> list[Path]:
        """Return none."""
        return []

    def record(self, base: Backbone) -> dict[str, Any]:
        """Return a fingerprint of the masks."""
        text = hashlib.sha256()
        for shot in self.shots:
            text.update(repr(shot.shape).encode() + np.packbits(shot).tobytes())
        return {"kind": "shots", "masks": text.hexdigest()}
