"""How learned masks are best sampled: where they begin, steps and guidance, on the shipped library's embeddings.

    python -m benchmarks.mask_sampling --out FOLDER [--candidates 32]

The same candidates' numbers in every row, one thread. *kept*: those that keep the rules; *empty*: those of no pixel;
*area*, *solidity* (share of its convex hulls that a mask fills) and *novelty* (1 - best overlap with a shot's mask):
medians of those kept, beside the shots' own; *CPU s a mask*: seconds of drawing over masks kept. Prints a Markdown
table, and writes masks.json and a picture for each row and defect, the shots above.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from scipy import ndimage
from scipy.spatial import ConvexHull

from adiff.backbone import demo_library_path, load_backbone
from adiff.datasets.images import write_png
from adiff.generation import MaskSampling
from adiff.generation.mask import draw_candidates
from adiff.geometry import EIGHT
from adiff.library import load_library
from adiff.masks import MaskRules, best_aligned_iou, check_mask, clean_mask

ROWS = (
    {"guidance": 5.0}, {}, {"denoise": 0.9}, {"denoise": 0.75}, {"denoise": 0.6}, {"denoise": 0.45},
)  # fmt: skip
"""What differs from the defaults."""
SEEN = 16
"""Masks in a picture's row."""


def measure(backbone, entry, settings: MaskSampling, count: int, picture: Path) -> dict:
    """Draw candidates of a defect's e_m and tell what the rules leave of them."""
    shots = list(entry.shot_masks)
    rules, began = MaskRules.from_shots(shots), time.process_time()
    drawn = np.concatenate([
        draw_candidates(backbone, entry.mask, min(settings.batch, count - first), settings, 0, first, shots)
        for first in range(0, count, settings.batch)
    ])  # fmt: skip
    spent = time.process_time() - began
    cleaned = [clean_mask(mask, rules.min_component) for mask in drawn]
    kept = [mask for mask in cleaned if not check_mask(mask, rules)]
    write_png(picture, np.concatenate([_row(shots), _row(kept)]))
    return {
        "kept": len(kept), "empty": sum(not mask.any() for mask in cleaned), "cpu_s": spent,
        "area": _median([mask.mean() for mask in kept]), "solidity": _median(list(map(solidity, kept))),
        "novelty": _median([1 - best_aligned_iou(mask, shots) for mask in kept]),
        "shots": {"area": _median([m.mean() for m in shots]), "solidity": _median(list(map(solidity, shots)))},
    }  # fmt: skip


def solidity(mask: np.ndarray) -> float:
    """Share of the convex hulls of its parts that a mask fills: 1 for a bar or a disc, less for what is crooked."""
    labels, _ = ndimage.label(mask, structure=EIGHT)
    hulls = 0.0
    for number, box in enumerate(ndimage.find_objects(labels), 1):
        corners = np.pad(labels[box] == number, 1)  # of pixels: a corner belongs to a part if any of its four does
        corners = corners[1:, 1:] | corners[1:, :-1] | corners[:-1, 1:] | corners[:-1, :-1]
        hulls += ConvexHull(np.argwhere(corners)).volume
    return float(mask.sum() / hulls)


def _median(values: Sequence[float]) -> float | None:
    return float(statistics.median(values)) if values else None


def _row(masks: Sequence[np.ndarray]) -> np.ndarray:
    """The first masks side by side, white on black with grey lines between them."""
    tiles = [np.pad(mask.astype(np.uint8) * 255, 1, constant_values=90) for mask in masks[:SEEN]]
    tiles += [np.zeros_like(tiles[0] if tiles else np.zeros((130, 130), np.uint8))] * (SEEN - len(tiles))
    return np.concatenate(tiles, axis=1)


def main() -> None:
    """Measure every row on every defect of the shipped library."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--candidates", type=int, default=32)
    given = parser.parse_args()
    torch.set_num_threads(1)
    given.out.mkdir(parents=True, exist_ok=True)
    backbone, entries = load_backbone("demo"), load_library(demo_library_path()).defects.values()
    found = {}
    for changed in ROWS:
        settings = MaskSampling(**changed)
        name = f"{settings.denoise:g}, {settings.steps}, {settings.guidance:g}"
        found[name] = {
            entry.name: measure(
                backbone, entry, settings, given.candidates,
                given.out / f"{entry.name.replace('/', '-')}, {name}.png",
            )
            for entry in entries
        }  # fmt: skip
        (given.out / "masks.json").write_text(json.dumps(found, indent=1))
    shots = next(iter(found.values()))
    told = [f"{name} ({of['shots']['area']:.3f}; {of['shots']['solidity']:.2f})" for name, of in shots.items()]
    print(f"Of {given.candidates}: kept, empty; area; solidity; novelty. Of the shots: (area; solidity).\n")
    print(f"| denoise, steps, guidance | {' | '.join(told)} | CPU s a mask |\n|---|{'---|' * len(told)}---:|")
    for name, of_row in found.items():
        cells = [
            f"{of['kept']}, {of['empty']}; " + ("" if not of["kept"] else
            f"{of['area']:.3f}; {of['solidity']:.2f}; {of['novelty']:.2f}") for of in of_row.values()
        ]  # fmt: skip
        kept = sum(of["kept"] for of in of_row.values())
        seconds = sum(of["cpu_s"] for of in of_row.values())
        print(f"| {name} | {' | '.join(cells)} | {seconds / kept if kept else float('nan'):.2f} |")


if __name__ == "__main__":
    main()
