"""Smooth outlines of enlarged masks: area, width of scratches, no stairs, the image's border, and filling by hand."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy import ndimage

from adiff.geometry import EIGHT, resize_mask
from adiff.masks import count_components
from adiff.outline import Outline, enlarge_mask, fill_outline, smooth_outline

Y, X = np.mgrid[:64, :64] + 0.5
DISC = np.hypot(X - 30, Y - 33) < 14
RING = (np.hypot(X - 32, Y - 32) < 22) & (np.hypot(X - 32, Y - 32) > 12)
SCRATCH = (np.abs(Y - 32 - 0.23 * (X - 32)) < 0.5) & (X > 8) & (X < 57)


@pytest.mark.parametrize("mask", [DISC, RING, SCRATCH], ids=["disc", "ring", "scratch"])
def test_the_area_and_the_parts_are_kept(mask):
    large = enlarge_mask(mask, 512, 512)
    assert large.sum() == pytest.approx(64 * mask.sum(), rel=0.01)
    assert count_components(large) == 1 and count_components(~large) == count_components(~mask)
    moved = large ^ resize_mask(mask, 512, 512)
    assert ndimage.binary_erosion(moved, EIGHT, iterations=3).sum() == 0  # by less than a pixel of the small mask


def test_a_round_mask_becomes_round():
    """The share of its border's pixels that are more than a quarter of a small one off the circle that was drawn."""
    y, x = np.mgrid[:512, :512] + 0.5

    def off(mask):
        border = mask & ~ndimage.binary_erosion(mask, EIGHT)
        return (np.abs(np.hypot(x - 240, y - 264)[border] - 112) > 2).mean()

    assert off(enlarge_mask(DISC, 512, 512)) < 0.1 < 0.3 < off(resize_mask(DISC, 512, 512))


def test_a_tilted_scratch_has_no_stairs_and_keeps_its_width():
    """Rows of 0.23 x 8 = 1.8 for each column of the small mask: stairs are level over 32 columns, then fall by 8."""
    large = enlarge_mask(SCRATCH, 512, 512)
    top, width = large.argmax(axis=0)[100:420], large.sum(axis=0)[100:420]
    assert np.diff(top).max() <= 1 and np.diff(top).min() >= 0
    assert 6 <= width.min() and width.max() <= 10


def test_a_mask_at_the_border_stays_there():
    mask = np.hypot(X, Y - 20) < 18
    large = enlarge_mask(mask, 256, 256)
    rows = np.flatnonzero(large[:, 0])
    assert large[rows[0] : rows[-1] + 1, 0].all() and abs(len(rows) - 4 * mask[:, 0].sum()) <= 4
    assert enlarge_mask(np.ones((5, 7), bool), 50, 70).all() and not enlarge_mask(np.zeros((5, 7), bool), 50, 70).any()


@pytest.mark.parametrize("size", [(64, 64), (90, 90), (32, 48), (200, 64)], ids=["same", "near", "small", "one way"])
def test_other_sizes_are_resized_by_area(size):
    assert np.array_equal(enlarge_mask(RING, *size), resize_mask(RING, *size))


@given(mask=arrays.arrays(bool, (9, 11)), height=st.integers(14, 40), width=st.integers(17, 50))
@settings(deadline=None, max_examples=60)
def test_no_part_is_lost(mask, height, width):
    labels, count = ndimage.label(mask, EIGHT)
    large = enlarge_mask(mask, height, width)
    for number in range(1, count + 1):
        assert (large & resize_mask(labels == number, height, width)).any()


def test_outlines_are_filled_where_they_go_around_to_the_right():
    """A square of 4 x 4 pixels with a hole of 2 x 1, whose corners lie between the centres of pixels."""
    points = np.array([(1, 1), (5, 1), (5, 5), (1, 5), (2, 2), (2, 3), (4, 3), (4, 2)], float)
    after = np.array([1, 2, 3, 0, 5, 6, 7, 4])
    due = np.zeros((6, 7), bool)
    due[1:5, 1:5] = True
    due[2, 2:4] = False
    assert np.array_equal(fill_outline(Outline(points, after), 6, 7), due)
    assert not fill_outline(Outline(points, np.argsort(after)), 6, 7)[1].any()  # to the left
    assert fill_outline(Outline(points + (-3, 0), after), 6, 7)[1].tolist() == [True, True, *[False] * 5]  # cut off


def test_one_pixel_keeps_its_area():
    points, after = smooth_outline(np.ones((1, 1), bool))
    (x, y), (a, b) = points.T, points[after].T
    assert len(points) == 4 and (x * b - a * y).sum() / 2 == pytest.approx(1, abs=0.03)
    assert points.mean(0) == pytest.approx([0.5, 0.5])
