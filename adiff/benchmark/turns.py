"""Any number of processes on one benchmark: each cell, and each thing that cells share, is made by one of them.

They divide the cells by claims (`adiff.workers`), which only spare work: what two processes make twice is the same. A
cell that needs what another process is just making is put off, and one that needs nothing of the kind goes first.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from ..workers import Claims, join_run, workers_of

POLL = 0.5
"""Seconds after which a process with nothing left to begin looks again."""
SOON = 0.02
"""Seconds after which one looks again for what others hold for a moment."""


class Busy(Exception):
    """Another process is making what a cell needs; its name."""


class Turns:
    """A process's part in the work on a folder; a context manager, out of which its work is not shared."""

    def __init__(self, out: Path):
        self._out, self._claims, self._open = out, None, ExitStack()

    def __enter__(self) -> Turns:
        with ExitStack() as opening:
            opening.enter_context(join_run(self._out))
            self._claims = opening.enter_context(Claims(self._out))
            self._open = opening.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        self._claims = None
        self._open.__exit__(*error)

    @property
    def workers(self) -> int:
        """Processes that are at work on the folder, this one among them."""
        return max(1, len(workers_of(self._out)))

    @contextmanager
    def alone(self, name: str) -> Iterator[None]:
        """Be the one that makes a thing of that name; raises Busy if another process is."""
        claims = self._claims
        if claims is None:
            yield
            return
        if not claims.take(name):
            raise Busy(name)
        try:
            yield
        finally:
            claims.release(name)

    @contextmanager
    def in_turn(self, name: str) -> Iterator[None]:
        """Be the one that changes a thing of that name, after whoever does now."""
        while True:
            with ExitStack() as held:
                try:
                    held.enter_context(self.alone(name))
                except Busy:
                    time.sleep(SOON)
                    continue
                yield
                return
