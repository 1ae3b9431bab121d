"""Shots become library entries; what a training came to is recorded or refused."""

import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from adiff.datasets.images import write_png
from adiff.datasets.readers import read_dataset
from adiff.errors import InputError
from adiff.learning import _told, check_finite, new_defect, new_encoder, open_library, open_shots
from adiff.library import Defect, Library, save_library
from adiff.progress import Cancelled
from adiff.scoring import describe
from adiff.training import MaskResult, Outcome
from adiff.versions import versions

BASE = SimpleNamespace(
    name="demo", fingerprint="f" * 64, context_dim=4, native_size=32, encode=lambda images: F.avg_pool2d(images, 8)
)
"""Its latents are pixels pooled by 8."""


@pytest.fixture
def photos(tmp_path):
    """A plain folder of three images, 80 x 60, with a 20 x 12 defect each."""
    root = tmp_path / "metal"
    for index in range(3):
        image = np.full((60, 80, 3), 10 * index, np.uint8)
        mask = np.zeros((60, 80), bool)
        mask[20:32, 30:50] = True
        image[mask] = (200, 100, 50)
        write_png(root / "images" / f"{index}.png", image)
        write_png(root / "masks" / f"{index}.png", mask)
    return root


def test_shots_are_the_lowest_ids_and_the_rest_is_held_out(photos):
    ((key, shots),) = open_shots(read_dataset(photos), 2).items()
    assert key == ("metal", "defect")
    assert shots.files == ("images/0.png", "images/1.png") and shots.held_out == ("images/2.png",)
    assert [image[0, 0, 0] for image, _ in shots.pairs] == [0, 10] and shots.masks[0].sum() == 240


def test_a_new_entry_shows_its_first_shot_and_keeps_the_masks_at_the_model_s_size(photos):
    shots = open_shots(read_dataset(photos), 2)["metal", "defect"]
    entry = new_defect(("metal", "defect"), shots, BASE)
    assert entry.preview.shape == (3, 96, 96) and tuple(entry.preview[:, 48, 48].tolist()) == (200, 100, 50)
    assert tuple(entry.preview[:, 0, 0].tolist()) == (0, 0, 0)
    assert entry.shot_masks.shape == (2, 32, 32)
    assert entry.shot_masks.mean() == pytest.approx(240 / 4800, rel=0.25)
    assert entry.info["shots"] == ["images/0.png", "images/1.png"] and entry.info["grey_masks"] == []


def test_a_mask_too_small_for_the_model_s_size_is_told(photos, caplog):
    key, shots = ("metal", "defect"), open_shots(read_dataset(photos), 2)["metal", "defect"]
    new_defect(key, shots, BASE)
    assert not caplog.text
    shots.masks[1][:] = False
    shots.masks[1][15, 30] = True  # one of 4800 pixels becomes one of 1024
    new_defect(key, shots, BASE)
    assert "metal/defect: a mask this small is 5 times as large in the base's 32 x 32 pixels" in caplog.text


def test_a_new_entry_describes_each_shot(photos):
    shots = open_shots(read_dataset(photos), 2)["metal", "defect"]
    entry = new_defect(("metal", "defect"), shots, BASE)
    assert entry.likeness.shape == (2, 6)
    assert entry.likeness.numpy() == pytest.approx(describe(BASE, *zip(*shots.pairs, strict=True)))
    red, green, blue = entry.likeness[:, :3].T
    assert (red > green).all() and (green > blue).all()  # the defects are (200, 100, 50), the surface dark


def test_names_that_cannot_be_in_a_library_are_refused_before_learning(photos):
    bad = photos.rename(photos.with_name("a" * 65))
    with pytest.raises(InputError, match="65 characters"):
        open_shots(read_dataset(bad), 1)


def test_names_that_differ_in_case_alone_are_refused(photos):
    read = read_dataset(photos)
    (of_one,) = read.shots.values()
    both = replace(read, shots={("metal", "dent"): of_one, ("Metal", "dent"): of_one})
    with pytest.raises(InputError, match="metal/dent and Metal/dent differ only in letters that look alike"):
        open_shots(both, 1)


def test_an_outcome_is_recorded_or_raised():
    def result(*outcome, drawn=1, **more):
        keys = [("metal", "hole"), ("metal", "dent")]
        losses = dict.fromkeys(keys[:drawn], 0.1)
        return MaskResult(dict.fromkeys(keys[:1], torch.zeros(1)), losses, Outcome(*outcome, **more))

    curve = ((4, 0.123456, None), (8, 0.2, 0.31))
    assert _told(result(9, 0.1, "early", curve, 8), 3) == {
        "seed": 3, "steps": 9, "stopped": "early", "best": 8, "curve": [[4, 0.1235, None], [8, 0.2, 0.31]]
    }  # fmt: skip
    assert _told(result(9, math.nan, "not finite", best=4), 3)["best"] == 4
    with pytest.raises(Cancelled):
        _told(result(9, 0.1, "cancelled"), 3)
    for lost in (result(0, math.nan, "not finite"), result(9, math.nan, "not finite", best=4, drawn=0)):
        with pytest.raises(InputError, match="from the start"):
            _told(lost, 3)


def test_a_training_that_broke_off_is_said():
    good = Defect("a", "b", info={"anomaly": {"steps": 9, "stopped": "early"}})
    check_finite({good.key: good})
    bad = Defect("a", "c", info={"mask": {"steps": 7, "best": 4, "stopped": "not finite"}})
    with pytest.raises(InputError, match="a/c's mask embedding was not finite.*step 4"):
        check_finite({good.key: good, bad.key: bad})


def test_a_library_of_another_base_is_not_added_to(tmp_path):
    assert open_library(tmp_path / "new.safetensors", BASE).defects == {}
    save_library(tmp_path / "lib.safetensors", Library({}, "e" * 64, "other", 4))
    with pytest.raises(InputError, match="'other', not on 'demo'"):
        open_library(tmp_path / "lib.safetensors", BASE)


def test_versions_name_what_results_depend_on():
    assert {"adiff", "torch", "numpy"} <= set(versions())


def test_a_base_of_full_size_gets_the_paper_s_encoder_and_a_small_one_the_small():
    bases = [SimpleNamespace(native_size=size, context_dim=8) for size in (128, 512)]
    assert [new_encoder(base, 0).variant for base in bases] == ["small", "base"]
    assert new_encoder(bases[0], 0, tokens=8).tokens == 8
