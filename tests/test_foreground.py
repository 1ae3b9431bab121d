"""Foregrounds of drawn scenes whose object is known, and what is said where none can be told."""

import numpy as np
import pytest
from scipy import ndimage

from adiff.datasets.surfaces import render, sample_seed
from adiff.errors import InputError
from adiff.foreground import (
    ALPHA,
    BORDER,
    CONSTANT,
    WHOLE,
    ForegroundFinder,
    _median,
    by_alpha,
    by_border_colour,
    by_constancy,
    find_foregrounds,
)

SIDE = 64
DISC = np.hypot(*(np.indices((SIDE, SIDE)) - 30)) < 18
RNG = np.random.default_rng(0)


def noisy(levels, amount=4.0, rng=RNG):
    """Colours (H, W, 3) with noise, uint8."""
    return np.clip(levels + rng.normal(0, amount, levels.shape), 0, 255).astype(np.uint8)


def scene(background=(200, 190, 30), colour=(90, 90, 95), mask=DISC, amount=4.0):
    return noisy(np.where(mask[..., None], colour, background).astype(float), amount)


def iou(a, b):
    return (a & b).sum() / (a | b).sum()


# alpha


def test_alpha_from_half():
    image = np.zeros((4, 4, 4), np.uint8)
    image[1, :, 3] = (127, 128, 255, 0)
    (mask,) = by_alpha([image])
    assert mask.sum() == 2 and mask[1, 1:3].all()


@pytest.mark.parametrize(("alpha", "message"), [(255, "has no transparency"), (0, "is all transparent")])
def test_alpha_that_tells_nothing(alpha, message):
    image = np.full((4, 4, 4), alpha, np.uint8)
    opaque = image.copy()
    opaque[..., 3] = np.eye(4) * 255
    with pytest.raises(InputError, match=f"normal 2 of 2 {message}"):
        by_alpha([opaque, image])


# border colour


@pytest.mark.parametrize("background", [(0, 0, 0), (255, 255, 255), (90, 90, 150)])
def test_the_object_differs_from_the_border(background):
    (mask,) = by_border_colour([scene(background)])
    assert iou(mask, DISC) > 0.95


def test_a_dim_object_with_highlights_is_found_whole():
    image = scene((0, 0, 0), (60, 60, 60))
    image[25:30, 25:30] = 250
    assert iou(by_border_colour([image])[0], DISC) > 0.95


def test_an_object_may_reach_over_the_border_and_have_a_hole():
    bar = np.zeros((SIDE, SIDE), dtype=bool)
    bar[20:44] = True  # 48 of 252 pixels of the border line
    bar[26:38, 20:40] = False  # 6 % of the picture: seen through
    bar[30, 50] = False  # a pin hole in the picture, not in the object
    (mask,) = by_border_colour([scene(mask=bar)])
    assert iou(mask, bar) > 0.95 and not mask[28:36, 22:38].any() and mask[30, 50]


def test_light_that_falls_off_is_no_object():
    light = np.linspace(-40, 40, SIDE)[None, :, None] + np.linspace(-30, 30, SIDE)[:, None, None]
    (mask,) = by_border_colour([noisy(np.where(DISC[..., None], 40.0, 150.0) + light)])
    assert iou(mask, DISC) > 0.95


def test_an_object_that_hardly_differs_is_not_guessed_at():
    rim = DISC & ~(np.hypot(*(np.indices((SIDE, SIDE)) - 30)) < 16)
    shaded = noisy(np.where(rim[..., None], 60.0, np.where(DISC[..., None], 126.0, 120.0)))
    with pytest.raises(InputError, match="only thin lines stand out in normal 1 of 1"):
        by_border_colour([shaded])
    shade = np.where(DISC, 148.0, 120.0)
    shade[5:59, 5:59] = np.maximum(shade[5:59, 5:59], 137)
    with pytest.raises(InputError, match="nothing stands out clearly in normal 1 of 1 \\(by 2"):
        by_border_colour([noisy(np.repeat(shade[..., None], 3, 2), 1.0)])


def test_drawn_gaskets_are_found_or_said_not_to_be():
    found = 0
    for number in range(12):
        drawn = render("gasket", None, 64, sample_seed(0, "gasket", None, "foreground", number))
        try:
            (mask,) = by_border_colour([drawn.image])
        except InputError:
            continue
        found += 1
        assert iou(mask, drawn.foreground) > 0.8
    assert found >= 6


def test_a_surface_that_fills_the_picture_has_no_object():
    plain = noisy(np.full((SIDE, SIDE, 3), 120.0))
    with pytest.raises(InputError, match="covers 0.0 % of the picture.*'whole picture' if the surface fills it"):
        by_border_colour([plain])
    busy = RNG.integers(0, 256, (SIDE, SIDE, 3), np.uint8)
    with pytest.raises(InputError, match="border of normal 2 of 2 has no one colour"):
        by_border_colour([scene(), busy])


# constancy


def test_a_constant_object_before_changing_backgrounds():
    normals = [scene(background=RNG.integers(0, 256, 3)) for _ in range(5)]
    masks = by_constancy(normals)
    assert len(masks) == 5 and all(iou(mask, DISC) > 0.9 for mask in masks)


def test_a_constant_background_is_no_object():
    normals = [np.where(DISC[..., None], RNG.integers(0, 256, (SIDE, SIDE, 3)), 120).astype(np.uint8) for _ in range(4)]
    with pytest.raises(InputError, match="what is constant in the normals is their border"):
        by_constancy(normals)
    moved = [scene(mask=np.roll(DISC, shift, (0, 1))) for shift in (-9, 0, 9)]
    with pytest.raises(InputError, match="the object moves or changes"):
        by_constancy(moved)


def test_normals_that_tell_nothing():
    with pytest.raises(InputError, match="2 normals do not show what is constant, 3 aligned"):
        by_constancy([scene()] * 2)
    with pytest.raises(InputError, match="normals of 2 sizes"):
        by_constancy([scene(), scene(), scene()[:40]])
    with pytest.raises(InputError, match="vary everywhere alike"):
        by_constancy([noisy(np.full((SIDE, SIDE, 3), 120.0)) for _ in range(4)])
    with pytest.raises(InputError, match="vary everywhere alike \\(by 0.0 to 0.0 levels\\)"):
        by_constancy([scene()] * 3)


# the first way that works


def test_automatic_takes_the_first_way_that_works():
    opaque = np.dstack([scene(), np.where(DISC, 255, 0).astype(np.uint8)])
    assert find_foregrounds([opaque]).way == ALPHA
    assert find_foregrounds([scene()]).way == BORDER
    busy = [np.where(DISC[..., None], 100, RNG.integers(0, 256, (SIDE, SIDE, 3))).astype(np.uint8) for _ in range(4)]
    found = find_foregrounds(busy)
    assert found.way == CONSTANT and iou(found.masks[3], DISC) > 0.85


def test_a_surface_is_all_foreground_where_that_is_said():
    found = find_foregrounds([scene(), scene()[:20]], WHOLE)
    assert [mask.shape for mask in found.masks] == [(SIDE, SIDE), (20, SIDE)] and all(m.all() for m in found.masks)


def test_where_none_works_every_reason_is_said_once():
    with pytest.raises(InputError) as refused:
        find_foregrounds([RNG.integers(0, 256, (SIDE, SIDE, 3), np.uint8)])
    text = str(refused.value)
    assert text.startswith("the object was not found (alpha: normal 1 of 1 has no transparency; border colour: the bor")
    assert "constant part: 1 normals" in text and text.count("give masks of the object") == 1


def test_bad_input():
    with pytest.raises(InputError, match="'magic' is unknown; choose one of automatic, alpha"):
        find_foregrounds([scene()], "magic")
    with pytest.raises(InputError, match="no normal images"):
        find_foregrounds([])


@pytest.mark.parametrize("size", [(1, 1), (1, 6), (2, 3), (31, 17)])
def test_the_median_is_scipys(size):
    image = np.random.default_rng(0).integers(0, 256, (*size, 3)).astype(np.uint8)
    assert np.array_equal(_median(image), ndimage.median_filter(image, size=(3, 3, 1)))


def test_one_image_at_a_time_in_the_way_that_some_decided():
    finder = ForegroundFinder.of([scene(), scene()])
    other = scene((20, 20, 20), mask=np.roll(DISC, 5, 1))
    assert finder.way == BORDER and iou(finder.find(other), np.roll(DISC, 5, 1)) > 0.95
    with pytest.raises(InputError, match="nothing stands out|covers 0.0 %"):
        finder.find(np.full((SIDE, SIDE, 3), 90, np.uint8))


def test_most_images_decide_and_the_others_are_told():
    flat = np.full((SIDE, SIDE, 3), 90, np.uint8)
    finder = ForegroundFinder.of([flat, scene()])
    with pytest.raises(InputError, match="what stands out in the image covers 0.0 % of the picture"):
        finder.find(flat)
    with pytest.raises(InputError, match="not found in 2 of 3 normals, the first: what stands out in the image"):
        ForegroundFinder.of([flat, flat, scene()], BORDER)
    with pytest.raises(InputError, match="foreground 'sideways' is unknown"):
        ForegroundFinder.of([scene()], "sideways")


def test_what_is_constant_is_the_object_in_all_images_of_its_size():
    finder = ForegroundFinder.of([scene(background=RNG.integers(0, 256, 3)) for _ in range(5)], CONSTANT)
    assert iou(finder.find(scene()), DISC) > 0.9
    with pytest.raises(InputError, match="it is 64 x 32, the images whose constant part is the object are 64 x 64"):
        finder.find(scene()[:32])
