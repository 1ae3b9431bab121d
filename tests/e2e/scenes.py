"""What both samplers start from, on the random SD 1.5 checkpoint, and the two samplers with the same settings."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from tests.e2e.comfyui import Graph, Link, Server

SETTINGS = {"seed": 5, "steps": 2, "cfg": 2.0, "sampler_name": "euler", "scheduler": "simple", "denoise": 1.0}
REWEIGHTING = {"reweighting": "balanced", "reweighting_strength": 1.0, "distance": "latent"}
CELL = 8
"""Pixels of a latent cell's side."""
ROUNDING = 1e-4
"""What float32 leaves of a few steps, as a share of the largest value: sums over other batch sizes round otherwise."""


def rounding(one: Tensor, other: Tensor) -> float:
    """Largest difference as a share of the largest value."""
    return float((one - other).abs().max() / other.abs().max())


@dataclass(frozen=True)
class Scene:
    """Links in one graph. boxes: one rectangle for each mask, [left, top, right, bottom] in pixels."""

    graph: Graph
    model: Link
    vae: Link
    defect: Link
    encoder: Link
    positive: Link
    negative: Link
    normal: Link
    mask: Link

    def ours(self, **changes: Any) -> Link:
        """Anomaly KSampler with fixed noise: [0] latent, [1] weight maps."""
        given = {"model": self.model, "positive": self.positive, "negative": self.negative, "normal": self.normal}
        given |= {"mask": self.mask, **SETTINGS, **REWEIGHTING, "blending": "fixed noise"}
        return self.graph("ADiffKSampler", **given | changes)

    def stock(self, **changes: Any) -> Link:
        """KSampler behind Set Latent Noise Mask."""
        given = {"model": self.model, "positive": self.positive, "negative": self.negative}
        given |= {"latent_image": self.masked(), **SETTINGS}
        return self.graph("KSampler", **given | changes)

    def masked(self) -> Link:
        """The normal latent behind Set Latent Noise Mask."""
        return self.graph("SetLatentNoiseMask", samples=self.normal, mask=self.mask)

    def reweighted(self, model: Link | None = None, **changes: Any) -> Link:
        """The model behind Apply Attention Re-weighting."""
        given = {"model": model or self.model, "mask": self.mask, "normal": self.normal, **REWEIGHTING}
        return self.graph("ADiffApplyReweighting", **given | changes)

    def condition(self, mask: Link, prompt: Link | None = None, **changes: Any) -> Link:
        """Anomaly Conditioning of the defect at a mask."""
        given = {"defect": self.defect, "mask": mask, "encoder": self.encoder, "strength": 1.0, "conditioning": prompt}
        return self.graph("ADiffAnomalyConditioning", **given | changes)

    def save(self, latent: Link) -> Link:
        """Save Latent, for `Result.latent`."""
        return self.graph("SaveLatent", samples=latent, filename_prefix="e2e")

    def show(self, image: Link) -> Link:
        """Save Image, for `Result.images`."""
        return self.graph("SaveImage", images=image, filename_prefix="e2e")


def masks(graph: Graph, boxes: list, rows: int = 8, columns: int = 8, scale: int = CELL) -> Link:
    """Masks over a grid of cells, `scale` pixels each; boxes are in cells."""
    pixels = [box and [scale * side for side in box] for box in boxes]
    return graph("ProbeMasks", width=scale * columns, height=scale * rows, boxes=json.dumps(pixels))


def tokens(graph: Graph, seed: int, count: int = 77, rows: int = 1, width: int = 768) -> Link:
    """Random tokens in the place of a prompt's."""
    return graph("ProbeTokens", seed=seed, tokens=count, rows=rows, width=width)


def make_scene(
    server: Server, graph: Graph, *, boxes: tuple = ((2, 3, 6, 7),), batch: int = 1, rows: int = 8, columns: int = 8,
    negative: int = 77,
) -> Scene:  # fmt: skip
    """boxes: one for each mask, in cells. batch: normal latents. negative: tokens of the negative conditioning."""
    loader = graph("CheckpointLoaderSimple", ckpt_name="sd15.safetensors")
    label = server.option("ADiffLoadDefect", "defect", "things.safetensors / metal / scratch")
    defect = graph("ADiffLoadDefect", defect=label)
    encoder = graph("ADiffLoadSpatialEncoder", encoder="small.safetensors")
    mask = masks(graph, list(boxes), rows, columns)
    positive = graph("ADiffAnomalyConditioning", defect=defect, mask=mask, encoder=encoder, strength=1.0)
    return Scene(
        graph=graph, model=loader, vae=loader[2], defect=defect, encoder=encoder, positive=positive,
        negative=tokens(graph, 100, negative),
        normal=graph("ProbeNormal", seed=3, batch=batch, rows=rows, columns=columns), mask=mask,
    )  # fmt: skip
