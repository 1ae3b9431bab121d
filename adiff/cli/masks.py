"""`adiff masks`: new masks of a defect, sampled or varied from its shots, placed onto an object if there is one."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Sequence
from dataclasses import asdict
from enum import Enum
from functools import partial
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from ..errors import InputError
from ..storage import LOCK, TEMPORARY, clear_folder, read_json_object, run_lock, write_json
from .app import keeping
from .command import check_idle
from .normals import PLACES, normals_of
from .objects import Find, Place, objects_in
from .options import (
    MASK_SAMPLING,
    Base,
    DefectName,
    LibraryFile,
    Loras,
    MaskDenoise,
    MaskGuidance,
    MaskSteps,
    MaskThreshold,
    Precision,
    PrecisionName,
    Seed,
    VaryShots,
    parse_loras,
)
from .progress import CliProgress

if TYPE_CHECKING:
    import numpy as np

    from ..generation import GeneratedMask, MaskSampling
    from ..library import Defect
    from ..placement import Placing

log = logging.getLogger("adiff")
RECORD = "masks.json"
FOUND = "foreground"
"""Folder of the objects that were found by themselves, beside the masks."""
MASK_NAME = re.compile(r"\d{3,}\.png")
"""A mask's file: its number."""
ROUNDS = 8
"""Times that more masks are sampled because too few lay on a foreground."""


class Edge(str, Enum):
    """Where on the object (`placement.EDGES`)."""

    anywhere = "anywhere"
    near = "near"
    away = "away"


def masks(
    ctx: typer.Context,
    library: LibraryFile,
    defect: DefectName,
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder to write; new or empty.")],
    count: Annotated[int, typer.Option("-n", min=1, help="Masks to make.")] = 16,
    foreground: Annotated[
        Path | None,
        typer.Option("--foreground", metavar="DIR", help="Masks of the object, by normal; each new mask lies on one."),
    ] = None,
    normals: Annotated[
        Path | None,
        typer.Option("--normals", metavar="DIR", help=f"Normal images to find the object in, instead, {PLACES}."),
    ] = None,
    find: Annotated[
        Find | None,
        typer.Option("--find", help="How the object is found in --normals.  [dim]default: automatic[/dim]"),
    ] = None,
    place: Annotated[
        Place, typer.Option("--place", help="How masks come onto the object: not at all, moved, or turned and scaled "
                            "too, as the shots show.")
    ] = Place.move,
    turn: Annotated[
        float, typer.Option("--turn", metavar="DEGREES", min=0.0, max=180.0, help="Turn them too, to either side.")
    ] = 0.0,
    scale: Annotated[
        str | None, typer.Option("--scale", metavar="LOW:HIGH", help="Scale their sides too, for instance 0.7:1.2.")
    ] = None,
    edge: Annotated[Edge, typer.Option("--edge", help="Where on the object, by its edge.")] = Edge.anywhere,
    margin: Annotated[int, typer.Option("--margin", metavar="PX", min=1, help="Pixels, for --edge.")] = 8,
    vary_shots: VaryShots = False,
    mask_denoise: MaskDenoise = 1.0,
    mask_steps: MaskSteps = None,
    mask_guidance: MaskGuidance = None,
    mask_threshold: MaskThreshold = 0.6,
    base: Base = "demo",
    lora: Loras = None,
    precision: PrecisionName = Precision.auto,
    seed: Seed = 0,
) -> None:  # fmt: skip
    """Make masks of a defect, sampled or varied; masks.json tells each one's seed, likeness to the shots, and place."""
    if vary_shots:
        check_idle(ctx, "with --vary-shots", *MASK_SAMPLING)
    if edge is Edge.anywhere:
        check_idle(ctx, "without --edge near, or away", "margin")
    _check_free(out)
    from ..library import check_base, load_library

    opened = load_library(library)
    entry = opened.get(defect)
    if vary_shots:
        shot_masks_of(entry)
    else:
        check_has_masks(entry)
    placing = _placing(place, turn, scale, edge, margin, foreground is not None or normals is not None)
    objects = _objects(foreground, normals and normals_of(entry.product, normals), find, count)
    settings = {"library": str(library), "defect": entry.name, "seed": seed, "count": count}
    settings |= {"place": place.value, **asdict(placing)} if objects else {}
    if vary_shots:
        settings["varied"], draw = True, partial(_vary, entry)
    else:
        from ..backbone import load_backbone
        from ..generation import MaskSampling

        backbone = load_backbone(base, precision=precision.value, loras=parse_loras(lora))
        check_base(opened, backbone)
        sampling = MaskSampling(mask_steps, mask_guidance, mask_denoise, mask_threshold).on(backbone)
        told = [name.removeprefix("mask_") for name in MASK_SAMPLING]
        settings |= {"base": backbone.name, **{name: getattr(sampling, name) for name in told}}
        draw = partial(_draw, entry, backbone, sampling)
    with run_lock(out), CliProgress() as progress, keeping(f"no mask is written to {out}"):
        _check_free(out)  # another process may have filled it since
        clear_folder(out)
        if not objects or place is Place.stay:
            made = _made(entry, draw, count, seed, objects, progress)
        else:
            drawn = draw(count, (seed, 0), progress)
            made = _placed(drawn, (seed, 0), objects, placing, entry if place is Place.learned else None, count)
        overlap = _write(out, settings, made, objects if normals is not None else {})
    typer.echo(f"{count} masks of {entry.name} in {out}, median overlap with the shots {overlap:.2f}")


class Made(NamedTuple):
    """A mask (H, W) bool and its record."""

    mask: np.ndarray
    about: dict[str, Any]


def _check_free(out: Path) -> None:
    """Raise InputError for a folder that holds anything but what a killed call of this command has left there."""
    if out.is_dir():
        names = {path.name for path in out.iterdir() if path.name != LOCK and not TEMPORARY.fullmatch(path.name)}
        if not names or _is_unfinished(out, names):
            return
    elif not out.exists():
        return
    raise InputError(f"{out} is not empty; give a new or an empty folder")


def _is_unfinished(out: Path, names: set[str]) -> bool:
    """Whether a folder holds masks whose record says that they are not all there, and nothing else."""
    if RECORD not in names or not all(name in (RECORD, FOUND) or MASK_NAME.fullmatch(name) for name in names):
        return False
    return read_json_object(out / RECORD).get("finished") is False


def _write(out: Path, settings: dict[str, Any], made: list[Made], found: dict[str, np.ndarray]) -> float:
    """Write all masks with their record and the objects found, or nothing; returns the masks' median overlap.

    The record is written first too, as `finished`: false, so that a call after a kill knows what it finds.
    """
    from ..datasets.images import write_png

    records, written = [], [out / RECORD]
    try:
        write_json(out / RECORD, {"settings": settings, "finished": False})
        for name, mask in found.items():
            written.append(out / FOUND / f"{Path(name).stem}.png")
            write_png(written[-1], mask)
        for index, one in enumerate(made):
            written.append(out / f"{index:03d}.png")
            write_png(written[-1], one.mask)
            on = {"normal": one.about["foreground"]} if found else {}  # `adiff generate` paints it there
            records.append({"file": written[-1].name, "area": round(float(one.mask.mean()), 5), **one.about, **on})
        overlap = median(record["iou"] for record in records)
        write_json(out / RECORD, {"settings": settings, "median_iou": overlap, "masks": records})
    except BaseException:  # a full disk, or Ctrl-C
        for path in written[1:]:
            path.unlink(missing_ok=True)
        if (out / FOUND).is_dir():
            (out / FOUND).rmdir()
        written[0].unlink(missing_ok=True)
        raise
    return overlap


def check_has_masks(entry: Defect) -> None:
    """Raise InputError for a defect whose masks were not learned."""
    if entry.mask is None or entry.shot_masks is None:
        varied = "" if entry.shot_masks is None else ", and --vary-shots does without"
        raise InputError(f"masks of {entry.name} were not learned; `adiff train --what masks` adds them{varied}")


def shot_masks_of(entry: Defect) -> list[np.ndarray]:
    """The masks of a defect's shots; InputError for one that was saved without."""
    if entry.shot_masks is None:
        raise InputError(f"the library does not hold the shots' masks of {entry.name}; learn it from its photos, or "
                         "give masks of your own")  # fmt: skip
    return list(entry.shot_masks)


def _placing(place: Place, turn: float, scale: str | None, edge: Edge, margin: int, there: bool) -> Placing:
    """How masks are placed; InputError for options that do not go together. there: whether an object is given."""
    from ..placement import Placing

    asked = {"--turn": turn > 0, "--scale": scale is not None, "--edge": edge is not Edge.anywhere}
    if not there and (place is not Place.move or any(asked.values())):
        name = next((option for option, given in asked.items() if given), "--place")
        raise InputError(f"{name} places masks on an object; give its masks with --foreground, or --normals")
    if place is Place.stay and any(asked.values()):
        raise InputError("--place stay leaves masks as they are; leave out --turn, --scale and --edge")
    if place is Place.learned and (asked["--turn"] or asked["--scale"]):
        raise InputError("--place learned takes turns and scales from the shots; leave out --turn and --scale")
    return Placing(turn, _range(scale), edge=edge.value, margin=margin)


def _range(text: str | None) -> tuple[float, float]:
    """LOW:HIGH as numbers; InputError for anything else."""
    if text is None:
        return 1.0, 1.0
    try:
        low, high = (float(part) for part in text.split(":"))
    except ValueError:
        raise InputError(f"--scale {text} is no LOW:HIGH; for instance 0.7:1.2") from None
    return low, high


def _objects(
    foreground: Path | None, normals: list[Path] | None, find: Find | None, count: int
) -> dict[str, np.ndarray]:
    """Foregrounds (H, W) bool of at most `count` files by name; InputError for empty ones, and for objects not found.

    The object is found as `adiff generate --place` finds it; normals in which it cannot be told are left out and named.
    """
    if foreground is not None and normals is not None:
        raise InputError("both --foreground and --normals given; give masks of the object, or images to find it in")
    if find is not None and normals is None:
        raise InputError("--find goes with --normals: it is how the object is found in them")
    if normals is not None:
        return _found(normals, find or Find.automatic, count)
    if foreground is None:
        return {}
    from ..datasets.readers import list_images
    from ..generation.placing import read_foreground

    return {path.name: read_foreground(path) for path in list_images(foreground)[:count]}


def _found(normals: Sequence[Path], find: Find, count: int) -> dict[str, np.ndarray]:
    """The object in the first `count` normals in which it can be told, (H, W) bool by name; warns of the others."""
    from ..datasets.images import read_photo

    objects, found, left_out = objects_in(normals, find), {}, {}
    for path in normals:
        if len(found) == count:
            break
        try:
            found[path.name] = objects.find(read_photo(path))
        except InputError as error:
            left_out[path.name] = str(error)
    if not found:
        raise InputError(f"the object was found in none of {len(normals)} normals; {next(iter(left_out.values()))}")
    if left_out:
        name, why = next(iter(left_out.items()))
        log.warning("%d of %d normal images get no mask, the first %s: %s",
                    len(left_out), len(left_out) + len(found), name, why)  # fmt: skip
    return found


def _vary(entry: Defect, count: int, seed: tuple[int, int], progress) -> list[GeneratedMask]:
    """Vary the shots' own masks."""
    import numpy as np

    from ..generation import GeneratedMask
    from ..masks import best_aligned_iou
    from ..variation import MaskVariation

    shots, found = shot_masks_of(entry), []
    variation = MaskVariation(shots)
    progress.start(count, "masks")
    for number in range(count):
        one = variation.draw(shots[0].shape, np.random.default_rng((*seed, number)))
        found.append(GeneratedMask(one.mask, best_aligned_iou(one.mask, shots), number))
        progress.update(number + 1)
    progress.finish()
    return found


def _draw(
    entry: Defect, backbone, sampling: MaskSampling, count: int, seed: tuple[int, int], progress
) -> list[GeneratedMask]:
    """Sample masks within the range of the shots."""
    from ..generation import sample_masks
    from ..masks import MaskRules

    shots = list(entry.shot_masks)
    return sample_masks(
        backbone, entry.mask, count, rules=MaskRules.from_shots(shots), shots=shots,
        settings=sampling, seed=seed, progress=progress,
    )  # fmt: skip


def _about(made: GeneratedMask, seed: tuple[int, int]) -> dict[str, Any]:
    return {"iou": round(made.iou, 4), "seed": list(seed), "candidate": made.candidate}


def _placed(
    drawn: list[GeneratedMask],
    seed: tuple[int, int],
    objects: dict[str, np.ndarray],
    placing: Placing,
    learned: Defect | None,
    count: int,
) -> list[Made]:
    """Place the masks on the objects in turn; learned: the defect whose shots say how they are turned and scaled."""
    from ..placement import ShotSpread, place_masks

    spread = None if learned is None else ShotSpread.of(list(learned.shot_masks))
    names = list(objects)
    found = place_masks(
        [one.mask for one in drawn], list(objects.values()), placing, count=count, seed=seed, spread=spread
    )
    return [
        Made(one.mask, _about(drawn[one.number], seed) | {
            "foreground": names[one.foreground], "turn": round(one.turn, 2), "scale": round(one.scale, 4),
            **({"did_not_fit": [drawn[n].candidate for n, _ in one.refused]} if one.refused else {}),
        })
        for one in found
    ]  # fmt: skip


def _made(
    entry: Defect, draw: Callable[..., list[GeneratedMask]], count: int, seed: int, objects: dict[str, np.ndarray],
    progress,
) -> list[Made]:  # fmt: skip
    """Draw masks until `count` lie on a foreground, if there are any; InputError if too few do."""
    import numpy as np

    made: list[Made] = []
    order = np.random.default_rng(seed)
    for number in range(ROUNDS if objects else 1):
        drawn_by = (seed, number)
        for one in draw(count - len(made), drawn_by, progress):
            about = _about(one, drawn_by)
            if not objects:
                made.append(Made(one.mask, about))
            elif (name := _object_under(one.mask, objects, order)) is not None:
                made.append(Made(one.mask, about | {"foreground": name}))
        if len(made) == count:
            return made
    raise InputError(
        f"{len(made)} of {count} masks of {entry.name} lie within a foreground after {ROUNDS} rounds; "
        "let them be moved (--place move), give larger foregrounds or ask for fewer"
    )


def _object_under(mask: np.ndarray, objects: dict[str, np.ndarray], order: np.random.Generator) -> str | None:
    """The name of a foreground that a mask lies on, the first in a random order, or None."""
    from ..masks import MaskRules, check_mask

    names = list(objects)
    for index in order.permutation(len(names)):
        if not check_mask(mask, MaskRules(foreground=objects[names[index]], max_border=1.0)):
            return names[index]
    return None
