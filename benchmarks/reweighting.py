"""What re-weighting does for the withheld defects of the demo model: every mode beside `off` and its control `uniform`.

    python -m benchmarks.reweighting --out FOLDER [--seeds 3] [--masks 8] [--modes off uniform balanced ...]

For each seed: e_a learned from other shots, other masks, other normals, other noise. fill: share of mask pixels changed
by more than 10 levels. gap: distance of the mean look (mean and spread of the change, per channel, levels) of the
generated defects to 24 unseen real ones. Within a seed all modes share everything but the weights, so the differences
to `off` are paired. Prints a Markdown table and writes reweighting.json.
"""

from __future__ import annotations

import argparse
import json
import statistics
from dataclasses import replace
from pathlib import Path

import numpy as np

from adiff.backbone import demo_encoder_path, load_backbone
from adiff.backbone.precision import AUTO
from adiff.datasets.images import Photo
from adiff.datasets.surfaces import WITHHELD, render, sample_seed
from adiff.generation import GenerationSettings, make_pairs
from adiff.generation.seeds import generator_for
from adiff.reweighting import MODES
from adiff.spatial_encoder import load_encoder
from adiff.training import AnomalySettings, train_anomalies
from tools.demo_model.gates import look

SHOTS, REAL, SIZE = 5, 24, 128
STEPS = 200


def draw(key: tuple[str, str], seed: int, split: str, count: int) -> list:
    """Draw surfaces of a combination with the same surfaces in a normal state: [(with, without)]."""

    def one(defect: str | None, index: int):
        return render(key[0], defect, SIZE, sample_seed(seed, *key, split, index))

    return [(one(key[1], i), one(None, i)) for i in range(count)]


def measure(backbone, encoder, seed: int, modes: list[str], count: int) -> list[dict]:
    """Return one row for each combination and mode."""
    shots = {key: [(b.image, b.mask) for b, _ in draw(key, seed, "shots", SHOTS)] for key in WITHHELD}
    settings = AnomalySettings(steps=STEPS, batch=12, early_stop=False)
    learned = train_anomalies(backbone, shots, encoder, freeze_encoder=True, settings=settings, seed=seed)
    rows = []
    for key in WITHHELD:
        masks = [bad.mask for bad, _ in draw(key, seed, "masks", count)]
        normals = [good.image for _, good in draw(key, seed, "normals", count)]
        real = np.mean([look(b.image, g.image, b.mask) for b, g in draw(key, seed, "real", REAL)], axis=0)
        photos = [Photo(image, Path(f"normal-{i}")) for i, image in enumerate(normals)]
        for mode in modes:
            chosen = replace(GenerationSettings(), reweighting=mode)
            generators = [generator_for(seed, "pair", i) for i in range(count)]
            pairs = make_pairs(backbone, photos, masks, learned.embeddings[key], encoder, chosen, generators)
            looks = [look(p.image, n, m) for p, n, m in zip(pairs, normals, masks, strict=True)]
            fill = statistics.mean(p.measures["fill"] for p in pairs)
            gap = float(np.abs(np.mean(looks, axis=0) - real).mean())
            rows.append({"seed": seed, "defect": "/".join(key), "mode": mode, "fill": fill, "gap": gap})
    return rows


def table(rows: list[dict], modes: list[str]) -> str:
    """Return means over seeds with their standard deviation, a line for each combination and mode."""
    lines = ["| defect | mode | fill | gap | fill minus off |", "|---|---|---|---|---|"]
    for defect in dict.fromkeys(r["defect"] for r in rows):
        off = {r["seed"]: r["fill"] for r in rows if r["defect"] == defect and r["mode"] == "off"}
        for mode in modes:
            of_mode = [r for r in rows if (r["defect"], r["mode"]) == (defect, mode)]
            gains = [r["fill"] - off[r["seed"]] for r in of_mode if r["seed"] in off]
            cells = [_spread([r["fill"] for r in of_mode]), _spread([r["gap"] for r in of_mode], 1), _spread(gains)]
            lines.append(f"| {defect} | {mode} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _spread(values: list[float], digits: int = 2) -> str:
    if not values:
        return "-"
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{statistics.mean(values):.{digits}f} ± {deviation:.{digits}f}"


def main() -> None:
    """Measure every seed."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--out", type=Path, required=True)
    options.add_argument("--seeds", type=int, default=3)
    options.add_argument("--masks", type=int, default=8)
    options.add_argument("--modes", nargs="+", choices=MODES, default=list(MODES))
    chosen = options.parse_args()
    chosen.out.mkdir(parents=True, exist_ok=True)
    backbone, (encoder, _) = load_backbone("demo", precision=AUTO), load_encoder(demo_encoder_path())
    rows: list[dict] = []
    for seed in range(chosen.seeds):
        rows += measure(backbone, encoder, seed, chosen.modes, chosen.masks)
        (chosen.out / "reweighting.json").write_text(json.dumps(rows, indent=1))
    print(table(rows, chosen.modes))


if __name__ == "__main__":
    main()
