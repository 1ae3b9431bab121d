"""Masks from files and from a mask embedding: in turn, resized, placed, recorded."""

import json
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from adiff.datasets.images import Photo, write_png
from adiff.errors import InputError
from adiff.generation import FolderMasks, LearnedMasks, MaskSampling, ShotMasks
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
    (none,) = FolderMasks([tmp_path / "wide.png"]).masks(None, [photo()], Batch(0, 0, [0]))
    assert "mask wide.png is 128 x 64, its photo normal.png 64 x 64" in none.reason


def test_the_model_s_own_masks_lie_on_a_photo_that_is_not_square_as_learned_ones_do(tmp_path, make_mask):
    write_png(tmp_path / "own.png", make_mask(20, 40, 60, 50, size=128))
    own, small = FolderMasks([tmp_path / "own.png"], square=True), make_mask(10, 20, 30, 25)
    found = [own.masks(None, [photo(64, 96)], Batch(0, 0, [number]))[0][0] for number in range(8)]
    assert {mask.shape for mask in found} == {(64, 96)} and len({mask.tobytes() for mask in found}) > 1
    for mask in found:
        left = int(np.flatnonzero(mask.any(0))[0]) - 20
        assert np.array_equal(mask[:, left : left + 64], small) and mask.sum() == small.sum()
    ((mask, _),) = own.masks(None, [photo()], Batch(0, 0, [3]))
    assert np.array_equal(mask, small)  # on a square one as any other mask


def test_masks_are_checked_against_the_normals_they_were_placed_on(tmp_path, make_mask):
    paths = [tmp_path / f"{i}.png" for i in range(3)]
    for path in paths:
        write_png(path, make_mask())
    source = FolderMasks(paths, ["b.png", None, "c.png"])
    assert [source.normal_of(i) for i in range(4)] == ["b.png", None, "c.png", "b.png"]
    names = ["0.png", "1.png", "2.png"]
    assert source.record(None) == {"kind": "folder", "files": names, "normals": list(source.normals)}
    source.check(2, [Path("x/a.png"), Path("x/b.png")])  # the third is not asked for
    with pytest.raises(InputError, match=r"2.png was placed on the normal image c.png, which is not among those given"):
        source.check(3, [Path("x/a.png"), Path("x/b.png")])


def test_pairs_beyond_the_masks_that_passed_have_none(make_mask, monkeypatch):
    """Every third candidate passes: of 2 tries for each of 4 masks, 2 do, and they are those of the first pairs."""
    def draw(backbone, embedding, count, settings, seed, first, shots):
        return np.stack([make_mask() if i % 3 == 2 else np.zeros((64, 64), bool) for i in range(first, first + count)])

    monkeypatch.setattr("adiff.generation.mask.draw_candidates", draw)
    source = LearnedMasks(torch.zeros(4, 768), MaskRules(), [make_mask()], MaskSampling(tries=2))
    first, second, *others = source.masks(None, [photo()] * 4, Batch(0, 2, [8, 9, 10, 11]))
    assert first[1]["candidate"] == 2 and second[1]["candidate"] == 5
    assert [one.reason.partition(";")[0] for one in others] == ["only 2 of 4 masks passed in 8 tries"] * 2


def test_masks_learned_anew_are_another_source(make_mask):
    rules, small = MaskRules.from_shots([make_mask()]), SimpleNamespace(native_size=128)
    records = [LearnedMasks(torch.full((4, 768), v), rules, [make_mask()]).record(small) for v in (1.0, 1.0, 2.0)]
    assert records[0] == records[1] != records[2]
    assert json.loads(json.dumps(records[0])) == records[0]


def test_how_learned_masks_are_sampled_is_told_as_it_is_on_the_base_model(make_mask):
    source = LearnedMasks(torch.zeros(4, 768), MaskRules(), [make_mask()], MaskSampling(threshold=0.7))
    for size, sampling in ((128, (12, 2.0)), (512, (25, 5.0))):
        told = source.record(SimpleNamespace(native_size=size))["sampling"]
        assert told == asdict(MaskSampling(*sampling, threshold=0.7))


@pytest.mark.parametrize("size", [(64, 64), (50, 90), (128, 70)])
def test_a_learned_mask_lies_in_a_square_of_the_photo(make_mask, size):
    places = {_on_photo(make_mask(), photo(*size), np.random.default_rng(s)).tobytes() for s in range(10)}
    assert (len(places) == 1) == (size[0] == size[1])
    one = _on_photo(make_mask(), photo(*size), np.random.default_rng(0))
    assert one.shape == size and abs(one.sum() / (20 / 64 * 16 / 64 * min(size) ** 2) - 1) < 0.15


def test_a_pairs_varied_mask_depends_on_its_number_alone(make_mask):
    source = ShotMasks([make_mask(), make_mask(height=8)])
    whole = source.masks(None, [photo()] * 4, Batch(3, 0, range(4)))
    again = source.masks(None, [photo(), photo()], Batch(3, 7, [2, 1]))
    for (mask, about), (other, told) in zip((whole[2], whole[1]), again, strict=True):
        assert np.array_equal(mask, other) and about == told
    assert {about["shot"] for _, about in whole} <= {0, 1} and whole[0][1]["kind"] == "shot"
    assert not np.array_equal(whole[1][0], source.masks(None, [photo()], Batch(4, 0, [1]))[0][0])
    assert source.record(None) == ShotMasks([make_mask(), make_mask(height=8)]).record(None)
    assert source.record(None) != ShotMasks([make_mask()]).record(None)


def test_where_no_shots_mask_fits_the_pair_has_none():
    found = ShotMasks([np.ones((64, 64), bool)]).masks(None, [photo()] * 16, Batch(0, 0, range(16)))
    assert any("fits into 64 x 64 pixels" in getattr(one, "reason", "") for one in found)
