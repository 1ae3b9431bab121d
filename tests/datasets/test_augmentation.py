"""Paired augmentation: image and mask stay together, the defect stays inside, nothing random but the generator."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from adiff.datasets.augmentation import _window, augment_pair
from adiff.errors import InputError
from adiff.geometry import Box, context_box, crop_mask, crop_resize

BOTH = pytest.mark.parametrize("crop", [True, False])


def rng(seed=0):
    return np.random.default_rng(seed)


def noise(height, width):
    return rng(9).integers(0, 256, size=(height, width, 3), dtype=np.uint8)


def shot_of(mask):
    """An image that shows its own mask."""
    return np.repeat(np.where(mask, 255, 0).astype(np.uint8)[:, :, None], 3, axis=2)


@pytest.mark.parametrize("shape", [(90, 120), (32, 32), (40, 200)])
def test_without_changes_the_view_is_the_context_box(shape):
    image, mask = noise(*shape), np.zeros(shape, dtype=bool)
    mask[10:20, 5:30] = True
    box = context_box(mask, 32)
    view, marks = augment_pair(image, mask, 32, rng(), p=0)
    assert np.array_equal(view, crop_resize(image, box, 32)) and np.array_equal(marks, crop_mask(mask, box, 32))


def test_without_changes_the_frame_is_the_whole_image():
    image, mask = noise(90, 120), np.zeros((90, 120), dtype=bool)
    mask[50:60, 80:100] = True
    view, marks = augment_pair(image, mask, 32, rng(), p=0, crop=False)
    frame = Box(0, 0, 120, 90)
    assert np.array_equal(view, crop_resize(image, frame, 32)) and np.array_equal(marks, crop_mask(mask, frame, 32))


@given(
    height=st.integers(3, 80), width=st.integers(3, 80), size=st.integers(8, 64), seed=st.integers(0, 10**6),
    crop=st.booleans(), p=st.sampled_from([0.5, 1.0]), data=st.data(),
)  # fmt: skip
@settings(deadline=None, max_examples=150)
def test_any_view_has_the_size_and_a_mask(height, width, size, seed, crop, p, data):
    mask = np.zeros((height, width), dtype=bool)
    top, left = data.draw(st.integers(0, height - 1)), data.draw(st.integers(0, width - 1))
    mask[top : data.draw(st.integers(top + 1, height)), left : data.draw(st.integers(left + 1, width))] = True
    view, marks = augment_pair(noise(height, width), mask, size, rng(seed), crop=crop, p=p)
    assert view.shape == (size, size, 3) and view.dtype == np.uint8
    assert marks.shape == (size, size) and marks.dtype == bool and marks.any()


@BOTH
@pytest.mark.parametrize("seed", range(12))
def test_image_and_mask_go_through_the_same_view(seed, crop):
    mask = np.zeros((100, 140), dtype=bool)
    mask[30:60, 80:130] = True
    mask[30:45, 80:95] = False  # no symmetry
    view, marks = augment_pair(shot_of(mask), mask, 64, rng(seed), crop=crop, p=1)
    shown = view[:, :, 0] > 127
    assert (shown & marks).sum() / (shown | marks).sum() > 0.9


@BOTH
@pytest.mark.parametrize("seed", range(12))
def test_no_part_of_the_defect_leaves_the_frame(seed, crop):
    mask = np.zeros((200, 200), dtype=bool)
    corners = [(60, 0), (60, 120), (150, 0), (150, 120)]  # two at the image's border
    for y, x in corners:
        mask[y, x] = True
    view, marks = augment_pair(shot_of(mask), mask, 96, rng(seed), crop=crop, p=1)
    assert ndimage.label(marks, structure=np.ones((3, 3)))[1] >= len(corners)


@pytest.mark.parametrize("seed", range(12))
def test_beyond_the_border_there_is_reflection_not_black(seed):
    image, mask = np.full((40, 60, 3), 200, dtype=np.uint8), np.zeros((40, 60), dtype=bool)
    mask[0:5, 55:60] = True
    for crop in (True, False):
        view, _ = augment_pair(image, mask, 32, rng(seed), crop=crop, p=1)
        assert (view == 200).all()


def test_reflection_by_hand():
    image = np.arange(3, dtype=np.uint8)[None, :]
    assert _window(image, Box(-4, 0, 8, 1)).tolist() == [[2, 2, 1, 0, 0, 1, 2, 2, 1, 0, 0, 1]]


@pytest.mark.parametrize("seed", range(12))
def test_an_upright_crop_stays_in_the_photo(seed):
    ramp = np.repeat(np.arange(0, 240, 2, dtype=np.uint8)[None, :], 120, axis=0)  # a reflection would turn it around
    image, mask = np.stack([ramp, ramp.T, ramp], axis=2), np.zeros((120, 120), dtype=bool)
    mask[3:10, 108:118] = True
    view, _ = augment_pair(image, mask, 32, rng(seed), p=1, max_angle=0)
    for steps in (np.diff(view[:, :, 0].astype(int), axis=1), np.diff(view[:, :, 1].astype(int), axis=0)):
        assert (steps >= 0).all() or (steps <= 0).all()


def test_rotation_stays_within_its_limit():
    mask = np.zeros((300, 300), dtype=bool)
    mask[148:152, 100:200] = True
    angles = []
    for seed in range(40):
        _, marks = augment_pair(shot_of(mask), mask, 128, rng(seed), p=1)
        y, x = np.nonzero(marks)
        angles.append(math.degrees(0.5 * math.atan2(2 * np.cov(x, y)[0, 1], np.var(x) - np.var(y))))
    assert max(map(abs, angles)) < 20.5
    assert max(angles) > 12 and min(angles) < -12


def test_zoom_changes_the_size_of_the_defect_both_ways():
    mask = np.zeros((300, 300), dtype=bool)
    mask[140:160, 140:160] = True
    areas = [augment_pair(shot_of(mask), mask, 100, rng(seed), p=1, max_angle=0)[1].mean() for seed in range(30)]
    assert min(areas) < 0.9 * 0.16 and max(areas) > 1.1 * 0.16  # (20 / 50)^2 of the box
    assert min(areas) > 0.8**2 * 0.16 * 0.9 and max(areas) < 1.25**2 * 0.16 * 1.1


def test_the_generator_alone_decides():
    image, mask = noise(80, 80), np.zeros((80, 80), dtype=bool)
    mask[30:40, 30:45] = True
    first, second = augment_pair(image, mask, 32, rng(4)), augment_pair(image, mask, 32, rng(4))
    assert np.array_equal(first[0], second[0]) and np.array_equal(first[1], second[1])
    views = {augment_pair(image, mask, 32, rng(seed))[0].tobytes() for seed in range(20)}
    assert len(views) > 10


def test_every_call_draws_the_same_number_of_numbers():
    image, mask = noise(40, 40), np.zeros((40, 40), dtype=bool)
    mask[5, 5] = True
    after = set()
    for p, crop in ((0, True), (0.5, True), (1, False)):
        generator = rng(1)
        augment_pair(image, mask, 16, generator, p=p, crop=crop)
        after.add(generator.random())
    assert len(after) == 1


def test_inputs_are_left_alone_and_faults_named():
    image, mask = noise(40, 50), np.zeros((40, 50), dtype=bool)
    with pytest.raises(InputError, match="empty"):
        augment_pair(image, mask, 16, rng())
    with pytest.raises(ValueError, match="image of 50x40 with a mask of 50x39"):
        augment_pair(image, mask[:39], 16, rng())
    mask[3, 3] = True
    kept = image.copy()
    augment_pair(image, mask, 16, rng(), p=1)[0][:] = 0
    assert np.array_equal(image, kept) and mask.sum() == 1
