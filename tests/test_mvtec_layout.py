"""The copy in MVTec AD's layout: the set's own numbers, and that what reads the set reads the copy."""

from dataclasses import replace

import pytest
from PIL import Image

from adiff.datasets.readers import read_dataset, read_shot
from tools import mvtec_layout
from tools.mvtec_layout import CATEGORIES, LEAST, lay_out, reduced


def test_the_numbers_are_those_of_the_set():
    """Bergmann et al., CVPR 2019, Table 1: 3629 to train on; 467 good ones and 1258 of 73 defects to test on."""
    every = CATEGORIES.values()
    assert (len(CATEGORIES), sum(one.train for one in every), sum(one.good for one in every)) == (15, 3629, 467)
    assert sum(len(one.defects) for one in every) == 73 and sum(sum(one.defects.values()) for one in every) == 1258
    assert {name for name, one in CATEGORIES.items() if one.grey} == {"grid", "screw", "zipper"}
    assert {one.size for one in every} == {700, 800, 840, 900, 1000, 1024}


def test_a_copy_is_read_as_the_set_is_and_completed_when_it_is_made_again(tmp_path, monkeypatch):
    small = {"bottle": replace(CATEGORIES["bottle"], size=64), "grid": replace(CATEGORIES["grid"], size=64)}
    monkeypatch.setattr(mvtec_layout, "CATEGORIES", small)
    written = list(lay_out(tmp_path, ["bottle", "grid"], 0.01))
    assert len(written) == LEAST * (2 + 3 + 2 + 5) and all(path.is_file() for path in written)
    dataset = read_dataset(tmp_path)
    assert set(dataset.shots) == {(name, defect) for name, one in small.items() for defect in one.defects}
    photo, mask = read_shot(dataset.shots["bottle", "broken_large"][0])
    assert (tmp_path / "bottle" / "ground_truth" / "broken_large" / "000_mask.png").is_file()
    assert photo.rgb.shape == (64, 64, 3) and mask.mask.any() and not mask.grey
    with Image.open(tmp_path / "grid" / "train" / "good" / "000.png") as image:
        assert image.mode == "L"
    before = written[0].stat().st_mtime_ns
    written[1].unlink()
    assert list(lay_out(tmp_path, ["bottle"], 0.01)) == written[: LEAST * 5]
    assert written[0].stat().st_mtime_ns == before and written[1].is_file()


@pytest.mark.parametrize(("count", "share", "kept"), [(209, 0.1, 21), (20, 0.1, LEAST), (4, 0.1, 4), (20, 1.0, 20)])
def test_a_smaller_copy_keeps_enough_to_split(count, share, kept):
    assert reduced(count, share) == kept
