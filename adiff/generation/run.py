"""A run: thousands of pairs in a folder that any interruption leaves whole.

run.json holds settings, versions and seeds; image/<id>.png, mask/<id>_mask.png; pairs/<id>.json is written last, so a
pair exists when its JSON exists. The unit of work is an aligned batch (ids b*B .. b*B+B-1), redone whole, its
randomness a function of (run seed, batch) alone. With several defects in one image the mask is that of all of them, and
mask/<id>_labels.png says which is where (0 none, then 1, 2, ... in the record's order of `defects`).
"""

from __future__ import annotations

import logging
import platform
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from ..backbone import Backbone
from ..datasets.images import Photo, read_photo, write_png
from ..embedding import embedding_fingerprint
from ..errors import InputError
from ..library import Key, Library
from ..progress import Cancelled, NullProgress, Progress
from ..run_record import FORMAT, read_plan, read_records, record_path
from ..scoring import ShotReference
from ..spatial_encoder import SpatialEncoder
from ..spatial_encoder import fingerprint as encoder_fingerprint
from ..storage import LOCK, run_lock, write_json
from ..versions import versions
from .layers import Layer, Region, check_folders, label_map, measure_all, paint_layers, surrounding_box
from .seeds import rng_for
from .settings import GenerationSettings
from .sources import Batch, FolderMasks, MaskSource

logger = logging.getLogger("adiff")


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
    key: Key,
    encoder: SpatialEncoder | None,
    normals: Sequence[Path],
    masks: MaskSource,
    *,
    count: int,
    out: Path,
    also: Sequence[tuple[Key, MaskSource]] = (),
    settings: GenerationSettings | None = None,
    seed: int = 0,
    resume: bool = True,
    command: str | None = None,
    progress: Progress | None = None,
) -> RunResult:
    """Fill `out` with `count` pairs of the library's defect `key`, (product, defect); what exists of the run is kept.

    also: further defects of the product that every image shows beside the first, each with its masks. command: what
    makes the run again, for run.json; it may be another one when the run goes on. Ctrl-C or Cancelled ends the run with
    the pairs done so far. Raises InputError when `out` holds something else, a run of other settings (saying which), or
    a run at all with resume=False.
    """
    settings, progress = settings or GenerationSettings(), progress or NullProgress()
    wanted = [(key, masks), *also]
    check_run(backbone, library, wanted, encoder, normals, count)
    layers = _layers(library, backbone, wanted)
    identity = {
        "format": FORMAT, "product": layers[0].key[0], "defect": _defect_of(layers), "count": count, "seed": seed,
        "settings": asdict(settings), "masks": _alone([layer.masks.record() for layer in layers]),
        "normals": [p.name for p in normals], "base": {"name": backbone.name, "fingerprint": backbone.fingerprint},
        "embedding": _alone([embedding_fingerprint(layer.embedding) for layer in layers]),
        "encoder": None if encoder is None else encoder_fingerprint(encoder), **_several(layers),
    }  # fmt: skip
    with run_lock(out):
        open_run(out, identity, backbone, resume, {} if command is None else {"command": command})
        began, done, cancelled = time.monotonic(), 0, False
        progress.start(count, f"pairs {key[0]}/{_defect_of(layers)}")
        try:
            for batch, first in enumerate(range(0, count, settings.batch)):
                ids = range(first, min(first + settings.batch, count))
                if not all(record_path(out, i).exists() for i in ids):
                    photos = _choose_normals(normals, ids, seed)
                    painted = paint_layers(backbone, layers, encoder, photos, Batch(seed, batch, ids), settings)
                    for i, photo, regions in zip(ids, photos, painted, strict=True):
                        _write(out, i, layers, photo, regions, seed)
                done += len(ids)
                progress.update(done)
        except (Cancelled, KeyboardInterrupt):
            cancelled = True
        progress.finish()
        return RunResult(out, read_records(out), time.monotonic() - began, cancelled)


def check_run(
    backbone: Backbone,
    library: Library,
    wanted: Sequence[tuple[Key, MaskSource]],
    encoder: SpatialEncoder | None,
    normals: Sequence[Path],
    count: int,
) -> None:
    """Raise InputError for what would stop `generate_run` later on, so that nothing old is removed for it.

    wanted: the defects that every image shows, each with its masks; files of masks are read, photos are not.
    """
    for (product, defect), _ in wanted:
        if library.get(f"{product}/{defect}").anomaly is None:
            raise InputError(
                f"{product}/{defect} has no anomaly embedding; train it with `--what defects` or `--what both`"
            )
    own = wanted[0][0][0]
    if others := [key for key, _ in wanted if key[0] != own]:
        raise InputError(f"{'/'.join(others[0])} is not a defect of {own}; one image shows defects of one product")
    if not normals or count < 1:
        raise InputError(f"{len(normals)} normal photos for {count} pairs; give at least one of each")
    if encoder is not None and encoder.dim != backbone.context_dim:
        raise InputError(
            f"the spatial encoder's tokens are {encoder.dim} wide, the context of base {backbone.name!r} "
            f"{backbone.context_dim}; give the encoder that was learned with the library"
        )
    sources = [masks for _, masks in wanted]
    check_folders(sources)
    for source in sources:
        if isinstance(source, FolderMasks):
            source.check(count)


def _layers(library: Library, backbone: Backbone, wanted: Sequence[tuple[Key, MaskSource]]) -> list[Layer]:
    """The run's defects, in the order in which they are painted."""
    return [
        Layer(key, library.defects[key].anomaly, masks, ShotReference.of(library, key, backbone))
        for key, masks in wanted
    ]


def _defect_of(layers: Sequence[Layer]) -> str:
    """The defect of a run and its pairs; several are joined: scratch+dent."""
    return "+".join(layer.key[1] for layer in layers)


def _several(layers: Sequence[Layer]) -> dict[str, Any]:
    """What records say beyond that where an image shows several defects."""
    return {"defects": [layer.key[1] for layer in layers]} if len(layers) > 1 else {}


def _alone(values: list[Any]) -> Any:
    """The value of a single defect itself, of several the list."""
    return values[0] if len(values) == 1 else values


def _choose_normals(normals: Sequence[Path], ids: Sequence[int], seed: int) -> list[Photo]:
    return [read_photo(normals[int(rng_for(seed, "normal", i).integers(len(normals)))]) for i in ids]


def _write(out: Path, number: int, layers: Sequence[Layer], photo: Photo, regions: Sequence[Region], seed: int) -> None:
    name, labels = f"{number:06d}", label_map(regions)
    write_png(out / "image" / f"{name}.png", regions[-1].pair.image)
    write_png(out / "mask" / f"{name}_mask.png", labels > 0)
    if len(regions) > 1:
        write_png(out / "mask" / f"{name}_labels.png", labels)
    each = [{"mask": r.source, "seed": seed, "box": list(r.pair.box), **r.pair.measures} for r in regions]
    record = {"id": name, "product": layers[0].key[0], "defect": _defect_of(layers), "normal": photo.path.name}
    if len(regions) == 1:
        record |= each[0]
    else:
        record |= {"mask": {"kind": "several"}, "seed": seed, "box": list(surrounding_box(regions))}
        record |= {**measure_all(photo, regions), **_several(layers), "regions": each}
    write_json(record_path(out, number), record)


def open_run(out: Path, identity: dict[str, Any], backbone: Backbone, resume: bool, told: Mapping[str, str]) -> None:
    """Make the run's folder, with what is `told` of the run besides, or check that the one there is this run."""
    record = out / "run.json"
    environment = {
        **versions(), "python": platform.python_version(), "device": backbone.device.type, "dtype": str(backbone.dtype),
        "threads": torch.get_num_threads(),
    }  # fmt: skip
    if record.exists():
        there = read_plan(out)
        other = _differences(identity, there)
        if other:
            raise InputError(f"{out} holds another run ({'; '.join(other)}); choose another folder or --restart")
        if not resume:
            raise InputError(f"{out} holds this run already; resume it or choose another folder")
        begun = there.get("environment")
        if changed := _differences(environment, begun if isinstance(begun, dict) else {}):
            warning = "%s was begun elsewhere (%s): pairs may differ from an unbroken run's by 2 grey levels"
            logger.warning(warning, out, "; ".join(changed))
        return
    if out.exists() and not out.is_dir():
        raise InputError(f"{out} is a file; choose a new or empty folder")
    if out.exists() and any(path.name != LOCK for path in out.iterdir()):
        raise InputError(f"{out} is not empty and holds no run; choose a new or empty folder")
    write_json(record, {**identity, **told, "environment": environment})


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
