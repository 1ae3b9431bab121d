"""What computes, on a device that is as strict as a GPU about what lies where."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.devices import simulated_gpu
from tests.devices.pipeline import COMMANDS

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def waits(tmp_path_factory):
    """How often the host waited for the device and how often it sent something there, by the name of the command.

    In a process of its own: the device, once known, stays.
    """
    if not simulated_gpu.available():
        pytest.skip("this torch knows no device that is written in Python")
    folder = tmp_path_factory.mktemp("gpu")
    command = [sys.executable, "-m", "tests.devices.pipeline", str(folder)]
    ended = subprocess.run(command, cwd=ROOT, env=dict(os.environ), capture_output=True, text=True, timeout=600)
    assert ended.returncode == 0, ended.stderr[-5000:]
    told = re.findall(r"^done: (.+): (\d+) (\d+)$", ended.stdout, re.M)
    return {name: (int(waited), int(sent)) for name, waited, sent in told}


def test_everything_finds_its_tensors_on_the_device(waits):
    assert set(COMMANDS) <= set(waits)


@pytest.mark.parametrize(("few", "more"), [("3 steps", "5 steps"), ("release", "release, 5 steps")])
def test_a_sampling_step_waits_for_the_device_once_and_sends_noise_and_timestep(waits, few, more):
    """It waits for the check that the latents are finite; no attention sends or waits for anything."""
    waited, sent = (now - before for before, now in zip(waits[few], waits[more], strict=True))
    assert waited == 2 and sent <= 2 * 3  # with and without guidance


def test_the_device_refuses_what_a_gpu_refuses(tmp_path):
    code = """
import torch
from tests.devices import simulated_gpu
there, here = torch.ones(3).to(simulated_gpu.switch_on()), torch.ones(3)
for what in (lambda: there + here, lambda: there.numpy(), lambda: there.double(),
             lambda: torch.randn(3, generator=torch.Generator(), device=there.device)):
    try:
        what()
    except (RuntimeError, TypeError):
        continue
    raise SystemExit("nothing was refused")
assert (there * 2).cpu().tolist() == [2, 2, 2] and there[torch.tensor([0])].item() == 1
assert simulated_gpu.WAITS.total() == 2
"""
    if not simulated_gpu.available():
        pytest.skip("this torch knows no device that is written in Python")
    ended = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=100)
    assert ended.returncode == 0, ended.stderr + ended.stdout
