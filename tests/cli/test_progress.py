"""Progress: plain lines where there is no terminal, rate and time left as worked out by hand."""

import io
import logging

import pytest
from rich.console import Console

from adiff.cli.app import _set_up_logging
from adiff.cli.progress import CliProgress, duration


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock():
    return Clock()


def plain(clock) -> tuple[CliProgress, io.StringIO]:
    text = io.StringIO()
    return CliProgress(Console(file=text, width=40), clock), text


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.4, "0 s"), (59.4, "59 s"), (60, "1 min 00 s"), (125, "2 min 05 s"), (3600, "1 h 00 min"), (12e3, "3 h 20 min")],
)
def test_durations_in_words(seconds, words):
    assert duration(seconds) == words


def test_rate_and_time_left(clock):
    progress, _ = plain(clock)
    progress.start(40, "learning")
    clock.now += 7
    progress.update(1)
    clock.now += 5
    progress.update(11, loss=0.123456)
    assert progress.state() == "2.0/s, 14 s left, loss 0.123"  # 10 in 5 s, 29 to go


def test_slow_work_says_seconds_each(clock):
    progress, _ = plain(clock)
    progress.start(4, "learning")
    progress.update(1)
    clock.now += 8
    progress.update(2)
    assert progress.state() == "8.0 s each, 16 s left"


def test_resumed_work_counts_its_own_steps_only(clock):
    progress, _ = plain(clock)
    progress.start(100, "learning")
    progress.update(90)
    clock.now += 4
    progress.update(92)
    assert progress.state() == "2.0 s each, 16 s left"


def test_lines_come_now_and_then_and_at_the_end(clock):
    progress, text = plain(clock)
    progress.start(100, "learning [defects]")
    for step in range(1, 31):
        clock.now += 1
        progress.update(step)
    progress.finish()
    lines = text.getvalue().splitlines()
    assert [line.split(",")[0] for line in lines] == [f"learning [defects]: {n}/100" for n in (10, 20, 30)]


def test_what_the_last_line_told_is_not_told_again_at_the_end(clock):
    progress, text = plain(clock)
    for steps in (10, 13):
        progress.start(steps, "learning")
        for step in range(1, steps + 1):
            clock.now += 1
            progress.update(step)
        progress.finish()
    assert [line.split(",")[0][10:] for line in text.getvalue().splitlines()] == ["10/10", "10/13", "13/13"]


def test_a_warning_stands_above_the_bar_on_a_line_of_its_own(monkeypatch):
    terminal = io.StringIO()
    monkeypatch.setattr("sys.stderr", terminal)
    _set_up_logging(False)
    with CliProgress(Console(stderr=True, force_terminal=True, width=120)) as progress:
        progress.start(10, "learning")
        progress.update(3)
        progress._bars.refresh()
        logging.getLogger("adiff").warning("a mask is empty")
    bar, line = terminal.getvalue().split("warning: a mask is empty\n", 1)[0], "\r\x1b[2K"
    assert "3/10" in bar and bar.endswith(line)  # the bar is wiped first


def test_a_terminal_shows_a_bar_that_goes_away_when_work_breaks_off(clock):
    text = io.StringIO()
    console = Console(file=text, force_terminal=True, width=120)
    with pytest.raises(RuntimeError), CliProgress(console, clock) as progress:
        progress.start(10, "learning")
        progress.update(0)
        clock.now += 5
        progress.update(5, loss=0.5)
        progress._bars.refresh()
        raise RuntimeError
    assert "5/10" in text.getvalue() and "5 s left" in text.getvalue()
    assert progress._bars is None


def test_work_whose_first_step_takes_long_is_told_at_once(clock):
    progress, text = plain(clock)
    progress.start(64, "views of shots")
    progress.update(0)
    assert text.getvalue() == "views of shots: 0/64\n"
    progress.update(0)  # as who waits for others asks again and again
    assert text.getvalue() == "views of shots: 0/64\n"
    clock.now += 60
    progress.update(8)
    assert text.getvalue().endswith("views of shots: 8/64, 7.5 s each, 7 min 00 s left\n")


def test_one_piece_of_work_follows_another(clock):
    progress, text = plain(clock)
    for what in ("first", "second"):
        progress.start(1, what)
        clock.now += 2
        progress.update(1)
        progress.finish()
    assert text.getvalue() == "first: 1/1, took 2 s\nsecond: 1/1, took 2 s\n"
