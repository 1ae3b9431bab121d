"""`adiff generate --ray`: two workers on a cluster of this machine, one of them killed."""

import json
import os
import signal
import threading
import time

import pytest

from benchmarks.kill import finish, generate, listing, make_inputs, start

WORKERS, PAIRS = 2, 8


def test_a_cluster_that_is_not_there_is_named(refused_without_ray):
    assert "--workers goes with --ray" in refused_without_ray("--workers", 2)


@pytest.fixture
def refused_without_ray(tmp_path):
    from typer.testing import CliRunner

    from adiff.cli import app

    def call(*options):
        given = ["generate", "lib.safetensors", "metal/scratch", "--normals", "n", "--out", str(tmp_path / "run")]
        result = CliRunner().invoke(app, [*given, *map(str, options)])
        assert result.exit_code == 2
        return result.stderr

    return call


def test_a_cluster_makes_what_one_process_makes_though_a_worker_is_killed(tmp_path, monkeypatch):
    pytest.importorskip("ray", reason="the package ray is not installed (extra [cluster])")
    from typer.testing import CliRunner

    from adiff.cli import app

    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    make_inputs(tmp_path / "inputs")
    alone, shared = tmp_path / "alone", tmp_path / "shared"
    alone.mkdir(), shared.mkdir()
    assert finish(start(generate(tmp_path / "inputs", alone, PAIRS, steps=6), alone))
    killed = []
    stop = threading.Thread(target=_kill_one, args=(shared / "run" / ".claims", killed), daemon=True)
    stop.start()
    arguments = [*generate(tmp_path / "inputs", shared, PAIRS, steps=6), "--ray", "local", "--workers", str(WORKERS)]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert killed and killed[0] != os.getpid()
    found, expected = listing(shared), listing(alone)
    for files in (found, expected):  # run.json tells the command, the report when it was written
        for name in ("run/run.json", "run/report.html"):
            files.pop(name)
    assert found == expected


def test_a_worker_computes_where_the_command_does(tmp_path, monkeypatch):
    from adiff.cli import cluster
    from adiff.system import DEVICE

    monkeypatch.setenv(DEVICE, "")  # what a worker of another machine starts with
    monkeypatch.chdir(tmp_path)
    make_inputs(tmp_path / "inputs")
    arguments = generate(tmp_path / "inputs", tmp_path / "out", PAIRS, steps=6)
    assert "no device 'cuda:99'" in cluster._worker(arguments, str(tmp_path), "cuda:99")


def _kill_one(claims, killed):
    """Kill -9 the first worker that claims a batch."""
    ends = time.monotonic() + 120
    while not killed and time.monotonic() < ends:
        for path in claims.glob("*"):
            try:
                worker = json.loads(path.read_text())["pid"]
                os.kill(worker, signal.SIGKILL)
                killed.append(worker)
                return
            except (OSError, ValueError, LookupError):
                continue
        time.sleep(0.02)
