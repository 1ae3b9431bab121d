"""Under `accelerate launch` one process learns the same as without, two nearly; the first one alone speaks."""

import os
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from typer.testing import CliRunner

from adiff.cli import app
from adiff.datasets.images import write_png
from adiff.errors import InputError
from adiff.library import load_library
from adiff.spatial_encoder import load_encoder
from adiff.training.processes import count, is_first, joined, share_of
from tests.cli.conftest import TinyBackbone, make_shot

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
    """Five shots to learn from and one that repeats the first, of which there is a warning."""
    for index in range(6):
        image, mask = make_shot(index % 5)
        write_png(tmp_path / "data/metal/test/hole" / f"{index}.png", image)
        write_png(tmp_path / "data/metal/ground_truth/hole" / f"{index}_mask.png", mask)
    return tmp_path / "data"


@pytest.fixture
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def arguments(data, out):
    files = ["--out", out / "lib.safetensors", "--encoder", out / "enc.safetensors"]
    return list(map(str, ("train", data, *files, "--shots", 5, "--steps", 4, "--batch", 3)))


def launch(program, processes, *given):
    """Start the program as `accelerate launch` does; several processes are what it starts for several GPUs only."""
    several = ["--multi_gpu", "--main_process_port", free_port()] if processes > 1 else ["--cpu"]
    command = [sys.executable, "-m", "accelerate.commands.launch", "--num_processes", processes, *several]
    command += ["--num_machines", 1, "--mixed_precision", "no", "--dynamo_backend", "no", program, *given]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "HF_HOME": str(program.parent)}
    return subprocess.Popen(
        list(map(str, command)), env=environment, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def learned(out):
    network, _ = load_encoder(out / "enc.safetensors")
    return load_library(out / "lib.safetensors").get("metal/hole"), network.state_dict()


def test_processes_of_a_launcher_learn_what_the_command_alone_does(data, tmp_path, monkeypatch, one_thread):
    pytest.importorskip("accelerate")
    program, outs = tmp_path / "program.py", [tmp_path / name for name in ("alone", "one", "two")]
    program.write_text(PROGRAM)
    started = [launch(program, count, *arguments(data, out)) for count, out in ((1, outs[1]), (2, outs[2]))]
    monkeypatch.setattr("adiff.backbone.load_backbone", lambda *_, **__: TinyBackbone())
    result = CliRunner().invoke(app, arguments(data, outs[0]))
    said = [process.communicate(timeout=240) for process in started]
    assert [result.exit_code, *(process.returncode for process in started)] == [0, 0, 0], (result.output, said)
    for stdout, stderr in said:
        assert stdout.count("1 defect") == stderr.count("the same image") == 1
    assert sorted(path.name for path in outs[2].iterdir()) == ["enc.safetensors", "lib.safetensors"]

    (alone, encoder), (one, encoder_of_one), (two, encoder_of_two) = map(learned, outs)
    assert torch.equal(one.anomaly, alone.anomaly) and torch.equal(one.mask, alone.mask) and one.info == alone.info
    assert all(torch.equal(encoder_of_one[name], value) for name, value in encoder.items())
    torch.testing.assert_close(two.anomaly, alone.anomaly, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(two.mask, alone.mask, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(encoder_of_two, encoder, rtol=1e-2, atol=1e-3)
    assert two.info["anomaly"]["best"] == alone.info["anomaly"]["best"]
    assert two.info["anomaly"]["loss"] == pytest.approx(alone.info["anomaly"]["loss"], rel=1e-4)


def test_more_processes_than_gpus_are_refused(monkeypatch):
    for name, value in {"RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    with pytest.raises(InputError, match="process 2 on this machine has no GPU of its own, of 1 GPU;"), joined():
        pass


@pytest.fixture
def two_gpus(monkeypatch):
    """Pretends that this is the second of two processes, on a machine with two GPUs of a kind, and no others."""

    def pretend(kind):
        for name, value in {"RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "2"}.items():
            monkeypatch.setenv(name, value)
        module = SimpleNamespace(
            is_available=lambda: True, device_count=lambda: 2, set_device=lambda device: told.append(str(device))
        )
        told = []
        monkeypatch.setattr("adiff.devices._backends", lambda: {kind: module})
        monkeypatch.setattr(torch, kind, module)
        monkeypatch.setattr("torch.distributed.is_backend_available", lambda name: True)
        monkeypatch.setattr("torch.distributed.init_process_group", told.append)
        monkeypatch.setattr("torch.distributed.destroy_process_group", lambda: None)
        return told

    monkeypatch.delenv("ADIFF_DEVICE", raising=False)
    return pretend


@pytest.mark.parametrize(("kind", "backend"), [("cuda", "nccl"), ("xpu", "xccl")])
def test_each_process_takes_a_gpu_of_its_own(two_gpus, monkeypatch, kind, backend):
    told = two_gpus(kind)
    for asked in ("", kind):
        monkeypatch.setenv("ADIFF_DEVICE", asked)
        with joined() as device:
            assert device == f"{kind}:1"
    monkeypatch.setenv("ADIFF_DEVICE", "cpu")
    with joined() as device:
        assert device == "cpu"
    assert told == [f"{kind}:1", backend] * 2 + ["gloo"]


def test_a_device_that_processes_cannot_share_a_training_on_is_refused(two_gpus, monkeypatch):
    two_gpus("cuda")
    monkeypatch.setenv("ADIFF_DEVICE", "cuda:0")
    with pytest.raises(InputError, match="cuda:0 is a single GPU, .* give --device cuda"), joined():
        pass
    monkeypatch.delenv("ADIFF_DEVICE")
    two_gpus("mps")
    with pytest.raises(InputError, match="2 processes cannot train together on mps .* --device cpu"), joined():
        pass
    two_gpus("xpu")
    monkeypatch.setattr("torch.distributed.is_backend_available", lambda name: name == "gloo")
    with pytest.raises(InputError, match="cannot train together on xpu"), joined():
        pass


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
