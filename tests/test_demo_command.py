"""`adiff demo` from end to end, as a newcomer types it, with fewer pairs."""

import json
import statistics
import subprocess
import sys

import numpy as np
import pytest

from adiff.datasets.images import read_mask, read_photo
from adiff.datasets.readers import read_dataset
from adiff.library import load_library
from adiff.run_record import read_records

DEFECTS = (("metal", "scratch"), ("tile", "stain"), ("wood", "hole"))


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    out = tmp_path_factory.mktemp("demo") / "out"
    subprocess.run([sys.executable, "-m", "adiff", "demo", "--out", str(out), "--pairs", "6"], check=True)
    return out


def test_it_leaves_what_it_promises(demo):
    there = {p.name for p in demo.iterdir() if not p.name.startswith(".")}
    promised = {"data", "library.safetensors", "encoder.safetensors", "runs", "dataset", "contact_sheet.png",
                "report.html", "report.json"}  # fmt: skip
    assert promised <= there
    assert {p.name for p in (demo / "runs").iterdir()} == {f"{p}-{d}" for p, d in DEFECTS}
    report = json.loads((demo / "report.json").read_text())
    assert len(report["pairs"]) == 6
    assert set(load_library(demo / "library.safetensors").defects) == set(DEFECTS)


def test_pairs_are_aligned_with_their_masks(demo):
    for product, defect in DEFECTS:
        run = demo / "runs" / f"{product}-{defect}"
        for record in read_records(run):
            normal = read_photo(demo / "data" / product / "train" / "good" / record["normal"]).rgb
            image = read_photo(run / "image" / f"{record['id']}.png").rgb
            mask = read_mask(run / "mask" / f"{record['id']}_mask.png").mask
            assert np.array_equal(image[~mask], normal[~mask])
            assert record["leak"] == 0


def test_defects_are_there_and_masks_are_no_copies(demo):
    pairs = json.loads((demo / "report.json").read_text())["pairs"]
    assert statistics.median(p["fill"] for p in pairs) > 0.3
    assert statistics.median(p["mask"]["iou"] for p in pairs) < 0.9


def test_the_data_set_can_be_read_back(demo):
    shots = read_dataset(demo / "dataset").shots
    assert {key: len(of_defect) for key, of_defect in shots.items()} == dict.fromkeys(DEFECTS, 2)
