"""Disks that are full and folders that are read-only."""

import errno
import os
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from adiff.cli import app

WRITES = ("train", "generate", "library rename", "library split", "library export", "surfaces")


@pytest.fixture
def commands(place, train, generate):
    """A command of each kind that writes."""
    library, new = place / "lib.safetensors", ("--out", place / "new.safetensors")
    return {
        "train": train(),
        "generate": generate(),
        "library rename": ("library", "rename", library, "metal/scratch", "metal/line"),
        "library split": ("library", "split", library, "metal/scratch", *new),
        "library export": ("library", "export", library, "metal/scratch", *new),
        "surfaces": ("surfaces", "--out", place / "new", "--images", 2, "--size", 64, "--product", "wood"),
    }


@pytest.mark.parametrize("fault", [errno.ENOSPC, errno.EROFS, errno.EACCES])
@pytest.mark.parametrize("command", WRITES)
def test_a_full_disk_or_a_read_only_folder_is_one_line(refused, place, tiny, monkeypatch, commands, command, fault):
    def fail(*_):
        raise OSError(fault, os.strerror(fault))

    monkeypatch.setattr("adiff.storage.os.replace", fail)
    monkeypatch.setattr("adiff.storage.os.link", fail)
    line = refused(*commands[command])
    assert line.startswith(f"error: {os.strerror(fault)}: {place}") and ".tmp" not in line


@pytest.mark.parametrize("writes", [0, 1, 4])
def test_a_run_goes_on_after_the_disk_was_full(place, tiny, monkeypatch, generate, done, listing, writes):
    """Before run.json, after it, or after the first pair; nothing that was done is lost."""
    done(*generate(out="unbroken/run"))
    whole, rename, made = listing(), os.replace, []

    def fail_later(source, target):
        if len(made) == writes:
            raise OSError(errno.ENOSPC, "No space left on device", str(target))
        made.append(target)
        rename(source, target)

    def no_links(*_):
        raise OSError(errno.EPERM, "Operation not permitted")

    with monkeypatch.context() as patch:
        patch.setattr("adiff.storage.os.replace", fail_later)
        patch.setattr("adiff.storage.os.link", no_links)
        result = CliRunner().invoke(app, [str(a) for a in generate()])
    assert result.exit_code == 2 and "; make room, then give the same command again\n" in result.stderr
    assert len(list((place / "run").glob("*/*.*"))) + (place / "run/run.json").exists() == writes
    assert not list(place.rglob("*.tmp")) and not list(place.rglob(".lock"))
    done(*generate())
    of_run = {name: content for name, content in listing().items() if name.startswith("run/")}
    unbroken = {name.removeprefix("unbroken/"): c for name, c in whole.items() if name.startswith("unbroken/")}
    assert of_run == unbroken and "run/report.html" in of_run


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="the super-user may write everywhere")
@pytest.mark.parametrize("command", WRITES)
def test_a_folder_without_the_right_to_write_is_one_line(refused, place, tiny, commands, command):
    place.chmod(0o555)
    try:
        line = refused(*commands[command])
    finally:
        place.chmod(0o755)
    assert "Permission denied" in line


@pytest.mark.skipif(sys.platform == "win32", reason="no limits on processes")
def test_the_systems_own_refusal_in_the_middle_of_a_write_is_one_line(place, listing):
    """The library's new file may not be as long as it has to be."""
    code = (
        "import resource, signal, sys\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "from adiff.cli import main\n"
        "sys.argv[0] = 'adiff'\n"
        "main()"
    )
    before = listing()
    arguments = ["library", "rename", str(place / "lib.safetensors"), "metal/scratch", "metal/line"]
    result = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True)
    assert (result.returncode, result.stdout) == (2, "")
    what = f"error: {os.strerror(errno.EFBIG)}: {place / 'lib.safetensors'}; "
    assert result.stderr == f"{what}the system allows no file of that length there; give another place\n"  # all of it
    assert listing() == before
