"""Per-pair measures on images of a few pixels (METHOD 6)."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from adiff.errors import InputError
from adiff.library import Defect, Library
from adiff.scoring import (
    ShotReference,
    area,
    border,
    components,
    describe,
    fill,
    leak,
    likeness,
    measure_pair,
    novelty,
    seam,
    spread,
)

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


def test_border_is_the_largest_share_of_one_line_of_the_image():
    mask = np.zeros((4, 5), bool)
    mask[0, :2] = mask[1:4, 4] = True
    assert border(mask) == 3 / 4  # the right column; of the top row it covers 2 / 5
    mask[:, 4] = False
    assert border(mask) == 2 / 5
    assert border(np.pad(np.ones((2, 2), bool), 1)) == 0


def grey(*rows):
    return np.array(rows, np.uint8)


def test_seam_compares_pixels_two_apart_across_the_border():
    """(J(output) + 1) / (J(y) + 1), for one pixel: J is the mean over its four partners."""
    mask = np.zeros((5, 5), bool)
    mask[2, 2] = True
    normal = np.full((5, 5), 100, np.uint8)
    output = normal.copy()
    output[2, 2] = 130
    assert seam(output, normal, mask) == 31
    normal[0, 2] = output[0, 2] = 104
    assert seam(output, normal, mask) == pytest.approx(((26 + 3 * 30) / 4 + 1) / (4 / 4 + 1))
    assert seam(normal, normal, mask) == 1
    normal[1, 1] = 0  # no partner
    assert seam(normal, output, mask) == pytest.approx(2 / 30)


def test_seam_takes_the_channel_that_jumps_most():
    normal = np.full((1, 4, 3), 100, np.uint8)
    output = normal.copy()
    output[0, 0] = (110, 95, 100)
    output[0, 1] = (100, 100, 70)
    mask = np.array([[True, True, False, False]])
    assert seam(output, normal, mask) == (10 + 30) / 2 + 1


def test_seam_sees_a_feathered_step_in_full():
    normal, output = grey([100] * 8), grey([100, 100, 120, 140, 140, 120, 100, 100])
    mask = np.array([[0, 0, 1, 1, 1, 1, 0, 0]], bool)
    assert seam(output, normal, mask) == (20 + 40 + 40 + 20) / 4 + 1


def test_seam_of_a_line_one_pixel_wide_looks_at_both_sides():
    sides = [100, 100, 100, 110, 120, 120, 120]
    normal = grey(sides, sides)
    output, mask = normal.copy(), np.zeros((2, 7), bool)
    output[:, 3], mask[:, 3] = 140, True
    assert seam(output, normal, mask) == pytest.approx(((40 + 20) / 2 + 1) / ((10 + 10) / 2 + 1))


def test_the_image_s_border_is_no_border_of_the_mask():
    normal = np.full((4, 4), 100, np.uint8)
    output, mask = normal.copy(), np.zeros((4, 4), bool)
    output[0], mask[0] = 120, True
    assert seam(output, normal, mask) == 21  # rows 0 and 2, no other pairs
    assert seam(output, normal, np.ones((4, 4), bool)) == seam(output, normal, np.zeros((4, 4), bool)) == 1


def placed(height, width, top, left, shape):
    mask = np.zeros((height, width), bool)
    mask[top : top + len(shape), left : left + len(shape[0])] = shape
    return mask


HOOK = np.array([[1, 0, 0], [1, 0, 0], [1, 1, 0]], bool)


def test_novelty_is_nothing_for_a_shot_s_shape_moved_turned_or_flipped():
    shots = placed(12, 12, 1, 1, HOOK)[None]
    for shape in (HOOK, np.rot90(HOOK), HOOK[:, ::-1]):
        assert novelty(placed(12, 12, 7, 6, shape), shots) == 0
    bar = placed(12, 12, 5, 5, np.ones((1, 3), bool))
    assert novelty(bar, shots) == pytest.approx(1 - 3 / 4)
    assert novelty(bar, np.concatenate([shots, placed(12, 12, 0, 0, np.ones((3, 1), bool))[None]])) == 0


def test_novelty_knows_a_shot_however_its_photo_went_into_the_square():
    """On a photo twice as wide as high: its mask squeezed with it, or a square mask laid somewhere along it."""
    shots = placed(8, 8, 2, 1, np.ones((4, 2), bool))[None]
    squeezed_from = placed(8, 16, 2, 2, np.ones((4, 4), bool))
    laid_along = placed(16, 32, 4, 20, np.ones((8, 4), bool))
    assert novelty(squeezed_from, shots) == novelty(laid_along, shots) == 0


class Pooled:
    """Latents are pixels pooled by 8, red and blue; 32 pixels are native."""

    native_size, fingerprint = 32, "f" * 64

    def encode(self, images):
        return F.avg_pool2d(images, 8)[:, ::2]


def test_a_descriptor_is_mean_and_deviation_of_the_latents_by_the_mask_s_share_of_each_cell():
    """One cell whole and a quarter of its neighbour: shares 0.8 and 0.2; red is 1 and -1 there, blue 1 in both."""
    image = np.full((32, 32, 3), 77, np.uint8)
    image[8:16, 8:16] = 255
    image[8:16, 16:24] = (0, 9, 255)
    mask = placed(32, 32, 8, 8, np.ones((8, 10), bool))
    (descriptor,) = describe(Pooled(), [image], [mask])
    assert descriptor == pytest.approx([0.6, 1, (0.8 * 0.4**2 + 0.2 * 1.6**2) ** 0.5, 0], abs=1e-5)
    assert descriptor.dtype == np.float32


def test_small_defects_are_described_in_their_surroundings_at_the_model_s_size():
    image = np.zeros((96, 96, 3), np.uint8)
    image[40:56, 40:56] = 255  # 16 pixels: the context is 40, of which the model sees 32
    mask = placed(96, 96, 40, 40, np.ones((16, 16), bool))
    near = describe(Pooled(), [image[28:68, 28:68]], [mask[28:68, 28:68]])
    assert np.array_equal(describe(Pooled(), [image], [mask]), near)
    whole = describe(Pooled(), [image], [np.ones((96, 96), bool)])
    assert near[0, 0] == pytest.approx(2 * 0.8**2 - 1, abs=0.05)  # 12.8 pixels lie over two cells, 6.4 of 8 on each
    assert whole[0, 0] == pytest.approx(2 / 36 - 1, abs=0.05)


def test_likeness_is_the_distance_to_the_nearest_shot():
    shots = np.array([[0, 0], [3, 4], [10, 0]], np.float32)
    assert likeness(np.array([3, 0], np.float32), shots) == 3
    assert likeness(shots[1], shots) == 0
    assert spread(shots) == 5  # 5, 5 and the root of 65
    assert spread(shots[:1]) is None
    with pytest.raises(InputError, match=r"shape \(3, 2\), this model's 3 numbers"):
        likeness(np.zeros(3), shots)


def test_a_library_s_shots_are_compared_on_their_own_base_only():
    key, features = ("metal", "rust"), torch.tensor([[0.0, 1.0], [3.0, 5.0]])
    masks = np.ones((2, 4, 4), bool)
    entry = Defect(*key, likeness=features, shot_masks=masks)
    library = Library({key: entry}, "f" * 64, "demo", 4)
    shots = ShotReference.of(library, key, Pooled())
    assert np.array_equal(shots.descriptors, features) and shots.masks is masks and shots.spread == 5
    assert ShotReference.of(library, key, SimpleNamespace(fingerprint="e" * 64)).descriptors is None
    older = ShotReference.of(Library({key: Defect(*key)}, "f" * 64, "demo", 4), key, Pooled())
    assert (older.masks, older.descriptors, older.spread) == (None, None, None)


def test_measure_pair_holds_all_of_them():
    output = changed((0, 0, 0, 150), (0, 3, 0, 104))
    given = output, FLAT, changed((0, 0, 0, 145), (0, 3, 0, 90)), MASK
    # seam: columns 0 and 2, 1 and 3 in both rows, but for the lower row's 1 and 3, which both are in the mask
    plain = {"fill": 0.0, "leak": 4.0, "seam": (50 + 4 + 0) / 3 + 1, "area": 0.625, "components": 2.0, "border": 1.0,
             "refined_iou": 1.0}  # fmt: skip
    alone = {"likeness": None, "likeness_shots": None, "novelty": None}
    measures = measure_pair(*given)
    assert measures == pytest.approx({**plain, **alone})
    assert all(type(value) is float for value in measures.values() if value is not None)
    shots = ShotReference(np.ones((1, 4, 4), bool), np.array([[0, 0], [3, 4]], np.float32))
    compared = {"likeness": 3.0, "likeness_shots": 5.0, "novelty": novelty(MASK, shots.masks)}
    assert measure_pair(*given, shots, np.array([0, 3], np.float32)) == pytest.approx({**plain, **compared})
    unseen = {"likeness": None, "likeness_shots": 5.0, "novelty": compared["novelty"]}
    assert measure_pair(*given, shots) == pytest.approx({**plain, **unseen})
    bare = ShotReference(np.ones((0, 4, 4), bool), shots.descriptors[:1])
    single = {"likeness": 3.0, "likeness_shots": None, "novelty": None}
    assert measure_pair(*given, bare, np.array([0, 3], np.float32)) == pytest.approx({**plain, **single})


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="expected the same size"):
        fill(FLAT, FLAT[:1], MASK)
    with pytest.raises(ValueError, match="expected the same size"):
        leak(FLAT, FLAT, MASK[:1])
    with pytest.raises(ValueError, match="expected uint8"):
        fill(FLAT / 255, FLAT / 255, MASK)
