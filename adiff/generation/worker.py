"""One process at work on a run, beside any number of others."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from ..datasets.images import Photo
from ..object_storage import ObjectRun
from ..progress import Progress
from ..run_record import is_settled, settled_ids
from ..workers import Claims
from .batch import Broken, Made, Task
from .files import write_made

POLL = 0.5
"""Seconds after which a worker with nothing left to claim looks again whether the others are done, or dead."""


class Worker:
    """It claims a batch, paints it, and has it written while it paints the next.

    The next batch is claimed and its normal images are read meanwhile. At most one batch is being read, one painted and
    one written, so memory does not grow with the run. shared: the run's place in object storage, if it lies there.
    """

    def __init__(self, out: Path, task: Task, claims: Claims, progress: Progress, shared: ObjectRun | None = None):
        self._out, self._task, self._claims, self._progress, self._shared = out, task, claims, progress, shared
        settled = settled_ids(out, task.tries)
        self._fresh = deque(b for b in range(task.batches) if not settled.issuperset(task.ids(b)))
        self._others: deque[int] = deque()
        self._done = task.count - sum(len(task.ids(b)) for b in self._fresh)
        self._writing: deque[tuple[int, Future[None]]] = deque()

    def work(self) -> None:
        """Return when every pair of the run is settled; raises what stops it, after the write that is on its way."""
        self._progress.update(self._done)  # also if it is 0: from here the rate counts
        with ThreadPoolExecutor(1, "read") as reader, ThreadPoolExecutor(1, "write") as writer:
            following = reader.submit(self._begin)
            while True:
                batch, photos, passed = following.result()
                self._count(passed)
                if batch is None:
                    self._collect()
                    if not self._others:
                        return
                    time.sleep(POLL)
                    following = reader.submit(self._begin)
                    continue
                following = reader.submit(self._begin)
                made = self._task.make(batch, photos)
                self._collect()
                self._writing.append((batch, writer.submit(self._write, made)))

    def _begin(self) -> tuple[int | None, list[Photo | Broken], list[int]]:
        """Claim a batch that is to be made and read its normal images; and the batches that proved to be done.

        None if there is none to claim now: all are done, this one's, or other processes'.
        """
        passed: list[int] = []
        for _ in range(len(self._fresh) + len(self._others)):
            batch = (self._fresh or self._others).popleft()
            if self._is_settled(batch):
                passed.append(batch)
            elif not self._claims.take(batch):
                self._others.append(batch)
            elif self._is_settled(batch):  # since it was looked at
                self._claims.release(batch)
                passed.append(batch)
            else:
                return batch, self._task.read(batch), passed
        return None, [], passed

    def _is_settled(self, batch: int) -> bool:
        ids = self._task.ids(batch)
        if self._shared is not None:
            return self._shared.settled(ids, self._task.tries)
        return all(is_settled(self._out, number, self._task.tries) for number in ids)

    def _write(self, made: Made) -> None:
        write_made(self._out, self._task, made)
        if self._shared is not None:
            self._shared.push()

    def _collect(self) -> None:
        """Wait for what is being written."""
        while self._writing:
            batch, written = self._writing.popleft()
            written.result()
            self._claims.release(batch)
            self._count([batch])

    def _count(self, batches: Iterable[int]) -> None:
        if pairs := sum(len(self._task.ids(batch)) for batch in batches):
            self._done += pairs
            self._progress.update(self._done)
