"""What a run's folder tells of it: run.json, written first, and a record for each pair, written after its files."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from .errors import InputError
from .storage import read_json_object

FORMAT = 1
"""Newest format of run.json that is read, and the one that is written."""
RECORD_NAME = re.compile(r"\d{6,}\.json")
"""A pair's record: its id, and nothing of a stranger's."""


def record_path(folder: Path, number: int) -> Path:
    """Where the record of a pair lies, by its number."""
    return folder / "pairs" / f"{number:06d}.json"


def record_paths(folder: Path) -> list[Path]:
    """The records of the pairs that exist in a run's folder, by id; none is opened."""
    return sorted(path for path in (folder / "pairs").glob("*.json") if RECORD_NAME.fullmatch(path.name))


def read_records(folder: Path) -> list[dict[str, Any]]:
    """Return the records of all pairs that exist in a run's folder, by id; InputError for one that is damaged."""
    again = "remove it, or its folder, to make it again"
    return [read_json_object(path, again) for path in record_paths(folder)]


def read_plan(folder: Path) -> dict[str, Any]:
    """Return run.json. Raises FileNotFoundError for no folder, InputError for no run, a damaged or a newer one."""
    record = folder / "run.json"
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no run at {folder}")
    if not record.is_file():
        raise InputError(f"{folder} holds no run.json; give the folder that `adiff generate --out` wrote")
    plan = read_json_object(record)
    version = plan.get("format")
    if isinstance(version, int) and version > FORMAT:
        raise InputError(f"{record} is of format {version}, this version reads up to {FORMAT}; update adiff")
    return plan
