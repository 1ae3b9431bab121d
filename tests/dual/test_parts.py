"""The part image and the mask read off a generated one."""

import numpy as np
import pytest
from scipy import ndimage

from adiff.dual.parts import mask_of, otsu, part_of


def test_a_part_is_the_image_inside_and_grey_outside():
    image = np.arange(2 * 2 * 3, dtype=np.uint8).reshape(2, 2, 3)
    part = part_of(image, np.array([[True, False], [False, True]]))
    scaled = part / 127.5 - 1  # image * mask in [-1, 1]
    assert np.array_equal(part[0, 0], image[0, 0]) and np.array_equal(part[1, 1], image[1, 1])
    assert (scaled[0, 1] == 0).all() and (scaled[1, 0] == 0).all()


def test_otsu_parts_two_values_in_the_middle_of_their_gap():
    values = np.array([0.0] * 90 + [10.0] * 5 + [100.0] * 5)
    assert 10 < otsu(values) < 100  # by hand: between-class variance 0.95 * 0.05 * (100 - 0.526)^2 = 470 against
    # 0.9 * 0.1 * (55 - 0)^2 = 272 for a threshold below 10
    assert abs(otsu(np.array([0.0, 0.0, 1.0, 1.0])) - 0.5) < 0.01
    assert otsu(np.full(4, 3.0)) == 3.0


def test_otsu_of_a_histogram_is_the_best_of_all_thresholds():
    values = np.random.default_rng(0).integers(0, 256, 500).astype(float) ** 2 / 255

    def between(threshold):
        low, high = values[values <= threshold], values[values > threshold]
        return len(low) * len(high) * (low.mean() - high.mean()) ** 2 if len(low) and len(high) else 0

    assert between(otsu(values)) >= 0.999 * max(between(threshold) for threshold in values)


def off_by_more_than_a_pixel(found, mask):
    """Pixels in which masks differ that are not at the outline: corners are rounded."""
    square = np.ones((3, 3))
    outline = ndimage.binary_dilation(mask, square) & ~ndimage.binary_erosion(mask, square)
    return int(((found ^ mask) & ~outline).sum())


@pytest.mark.parametrize("level", [40, 230])
def test_the_mask_is_read_back_off_a_noisy_part(level):
    rng = np.random.default_rng(0)
    mask = np.zeros((64, 64), bool)
    mask[10:30, 20:50] = True
    image = np.full((64, 64, 3), level, np.uint8)
    part = (part_of(image, mask) + rng.normal(0, 2, image.shape)).round().clip(0, 255).astype(np.uint8)
    part[50, 5] = level  # a speck
    part[20, 30] = 127  # a pin hole
    assert off_by_more_than_a_pixel(mask_of(part), mask) == 0


def rough_part(seed):
    """Two discs whose inside is rough, a third of it nearly grey, on a noisy tinted ground with marks at the border."""
    rng, (rows, columns) = np.random.default_rng(seed), np.indices((128, 128))
    mask = np.hypot(rows - 50, columns - 60) < 22
    mask |= np.hypot(rows - 100, columns - 100) < 11  # a quarter of the first's area: a part of the defect
    blocks = rng.choice([-80, -70, 75, 90, 6, -6], (43, 43, 1)).repeat(3, 0).repeat(3, 1)[:128, :128]
    part = np.array([140, 128, 118]) + np.where(mask[..., None], blocks, 0) + rng.normal(0, 5, (128, 128, 3))
    part[:6, :9] += 60
    part[120:, 122:] -= 50
    for row, column in rng.integers(10, 118, (6, 2)):
        part[row : row + 4, column : column + 5] += 45  # crumbs
    return part.round().clip(0, 255).astype(np.uint8), mask


@pytest.mark.parametrize("seed", range(4))
def test_a_rough_part_is_read_whole_without_crumbs_and_marks_at_the_border(seed):
    part, mask = rough_part(seed)
    found = mask_of(part)
    assert (found & mask).sum() > 0.75 * (found | mask).sum()  # 0.62 to 0.68 by Otsu's threshold alone
    assert ndimage.label(found, np.ones((3, 3)))[1] == 2
    assert not found[:8].any() and not found[119:].any()


def test_plain_grey_has_no_mask_and_the_autoencoders_grey_is_the_reference():
    rng = np.random.default_rng(0)
    grey = rng.integers(125, 131, (64, 64, 3)).astype(np.uint8)
    assert not mask_of(grey).any()
    tinted = np.full((64, 64, 3), (90, 127, 160), np.uint8)
    tinted[:20, :, 0], tinted[20:, :, 0] = 30, 120
    part = tinted.copy()
    part[30:40, 5:25] = 200
    assert not mask_of(tinted, tinted).any()
    mask = np.zeros((64, 64), bool)
    mask[30:40, 5:25] = True
    assert off_by_more_than_a_pixel(mask_of(part, tinted), mask) == 0 < off_by_more_than_a_pixel(mask_of(part), mask)


def test_a_tint_of_the_ground_and_stripes_along_the_border_are_not_the_defect():
    part = np.full((64, 64, 3), (150, 128, 110), np.uint8)
    part[:, 3:5] = 60
    part[20:30, 25:40] = 230
    part[2:7, 50:58] = 230  # small, at the border
    expected = np.zeros((64, 64), bool)
    expected[20:30, 25:40] = expected[2:7, 50:58] = True
    assert off_by_more_than_a_pixel(mask_of(part), expected) == 0
    whole = np.full((64, 64, 3), 230, np.uint8)  # a defect that covers nearly all is no tint
    whole[:10] = 128
    assert mask_of(whole)[20:].all() and not mask_of(whole)[:10].any()


@pytest.mark.parametrize("level", [40, 120, 250])
def test_a_strong_tint_is_the_grounds_where_nothing_is_grey(level):
    part = np.full((64, 64, 3), (190, 170, 150), np.uint8)
    part[20:32, 25:40] = level
    expected = np.zeros((64, 64), bool)
    expected[20:32, 25:40] = True
    assert off_by_more_than_a_pixel(mask_of(part), expected) == 0


def test_stripes_are_taken_off_what_they_touch_and_a_defect_at_the_border_stays():
    part = np.full((128, 128, 3), 128, np.uint8)
    expected = np.zeros((128, 128), bool)
    expected[90:128, 40:80] = True  # from the lower border inwards, as long there as a stripe
    part[expected] = 230
    framed = part.copy()
    framed[:4] = framed[:, :4] = framed[124:, :60] = 230  # joined with each other and with the defect
    assert off_by_more_than_a_pixel(mask_of(part), expected) == 0
    assert off_by_more_than_a_pixel(mask_of(framed)[:112], expected[:112]) == 0
    assert not mask_of(framed)[:80].any() and not mask_of(framed)[:, :12].any()
