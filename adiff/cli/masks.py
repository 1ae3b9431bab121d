"""`adiff masks`: new masks of a learned defect, out of the diffusion sampler."""

from __future__ import annotations

from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from ..errors import InputError
from ..storage import LOCK, run_lock, write_json
from .app import keeping
from .options import Base, DefectName, LibraryFile, Loras, Seed, parse_loras
from .progress import CliProgress

if TYPE_CHECKING:
    import numpy as np

    from ..generation import GeneratedMask
    from ..library import Defect

RECORD = "masks.json"
ROUNDS = 8
"""Times that more masks are sampled because too few lay on a foreground."""


def masks(
    library: LibraryFile,
    defect: DefectName,
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder to write; new or empty.")],
    count: Annotated[int, typer.Option("-n", min=1, help="Masks to make.")] = 16,
    foreground: Annotated[
        Path | None,
        typer.Option("--foreground", metavar="DIR", help="Masks of the object; each new mask lies within one of them."),
    ] = None,
    base: Base = "demo",
    lora: Loras = None,
    seed: Seed = 0,
) -> None:
    """Sample masks of a learned defect; masks.json tells each one's seed and likeness to the shots."""
    from ..library import check_base, load_library

    opened = load_library(library)
    entry = opened.get(defect)
    check_has_masks(entry)
    if out.exists() and (not out.is_dir() or any(path.name != LOCK for path in out.iterdir())):
        raise InputError(f"{out} is not empty; give a new or an empty folder")
    objects = _read_foregrounds(foreground)
    from ..backbone import load_backbone

    backbone = load_backbone(base, loras=parse_loras(lora))
    check_base(opened, backbone)
    settings = {"library": str(library), "defect": entry.name, "base": backbone.name, "seed": seed, "count": count}
    with run_lock(out), CliProgress() as progress, keeping(f"no mask is written to {out}"):
        overlap = _write(out, settings, _sample(backbone, entry, count, seed, objects, progress))
    typer.echo(f"{count} masks of {entry.name} in {out}, median overlap with the shots {overlap:.2f}")


class Placed(NamedTuple):
    """A mask, the seed it was drawn by, and the foreground it lies on."""

    made: GeneratedMask
    seed: tuple[int, int]
    foreground: str | None = None


def _write(out: Path, settings: dict[str, Any], placed: list[Placed]) -> float:
    """Write all masks with their record, or nothing; returns their median overlap with the shots."""
    from ..datasets.images import write_png

    records = []
    try:
        for index, one in enumerate(placed):
            name, area = f"{index:03d}.png", float(one.made.mask.mean())
            about = {"file": name, "iou": round(one.made.iou, 4), "area": round(area, 5)}
            about |= {"seed": list(one.seed), "candidate": one.made.candidate}
            records.append(about if one.foreground is None else {**about, "foreground": one.foreground})
            write_png(out / name, one.made.mask)
        overlap = median(record["iou"] for record in records)
        write_json(out / RECORD, {"settings": settings, "median_iou": overlap, "masks": records})
    except BaseException:  # a full disk, or Ctrl-C
        for record in records:
            (out / record["file"]).unlink(missing_ok=True)
        raise
    return overlap


def check_has_masks(entry: Defect) -> None:
    """Raise InputError for a defect whose masks were not learned."""
    if entry.mask is None or entry.shot_masks is None:
        raise InputError(f"masks of {entry.name} were not learned; `adiff train --what masks` adds them")


def _read_foregrounds(folder: Path | None) -> dict[str, np.ndarray]:
    """Foreground masks (H, W) bool by file name; InputError for empty ones."""
    if folder is None:
        return {}
    from ..datasets.images import read_photo
    from ..datasets.readers import list_images

    objects = {path.name: read_photo(path).rgb.max(-1) >= 128 for path in list_images(folder)}
    empty = [name for name, mask in objects.items() if not mask.any()]
    if empty:
        raise InputError(f"the foreground {folder / empty[0]} is empty; mark the object in white on black")
    return objects


def _sample(backbone, entry: Defect, count: int, seed: int, objects: dict[str, np.ndarray], progress) -> list[Placed]:
    """Sample masks until `count` lie on a foreground, if there are any; InputError if too few do."""
    import numpy as np

    from ..generation import MaskSampling, sample_masks
    from ..masks import MaskRules

    shots = list(entry.shot_masks)
    rules = MaskRules.from_shots(shots)
    placed: list[Placed] = []
    order = np.random.default_rng(seed)
    for number in range(ROUNDS if objects else 1):
        drawn_by = (seed, number)
        new = sample_masks(
            backbone, entry.mask, count - len(placed), rules=rules, shots=shots, settings=MaskSampling(),
            seed=drawn_by, progress=progress,
        )  # fmt: skip
        if not objects:
            return [Placed(made, drawn_by) for made in new]
        for made in new:
            name = _object_under(made.mask, objects, order)
            placed += [Placed(made, drawn_by, name)] if name is not None else []
        if len(placed) == count:
            return placed
    raise InputError(
        f"{len(placed)} of {count} masks of {entry.name} lie within a foreground after {ROUNDS} rounds; "
        "give larger foregrounds or ask for fewer"
    )


def _object_under(mask: np.ndarray, objects: dict[str, np.ndarray], order: np.random.Generator) -> str | None:
    """The name of a foreground that a mask lies on, the first in a random order, or None."""
    from ..masks import MaskRules, check_mask

    names = list(objects)
    for index in order.permutation(len(names)):
        if not check_mask(mask, MaskRules(foreground=objects[names[index]], max_border=1.0)):
            return names[index]
    return None
