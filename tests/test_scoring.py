"""Per-pair measures on images of a few pixels (METHOD 6)."""

import numpy as np
import pytest

from adiff.scoring import area, components, fill, leak, measure_pair

MASK = np.array([[1, 1, 0, 0], [1, 1, 0, 1]], dtype=bool)
FLAT = np.full((2, 4, 3), 100, dtype=np.uint8)


def changed(*changes):
    image = FLAT.copy()
    for y, x, channel, value in changes:
        image[y, x, channel] = value
    return image


def test_fill_counts_mask_pixels_changed_by_more_than_ten_in_any_channel():
    output = changed((0, 0, 0, 111), (0, 1, 2, 89), (1, 0, 1, 110), (0, 2, 0, 255))
    assert fill(output, FLAT, MASK) == pytest.approx(2 / 5)
    assert fill(output, FLAT, MASK, threshold=9) == pytest.approx(3 / 5)
    assert fill(FLAT, FLAT, MASK) == 0


def test_fill_is_measured_against_the_round_trip():
    output = changed((0, 0, 0, 130))
    assert fill(output, output, MASK) == 0
    assert fill(output, FLAT, MASK) == pytest.approx(1 / 5)


def test_fill_does_not_wrap_around():
    assert fill(np.full((2, 4), 2, np.uint8), np.full((2, 4), 255, np.uint8), MASK) == 1


def test_leak_is_the_largest_change_outside():
    output = changed((0, 0, 0, 255), (0, 2, 1, 93), (1, 2, 2, 103))
    assert leak(output, FLAT, MASK) == 7
    assert leak(changed((0, 0, 0, 255)), FLAT, MASK) == 0
    assert leak(output, FLAT, np.ones((2, 4), dtype=bool)) == 0
    deep = np.zeros((2, 4), dtype=np.uint16)
    assert leak(deep + np.uint16(65535), deep, MASK) == 65535


def test_area_and_components():
    assert area(MASK) == 5 / 8 and components(MASK) == 2
    assert area(np.zeros((2, 2), dtype=bool)) == 0 and components(np.zeros((2, 2), dtype=bool)) == 0
    assert fill(FLAT, FLAT, np.zeros((2, 4), dtype=bool)) == 0


def test_measure_pair_holds_all_of_them():
    output = changed((0, 0, 0, 150), (0, 3, 0, 104))
    measures = measure_pair(output, FLAT, changed((0, 0, 0, 145), (0, 3, 0, 90)), MASK)
    assert measures == {"fill": 0.0, "leak": 4.0, "area": 0.625, "components": 2.0}
    assert all(type(value) is float for value in measures.values())


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="expected the same size"):
        fill(FLAT, FLAT[:1], MASK)
    with pytest.raises(ValueError, match="expected the same size"):
        leak(FLAT, FLAT, MASK[:1])
    with pytest.raises(ValueError, match="expected uint8"):
        fill(FLAT / 255, FLAT / 255, MASK)
