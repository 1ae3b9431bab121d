"""Cracks of masks of a few pixels, walked by hand."""

import numpy as np

from adiff.cracks import DOWN, LEFT, RIGHT, UP, enclosed_areas, number_curves, trace_cracks


def drawn(*rows):
    return np.array([[character == "#" for character in row] for row in rows])


def walk(cracks, x, y, way):
    """The cracks of the curve that this one is on, from it on."""
    first = here = cracks.number[way, y, x]
    passed = []
    while not passed or here != first:
        passed.append((*cracks.starts[here].tolist(), int(cracks.ways[here])))
        here = cracks.after[here]
    return passed


def test_one_pixel_is_walked_around_to_the_right():
    cracks = trace_cracks(drawn("...", "..#"))
    assert cracks.starts.tolist() == [[2, 1], [3, 1], [3, 2], [2, 2]]
    assert cracks.ways.tolist() == [RIGHT, DOWN, LEFT, UP]
    assert cracks.after.tolist() == [1, 2, 3, 0]
    assert cracks.number.shape == (4, 3, 4)
    assert np.argwhere(cracks.number >= 0).tolist() == [[RIGHT, 1, 2], [DOWN, 1, 3], [LEFT, 2, 3], [UP, 2, 2]]


def test_cracks_of_a_way_go_by_row_and_column():
    cracks = trace_cracks(drawn("#.#", "#.."))
    assert cracks.starts[cracks.ways == UP].tolist() == [[0, 1], [2, 1], [0, 2]]
    assert cracks.starts[cracks.ways == RIGHT].tolist() == [[0, 0], [2, 0]]


def test_pixels_that_touch_at_a_corner_are_on_one_curve():
    cracks = trace_cracks(drawn("#.", ".#"))
    assert walk(cracks, 0, 0, RIGHT) == [
        (0, 0, RIGHT), (1, 0, DOWN), (1, 1, RIGHT), (2, 1, DOWN), (2, 2, LEFT), (1, 2, UP), (1, 1, LEFT), (0, 1, UP),
    ]  # fmt: skip
    cracks = trace_cracks(drawn(".#", "#."))
    assert walk(cracks, 1, 0, RIGHT) == [
        (1, 0, RIGHT), (2, 0, DOWN), (2, 1, LEFT), (1, 1, DOWN), (1, 2, LEFT), (0, 2, UP), (0, 1, RIGHT), (1, 1, UP),
    ]  # fmt: skip


def test_a_hole_is_a_curve_of_its_own_against_the_clock():
    cracks = trace_cracks(drawn("###", "#.#", "###"))
    assert walk(cracks, 1, 2, RIGHT) == [(1, 2, RIGHT), (2, 2, UP), (2, 1, LEFT), (1, 1, DOWN)]
    curve = number_curves(cracks.after)
    assert sorted(np.bincount(curve).tolist()) == [4, 12]
    assert sorted(enclosed_areas(cracks.starts, cracks.after, curve).tolist()) == [-1, 9]


def test_areas_of_curves_by_hand():
    """A triangle of 4 x 3 / 2 walked to the right, one of 1 x 1 / 2 walked to the left."""
    points = np.array([(0, 0), (4, 0), (0, 3), (7.5, 5), (7.5, 6), (8.5, 6)])
    after = np.array([1, 2, 0, 4, 5, 3])
    curve = number_curves(after)
    assert curve[0] == curve[1] == curve[2] != curve[3] == curve[4] == curve[5]
    areas = enclosed_areas(points, after, curve)
    assert areas[curve[0]] == 6 and areas[curve[3]] == -0.5


def test_an_empty_mask_has_no_cracks():
    cracks = trace_cracks(np.zeros((3, 4), bool))
    assert cracks.starts.shape == (0, 2) and len(cracks.ways) == len(cracks.after) == 0
    assert (cracks.number == -1).all()
