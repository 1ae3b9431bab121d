"""The command line in-process, a data set of two defects, and a base model that costs nothing."""

from dataclasses import dataclass, field
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from typer.testing import CliRunner

from adiff import backbone as backbone_module
from adiff.cli import app
from adiff.datasets.images import write_png
from adiff.library import Defect, Library, save_library
from adiff.spatial_encoder import SpatialEncoder, fingerprint, save_encoder

DIM = 16


@dataclass
class TinyBackbone:
    """Latents are pooled pixels; the noise is predicted from them and from the context's mean."""

    name: str = "demo"
    fingerprint: str = "f" * 64
    weights: str = "w" * 64
    context_dim: int = DIM
    latent_downscale: int = 8
    native_size: int = 64
    device: torch.device = torch.device("cpu")
    dtype: torch.dtype = torch.float32
    null_context: Tensor = field(default_factory=lambda: torch.zeros(1, 2, DIM))
    alphas_cumprod: Tensor = field(default_factory=lambda: torch.linspace(0.999, 0.005, 1000))

    def encode(self, images: Tensor) -> Tensor:
        pooled = F.avg_pool2d(images, 8)
        return torch.cat([pooled, pooled.mean(1, keepdim=True)], 1)

    def decode(self, latents: Tensor) -> Tensor:
        return F.interpolate(latents[:, :3], scale_factor=8, mode="nearest")

    def predict_noise(self, z_t, t, context, attention_edit=None):
        if attention_edit is not None:
            q = z_t.flatten(2).transpose(1, 2)
            attention_edit(q, context[:, :, :4], context[:, :, :4], heads=1, grid=tuple(z_t.shape[2:]))
        return 0.5 * z_t + context.mean(1)[:, :4, None, None]


@pytest.fixture
def run():
    """Run `adiff` with arguments; returns exit_code, stdout, stderr."""

    def call(*arguments):
        result = CliRunner().invoke(app, [str(argument) for argument in arguments])
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return SimpleNamespace(exit_code=result.exit_code, stdout=result.stdout, stderr=result.stderr)

    return call


@pytest.fixture
def refused(run):
    """Run `adiff` with bad input: exit code 2 and one line on stderr, which is returned."""

    def call(*arguments):
        result = run(*arguments)
        lines = [line for line in result.stderr.splitlines() if not line.startswith("warning: ")]
        assert result.exit_code == 2 and len(lines) == 1 and lines[0].startswith("error: "), result.stderr
        assert not result.stdout
        return lines[0]

    return call


def make_shot(seed: int, size: int = 64) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    image = rng.integers(90, 110, (size, size, 3), np.uint8)
    mask = np.zeros((size, size), bool)
    top, left = rng.integers(4, size - 30, 2)
    mask[top : top + 20, left : left + 24] = True
    image[mask] = 220
    return image, mask


@pytest.fixture
def data(tmp_path):
    """An MVTec-layout set: metal with 4 scratches and 3 holes, 3 normals."""
    root = tmp_path / "data"
    for defect, count in (("scratch", 4), ("hole", 3)):
        for index in range(count):
            image, mask = make_shot(index + 10 * count)
            write_png(root / "metal" / "test" / defect / f"{index:03d}.png", image)
            write_png(root / "metal" / "ground_truth" / defect / f"{index:03d}_mask.png", mask)
    for index in range(3):
        write_png(root / "metal" / "train" / "good" / f"{index:03d}.png", np.full((64, 64, 3), 100 + index, np.uint8))
    return root


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """Put the tiny base model and an encoder for it in the place of the shipped ones; returns the model."""
    model = TinyBackbone()
    path = tmp_path / "shipped" / "encoder.safetensors"
    save_encoder(path, SpatialEncoder("small", dim=DIM), {})
    monkeypatch.setattr(backbone_module, "load_backbone", lambda *_, **__: model)
    monkeypatch.setattr(backbone_module, "demo_encoder_path", lambda: path)
    return model


@pytest.fixture
def library(tmp_path, tiny):
    """A library of metal/scratch with both embeddings, and metal/hole with masks only."""
    rng = torch.Generator().manual_seed(0)
    masks = np.stack([make_shot(seed)[1] for seed in range(3)])
    both = Defect("metal", "scratch", torch.randn(8, DIM, generator=rng), torch.randn(4, DIM, generator=rng),
                  shot_masks=masks)  # fmt: skip
    only_masks = Defect("metal", "hole", mask=torch.randn(4, DIM, generator=rng), shot_masks=masks)
    path = tmp_path / "lib.safetensors"
    encoder = fingerprint(SpatialEncoder("small", dim=DIM))
    save_library(path, Library({d.key: d for d in (both, only_masks)}, tiny.fingerprint, "demo", DIM, encoder))
    return path


@pytest.fixture
def listing():
    """Every file under a folder with its bytes."""
    return lambda folder: {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
