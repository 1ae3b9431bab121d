"""Geometry: what crops, stitches and pastes promise for any mask."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from adiff.errors import InputError
from adiff.geometry import (
    Box,
    context_box,
    crop_mask,
    crop_resize,
    feather,
    mask_box,
    needs_crop,
    paste_back,
    resize_mask,
    stitch,
)

sides = st.integers(1, 60)


@st.composite
def masks(draw, least=1, most=60):
    """Masks of any size with at least one pixel on: some rectangles, some single pixels."""
    height, width = draw(st.integers(least, most)), draw(st.integers(least, most))
    mask = np.zeros((height, width), dtype=bool)
    for _ in range(draw(st.integers(1, 4))):
        top, left = draw(st.integers(0, height - 1)), draw(st.integers(0, width - 1))
        bottom, right = draw(st.integers(top + 1, height)), draw(st.integers(left + 1, width))
        if draw(st.booleans()):
            bottom, right = top + 1, left + 1
        mask[top:bottom, left:right] = True
    return mask


def noise(*shape, seed=0, dtype=np.uint8):
    return np.random.default_rng(seed).integers(0, np.iinfo(dtype).max + 1, size=shape, dtype=dtype)


# boxes


def test_mask_box_by_hand():
    mask = np.zeros((10, 20), dtype=bool)
    mask[2, 5] = mask[7, 3] = True
    assert mask_box(mask) == Box(left=3, top=2, right=6, bottom=8)
    assert (mask_box(mask).width, mask_box(mask).height) == (3, 6)


def test_context_box_by_hand():
    mask = np.zeros((200, 300), dtype=bool)
    mask[100:120, 150:190] = True  # longest side 40, centre (170, 110)
    assert context_box(mask, 128) == Box(120, 60, 220, 160)


def test_context_box_shifts_into_the_image():
    mask = np.zeros((200, 300), dtype=bool)
    mask[0:20, 290:300] = True
    assert context_box(mask, 128) == Box(250, 0, 300, 50)


def test_context_box_is_never_smaller_than_the_enlargement_allows():
    mask = np.zeros((600, 600), dtype=bool)
    mask[300, 300] = True
    assert context_box(mask, 128).width == 32
    assert context_box(mask, 512).width == 128
    assert context_box(mask, 128, minimum=100).width == 100


def test_context_box_stretches_for_a_mask_longer_than_the_short_side():
    mask = np.zeros((50, 300), dtype=bool)
    mask[20:22, 40:140] = True
    box = context_box(mask, 128)
    assert (box.width, box.height) == (100, 50) and box.left <= 40 and box.right >= 140


def test_context_box_of_an_empty_mask_is_an_input_error():
    with pytest.raises(InputError, match="mask \\(7x5\\) is empty"):
        context_box(np.zeros((5, 7), dtype=bool), 128)


def test_context_below_one_is_refused():
    with pytest.raises(ValueError, match="context 0.5"):
        context_box(np.ones((5, 7), dtype=bool), 128, context=0.5)


@given(mask=masks(), native=st.integers(1, 300), context=st.floats(1, 8), minimum=st.integers(1, 100))
@settings(deadline=None, max_examples=200)
def test_context_box_holds_the_mask_and_lies_in_the_image(mask, native, context, minimum):
    box = context_box(mask, native, context=context, minimum=minimum)
    height, width = mask.shape
    assert 0 <= box.left < box.right <= width and 0 <= box.top < box.bottom <= height
    assert mask[box.slices].sum() == mask.sum()
    bounds = mask_box(mask)
    if box.width != box.height:  # as square as the image allows
        assert max(bounds.width, bounds.height) > min(height, width)
        assert min(box.width, box.height) == min(height, width)


def test_needs_crop_by_size_and_by_cells():
    mask = np.zeros((128, 128), dtype=bool)
    mask[:32, :31] = True  # 15.5 cells of 8 x 8 pixels
    assert needs_crop(mask, native=128, downscale=8)
    mask[:32, :32] = True  # 16 cells
    assert not needs_crop(mask, native=128, downscale=8)
    wide = np.ones((64, 129), dtype=bool)
    assert needs_crop(wide, native=128, downscale=8)


def test_needs_crop_counts_cells_at_the_models_size():
    mask = np.zeros((64, 64), dtype=bool)
    mask[:16, :16] = True  # 1/16 of the image: 16 of the 256 cells
    assert not needs_crop(mask, native=128, downscale=8)
    assert needs_crop(mask, native=64, downscale=8)


# crop and stitch


def test_crop_of_the_models_size_is_a_copy():
    image = noise(40, 50, 3)
    assert np.array_equal(crop_resize(image, Box(10, 5, 26, 21), 16), image[5:21, 10:26])


def test_crop_resize_keeps_a_flat_colour():
    image = np.full((40, 50, 3), (10, 120, 250), dtype=np.uint8)
    assert (crop_resize(image, Box(0, 0, 37, 40), 16) == (10, 120, 250)).all()


def test_box_outside_the_image_is_refused():
    with pytest.raises(ValueError, match="does not lie in an image of 50x40"):
        crop_resize(noise(40, 50, 3), Box(20, 0, 51, 10), 16)


@given(height=st.integers(8, 40), width=st.integers(8, 40), side=st.integers(1, 8), data=st.data())
@settings(deadline=None, max_examples=50)
def test_crop_and_stitch_at_native_size_change_nothing(height, width, side, data):
    left, top = data.draw(st.integers(0, width - side)), data.draw(st.integers(0, height - side))
    image, box = noise(height, width, 3), Box(left, top, left + side, top + side)
    assert np.array_equal(stitch(image, crop_resize(image, box, side), box), image)


def test_stitch_replaces_the_box_and_nothing_else():
    image = noise(30, 30, 3)
    box = Box(3, 4, 13, 24)
    out = stitch(image, np.full((64, 64, 3), 7, dtype=np.uint8), box)
    assert (out[box.slices] == 7).all()
    out[box.slices] = image[box.slices]
    assert np.array_equal(out, image)


# masks resized


def test_resize_mask_from_half_covered():
    mask = np.zeros((4, 8), dtype=bool)
    mask[0:2, 0:1] = True  # half of the first target pixel
    mask[0:4, 4:8] = True
    mask[2, 2] = True  # a quarter, but a part of its own, that would vanish
    small = resize_mask(mask, 2, 4)
    assert small.tolist() == [[True, False, True, True], [False, True, True, True]]


def test_resize_mask_drops_the_thin_rim_of_a_large_part():
    mask = np.zeros((12, 12), dtype=bool)
    mask[0:9, 0:9] = True
    mask[9, 4] = True  # a ninth of a target pixel
    small = resize_mask(mask, 4, 4)
    assert small[:3, :3].all() and small.sum() == 9


def test_resize_mask_gives_rows_in_order_as_files_and_tensors_ask():
    mask = np.zeros((96, 80), bool)
    mask[20:60, 30:50] = mask[5, 3:70] = True
    assert all(resize_mask(mask, *size).flags.c_contiguous for size in ((64, 64), (48, 40), (128, 100)))


def test_resize_mask_keeps_a_scratch_whole():
    mask = np.zeros((400, 400), dtype=bool)
    mask[np.arange(50, 350), np.arange(50, 350)] = True
    mask[300:380, 20:90] = True  # a blob beside it must not cost it its life
    small = resize_mask(mask, 64, 64)
    diagonal = np.arange(8, 56)
    assert small[diagonal, diagonal].all()


def test_resize_mask_does_not_break_a_line_into_dots():
    mask = np.zeros((90, 90), dtype=bool)
    for i in range(90):
        mask[i, i // 2 : i // 2 + 2] = True  # steep, two pixels wide, to a third of the size
    small = resize_mask(mask, 30, 30)
    assert small.any(axis=1).all() and ndimage.label(small, structure=np.ones((3, 3)))[1] == 1


def test_resize_mask_up_and_down_again_is_identity():
    mask = np.random.default_rng(3).random((9, 13)) < 0.4
    assert np.array_equal(resize_mask(resize_mask(mask, 27, 39), 9, 13), mask)


@given(mask=masks(), size=st.integers(1, 40))
@settings(deadline=None, max_examples=150)
def test_crop_mask_loses_no_part(mask, size):
    box = context_box(mask, size)
    small = crop_mask(mask, box, size)
    assert small.shape == (size, size) and small.any()
    labels, count = ndimage.label(mask[box.slices], structure=np.ones((3, 3)))
    y = (np.arange(size) + 0.5) * box.height / size
    x = (np.arange(size) + 0.5) * box.width / size
    for part in range(1, count + 1):
        rows, columns = np.nonzero(labels == part)
        near = (y > rows.min() - box.height / size) & (y < rows.max() + 1 + box.height / size)
        nearby = (x > columns.min() - box.width / size) & (x < columns.max() + 1 + box.width / size)
        assert small[np.ix_(near, nearby)].any()


# feather and paste


def test_feather_by_hand():
    mask = np.zeros((9, 9), dtype=bool)
    mask[1:8, 1:8] = True
    row = feather(mask, 4)[4]
    assert row.tolist() == [0, 0.25, 0.5, 0.75, 1, 0.75, 0.5, 0.25, 0]


@pytest.mark.parametrize("radius", [0, 1])
def test_feather_without_radius_is_the_mask(radius):
    mask = np.eye(5, dtype=bool)
    assert np.array_equal(feather(mask, radius), mask.astype(np.float32))


def test_feather_of_a_scratch_reaches_one_beside_a_blob():
    mask = np.zeros((60, 60), dtype=bool)
    mask[10:40, 10:40] = True
    mask[25, 40:58] = True
    alpha = feather(mask, 8)
    assert (alpha[25, 46:58] == 1).all()
    assert alpha[10, 25] == 0.125 and alpha[25, 25] == 1


def test_feather_does_not_fade_at_the_images_border():
    mask = np.zeros((20, 30), dtype=bool)
    mask[:, :15] = True
    alpha = feather(mask, 5)
    assert (alpha[:, :11] == 1).all() and np.allclose(alpha[:, 10:16], [1, 0.8, 0.6, 0.4, 0.2, 0])
    assert (feather(np.ones((4, 4), dtype=bool), 3) == 1).all()


@given(mask=masks(), radius=st.floats(0, 20))
@settings(deadline=None, max_examples=100)
def test_feather_is_zero_outside_and_reaches_one_in_every_part(mask, radius):
    alpha = feather(mask, radius)
    assert alpha.dtype == np.float32 and (alpha[~mask] == 0).all()
    assert (alpha[mask] > 0).all() and alpha.max() == 1
    labels, count = ndimage.label(mask, structure=np.ones((3, 3)))
    assert all(alpha[labels == part].max() == 1 for part in range(1, count + 1))


def test_paste_back_mixes_and_rounds():
    normal, generated = np.full((1, 4), 10, dtype=np.uint8), np.full((1, 4), 21, dtype=np.uint8)
    alpha = np.array([[0, 0.25, 0.5, 1]], dtype=np.float32)
    assert paste_back(normal, generated, alpha).tolist() == [[10, 13, 16, 21]]  # 12.75, and 15.5 to even


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [(), (1,), (3,)])
def test_paste_back_is_exact_at_zero_and_one(dtype, channels):
    normal, generated = noise(12, 9, *channels, dtype=dtype), noise(12, 9, *channels, seed=1, dtype=dtype)
    alpha = (noise(12, 9, seed=2) % 2).astype(np.float32)
    out = paste_back(normal, generated, alpha)
    assert out.dtype == dtype
    assert np.array_equal(out[alpha == 0], normal[alpha == 0])
    assert np.array_equal(out[alpha == 1], generated[alpha == 1])


def test_paste_back_refuses_what_does_not_fit():
    image = noise(4, 4, 3)
    with pytest.raises(ValueError, match="expected the same shape and type"):
        paste_back(image, noise(4, 4), np.ones((4, 4)))
    with pytest.raises(ValueError, match="expected \\(H, W\\) alike"):
        paste_back(image, image, np.ones((4, 5)))
    with pytest.raises(ValueError, match="float64; expected uint8 or uint16"):
        paste_back(image / 255, image / 255, np.ones((4, 4)))
