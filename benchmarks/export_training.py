"""Trainings on exports: every block of docs/detectors.md, run as a reader would run it.

    python -m benchmarks.export_training [--only HEADING] [--pairs 24] [--size 128] [--out FILE.json]

Draws two runs and normal images, then runs the page's blocks, one process each: the first one exports, the others
train. What would be downloaded, or take long, is something else (REPLACED). Prints a Markdown table: what ran, for how
long, and the error if it failed. Install what the page names before.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from adiff.datasets.images import write_png
from adiff.datasets.surfaces import render
from adiff.storage import write_json

from .export_readers import draw_run

PAGE = Path(__file__).parents[1] / "docs" / "detectors.md"
PRODUCT, DEFECTS, NORMALS = "metal", ("scratch", "dent"), 16
BLOCK = re.compile(r"^## (?P<heading>[^\n]+)$|^```(?P<language>sh|python)\n(?P<code>.*?)^```$", re.M | re.S)
NO_WEIGHTS = "timm.create_model = lambda *a, _make=timm.create_model, **k: _make(*a, **{**k, 'pretrained': False})"
REPLACED = {
    "adiff export": f"{sys.executable} -m adiff export",
    ".pt epochs=100 imgsz=640": ".yaml epochs=1 imgsz=64 workers=0",
    'weights_backbone="DEFAULT"': "weights_backbone=None, min_size=96, max_size=96",
    "import DetrForObjectDetection": "import DetrConfig, DetrForObjectDetection",
    'Processor.from_pretrained("facebook/detr-resnet-50")': "Processor(size={'height': 96, 'width': 96})",
    'DetrForObjectDetection.from_pretrained("facebook/detr-resnet-50", id2label=names, ignore_mismatched_sizes=True)':
        "DetrForObjectDetection(DetrConfig(id2label=names, use_pretrained_backbone=False))",
    'encoder_weights="imagenet"': "encoder_weights=None",
    "from anomalib.data": f"import timm\n{NO_WEIGHTS}\nfrom anomalib.data",
    "supervised=True": "supervised=True, backbone='resnet18.tv_in1k'",
    "max_epochs=100": "max_epochs=1",
    'category="metal"': 'category="metal", num_workers=0',
}  # fmt: skip
"""What of the page's code is something else here: weights, sizes and epochs."""


def blocks_of(page: str) -> Iterator[tuple[str, str, str]]:
    """(heading, language, code) of each block of a page, with what is REPLACED; all of REPLACED has to be there."""
    if lost := [old for old in REPLACED if old not in page]:
        raise ValueError(f"{PAGE.name} has no {lost[0]!r} any more")
    heading = ""
    for found in BLOCK.finditer(page):
        code = found["code"]
        heading = found["heading"] or heading
        if code and "benchmarks" not in code:
            for old, new in REPLACED.items():
                code = code.replace(old, new)
            yield heading or "the exports", found["language"], code


def run(language: str, code: str, place: Path) -> str:
    """Run a block in a folder; the last line of its error, "" if there was none."""
    paths = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    own = dict.fromkeys(("HF_HOME", "TORCH_HOME", "YOLO_CONFIG_DIR"), str(place / "home"))
    command = ["bash", "-ec", code] if language == "sh" else [sys.executable, "-c", code]
    python = os.pathsep.join([str(PAGE.parents[1]), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, **own, "PATH": paths, "PYTHONPATH": python, "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, cwd=place, env=environment, capture_output=True, text=True, errors="replace")
    lines = (done.stderr or done.stdout).strip().splitlines()
    return "" if done.returncode == 0 else lines[-1] if lines else f"exit code {done.returncode}"


def main() -> None:
    """Draw, run, print."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--only", default="", help="a part of a heading")
    options.add_argument("--pairs", type=int, default=24, help="of each defect")
    options.add_argument("--size", type=int, default=128)
    options.add_argument("--out", type=Path)
    chosen = options.parse_args()
    rows = []
    print("| block | seconds | error |")
    print("|---|---|---|")
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        (place / "home").mkdir()
        for defect in DEFECTS:
            draw_run(place / "runs" / defect, PRODUCT, (defect,), chosen.pairs, chosen.size)
        for number in range(NORMALS):
            image = render(PRODUCT, None, chosen.size, np.random.default_rng(number)).image
            write_png(place / "good" / f"{number}.png", image)
        for heading, language, code in blocks_of(PAGE.read_text(encoding="utf-8")):
            if heading != "the exports" and chosen.only.lower() not in heading.lower():
                continue
            start = time.perf_counter()
            error = run(language, code, place)
            rows.append({"block": heading, "seconds": time.perf_counter() - start, "error": error})
            print(f"| {heading} | {rows[-1]['seconds']:.0f} | {error} |", flush=True)
    if chosen.out is not None:
        write_json(chosen.out, {"pairs": chosen.pairs, "size": chosen.size, "rows": rows})


if __name__ == "__main__":
    main()
