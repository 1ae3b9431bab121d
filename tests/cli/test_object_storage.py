"""`adiff generate --out URL`, `adiff run status URL` and `adiff run fetch`: a run in object storage is a run."""

import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import fsspec
import numpy as np
import pytest
import typer
from fsspec.implementations.memory import MemoryFileSystem

from adiff.cli import app
from adiff.cli.destination import Destination
from adiff.datasets.images import write_png
from adiff.errors import InputError
from adiff.generation.worker import Worker
from adiff.object_storage import ObjectFolder, ObjectRun, _ObjectClaims, is_url

URL = "memory://bucket/run"


class Weak(MemoryFileSystem):
    """Object storage that breaks down: `left` uploads of a run's files succeed, the others find no network."""

    protocol = "weak"
    left = 0

    def put_file(self, lpath, rpath, *args, **kwargs):
        if ".claims" not in rpath:
            if Weak.left <= 0:
                raise RuntimeError("no network")
            Weak.left -= 1
        super().put_file(lpath, rpath, *args, **kwargs)


class Whole(MemoryFileSystem):
    """Object storage in which, as in a real one, a file is there whole or not at all; fsspec's is empty at first."""

    protocol = "whole"

    def put_file(self, lpath, rpath, *args, **kwargs):
        self.pipe_file(rpath, Path(lpath).read_bytes())


fsspec.register_implementation("weak", Weak, clobber=True)
fsspec.register_implementation("whole", Whole, clobber=True)


@pytest.fixture(autouse=True)
def empty():
    MemoryFileSystem.store.clear()
    MemoryFileSystem.pseudo_dirs[:] = [""]


@pytest.fixture
def masks(tmp_path):
    folder = tmp_path / "masks"
    for i in range(2):
        mask = np.zeros((64, 64), bool)
        mask[10 + 20 * i : 30 + 20 * i, 20:40] = True
        write_png(folder / f"{i}.png", mask)
    return folder


@pytest.fixture
def start(run, library, data, masks):
    def arguments(out, *options, pairs=5):
        given = [library, "metal/scratch", "--normals", data / "metal/train/good", "--masks", masks, "--steps", 2,
                 "--batch", 2, "-n", pairs, "--out", out, *options]  # fmt: skip
        return [str(one) for one in given]

    def call(*given, **more):
        return run("generate", *arguments(*given, **more))

    call.arguments = arguments
    return call


def stored(url=URL):
    """What lies in the storage, by names in the run."""
    system, root = fsspec.core.url_to_fs(url)
    return {name.removeprefix(f"{root}/"): system.cat_file(name) for name in system.find(root)}


def on_disk(folder, but=()):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in Path(folder).rglob("*")
            if path.is_file() and path.name not in but}  # fmt: skip


def test_what_is_stored_is_what_a_folder_gets(start, run, tmp_path):
    assert start(tmp_path / "run").exit_code == 0
    result = start(URL)
    assert result.exit_code == 0, result.stderr
    assert f"5 pairs of metal/scratch in {URL}, median fill" in result.stdout
    expected = on_disk(tmp_path / "run", but=["report.html"])
    assert stored() == expected and len(expected) == 1 + 3 * 5
    assert start(URL).exit_code == 0 and stored() == expected  # whole already
    fetched = run("run", "fetch", URL, tmp_path / "copy")
    assert fetched.exit_code == 0 and "5 pairs of" in fetched.stdout
    assert on_disk(tmp_path / "copy") == expected
    assert run("run", "verify", tmp_path / "copy").exit_code == 0


def test_a_run_goes_on_where_the_network_broke_down(start, tmp_path):
    assert start(tmp_path / "run").exit_code == 0
    expected, url = on_disk(tmp_path / "run", but=["report.html"]), "weak://bucket/run"
    for uploads in (0, 5, 8):
        Weak.left = uploads
        result = start(url)
        assert result.exit_code == 2 and f"no network: {url}" in result.stderr
        there = stored(url)
        for record in (name for name in there if name.startswith("pairs/")):
            for picture in ("image/{}.png", "mask/{}_mask.png"):
                assert picture.format(record[6:12]) in there
    Weak.left = 100
    assert start(url).exit_code == 0
    assert {name: content for name, content in stored(url).items() if not name.startswith(".claims")} == expected


def test_several_processes_share_a_run(start, tmp_path, monkeypatch):
    whole = start(tmp_path / "run", pairs=12)
    assert whole.exit_code == 0
    both, taken = threading.Barrier(2, timeout=60), []
    take, work = _ObjectClaims.take, Worker.work

    def noting(self, batch):
        got = take(self, batch)
        taken.extend([(self._about["worker"], batch)] if got else [])
        return got

    def together(self):
        both.wait()
        work(self)

    monkeypatch.setattr(_ObjectClaims, "take", noting)
    monkeypatch.setattr(Worker, "work", together)
    with ThreadPoolExecutor(2) as pool:  # not by typer's runner, which takes stdout for itself
        command = typer.main.get_command(app).commands["generate"]
        arguments = start.arguments("whole://bucket/run", pairs=12)
        for one in [pool.submit(command.main, arguments, "adiff", standalone_mode=False) for _ in range(2)]:
            one.result()
    found, expected = stored("whole://bucket/run"), on_disk(tmp_path / "run", but=["report.html"])
    assert found.pop("run.json") and expected.pop("run.json")  # it tells the command, called otherwise here
    assert found == expected
    assert {batch for _, batch in taken} == set(range(6)) and len({worker for worker, _ in taken}) == 2


def test_a_claim_of_a_process_that_lives_elsewhere_is_respected_until_it_is_stale(tmp_path):
    folder = ObjectFolder(URL, tmp_path / "here")
    other = {"pid": 1, "host": "elsewhere", "worker": "00", "since": "now", "batch": 0}

    def claim(age):
        folder._system.pipe_file("/bucket/run/.claims/000000.json",
                                 json.dumps({**other, "renewed": time.time() - age}).encode())  # fmt: skip

    with ObjectRun(folder).claims() as claims:
        claim(age=10)
        assert not claims.take(0)
        claim(age=100)
        assert claims.take(0)
        assert json.loads(stored()[".claims/000000.json"])["host"] != "elsewhere"
        folder._system.pipe_file("/bucket/run/.claims/000001.json", b"{")
        assert claims.take(1)
    assert not [name for name in stored() if name.startswith(".claims")]


def test_status_tells_of_a_run_in_storage(start, run):
    Weak.left = 7  # the plan, a batch of six files
    url = "weak://bucket/run"
    assert start(url).exit_code == 2
    result = run("run", "status", url)
    assert result.exit_code == 0, result.stderr
    assert f"{url}: metal/scratch" in result.stdout and "2 of 5, 3 left" in result.stdout
    assert json.loads(run("run", "status", url, "--json").stdout)["done"] == 2


def test_a_restart_begins_anew_and_leaves_what_is_not_its_own(start, run):
    assert start(URL).exit_code == 0
    other = start(URL, "--seed", 3)
    assert other.exit_code == 2 and f"{URL} holds another run (seed 0, now 3)" in other.stderr
    other = start(URL, "--seed", 3, "--restart", pairs=2)
    assert other.exit_code == 0 and "--restart removes 5 finished pairs\n" in other.stderr
    assert sum(name.startswith("image/") for name in stored()) == 2
    fsspec.filesystem("memory").pipe_file("/bucket/run/notes.txt", b"mine")
    refused = start(URL, "--restart")
    assert refused.exit_code == 2 and "notes.txt beside its run" in refused.stderr
    assert stored()["notes.txt"] == b"mine" and sum(name.startswith("image/") for name in stored()) == 2


def test_of_several_runs_all_are_removed_or_none():
    system = fsspec.filesystem("memory")
    for name in ("a/run.json", "b/run.json", "b/notes.txt"):
        system.pipe_file(f"/bucket/run/{name}", b"{}")
    with typer.Context(typer.main.get_command(app)) as ctx:
        place = Destination(ctx, URL)
        runs = [place.folder / name for name in "ab"]
        with pytest.raises(InputError, match="run/b holds notes.txt"):
            place.clear(runs)
        assert len(stored()) == 3
        system.rm("/bucket/run/b/notes.txt")
        place.clear(runs)
    assert not stored()


def test_what_was_rejected_in_a_copy_is_not_fetched_again(start, run, tmp_path):
    assert start(URL).exit_code == 0
    assert run("run", "fetch", URL, tmp_path / "copy").exit_code == 0
    assert run("run", "reject", tmp_path / "copy", "000002").exit_code == 0
    before = on_disk(tmp_path / "copy")
    fetched = run("run", "fetch", URL, tmp_path / "copy")
    assert fetched.exit_code == 0 and "4 pairs of" in fetched.stdout and on_disk(tmp_path / "copy") == before


def test_what_was_put_back_in_a_copy_is_not_fetched_as_a_reject_again(start, run, tmp_path):
    assert start(URL, "--min-fill", "1", "--max-seam", "0", "--tries", "2").exit_code == 0
    assert run("run", "fetch", URL, tmp_path / "copy").exit_code == 0
    assert run("run", "restore", tmp_path / "copy", "000002").exit_code == 0
    before = on_disk(tmp_path / "copy")
    assert run("run", "fetch", URL, tmp_path / "copy").exit_code == 0 and on_disk(tmp_path / "copy") == before


def test_rejects_and_broken_pairs_are_stored_too(start, run, data, tmp_path):
    normal = data / "metal/train/good/001.png"
    whole = normal.read_bytes()
    normal.write_bytes(b"no image")
    options = ("--max-seam", "0.0001", "--tries", "2")
    for out in (tmp_path / "run", URL):
        assert start(out, *options, pairs=6).exit_code == 2
    assert stored() == on_disk(tmp_path / "run", but=["report.html"])
    assert any(name.startswith("broken/") for name in stored())
    assert any(name.startswith("rejects/image") for name in stored())
    normal.write_bytes(whole)
    for out in (tmp_path / "run", URL):
        assert start(out, *options, pairs=6).exit_code == 0
    assert stored() == on_disk(tmp_path / "run", but=["report.html"])
    assert run("run", "fetch", URL, tmp_path / "copy").exit_code == 0
    assert on_disk(tmp_path / "copy") == stored()


@pytest.mark.parametrize("url, said", [
    ("nothing://bucket/run", "is no URL that fsspec knows"),
    ("memory://", "names no folder"),
    ("file:///tmp/run", "give its path"),
])  # fmt: skip
def test_urls_that_cannot_be_are_refused(start, url, said):
    result = start(url)
    assert result.exit_code == 2 and said in result.stderr


def test_a_folder_of_something_else_is_refused(start, run, tmp_path):
    fsspec.filesystem("memory").pipe_file("/bucket/run/notes.txt", b"mine")
    result = start(URL)
    assert result.exit_code == 2 and f"{URL} holds notes.txt and no run" in result.stderr
    for command in ("status", "fetch"):
        where = (URL,) if command == "status" else (URL, tmp_path / "copy")
        result = run("run", command, *where)
        assert result.exit_code == 2 and f"there is no run at {URL}" in result.stderr
    assert run("run", "fetch", "folder", tmp_path / "copy").exit_code == 2
    assert list(stored()) == ["notes.txt"]


def test_names_that_lead_out_of_the_folder_are_not_fetched(start, run, tmp_path):
    assert start(URL, pairs=2).exit_code == 0
    system = fsspec.filesystem("memory")
    for name in ("pairs/..json", "pairs/%2e%2e.json", "image/..\\000000.png", "image/000000_other.png"):
        system.pipe_file(f"/bucket/run/{name}", b"{}")
    assert run("run", "fetch", URL, tmp_path / "copy").exit_code == 0
    assert len(on_disk(tmp_path / "copy")) == 1 + 3 * 2


@pytest.mark.parametrize("text, expected", [
    ("s3://bucket/run", True), ("gs://b/r", True), ("C:/runs/one", False), ("C://runs", False), ("runs/one", False),
    ("simplecache::s3://b/r", True), ("a:b", False),
])  # fmt: skip
def test_what_is_a_url(text, expected):
    assert is_url(text) is expected


def test_a_run_that_another_process_began_a_moment_earlier_is_the_one_that_counts(start, monkeypatch):
    """It comes between the look at what is there and the upload of the plan."""
    publish = ObjectRun.publish

    def late(run):
        other = json.loads((run.local / "run.json").read_text()) | {"seed": 9}
        fsspec.filesystem("memory").pipe_file("/bucket/run/run.json", json.dumps(other).encode())
        return publish(run)

    monkeypatch.setattr(ObjectRun, "publish", late)
    result = start(URL)
    assert result.exit_code == 2 and f"{URL} holds another run (seed 9, now 0)" in result.stderr
