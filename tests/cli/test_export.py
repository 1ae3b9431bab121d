"""`adiff export`: options, what it says, and bad input in one line."""

import json

import numpy as np
import pytest

from adiff.cli.export import Format
from adiff.datasets.images import write_png
from adiff.export import FORMATS
from adiff.export import runs as export_runs
from adiff.storage import write_json


def write_run(folder, product="metal"):
    plan = {"format": 1, "product": product, "defect": "rust", "count": 5, "seed": 0}
    write_json(folder / "run.json", plan)
    for number in range(5):
        name, mask = f"{number:06d}", np.zeros((8, 10), bool)
        mask[2:4, 3:6] = True
        write_png(folder / "image" / f"{name}.png", np.full((8, 10, 3), 100, np.uint8))
        write_png(folder / "mask" / f"{name}_mask.png", mask)
        write_json(folder / "pairs" / f"{name}.json", {"id": name, "product": product, "defect": "rust"})
    return folder


def test_the_formats_are_the_library_s():
    assert [one.value for one in Format] == list(FORMATS)


def test_a_run_becomes_a_data_set(run, tmp_path):
    folder, out = write_run(tmp_path / "run"), tmp_path / "out"
    write_png(tmp_path / "good" / "0.png", np.full((8, 10, 3), 100, np.uint8))
    result = run("export", folder, "--format", "coco", "--validation", "0.2", "--polygons", "--out", out,
                 "--normals", tmp_path / "good")  # fmt: skip
    assert result.exit_code == 0
    assert result.stdout.startswith("5 pairs (4 train, 1 val) of metal/rust and 1 normal image in ")
    content = json.loads((out / "annotations" / "instances_val.json").read_text())
    (only,) = content["annotations"]
    assert only["bbox"] == [3, 2, 3, 2] and isinstance(only["segmentation"], list)


def test_a_run_that_has_grown_extends_its_data_set(run, refused, tmp_path):
    folder, out = write_run(tmp_path / "run"), tmp_path / "out"
    (folder / "pairs" / "000004.json").rename(tmp_path / "later.json")
    assert run("export", folder, "--format", "yolo", "--out", out).exit_code == 0
    (tmp_path / "later.json").rename(folder / "pairs" / "000004.json")
    assert "differs in pairs" in refused("export", folder, "--format", "yolo", "--out", out)
    told = run("export", folder, "--format", "yolo", "--out", out, "--extend").stdout
    assert told.startswith("5 pairs of metal/rust in") and "in data.yaml, val are the training images" in told
    assert len(list((out / "images" / "train").iterdir())) == 5


@pytest.mark.parametrize("where, told", [
    ("read_photo", "nothing was written"),  # of a normal image, while they are checked
    ("_pictures", "out is not complete; the same command completes it"),
])  # fmt: skip
def test_stopped_it_says_what_is_left(run, tmp_path, monkeypatch, where, told):
    def stop(*_):
        raise KeyboardInterrupt

    folder = write_run(tmp_path / "run")
    write_png(tmp_path / "good" / "0.png", np.full((8, 10, 3), 100, np.uint8))
    monkeypatch.setattr(export_runs, where, stop)
    result = run("export", folder, "--normals", tmp_path / "good", "--out", tmp_path / "out")
    assert result.exit_code == 130 and result.stderr.endswith(f"{told}\n")
    assert (tmp_path / "out").exists() == ("not complete" in told)


def test_bad_input_is_one_line(refused, tmp_path):
    folder, out = write_run(tmp_path / "run"), tmp_path / "out"
    assert "there is no run at" in refused("export", tmp_path / "none", "--out", out)
    assert "holds no run.json" in refused("export", tmp_path, "--out", out)
    assert "csv" in refused("export", folder, "--format", "csv", "--out", out)
    assert "lies in" in refused("export", folder, "--out", folder / "out")
    assert "--seed does nothing without --validation" in refused("export", folder, "--seed", 3, "--out", out)
    assert "mvtec holds always pixels" in refused("export", folder, "--polygons", "--out", out)
    write_png(tmp_path / "good" / "0.png", np.full((8, 10, 3), 100, np.uint8))
    both = folder, write_run(tmp_path / "other", "wood")
    assert "the runs show metal, wood" in refused("export", *both, "--out", out, "--normals", tmp_path / "good")
    assert not out.exists()
