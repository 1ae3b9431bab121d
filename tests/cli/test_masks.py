"""`adiff masks`: masks and their record, within a foreground if there is one."""

import json
import os

import numpy as np
import pytest
from PIL import Image

import adiff.generation
from adiff.datasets.images import write_png
from adiff.generation import GeneratedMask
from adiff.masks import best_aligned_iou


@pytest.fixture
def sampled(monkeypatch):
    """Stand-in for the sampler: a 16 x 16 square whose place follows from the seed; counts the calls."""
    calls = []

    def sample(backbone, embedding, count, *, rules, shots, settings, seed, progress):
        calls.append((count, seed))
        made = []
        for index in range(count):
            rng = np.random.default_rng((*seed, index))
            top, left = rng.integers(0, 49, 2)
            mask = np.zeros((64, 64), bool)
            mask[top : top + 16, left : left + 16] = True
            made.append(GeneratedMask(mask, best_aligned_iou(mask, shots), index))
        return made

    monkeypatch.setattr(adiff.generation, "sample_masks", sample)
    return calls


def test_masks_and_their_record(run, library, sampled, tmp_path):
    result = run("masks", library, "metal/scratch", "-n", "3", "--out", tmp_path / "out", "--seed", "5")
    assert result.exit_code == 0, result.stderr
    record = json.loads((tmp_path / "out" / "masks.json").read_text())
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["000.png", "001.png", "002.png", "masks.json"]
    assert [about["candidate"] for about in record["masks"]] == [0, 1, 2] and sampled == [(3, (5, 0))]
    for about in record["masks"]:
        picture = np.asarray(Image.open(tmp_path / "out" / about["file"]))
        assert picture.shape == (64, 64) and set(np.unique(picture)) == {0, 255}
        assert about["area"] == pytest.approx((picture > 0).mean(), abs=1e-5)
        assert about["iou"] == pytest.approx(256 / 480, abs=1e-4)  # a 16 x 16 square in a shot's 20 x 24 rectangle
    assert f"{record['median_iou']:.2f}" in result.stdout


def test_masks_lie_on_the_foreground_that_the_record_names(run, library, sampled, tmp_path):
    left = np.zeros((64, 64), bool)
    left[:, :40] = True
    for name, mask in (("left.png", left), ("right.png", ~left[:, ::-1])):
        write_png(tmp_path / "objects" / name, mask)
    where = ("--out", tmp_path / "out", "--foreground", tmp_path / "objects")
    result = run("masks", library, "metal/hole", "-n", "6", *where)
    assert result.exit_code == 0, result.stderr
    record = json.loads((tmp_path / "out" / "masks.json").read_text())["masks"]
    assert len(record) == 6 and len(sampled) > 1
    for about in record:
        mask = np.asarray(Image.open(tmp_path / "out" / about["file"])) > 0
        assert (np.asarray(Image.open(tmp_path / "objects" / about["foreground"]))[mask] == 255).all()


def test_too_small_a_foreground_is_said_and_nothing_written(refused, library, sampled, tmp_path):
    tiny_object = np.zeros((64, 64), bool)
    tiny_object[:4, :4] = True
    write_png(tmp_path / "objects" / "a.png", tiny_object)
    where = ("--out", tmp_path / "out", "--foreground", tmp_path / "objects")
    line = refused("masks", library, "metal/hole", "-n", "2", *where)
    assert "0 of 2 masks" in line and not (tmp_path / "out").exists()


@pytest.mark.parametrize("broken", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_write_that_breaks_off_leaves_no_half_set(run, library, sampled, tmp_path, monkeypatch, broken):
    rename, made = os.replace, []

    def fail_at_the_third(source, target):
        made.append(target)
        if len(made) == 3:
            raise broken
        rename(source, target)

    monkeypatch.setattr("adiff.storage.os.replace", fail_at_the_third)
    result = run("masks", library, "metal/scratch", "-n", "3", "--out", tmp_path / "out")
    assert result.exit_code == (2 if isinstance(broken, OSError) else 130) and len(made) == 3
    assert not (tmp_path / "out").exists()


def test_what_does_not_fit_is_refused(refused, library, tmp_path, tiny):
    out = ("--out", tmp_path / "out")
    assert "metal/scratch, metal/hole" in refused("masks", library, "metal/rust", *out)
    assert "PRODUCT/DEFECT" in refused("masks", library, "metal", *out)
    assert "no library at" in refused("masks", tmp_path / "none.safetensors", "metal/hole", *out)
    write_png(tmp_path / "black" / "a.png", np.zeros((64, 64), bool))
    assert "is empty" in refused("masks", library, "metal/hole", *out, "--foreground", tmp_path / "black")
    tiny.context_dim = 32
    assert "16" in refused("masks", library, "metal/hole", *out)
    assert not (tmp_path / "out").exists()
    assert "not empty" in refused("masks", library, "metal/hole", "--out", tmp_path)
