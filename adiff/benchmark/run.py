"""The matrix, cell by cell: benchmark.json says what is measured on which files, rows.jsonl has one line a cell.

Every line is written with the whole file, under a temporary name, then renamed: a killed run leaves whole lines, and
goes on with the cells that have none. A cell that fails has a line with its error; it is tried again next time. Any
number of processes may be at the same matrix (`turns`).
"""

from __future__ import annotations

import errno
import json
import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

from ..datasets.images import SUFFIXES
from ..errors import InputError
from ..progress import Cancelled, NullProgress, Prefixed, Progress
from ..storage import LOCK, TEMPORARY, read_json_object, write_json, write_text
from ..tensor_files import digest_of_files
from ..versions import versions
from ..workers import CLAIMS
from .bench import LEARNED, RUNS, Bench
from .matrix import Cell, digest_of
from .turns import POLL, Busy

logger = logging.getLogger("adiff")

FORMAT = 1
RECORD, ROWS = "benchmark.json", "rows.jsonl"
REPORT, SHEETS = ("report.html", "report.md", "summary.json"), "sheets"
DATA = "data"
"""Folder of a set that is drawn for the benchmark."""
PARTS = frozenset((RECORD, ROWS, *REPORT, SHEETS, DATA, LEARNED, RUNS, CLAIMS))
"""What may lie in a benchmark's folder."""
NO_USE = frozenset((errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES))
"""Errors of the system that would stop every further cell too."""

Rows = dict[tuple[str, str, str, int], dict[str, Any]]
"""Place in the matrix -> line."""


@dataclass(frozen=True)
class Failures:
    """done: cells with numbers. failed: cells whose line is an error."""

    done: int
    failed: int


def run_matrix(
    bench: Bench,
    target: str,
    cells: Sequence[Cell],
    *,
    command: str = "",
    left_out: Mapping[str, str] | None = None,
    progress: Progress | None = None,
    tell: Callable[[str, float], None] = lambda line, left: None,
) -> Failures:
    """Measure the cells that `bench.out` has no numbers of yet.

    Other processes may do the same at the same time, of these cells or of others; each returns when its own cells are
    all there. command: what asks for these cells, for the record. left_out: name -> reason of units that cannot be
    measured, for the record. tell(line, seconds left): called after each cell that was measured here. Raises InputError
    when the folder holds another benchmark (saying what differs), or cells of weights that are not given now; Cancelled
    when the work is stopped; finished cells are kept.
    """
    with bench.turns as turns:
        with turns.in_turn(RECORD):
            _open(bench.out, identity_of(bench, target, cells), command, left_out or {})
        matrix = _Matrix(bench, cells, progress or NullProgress(), tell)
        matrix.check_weights()
        rows = matrix.work()
    wanted = [rows[cell.place] for cell in cells]
    return Failures(sum("error" not in row for row in wanted), sum("error" in row for row in wanted))


class _Matrix:
    """One process at work on cells, beside any number of others."""

    def __init__(
        self, bench: Bench, cells: Sequence[Cell], progress: Progress, tell: Callable[[str, float], None]
    ) -> None:
        self._bench, self._cells, self._progress, self._tell = bench, cells, progress, tell
        self._seen, self._rows = None, {}
        self._failed = {place: row for place, row in self._read().items() if "error" in row}  # to be tried again
        self._began = time.monotonic()

    def check_weights(self) -> None:
        """Raise InputError for a cell with numbers of other weights than are given: they would not compare."""
        for cell in self._cells:
            there = self._read().get(cell.place, {}).get("weights", {})
            if other := [name for name, digest in there.items() if self._bench.weighed.get(name) != digest]:
                raise InputError(
                    f"{self._bench.out} has cells measured with other weights ({', '.join(other)}); give the same "
                    "files, choose another folder, or --restart"
                )

    def work(self) -> Rows:
        """Return the lines when every cell has one."""
        while todo := self._left(rows := self._read()):
            if not any(self._is_measured(cell, todo, rows) for cell in todo):
                time.sleep(POLL)  # what is left is with other processes
        return rows

    def _read(self) -> Rows:
        """The lines; opened only if they are not those of the last time, as every cell that is put off asks."""
        path = self._bench.out / ROWS
        about = path.stat() if path.exists() else None
        seen = None if about is None else (about.st_ino, about.st_mtime_ns, about.st_size)
        if seen is None or seen != self._seen:
            self._seen, self._rows = seen, {place_of(row): row for row in read_rows(self._bench.out)}
        return self._rows

    def _left(self, rows: Rows) -> list[Cell]:
        """Cells without numbers, those that failed in this call, here or elsewhere, aside."""
        return [cell for cell in self._cells if not self._is_settled(cell, rows.get(cell.place))]

    def _is_settled(self, cell: Cell, row: dict[str, Any] | None) -> bool:
        if row is not None and "error" in row:
            return row != self._failed.get(cell.place)
        return _is_done(cell, row, self._bench.weighed)

    def _is_measured(self, cell: Cell, todo: Sequence[Cell], rows: Rows) -> bool:
        """Measure a cell and write its line; False if another process has it, or something that it needs."""
        turns, cost = self._bench.turns, costs_of(rows.values())
        try:
            with turns.alone(f"cell-{digest_of(cell.place)}"):
                if self._is_settled(cell, self._read().get(cell.place)):  # since the lines were read
                    return True
                left = time_left(todo, cost)
                about = f"[{len(self._cells) - len(todo) + 1}/{len(self._cells)}{self._told(left)}] {cell}"
                began = time.monotonic()
                row = _measure(self._bench, cell, Prefixed(self._progress, about))
                row["spent"] = round(time.monotonic() - began, 1)
                rows = self._keep(cell, row)
        except Busy:
            return False
        self._failed.pop(cell.place, None)
        self._tell(_line_of(cell, row), self._shared(time_left(self._left(rows), costs_of(rows.values()))) or 0.0)
        return True

    def _keep(self, cell: Cell, row: dict[str, Any]) -> Rows:
        with self._bench.turns.in_turn(ROWS):
            rows = {**self._read(), cell.place: row}
            write_text(self._bench.out / ROWS, "".join(json.dumps(r, ensure_ascii=False) + "\n" for r in rows.values()))
        return rows

    def _shared(self, seconds: float | None) -> float | None:
        """What is left for each of the processes at work."""
        return None if seconds is None else seconds / self._bench.turns.workers

    def _told(self, left: float | None) -> str:
        """Time spent and left, in words, for the progress."""
        if left is None:
            return ""
        spent, left = (time.monotonic() - self._began) / 60, (self._shared(left) or 0.0) / 60
        return f", {spent:.0f} min spent, {left:.0f} min left"


def _measure(bench: Bench, cell: Cell, progress: Progress) -> dict[str, Any]:
    """A cell's line, with its numbers or with its error."""
    try:
        return bench.measure(cell, progress)
    except (Busy, Cancelled):
        raise
    except Exception as error:  # a cell may fail in any way, and the others are worth having all the same
        if getattr(error, "errno", None) in NO_USE:
            raise
        logger.warning("%s: %s", cell, error)
        logger.debug("%s", cell, exc_info=True)
        text = " ".join(str(error).split())
        return {**cell.about(), "error": f"{type(error).__name__}: {text}" if text else type(error).__name__}


def _is_done(cell: Cell, row: dict[str, Any] | None, weights: Mapping[str, str]) -> bool:
    """Whether a line has the numbers of this cell: of the same recipe, as JSON knows it, and all weights where due."""
    if row is None or "error" in row:
        return False
    if cell.variant.recipe.whole and not weights.items() <= row.get("weights", {}).items():
        return False
    return row["recipe"] == json.loads(json.dumps(cell.variant.recipe.record()))


def costs_of(rows: Iterable[dict[str, Any]]) -> dict[tuple[str, str], list[float]]:
    """(suite, variant) -> seconds that each of its measured cells took."""
    costs: dict[tuple[str, str], list[float]] = {}
    for row in rows:
        if "error" not in row and "spent" in row:
            costs.setdefault((row["suite"], row["variant"]), []).append(row["spent"])
    return costs


def time_left(todo: Sequence[Cell], taken: dict[tuple[str, str], list[float]]) -> float | None:
    """Seconds that cells will take, by those of their variant so far, else of their suite, else of all; None: none."""
    if not taken:
        return None
    every = mean(spent for of_one in taken.values() for spent in of_one)
    total = 0.0
    for cell in todo:
        of_suite = [spent for (suite, _), of_one in taken.items() if suite == cell.suite for spent in of_one]
        known = taken.get((cell.suite, cell.variant.name)) or of_suite
        total += mean(known) if known else every
    return total


def identity_of(bench: Bench, target: str, cells: Sequence[Cell]) -> dict[str, Any]:
    """What must be the same in a benchmark that goes on: files of every part and of the object, base, budget.

    Shots, their masks and those of the object count by content, normal images by name.
    """
    units = {unit.name: {**unit.record(), "shots": unit.split.digest()}
             for unit in {cell.unit.name: cell.unit for cell in cells}.values()}  # fmt: skip
    base = {"name": bench.backbone.name, "fingerprint": bench.backbone.fingerprint}
    folder = bench.workshop.foreground
    marked = None if folder is None else sorted(p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES)
    return {
        "format": FORMAT, "target": target, "base": base, "budget": bench.budget.record(), "units": units,
        "foreground": None if marked is None else digest_of_files(marked),
    }  # fmt: skip


def read_rows(out: Path) -> list[dict[str, Any]]:
    """The lines of a benchmark, [] before the first. Raises InputError for a damaged file."""
    path = out / ROWS
    if not path.exists() or not path.stat().st_size:
        return []
    rows = []
    for number, line in enumerate(path.read_text(encoding="utf-8").strip().split("\n"), 1):
        try:
            row = json.loads(line)
            place_of(row)
        except (ValueError, TypeError, KeyError, RecursionError):
            raise InputError(f"line {number} of {path} is damaged; remove it, and its cell is made again") from None
        rows.append(row)
    return rows


def place_of(row: dict[str, Any]) -> tuple[str, str, str, int]:
    """Where in the matrix a line stands, as `Cell.place`."""
    return row["suite"], row["variant"], row["unit"], row["seed"]


def check_folder(out: Path) -> None:
    """Raise InputError for a folder that is neither new, nor empty, nor a benchmark's."""
    if out.is_file():
        raise InputError(f"{out} is a file; give a folder")
    if not out.exists() or (out / RECORD).exists():
        return
    if other := sorted(path.name for path in out.iterdir() if _is_foreign(path.name)):
        raise InputError(f"{out} holds {other[0]} and no {RECORD}; choose a new or empty folder")


def _is_foreign(name: str) -> bool:
    """Whether a file in a folder without a record is not of processes that are just beginning the benchmark."""
    return name not in (LOCK, CLAIMS, DATA) and TEMPORARY.fullmatch(name) is None


def _open(out: Path, identity: dict[str, Any], command: str, left_out: Mapping[str, str]) -> None:
    """Begin a benchmark's folder, or check that the one there is of the same files, base and budget.

    The record collects the units and the commands of all that was asked for, and what was left out and still is.
    """
    record = out / RECORD
    identity = json.loads(json.dumps(identity))
    if not record.exists():
        check_folder(out)
        commands = [command] if command else []
        write_json(record, {**identity, "left_out": dict(left_out), "versions": versions(), "commands": commands})
        return
    there = read_json_object(record, "choose another folder, or --restart")
    units = there.get("units") if isinstance(there.get("units"), dict) else {}
    other = [name for name, value in identity.items() if name != "units" and there.get(name) != value]
    # what an older version did not record is taken for the same
    other += [f"files of {name}" for name, unit in identity["units"].items() if {**unit, **units.get(name, {})} != unit]
    if other:
        what = ", ".join(other)
        raise InputError(f"{out} holds another benchmark ({what} differ); choose another folder, or --restart")
    commands = [*dict.fromkeys([*there.get("commands", []), *([command] if command else [])])]
    units = {**units, **identity["units"]}
    left_out = {name: why for name, why in {**there.get("left_out", {}), **left_out}.items() if name not in units}
    write_json(record, {**there, "units": units, "left_out": left_out, "commands": commands})


def _line_of(cell: Cell, row: dict[str, Any]) -> str:
    return f"{cell}: {row['error'] if 'error' in row else 'done'}"
