"""What a long measurement has found so far, on disk: rows by part and name; one that is there is not measured again."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from adiff.storage import write_whole


class Record:
    """A JSON file of rows, {part: {name: row}}, written whole after each row."""

    def __init__(self, path: Path):
        self.path = path
        self.found: dict[str, dict[str, Any]] = json.loads(path.read_text()) if path.exists() else {}

    def row(self, part: str, name: str, measure: Callable[[], Any]) -> Any:
        """Return a row, measured if it is not there."""
        rows = self.found.setdefault(part, {})
        if name not in rows:
            rows[name] = measure()
            write_whole(self.path, lambda temporary: temporary.write_text(json.dumps(self.found, indent=1)))
        return rows[name]
