"""The KL autoencoder of SD 1.x in plain torch, under the names of its single file.

For hosts that bring no network of their own for a width that SD 1.5 does not have, and where diffusers may not be
importable; it gives what diffusers' AutoencoderKL gives (tested).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import torch.nn.functional as F
from einops import rearrange
from safetensors import safe_open
from torch import Tensor, nn

from .layout import METADATA, NULL_CONTEXT, VAE, vae_config


class Residual(nn.Module):
    """Two normalised convolutions around a shortcut."""

    def __init__(self, inside: int, outside: int, groups: int):
        super().__init__()
        self.norm1, self.conv1 = nn.GroupNorm(groups, inside, eps=1e-6), nn.Conv2d(inside, outside, 3, padding=1)
        self.norm2, self.conv2 = nn.GroupNorm(groups, outside, eps=1e-6), nn.Conv2d(outside, outside, 3, padding=1)
        if inside != outside:
            self.nin_shortcut = nn.Conv2d(inside, outside, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inside, h, w) -> (B, outside, h, w)."""
        h = self.conv1(F.silu(self.norm1(x)))
        h = self.conv2(F.silu(self.norm2(h)))
        return h + (self.nin_shortcut(x) if hasattr(self, "nin_shortcut") else x)


class SelfAttention(nn.Module):
    """One head over all positions."""

    def __init__(self, channels: int, groups: int):
        super().__init__()
        self.norm = nn.GroupNorm(groups, channels, eps=1e-6)
        self.q, self.k, self.v, self.proj_out = (nn.Conv2d(channels, channels, 1) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) -> the same shape."""
        h = self.norm(x)
        q, k, v = (rearrange(layer(h), "b c h w -> b 1 (h w) c") for layer in (self.q, self.k, self.v))
        out = F.scaled_dot_product_attention(q, k, v)
        return x + self.proj_out(rearrange(out, "b 1 (h w) c -> b c h w", h=x.shape[2]))


class Resample(nn.Module):
    """Half or double the size."""

    def __init__(self, channels: int, up: bool):
        super().__init__()
        self.up = up
        self.conv = nn.Conv2d(channels, channels, 3, stride=1 if up else 2, padding=1 if up else 0)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, C, 2 h, 2 w), or half of both."""
        if self.up:
            return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))
        return self.conv(F.pad(x, (0, 1, 0, 1)))


class Middle(nn.Module):
    """Residual, attention, residual."""

    def __init__(self, channels: int, groups: int):
        super().__init__()
        self.block_1, self.block_2 = (Residual(channels, channels, groups) for _ in range(2))
        self.attn_1 = SelfAttention(channels, groups)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) -> the same shape."""
        return self.block_2(self.attn_1(self.block_1(x)))


class Level(nn.Module):
    """The residuals of one size, and the way to the next."""

    def __init__(self, channels: list[int], groups: int, resample: str | None):
        super().__init__()
        steps = zip(channels, channels[1:], strict=False)
        self.block = nn.ModuleList(Residual(inside, outside, groups) for inside, outside in steps)
        if resample:
            self.add_module(resample, Resample(channels[-1], up=resample == "upsample"))

    def forward(self, x: Tensor) -> Tensor:
        """Run all in the order of their registration."""
        for block in self.block:
            x = block(x)
        for name in ("downsample", "upsample"):
            x = getattr(self, name)(x) if hasattr(self, name) else x
        return x


class Encoder(nn.Module):
    """Images (B, 3, H, W) -> moments (B, 2 z, H / 2^(levels - 1), ...)."""

    def __init__(self, widths: list[int], layers: int, groups: int, latent: int):
        super().__init__()
        self.conv_in = nn.Conv2d(3, widths[0], 3, padding=1)
        before = [widths[0], *widths]
        self.down = nn.ModuleList(
            Level([before[i]] + [width] * layers, groups, "downsample" if i + 1 < len(widths) else None)
            for i, width in enumerate(widths)
        )
        self.mid = Middle(widths[-1], groups)
        self.norm_out = nn.GroupNorm(groups, widths[-1], eps=1e-6)
        self.conv_out = nn.Conv2d(widths[-1], 2 * latent, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Encode."""
        x = self.conv_in(x)
        for level in self.down:
            x = level(x)
        return self.conv_out(F.silu(self.norm_out(self.mid(x))))


class Decoder(nn.Module):
    """Latents (B, z, h, w) -> images (B, 3, h 2^(levels - 1), ...); `up` is counted from the finest level."""

    def __init__(self, widths: list[int], layers: int, groups: int, latent: int):
        super().__init__()
        self.conv_in = nn.Conv2d(latent, widths[-1], 3, padding=1)
        self.mid = Middle(widths[-1], groups)
        after = [*widths, widths[-1]]
        self.up = nn.ModuleList(
            Level([after[i + 1]] + [width] * (layers + 1), groups, "upsample" if i else None)
            for i, width in enumerate(widths)
        )
        self.norm_out = nn.GroupNorm(groups, widths[0], eps=1e-6)
        self.conv_out = nn.Conv2d(widths[0], 3, 3, padding=1)

    def forward(self, z: Tensor) -> Tensor:
        """Decode."""
        x = self.mid(self.conv_in(z))
        for level in reversed(self.up):
            x = level(x)
        return self.conv_out(F.silu(self.norm_out(x)))


class Autoencoder(nn.Module):
    """encode and decode; latents unscaled."""

    def __init__(self, widths: list[int], layers: int, groups: int, latent: int):
        super().__init__()
        self.encoder, self.decoder = Encoder(widths, layers, groups, latent), Decoder(widths, layers, groups, latent)
        self.quant_conv, self.post_quant_conv = nn.Conv2d(2 * latent, 2 * latent, 1), nn.Conv2d(latent, latent, 1)

    def encode(self, images: Tensor) -> Tensor:
        """Images (B, 3, H, W) in [-1, 1] -> the posterior's mean (B, z, h, w)."""
        return self.quant_conv(self.encoder(images)).chunk(2, dim=1)[0]

    def decode(self, latents: Tensor) -> Tensor:
        """Latents (B, z, h, w) -> images (B, 3, H, W), about [-1, 1]."""
        return self.decoder(self.post_quant_conv(latents))


@dataclass(frozen=True)
class SingleFile:
    """A model's single file without diffusers: autoencoder, the other weights, what they do not tell."""

    autoencoder: Autoencoder
    tensors: dict[str, Tensor]
    about: dict
    scaling_factor: float
    null_context: Tensor


def read_single_file(path: Path) -> SingleFile:
    """Read a file that `save_single_file` wrote, float32; tensors: all but the autoencoder's, under their own names."""
    with safe_open(path, "pt") as file:
        about = json.loads(file.metadata()[METADATA])
        tensors = {name: file.get_tensor(name).float() for name in file.keys()}
    config = vae_config({name: tuple(t.shape) for name, t in tensors.items()}, about)
    network = Autoencoder(
        config["block_out_channels"], config["layers_per_block"], config["norm_num_groups"], config["latent_channels"]
    )
    of_vae = {n.removeprefix(VAE): tensors.pop(n) for n in [name for name in tensors if name.startswith(VAE)]}
    network.load_state_dict(of_vae)
    null = tensors.pop(NULL_CONTEXT)
    return SingleFile(network.eval().requires_grad_(False), tensors, about, config["scaling_factor"], null)
