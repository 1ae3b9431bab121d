"""`adiff import`: annotated photos in, a data set to train from out."""

import json

import numpy as np
import pytest

from adiff.annotations import dataset
from adiff.datasets.images import write_png


@pytest.fixture
def photos(tmp_path):
    """Two photos marked with labelme, one without a mark."""
    folder = tmp_path / "photos"
    for number in range(3):
        write_png(folder / f"{number}.png", np.random.default_rng(number).integers(0, 256, (64, 64, 3), np.uint8))
    shape = {"label": "dent", "shape_type": "polygon", "points": [[20, 20], [40, 20], [40, 40], [20, 40]]}
    for number in range(2):
        (folder / f"{number}.json").write_text(json.dumps({"imagePath": f"{number}.png", "shapes": [shape]}))
    return folder


def test_what_is_imported_teaches(run, photos, tmp_path, tiny):
    out = tmp_path / "sets"
    result = run("import", photos, "--out", out)
    assert result.exit_code == 0, result.stderr
    assert result.stdout.startswith(f"2 photos of dent, 1 without marks as normal in {out}; `adiff train {out} --out")
    learned = run("train", out, "--shots", 2, "--what", "defects", "--steps", 2, "--out", tmp_path / "lib.safetensors")
    assert learned.exit_code == 0, learned.stderr


def test_stopped_it_says_what_is_kept(run, photos, tmp_path, monkeypatch, listing):
    out, write = tmp_path / "sets", dataset.write_png

    def stop(path, array):
        if path.stem == "1_mask":
            raise KeyboardInterrupt
        write(path, array)

    monkeypatch.setattr(dataset, "write_png", stop)
    result = run("import", photos, "--out", out)
    assert result.exit_code == 130 and "the same command completes it" in result.stderr
    monkeypatch.undo()
    assert run("import", photos, "--out", out).exit_code == 0
    assert run("import", photos, "--out", tmp_path / "whole").exit_code == 0
    assert listing(out) == listing(tmp_path / "whole")


def test_stopped_before_anything_is_written_it_says_so(run, photos, tmp_path, monkeypatch):
    def stop(source):
        raise KeyboardInterrupt

    monkeypatch.setattr(dataset, "_size_of", stop)
    result = run("import", photos, "--out", tmp_path / "sets")
    assert result.exit_code == 130 and result.stderr.endswith("stopped: nothing was written\n")
    assert not (tmp_path / "sets").exists()


def test_bad_input(refused, photos, tmp_path):
    assert "lies in" in refused("import", photos, "--out", photos / "sets")
    assert "does not exist; expected COCO" in refused("import", tmp_path / "gone.json", "--out", tmp_path / "sets")
    for data in (photos, photos / "0.json"):
        assert "`adiff import` makes a data set" in refused("train", data, "--out", tmp_path / "lib.safetensors")
    assert not (tmp_path / "sets").exists()
