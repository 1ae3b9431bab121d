"""Two processes learn what one does; the first one alone writes and speaks."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from adiff.datasets.images import write_png
from adiff.library import load_library
from adiff.spatial_encoder import load_encoder
from adiff.training.processes import count, is_first, joined, share_of
from tests.cli.conftest import make_shot

ROOT = Path(__file__).parents[2]
PROGRAM = """
import sys
from adiff import backbone
from adiff.cli import main
from tests.cli.conftest import TinyBackbone
backbone.load_backbone = lambda *_, **__: TinyBackbone()
main()
"""
"""The command `adiff` on a base model that costs nothing."""


@pytest.fixture
def data(tmp_path):
    for index in range(5):
        image, mask = make_shot(index)
        write_png(tmp_path / "data/metal/test/hole" / f"{index}.png", image)
        write_png(tmp_path / "data/metal/ground_truth/hole" / f"{index}_mask.png", mask)
    return tmp_path / "data"


def start(data, out, rank=0, world=1, port=0, *given):
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    if port:
        environment |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world), "MASTER_PORT": str(port),
                        "MASTER_ADDR": "127.0.0.1"}  # fmt: skip
    arguments = ["train", data, "--out", out / "lib.safetensors", "--shots", "5", "--steps", "4", "--batch", "3"]
    arguments += ["--encoder", out / "enc.safetensors", *given]
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *map(str, arguments)], env=environment, cwd=ROOT, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_two_processes_learn_what_one_does(data, tmp_path):
    port, alone, together = free_port(), tmp_path / "alone", tmp_path / "together"
    started = [start(data, alone), *(start(data, together, rank, 2, port) for rank in range(2))]
    said = [process.communicate(timeout=240) for process in started]
    assert [process.returncode for process in started] == [0, 0, 0], said
    assert "metal/hole" in said[1][0] and said[2] == ("", "")
    assert sorted(path.name for path in together.iterdir()) == ["enc.safetensors", "lib.safetensors"]
    one, two = (load_library(out / "lib.safetensors").get("metal/hole") for out in (alone, together))
    torch.testing.assert_close(two.anomaly, one.anomaly, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(two.mask, one.mask, rtol=1e-3, atol=1e-4)
    first, second = (load_encoder(out / "enc.safetensors")[0].state_dict() for out in (alone, together))
    for name, value in first.items():
        torch.testing.assert_close(second[name], value, rtol=1e-2, atol=1e-3, msg=name)
    assert two.info["anomaly"]["best"] == one.info["anomaly"]["best"]
    assert two.info["anomaly"]["loss"] == pytest.approx(one.info["anomaly"]["loss"], rel=1e-4)


def test_shares_are_the_whole_batch(monkeypatch):
    monkeypatch.setattr("adiff.training.processes.count", lambda: 3)
    shares = []
    for rank in range(3):
        monkeypatch.setattr("torch.distributed.get_rank", lambda rank=rank: rank)
        shares.append(list(share_of(8)))
    assert sum(shares, []) == list(range(8)) and {len(share) for share in shares} == {2, 3}


@pytest.mark.parametrize("environment", [{}, {"RANK": "0", "WORLD_SIZE": "1"}])
def test_one_process_needs_no_other(monkeypatch, environment):
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with joined() as device:
        assert device is None and count() == 1 and is_first() and share_of(4) == range(4)
