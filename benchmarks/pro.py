"""Time and memory of the pixel metrics: AUROC, AP, F1-max and PRO, exact over all thresholds.

    python -m benchmarks.pro [--images 500] [--size 512] [--regions 3] [--levels 0] [--out FILE.json]

Draws float32 scores with round defects in half of the images (--levels rounds the scores, which makes ties) and prints
a Markdown table: seconds, seconds of a core (they differ on a machine that does other work), and the process's largest
resident memory beyond what it was before there were scores, as a multiple of them: scores, masks and all.
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from pathlib import Path

import numpy as np

from adiff.evaluation.metrics import pixel_metrics, pro

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


def peak() -> int:
    """Largest resident memory of this process so far, bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main() -> None:
    """Measure both entry points, the smaller first: the memory's maximum only rises."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("images", 500), ("size", 512), ("regions", 3), ("levels", 0)):
        options.add_argument(f"--{name}", type=int, default=default)
    options.add_argument("--out", type=Path)
    chosen = options.parse_args()
    before = peak()
    scores, masks = draw(chosen.images, chosen.size, chosen.regions, chosen.levels)
    rows = []
    about = f"{scores.nbytes / MIB:.0f} MiB of scores, {masks.mean():.1%} anomalous"
    print(f"{chosen.images} images of {chosen.size} px, {about}\n")
    print("| what | seconds | of a core | memory / scores | value |\n|---|---|---|---|---|")
    for name, measure in (("pro", pro), ("pixel_metrics", pixel_metrics)):
        began, began_core = time.perf_counter(), time.process_time()
        value = measure(scores, masks)
        seconds, core = time.perf_counter() - began, time.process_time() - began_core
        memory = (peak() - before) / scores.nbytes
        rows.append({"what": name, "seconds": seconds, "core_seconds": core, "memory": memory, "value": value})
        print(f"| {name} | {seconds:.1f} | {core:.1f} | {memory:.2f} | {value} |")
    if chosen.out is not None:
        chosen.out.write_text(json.dumps({**vars(chosen), "out": str(chosen.out), "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
