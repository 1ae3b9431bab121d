"""Writers on a file system of 2 MB that is really full or read-only; only the super-user may mount one."""

import errno
import os
import shutil
import subprocess
from contextlib import nullcontext
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import adiff.generation
from adiff.benchmark.run import _Matrix
from adiff.cli import app
from adiff.datasets.images import write_png
from adiff.dual import DualModel, save_dual
from adiff.evaluation.localizer import Trained
from adiff.evaluation.localizer_file import save_localizer
from adiff.evaluation.networks import new_network
from adiff.generation import GeneratedMask
from adiff.library import Defect, Library, save_library
from adiff.spatial_encoder import SpatialEncoder, save_encoder
from adiff.training import loop
from adiff.training.state import Run, save_state
from benchmarks.kill import listing
from tests.hostile.meanwhile import SAID_MEANWHILE

PAGE, FILLER = 4096, "filler"
UNFINISHED = ("out/masks.json", "out/export.json", "out/unfinished.txt")
"""Records that say of a folder that it is not finished."""
COMMANDS = ("generate", "train", "masks", "export coco", "export mvtec", "report", "rename", "surfaces")


class Disk:
    """A small file system in memory at `folder`."""

    def __init__(self, folder):
        self.folder = folder

    def fill(self, free):
        """Leave so many bytes."""
        (self.folder / FILLER).unlink(missing_ok=True)
        about = os.statvfs(self.folder)
        (self.folder / FILLER).write_bytes(bytes(about.f_bavail * about.f_frsize - free))

    def read_only(self, yes):
        subprocess.run(["mount", "-o", f"remount,{'ro' if yes else 'rw'}", self.folder], check=True)

    def files(self):
        """Every file but the filler with its bytes, temporary ones too."""
        return {name: content for name, content in listing(self.folder).items() if name != FILLER}


@pytest.fixture
def disk(tmp_path):
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", folder]
    mounted = shutil.which("mount") and subprocess.run(command, capture_output=True, text=True)
    if not mounted or mounted.returncode:
        pytest.skip(f"no file system may be mounted here{f': {mounted.stderr.strip()}' if mounted else ''}")
    yield Disk(folder)
    subprocess.run(["umount", "-l", folder], check=True)


def _library(path, level):
    entry = Defect("metal", "scratch", torch.full((64, 768), level))
    save_library(path, Library({entry.key: entry}, "0" * 64, "tiny", 768))


def _dual(path, level):
    mask, tokens = np.ones((1, 16, 16), bool), [torch.full((2, 768), level) for _ in range(2)]
    weights = {"down.0.attn1.lora": torch.full((64, 768), level)}
    save_dual(path, DualModel("metal", "scratch", weights, *tokens, mask, torch.zeros(1, 4), "0" * 64, "tiny"))


def _encoder(path, level):
    network = SpatialEncoder("small", dim=8)
    torch.nn.init.constant_(next(network.parameters()), level)
    save_encoder(path, network, {})


def _localizer(path, level):
    network = new_network("small", 8)
    torch.nn.init.constant_(next(network.parameters()), level)
    save_localizer(path, Trained(network, 32, 5, (), "small", 8))


def _state(path, level):
    parameters = {"e": torch.full((64, 768), level)}
    save_state(Run(parameters, loop.Schedule(2, 0.1), {}, {}, 1.0), path, "tiny")


def _picture(path, level):
    write_png(path, np.random.default_rng(int(level)).integers(0, 255, (64, 64, 3), np.uint8))


def _lines(path, level):
    bench = SimpleNamespace(out=path.parent, turns=SimpleNamespace(in_turn=nullcontext))
    cell = SimpleNamespace(place=("suite", "variant", "unit", 0))
    _Matrix(bench, [], None, None)._keep(cell, dict(zip(("suite", "variant", "unit", "seed"), cell.place, strict=True),
                                                    told=f"{level} " * 5000))  # fmt: skip


WRITERS = {"l.safetensors": _library, "d.safetensors": _dual, "e.safetensors": _encoder, "n.safetensors": _localizer,
           "s.state": _state, "p.png": _picture, "rows.jsonl": _lines}  # fmt: skip


@pytest.mark.parametrize("name", WRITERS)
def test_a_file_is_whole_or_the_old_one(disk, name):
    path, write = disk.folder / name, WRITERS[name]
    write(path, 1.0)
    before = disk.files()
    for free in (0, PAGE):
        disk.fill(free)
        with pytest.raises(OSError) as caught:
            write(path, 2.0)
        assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, str(path)) and disk.files() == before
    disk.read_only(True)
    with pytest.raises(OSError) as caught:
        write(path, 2.0)
    assert (caught.value.errno, caught.value.filename) == (errno.EROFS, str(path)) and disk.files() == before
    disk.read_only(False)
    (disk.folder / FILLER).unlink()
    write(path, 2.0)
    assert disk.files().keys() == before.keys() and disk.files() != before


@pytest.fixture
def command(request, place, tiny, generate, monkeypatch, disk, done):
    """The arguments of a command that writes to the disk, and what brings that back to the beginning."""

    def sample(_backbone, _embedding, count, **_):
        masks = np.zeros((count, 64, 64), bool)
        for index, mask in enumerate(masks):
            mask[8 : 24 + index, 8:24] = True
        return [GeneratedMask(mask, 0.5, index) for index, mask in enumerate(masks)]

    monkeypatch.setattr(adiff.generation, "sample_masks", sample)
    monkeypatch.setitem(loop.fit.__kwdefaults__, "save_every", -1.0)  # a state after each step
    out, library, (what, _, kind) = disk.folder / "out", disk.folder / "lib.safetensors", request.param.partition(" ")
    if what in ("export", "report"):
        done(*generate(out="made"))
    learned = ("--out", out / "new.safetensors", "--encoder", place / "enc.safetensors", "--freeze-encoder")
    arguments = {
        "generate": generate(out=out),
        "train": ("train", place / "data", *learned, "--shots", 2, "--steps", 2, "--what", "defects"),
        "masks": ("masks", place / "lib.safetensors", "metal/scratch", "-n", 4, "--out", out),
        "export": ("export", place / "made", "--format", kind, "--out", out),
        "report": ("run", "report", place / "made", "--out", out / "page.html"),
        "rename": ("library", "rename", library, "metal/scratch", "metal/line"),
        "surfaces": ("surfaces", "--out", out, "--images", 2, "--size", 64, "--product", "wood"),
    }[what]

    def begin():
        shutil.rmtree(out, ignore_errors=True)
        if what == "rename":
            shutil.copyfile(place / "lib.safetensors", library)

    begin()
    return SimpleNamespace(arguments=[str(one) for one in arguments], begin=begin)


@pytest.mark.parametrize("command", COMMANDS, indirect=True)
def test_a_command_ends_in_one_line_and_goes_on_when_there_is_room(command, disk):
    at_first = disk.files()
    assert CliRunner().invoke(app, command.arguments).exit_code == 0
    whole = disk.files()
    command.begin()
    disk.read_only(True)
    _refused(command, "Read-only file system", "; nothing can be written there; give another place")
    disk.read_only(False)
    assert disk.files() == at_first
    for share in (0, 0.6):
        there = disk.files()
        missing = sum(-(-len(whole[name]) // PAGE) for name in whole if whole[name] != there.get(name))
        disk.fill(int(share * missing) * PAGE)
        _refused(command, "No space left on device", "; make room, then give the same command again")
        odd = {name for name, content in disk.files().items() if content not in (at_first.get(name), whole.get(name))}
        assert not [name for name in odd if ".state/" not in name and name not in UNFINISHED]
        (disk.folder / FILLER).unlink()
    assert CliRunner().invoke(app, command.arguments).exit_code == 0 and disk.files() == whole


def _refused(command, why, what_to_do):
    """The command ends in one line of the system's own words, and no temporary file and no lock stay."""
    result = CliRunner().invoke(app, command.arguments)
    assert result.exit_code == 2 and isinstance(result.exception, SystemExit), result.output
    (line,) = (line for line in result.stderr.splitlines() if not SAID_MEANWHILE.match(line))
    assert line.startswith(f"error: {why}: ") and line.endswith(what_to_do) and ".tmp" not in line
