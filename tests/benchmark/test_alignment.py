"""How novel each place of an image is, and masks beside it, on pictures of which it is known."""

import numpy as np
import pytest

from adiff.benchmark import alignment as module
from adiff.benchmark.alignment import SIDE, alignment, novelty_of

BOX = np.s_[40:72, 30:70]


def picture(box=BOX, size=SIDE, level=220):
    """Bands of two levels with grain, as many places alike, and a rectangle of another level; (image, mask)."""
    rows = np.where(np.arange(size) * 8 // size % 2, 90, 140)[:, None, None]
    image = rows + np.random.default_rng(0).integers(-3, 4, (size, size, 3))
    mask = np.zeros((size, size), bool)
    if box is not None:
        mask[box] = True
        image[mask] = level
    return image.astype(np.uint8), mask


def test_novelty_is_the_distance_to_colours_far_away():
    """In a plain image of 100 all is alike; one half of 200, and it still is: every colour has its like far away.

    A box of 30 levels more in each channel is as far from all else in its middle: by 30 levels at the two finer scales
    and by 29 at the widest of 6 pixels: sqrt(3 (30^2 + 30^2 + 29^2)) = 89.
    """
    plain = np.full((SIDE, SIDE, 3), 100, np.uint8)
    assert novelty_of(plain).max() < 0.1
    halves = plain.copy()
    halves[:, 64:] = 200
    assert novelty_of(halves).max() < 0.5
    boxed = plain.copy()
    boxed[48:80, 48:80] += 30
    c = novelty_of(boxed)
    assert c[64, 64] == pytest.approx(89, rel=0.01) and c[:20].max() < 0.5


def test_alignment_is_the_overlap_with_as_many_pixels_beyond_chance(monkeypatch):
    """c falls from row to row. A mask of the first 32 rows is the change: 1. One of rows 16 to 47 shares half of it:

    o = 16 / 48, a = 1 / 4, r = 1 / 7, (1/3 - 1/7) / (1 - 1/7) = 2 / 9. One of rows 32 to 63 shares nothing: -1 / 6.
    """
    falling = np.repeat(np.arange(SIDE, 0, -1, dtype=np.float32)[:, None], SIDE, axis=1)
    monkeypatch.setattr(module, "novelty_of", lambda image: falling)

    def aligned(first, rows):
        mask = np.zeros((SIDE, SIDE), bool)
        mask[first : first + rows] = True
        return alignment(None, mask)

    assert aligned(0, 32) == pytest.approx(1) and aligned(16, 32) == pytest.approx(2 / 9)
    assert aligned(32, 32) == pytest.approx(-1 / 6) and aligned(0, 0) == aligned(0, SIDE) == 0


def test_a_true_mask_is_aligned_and_another_is_not():
    image, mask = picture()
    assert alignment(image, mask) > 0.5 and alignment(image, np.roll(mask, 50, axis=1)) < 0.1


def test_photos_of_any_size_compare():
    small, large = (alignment(*picture(np.s_[5 * k : 9 * k, 4 * k : 9 * k], 16 * k)) for k in (8, 16))
    assert small == pytest.approx(large, abs=0.1)
