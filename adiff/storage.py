"""Files that are whole or not there: written under a temporary name, then renamed."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any


def write_whole(path: Path | str, write: Callable[[Path], object]) -> None:
    """Let `write` fill a temporary file beside `path`, then rename it; folders are made.

    If anything fails, the old file stays as it was and the temporary one is removed. Its name is each call's own, so
    that processes which write the same file do not meet.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # beside the target, as only then the rename is one step; the target's name is left out: it may be of full length
    temporary = path.with_name(f".{os.getpid()}.{secrets.token_hex(8)}.tmp")
    try:
        write(temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path | str, text: str) -> None:
    """Write text as UTF-8, with the line ends it has on every system."""
    # a file name that is no text (a lone surrogate) becomes an escape, which in JSON reads back as itself
    content = text.encode("utf-8", "backslashreplace")
    write_whole(path, lambda temporary: temporary.write_bytes(content))


def write_json(path: Path | str, content: Any) -> None:
    """Write JSON, indented, as UTF-8."""
    write_text(path, json.dumps(content, indent=1, ensure_ascii=False) + "\n")
