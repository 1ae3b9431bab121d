"""Crops of masks in parts: hand-placed blocks, and what views promise for any mask."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from adiff.crops import EACH, MOST, NEAR, PARTS, TOGETHER, Crop, blend_weight, crops_of, join_measures, near_groups
from adiff.errors import InputError
from adiff.geometry import Box, context_box, feather, paste_back, resize_mask, stitch


def blocks(shape, *boxes):
    """A mask of rectangles (left, top, right, bottom)."""
    mask = np.zeros(shape, dtype=bool)
    for left, top, right, bottom in boxes:
        mask[top:bottom, left:right] = True
    return mask


@st.composite
def masks(draw):
    height, width = draw(st.integers(4, 70)), draw(st.integers(4, 70))
    boxes = []
    for _ in range(draw(st.integers(1, 5))):
        left, top = draw(st.integers(0, width - 1)), draw(st.integers(0, height - 1))
        boxes.append((left, top, left + draw(st.integers(1, 12)), top + draw(st.integers(1, 12))))
    return blocks((height, width), *boxes)


def noise(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


FAR = blocks((600, 800), (10, 10, 30, 22), (34, 10, 52, 22), (700, 500, 740, 530))
"""Two parts 4 pixels apart, 20 and 18 wide, and one far away, 40 wide."""


def test_near_parts_share_a_crop_and_a_far_one_has_its_own():
    near, far = crops_of(FAR, 128)
    assert near.box == Box(0, 0, 105, 105)  # 2.5 x 42 pixels, shifted into the photo
    assert far.box == Box(670, 465, 770, 565)
    assert near.mask.sum() == 12 * 38 and far.mask.sum() == 40 * 30


def test_one_by_one_and_together():
    first, second, third = crops_of(FAR, 128, EACH)
    assert (first.box.width, second.box.width, third.box.width) == (50, 45, 100)
    assert first.mask[:, 30:].sum() == 0  # its neighbour is in view, and not painted
    (whole,) = crops_of(FAR, 128, TOGETHER)
    assert whole.box == context_box(FAR, 128) and np.array_equal(whole.mask, FAR[whole.box.slices])


def test_a_small_part_is_painted_at_the_size_that_it_has_alone():
    specks = blocks((1024, 1024), (100, 100, 112, 112), (900, 900, 912, 912))
    cells = [resize_mask(crop.mask, 512, 512).sum() / 64 for crop in crops_of(specks, 512)]
    assert cells == [36, 36]  # 12 pixels, four times as large: 6 x 6 latent cells
    (whole,) = crops_of(specks, 512, TOGETHER)
    assert resize_mask(whole.mask, 512, 512).sum() / 64 < 2  # in both: half a cell each


def test_parts_join_the_nearest_first_by_hand():
    row = [Box(left, 0, left + 40, 40) for left in (0, 300, 350, 900)]
    assert near_groups(row, (1000, 1000), 128) == [[0], [1, 2], [3]]  # a crop of 225, less than 6 x 40
    row[2] = Box(357, 0, 397, 40)  # 242.5
    assert near_groups(row, (1000, 1000), 128) == [[0], [1], [2], [3]]
    three = [Box(left, 0, left + 40, 40) for left in (0, 50, 98)]
    assert near_groups(three, (1000, 1000), 128) == [[0], [1, 2]]  # 88 long before 90; all three would be 138
    speck = [Box(0, 0, 40, 40), Box(57, 0, 60, 3)]  # 150 is one and a half times 100
    assert near_groups(speck, (1000, 1000), 128) == [[0, 1]]
    assert near_groups([speck[0], Box(58, 0, 61, 3)], (1000, 1000), 128) == [[0], [1]]


def test_a_ring_keeps_what_it_surrounds():
    ring = blocks((400, 400), (100, 100, 200, 200))
    ring[110:190, 110:190] = False
    ring[145:150, 145:150] = True
    assert len(crops_of(ring, 128)) == 1 and len(crops_of(ring, 128, EACH)) == 2


def test_a_spray_of_specks_is_a_texture_and_not_painted_one_by_one():
    spray = np.zeros((200, 200), dtype=bool)
    spray[::10, ::10] = True
    assert spray.sum() > MOST
    assert len(crops_of(spray, 128)) == 1
    with pytest.raises(InputError, match=f"400 separate parts, at most {MOST}"):
        crops_of(spray, 128, EACH)


def test_bad_input_is_said():
    with pytest.raises(InputError, match="mask \\(7x5\\) is empty"):
        crops_of(np.zeros((5, 7), dtype=bool), 128)
    with pytest.raises(InputError, match="'apart' is unknown; choose one of near together"):
        crops_of(FAR, 128, "apart")


@given(mask=masks(), native=st.integers(8, 300), parts=st.sampled_from(PARTS), context=st.floats(1, 6))
@settings(deadline=None, max_examples=150)
def test_every_pixel_is_painted_in_exactly_one_crop(mask, native, parts, context):
    painted = np.zeros(mask.shape, dtype=int)
    crops = crops_of(mask, native, parts, context=context)
    for crop in crops:
        assert crop.mask.shape == (crop.box.height, crop.box.width) and crop.mask.any()
        painted[crop.box.slices] += crop.mask
    assert np.array_equal(painted, mask)
    count = ndimage.label(mask, structure=np.ones((3, 3)))[1]
    assert len(crops) == {EACH: count, TOGETHER: 1}.get(parts, len(crops)) and len(crops) <= count


@given(mask=masks(), radius=st.floats(0, 9))
@settings(deadline=None, max_examples=100)
def test_the_feather_of_a_crop_is_that_of_the_photo(mask, radius):
    (crop,) = crops_of(mask, 8, TOGETHER, context=1)
    native = max(crop.box.width, crop.box.height)  # the photo's own pixels
    weight = np.zeros(mask.shape, dtype=np.float32)
    weight[crop.box.slices] = blend_weight(crop, mask.shape, radius, native)
    assert np.array_equal(weight, feather(mask, radius))


@given(mask=masks(), parts=st.sampled_from([NEAR, EACH]), radius=st.floats(0, 6))
@settings(deadline=None, max_examples=60)
def test_feathers_of_parts_are_zero_outside_and_reach_one_in_each(mask, parts, radius):
    for crop in crops_of(mask, 64, parts):
        weight = blend_weight(crop, mask.shape, radius, 64)
        assert (weight[~crop.mask] == 0).all() and (weight[crop.mask] > 0).all() and weight.max() == 1


def test_a_radius_of_the_model_s_pixels_shrinks_with_the_crop():
    mask = blocks((300, 300), (100, 100, 150, 150))
    (crop,) = crops_of(mask, 250)  # box of 125: two pixels of the crop to one of the photo
    assert crop.box.width == 125
    weight = blend_weight(crop, mask.shape, 8, 250)
    assert np.array_equal(weight, feather(mask, 4)[crop.box.slices])


@given(mask=masks(), parts=st.sampled_from(PARTS), size=st.integers(4, 64))
@settings(deadline=None, max_examples=60)
def test_cropping_and_putting_back_changes_nothing_outside_the_mask(mask, parts, size):
    photo = noise(*mask.shape, 3)
    out = photo.copy()
    for crop in crops_of(mask, size, parts):
        painted = np.full((size, size, 3), 7, np.uint8)
        weight = blend_weight(crop, mask.shape, 0, size)
        view = out[crop.box.slices]
        view[:] = paste_back(view, stitch(out, painted, crop.box)[crop.box.slices], weight)
    assert np.array_equal(out[~mask], photo[~mask])
    assert (out[mask] == 7).all()


def test_measures_of_several_crops_by_hand():
    crops = [Crop(Box(0, 0, 4, 4), blocks((4, 4), (0, 0, 3, 1))), Crop(Box(5, 5, 9, 9), blocks((4, 4), (1, 1, 2, 2)))]
    mask = blocks((10, 10), (0, 0, 3, 1), (6, 6, 7, 7))
    measures = [{"fill": 1.0, "leak": 0.0, "seam": 2.0, "novelty": 0.5, "area": 0.2},
                {"fill": 0.0, "leak": 3.0, "seam": 1.0, "novelty": 0.3, "area": 0.1, "likeness": 1.0}]  # fmt: skip
    joined = join_measures(measures, crops, mask)
    assert joined.pop("parts") == measures
    assert joined == {"fill": 0.75, "leak": 3.0, "seam": 2.0, "novelty": 0.3, "area": 0.04, "components": 2.0,
                      "border": 0.3}  # fmt: skip
    alone = join_measures(measures[:1], crops[:1], mask)
    assert alone["fill"] == 1.0 and alone["area"] == 0.04 and "parts" not in alone
