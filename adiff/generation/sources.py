"""Where a run's masks come from: files drawn by the user, or a mask embedding of the library."""

from __future__ import annotations

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
from ..geometry import resize_mask
from ..masks import MaskRules
from .mask import sample_masks
from .memory import Parts
from .seeds import derived_seed, rng_for
from .settings import MaskSampling

Chosen = tuple[np.ndarray, dict[str, Any]]
"""A mask (H, W) bool and the record of where it came from."""


class Batch(NamedTuple):
    """The unit of a run's work: its seed, the batch's number, and the numbers of its pairs (or of some of them)."""

    seed: int
    number: int
    ids: Sequence[int]


class MaskSource(Protocol):
    """Where a run's masks come from."""

    def masks(self, backbone: Backbone, photos: Sequence[Photo], batch: Batch) -> list[Chosen]:
        """Return a mask for each photo; batch.ids are the numbers of their pairs."""

    def record(self) -> dict[str, Any]:
        """Return what run.json keeps of the source."""


@dataclass(frozen=True)
class FolderMasks:
    """Masks drawn by the user, one file each, taken in turn; each is resized to its photo if they differ."""

    paths: Sequence[Path]

    def __post_init__(self) -> None:
        if not self.paths:
            raise InputError("no mask files were given; give at least one")

    def check(self, count: int) -> None:
        """Read all that a run of `count` pairs wants, so that none stops it halfway; raises as `read_mask`."""
        for path in self.paths[:count]:
            read_mask(path)

    def masks(self, backbone: Backbone, photos: Sequence[Photo], batch: Batch) -> list[Chosen]:
        """Read the pairs' masks. Raises InputError for a mask of another aspect than its photo."""
        found = []
        for number, photo in zip(batch.ids, photos, strict=True):
            path = self.paths[number % len(self.paths)]
            mask = read_mask(path).mask
            if mask.shape != photo.size:
                mask = _fitted(mask, photo, path)
            found.append((mask, {"kind": "file", "path": path.name}))
        return found

    def record(self) -> dict[str, Any]:
        """Return the files' names."""
        return {"kind": "folder", "files": [p.name for p in self.paths]}


def _fitted(mask: np.ndarray, photo: Photo, path: Path) -> np.ndarray:
    height, width = photo.size
    if abs(mask.shape[0] * width - mask.shape[1] * height) > 0.01 * width * mask.shape[0]:
        raise InputError(
            f"mask {path.name} is {mask.shape[1]} x {mask.shape[0]}, its photo {photo.path.name} {width} x {height}; "
            "give masks of the photos' size, or at least of their shape"
        )
    return resize_mask(mask, height, width)


@dataclass(frozen=True, eq=False)
class LearnedMasks:
    """Masks sampled from a mask embedding e_m (k', D); shots: the real masks at the model's native size."""

    embedding: Tensor
    rules: MaskRules
    shots: Sequence[np.ndarray]
    sampling: MaskSampling = MaskSampling()
    parts: Parts = field(default_factory=Parts)

    def masks(self, backbone: Backbone, photos: Sequence[Photo], batch: Batch) -> list[Chosen]:
        """Sample the pairs' masks; on a photo that is not square each lies in a square somewhere along it."""
        drawn = sample_masks(
            backbone,
            self.embedding,
            len(photos),
            rules=self.rules,
            shots=self.shots,
            settings=self.sampling,
            seed=derived_seed(batch.seed, "masks of batch", batch.number),
            parts=self.parts,
        )
        found = []
        for number, photo, one in zip(batch.ids, photos, drawn, strict=True):
            rng = rng_for(batch.seed, "mask place", number)
            record = {"kind": "learned", "iou": round(one.iou, 4), "candidate": one.candidate}
            found.append((_on_photo(one.mask, photo, rng), record))
        return found

    def record(self) -> dict[str, Any]:
        """Return the embedding's fingerprint, the rules and the sampling settings."""
        return {
            "kind": "learned", "embedding": embedding_fingerprint(self.embedding), "rules": self.rules.record(),
            "sampling": asdict(self.sampling),
        }  # fmt: skip


def _on_photo(mask: np.ndarray, photo: Photo, rng: np.random.Generator) -> np.ndarray:
    height, width = photo.size
    side = min(height, width)
    top, left = int(rng.integers(height - side + 1)), int(rng.integers(width - side + 1))
    whole = np.zeros((height, width), bool)
    whole[top : top + side, left : left + side] = resize_mask(mask, side, side)
    return whole
