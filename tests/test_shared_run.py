"""Processes that share a run and are killed with -9 at random writes end with the files of one unbroken process."""

import multiprocessing
import os
import random
import signal
import time

import numpy as np
import pytest
import torch

from adiff.datasets.images import write_png
from adiff.generation import FolderMasks, GenerationSettings, generate_run
from adiff.library import Defect, Library
from adiff.pair_filter import PairFilter
from adiff.storage import LOCK
from adiff.workers import CLAIMS

KEY = ("metal", "hole")
PAIRS = 12  # six batches of 2, with rejects: about 60 writes
SEAM = 0.87
"""A limit that some tries of the random model's pairs break."""

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork, and no kill -9")


@pytest.fixture(scope="module")
def inputs(tmp_path_factory, make_mask):
    """Normal images and masks."""
    folder, rng = tmp_path_factory.mktemp("inputs"), np.random.default_rng(1)
    for i in range(3):
        write_png(folder / "normals" / f"{i}.png", rng.integers(0, 255, (64, 64, 3), np.uint8))
        write_png(folder / "masks" / f"{i}.png", make_mask(4 + 9 * i))
    return folder


@pytest.fixture(scope="module")
def start(inputs, backbone):
    """Start a process that works on a run; with `kill` it ends itself with -9 at that write, before or after it."""
    e_a = torch.randn(8, 768, generator=torch.Generator().manual_seed(0))
    library = Library({KEY: Defect(*KEY, anomaly=e_a)}, backbone.fingerprint, "tiny", 768)
    normals, masks = (sorted((inputs / name).iterdir()) for name in ("normals", "masks"))

    def work(out, kill, when):
        torch.set_num_threads(1)  # a forked process has none of its parent's
        rename, written = os.replace, 0

        def counted(source, target):
            nonlocal written
            written += 1
            for moment in ("before", "after"):
                if (written, when) == (kill, moment):
                    os.kill(os.getpid(), signal.SIGKILL)
                if moment == "before":
                    rename(source, target)

        os.replace = counted
        generate_run(
            backbone, library, KEY, None, normals, FolderMasks(masks), count=PAIRS, out=out, seed=3, tries=3,
            settings=GenerationSettings(steps=1, reweighting="off", guidance=1.0, batch=2),
            limits=PairFilter(max_seam=SEAM),
        )  # fmt: skip

    def begin(out, kill=0, when="before"):
        process = multiprocessing.get_context("fork").Process(target=work, args=(out, kill, when), daemon=True)
        process.start()
        return process

    return begin


def ended(process):
    """Wait for a process: True if it is done, False if it was killed."""
    process.join(120)
    assert process.exitcode in (0, -signal.SIGKILL)
    return process.exitcode == 0


def listing(folder):
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.fixture(scope="module")
def alone(start, tmp_path_factory):
    """The files of one unbroken process."""
    out = tmp_path_factory.mktemp("alone") / "run"
    assert ended(start(out))
    files = listing(out)
    assert sum(name.startswith("rejects/pairs") for name in files) >= 3  # or the limit tests nothing
    assert sum(name.startswith("pairs") for name in files) >= PAIRS // 2
    return files


@pytest.mark.parametrize("seed", range(2))
def test_processes_killed_at_random_end_with_the_files_of_one(start, alone, tmp_path, seed):
    rng, out = random.Random(seed), tmp_path / "run"
    kills = [(rng.randint(1, 15), rng.choice(("before", "after"))) for _ in range(6)]
    working, killed = [start(out, *kills.pop()) for _ in range(2)], 0
    while working:
        if not ended(working.pop(0)):
            killed += 1
            working.append(start(out, *(kills.pop() if kills else ())))
    assert killed >= 3 and listing(out) == alone


def test_the_one_that_lives_takes_over_from_the_one_that_does_not(start, alone, tmp_path):
    out = tmp_path / "run"
    killed, other = start(out, 5, "before"), start(out)
    assert not ended(killed) and ended(other)
    assert listing(out) == alone  # no claim, no lock, no half-written file


def test_a_process_killed_from_outside_leaves_nothing_that_holds_up_the_next(start, alone, tmp_path):
    out, began = tmp_path / "run", time.monotonic()
    process = start(out)
    while not (out / CLAIMS).is_dir():
        assert process.is_alive() and time.monotonic() < began + 60
        time.sleep(0.001)
    process.kill()
    assert not ended(process) and (out / LOCK).exists()
    assert ended(start(out)) and listing(out) == alone
