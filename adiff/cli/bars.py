"""The bar of long work on a terminal; apart from `progress`, so that no help waits for it."""

from __future__ import annotations

from collections.abc import Callable

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn
from rich.text import Text


def make_bars(console: Console, state: Callable[[], str]) -> Progress:
    """Bars with what is done and `state()`: rate, time left and info of the running work."""
    return Progress(TextColumn("{task.description}"), BarColumn(bar_width=28), MofNCompleteColumn(), _State(state),
                    console=console)  # fmt: skip


class _State(ProgressColumn):
    def __init__(self, state: Callable[[], str]):
        super().__init__()
        self._state = state

    def render(self, task: Task) -> Text:
        return Text(self._state(), style="dim")
