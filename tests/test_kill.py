"""Killed with -9 at a certain write or after a certain pair and started again, all ends as if unbroken.

The unbroken ones are commands of their own; the killed ones are processes forked after the imports.
"""

import os
import subprocess
import sys
import time

import pytest

from adiff.datasets.readers import read_dataset
from adiff.errors import InputError
from adiff.storage import LOCK, UNFINISHED
from benchmarks.kill import Kill, annotate, finish, generate, import_, listing, make_inputs, start, train

PAIRS = 5  # batches of 2, 2 and 1

pytestmark = pytest.mark.skipif(os.name == "nt", reason="no kill -9")


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("inputs")
    make_inputs(folder)
    return folder


@pytest.fixture(scope="module")
def unbroken(inputs, tmp_path_factory):
    """What the unbroken run and the unbroken training leave; they run side by side."""
    folders = [tmp_path_factory.mktemp(name) for name in ("run", "training")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    started = [
        subprocess.Popen([sys.executable, "-m", "adiff", *arguments], env=environment, stdout=subprocess.DEVNULL)
        for arguments in (generate(inputs, folders[0], PAIRS), train(inputs, folders[1]))
    ]
    assert [process.wait(300) for process in started] == [0, 0]
    return dict(zip(("generate", "train"), map(listing, folders), strict=True))


def killed_at_a_pair(arguments, folder, number):
    """Start a run and kill it from outside, as soon as the record of a pair is there."""
    process = start(arguments, folder)
    deadline = time.monotonic() + 120
    while not (folder / "run" / "pairs" / f"{number:06d}.json").exists():
        assert process.is_alive() and time.monotonic() < deadline
        time.sleep(0.002)
    process.kill()
    assert not finish(process)


def test_a_run_ends_with_the_same_files_wherever_it_was_killed(inputs, unbroken, tmp_path):
    """The writes are run.json, then image, mask and record of each pair, then the report."""
    arguments, run = generate(inputs, tmp_path, PAIRS), tmp_path / "run"
    # before run.json has its name
    assert not finish(start(arguments, tmp_path, Kill(1, "before")))
    left = [path.name for path in run.iterdir()]
    assert len(left) == 2 and LOCK in left and all(name.startswith(".") for name in left)
    # in the middle of the first batch: pair 0 is whole, pair 1 has its image only
    assert not finish(start(arguments, tmp_path, Kill(6, "before")))
    assert [path.name for path in (run / "pairs").iterdir() if path.suffix == ".json"] == ["000000.json"]
    assert len(list((run / "image").glob("0*.png"))) == 2 and len(list((run / "mask").glob(".*.tmp"))) == 1
    # while the second batch is being made
    killed_at_a_pair(arguments, tmp_path, 1)
    # all pairs are there, the report is written but has no name: after image, mask and record of pairs 2, 3 and 4
    assert not finish(start(arguments, tmp_path, Kill(10, "before")))
    assert len(list((run / "pairs").glob("0*.json"))) == PAIRS and not (run / "report.html").exists()
    assert finish(start(arguments, tmp_path))
    assert listing(tmp_path) == unbroken["generate"]
    assert len(unbroken["generate"]) == 2 + 3 * PAIRS


def test_a_training_ends_with_the_same_library_wherever_it_was_killed(inputs, unbroken, tmp_path):
    """The writes are a state for each of 4 steps, then the library; for defects, then for masks."""
    arguments, out = train(inputs, tmp_path), tmp_path / "new.safetensors"
    states = tmp_path / "new.safetensors.state"
    # the second state of the defects is written, the first has its name
    assert not finish(start(arguments, tmp_path, Kill(2, "before")))
    assert sorted(path.name for path in states.iterdir() if not path.name.startswith(".")) == ["anomalies.safetensors"]
    # the library has the defects; the masks' third state has its name: resumed at step 1, so 3 + 1 writes before
    assert not finish(start(arguments, tmp_path, Kill(7, "after")))
    assert out.exists() and (states / "masks.safetensors").exists()
    # before the copy of the library as it was has its name
    assert not finish(start(arguments, tmp_path, Kill(1, "before")))
    assert finish(start(arguments, tmp_path))
    assert listing(tmp_path) == unbroken["train"] and set(unbroken["train"]) == {"new.safetensors"}


def test_an_import_is_no_data_set_before_its_end_wherever_it_was_killed(tmp_path):
    """The writes are import.json, the mark that it is none yet, then masks and photos."""
    annotate(tmp_path / "inputs")
    (tmp_path / "whole").mkdir()
    assert finish(start(import_(tmp_path / "inputs", tmp_path / "whole"), tmp_path / "whole"))
    unbroken = listing(tmp_path / "whole")
    assert len(unbroken) == 6 and UNFINISHED not in str(unbroken)
    for kill in (*(Kill(write, "before") for write in range(1, 8)), Kill(7, "after")):
        folder = tmp_path / f"killed {kill.when} {kill.at}"
        folder.mkdir()
        arguments = import_(tmp_path / "inputs", folder)
        assert not finish(start(arguments, folder, kill))
        with pytest.raises(InputError, match="no images found" if kill.at < 3 else "set is not complete: the command"):
            read_dataset(folder / "set")
        assert finish(start(arguments, folder))
        assert listing(folder) == unbroken
    assert len(read_dataset(folder / "set").shots) == 1
