"""Refined masks: by hand."""

import numpy as np
import pytest

from adiff.refinement import RIM, VISIBLE, otsu, overlap, refined


def change(*spots, size=40):
    """A round trip of level 100, and an output that departs from it: each spot is (rows, columns, levels)."""
    base = np.full((size, size, 3), 100, np.uint8)
    output = base.copy()
    for rows, columns, levels in spots:
        output[rows, columns, 1] = 100 + levels  # one channel counts
    return output, base


def box(top, bottom, left, right, size=40):
    mask = np.zeros((size, size), bool)
    mask[top:bottom, left:right] = True
    return mask


def test_the_part_of_the_mask_that_changed_is_left():
    asked = box(8, 28, 8, 28)
    output, base = change((slice(10, 20), slice(10, 20), 90))
    assert np.array_equal(refined(output, base, asked), box(10, 20, 10, 20))


def test_a_change_that_fills_the_mask_leaves_it_as_it_is():
    """Uneven, 60 to 100 levels: within the mask alone the threshold would cut the darker half away."""
    asked = box(10, 30, 10, 30)
    output, base = change((slice(10, 20), slice(10, 30), 60), (slice(20, 30), slice(10, 30), 100))
    inside = np.abs(output[asked].astype(int) - base[asked]).max(1)
    assert otsu(inside) > 60  # what the rim is for
    assert np.array_equal(refined(output, base, asked), asked)


def test_what_nobody_sees_refines_nothing():
    asked = box(10, 30, 10, 30)
    output, base = change((slice(12, 16), slice(12, 16), VISIBLE))
    assert np.array_equal(refined(output, base, asked), asked)
    output, base = change((slice(12, 16), slice(12, 16), VISIBLE + 1))
    assert np.array_equal(refined(output, base, asked), box(12, 16, 12, 16))


def test_what_changed_outside_the_mask_does_not_belong_to_it():
    asked = box(10, 30, 10, 30)
    output, base = change((slice(10, 20), slice(5, 20), 80))
    assert np.array_equal(refined(output, base, asked), box(10, 20, 10, 20))


@pytest.mark.parametrize("corner", [(0, 6, 0, 6), (34, 40, 34, 40)])
def test_a_mask_at_the_border_has_less_of_a_rim(corner):
    asked = box(*corner)
    assert RIM > 0
    output, base = change((slice(corner[0], corner[1]), slice(corner[2], corner[3]), 50))
    assert np.array_equal(refined(output, base, asked), asked)


def test_grey_images_are_refined_too():
    base = np.full((40, 40), 100, np.uint8)
    output = base.copy()
    output[10:20, 10:20] = 180
    assert np.array_equal(refined(output, base, box(8, 28, 8, 28)), box(10, 20, 10, 20))


def test_overlap_by_hand():
    assert overlap(box(0, 4, 0, 4), box(2, 4, 0, 4)) == 0.5
    assert overlap(box(0, 0, 0, 0), box(0, 0, 0, 0)) == 1.0 and overlap(box(0, 2, 0, 2), box(4, 6, 4, 6)) == 0.0
