import errno
import json
import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from adiff import storage
from adiff.errors import InputError
from adiff.storage import LOCK, clear_folder, remove_leftovers, run_lock, write_json, write_text, write_whole


def names(folder):
    return [path.name for path in folder.iterdir()]


def test_a_file_and_its_folders_are_made_and_nothing_else(tmp_path):
    write_whole(tmp_path / "a" / "b.bin", lambda path: path.write_bytes(b"new"))
    assert (tmp_path / "a" / "b.bin").read_bytes() == b"new"
    assert names(tmp_path) == ["a"] and names(tmp_path / "a") == ["b.bin"]


def test_the_target_is_untouched_until_the_writer_is_done(tmp_path):
    target = tmp_path / "x"
    target.write_bytes(b"old")

    def write(path):
        path.write_bytes(b"new")
        assert path != target and path.parent == tmp_path and target.read_bytes() == b"old"

    write_whole(target, write)
    assert target.read_bytes() == b"new"


@pytest.mark.parametrize("cut", ["write", "replace"])
@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt()])
def test_a_failure_leaves_the_old_file_alone(tmp_path, monkeypatch, cut, error):
    target = tmp_path / "x"
    target.write_bytes(b"old")

    def fail(*_):
        raise error

    def write(path):
        path.write_bytes(b"half")
        if cut == "write":
            fail()

    if cut == "replace":
        monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(type(error)):
        write_whole(target, write)
    assert target.read_bytes() == b"old" and names(tmp_path) == ["x"]


def test_writers_of_one_file_do_not_meet(tmp_path):
    used = []

    def write(path):
        used.append(path)
        path.write_bytes(b"x")

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: write_whole(tmp_path / "x", write), range(20)))
    assert len(set(used)) == 20 and names(tmp_path) == ["x"]


def test_a_name_of_full_length_can_be_written(tmp_path):
    name = "n" * 250 + ".json"
    write_json(tmp_path / name, 1)
    assert names(tmp_path) == [name]


def test_json_reads_back_with_letters_and_names_that_are_no_text(tmp_path):
    content = {"größe": "瑕疵", "file": b"photo\xe9.png".decode("utf-8", "surrogateescape")}
    write_json(tmp_path / "x.json", content)
    written = (tmp_path / "x.json").read_bytes()
    assert json.loads(written.decode("utf-8")) == content
    assert "größe".encode() in written and written.endswith(b"}\n")


def test_text_keeps_its_line_ends(tmp_path):
    write_text(tmp_path / "x.txt", "a\nb\r\nc")
    assert (tmp_path / "x.txt").read_bytes() == b"a\nb\r\nc"


def test_the_systems_errors_name_the_file_that_was_to_be_written(tmp_path):
    def full(temporary):
        temporary.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError) as caught:
        write_whole(tmp_path / "x", full)
    assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, str(tmp_path / "x")) and not names(tmp_path)


@pytest.mark.skipif(sys.platform == "win32", reason="no limits on processes")
def test_a_disk_that_takes_no_more_leaves_the_old_file():
    """The system itself refuses here, in the middle of the write."""
    code = (
        "import os, resource, signal, tempfile\n"
        "from pathlib import Path\n"
        "from adiff.storage import write_whole\n"
        "target = Path(tempfile.mkdtemp()) / 'x'\n"
        "target.write_bytes(b'old')\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "try: write_whole(target, lambda path: path.write_bytes(bytes(5000)))\n"
        "except OSError as error: print(error.errno, error.filename == str(target))\n"
        "print(target.read_bytes(), os.listdir(target.parent))"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert told.splitlines() == [f"{errno.EFBIG} True", "b'old' ['x']"]


def leave(path, monkeypatch):
    """What a write that is killed in its middle leaves of `path`."""
    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", lambda *_, **__: None)
        with pytest.raises(ZeroDivisionError):
            write_whole(path, lambda temporary: 1 / temporary.write_bytes(b""))


def test_leftovers_of_a_file_are_told_from_those_of_others(tmp_path, monkeypatch):
    for name in ("a.json", "b.json"):
        leave(tmp_path / name, monkeypatch)
    (tmp_path / ".mine.tmp").write_bytes(b"")
    assert len(names(tmp_path)) == 3
    remove_leftovers(tmp_path / "a.json")
    assert len(names(tmp_path)) == 2
    remove_leftovers(tmp_path / "a.json", tmp_path / "nowhere" / "c")
    assert len(names(tmp_path)) == 2
    remove_leftovers(tmp_path)
    assert names(tmp_path) == [".mine.tmp"]


def test_a_lock_is_there_while_it_is_held_and_leaves_nothing(tmp_path):
    with run_lock(tmp_path / "new" / "run"):
        assert names(tmp_path / "new" / "run") == [LOCK]
    assert names(tmp_path) == []
    with run_lock(tmp_path / "new" / "run"):
        write_json(tmp_path / "new" / "run" / "x.json", 1)
    assert names(tmp_path / "new" / "run") == ["x.json"]
    with pytest.raises(ZeroDivisionError), run_lock(tmp_path):
        _ = 1 / 0
    assert names(tmp_path) == ["new"]
    (tmp_path / "mine").mkdir()
    with run_lock(tmp_path / "mine"):
        pass
    assert sorted(names(tmp_path)) == ["mine", "new"]


def test_a_cleared_folder_keeps_its_lock_and_then_goes(tmp_path):
    run = tmp_path / "run"
    write_json(run / "image" / "x.json", 1)
    write_json(run / "run.json", 1)
    (run / "elsewhere").symlink_to(tmp_path)
    write_json(tmp_path / "mine.json", 1)
    with run_lock(run):
        clear_folder(run)
        assert names(run) == [LOCK]
        with pytest.raises(InputError, match="is writing to"), run_lock(run):
            pass
    assert names(tmp_path) == ["mine.json"]


def test_a_second_lock_says_who_has_the_first(tmp_path):
    with run_lock(tmp_path):
        told = f"process {os.getpid()} on .* is writing to {re.escape(str(tmp_path))}; let it end"
        with pytest.raises(InputError, match=told), run_lock(tmp_path):
            pass
        assert names(tmp_path) == [LOCK]
    with run_lock(tmp_path):
        pass


def test_a_file_is_no_folder_to_lock(tmp_path):
    (tmp_path / "x").write_text("mine")
    with pytest.raises(InputError, match="x is a file; give a folder"), run_lock(tmp_path / "x"):
        pass


@pytest.mark.skipif(os.name == "nt", reason="Windows removes no open file")
def test_a_folder_that_was_removed_meanwhile_is_no_error(tmp_path):
    with run_lock(tmp_path / "run"):
        (tmp_path / "run" / LOCK).unlink()
        (tmp_path / "run").rmdir()


HOLD = """
import sys, time
from pathlib import Path
from adiff.storage import run_lock
with run_lock(Path(sys.argv[1])):
    print("locked", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that has the lock of tmp_path / "run"."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, tmp_path / "run"], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "locked\n"
    yield process
    process.kill()
    process.communicate()


def test_a_lock_ends_with_its_process_and_what_that_left_is_removed(tmp_path, holder, monkeypatch):
    run = tmp_path / "run"
    with pytest.raises(InputError, match=f"process {holder.pid} on"), run_lock(run):
        pass
    for path in (run / "run.json", run / "image" / "0.png"):
        leave(path, monkeypatch)
    (run / "image" / "mine.tmp").write_bytes(b"")
    assert len(list(run.rglob("*.tmp"))) == 3
    holder.kill()
    holder.wait()
    assert LOCK in names(run)
    with run_lock(run):
        assert [p.name for p in run.rglob("*.tmp")] == ["mine.tmp"]
    assert names(run) == ["image"]


def test_where_no_process_was_killed_nothing_is_removed(tmp_path, monkeypatch):
    """Another program's write may be under way in a folder that turns out to be no run."""
    leave(tmp_path / "library.safetensors", monkeypatch)
    with run_lock(tmp_path):
        assert len(names(tmp_path)) == 2


@pytest.mark.parametrize("kept", [["keep"], []], ids=["folder stays", "folder goes"])
def test_of_many_processes_one_at_a_time_has_the_lock(tmp_path, kept):
    """Each that gets it finds the folder free of another's mark; they take and leave it as fast as they can."""
    code = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from adiff.errors import InputError\n"
        "from adiff.storage import run_lock\n"
        "folder, had, end = Path(sys.argv[1]), 0, time.monotonic() + 1.5\n"
        "while time.monotonic() < end:\n"
        "    try:\n"
        "        with run_lock(folder):\n"
        "            (folder / 'mark').touch(exist_ok=False)\n"
        "            (folder / 'mark').unlink()\n"
        "            had += 1\n"
        "    except InputError: pass\n"
        "print(had)"
    )
    for name in kept:
        (tmp_path / "run" / name).mkdir(parents=True)
    started = [
        subprocess.Popen([sys.executable, "-c", code, tmp_path / "run"], stdout=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    assert all(int(process.communicate(timeout=60)[0]) > 0 for process in started)
    if kept:
        assert names(tmp_path / "run") == kept


def test_a_file_system_without_locks_is_used_with_a_warning(tmp_path, monkeypatch, caplog):
    def none(_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(storage, "lock", none)
    with run_lock(tmp_path):
        assert "without locks; start no second process" in caplog.text
    assert names(tmp_path) == []
