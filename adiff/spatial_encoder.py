"""Spatial encoder E: from a mask to n tokens that say where the defect goes and in which shape (sec. 3.2).

    m -> resized to S x S -> ResNet stages C_i -> FPN, fused on the finest -> G x G grid -> one small head a token

| symbol | meaning | shape |
|---|---|---|
| m | binary anomaly mask | (B, 1, H, W) |
| C_i | features of ResNet stage i, finest first | (B, c_i, S_i, S_i) |
| P | the fused map | (B, F, S_1, S_1) |
| e_s | spatial embedding E(m) | (B, n, D) |

The release uses a face-recognition IR-50 and heads of 81 M parameters each; this follows the paper (ResNet-50, FPN,
fully connected heads). Two choices keep what a mask encoder is for. The heads read a G x G grid, not its mean: a
token must know *where*. Normalisation is by group: a batch of one gives the tokens a batch of many gives.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import save
from torch import Tensor, nn

from .embedding import N_SPATIAL
from .errors import InputError
from .latent_grid import area_resize
from .storage import write_whole
from .tensor_files import open_safetensors, shown, tensors_of

FORMAT = "1"
KIND = "spatial_encoder"
GRID = 8
"""G, cells a side of the grid that the heads read."""


@dataclass(frozen=True)
class Variant:
    """Sizes of one encoder: S in pixels, the stages' channels c_i, the FPN's F, and channels a cell a head reads."""

    size: int
    stages: tuple[int, ...]
    fused: int
    head: int


VARIANTS = {
    "base": Variant(size=256, stages=(256, 512, 1024, 2048), fused=128, head=16),
    "small": Variant(size=64, stages=(32, 64, 128), fused=64, head=8),
}


class ResNet50Stages(nn.Module):
    """The four stages of a ResNet-50 with GroupNorm(32), for a mask's single channel, at 1/4 to 1/32 of S."""

    def __init__(self) -> None:
        super().__init__()
        from torchvision.models import resnet50  # imported here: only the base variant needs torchvision

        net = resnet50(weights=None, norm_layer=lambda channels: nn.GroupNorm(32, channels))
        self.stem = nn.Sequential(nn.Conv2d(1, 64, 7, stride=2, padding=3, bias=False), net.bn1, net.relu, net.maxpool)
        self.stages = nn.ModuleList([net.layer1, net.layer2, net.layer3, net.layer4])

    def forward(self, x: Tensor) -> list[Tensor]:
        """Return the stages' features, finest first. x: (B, 1, S, S)."""
        return _run_stages(self.stem(x), self.stages)


class LightStages(nn.Module):
    """A ResNet of one basic block a stage at 1/2, 1/4, 1/8 of S: the same structure in 0.3 M parameters."""

    def __init__(self, channels: Sequence[int]) -> None:
        super().__init__()
        first = channels[0]
        conv = nn.Conv2d(1, first, 3, stride=2, padding=1, bias=False)
        self.stem = nn.Sequential(conv, nn.GroupNorm(8, first), nn.ReLU())
        inputs = (first, *channels[:-1])
        self.stages = nn.ModuleList(
            BasicBlock(i, o, stride=1 if index == 0 else 2)
            for index, (i, o) in enumerate(zip(inputs, channels, strict=True))
        )

    def forward(self, x: Tensor) -> list[Tensor]:
        """Return the stages' features, finest first. x: (B, 1, S, S)."""
        return _run_stages(self.stem(x), self.stages)


class BasicBlock(nn.Module):
    """ResNet's block of two 3 x 3 convolutions, with GroupNorm(8)."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False),
            nn.GroupNorm(8, outputs),
            nn.ReLU(),
            nn.Conv2d(outputs, outputs, 3, padding=1, bias=False),
            nn.GroupNorm(8, outputs),
        )
        same = stride == 1 and inputs == outputs
        self.skip = nn.Identity() if same else nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, inputs, h, w); returns (B, outputs, h / stride, w / stride)."""
        return F.relu(self.skip(x) + self.body(x))


class FeaturePyramid(nn.Module):
    """Top-down fusion of all stages on the finest one's grid (FPN, Lin et al. 2017, its finest output)."""

    def __init__(self, channels: Sequence[int], width: int) -> None:
        super().__init__()
        self.lateral = nn.ModuleList(nn.Conv2d(c, width, 1) for c in channels)
        self.smooth = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, features: list[Tensor]) -> Tensor:
        """Fuse. features: (B, c_i, S_i, S_i), finest first; returns P (B, F, S_1, S_1)."""
        lateral = [conv(c) for conv, c in zip(self.lateral, features, strict=True)]
        fused = lateral[-1]
        for finer in reversed(lateral[:-1]):
            fused = finer + F.interpolate(fused, size=finer.shape[-2:], mode="nearest")
        return F.relu(self.smooth(fused))


class SpatialEncoder(nn.Module):
    """E of Eq. 6. `base` (27.3 M parameters) is for Stable Diffusion, `small` (0.8 to 1.9 M) for the demo model."""

    def __init__(self, variant: str = "base", tokens: int = N_SPATIAL, dim: int = 768, *, seed: int = 0) -> None:
        """variant: a key of VARIANTS. tokens: n. dim: D, the base model's context width. seed: of the first weights.

        The first weights are a function of the seed alone; torch's global generator is left as it was.
        """
        super().__init__()
        if variant not in VARIANTS:
            raise InputError(f"spatial encoder variant {variant!r} is unknown; choose one of {', '.join(VARIANTS)}")
        if tokens < 1 or dim < 1:
            raise InputError(f"an encoder for {tokens} tokens of width {dim} was asked for; both must be at least 1")
        self.variant, self.tokens, self.dim = variant, tokens, dim
        self.sizes = VARIANTS[variant]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.stages = ResNet50Stages() if variant == "base" else LightStages(self.sizes.stages)
            self.pyramid = FeaturePyramid(self.sizes.stages, self.sizes.fused)
            self.heads = nn.ModuleList(_token_head(self.sizes, dim) for _ in range(tokens))
        self.norm = nn.LayerNorm(dim)

    def forward(self, mask: Tensor) -> Tensor:
        """Encode masks, e_s = E(m).

        mask: (B, 1, H, W), 0 or 1, any H and W (resized by area to S x S, so that a thin scratch fades but stays).
        Returns (B, n, D), about unit variance; all zeros are allowed and give the tokens of "nowhere".
        """
        if mask.ndim != 4 or mask.shape[1] != 1:
            raise InputError(f"masks must be (batch, 1, height, width), got {tuple(mask.shape)}")
        size = (self.sizes.size, self.sizes.size)
        resized = area_resize(mask.to(self.norm.weight), size)
        cells = F.adaptive_avg_pool2d(self.pyramid(self.stages(resized)), GRID)
        return self.norm(torch.stack([head(cells) for head in self.heads], dim=1))


def _run_stages(x: Tensor, stages: nn.ModuleList) -> list[Tensor]:
    features = []
    for stage in stages:
        x = stage(x)
        features.append(x)
    return features


def _token_head(sizes: Variant, dim: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(sizes.fused, sizes.head, 1), nn.ReLU(), nn.Flatten(), nn.Linear(sizes.head * GRID * GRID, dim)
    )


def fingerprint(encoder: SpatialEncoder) -> str:
    """sha256 over names, shapes and float16 values of the weights: the same before saving and after loading."""
    digest = hashlib.sha256()
    for name, tensor in sorted(_stored(encoder).items()):
        digest.update(f"{name}{tuple(tensor.shape)}".encode())
        digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()


def save_encoder(path: str | Path, encoder: SpatialEncoder, info: dict[str, Any]) -> None:
    """Write the encoder, float16, as one safetensors file, atomically.

    info: anything JSON can hold (shots, steps, licence, ...); comes back from load_encoder.
    """
    metadata = {
        "adiff_format": FORMAT,
        "kind": KIND,
        "variant": encoder.variant,
        "tokens": str(encoder.tokens),
        "dim": str(encoder.dim),
        "fingerprint": fingerprint(encoder),
        "info": json.dumps(info, ensure_ascii=False),
    }
    content = save(_stored(encoder), metadata)
    write_whole(path, lambda temporary: temporary.write_bytes(content))


def load_encoder(path: str | Path) -> tuple[SpatialEncoder, dict[str, Any]]:
    """Read what save_encoder wrote: the encoder (float32, CPU, eval mode) and its info.

    Returns (encoder, info); `info` also holds variant, tokens, dim and fingerprint.
    Raises FileNotFoundError; InputError for any file that is not a spatial encoder of this format, naming what it is.
    """
    path = Path(path)
    with open_safetensors(path, "spatial encoder") as file:
        metadata = file.metadata() or {}
        if metadata.get("kind") != KIND:
            raise InputError(f"{path} is {_describe(metadata, list(file.keys()))}, not a spatial encoder")
        version = metadata.get("adiff_format", "")
        if version != FORMAT:
            raise InputError(f"{path} has format {version[:40]}, this version reads format {FORMAT}; update adiff")
        tensors = {name: tensor.float() for name, tensor in tensors_of(file).items()}
    return _rebuild(path, metadata, tensors)


def _rebuild(path: Path, metadata: dict[str, str], tensors: dict[str, Tensor]) -> tuple[SpatialEncoder, dict[str, Any]]:
    try:
        variant, tokens, dim = metadata["variant"], int(metadata["tokens"]), int(metadata["dim"])
        info, heads = json.loads(metadata["info"]), {n.split(".")[1] for n in tensors if n.startswith("heads.")}
        if not isinstance(info, dict) or tokens != len(heads) or dim != len(tensors["norm.weight"]):
            raise ValueError("its metadata do not fit its weights")
        with torch.device("meta"):  # no first weights are drawn only to be replaced
            encoder = SpatialEncoder(variant, tokens, dim).eval()
        encoder.load_state_dict(tensors, assign=True)
        own = {"variant": variant, "tokens": tokens, "dim": dim, "fingerprint": fingerprint(encoder)}
    except (KeyError, RuntimeError, ValueError) as error:
        raise InputError(f"{path} is a damaged spatial encoder: {' '.join(str(error).split())[:200]}") from error
    return encoder, {**info, **own}


def _stored(encoder: SpatialEncoder) -> dict[str, Tensor]:
    """The weights as they are stored: float16 on the CPU; raises InputError if one of them is not finite there."""
    weights = encoder.state_dict().items()
    stored = {name: tensor.detach().to("cpu", torch.float16).contiguous() for name, tensor in weights}
    lost = [name for name, tensor in stored.items() if not tensor.isfinite().all()]
    if lost:
        raise InputError(f"encoder weights beyond float16 or not finite: {', '.join(lost[:3])}; the training diverged")
    return stored


def _describe(metadata: dict[str, str], names: list[str]) -> str:
    """What another safetensors file is, in words, as far as its names tell."""
    if any(name.startswith(("anomaly/", "mask/")) for name in names):
        return "a defect library"
    if "kind" in metadata:
        return f"a file of kind {metadata['kind'][:40]!r}"
    if any(name.startswith(("model.diffusion_model.", "first_stage_model.")) for name in names):
        return "a model checkpoint"
    return f"a safetensors file of {len(names)} tensors ({', '.join(shown(name) for name in names[:2])}, ...)"
