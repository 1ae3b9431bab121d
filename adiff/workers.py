"""Any number of processes on one run, on one machine or many: each batch is claimed by a file, until it is written.

A claim only spares work. A batch is a function of the run and its number, and its files are written whole: if two
processes make the same one, they write the same files. So a claim whose process is dead, or which nobody has touched
for STALE seconds, is simply taken over, and no process waits for a lock that was left behind.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from .storage import (
    entries,
    host_name,
    is_there,
    made_folder,
    make_folder,
    open_lock,
    release,
    remove_leftovers,
    run_lock,
    sign,
    this_process,
)
from .system import NO_LOCKS, lives, lock, persist

logger = logging.getLogger("adiff")

CLAIMS = ".claims"
"""Folder of a run that holds a file for each batch that is being made."""
BEAT = 5.0
"""Seconds after which a process touches its claims again."""
STALE = 60.0
"""Seconds after which an untouched claim is nobody's; clocks of machines that share a run may differ by less."""
PATIENCE = 1.0
"""Seconds to wait for another process that has the run's folder for itself, which it needs for a moment only."""

_workers: set[str] = set()
"""Those of this process: a claim with its number that none of them made is of a process before it."""


class Claims:
    """A worker's claims on batches of a run; a context manager that keeps them fresh and gives them back.

    A batch is a number; other work that processes share is claimed by a name that a file may have.
    """

    beat = BEAT

    def __init__(self, out: Path):
        self._folder, self._mine, self._ended = out / CLAIMS, set[int | str](), threading.Event()
        self._about = {**this_process(), "worker": os.urandom(8).hex()}
        self._heart = threading.Thread(target=self._beat, name="claims", daemon=True)

    def __enter__(self) -> Claims:
        _workers.add(self._about["worker"])
        self._heart.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._heart.join()
        for batch in list(self._mine):
            self.release(batch)
        _workers.discard(self._about["worker"])

    def take(self, batch: int | str) -> bool:
        """Claim a batch; False if another worker that lives has it."""
        path = self._path(batch)
        for _ in range(3):
            make_folder(self._folder)
            try:
                file = persist(os.open, path, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
            except FileExistsError:
                if owner_of(path) is not None:
                    return False
                persist(path.unlink, True)
            except FileNotFoundError:  # who left the run last has just removed the folder
                continue
            else:
                self._mine.add(batch)  # before the write, which a full disk may refuse
                with os.fdopen(file, "w", encoding="utf-8") as claim:
                    json.dump({**self._about, "batch": batch}, claim)
                return True
        return False

    def release(self, batch: int | str) -> None:
        """Give a batch back, done or not."""
        self._mine.discard(batch)
        with contextlib.suppress(OSError):
            persist(self._path(batch).unlink, True)

    def _path(self, batch: int | str) -> Path:
        name = batch if isinstance(batch, str) else f"{batch:06d}"
        return self._folder / f"{name}.json"

    def _beat(self) -> None:
        while not self._ended.wait(self.beat):
            for batch in list(self._mine):
                with contextlib.suppress(OSError):  # taken over: the machine was asleep
                    self._renew(batch)

    def _renew(self, batch: int | str) -> None:
        os.utime(self._path(batch))


def owner_of(claim: Path) -> dict[str, Any] | None:
    """Who has a claim, as its file tells, {} while it is being written; None if nobody that lives has."""
    try:
        age, text = time.time() - claim.stat().st_mtime, claim.read_bytes()
    except OSError:
        return None
    try:
        about = json.loads(text)
    except (ValueError, RecursionError):
        about = {}
    about = about if isinstance(about, dict) else {}
    number, is_here = about.get("pid"), about.get("host") == host_name()
    if age > STALE or (is_here and isinstance(number, int) and not _runs(number, about.get("worker"))):
        return None
    return about


def workers_of(out: Path) -> list[dict[str, Any]]:
    """The processes that work on a run: pid, host, since, and the batches that each has claimed."""
    found: dict[str, dict[str, Any]] = {}
    for claim in sorted((out / CLAIMS).glob("*.json")):
        about = owner_of(claim)
        if about:
            told = {name: about.get(name) for name in ("pid", "host", "since")}
            one = found.setdefault(str(about.get("worker")), {**told, "batches": []})
            one["batches"].append(about.get("batch"))
    return list(found.values())


def _runs(number: int, worker: Any) -> bool:
    """Whether the process that made a claim on this machine lives."""
    return worker in _workers if number == os.getpid() else lives(number)


@contextlib.contextmanager
def join_run(out: Path) -> Iterator[None]:
    """Be one of the processes that write to a run; the folder is made if it is not there.

    They share the lock that others want alone (`storage.run_lock`). Who comes first and who goes last remove what
    killed ones have left; the last also removes the folder if it is empty and was not so before. Raises InputError,
    naming it, if a process has the folder for itself, and for a file of that name.
    """
    with made_folder(out):
        file = _share(out)
        try:
            sign(file, out)
            yield
        finally:
            if _is_alone(file, out):
                _sweep(out)
                release(file, out)
            file.close()


def _share(out: Path) -> IO[bytes]:
    """Open and share a folder's lock; InputError if another process keeps it for itself."""
    until = time.monotonic() + PATIENCE
    while True:
        file = open_lock(out)
        if _lock(file, shared=True):
            if file.seek(0, os.SEEK_END) and _is_alone(file, out):  # whoever wrote into it was killed
                _sweep(out)
            _lock(file, shared=True, wait=True)  # again: to ask for it alone gives it up
            if is_there(file, out):
                return file
        elif time.monotonic() > until:
            with run_lock(out):  # says who has it
                pass
        else:
            time.sleep(0.02)
        file.close()


def _lock(file: IO[bytes], shared: bool = False, wait: bool = False) -> bool:
    """Lock an open file, or say that another process has it; a file system without locks lets everybody in."""
    try:
        return lock(file, shared, wait)
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        return True


def _is_alone(file: IO[bytes], out: Path) -> bool:
    """Whether no other process is at the run; the lock is this one's alone then, and else it is given up."""
    if not (_lock(file) and is_there(file, out)):
        return False
    here = os.getpid(), host_name()  # another machine may keep locks of its own; its claims are seen
    return all((one["pid"], one["host"]) == here for one in workers_of(out))


def _sweep(out: Path) -> None:
    """Remove what killed processes have left; the caller is alone."""
    places = [out, *(path for path in entries(out) if path.is_dir())]
    places += [path for path in entries(out / "rejects") if path.is_dir()]
    remove_leftovers(*places)
    shutil.rmtree(out / CLAIMS, ignore_errors=True)
