"""Edits of library files in place: whole or not at all, one at a time, the latest to be taken back.

Somebody who looked at a library and edits it later says which state was seen; a file that has changed since is left
alone. An edit is of some defects, and so is taking it back: what others have changed beside them stays.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from .errors import InputError
from .library import Defect, Library, load_library, save_library
from .storage import run_lock

PATIENCE = 5.0
"""Seconds that an edit waits for another process's to end."""
TICK = 1_000_000
"""Nanoseconds by which an edited file is newer than before where the system's clock has not moved on."""
KEPT = 200
"""Defects, at most, of the edits that can be taken back."""

Edit = Callable[[Library], Library]


class ChangedMeanwhile(InputError):
    """Somebody else has changed what an edit was meant for; nothing was written."""


def state_of(path: Path) -> str:
    """Return what a file's state is told from: another text after every edit."""
    about = path.stat()
    return f"{about.st_mtime_ns:x}-{about.st_size:x}"


def edit_library(path: Path, edit: Edit, seen: str | None = None) -> Library:
    """Read a library, change it, write it back; return what was written.

    Other processes that edit through this function wait for each other. seen: the state (`state_of`) that the edit was
    decided on, or None for whatever is there.
    Raises FileNotFoundError, ChangedMeanwhile for another state than `seen` or a file that changes while it is edited,
    and what `load_library`, `edit` and `save_library` raise; the file is then as it was.
    """
    with _alone_with(path):
        before, library = _read(path, seen)
        return _write(path, edit(library), before)


@dataclass(frozen=True)
class Change:
    """What an edit did to one defect. place: its number in the file; after: None if it was removed."""

    place: int
    before: Defect
    after: Defect | None


@dataclass(frozen=True)
class Step:
    """One edit of a file. changes: in the order in which the defects were named."""

    path: Path
    base: tuple[str, int]
    changes: tuple[Change, ...]


class Journal:
    """Edits of some defects with the latest ones kept in memory, tensors and all, to be taken back by their names.

    most: defects of the edits kept; an edit of more is refused.
    """

    def __init__(self, most: int = KEPT):
        self._most = most
        self._steps: OrderedDict[str, Step] = OrderedDict()
        self._counting = threading.Lock()  # a server edits in several threads

    def edit(self, path: Path, names: Sequence[str], edit: Edit, seen: str | None = None) -> tuple[str, Library]:
        """Edit defects "product/defect" of a library's file; return the edit's name and what was written.

        edit: changes all of these defects in their places, or removes them all, and leaves the others. Raises
        InputError for no name, too many, and one given twice, and what `edit_library` raises.
        """
        if not 0 < len(names) <= self._most:
            raise InputError(f"{len(names)} defects in one edit; expected 1 to {self._most}")
        if len(set(names)) < len(names):
            raise InputError("a defect is named twice in one edit; name each once")
        with _alone_with(path):
            state, library = _read(path, seen)
            before = [library.get(name) for name in names]
            edited = _write(path, edit(library), state)
        order, kept = list(library.defects), len(edited.defects) == len(library.defects)
        places = [order.index(entry.key) for entry in before]
        after = [list(edited.defects.values())[place] if kept else None for place in places]
        number = os.urandom(16).hex()
        with self._counting:
            self._steps[number] = Step(path, _base_of(library), tuple(map(Change, places, before, after)))
            while sum(len(step.changes) for step in self._steps.values()) > self._most:
                self._steps.popitem(last=False)
        return number, edited

    def take_back(self, number: str, path: Path) -> tuple[Step, Library]:
        """Undo one edit of a file, whatever else has changed there; return the edit and what was written.

        Raises LookupError for an edit of that file that is not known any more, ChangedMeanwhile if anything it left has
        been changed since, InputError if an old name is taken; the edit can then still be taken back later, all of it.
        """
        step = self._steps[number]
        if step.path != path:
            raise LookupError(number)
        edited = edit_library(step.path, lambda library: _without(library, step))
        with self._counting:
            self._steps.pop(number, None)
        return step, edited


def _without(library: Library, step: Step) -> Library:
    """Return a library without one edit."""
    if _base_of(library) != step.base:
        name = step.changes[0].before.name
        raise ChangedMeanwhile(f"{step.path.name} is another library by now; {name} does not belong to it")
    changed = {change.after.key: change for change in step.changes if change.after is not None}
    for key, change in changed.items():
        now = library.defects.get(key)
        if now is None or not _same(now, change.after):
            raise ChangedMeanwhile(f"{change.after.name} has been changed or removed since; it stays as it is now")
    for change in step.changes:
        if change.before.key in library.defects and change.before.key not in changed:
            raise InputError(f"the library holds a {change.before.name} again; rename or remove that one first")
    entries = [changed[key].before if key in changed else entry for key, entry in library.defects.items()]
    removed = [change for change in step.changes if change.after is None]
    for change in sorted(removed, key=lambda change: change.place):  # from the front, so that each place is right
        entries.insert(change.place, change.before)
    return replace(library, defects={entry.key: entry for entry in entries})


def _same(one: Defect, other: Defect) -> bool:
    """Whether two defects hold the same."""
    pairs = [(getattr(one, kind), getattr(other, kind)) for kind in ("anomaly", "mask", "preview", "likeness")]
    tensors = all(a is b or (a is not None and b is not None and torch.equal(a, b)) for a, b in pairs)
    masks = (one.shot_masks, other.shot_masks)
    shots = masks[0] is masks[1] or (masks[0] is not None and masks[1] is not None and np.array_equal(*masks))
    return tensors and shots and one.key == other.key and one.info == other.info


def _base_of(library: Library) -> tuple[str, int]:
    return library.base_fingerprint, library.context_dim


def _read(path: Path, seen: str | None) -> tuple[str, Library]:
    """Return a file's state and what it holds; ChangedMeanwhile unless the state is the one seen."""
    state = state_of(path)
    if seen is not None and seen != state:
        raise ChangedMeanwhile(f"{path.name} has been changed by somebody else; look at it again and repeat the edit")
    return state, load_library(path)


def _write(path: Path, library: Library, before: str) -> Library:
    """Write a library over the file that was read in the state `before`, and see to it that its state is another."""
    if state_of(path) != before:
        raise ChangedMeanwhile(f"{path.name} was changed by another process during the edit; repeat the edit")
    save_library(path, library)
    now, old = path.stat(), int(before.partition("-")[0], 16)
    if now.st_mtime_ns <= old:
        os.utime(path, ns=(now.st_atime_ns, old + TICK))
    return library


@contextlib.contextmanager
def _alone_with(path: Path) -> Iterator[None]:
    """Be the only one who edits a library's file; InputError if another process does not come to its end."""
    if not path.is_file():
        raise FileNotFoundError(f"there is no library at {path}")
    folder = path.with_name(f".{path.stem[:100]}.editing")
    deadline = time.monotonic() + PATIENCE
    with contextlib.ExitStack() as held:
        while True:
            try:
                held.enter_context(run_lock(folder))
                break
            except InputError:  # another one has it
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.01)
        yield
