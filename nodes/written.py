"""What nodes have written, for their fingerprints: ComfyUI runs no node again because its files are gone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Hashable
from pathlib import Path

from comfy_api.latest import io

from .upstream import running_node


class Written:
    """Files or folders that a node has written since the server's start, each by what the node was told."""

    def __init__(self):
        self._there: dict[Hashable, Path] = {}
        self._by: dict[Path, Hashable] = {}
        self._lost: Counter[Hashable] = Counter()

    def add(self, told: Hashable, path: Path) -> None:
        """Remember what was written."""
        self._there[told], self._by[path] = path, told

    def losses(self, told: Hashable, present: Collection[Hashable] | None = None) -> int:
        """Return how often what was written has been lost: deleted (of a folder, all in it), or written over.

        present: what the nodes of the running graph are told, whose writing over each other is as it should be. None
        where nothing is ever written over.
        """
        path = self._there.get(told)
        if path is not None and (_is_gone(path) or (present is not None and self._by[path] not in present)):
            del self._there[told]
            self._lost[told] += 1
        return self._lost[told]


def _is_gone(path: Path) -> bool:
    return not path.is_file() and not any(path.glob("*"))


_files = Written()


class FileWriter(io.ComfyNode):
    """A node that writes a file, by all that leads to it in the graph."""

    @classmethod
    def fingerprint_inputs(cls, **_) -> int:
        """Run again when the file has been deleted, or written over from another graph."""
        return _files.losses(*running_node())

    @classmethod
    def wrote(cls, path: Path) -> None:
        """Remember the file that the running node has written."""
        _files.add(running_node()[0], path)
