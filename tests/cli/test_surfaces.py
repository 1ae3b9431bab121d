"""`adiff surfaces` writes a set in MVTec's layout, the same one every time, and no folder of somebody else's."""

import json

import numpy as np
import pytest
from PIL import Image

from adiff.cli import surfaces
from adiff.datasets.readers import list_images, read_dataset
from adiff.errors import InputError

SMALL = ("--images", "2", "--size", "48")


def test_the_layout(run, tmp_path):
    out = tmp_path / "set"
    result = run("surfaces", "--out", out, "--product", "gasket", "--product", "wood", *SMALL)
    assert result.exit_code == 0, result.stderr
    assert result.stdout == f"30 images of gasket, wood in {out}\n"
    for product in ("gasket", "wood"):
        for folder, count in (("train/good", 2), ("test/good", 1), ("test/hole", 2), ("ground_truth/hole", 2)):
            assert len(list((out / product / folder).iterdir())) == count
    dataset = read_dataset(out)
    assert len(dataset.shots) == 12 and {len(shots) for shots in dataset.shots.values()} == {2}
    assert {name: len(files) for name, files in dataset.normals.items()} == {"gasket": 2, "wood": 2}


def test_the_object_comes_with_its_foreground_and_masks_lie_on_it(run, tmp_path):
    run("surfaces", "--out", tmp_path / "set", "--product", "gasket", *SMALL)
    gasket = tmp_path / "set" / "gasket"
    assert len(list(gasket.glob("foreground/*/*.png"))) == 15
    for path in gasket.glob("ground_truth/*/*_mask.png"):
        mask = np.asarray(Image.open(path)) > 0
        name = f"test_{path.parent.name}/{path.name.replace('_mask', '')}"
        foreground = np.asarray(Image.open(gasket / "foreground" / name))
        assert mask.any() and (foreground[mask] == 255).all() and set(np.unique(foreground)) == {0, 255}
    assert not (tmp_path / "set" / "wood").exists()


def test_the_records(run, tmp_path):
    run("surfaces", "--out", tmp_path / "set", "--product", "wood", "--seed", "3", *SMALL)
    record = json.loads((tmp_path / "set" / "surfaces.json").read_text())
    assert record["licence"] == "CC0-1.0" and (record["seed"], record["size"], record["images"]) == (3, 48, 2)
    captions = json.loads((tmp_path / "set" / "captions.json").read_text())
    vocabulary, words = captions["vocabulary"], captions["captions"]
    images = [p.relative_to(tmp_path / "set") for p in (tmp_path / "set").glob("wood/t*/*/*.png")]
    assert set(words) == {path.as_posix() for path in images} and len(images) == 15
    assert words["wood/test/crack/001.png"][0] == "wood" and "crack" in words["wood/test/crack/001.png"]
    assert {word for caption in words.values() for word in caption} <= set(vocabulary)


def test_again_is_the_same_and_completes(run, tmp_path, listing):
    arguments = ("surfaces", "--out", tmp_path / "set", "--product", "tile", *SMALL)
    run(*arguments)
    first = listing(tmp_path / "set")
    (tmp_path / "set/tile/test/hole/000.png").unlink()
    (tmp_path / "set/captions.json").unlink()
    assert run(*arguments).exit_code == 0
    assert listing(tmp_path / "set") == first
    run("surfaces", "--out", tmp_path / "other", "--product", "tile", "--seed", "1", *SMALL)
    assert listing(tmp_path / "other")["tile/train/good/000.png"] != first["tile/train/good/000.png"]


def test_stopped_halfway_it_is_no_data_set_until_it_is_complete(run, tmp_path, monkeypatch):
    arguments = ("surfaces", "--out", tmp_path / "set", "--product", "tile", *SMALL)
    drawn = iter(range(20))
    with monkeypatch.context() as patched, pytest.raises(ZeroDivisionError):
        patched.setattr(surfaces, "_write_foreground", lambda *_: 1 / (next(drawn) - 12))
        run(*arguments)
    for folder in (tmp_path / "set", tmp_path / "set" / "tile"):
        with pytest.raises(InputError, match=f"{tmp_path / 'set'} is not complete: .* give the same command again"):
            read_dataset(folder)
    with pytest.raises(InputError, match=f"{tmp_path / 'set'} is not complete"):
        list_images(tmp_path / "set/tile/train/good")
    assert run(*arguments).exit_code == 0
    assert len(read_dataset(tmp_path / "set").shots) == 6


def test_a_list_of_ones_own_that_is_called_as_the_mark_is_none(run, tmp_path):
    run("surfaces", "--out", tmp_path / "set", "--product", "tile", *SMALL)
    for folder in (tmp_path, tmp_path / "set"):
        (folder / "unfinished.txt").write_text("masks that are still to be painted: 3, 7")
    assert len(read_dataset(tmp_path / "set").shots) == 6


def test_other_settings_and_foreign_folders_are_refused(run, refused, tmp_path, listing):
    run("surfaces", "--out", tmp_path / "set", "--product", "tile", *SMALL)
    before = listing(tmp_path)
    line = refused("surfaces", "--out", tmp_path / "set", "--product", "tile", "--seed", "1", *SMALL)
    assert "seed 0" in line
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    assert "not empty" in refused("surfaces", "--out", tmp_path / "mine", *SMALL)
    assert "not empty" in refused("surfaces", "--out", tmp_path / "mine" / "notes.txt", *SMALL)
    (tmp_path / "mine" / "notes.txt").unlink()
    assert listing(tmp_path) == before


def test_unknown_products_are_listed(refused, tmp_path):
    line = refused("surfaces", "--out", tmp_path / "set", "--product", "wool", *SMALL)
    assert "wool" in line and "gasket" in line
    assert not (tmp_path / "set").exists()


def test_a_damaged_record_is_named(refused, tmp_path):
    (tmp_path / "surfaces.json").write_text("{")
    assert "damaged" in refused("surfaces", "--out", tmp_path, *SMALL)
