"""Outlines give back the very mask in pycocotools, which rounds, and where pixels are cut and touched ones filled."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from PIL import Image, ImageDraw
from pycocotools import mask as coco
from scipy import ndimage

from adiff.datasets.surfaces import render, sample_seed
from adiff.export.contours import on_pixels, outlines
from adiff.geometry import EIGHT


def drawn(*rows):
    return np.array([[character == "#" for character in row] for row in rows])


def by_pycocotools(polygons, shape):
    return coco.decode(coco.merge(coco.frPyObjects([np.ravel(p).tolist() for p in polygons], *shape))).astype(bool)


def by_pillow(polygons, shape):
    """Coordinates cut to whole pixels, what the outline touches filled: as readers of YOLO's labels do it."""
    filled = np.zeros(shape, bool)
    for polygon in polygons:
        image = Image.new("1", shape[::-1])
        ImageDraw.Draw(image).polygon([(int(x), int(y)) for x, y in polygon], fill=1, outline=1)
        filled |= np.array(image)
    return filled


def by_centres(polygons, shape):
    """Pixels whose centre is inside, by the parity of the edges crossed to its left."""
    filled = np.zeros(shape, bool)
    y, x = np.mgrid[: shape[0], : shape[1]] + 0.45  # off the middle, where the cuts run
    for polygon in polygons:
        for (x0, y0), (x1, y1) in zip(polygon, polygon[1:] + polygon[:1], strict=True):
            if y0 != y1:
                filled ^= ((y0 <= y) != (y1 <= y)) & (x0 + (y - y0) / (y1 - y0) * (x1 - x0) < x)
    return filled


RASTERISERS = pytest.mark.parametrize("rasterise", [by_pycocotools, by_pillow, by_centres])


def test_on_pixels_each_corner_rounds_to_what_it_is_cut_to():
    mask = drawn("####.", "#.#.#", "##.#.")  # a hole with its cut, corners that touch, the border
    for polygon in outlines(mask):
        near = np.array(on_pixels(polygon))
        assert np.array_equal(np.floor(near), np.floor(polygon)) and np.array_equal(np.round(near), np.floor(polygon))
    assert on_pixels([(2.95, 1.05), (0.5, 3.0)]) == [pytest.approx((2.489, 1.471)), pytest.approx((0.48, 3.47))]


@pytest.mark.parametrize("defect", ["scratch", "hole", "crack"])
def test_points_put_in_along_an_outline_on_pixels_change_next_to_nothing(defect):
    """As ultralytics does before it cuts the corners; between two pixels that touch at a corner one may stray."""
    mask = render("wood", defect, 128, sample_seed(0, "wood", defect, "test", 1)).mask
    dense = []
    for polygon in map(on_pixels, outlines(mask)):
        ends = np.array(polygon + polygon[:1])
        steps = np.linspace(0, len(polygon), 9 * len(polygon) + 1)
        dense.append(list(zip(*(np.interp(steps, np.arange(len(ends)), axis) for axis in ends.T), strict=True)))
    filled = by_pillow(dense, mask.shape)
    assert (filled & mask).sum() == mask.sum() and filled.sum() <= 1.02 * mask.sum()


def test_one_pixel_is_a_square_just_inside_it():
    assert outlines(drawn("...", "..#")) == [[(2.95, 1.05), (2.95, 1.95), (2.05, 1.95), (2.05, 1.05)]]


def test_an_inner_corner_lies_in_the_pixel_across():
    (polygon,) = outlines(drawn("#.", "##"))
    assert polygon == [(0.95, 0.05), (0.95, 1.05), (1.95, 1.05), (1.95, 1.95), (0.05, 1.95), (0.05, 0.05)]


def test_parts_that_touch_at_a_corner_are_one_outline_over_that_corner():
    (polygon,) = outlines(drawn("#.", ".#"))
    assert polygon == [(0.95, 0.05), (0.95, 0.95), (1.05, 1.05), (1.95, 1.05), (1.95, 1.95), (1.05, 1.95),
                       (1.05, 1.05), (0.95, 0.95), (0.05, 0.95), (0.05, 0.05)]  # fmt: skip


def test_a_hole_is_reached_from_the_left_by_a_cut_in_the_middle_of_a_row():
    (polygon,) = outlines(drawn("###", "#.#", "###"))
    start = polygon.index((0.05, 1.5))
    there, around, back = polygon[start : start + 2], polygon[start + 2 : start + 6], polygon[start + 6 : start + 8]
    assert there == [(0.05, 1.5), (0.95, 1.5)] and back == there[::-1]
    assert around == [(0.95, 2.05), (2.05, 2.05), (2.05, 0.95), (0.95, 0.95)]


def test_an_empty_mask_has_no_outline():
    assert outlines(np.zeros((3, 4), bool)) == []


SHAPES = {
    "pixel": ["#"],
    "border": ["##..", "#...", "...#", "..##"],
    "corner": ["##..", "##..", "..##", "..##"],
    "hole": [".####", ".#..#", ".#..#", ".####"],
    "holes in a row": ["#######", "#.#.#.#", "#######"],
    "holes at a corner": ["####", "#.##", "##.#", "####"],
    "island": ["#####", "#...#", "#.#.#", "#...#", "#####"],
    "ring of corners": [".#.", "#.#", ".#."],
    "thin": ["#....", ".#...", "..###", ".#...", "#...."],
    "full": ["####", "####"],
}


@RASTERISERS
@pytest.mark.parametrize("rows", SHAPES.values(), ids=SHAPES)
def test_shapes_come_back_exactly(rasterise, rows):
    mask = drawn(*rows)
    assert np.array_equal(rasterise(outlines(mask), mask.shape), mask)


@RASTERISERS
@given(mask=arrays(bool, array_shapes(min_dims=2, max_dims=2, max_side=14), elements=st.sampled_from([True, False])))
@settings(max_examples=80, deadline=None)
def test_any_mask_comes_back_exactly(rasterise, mask):
    polygons = outlines(mask)
    assert len(polygons) == ndimage.label(mask, EIGHT)[1]
    if polygons:
        assert np.array_equal(rasterise(polygons, mask.shape), mask)


@RASTERISERS
@pytest.mark.parametrize("defect", ["scratch", "hole", "crack"])
def test_masks_of_defects_come_back_exactly(rasterise, defect):
    mask = render("wood", defect, 128, sample_seed(0, "wood", defect, "test", 0)).mask
    assert np.array_equal(rasterise(outlines(mask), mask.shape), mask)


def test_noise_full_of_holes_takes_no_time_beyond_its_size():
    mask = np.random.default_rng(0).random((250, 250)) < 0.7
    polygons = outlines(mask)
    assert np.array_equal(by_pycocotools(polygons, mask.shape), mask)
