"""Where runs are written: a folder, or one in object storage with a local stand-in that ends with the command."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import typer

from ..errors import InputError
from ..object_storage import ObjectFolder, ObjectRun, is_url
from ..run_record import RUN_PARTS, made_ids, settled_ids
from ..storage import LOCK, clear_folder, run_lock

LOOK_EVERY = 10.0
"""Seconds between two looks at what there is in object storage."""


class Destination:
    """The folder that `--out` names.

    folder: itself, or the stand-in of one in object storage. told: as it was given.
    """

    def __init__(self, ctx: typer.Context, out: str):
        """Raises InputError for a URL that cannot be one; the stand-in is removed when the command ends."""
        self.told, self.remote, self._looked = out, None, 0.0
        if is_url(out):
            self.folder = Path(ctx.with_resource(tempfile.TemporaryDirectory(prefix="adiff-")))
            self.remote = ObjectFolder(out, self.folder)
        else:
            self.folder = Path(out)

    @property
    def name(self) -> str:
        """The folder's own name: a run tells the same wherever it lies."""
        return self.remote.name if self.remote else self.folder.resolve().name or str(self.folder)

    @property
    def holds_run(self) -> bool:
        """Whether it is the folder of one run."""
        return "run.json" in self.remote.list() if self.remote else (self.folder / "run.json").exists()

    def run(self, folder: Path) -> ObjectRun | None:
        """A run below `folder`, as it lies in object storage; None on a disk."""
        if self.remote is None:
            return None
        return ObjectRun(self.remote.below(*folder.relative_to(self.folder).parts))

    def look(self) -> None:
        """Fetch the records and claims of the run that it is, if that lies in object storage."""
        if run := self.run(self.folder):
            if not self.holds_run:
                raise FileNotFoundError(f"there is no run at {self.told}")
            run.open()
            run.look_at_claims()

    def told_of(self, folder: Path) -> str:
        """What to call a folder below `folder`."""
        if self.remote is None:
            return str(folder)
        return "/".join((self.remote.url, *folder.relative_to(self.folder).parts))

    def settled(self, folders: Sequence[Path], tries: int) -> int:
        """How many pairs of runs are settled; in object storage as of LOOK_EVERY seconds ago."""
        if self.remote is not None and time.monotonic() - self._looked > LOOK_EVERY:
            for folder in folders:
                self.run(folder).pull()
            self._looked = time.monotonic()
        return sum(len(settled_ids(folder, tries)) for folder in folders)

    def clear(self, folders: Sequence[Path]) -> None:
        """Remove runs to begin them anew; raises InputError, and removes nothing, if one holds what is not a run's."""
        if self.remote is not None:
            runs = [self.run(folder) for folder in folders]
            for run in runs:
                run.check_clearable()
            _tell_lost([run.made() for run in runs])
            for run in runs:
                run.clear()
        else:
            clear_runs(folders)


def clearing(folder: Path, resume: bool) -> Callable[[], None] | None:
    """What removes a run on a disk once the new one can begin, None to resume it; raises as `Destination.clear`."""
    if resume:
        return None
    _clearable([folder])
    return partial(clear_runs, [folder])


def _clearable(folders: Sequence[Path]) -> list[Path]:
    """Those that hold a run; InputError if one holds what is not a run's."""
    there = [folder for folder in folders if (folder / "run.json").exists()]
    for folder in there:
        foreign = sorted({path.name for path in folder.iterdir()} - RUN_PARTS - {LOCK})
        if foreign:
            raise InputError(f"{folder} holds {foreign[0]} beside its run; move that away or choose another folder")
    return there


def clear_runs(folders: Sequence[Path]) -> None:
    """Remove runs on a disk, as `Destination.clear` does."""
    there = _clearable(folders)
    with ExitStack() as locks:
        for folder in there:
            locks.enter_context(run_lock(folder))  # another process may be writing to it
        _tell_lost([len(made_ids(folder)) for folder in there])
        for folder in there:
            clear_folder(folder)


def _tell_lost(pairs: Sequence[int]) -> None:
    """Say how many finished pairs are about to be removed; pairs: of each run."""
    if count := sum(pairs):
        runs = sum(map(bool, pairs))
        where = f" of {runs} runs" if runs > 1 else ""
        typer.echo(f"--restart removes {count} finished pair{'s' * (count > 1)}{where}", err=True)
