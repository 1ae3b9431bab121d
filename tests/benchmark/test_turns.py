"""Several processes on one benchmark: who makes what, and that nothing is made twice or lost."""

import multiprocessing
import os
import signal
import time

import pytest
import torch

from adiff.benchmark import Cell, Failures, Recipe, Variant, bench, learning, run_matrix
from adiff.benchmark.matrix import digest_of
from adiff.benchmark.run import read_rows
from adiff.benchmark.turns import Busy, Turns
from adiff.generation import GenerationSettings
from adiff.storage import LOCK
from adiff.workers import CLAIMS, Claims

FAST = GenerationSettings(steps=1, guidance=1.0, reweighting="off", crop=False)
REAL = Variant("real", Recipe(source=None, real=True))
PASTED = Variant("real + cutpaste", Recipe(source="cutpaste", real=True), "real")
OURS = Variant("generated", Recipe(generation=FAST), "real")
MORE = Variant("real + generated", Recipe(generation=FAST, real=True), "real")

forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork, and no kill -9")


def cells(work, *variants):
    return [Cell("uplift", variant, unit, 0) for unit in work.units for variant in variants]


def numbers(out):
    rows = [{**row, "seconds": None, "spent": None} for row in read_rows(out)]
    return sorted(rows, key=lambda row: row["variant"])


@pytest.fixture
def start(work, tmp_path, monkeypatch):
    """Start a process that measures cells in a folder; what it learns is told in `told`, a line each."""
    told = tmp_path / "told.txt"
    told.touch()

    def telling(name, once):
        def learn(self, folder, *rest):
            with open(told, "a") as file:
                file.write(f"{folder.name}\n")
            return once(self, folder, *rest)

        return learn

    for name in ("_learn", "_learn_masks"):
        monkeypatch.setattr(learning.Workshop, name, telling(name, getattr(learning.Workshop, name)))

    def measure(name, wanted):
        torch.set_num_threads(1)  # a forked process has none of its parent's
        run_matrix(work.bench(name), "metal", wanted)

    def begin(name, wanted):
        process = multiprocessing.get_context("fork").Process(target=measure, args=(name, wanted), daemon=True)
        process.start()
        return process

    begin.told, begin.out = told, lambda name: work.bench(name).out
    return begin


@forks
def test_two_processes_divide_the_cells_and_measure_what_one_measures(start, work):
    wanted = cells(work, REAL, OURS, MORE)
    both = [start("both", wanted) for _ in range(2)]
    for process in both:
        process.join(120)
        assert process.exitcode == 0
    learned = start.told.read_text().split()
    assert len(learned) == len(set(learned)) == 2  # embeddings and masks, once each
    alone = start("alone", wanted)
    alone.join(120)
    assert numbers(start.out("both")) == numbers(start.out("alone")) and len(read_rows(start.out("both"))) == 3
    assert not (start.out("both") / CLAIMS).exists() and not (start.out("both") / LOCK).exists()


@forks
def test_what_a_killed_process_had_begun_is_done_by_the_others(start, work):
    wanted = cells(work, REAL, OURS)
    killed, began = start("out", wanted), time.monotonic()
    while not start.told.read_text():  # it is learning
        assert killed.is_alive() and time.monotonic() < began + 60
        time.sleep(0.001)
    os.kill(killed.pid, signal.SIGKILL)
    killed.join()
    assert run_matrix(work.bench("out"), "metal", wanted) == Failures(2, 0)
    assert not list(start.out("out").glob("learned/*/.*.tmp"))


def test_what_needs_another_process_is_put_off(work):
    """What OURS learns is with another worker until REAL is measured."""
    (ours, real), done = cells(work, OURS, REAL), []
    learned = f"metal-0-{digest_of(ours.unit.record(), ours.variant.recipe.learning())}"
    with Claims(work.bench().out) as other:
        assert other.take(learned)

        def tell(line, left):
            done.append(line)
            other.release(learned)

        assert run_matrix(work.bench(), "metal", [ours, real], tell=tell) == Failures(2, 0)
    assert [line.split(", ")[1] for line in done] == ["real", "generated"]


def test_a_cell_that_failed_elsewhere_meanwhile_is_not_tried_again(work, monkeypatch):
    tried = []
    monkeypatch.setattr(bench, "detect", lambda *_: tried.append(1) or 1 / 0)
    wanted = cells(work, REAL, PASTED)

    def tell(line, left):
        if len(tried) == 1:  # after the first: another process comes, measures both and goes
            run_matrix(work.bench(), "metal", wanted)

    assert run_matrix(work.bench(), "metal", wanted, tell=tell) == Failures(0, 2)
    assert len(tried) == 3  # real here and there, cutpaste there alone


def test_turns_are_one_at_a_time_and_nobody_waits_for_a_dead_one(tmp_path):
    with Turns(tmp_path) as one, Turns(tmp_path) as two:
        assert one.workers == 1
        with one.alone("a"):
            with two.alone("b"):
                assert one.workers == 2
            with pytest.raises(Busy, match="a"), two.alone("a"):
                pass
        with two.in_turn("a"), pytest.raises(ValueError, match="inside"), one.in_turn("c"):
            raise ValueError("inside")
        with two.in_turn("c"):
            pass
    assert list(tmp_path.iterdir()) == []
