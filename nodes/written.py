"""What nodes have written, for their fingerprints: ComfyUI runs no node again because its files are gone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable
from pathlib import Path


class Written:
    """Files or folders that a node has written since the server's start, each by what the node was told."""

    def __init__(self):
        self._there: dict[Hashable, Path] = {}
        self._lost: Counter[Hashable] = Counter()

    def add(self, told: Hashable, path: Path) -> None:
        """Remember what was written."""
        self._there[told] = path

    def losses(self, told: Hashable) -> int:
        """Return how often what was written has been deleted, or all that was in the folder."""
        path = self._there.get(told)
        if path is not None and not path.is_file() and not any(path.glob("*")):
            del self._there[told]
            self._lost[told] += 1
        return self._lost[told]
