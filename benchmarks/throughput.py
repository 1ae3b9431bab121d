"""Where the time of `adiff generate` goes, and what a second process adds.

    python -m benchmarks.throughput --out FOLDER [--pairs 200] [--guidance 1] [--rounds 2]

| part | what | aim |
|---|---|---|
| share | of the run's wall time, what is spent inside the U-Net and the VAE | 0.9 |
| memory | largest resident memory after the first fifth of the pairs and at the end | flat |
| processes | pairs a second of two processes on one run to one process, one thread each | 1.6 |

The demo model and its shipped library, masks sampled as the run goes, files written as always. Each run is in processes
of its own, of one thread each; the rounds alternate. `processes` needs two cores that nothing else uses. Prints a table
and writes throughput.json.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

from adiff.datasets.images import write_png
from adiff.datasets.surfaces import render, sample_seed

from .engine import parts_timed

KEY = ("metal", "scratch")
NORMALS, SIZE = 20, 128
FIRST = 0.2
"""Share of the pairs after which memory should grow no more."""


def draw_normals(folder: Path) -> Path:
    """Draw the normal images of all runs."""
    for i in range(NORMALS):
        write_png(folder / f"{i}.png", render(KEY[0], None, SIZE, sample_seed(0, *KEY, "normal", i)).image)
    return folder


def one_run(normals: Path, out: Path, pairs: int, guidance: float) -> dict[str, float]:
    """Make a run in this process, on one thread; seconds in all and inside the model, memory on the way, in MiB."""
    import torch

    from adiff.backbone import demo_encoder_path, demo_library_path, load_backbone
    from adiff.backbone.precision import AUTO
    from adiff.datasets.readers import list_images
    from adiff.generation import GenerationSettings, LearnedMasks, generate_run
    from adiff.library import load_library
    from adiff.masks import MaskRules
    from adiff.progress import NullProgress
    from adiff.spatial_encoder import load_encoder

    torch.set_num_threads(1)
    backbone, (encoder, _) = load_backbone(precision=AUTO), load_encoder(demo_encoder_path())
    library = load_library(demo_library_path())
    entry = library.get("/".join(KEY))
    shots = list(entry.shot_masks)
    told = _Memory(NullProgress(), round(FIRST * pairs))
    began = time.perf_counter()
    with parts_timed(backbone) as inside:
        generate_run(
            backbone, library, KEY, encoder, list_images(normals),
            LearnedMasks(entry.mask, MaskRules.from_shots(shots), shots), count=pairs, out=out,
            settings=GenerationSettings(guidance=guidance), progress=told,
        )  # fmt: skip
    wall = time.perf_counter() - began
    return {"wall": wall, "inside": sum(inside.values()), "early": told.early, "end": _resident()}


class _Memory:
    """Notes the resident memory after so many pairs."""

    def __init__(self, inner, after: int):
        self.inner, self.after, self.early = inner, after, 0.0

    def update(self, done: int, **more) -> None:
        if done >= self.after and not self.early:
            self.early = _resident()

    def __getattr__(self, name: str):
        return getattr(self.inner, name)


def _resident() -> float:
    """Largest resident memory so far, MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def together(normals: Path, out: Path, pairs: int, guidance: float, processes: int) -> dict[str, float]:
    """What processes of one thread each need for one run: the longest of their times, the rest of the first."""
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        began = [pool.submit(one_run, normals, out, pairs, guidance) for _ in range(processes)]
        told = [one.result() for one in began]
    return {**told[0], "wall": max(one["wall"] for one in told)}


def main() -> None:
    """Measure in rounds that alternate, and tell the medians."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--out", type=Path, required=True)
    options.add_argument("--pairs", type=int, default=200)
    options.add_argument("--guidance", type=float, default=1.0)
    options.add_argument("--rounds", type=int, default=2)
    options.add_argument("--processes", type=int, nargs="+", default=[1, 2])
    chosen = options.parse_args()
    chosen.out.mkdir(parents=True, exist_ok=True)
    found: dict[int, list[dict[str, float]]] = {count: [] for count in chosen.processes}
    with tempfile.TemporaryDirectory() as place:
        normals = draw_normals(Path(place) / "good")
        for number in range(chosen.rounds):
            for count, rows in found.items():
                rows.append(together(normals, Path(place) / f"{number}-{count}", chosen.pairs, chosen.guidance, count))
    (chosen.out / "throughput.json").write_text(json.dumps({"asked": vars(chosen), "found": found}, default=str))
    print(f"| processes | pairs/s | inside the model | memory after {FIRST:.0%}, MiB | at the end |\n{'|---' * 5}|")
    for count, rows in found.items():
        rate, share = ([f(row) for row in rows] for f in (lambda row: chosen.pairs / row["wall"],
                                                          lambda row: row["inside"] / row["wall"]))  # fmt: skip
        first, last = (statistics.median(row[name] for row in rows) for name in ("early", "end"))
        print(f"| {count} | {statistics.median(rate):.2f} ({min(rate):.2f} - {max(rate):.2f}) "
              f"| {statistics.median(share):.1%} | {first:.0f} | {last:.0f} |")  # fmt: skip


if __name__ == "__main__":
    main()
