"""The pasting baselines: one interface, the same pairs from the same seed, nothing changed outside the mask."""

import numpy as np
import pytest
from scipy import ndimage

from adiff.baselines import METHODS, paste_pairs
from adiff.baselines.draem import perlin, perlin_mask
from adiff.baselines.pasting import place_for
from adiff.errors import InputError

ALL = tuple(METHODS)


def normals(count=3, height=72, width=56):
    rng = np.random.default_rng(0)
    return [rng.integers(60, 140, (height, width, 3), np.uint8) for _ in range(count)]


def shot(height=40, width=50):
    """A red bar of 3 x 20 pixels on grey."""
    image, mask = np.full((height, width, 3), 90, np.uint8), np.zeros((height, width), bool)
    mask[10:13, 8:28] = True
    image[mask] = (250, 10, 10)
    return image, mask


@pytest.mark.parametrize("method", ALL)
def test_pairs_are_whole_and_change_nothing_outside_their_masks(method):
    photos = normals()
    pairs = list(paste_pairs(method, photos, 30, shots=[shot()], seed=1))
    assert len(pairs) == 30 and {pair.normal for pair in pairs} == {0, 1, 2}
    for pair in pairs:
        normal = photos[pair.normal]
        assert pair.image.shape == normal.shape and pair.image.dtype == np.uint8
        assert pair.mask.dtype == bool and pair.mask.any() and not pair.mask.all()
        assert np.array_equal(pair.image[~pair.mask], normal[~pair.mask])
        assert (pair.image[pair.mask] != normal[pair.mask]).any()


@pytest.mark.parametrize("method", ALL)
def test_a_pair_depends_on_the_seed_and_its_number_alone(method):
    def make(count, seed):
        return list(paste_pairs(method, normals(), count, shots=[shot()], seed=seed))

    few, many, other = make(2, 5), make(4, 5), make(2, 6)
    assert all(np.array_equal(a.image, b.image) for a, b in zip(few, many[:2], strict=True))
    assert not all(np.array_equal(a.image, b.image) for a, b in zip(few, other, strict=True))


@pytest.mark.parametrize("method", ["cutpaste", "draem"])
def test_a_mask_is_the_pairs_shape(method):
    mask = np.zeros((72, 56), bool)
    mask[30:40, 20:26] = mask[33:36, 15:40] = True
    for pair in paste_pairs(method, normals(), 4, masks=[mask], seed=0):
        assert np.array_equal(pair.mask, mask)
    small = mask[::2, ::2]
    (pair,) = paste_pairs(method, normals(1), 1, masks=[small], seed=0)
    assert pair.mask.shape == (72, 56) and pair.mask.any()


def test_crop_paste_puts_the_shots_defect_in_the_middle_of_the_mask():
    mask = np.zeros((72, 56), bool)
    mask[50:54, 24:30] = True
    photos = normals()
    sizes = set()
    for pair in paste_pairs("crop-paste", photos, 12, shots=[shot()], masks=[mask], seed=3):
        rows, columns = np.nonzero(pair.mask)
        assert abs((rows.min() + rows.max()) / 2 - 51.5) <= 12  # a long one is moved into the frame
        assert abs((columns.min() + columns.max()) / 2 - 26.5) <= 12
        red, green = pair.image[pair.mask][:, 0], pair.image[pair.mask][:, 1]
        assert red.mean() > 180 > 90 > green.mean()  # turning softens its edges, against the shot's own grey
        sizes.add(int(pair.mask.sum()))
    assert len(sizes) > 4  # turned and scaled


def test_crop_paste_keeps_thin_and_tiny_defects_and_shrinks_those_that_do_not_fit():
    image, mask = np.full((200, 200, 3), 90, np.uint8), np.zeros((200, 200), bool)
    mask[100, 5:195] = True
    dot = np.zeros((200, 200), bool)
    dot[0, 0] = True
    for on in (mask, dot):
        for pair in paste_pairs("crop-paste", normals(1, 20, 20), 20, shots=[(image, on)], seed=0):
            assert pair.mask.any()


def test_cutpaste_draws_patches_of_the_papers_size_and_scars():
    shares, solid = [], 0
    for pair in paste_pairs("cutpaste", normals(1, 256, 256), 60, seed=0):
        rows, columns = np.nonzero(pair.mask)
        box = (np.ptp(rows) + 1) * (np.ptp(columns) + 1)
        assert ndimage.label(pair.mask)[1] == 1
        if pair.mask.sum() == box and box > 16 * 25:
            solid += 1
            shares.append(box / 256**2)
        else:
            assert pair.mask.sum() <= 17 * 27
    assert 15 < solid < 45 and min(shares) > 0.018 and max(shares) < 0.155


def test_draem_lays_the_given_texture_with_the_drawn_opacity():
    texture = np.zeros((30, 30, 3), np.uint8)
    grey = [np.full((64, 64, 3), 128, np.uint8)]
    for pair in paste_pairs("draem", grey, 8, textures=[texture], seed=0):
        inside = pair.image[pair.mask].astype(int)
        assert (inside == inside[0]).all()  # a flat texture stays flat through every change of colour
        assert abs(inside[0] - 128).max() <= 128


def test_perlin_noise_is_zero_on_its_lattice_and_smooth():
    noise = perlin((129, 65), (4, 8), 0.0, np.random.default_rng(0))  # an odd side has a pixel in the middle: a corner
    assert noise.shape == (129, 65) and noise[64, 32] == 0
    assert 0.5 < abs(noise).max() < 1.5 and abs(noise.mean()) < 0.2
    assert abs(np.diff(noise, axis=0)).max() < 0.2


def test_perlin_masks_are_neither_empty_nor_full():
    shares = [perlin_mask((48, 64), np.random.default_rng(seed)).mean() for seed in range(40)]
    assert 0 < min(shares) and max(shares) < 1 and np.std(shares) > 0.02


def test_places_lie_in_the_frame():
    mask = np.zeros((10, 12), bool)
    mask[0, 11] = True
    assert place_for((4, 4), (10, 12), mask, np.random.default_rng(0)) == (0, 8)
    places = {place_for((9, 12), (10, 12), None, np.random.default_rng(seed)) for seed in range(20)}
    assert places == {(0, 0), (1, 0)}


def test_bad_input_is_refused():
    with pytest.raises(InputError, match="no baseline 'blend'; choose from crop-paste"):
        next(paste_pairs("blend", normals(), 1))
    with pytest.raises(InputError, match="no normal images for draem"):
        next(paste_pairs("draem", [], 1))
    with pytest.raises(InputError, match="no shots for crop-paste"):
        next(paste_pairs("crop-paste", normals(), 1))
    for method in METHODS:
        with pytest.raises(InputError, match="the mask .* is empty"):
            next(paste_pairs(method, np.stack(normals()), 1, shots=[shot()], masks=[np.zeros((8, 8), bool)]))


@pytest.mark.parametrize("method", ALL)
def test_pairs_lie_on_the_object_where_it_is_known(method):
    photos, on = normals(), np.zeros((72, 56), bool)
    on[10:62, 18:50] = True
    given = {"shots": [shot()], "seed": 2}
    assert any((pair.mask & ~on).any() for pair in paste_pairs(method, photos, 12, **given))
    for pair in paste_pairs(method, photos, 12, objects=lambda _: on, **given):
        assert pair.mask.any() and not (pair.mask & ~on).any()
        assert np.array_equal(pair.image[~pair.mask], photos[pair.normal][~pair.mask])
    with pytest.raises(InputError, match="lies on the object"):
        next(paste_pairs(method, photos, 1, objects=lambda _: ~on & on, **given))


def test_a_whole_defect_is_pasted_as_long_as_one_fits_on_the_object():
    on = np.zeros((72, 56), bool)
    on[20:60, 5:45] = True
    (first, *_) = pairs = list(paste_pairs("crop-paste", normals(), 8, shots=[shot()], objects=lambda _: on, seed=0))
    assert first.mask.any() and all(ndimage.label(pair.mask, np.ones((3, 3)))[1] == 1 for pair in pairs)
    tiny = np.zeros_like(on)
    tiny[30:33, 20:24] = True
    (pair,) = paste_pairs("crop-paste", normals(), 1, shots=[shot()], objects=lambda _: tiny, seed=0)
    assert pair.mask.any() and not (pair.mask & ~tiny).any()  # a part of one: none fits
