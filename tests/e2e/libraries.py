"""Libraries for the library panel's tests, of any number of defects with pictures, tags and licences."""

from __future__ import annotations

import numpy as np
import torch

from adiff.library import Defect, Library

PRODUCTS = ("metal", "wood", "tile", "leather", "carpet", "glass", "cable", "capsule", "bottle", "screw")
KINDS = ("scratch", "hole", "stain", "crack", "dent", "contamination", "cut", "fold", "thread", "poke")
TAGS = ("rare", "line 2", "surface", "structural", "bright", "to check")
LICENCES = ("CC0-1.0", "CC-BY-4.0", "proprietary", None)
SIDE, SHOTS = 96, 64
"""Pixels of a picture, as the training keeps it, and of a shot's mask."""


def make_many(count: int) -> Library:
    """A library of `count` defects; the first is metal/scratch 1, the second wood/scratch 1, the 11th metal/hole 1."""
    generator, rng = torch.Generator().manual_seed(0), np.random.default_rng(0)
    entries = [_make_defect(number, generator, rng) for number in range(count)]
    return Library({entry.key: entry for entry in entries}, "0" * 64, "Stable Diffusion 1.5", 768)


def _make_defect(number: int, generator: torch.Generator, rng: np.random.Generator) -> Defect:
    product, kind = PRODUCTS[number % 10], f"{KINDS[number // 10 % 10]} {number // 100 + 1}"
    tags = [TAGS[number % 6], TAGS[(number + 1) % 6]][: number % 3]
    info = {"shots": [f"{shot}.png" for shot in range(1 + number % 9)], "author": "Ada", "tags": tags}
    licence = LICENCES[number % 4]
    return Defect(
        product, kind, torch.randn(8, 768, generator=generator), preview=_draw(rng),
        info=info | ({"licence": licence} if licence else {}), shot_masks=np.zeros((2, SHOTS, SHOTS), bool),
    )  # fmt: skip


def _draw(rng: np.random.Generator) -> torch.Tensor:
    """A stripy surface with a dark spot, (3, h, w) uint8."""
    y, x = np.mgrid[:SIDE, :SIDE] / SIDE
    stripes = 12 * np.sin(40 * (x * rng.uniform(-1, 1) + y * rng.uniform(-1, 1)))
    picture = rng.uniform(60, 200, (3, 1, 1)) + stripes + rng.normal(0, 5, (3, SIDE, SIDE))
    (left, top), radius = rng.uniform(0.3, 0.7, 2), rng.uniform(0.05, 0.2)
    picture[:, (x - left) ** 2 + 2 * (y - top) ** 2 < radius**2] *= rng.uniform(0.2, 0.6)
    return torch.from_numpy(picture.clip(0, 255).astype(np.uint8))
