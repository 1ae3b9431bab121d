"""Masks varied from the shots': in the picture whole, of sizes and directions like theirs, and seldom the same."""

import math

import numpy as np
import pytest

from adiff.errors import InputError
from adiff.placement import direction
from adiff.variation import STRETCH, MaskVariation


def bar(angle, length=30, width=4, size=64):
    """A bar through the picture's middle, degrees counterclockwise."""
    y, x = np.mgrid[:size, :size] - size / 2
    along = x * math.cos(math.radians(angle)) - y * math.sin(math.radians(angle))
    across = x * math.sin(math.radians(angle)) + y * math.cos(math.radians(angle))
    return (abs(along) < length / 2) & (abs(across) < width / 2)


def draws(variation, count, size=(64, 64)):
    return [variation.draw(size, np.random.default_rng(i)) for i in range(count)]


def test_sizes_and_directions_lie_within_the_shots_range():
    shots = [bar(40, 24), bar(60, 40)]
    areas = [shot.sum() for shot in shots]
    for one in draws(MaskVariation(shots), 40):
        assert 0.85 * min(areas) <= one.mask.sum() <= 1.15 * max(areas)
        assert abs(direction(one.mask) - 50) <= 10 + 4  # 10 to either side, and the cells' corners


def test_pictures_of_any_size_get_masks_of_the_same_share():
    variation = MaskVariation([bar(0)])
    share = bar(0).mean()
    for size in ((64, 64), (200, 200)):
        for one in draws(variation, 8, size):
            assert one.mask.shape == size and one.mask.mean() == pytest.approx(share, rel=0.3)
    for one in draws(variation, 8, (64, 100)):  # the short side counts
        assert one.mask.sum() == pytest.approx(bar(0).sum(), rel=0.3)


def test_all_shots_are_used_and_no_two_masks_are_alike():
    found = draws(MaskVariation([bar(0), bar(90), bar(45)]), 30)
    assert {one.shot for one in found} == {0, 1, 2}
    assert len({one.mask.tobytes() for one in found}) == 30
    places = np.array([np.argwhere(one.mask).mean(0) for one in found])
    assert (np.ptp(places, axis=0) > 20).all()


def test_the_same_generator_gives_the_same_mask():
    one, other = (MaskVariation([bar(0), bar(30)]).draw((64, 64), np.random.default_rng(5)) for _ in range(2))
    assert np.array_equal(one.mask, other.mask)
    assert (one.shot, one.turn, one.scale) == (other.shot, other.turn, other.scale)


def test_a_mask_is_stretched_by_at_most_its_bound():
    square = np.zeros((64, 64), bool)
    square[10:30, 10:30] = True
    from adiff.variation import _stretched

    sides = [np.argwhere(_stretched(square, np.random.default_rng(i))).max(0) + 1 for i in range(50)]
    ratios = [max(rows / columns, columns / rows) for rows, columns in sides]
    assert 1.3 < max(ratios) <= STRETCH**2 * 1.05


def test_mirrored_shapes_occur():
    hook = np.zeros((64, 64), bool)
    hook[10:40, 10:13] = hook[37:40, 10:25] = True
    from adiff.variation import _stretched

    corners = set()
    for i in range(20):
        shape = _stretched(hook, np.random.default_rng(i))
        columns = np.flatnonzero(shape.any(0))
        corners.add(bool(shape[0, columns[0]]))
    assert corners == {True, False}


def test_a_mask_of_one_pixel_and_one_of_the_whole_picture():
    dot = np.zeros((64, 64), bool)
    dot[5, 5] = True
    assert all(one.mask.sum() >= 1 for one in draws(MaskVariation([dot]), 5))
    with pytest.raises(InputError, match="none of 1 shots' masks fits into 64 x 64 pixels: larger than the picture"):
        for one in draws(MaskVariation([np.ones((64, 64), bool)]), 50):
            assert one.mask.sum() > 3000


@pytest.mark.parametrize("shots", [[], [np.zeros((8, 8), bool)]])
def test_no_shots_and_empty_ones_are_refused(shots):
    with pytest.raises(InputError):
        MaskVariation(shots)
