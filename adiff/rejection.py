"""Pairs of a run that somebody rejects by eye: kept apart as those that broke a limit are, and put back.

A pair exists when its record does, and so does a reject: pictures come before the record that they are moved for, and
go after the one that they are moved from. Killed halfway, the pair is still there, or is a reject already.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from .errors import InputError
from .run_record import AGAIN, BY_HAND, ENDINGS, last_tries, made_ids, read_plan, record_path, reject_path, tries_of
from .storage import read_json_object, write_json, write_whole
from .workers import join_run

PICTURES = ("image", "mask", "part")
"""Folders of a pair's pictures, in a run and in its rejects."""
OVERRULED = "overruled"
"""What a pair that was put back tells of the reasons for which it was a reject."""


def reject_pairs(folder: Path, numbers: Sequence[int]) -> None:
    """Take pairs out of a run; they count as given up: no command makes them again, no export has them.

    Raises InputError, before anything is done, for pairs that are not there, FileNotFoundError for no run.
    """
    attempt = tries_of(read_plan(folder)) - 1
    made = made_ids(folder)
    if missing := [number for number in numbers if number not in made]:
        if reject_path(folder, missing[0], attempt).exists():
            raise InputError(f"pair {missing[0]:06d} of {folder} is a reject already; leave it out")
        raise InputError(f"{folder} holds no pair {missing[0]:06d}; the names in {folder / 'image'} are those it has")
    with join_run(folder):
        for number in numbers:
            pair, reject = record_path(folder, number), reject_path(folder, number, attempt)
            record = read_json_object(pair, AGAIN)
            record.pop(OVERRULED, None)
            _move(pair, reject, {**record, "id": reject.stem, "reasons": [BY_HAND]})


def put_back(folder: Path, numbers: Sequence[int]) -> None:
    """Make pairs of a run's rejects, of those that were tried several times the last try.

    Raises InputError, before anything is done, for pairs without a reject, or that exist.
    """
    read_plan(folder)
    last = last_tries(folder)
    for number in numbers:
        if number not in last:
            raise InputError(f"{folder} has no reject of pair {number:06d}; `adiff run report` shows those that it has")
        if record_path(folder, number).exists():
            raise InputError(f"pair {number:06d} of {folder} exists, though a try of it was rejected; reject it first")
    with join_run(folder):
        for number in numbers:
            reject = reject_path(folder, number, last[number])
            record = read_json_object(reject, AGAIN)
            reasons = [one for one in record.pop("reasons", []) if one != BY_HAND]
            told = {OVERRULED: reasons} if reasons else {}
            _move(reject, record_path(folder, number), {**record, "id": f"{number:06d}", **told})


def _move(source: Path, target: Path, record: dict) -> None:
    """Move a pair from one record's place to another's."""
    for old, new in _pictures(source, target):
        write_whole(new, partial(shutil.copyfile, old))
    write_json(target, record)
    source.unlink()
    for old, _ in _pictures(source, target):
        old.unlink()


def _pictures(source: Path, target: Path) -> Iterator[tuple[Path, Path]]:
    """A pair's pictures, and where they belong beside another record."""
    for kind in PICTURES:
        folder = source.parents[1] / kind
        for ending in ENDINGS:  # a folder is not listed for each of thousands of pairs
            if (path := folder / f"{source.stem}{ending}.png").exists():
                yield path, target.parents[1] / kind / f"{target.stem}{ending}.png"
