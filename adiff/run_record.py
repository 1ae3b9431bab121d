"""What a run's folder tells of it: run.json, written first, and a record for each pair, written after its files."""

from __future__ import annotations

import contextlib
import math
import os
import re
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from .errors import InputError, listed
from .storage import read_json_object
from .workers import CLAIMS

FORMAT = 1
"""Newest format of run.json that is read, and the one that is written."""
ID = "([0-9]{6}|[1-9][0-9]{6,17})"
"""A pair's number in names: six digits, and more without a zero in front."""
RECORD_NAME = re.compile(rf"{ID}\.json")
"""A pair's record: its id, and nothing of a stranger's."""
REJECT_NAME = re.compile(rf"{ID}-(0|[1-9][0-9]{{0,17}})\.json")
"""The record of a try that broke a limit: the pair's id, and the number of the try."""
REJECTS, BROKEN = "rejects", "broken"
"""Folders of a run: tries that broke a limit, laid out like a run; records of pairs that cannot be made."""
RUN_PARTS = frozenset({"run.json", "image", "mask", "part", "pairs", REJECTS, BROKEN, "report.html", CLAIMS})
"""All that a run has in its folder; `part` is a dual one's."""
ENDINGS = ("", "_mask", "_labels", "_asked")
"""What follows a pair's id in the names of its pictures."""
BY_HAND = "by hand"
"""The reason of a reject that broke no limit: somebody took it out (`rejection`)."""
PASTING = ("crop-paste", "cutpaste", "draem")
"""Methods of runs that are made without a base model (`baselines.METHODS`)."""
NO_MASK = "no_mask"
"""What the record of a broken pair says of one that has no mask, while its normal image opens."""
AGAIN = "remove it, or its folder, to make it again"
LOOKS = 5
"""How often a run is looked at whose pairs are taken out or put back meanwhile."""

Seen = TypeVar("Seen")


def record_path(folder: Path, number: int) -> Path:
    """Where the record of a pair lies, by its number."""
    return folder / "pairs" / f"{number:06d}.json"


def record_paths(folder: Path) -> list[Path]:
    """The records of the pairs that exist in a run's folder, by id; none is opened."""
    return sorted(path for path in (folder / "pairs").glob("*.json") if RECORD_NAME.fullmatch(path.name))


def reject_path(folder: Path, number: int, attempt: int) -> Path:
    """Where the record of a rejected try lies."""
    return folder / REJECTS / "pairs" / f"{number:06d}-{attempt}.json"


def broken_path(folder: Path, number: int) -> Path:
    """Where it is recorded that a pair cannot be made."""
    return folder / BROKEN / f"{number:06d}.json"


def has_records(folder: Path) -> bool:
    """Whether a run has painted anything: a pair, or a try that was rejected."""
    return (folder / REJECTS).is_dir() or any(_names(folder / "pairs", RECORD_NAME))


class Records(Sequence[dict[str, Any]]):
    """The records of a run's pairs by id, each read when it is asked for: a run may hold millions.

    numbers: of the pairs; all that exist when it is made, by default. One that is taken out meanwhile (`rejection`) is
    passed over where all are read, and a FileNotFoundError where it is asked for; a damaged one raises InputError.
    """

    def __init__(self, folder: Path, numbers: Iterable[int] | None = None):
        self._folder = folder
        self._numbers = array("Q", sorted(made_ids(folder)) if numbers is None else numbers)

    def __len__(self) -> int:
        return len(self._numbers)

    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return Records(self._folder, self._numbers[index])
        return _read(record_path(self._folder, self._numbers[index]))

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return (record for _, record in self._there())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and len(self) == len(other) and list(self) == list(other)

    __hash__ = None

    def _there(self) -> Iterator[tuple[int, dict[str, Any]]]:
        """The pairs that are there when it comes to them: number and record."""
        for number in self._numbers:
            with contextlib.suppress(FileNotFoundError):
                yield number, _read(record_path(self._folder, number))

    def by_kind(self) -> dict[tuple[str, str], Records]:
        """The records of each product and defect, in the order in which they come."""
        numbers: dict[tuple[str, str], array] = {}
        for number, record in self._there():
            kind = str(record.get("product")), str(record.get("defect"))
            numbers.setdefault(kind, array("Q")).append(number)
        return {kind: Records(self._folder, of_kind) for kind, of_kind in numbers.items()}


def read_records(folder: Path) -> list[dict[str, Any]]:
    """Return the records of all pairs that exist in a run's folder, by id; InputError for one that is damaged."""
    return list(Records(folder))


def undisturbed(folders: Sequence[Path], look: Callable[[], Seen]) -> Seen:
    """Return what `look` reads of runs; it looks again where a pair was taken out or put back meanwhile (`rejection`).

    Raises what `look` raises of runs that lose nothing meanwhile, InputError for one that does all the time.
    """
    for _ in range(LOOKS):
        before = [_tried(folder) for folder in folders]
        try:
            return look()
        except (FileNotFoundError, InputError):
            if all(there <= _tried(folder) for folder, there in zip(folders, before, strict=True)):
                raise
    told = " or ".join(map(str, folders))
    raise InputError(f"pairs of {told} are being taken out or put back; give the same command when that is done")


def _tried(folder: Path) -> set[tuple[str, ...]]:
    """The pairs that exist, and the rejected tries: a run that is made gets more of them, and loses none."""
    names = (*_names(folder / "pairs", RECORD_NAME), *_names(folder / REJECTS / "pairs", REJECT_NAME))
    return {name.groups() for name in names}


def _read(path: Path) -> dict[str, Any]:
    record = read_json_object(path, AGAIN)
    if record.get("id") != path.stem:
        raise InputError(f"{path} is damaged (it says to be of pair {str(record.get('id'))[:40]!r}); {AGAIN}")
    return record


def read_rejects(folder: Path) -> list[dict[str, Any]]:
    """Return the records of all rejected tries, by id and try; their pictures lie in folder/rejects as a run's do."""
    tries = sorted((int(name[1]), int(name[2])) for name in _names(folder / REJECTS / "pairs", REJECT_NAME))
    return [read_json_object(reject_path(folder, *one), AGAIN) for one in tries]


def last_tries(folder: Path) -> dict[int, int]:
    """Return the number of the last try of each pair that has rejects."""
    tries: dict[int, int] = {}
    for name in _names(folder / REJECTS / "pairs", REJECT_NAME):
        tries[int(name[1])] = max(tries.get(int(name[1]), 0), int(name[2]))
    return tries


def read_broken(folder: Path) -> list[dict[str, Any]]:
    """Return the records of pairs that cannot be made, by id: their `normal`, and the `reason`."""
    return [read_json_object(broken_path(folder, number), AGAIN) for number in sorted(broken_ids(folder))]


def is_settled(folder: Path, number: int, tries: int) -> bool:
    """Whether nothing is left to do for a pair: it exists, its last try was rejected, or it cannot be made."""
    return any(path.exists() for path in ends_of(folder, number, tries))


def ends_of(folder: Path, number: int, tries: int) -> tuple[Path, ...]:
    """The records any of which settles a pair."""
    return record_path(folder, number), broken_path(folder, number), reject_path(folder, number, tries - 1)


def is_taken_out(folder: Path, number: int, tries: int) -> bool:
    """Whether somebody took a pair out by hand; whoever makes the others of its batch again leaves it there."""
    path = reject_path(folder, number, tries - 1)
    return path.exists() and read_json_object(path, AGAIN).get("reasons") == [BY_HAND]


def settled_ids(folder: Path, tries: int) -> set[int]:
    """Return the numbers of all settled pairs; no record is opened."""
    return made_ids(folder) | broken_ids(folder) | given_up(folder, tries)


def made_ids(folder: Path) -> set[int]:
    """Return the numbers of all pairs that exist."""
    return {int(name[1]) for name in _names(folder / "pairs", RECORD_NAME)}


def given_up(folder: Path, tries: int) -> set[int]:
    """Return the numbers of pairs whose last try was rejected."""
    return {int(name[1]) for name in _names(folder / REJECTS / "pairs", REJECT_NAME) if int(name[2]) == tries - 1}


def broken_ids(folder: Path) -> set[int]:
    """Return the numbers of pairs that cannot be made."""
    return {int(name[1]) for name in _names(folder / BROKEN, RECORD_NAME)}


def tries_of(plan: dict[str, Any]) -> int:
    """How often a run paints a pair at most; once without limits. plan: its run.json."""
    limits = plan.get("filter")
    tries = limits.get("tries") if isinstance(limits, dict) else None
    return tries if isinstance(tries, int) and not isinstance(tries, bool) and tries > 0 else 1


def fits_of(plan: dict[str, Any]) -> list[dict[str, Any]]:
    """What a run keeps of the guidance that it has found, for each defect that its images show, in their order.

    `value`, and what else `GuidanceFit.record` tells; nothing for a run that was given one. plan: its run.json.
    """
    told = plan.get("guidance")
    found = told if isinstance(told, list) else [told]
    values = [one.get("value") if isinstance(one, dict) else None for one in found]
    sound = all(type(value) in (int, float) and 0 <= value < math.inf for value in values)
    return found if sound and len(found) == len(defects_of(plan)) else []


def defects_of(plan: dict[str, Any]) -> list[Any]:
    """The defects that each image of a run shows; most often one. plan: its run.json."""
    several = plan.get("defects")
    return several if isinstance(several, list) else [plan.get("defect")]


def _names(folder: Path, form: re.Pattern[str]) -> Iterator[re.Match[str]]:
    """The names in a folder that have a form; a run may have millions of them."""
    if folder.is_dir():
        with os.scandir(folder) as entries:
            yield from filter(None, (form.fullmatch(entry.name) for entry in entries))


def check_once(folders: Sequence[Path]) -> None:
    """Raise InputError for a run that is given twice: its pairs would count twice."""
    seen: set[Path] = set()
    for folder in folders:
        if (own := folder.resolve()) in seen:
            raise InputError(f"the run {folder} is given twice; give it once")
        seen.add(own)


def read_plan(folder: Path) -> dict[str, Any]:
    """Return run.json. Raises FileNotFoundError for no folder, InputError for no run, a damaged or a newer one."""
    record = folder / "run.json"
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no run at {folder}")
    if not record.is_file():
        if inside := sorted(path.parent.name for path in folder.glob("*/run.json")):  # of generate --all
            raise InputError(f"{folder} holds no run.json, but runs have folders in it ({listed(inside)}); give one of "
                             f"them, or where several are taken {folder / '*'}")  # fmt: skip
        raise InputError(f"{folder} holds no run.json; give the folder that `adiff generate --out` wrote")
    plan = read_json_object(record)
    version = plan.get("format")
    if isinstance(version, int) and version > FORMAT:
        raise InputError(f"{record} is of format {version}, this version reads up to {FORMAT}; update adiff")
    return plan
