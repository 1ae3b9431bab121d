"""Bad input through the command line: exit code 2, one line on stderr, and every file as it was before."""


import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from adiff import backbone as backbone_module
from adiff.cli import app
from adiff.datasets.images import write_png
from adiff.library import Defect, Library, save_library
from adiff.spatial_encoder import SpatialEncoder, save_encoder
from tests.hostile.meanwhile import SAID_MEANWHILE

WIDTH, SIZE = 768, 64


@pytest.fixture
def place(tmp_path, backbone):
    """A data set, masks, normals, a library with both embeddings of metal/scratch, its encoder, a base model's file."""
    rng = np.random.default_rng(0)
    mask = np.zeros((SIZE, SIZE), bool)
    mask[20:40, 24:44] = True
    for index in range(3):
        image = rng.integers(90, 110, (SIZE, SIZE, 3), np.uint8)
        write_png(tmp_path / "normals" / f"{index}.png", image)
        image[mask] = 230
        write_png(tmp_path / "data" / "metal" / "test" / "scratch" / f"{index}.png", image)
        write_png(tmp_path / "data" / "metal" / "ground_truth" / "scratch" / f"{index}_mask.png", mask)
    write_png(tmp_path / "masks" / "0.png", mask)
    generator = torch.Generator().manual_seed(0)
    scratch = Defect("metal", "scratch", torch.randn(8, WIDTH, generator=generator),
                     torch.randn(4, WIDTH, generator=generator), shot_masks=mask[None])  # fmt: skip
    save_library(tmp_path / "lib.safetensors", Library({scratch.key: scratch}, backbone.fingerprint, "tiny", WIDTH))
    save_encoder(tmp_path / "enc.safetensors", SpatialEncoder("small", dim=WIDTH), {})
    return tmp_path


@pytest.fixture
def tiny(monkeypatch, backbone):
    """The tiny base model in the place of every other; tests of base models leave it out."""
    monkeypatch.setattr(backbone_module, "load_backbone", lambda *_, **__: backbone)


@pytest.fixture
def listing(place):
    """Every file of the place with its bytes."""
    return lambda: {p.relative_to(place).as_posix(): p.read_bytes() for p in place.rglob("*") if p.is_file()}


@pytest.fixture
def refused(listing):
    """Run a command that must end in one line and exit code 2 and leave every file as it was; returns the line.

    The lines of progress that stand where no terminal is do not count.
    """

    def call(*arguments):
        before = listing()
        result = CliRunner().invoke(app, [str(argument) for argument in arguments])
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert (result.exit_code, result.stdout) == (2, ""), result.output
        (line,) = (line for line in result.stderr.splitlines() if not SAID_MEANWHILE.match(line))
        assert line.startswith("error: ") and line.isprintable() and len(line) < 1000
        assert listing() == before
        return line

    return call


@pytest.fixture
def done():
    """Run a command that must work; returns what it says on stderr."""

    def call(*arguments):
        result = CliRunner().invoke(app, [str(argument) for argument in arguments])
        assert result.exit_code == 0, result.output
        return result.stderr

    return call


@pytest.fixture
def train(place):
    """A maker of `adiff train ...` in the place, as arguments."""
    given = ("--out", place / "new.safetensors", "--encoder", place / "enc.safetensors", "--freeze-encoder")
    return lambda *more: ("train", place / "data", *given, "--shots", 2, "--steps", 1, *more)


@pytest.fixture
def generate(place):
    """A maker of `adiff generate ...` in the place, as arguments."""

    def made(*more, masks="masks", normals="normals", out="run"):
        given = ("--normals", place / normals, "--masks", place / masks, "--out", place / out)
        return (
            "generate", place / "lib.safetensors", "metal/scratch", *given, "-n", 2, "--steps", 1, "--batch", 2, *more,
        )  # fmt: skip

    return made
