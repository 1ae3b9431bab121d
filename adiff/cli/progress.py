"""Progress of long work on a terminal: a bar with rate and time left; plain lines elsewhere (logs, pipes)."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress as Bars

LINE_EVERY = 10.0
"""Seconds between two plain lines."""


class CliProgress:
    """Shows one piece of work at a time (`adiff.progress.Progress`), on stderr; a context manager.

    clock: seconds, for tests.
    """

    def __init__(self, console: Console | None = None, clock: Callable[[], float] = time.monotonic):
        if console is None:
            from rich.console import Console  # here, as no help needs it

            console = Console(stderr=True)
        self._console = console
        self._clock = clock
        self._bars: Bars | None = None
        self._what, self._total, self._done = "", 0, 0
        self._told: int | None = None
        self._began = self._said = 0.0
        self._first: tuple[float, int] | None = None
        self._info: dict[str, float] = {}

    def __enter__(self) -> CliProgress:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None):
        if self._bars is not None:
            self._bars.stop()
            self._bars = None

    def start(self, total: int, what: str) -> None:
        """Begin a piece of work of `total` steps."""
        self.__exit__(None, None, None)
        self._what, self._total, self._done, self._info = what, total, 0, {}
        self._first = self._told = None
        self._began = self._said = self._clock()
        if self._console.is_terminal:
            from .bars import make_bars

            self._bars = make_bars(self._console, self.state)
            self._bars.start()
            self._task = self._bars.add_task(what, total=total)

    def update(self, done: int, **info: float) -> None:
        """Say how many steps are done; info: what to show beside it (loss=0.12)."""
        if self._first is None:
            self._first = self._clock(), done  # the rate counts from here: work may have been resumed
        self._done, self._info = done, self._info | info
        if self._bars is not None:
            self._bars.update(self._task, completed=done)
        elif (self._told is None and not done) or self._clock() - self._said >= LINE_EVERY:
            self._line()

    def finish(self) -> None:
        """End the piece of work."""
        if self._bars is None and self._told != self._done:
            self._line()
        self.__exit__(None, None, None)

    def state(self) -> str:
        """Rate, time left and what else is known, in words."""
        now, (since, before) = self._clock(), self._first or (self._began, 0)
        parts = []
        if self._done > before and now > since:
            rate = (self._done - before) / (now - since)
            parts.append(f"{rate:.1f}/s" if rate >= 1 else f"{1 / rate:.1f} s each")
            if self._done < self._total:
                parts.append(f"{duration((self._total - self._done) / rate)} left")
        if self._done >= self._total:
            parts.append(f"took {duration(now - self._began)}")  # this time: work may have been resumed
        parts += [f"{name} {value:.3g}" for name, value in self._info.items()]
        return ", ".join(parts)

    def _line(self) -> None:
        self._said, self._told = self._clock(), self._done
        text = ", ".join(part for part in (f"{self._what}: {self._done}/{self._total}", self.state()) if part)
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)


def duration(seconds: float) -> str:
    """Seconds in words: 8 s, 2 min 05 s, 3 h 20 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
