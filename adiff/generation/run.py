"""A run: thousands of pairs in a folder that any interruption leaves whole.

run.json holds settings, versions and seeds; image/<id>.png, mask/<id>_mask.png; pairs/<id>.json is written last, so a
pair exists when its JSON exists. The unit of work is an aligned batch (ids b*B .. b*B+B-1), redone whole, its
randomness a function of (run seed, batch) alone.
"""

from __future__ import annotations

import hashlib
import json
import platform
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from ..backbone import Backbone
from ..datasets.images import Photo, read_mask, read_photo, write_png
from ..errors import InputError
from ..geometry import resize_mask
from ..library import Library
from ..masks import MaskRules
from ..progress import Cancelled, NullProgress, Progress
from ..spatial_encoder import SpatialEncoder
from ..spatial_encoder import fingerprint as encoder_fingerprint
from ..storage import write_json
from ..versions import versions
from .mask import sample_masks
from .pairs import Pair, make_pairs
from .seeds import derived_seed, generator_for, rng_for
from .settings import GenerationSettings, MaskSampling

FORMAT = 1


class MaskSource(Protocol):
    """Where a run's masks come from."""

    def masks(self, backbone: Backbone, photos: Sequence[Photo], seed: int, batch: int, first: int) -> list[tuple]:
        """Return for each photo of a batch its mask (H, W) bool and a record of where it came from."""

    def record(self) -> dict[str, Any]:
        """Return what run.json keeps of the source."""


@dataclass(frozen=True)
class FolderMasks:
    """Masks drawn by the user, one file each, taken in turn; each is resized to its photo if they differ."""

    paths: Sequence[Path]

    def __post_init__(self) -> None:
        if not self.paths:
            raise InputError("no mask files were given; give at least one")

    def masks(self, backbone: Backbone, photos: Sequence[Photo], seed: int, batch: int, first: int) -> list[tuple]:
        """Read the batch's masks. Raises InputError for a mask of another aspect than its photo."""
        found = []
        for place, photo in enumerate(photos):
            path = self.paths[(first + place) % len(self.paths)]
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

    def masks(self, backbone: Backbone, photos: Sequence[Photo], seed: int, batch: int, first: int) -> list[tuple]:
        """Sample the batch's masks; on a photo that is not square each lies in a square somewhere along it."""
        drawn = sample_masks(
            backbone,
            self.embedding,
            len(photos),
            rules=self.rules,
            shots=self.shots,
            settings=self.sampling,
            seed=derived_seed(seed, "masks of batch", batch),
        )
        found = []
        for place, (photo, one) in enumerate(zip(photos, drawn, strict=True)):
            rng = rng_for(seed, "mask place", first + place)
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


@dataclass(frozen=True)
class RunResult:
    """out: the run's folder; pairs: records of all that exist; seconds: of this call; cancelled: stopped early."""

    out: Path
    pairs: list[dict[str, Any]]
    seconds: float
    cancelled: bool = False


def generate_run(
    backbone: Backbone,
    library: Library,
    key: tuple[str, str],
    encoder: SpatialEncoder | None,
    normals: Sequence[Path],
    masks: MaskSource,
    *,
    count: int,
    out: Path,
    settings: GenerationSettings | None = None,
    seed: int = 0,
    resume: bool = True,
    progress: Progress | None = None,
) -> RunResult:
    """Fill `out` with `count` pairs of the library's defect `key`, (product, defect); what exists of the run is kept.

    Ctrl-C or Cancelled ends it with the pairs done so far. Raises InputError when `out` holds something else, a run of
    other settings (saying which), or a run at all with resume=False.
    """
    settings, progress = settings or GenerationSettings(), progress or NullProgress()
    embedding = library.get("/".join(key)).anomaly
    if embedding is None:
        raise InputError(f"{key[0]}/{key[1]} has no anomaly embedding; train it with `--what defects` or `--what both`")
    if not normals or count < 1:
        raise InputError(f"{len(normals)} normal photos for {count} pairs; give at least one of each")
    identity = {
        "format": FORMAT, "product": key[0], "defect": key[1], "count": count, "seed": seed,
        "settings": asdict(settings), "masks": masks.record(), "normals": [p.name for p in normals],
        "base": {"name": backbone.name, "fingerprint": backbone.fingerprint},
        "embedding": embedding_fingerprint(embedding),
        "encoder": None if encoder is None else encoder_fingerprint(encoder),
    }  # fmt: skip
    _open(out, identity, backbone, resume)
    began, done, cancelled = time.monotonic(), 0, False
    progress.start(count, f"pairs {key[0]}/{key[1]}")
    try:
        for batch, first in enumerate(range(0, count, settings.batch)):
            ids = range(first, min(first + settings.batch, count))
            if not all(_record_path(out, i).exists() for i in ids):
                photos = _choose_normals(normals, ids, seed)
                chosen = masks.masks(backbone, photos, seed, batch, first)
                generators = [generator_for(seed, "pair", i) for i in ids]
                pairs = make_pairs(backbone, photos, [m for m, _ in chosen], embedding, encoder, settings, generators)
                for i, photo, pair, (_, source) in zip(ids, photos, pairs, chosen, strict=True):
                    _write(out, i, key, photo, pair, source, seed)
            done += len(ids)
            progress.update(done)
    except (Cancelled, KeyboardInterrupt):
        cancelled = True
    progress.finish()
    return RunResult(out, read_records(out), time.monotonic() - began, cancelled)


def embedding_fingerprint(embedding: Tensor) -> str:
    """Return sha256 over an embedding's float32 values."""
    return hashlib.sha256(embedding.float().cpu().contiguous().numpy().tobytes()).hexdigest()


def read_records(out: Path) -> list[dict[str, Any]]:
    """Return the records of all pairs that exist in a run's folder, by id."""
    return [_read_json(path) for path in sorted((out / "pairs").glob("*.json"))]


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path} is damaged ({error}); remove it, or its folder, to make it again") from None
    if not isinstance(content, dict):
        raise InputError(f"{path} is no record of a run or a pair; remove it, or choose another folder")
    return content


def _choose_normals(normals: Sequence[Path], ids: Sequence[int], seed: int) -> list[Photo]:
    return [read_photo(normals[int(rng_for(seed, "normal", i).integers(len(normals)))]) for i in ids]


def _record_path(out: Path, number: int) -> Path:
    return out / "pairs" / f"{number:06d}.json"


def _write(out: Path, number: int, key: tuple[str, str], photo: Photo, pair: Pair, source: dict, seed: int) -> None:
    name = f"{number:06d}"
    write_png(out / "image" / f"{name}.png", pair.image)
    write_png(out / "mask" / f"{name}_mask.png", pair.mask.astype(np.uint8) * 255)
    record = {
        "id": name, "product": key[0], "defect": key[1], "normal": photo.path.name, "mask": source, "seed": seed,
        "box": list(pair.box), **pair.measures,
    }  # fmt: skip
    write_json(_record_path(out, number), record)


def _open(out: Path, identity: dict[str, Any], backbone: Backbone, resume: bool) -> None:
    """Make the run's folder, or check that the one there is this run."""
    record = out / "run.json"
    if record.exists():
        other = _differences(identity, _read_json(record))
        if other:
            raise InputError(f"{out} holds another run ({'; '.join(other)}); choose another folder or --restart")
        if not resume:
            raise InputError(f"{out} holds this run already; resume it or choose another folder")
        return
    if out.exists() and not out.is_dir():
        raise InputError(f"{out} is a file; choose a new or empty folder")
    if out.exists() and any(out.iterdir()):
        raise InputError(f"{out} is not empty and holds no run; choose a new or empty folder")
    environment = {
        **versions(), "python": platform.python_version(), "device": backbone.device.type, "dtype": str(backbone.dtype),
        "threads": torch.get_num_threads(),
    }  # fmt: skip
    write_json(record, {**identity, "environment": environment})


def _differences(asked: dict[str, Any], there: dict[str, Any], under: str = "") -> list[str]:
    """Name what differs from a run's record: settings one by one, with both values where they are short."""
    found = []
    for name, value in asked.items():
        other = there.get(name)
        if isinstance(value, dict) and isinstance(other, dict):
            found += _differences(value, other, f"{under}{name}.")
        elif value != other:
            both = f" {other}, now {value}"
            found.append(f"{under}{name}{both if len(both) < 60 else ' differs'}")
    return found
