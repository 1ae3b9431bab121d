"""Whether `--severity` does what it says: fill against severity for the withheld defects of the demo model.

    python -m benchmarks.severity --out FOLDER [--seeds 2] [--masks 12]

For each seed and withheld combination e_a is learned from 5 shots, then painted at every severity into the same normal
images, in the same masks, from the same noise. Prints a Markdown table of the mean fill with its standard deviation
over pairs, says whether the means rise with the severity, and writes severity.json with the fill of every pair.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

from adiff.backbone import demo_encoder_path, load_backbone
from adiff.backbone.precision import AUTO
from adiff.datasets.images import Photo
from adiff.datasets.surfaces import WITHHELD
from adiff.generation import GenerationSettings, make_pairs
from adiff.generation.seeds import generator_for
from adiff.spatial_encoder import load_encoder
from adiff.training import AnomalySettings, train_anomalies

from .reweighting import SHOTS, STEPS, draw

SEVERITIES = (0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0)
ALL = "all"
"""Row of the table over all combinations."""


def measure(backbone, encoder, seed: int, count: int) -> Iterator[dict]:
    """Give one row for each combination and severity: the fill of each pair."""
    shots = {key: [(bad.image, bad.mask) for bad, _ in draw(key, seed, "shots", SHOTS)] for key in WITHHELD}
    settings = AnomalySettings(steps=STEPS, batch=12, early_stop=False)
    learned = train_anomalies(backbone, shots, encoder, freeze_encoder=True, settings=settings, seed=seed)
    for key in WITHHELD:
        masks = [bad.mask for bad, _ in draw(key, seed, "masks", count)]
        normals = [good.image for _, good in draw(key, seed, "normals", count)]
        photos = [Photo(image, Path(f"normal-{i}")) for i, image in enumerate(normals)]
        for severity in SEVERITIES:
            chosen = replace(GenerationSettings(), severity=severity)
            generators = [generator_for(seed, "pair", i) for i in range(count)]
            pairs = make_pairs(backbone, photos, masks, learned.embeddings[key], encoder, chosen, generators)
            fills = [pair.measures["fill"] for pair in pairs]
            yield {"seed": seed, "defect": "/".join(key), "severity": severity, "fill": fills}


def fills_of(rows: list[dict], defect: str, severity: float) -> list[float]:
    """Return the fill of every pair of a defect, or of all of them, at one severity."""
    of_row = [r["fill"] for r in rows if r["severity"] == severity and defect in (r["defect"], ALL)]
    return [fill for fills in of_row for fill in fills]


def rises(rows: list[dict], defect: str) -> bool:
    """Whether the mean fill grows from each severity to the next, or stays."""
    means = [statistics.mean(fills_of(rows, defect, severity)) for severity in SEVERITIES]
    return all(lower <= higher for lower, higher in pairwise(means))


def table(rows: list[dict]) -> str:
    """Return mean and standard deviation over pairs, a line for each combination and one for all."""
    lines = [f"| defect | {' | '.join(f'{s:g}' for s in SEVERITIES)} | rises |", "|---" * (len(SEVERITIES) + 2) + "|"]
    for defect in (*dict.fromkeys(r["defect"] for r in rows), ALL):
        fills = [fills_of(rows, defect, severity) for severity in SEVERITIES]
        cells = [f"{statistics.mean(of_one):.2f} ± {statistics.stdev(of_one):.2f}" for of_one in fills]
        lines.append(f"| {defect} | {' | '.join(cells)} | {'yes' if rises(rows, defect) else 'no'} |")
    return "\n".join(lines)


def main() -> None:
    """Measure every seed."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--out", type=Path, required=True)
    options.add_argument("--seeds", type=int, default=2)
    options.add_argument("--masks", type=int, default=12)
    chosen = options.parse_args()
    chosen.out.mkdir(parents=True, exist_ok=True)
    backbone, (encoder, _) = load_backbone("demo", precision=AUTO), load_encoder(demo_encoder_path())
    rows: list[dict] = []
    for seed in range(chosen.seeds):
        for row in measure(backbone, encoder, seed, chosen.masks):
            rows.append(row)
            (chosen.out / "severity.json").write_text(json.dumps(rows, indent=1))
    print(table(rows))


if __name__ == "__main__":
    main()
