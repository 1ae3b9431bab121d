"""Claims on batches, and processes that share a run's folder."""

import json
import os
import subprocess
import sys
import threading
import time

import pytest

from adiff import workers
from adiff.errors import InputError
from adiff.storage import LOCK, host_name, run_lock
from adiff.workers import CLAIMS, STALE, Claims, join_run, owner_of, workers_of


def claim_of(out, **about):
    """A claim on batch 3 as another process left it."""
    path = out / CLAIMS / "000003.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({"pid": os.getppid(), "host": host_name(), "worker": "x", "batch": 3} | about))
    return path


@pytest.fixture
def dead():
    """The number of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_a_batch_has_one_owner_until_it_is_given_back(tmp_path):
    with Claims(tmp_path) as first, Claims(tmp_path) as second:
        assert first.take(3) and not second.take(3) and second.take(4)
        first.release(3)
        assert second.take(3)
        (told,) = workers_of(tmp_path)[:1]
        assert (told["pid"], sorted(told["batches"])) == (os.getpid(), [3, 4])
    assert list((tmp_path / CLAIMS).iterdir()) == [] and workers_of(tmp_path) == []


def test_only_one_of_many_gets_a_batch(tmp_path):
    taken, barrier = [], threading.Barrier(8)

    def race():
        with Claims(tmp_path) as claims:
            barrier.wait()
            taken.extend(batch for batch in range(20) if claims.take(batch))
            barrier.wait()  # nobody gives back before all have asked

    threads = [threading.Thread(target=race) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(taken) == list(range(20))


def test_what_a_dead_process_claimed_is_taken_over(tmp_path, dead):
    claim_of(tmp_path, pid=dead)
    with Claims(tmp_path) as claims:
        assert claims.take(3)


def test_a_process_before_this_one_with_its_number_is_dead(tmp_path):
    assert owner_of(claim_of(tmp_path, pid=os.getpid(), worker="of another life")) is None


@pytest.mark.parametrize("about", [{}, {"pid": os.getppid()}, {"host": "elsewhere"}, {"pid": "?"}, {"host": None}])
def test_a_claim_that_somebody_keeps_fresh_is_respected(tmp_path, about):
    path = claim_of(tmp_path, **about)
    with Claims(tmp_path) as claims:
        assert not claims.take(3)
        os.utime(path, (time.time() - STALE - 1,) * 2)
        assert claims.take(3)


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"\xff"])
def test_a_claim_that_is_just_being_written_is_somebodys(tmp_path, content):
    path = claim_of(tmp_path)
    path.write_bytes(content)
    with Claims(tmp_path) as claims:
        assert not claims.take(3) and workers_of(tmp_path) == []
        os.utime(path, (time.time() - STALE - 1,) * 2)
        assert claims.take(3)


def test_a_claim_is_kept_fresh(tmp_path, monkeypatch):
    monkeypatch.setattr(workers, "BEAT", 0.01)
    with Claims(tmp_path) as claims:
        claims.take(3)
        path = tmp_path / CLAIMS / "000003.json"
        os.utime(path, (0, 0))
        until = time.monotonic() + 10
        while path.stat().st_mtime < 1 and time.monotonic() < until:
            time.sleep(0.01)
        assert time.time() - path.stat().st_mtime < 10


def test_those_who_share_leave_nothing_and_keep_out_who_wants_it_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(workers, "PATIENCE", 0.05)
    out = tmp_path / "new" / "run"
    with join_run(out), join_run(out):
        with pytest.raises(InputError, match=f"process {os.getpid()} on .* is writing to"), run_lock(out):
            pass
    assert not (tmp_path / "new").exists()
    out.mkdir(parents=True)
    with run_lock(out), pytest.raises(InputError, match=f"process {os.getpid()} on .* is writing to"), join_run(out):
        pass


def test_a_file_of_the_runs_name_is_refused(tmp_path):
    (tmp_path / "run").write_text("x")
    with pytest.raises(InputError, match="run is a file; give a folder"), join_run(tmp_path / "run"):
        pass


def test_the_first_and_the_last_remove_what_killed_ones_left(tmp_path, dead):
    def leave():
        for place in (tmp_path, tmp_path / "image", tmp_path / "rejects" / "mask"):
            place.mkdir(parents=True, exist_ok=True)
            (place / ".0123456789abcdef.0123456789abcdef.tmp").write_bytes(b"half")
        claim_of(tmp_path, pid=dead)

    def left():
        return {path.name for path in tmp_path.rglob(".*")}

    leave()
    (tmp_path / LOCK).write_text("{}\n")
    (tmp_path / "image" / "0.png").write_bytes(b"whole")
    with join_run(tmp_path):
        assert left() == {LOCK}
        leave()
        with join_run(tmp_path):
            assert len(left()) == 3  # another one is at work: these may be its own
        assert len(left()) == 3
    assert left() == set() and (tmp_path / "image" / "0.png").exists()


COME_AND_GO = """
import sys, time
from pathlib import Path
from adiff.workers import join_run
end = time.monotonic() + 1.5
while time.monotonic() < end:
    with join_run(Path(sys.argv[1])):
        pass
"""


def test_processes_come_and_go_at_the_same_time(tmp_path):
    """Each may find the folder or its lock just removed by who went last."""
    started = [subprocess.Popen([sys.executable, "-c", COME_AND_GO, tmp_path / "run"]) for _ in range(3)]
    assert [process.wait(timeout=60) for process in started] == [0, 0, 0]


def test_what_another_machine_is_at_is_left_alone(tmp_path):
    (tmp_path / ".0123456789abcdef.0123456789abcdef.tmp").write_bytes(b"half")
    claim_of(tmp_path, host="elsewhere")
    (tmp_path / LOCK).write_text("{}\n")
    with join_run(tmp_path):
        pass
    assert len(list(tmp_path.glob(".*.tmp"))) == 1 and (tmp_path / CLAIMS / "000003.json").exists()
