"""`adiff generate --ray`: two workers on a cluster of this machine, one of them killed."""

import contextlib
import io
import json
import os
import signal
import sys
import threading
import time
from types import SimpleNamespace

import pytest

from adiff.cli import cluster
from adiff.system import DEVICE
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
    monkeypatch.setenv(DEVICE, "")  # what a worker of another machine starts with
    monkeypatch.chdir(tmp_path)
    make_inputs(tmp_path / "inputs")
    arguments = generate(tmp_path / "inputs", tmp_path / "out", PAIRS, steps=6)
    assert "no device 'cuda:99'" in cluster._worker(arguments, str(tmp_path), "cuda:99")


class InThisProcess:
    """Stand-in for the package ray: each worker runs to its end where it is started, and nobody sees what it prints."""

    def remote(self, **_):
        def start(*given):
            with contextlib.redirect_stdout(io.StringIO()):
                return cluster._worker(*given)

        return lambda _: SimpleNamespace(remote=start)

    init = shutdown = cancel = staticmethod(lambda *_, **__: None)
    cluster_resources = staticmethod(lambda: {"CPU": 1.0})
    wait = staticmethod(lambda running, timeout: (running, []))
    get = staticmethod(lambda result: result)


def test_a_defect_that_is_left_out_costs_itself_alone_on_a_cluster_too(run, library, data, tiny, tmp_path, monkeypatch):
    monkeypatch.setenv(DEVICE, os.environ.get(DEVICE, ""))  # a worker sets it
    monkeypatch.setitem(sys.modules, "ray", InThisProcess())
    given = ("generate", library, "--all", "--per-defect", 2, "--normals", data, "--out", tmp_path / "runs",
             "--vary-shots", "--steps", 1, "--ray", "local", "--workers", 2)  # fmt: skip
    result = run(*given)  # metal/hole was not learned
    assert result.exit_code == 2 and "runs that were not made: 1 of 2: metal/hole: " in " ".join(result.stderr.split())
    assert result.stdout.split()[:6] == ["defect", "pairs", "median", "fill", "metal/scratch", "2"]
    assert "2 pairs in 1 run" in result.stdout


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
