"""What is written into the folder of a run, and how a batch gets there; `run_record` reads it.

| what | where |
|---|---|
| settings, versions, seeds | run.json |
| a pair | image/<id>.png, mask/<id>_mask.png, and pairs/<id>.json, written last: a pair exists when its record does |
| which of several defects is where | mask/<id>_labels.png: 0 none, then 1, 2, ... in the record's order of `defects` |
| the mask that was painted, where the one written is refined | mask/<id>_asked.png |
| a try that broke a limit | the same under rejects/, its name <id>-<try>, its record with `reasons` |
| a pair that cannot be made | broken/<id>.json: its normal image, and what is wrong with it; `no_mask` if that opens |

`files` in a record are digests of what the pair was made from (`Task.files_of`): other files of the same names are
another run, and a pair without a mask is tried again with them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from ..datasets.images import opens, write_png
from ..errors import InputError
from ..run_record import (
    AGAIN,
    BROKEN,
    NO_MASK,
    REJECTS,
    broken_ids,
    broken_path,
    given_up,
    has_records,
    is_taken_out,
    made_ids,
    read_broken,
    record_path,
    reject_path,
)
from ..storage import read_json_object, short_digest, write_json
from .batch import Broken, Made, Task, Try
from .layers import Layer, label_map, measure_all, surrounding_box

HOPELESS = 16
"""Pairs without a mask, and none with one, after which a run ends: its masks are not worth the time."""


def reopen_broken(out: Path, task: Task) -> None:
    """Forget of broken pairs those whose normal image opens now: the run makes them.

    Those without a mask stay while their files do: the same command would draw the same ones again.
    """
    can_open = cache(opens)  # one photo may have cost thousands of pairs
    for number in broken_ids(out):
        if number < task.count and _is_mended(out, task, number, can_open):
            broken_path(out, number).unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # some are left, or there is none
        (out / BROKEN).rmdir()


def _is_mended(out: Path, task: Task, number: int, can_open: Callable[[Path], bool]) -> bool:
    try:
        about = read_json_object(broken_path(out, number), AGAIN)
    except FileNotFoundError:  # forgotten by another process meanwhile
        return False
    if about.get(NO_MASK) is not True:
        return can_open(task.normal_of(number))
    return about.get("files") not in (None, task.digests_of(number))  # older runs do not tell them


def check_files(
    out: Path, count: int, tries: int, files_of: Callable[[int], Sequence[Path]], name: Path | str
) -> None:  # fmt: skip
    """Raise InputError, naming the file, if one that pairs were made from is another now.

    count, tries: of the run; files_of: the files that a pair is made from; name: of the run. One pair of each file is
    looked at. A file that cannot be read changes no pair that is made; older runs tell none.
    """
    seen: set[Path] = set()
    for number in sorted(made_ids(out) | given_up(out, tries)):
        if number >= count or seen.issuperset(files := files_of(number)):
            continue
        made = record_path(out, number)
        told = read_json_object(made if made.exists() else reject_path(out, number, tries - 1), AGAIN).get("files")
        if not isinstance(told, list) or len(told) != len(files):
            continue
        for path, then in zip(files, told, strict=True):
            if path not in seen and then not in (None, short_digest(path)) and opens(path):
                raise InputError(f"{name} holds another run ({path} has changed since pair {number:06d} was made from "
                                 "it); put it back, or choose another folder or --restart")  # fmt: skip
        seen.update(files)


def write_made(out: Path, task: Task, made: Made) -> None:
    """Write all that came out of a batch, what was broken first: each file whole, each record after its pictures.

    Raises InputError as `check_hope` does, after that.
    """
    for one in made.broken:
        if not record_path(out, one.number).exists():  # made while its normal image was whole
            _write_broken(out, task, one)
    broken = {one.number for one in made.broken}
    for one in made.tries:
        if is_taken_out(out, one.number, task.tries):
            continue
        _write_try(out, task, one)
        if one.number not in broken:  # else its last try had no mask
            broken_path(out, one.number).unlink(missing_ok=True)
    if not made.tries and any(one.has_no_mask for one in made.broken):
        check_hope(out, task)


def check_hope(out: Path, task: Task) -> None:
    """Raise InputError for a run that has painted nothing, while HOPELESS of its pairs, or all, have no mask."""
    if has_records(out):
        return
    lacking = [one for one in read_broken(out) if one.get(NO_MASK)]
    if len(lacking) >= min(HOPELESS, task.count):
        raise InputError(f"none of the first {len(lacking)} pairs has a mask: {lacking[0].get('reason')}")


def _write_broken(out: Path, task: Task, one: Broken) -> None:
    reason = one.reason.replace(str(one.normal), one.normal.name)  # a run tells the same wherever its inputs lie
    record = {"id": f"{one.number:06d}", **kind_of(task.layers), "normal": one.normal.name, "reason": reason}
    lacking = {NO_MASK: True, "files": task.digests_of(one.number)} if one.has_no_mask else {}
    write_json(broken_path(out, one.number), record | lacking)


def _write_try(out: Path, task: Task, one: Try) -> None:
    name = f"{one.number:06d}"
    if one.reasons:
        out, name = out / REJECTS, f"{name}-{one.attempt}"
    regions, labels = one.regions, label_map(one.regions)
    write_png(out / "image" / f"{name}.png", regions[-1].pair.image)
    write_png(out / "mask" / f"{name}_mask.png", labels > 0)
    if len(regions) > 1:
        write_png(out / "mask" / f"{name}_labels.png", labels)
    if regions[0].pair.asked is not None:
        write_png(out / "mask" / f"{name}_asked.png", label_map(regions, asked=True) > 0)
    write_json(out / "pairs" / f"{name}.json", _record(task, one, name))


def _record(task: Task, one: Try, name: str) -> dict[str, Any]:
    """What is known of a try."""
    each = [{"mask": r.source, "seed": task.seed, "box": list(r.pair.box), **r.pair.measures} for r in one.regions]
    record = {"id": name, **kind_of(task.layers), "normal": one.photo.path.name}
    record["files"] = task.digests_of(one.number)
    if len(one.regions) == 1:
        record |= each[0]
    else:
        record |= {"mask": {"kind": "several"}, "seed": task.seed, "box": list(surrounding_box(one.regions))}
        record |= {**measure_all(one.photo, one.regions), **several(task.layers), "regions": each}
    if task.filters:
        record["try"] = one.attempt
    return record | ({"reasons": list(one.reasons)} if one.reasons else {})


def kind_of(layers: Sequence[Layer]) -> dict[str, str]:
    """The product and defect of a run and its pairs; several defects are joined: scratch+dent."""
    return {"product": layers[0].key[0], "defect": "+".join(layer.key[1] for layer in layers)}


def several(layers: Sequence[Layer]) -> dict[str, Any]:
    """What records say beyond that where an image shows several defects."""
    return {"defects": [layer.key[1] for layer in layers]} if len(layers) > 1 else {}
