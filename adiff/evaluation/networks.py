"""The networks that a localizer may be: images (B, 3, S, S) in [-1, 1] -> logits (B, 1, S, S).

| name | what it is | weights at the start |
|---|---|---|
| small | four levels, GroupNorm, a quarter of the time of one that sees each pixel as a place | random |
| draem | DRAEM's discriminative network (Zavrtanik et al., ICCV 2021, sec. 3.2), the paper's own detector | random |
| smp | segmentation-models-pytorch's U-Net on a ResNet-34; the package is needed | random |

Nothing is downloaded: nothing here was learned from other people's images.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import InputError

PRIOR = 0.01
"""Chance of a defect that the untrained network tells (Lin et al., ICCV 2017, sec. 4.1)."""
LEVELS = 4
GROUPS = 8
FOLD = 2
"""Side of the pixels that are one place of the small network's first level."""
DRAEM_DOWN, DRAEM_UP = (1, 2, 4, 8, 8, 8), (8, 4, 2, 1, 1)
"""Channels of DRAEM's levels on the way down and up again, in widths (the release)."""


class Localizer(nn.Module):
    """The small network; S: a multiple of 16.

    With GroupNorm one image scores the same alone and in a batch. Its first level sees each 2 x 2 pixels as one place
    of 12 channels and tells their four scores: no pixel is lost.
    """

    def __init__(self, width: int = 16):
        super().__init__()
        widths = [width << level for level in range(LEVELS)]
        self.down = nn.ModuleList(_block(a, b) for a, b in zip([3 * FOLD**2, *widths[:-1]], widths, strict=True))
        self.up = nn.ModuleList(_block(a + b, a) for a, b in zip(widths[-2::-1], widths[:0:-1], strict=True))
        self.head = nn.Conv2d(width, FOLD**2, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Score a batch."""
        x, kept = F.pixel_unshuffle(x, FOLD), []
        for level, block in enumerate(self.down):
            x = block(F.max_pool2d(x, 2) if level else x)
            kept.append(x)
        kept.pop()
        for block in self.up:
            skip = kept.pop()
            x = block(torch.cat([F.interpolate(x, size=skip.shape[2:], mode="nearest"), skip], 1))
        return F.pixel_shuffle(self.head(x), FOLD)


class DraemNetwork(nn.Module):
    """DRAEM's discriminative network; S: a multiple of 32.

    It sees the image alone, as in the anomaly-diffusion papers' evaluation: DRAEM itself puts a reconstruction beside
    it. One logit takes the place of the release's softmax over two, which is the same function.
    """

    def __init__(self, width: int = 64):
        super().__init__()
        down, up = ([width * share for share in shares] for shares in (DRAEM_DOWN, DRAEM_UP))
        self.down = nn.ModuleList(_plain_block(a, b) for a, b in zip([3, *down[:-1]], down, strict=True))
        self.lift = nn.ModuleList(_convolution(a, b) for a, b in zip([down[-1], *up[:-1]], up, strict=True))
        self.up = nn.ModuleList(_plain_block(a + skip, a) for a, skip in zip(up, down[-2::-1], strict=True))
        self.head = nn.Conv2d(width, 1, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Score a batch."""
        kept = []
        for level, block in enumerate(self.down):
            x = block(F.max_pool2d(x, 2) if level else x)
            kept.append(x)
        kept.pop()
        for lift, block in zip(self.lift, self.up, strict=True):
            larger = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True)
            x = block(torch.cat([lift(larger), kept.pop()], 1))
        return self.head(x)


class Kind(NamedTuple):
    """build: width -> network and its last layer. width, lr: unless told otherwise. multiple: sides are multiples."""

    build: Callable[[int], tuple[nn.Module, nn.Conv2d]]
    width: int
    lr: float
    multiple: int


def new_network(kind: str, width: int) -> nn.Module:
    """A network with random weights from torch's own generator, which tells PRIOR everywhere; kind: of NETWORKS.

    Raises InputError where the package of `smp` is not installed.
    """
    network, last = NETWORKS[kind].build(width)
    with torch.no_grad():
        last.bias.fill_(math.log(PRIOR / (1 - PRIOR)))
    return network


def _build_small(width: int) -> tuple[nn.Module, nn.Conv2d]:
    network = Localizer(width)
    return network, network.head


def _build_draem(width: int) -> tuple[nn.Module, nn.Conv2d]:
    network = DraemNetwork(width)
    return network, network.head


def _build_smp(width: int) -> tuple[nn.Module, nn.Conv2d]:
    """width: of the decoder's last level; the package's own is 16."""
    try:
        import segmentation_models_pytorch as smp
    except ImportError as error:
        raise InputError(
            f"the network smp needs segmentation-models-pytorch ({error}); pip install 'anomaly-diffusion[evaluate]', "
            "or choose small or draem"
        ) from None
    channels = tuple(width << level for level in range(4, -1, -1))
    network = smp.Unet("resnet34", encoder_weights=None, decoder_channels=channels, in_channels=3, classes=1)
    return network, network.segmentation_head[0]


NETWORKS = {
    "small": Kind(_build_small, 16, 2e-3, FOLD * 2 ** (LEVELS - 1)),
    "draem": Kind(_build_draem, 64, 1e-4, 2 ** len(DRAEM_UP)),
    "smp": Kind(_build_smp, 16, 1e-3, 32),
}


def _block(inside: int, out: int) -> nn.Sequential:
    parts = []
    for channels in (inside, out):
        parts += [nn.Conv2d(channels, out, 3, padding=1, bias=False), nn.GroupNorm(GROUPS, out), nn.SiLU()]
    return nn.Sequential(*parts)


def _plain_block(inside: int, out: int) -> nn.Sequential:
    return nn.Sequential(*_convolution(inside, out), *_convolution(out, out))


def _convolution(inside: int, out: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inside, out, 3, padding=1), nn.BatchNorm2d(out), nn.ReLU(inplace=True))
