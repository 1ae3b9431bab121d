"""The part image and the mask read off a generated one."""

import numpy as np
import pytest

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


@pytest.mark.parametrize("level", [40, 230])
def test_the_mask_is_read_back_off_a_noisy_part(level):
    rng = np.random.default_rng(0)
    mask = np.zeros((64, 64), bool)
    mask[10:30, 20:50] = True
    image = np.full((64, 64, 3), level, np.uint8)
    part = (part_of(image, mask) + rng.normal(0, 2, image.shape)).round().clip(0, 255).astype(np.uint8)
    part[50, 5] = level  # a speck
    part[20, 30] = 127  # a pin hole
    assert np.array_equal(mask_of(part), mask)


def test_plain_grey_has_no_mask_and_the_autoencoders_grey_is_the_reference():
    rng = np.random.default_rng(0)
    grey = rng.integers(125, 131, (64, 64, 3)).astype(np.uint8)
    assert not mask_of(grey).any()
    tinted = np.full((64, 64, 3), (90, 127, 160), np.uint8)
    tinted[:20, :, 0], tinted[20:, :, 0] = 30, 120
    part = tinted.copy()
    part[30:40, 5:25] = 200
    assert not mask_of(tinted, tinted).any()
    assert mask_of(part, tinted).sum() == 200 and mask_of(part).sum() > 200


def test_a_tint_of_the_ground_and_stripes_along_the_border_are_not_the_defect():
    part = np.full((64, 64, 3), (150, 128, 110), np.uint8)
    part[:, 3:5] = 60
    part[20:30, 25:40] = 230
    part[2:7, 50:58] = 230  # small, at the border
    expected = np.zeros((64, 64), bool)
    expected[20:30, 25:40] = expected[2:7, 50:58] = True
    assert np.array_equal(mask_of(part), expected)
    whole = np.full((64, 64, 3), 230, np.uint8)  # a defect that covers nearly all is no tint
    whole[:10] = 128
    assert mask_of(whole)[20:].all() and not mask_of(whole)[:10].any()
