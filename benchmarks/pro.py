"""Time and memory of the pixel metrics: AUROC, AP, F1-max and PRO, exact over all thresholds.

    python -m benchmarks.pro [--images 500] [--size 512] [--regions 3] [--levels 0] [--out FILE.json]

Draws float32 scores with round defects in half of the images (--levels rounds the scores, which makes ties) and prints
a Markdown table: seconds, seconds of a core (they differ on a machine that does other work), and the process's largest
resident memory beyond what it was before there were scores, as a multiple of them: scores, masks and all. Where
anomalib is installed, its AUPRO is measured on the same arrays: how far apart the values are, and how far with the same
curve summed up in float64, as it does all in float32.
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch

from adiff.evaluation.metrics import FPR_LIMIT, pixel_metrics, pro

MIB = 2**20


def draw(images: int, size: int, regions: int, levels: int) -> tuple[np.ndarray, np.ndarray]:
    """Scores (n, size, size) float32, masks alike bool: discs of size/12 to size/6 across with higher scores."""
    rng = np.random.default_rng(0)
    scores, masks = np.empty((images, size, size), np.float32), np.zeros((images, size, size), bool)
    rows, columns = np.ogrid[:size, :size]
    for one in scores:
        one[:] = rng.standard_normal((size, size), np.float32)
    for one, mask in zip(scores[: images // 2], masks, strict=False):
        for y, x, radius in zip(*rng.uniform(0, size, (2, regions)), rng.uniform(size / 24, size / 12, regions),
                                strict=True):  # fmt: skip
            mask |= (rows - y) ** 2 + (columns - x) ** 2 < radius**2
        one[mask] += 1.5
    if levels:
        np.multiply(scores, levels / 8, out=scores)
        np.round(scores, out=scores)
    return scores, masks


def anomalib_metric(scores: np.ndarray, masks: np.ndarray):
    """anomalib's AUPRO up to FPR_LIMIT over these arrays, not computed yet; it keeps its curve."""
    from anomalib.metrics.aupro import _AUPRO  # AUPRO is this one, fed from the fields of a batch

    class Kept(_AUPRO):
        def _compute(self):
            self.curve = super()._compute()
            return self.curve

    metric = Kept(fpr_limit=FPR_LIMIT)
    metric.update(torch.from_numpy(scores), torch.from_numpy(masks))
    return metric


def peak() -> int:
    """Largest resident memory of this process so far, bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main() -> None:
    """Measure our entry points, the smaller first, then the reference: the memory's maximum only rises."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("images", 500), ("size", 512), ("regions", 3), ("levels", 0)):
        options.add_argument(f"--{name}", type=int, default=default)
    options.add_argument("--out", type=Path)
    chosen = options.parse_args()
    before = peak()
    scores, masks = draw(chosen.images, chosen.size, chosen.regions, chosen.levels)
    about = f"{scores.nbytes / MIB:.0f} MiB of scores, {masks.mean():.1%} anomalous"
    print(f"{chosen.images} images of {chosen.size} px, {about}\n")
    print("| what | seconds | of a core | memory / scores | value |\n|---|---|---|---|---|")

    def row(name: str, measure: Callable) -> dict:
        began, began_core = time.perf_counter(), time.process_time()
        value = measure()
        seconds, core = time.perf_counter() - began, time.process_time() - began_core
        memory = (peak() - before) / scores.nbytes
        print(f"| {name} | {seconds:.1f} | {core:.1f} | {memory:.2f} | {value} |", flush=True)
        return {"what": name, "seconds": seconds, "core_seconds": core, "memory": memory, "value": value}

    rows = [row("pro", lambda: pro(scores, masks)), row("pixel_metrics", lambda: pixel_metrics(scores, masks))]
    if find_spec("anomalib"):
        metric = anomalib_metric(scores, masks)
        rows.append(row("anomalib AUPRO", lambda: float(metric.compute())))
        rates, overlaps = (points.double().numpy() for points in metric.curve)
        rows[-1]["value_in_float64"] = float(np.trapezoid(overlaps, rates) / rates[-1])
        apart = [abs(rows[-1][key] - rows[0]["value"]) for key in ("value", "value_in_float64")]
        share = rows[0]["core_seconds"] / rows[-1]["core_seconds"]
        print(f"\napart: {apart[0]:.1e}, its curve in float64 {apart[1]:.1e}; pro takes {share:.3f} of its time")
    else:
        print("\nanomalib is not installed: its AUPRO is left out")
    if chosen.out is not None:
        chosen.out.write_text(json.dumps({**vars(chosen), "out": str(chosen.out), "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
