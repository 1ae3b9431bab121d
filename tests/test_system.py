"""Locks between processes, whether a process lives, and files that others have open."""

import contextlib
import os
import subprocess
import sys

import pytest

from adiff import system
from adiff.system import lives, lock, persist

HOLD = """
import sys
from adiff.system import lock
file = open(sys.argv[1], "ab+", 0)
print(lock(file, shared=sys.argv[2] == "shared"), flush=True)
sys.stdin.readline()
"""


@pytest.fixture
def held(tmp_path):
    """Let another process lock `tmp_path / "file"`; it ends when it is told to, or killed."""
    with contextlib.ExitStack() as stack:

        def hold(kind):
            process = subprocess.Popen(
                [sys.executable, "-c", HOLD, tmp_path / "file", kind], stdin=subprocess.PIPE, stdout=subprocess.PIPE
            )
            stack.callback(process.communicate)
            stack.callback(process.kill)
            assert process.stdout.readline().strip() == b"True"
            return process

        yield hold


@pytest.mark.parametrize(("theirs", "together"), [("shared", True), ("alone", False)])
def test_a_lock_is_shared_or_alone_until_its_process_ends(tmp_path, held, theirs, together):
    process = held(theirs)
    with open(tmp_path / "file", "ab+", 0) as file:
        assert lock(file, shared=True) is together
        assert not lock(file)
        process.kill()
        process.wait()
        assert lock(file) and lock(file, shared=True) and lock(file)


def test_what_is_locked_can_be_read_and_added_to(tmp_path, held):
    held("alone")
    with open(tmp_path / "file", "ab+", 0) as file:
        file.write(b"more")
    assert (tmp_path / "file").read_bytes() == b"more"


def test_a_process_lives_until_it_ends(tmp_path, held):
    process = held("alone")
    assert lives(process.pid) and lives(os.getpid())
    process.kill()
    process.wait()
    assert not lives(process.pid)


def test_what_windows_refuses_for_a_moment_is_tried_again(tmp_path, monkeypatch):
    refusals = [PermissionError(), PermissionError()]

    def act(word):
        if refusals:
            raise refusals.pop()
        return word

    monkeypatch.setattr(system, "WINDOWS", False)
    with pytest.raises(PermissionError):
        persist(act, "done")
    monkeypatch.setattr(system, "WINDOWS", True)
    assert persist(act, "done") == "done"
    refusals += [PermissionError()]
    monkeypatch.setattr(system, "PATIENCE", -1)
    with pytest.raises(PermissionError):
        persist(act, "done")
