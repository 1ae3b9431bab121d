"""Masks from files and from a mask embedding: in turn, resized, placed, recorded."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from adiff.datasets.images import Photo, write_png
from adiff.errors import InputError
from adiff.generation import FolderMasks, LearnedMasks
from adiff.generation.sources import Batch, _on_photo
from adiff.masks import MaskRules


def photo(height=64, width=64):
    return Photo(np.zeros((height, width, 3), np.uint8), Path("normal.png"))


def test_files_are_taken_in_turn_by_the_pairs_numbers(tmp_path, make_mask):
    paths = [tmp_path / f"{i}.png" for i in range(3)]
    for i, path in enumerate(paths):
        write_png(path, make_mask(top=10 + i))
    found = FolderMasks(paths).masks(None, [photo()] * 3, Batch(0, 2, [4, 5, 7]))
    assert [source for _, source in found] == [{"kind": "file", "path": f"{i}.png"} for i in (1, 2, 1)]
    assert all(np.array_equal(mask, make_mask(top=10 + i)) for (mask, _), i in zip(found, (1, 2, 1), strict=True))


def test_no_mask_files_are_refused():
    with pytest.raises(InputError, match="no mask files"):
        FolderMasks([])


def test_a_mask_of_the_photos_shape_is_resized_and_of_another_refused(tmp_path, make_mask):
    write_png(tmp_path / "large.png", make_mask(20, 40, 60, 50, size=128))
    ((mask, _),) = FolderMasks([tmp_path / "large.png"]).masks(None, [photo()], Batch(0, 0, [0]))
    assert np.array_equal(mask, make_mask(10, 20, 30, 25))
    write_png(tmp_path / "wide.png", make_mask(size=128)[:64])
    with pytest.raises(InputError, match="mask wide.png is 128 x 64, its photo normal.png 64 x 64"):
        FolderMasks([tmp_path / "wide.png"]).masks(None, [photo()], Batch(0, 0, [0]))


def test_masks_learned_anew_are_another_source(make_mask):
    rules = MaskRules.from_shots([make_mask()])
    records = [LearnedMasks(torch.full((4, 768), v), rules, [make_mask()]).record() for v in (1.0, 1.0, 2.0)]
    assert records[0] == records[1] != records[2]
    assert json.loads(json.dumps(records[0])) == records[0]


@pytest.mark.parametrize("size", [(64, 64), (50, 90), (128, 70)])
def test_a_learned_mask_lies_in_a_square_of_the_photo(make_mask, size):
    places = {_on_photo(make_mask(), photo(*size), np.random.default_rng(s)).tobytes() for s in range(10)}
    assert (len(places) == 1) == (size[0] == size[1])
    one = _on_photo(make_mask(), photo(*size), np.random.default_rng(0))
    assert one.shape == size and abs(one.sum() / (20 / 64 * 16 / 64 * min(size) ** 2) - 1) < 0.15
