"""One process at work on a run, beside any number of others."""

from __future__ import annotations

import time
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from ..datasets.images import Photo
from ..progress import Progress
from ..run_record import is_settled, settled_ids
from ..workers import Claims
from .batch import Broken, Task
from .files import write_made

POLL = 0.5
"""Seconds after which a worker with nothing left to claim looks again whether the others are done, or dead."""


class Worker:
    """It claims a batch, paints it, and has it written while it paints the next.

    The normal images of the next batch are read meanwhile. At most one batch is being read, one painted and one
    written, so memory does not grow with the run.
    """

    def __init__(self, out: Path, task: Task, claims: Claims, progress: Progress):
        self._out, self._task, self._claims, self._progress = out, task, claims, progress
        settled = settled_ids(out, task.tries)
        self._fresh = deque(b for b in range(task.batches) if not settled.issuperset(task.ids(b)))
        self._others: deque[int] = deque()
        self._done = task.count - sum(len(task.ids(b)) for b in self._fresh)
        self._writing: deque[tuple[int, Future[None]]] = deque()

    def work(self) -> None:
        """Return when every pair of the run is settled; raises what stops it, after the write that is on its way."""
        if self._done:
            self._progress.update(self._done)
        with ThreadPoolExecutor(1, "read") as reader, ThreadPoolExecutor(1, "write") as writer:
            following = self._begin(reader)
            while following or self._writing or self._others:
                if following is None:
                    self._collect()
                    if self._others:
                        time.sleep(POLL)
                    following = self._begin(reader)
                    continue
                batch, photos = following
                read = photos.result()
                following = self._begin(reader)
                made = self._task.make(batch, read)
                self._collect()
                self._writing.append((batch, writer.submit(write_made, self._out, self._task, made)))

    def _begin(self, reader: ThreadPoolExecutor) -> tuple[int, Future[list[Photo | Broken]]] | None:
        """Claim a batch and have its normal images read; None if there is none to claim now."""
        batch = self._claim()
        return None if batch is None else (batch, reader.submit(self._task.read, batch))

    def _claim(self) -> int | None:
        """Claim a batch that is to be made; None if there is none: all are done, this one's, or other processes'."""
        for _ in range(len(self._fresh) + len(self._others)):
            batch = (self._fresh or self._others).popleft()
            if self._is_settled(batch):
                self._count(batch)
            elif not self._claims.take(batch):
                self._others.append(batch)
            elif self._is_settled(batch):  # since it was looked at
                self._claims.release(batch)
                self._count(batch)
            else:
                return batch
        return None

    def _is_settled(self, batch: int) -> bool:
        return all(is_settled(self._out, number, self._task.tries) for number in self._task.ids(batch))

    def _collect(self) -> None:
        """Wait for what is being written."""
        while self._writing:
            batch, written = self._writing.popleft()
            written.result()
            self._claims.release(batch)
            self._count(batch)

    def _count(self, batch: int) -> None:
        self._done += len(self._task.ids(batch))
        self._progress.update(self._done)
