"""The matrix, cell by cell: benchmark.json says what is measured on which files, rows.jsonl has one line a cell.

Every line is written with the whole file, under a temporary name, then renamed: a killed run leaves whole lines, and
goes on with the cells that have none. A cell that fails has a line with its error; it is tried again next time.
"""

from __future__ import annotations

import errno
import json
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean
from typing import Any

from ..errors import InputError
from ..progress import Cancelled, NullProgress, Progress
from ..storage import LOCK, read_json_object, run_lock, write_json, write_text
from ..versions import versions
from .bench import LEARNED, RUNS, Bench
from .matrix import Cell

logger = logging.getLogger("adiff")

FORMAT = 1
RECORD, ROWS = "benchmark.json", "rows.jsonl"
REPORT, SHEETS = ("report.html", "report.md", "summary.json"), "sheets"
DATA = "data"
"""Folder of a set that is drawn for the benchmark."""
PARTS = frozenset((RECORD, ROWS, *REPORT, SHEETS, DATA, LEARNED, RUNS))
"""What may lie in a benchmark's folder."""
NO_USE = frozenset((errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES))
"""Errors of the system that would stop every further cell too."""


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
    progress: Progress | None = None,
    tell: Callable[[str, float], None] = lambda line, left: None,
) -> Failures:
    """Measure the cells that `bench.out` has no numbers of yet.

    command: what asks for these cells, for the record. tell(line, seconds left): called after each cell. Raises
    InputError when the folder holds another benchmark (saying what differs), Cancelled when the work is stopped;
    finished cells are kept.
    """
    progress, out = progress or NullProgress(), bench.out
    with run_lock(out):
        _open(out, identity_of(bench, target, cells), command)
        rows = {place_of(row): row for row in read_rows(out)}
        todo = [cell for cell in cells if not _is_done(cell, rows.get(cell.place))]
        taken: dict[tuple[str, str], list[float]] = {}
        for number, cell in enumerate(todo):
            began, left = time.monotonic(), time_left(todo[number:], taken)
            row = _measure(bench, cell, _Prefixed(progress, f"[{number + 1}/{len(todo)}{_told(left)}] {cell}"))
            spent = time.monotonic() - began
            rows[cell.place] = {**row, "spent": round(spent, 1)}
            _write_rows(out, rows.values())
            taken.setdefault((cell.suite, cell.variant.name), []).append(spent)
            tell(_line_of(cell, rows[cell.place]), time_left(todo[number + 1 :], taken) or 0.0)
    wanted = [rows[cell.place] for cell in cells]
    return Failures(sum("error" not in row for row in wanted), sum("error" in row for row in wanted))


def _measure(bench: Bench, cell: Cell, progress: Progress) -> dict[str, Any]:
    """A cell's line, with its numbers or with its error."""
    try:
        return bench.measure(cell, progress)
    except Cancelled:
        raise
    except Exception as error:  # a cell may fail in any way, and the others are worth having all the same
        if getattr(error, "errno", None) in NO_USE:
            raise
        logger.warning("%s: %s", cell, error)
        logger.debug("%s", cell, exc_info=True)
        text = " ".join(str(error).split())
        return {**cell.about(), "error": f"{type(error).__name__}: {text}" if text else type(error).__name__}


def _is_done(cell: Cell, row: dict[str, Any] | None) -> bool:
    """Whether a line has the numbers of this cell: of the same recipe, as JSON knows it."""
    if row is None or "error" in row:
        return False
    return row["recipe"] == json.loads(json.dumps(cell.variant.recipe.record()))


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
    """What must be the same in a benchmark that goes on: the files of every part, the base model, the budget."""
    units = {cell.unit.name: cell.unit.record() for cell in cells}
    base = {"name": bench.backbone.name, "fingerprint": bench.backbone.fingerprint}
    return {"format": FORMAT, "target": target, "base": base, "budget": asdict(bench.budget), "units": units}


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


def _write_rows(out: Path, rows: Any) -> None:
    write_text(out / ROWS, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def check_folder(out: Path) -> None:
    """Raise InputError for a folder that is neither new, nor empty, nor a benchmark's."""
    if out.is_file():
        raise InputError(f"{out} is a file; give a folder")
    if not out.exists() or (out / RECORD).exists():
        return
    if other := sorted(path.name for path in out.iterdir() if path.name not in (LOCK, DATA)):
        raise InputError(f"{out} holds {other[0]} and no {RECORD}; choose a new or empty folder")


def _open(out: Path, identity: dict[str, Any], command: str) -> None:
    """Begin a benchmark's folder, or check that the one there is of the same files, base and budget.

    The record collects the units and the commands of all that was asked for.
    """
    record = out / RECORD
    identity = json.loads(json.dumps(identity))
    if not record.exists():
        check_folder(out)
        write_json(record, {**identity, "versions": versions(), "commands": [command] if command else []})
        return
    there = read_json_object(record, "choose another folder, or --restart")
    units = there.get("units") if isinstance(there.get("units"), dict) else {}
    other = [name for name, value in identity.items() if name != "units" and there.get(name) != value]
    other += [f"files of {name}" for name, unit in identity["units"].items() if units.get(name, unit) != unit]
    if other:
        what = ", ".join(other)
        raise InputError(f"{out} holds another benchmark ({what} differ); choose another folder, or --restart")
    commands = [*dict.fromkeys([*there.get("commands", []), *([command] if command else [])])]
    write_json(record, {**there, "units": {**units, **identity["units"]}, "commands": commands})


def _line_of(cell: Cell, row: dict[str, Any]) -> str:
    return f"{cell}: {row['error'] if 'error' in row else 'done'}"


def _told(left: float | None) -> str:
    return "" if left is None else f", {left / 60:.0f} min left"


class _Prefixed:
    """Tells which cell a piece of work belongs to."""

    def __init__(self, progress: Progress, prefix: str):
        self.progress, self.prefix = progress, prefix

    def start(self, total: int, what: str) -> None:
        self.progress.start(total, f"{self.prefix}: {what}")

    def update(self, done: int, **info: float) -> None:
        self.progress.update(done, **info)

    def finish(self) -> None:
        self.progress.finish()
