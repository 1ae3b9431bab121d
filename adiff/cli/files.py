"""What the commands write beside images."""

from __future__ import annotations

import json
from pathlib import Path


def write_json(path: Path, content: object) -> None:
    """Write JSON under a temporary name and rename it; folders are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    temporary.replace(path)
