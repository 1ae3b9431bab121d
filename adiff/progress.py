"""The one way in which long work tells how far it is; the command line and the graph each bring their own listener."""

from __future__ import annotations

from typing import Protocol


class Cancelled(Exception):
    """Raised by a listener's `update` to stop the work; what is done is kept."""


class Progress(Protocol):
    """A listener to one piece of work at a time."""

    def start(self, total: int, what: str) -> None:
        """Begin a piece of work of `total` steps, named `what`."""

    def update(self, done: int, **info: float) -> None:
        """`done` steps are finished; info: numbers worth showing (loss, ...). May raise Cancelled.

        0 has work shown whose first step takes long.
        """

    def finish(self) -> None:
        """The piece of work has ended."""


class NullProgress:
    """A listener that shows nothing."""

    def start(self, total: int, what: str) -> None:
        """Ignore."""

    def update(self, done: int, **info: float) -> None:
        """Ignore."""

    def finish(self) -> None:
        """Ignore."""


class Prefixed:
    """Tells another listener which of several alike a piece of work belongs to."""

    def __init__(self, progress: Progress, prefix: str):
        self._progress, self._prefix = progress, prefix

    def start(self, total: int, what: str) -> None:
        """Begin, named `prefix: what`."""
        self._progress.start(total, f"{self._prefix}: {what}")

    def update(self, done: int, **info: float) -> None:
        """Pass on."""
        self._progress.update(done, **info)

    def finish(self) -> None:
        """Pass on."""
        self._progress.finish()
