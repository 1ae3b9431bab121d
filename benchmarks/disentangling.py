"""Whether the mask says where (paper, Fig. 6): the share of generated change inside masks where no shot had its defect.

Shots have their defect in the upper left; the masks lie in the other quarters and meet no shot's mask. (Augmentation
mirrors the shots, for all the runs alike.) Nothing is blended: each image is painted whole, from its noised normal
image (Meng et al. 2022, SDEdit), so that all that keeps a change inside the mask is the condition. The change is taken
against the same image from the same noise under the null context: what re-painting alone changes does not count.

| run | tokens | loss |
|---|---|---|
| plain | e_a | over the whole image: textual inversion |
| masked | e_a | masked (Eq. 5) |
| SAE | e_a and E(m), E the demo's, frozen | masked |
| SAE, learned | the same, E learned with e_a from a random start | masked |
"""

from __future__ import annotations

import statistics
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from adiff.backbone import Backbone, demo_encoder_path, load_backbone
from adiff.datasets.surfaces import WITHHELD, render, sample_seed
from adiff.embedding import Condition, join_condition
from adiff.generation import GenerationSettings
from adiff.generation.sampler import sample_blended
from adiff.generation.seeds import generator_for
from adiff.pixels import as_images
from adiff.scoring import VISIBLE
from adiff.spatial_encoder import SpatialEncoder, load_encoder
from adiff.training import AnomalySettings, train_anomalies

from .record import Record
from .reweighting import SHOTS, SIZE

NEAR, FAR = (0.27, 0.27), ((0.73, 0.73), (0.27, 0.73), (0.73, 0.27))
"""Where the shots have their defects, and where the masks lie: centres (u, v) in shares of the image."""
SEVERITY = 0.8
"""Share of the sampling steps that are taken, from the normal image noised accordingly."""
RUNS = ("plain", "masked", "SAE", "SAE, learned")
LEVEL = 3 * VISIBLE
"""Levels beyond which a pixel counts as changed here: two paintings of one image differ by more than 8 bits' noise."""


def shots_of(key: tuple[str, str], seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Draw shots with the defect in the upper left."""
    drawn = [render(*key, SIZE, sample_seed(seed, *key, "near", i), place=NEAR) for i in range(SHOTS)]
    return [(one.image, one.mask) for one in drawn]


def masks_elsewhere(key: tuple[str, str], seed: int, count: int, taken: np.ndarray) -> list[np.ndarray]:
    """Draw masks in the other quarters that do not meet `taken` (S, S) bool."""
    found, index = [], 0
    while len(found) < count:
        drawn = render(*key, SIZE, sample_seed(seed, *key, "far", index), place=FAR[index % len(FAR)])
        index += 1
        if not (drawn.mask & taken).any():
            found.append(drawn.mask)
    return found


def train(backbone: Backbone, name: str, seed: int, steps: int) -> tuple[dict, SpatialEncoder | None]:
    """Learn all combinations together; returns e_a of each, and the encoder, None for the runs without."""
    encoder, frozen = None, name == "SAE"
    if name.startswith("SAE"):
        encoder = load_encoder(demo_encoder_path())[0] if frozen else SpatialEncoder("small", dim=backbone.context_dim)
    settings = AnomalySettings(steps=steps, draws=8, early_stop=False, crop=False, masked=name != "plain")
    shots = {key: shots_of(key, seed) for key in WITHHELD}
    learned = train_anomalies(backbone, shots, encoder, freeze_encoder=frozen, settings=settings, seed=seed)
    return learned.embeddings, learned.encoder


@torch.no_grad()
def paint(backbone: Backbone, y: Tensor, condition: Condition, guidance: float, seed: int) -> np.ndarray:
    """Paint whole images from noised normal latents y (B, 4, h, w); returns levels (B, H, W, 3) float."""
    settings = replace(GenerationSettings(), severity=SEVERITY, guidance=guidance, reweighting="off")
    everywhere, generators = torch.ones_like(y[:, :1]), [generator_for(seed, "pair", i) for i in range(len(y))]
    painted = backbone.decode(sample_blended(backbone, y, everywhere, condition, settings, generators))
    return ((painted.float() + 1) * 127.5).clamp(0, 255).permute(0, 2, 3, 1).cpu().numpy()


@torch.no_grad()
def shares(backbone: Backbone, key: tuple[str, str], e_a: Tensor, encoder: SpatialEncoder | None, seed: int, count: int
           ) -> dict:  # fmt: skip
    """Paint `count` normals; returns means of the masks' area, and of what changed (see the table's columns)."""
    taken = np.any([mask for _, mask in shots_of(key, seed)], axis=0)
    masks = np.stack(masks_elsewhere(key, seed, count, taken))
    good = [render(key[0], None, SIZE, sample_seed(seed, *key, "normals", i)).image for i in range(count)]
    y = backbone.encode(as_images(np.stack(good)))
    e_s = None if encoder is None else encoder(torch.from_numpy(masks)[:, None].float())
    null = Condition(backbone.null_context.expand(count, -1, -1), (0, 0))
    condition = join_condition(e_a[None].expand(count, -1, -1), e_s)
    change = paint(backbone, y, condition, GenerationSettings().guidance, seed) - paint(backbone, y, null, 1.0, seed)
    energy, changed = np.square(change).sum(-1), np.abs(change).max(-1) > LEVEL
    return {
        "area": float(masks.mean()),
        "change": float(np.mean([e[m].sum() / e.sum() for e, m in zip(energy, masks, strict=True)])),
        "pixels": float(np.mean([c[m].sum() / max(c.sum(), 1) for c, m in zip(changed, masks, strict=True)])),
        "fill": float(np.mean([c[m].mean() for c, m in zip(changed, masks, strict=True)])),
    }


def measure(record: Record, seeds: int, steps: int, count: int) -> str:
    """Measure every seed and run; returns the table."""
    backbone = load_backbone("demo")

    def one(name: str, seed: int) -> dict:
        embeddings, encoder = train(backbone, name, seed, steps)
        return {"/".join(key): shares(backbone, key, embeddings[key], encoder, seed, count) for key in WITHHELD}

    rows: dict[str, list[dict]] = {name: [] for name in RUNS}
    for seed in range(seeds):
        for name in RUNS:
            part, label = f"disentangling, {steps} steps, {count} masks", f"{name}, seed {seed}"
            rows[name].append(record.row(part, label, lambda name=name, seed=seed: one(name, seed)))
    lines = ["| defect | run | change inside | changed pixels inside | mask filled | mask's area |", "|---" * 6 + "|"]
    for defects in (*(["/".join(key)] for key in WITHHELD), ["/".join(key) for key in WITHHELD]):
        for name, of_run in rows.items():
            columns = [[statistics.mean(row[d][kind] for d in defects) for row in of_run]
                       for kind in ("change", "pixels", "fill", "area")]  # fmt: skip
            label = defects[0] if len(defects) == 1 else "all"
            lines.append(f"| {label} | {name} | {' | '.join(_spread(column) for column in columns)} |")
    return "\n".join(lines)


def _spread(values: list[float]) -> str:
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{statistics.mean(values):.2f} ± {deviation:.2f}"
