"""Placement: hand-worked turns and limits, and what holds for any mask on any foreground."""

import math

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy import ndimage

from adiff.errors import InputError
from adiff.geometry import Box
from adiff.masks import aligned_iou, count_components
from adiff.placement import (
    AWAY,
    NEAR,
    SLACK,
    Ground,
    Placing,
    ShotSpread,
    _extent,
    _outermost,
    direction,
    place_mask,
    place_masks,
    transform_mask,
)


def drawn(*rows):
    """A mask from lines of . and #."""
    return np.array([[cell == "#" for cell in row] for row in rows])


def block(top, left, height, width, shape=(40, 40)):
    mask = np.zeros(shape, dtype=bool)
    mask[top : top + height, left : left + width] = True
    return mask


def disc(side, radius):
    return np.hypot(*(np.indices((side, side)) - (side - 1) / 2)) <= radius


ARROW = drawn("#..", "##.", "#.#")


# turning and scaling


def test_quarter_turns_are_exact_and_counterclockwise():
    assert np.array_equal(transform_mask(np.pad(ARROW, 4), 90, 1), drawn("..#", ".#.", "###"))
    for turn in (0, 180, -90, 270):
        assert np.array_equal(transform_mask(ARROW, turn, 1), np.rot90(ARROW, turn // 90))


def test_scaling_is_by_the_sides():
    assert transform_mask(block(3, 3, 10, 20), 0, 0.5).sum() == 5 * 10
    assert np.array_equal(transform_mask(block(3, 3, 10, 20), 90, 1.4), np.ones((28, 14), dtype=bool))
    enlarged = transform_mask(block(3, 3, 4, 6), 0, 2)  # its corners are rounded
    assert abs(enlarged.sum() / (8 * 12) - 1) < 0.05 and enlarged.shape in [(8, 12), (8, 13), (9, 12), (9, 13)]


def test_an_enlarged_shape_is_turned_counterclockwise_without_stairs():
    bar = transform_mask(block(5, 2, 3, 20), 30, 8)  # 24 by 160, rising to the right
    rows, columns = np.nonzero(bar)
    slope = np.polyfit(columns, -rows, 1)[0]
    assert bar.sum() == pytest.approx(24 * 160, rel=0.02) and math.degrees(math.atan(slope)) == pytest.approx(30, abs=1)
    top = bar[:, 40:120].argmax(axis=0)
    assert 0 <= (top[:-1] - top[1:]).min() and (top[:-1] - top[1:]).max() <= 1  # a line of a slope of 0.58


@pytest.mark.parametrize("turn", [17, 45, 71, -30])
def test_a_turned_scratch_stays_in_one_piece_of_its_length(turn):
    scratch = block(20, 2, 1, 36)
    turned = transform_mask(scratch, turn, 1)
    assert count_components(turned) == 1
    height, width = (36 * abs(f(math.radians(turn))) for f in (math.sin, math.cos))
    assert abs(turned.shape[0] - height) <= 2 and abs(turned.shape[1] - width) <= 2
    assert transform_mask(scratch, turn, 0.1).sum() >= 3  # a tenth of a pixel wide, and still there


@given(turn=st.floats(-180, 180), scale=st.floats(0.5, 2.5))
@settings(deadline=None, max_examples=20)
def test_the_area_follows_the_scale(turn, scale):
    assert transform_mask(disc(31, 12) | block(9, 0, 13, 31, (31, 31)), turn, scale).sum() == pytest.approx(
        (disc(31, 12) | block(9, 0, 13, 31, (31, 31))).sum() * scale**2, rel=0.12
    )


@given(seed=st.integers(0, 999), turn=st.floats(-180, 180), scale=st.floats(0.15, 8))
@example(seed=0, turn=45.02, scale=1.59)  # the ends of the thinnest line
@settings(deadline=None, max_examples=60)
def test_no_mask_is_held_for_larger_than_it_gets(seed, turn, scale):
    """Specks, bars and lines; what is told of their size before they are drawn decides which are not drawn at all."""
    rng = np.random.default_rng(seed)
    speckled = rng.random((30, 40)) < 0.02
    speckled[rng.integers(30), rng.integers(40)] = True
    for mask in (speckled, block(3, 2, *rng.integers(1, 30, 2), (40, 40)), np.eye(25, dtype=bool)):
        shape = transform_mask(mask, 0, 1)
        height, width = scale * _extent(_outermost(shape), turn) - SLACK * max(1, scale)
        rows, columns = transform_mask(shape, turn, scale).shape
        assert height <= rows <= height + 2 * SLACK * max(1, scale) + 1
        assert width <= columns <= width + 2 * SLACK * max(1, scale) + 1


# direction and spread of the shots


def test_directions_by_hand():
    assert direction(block(5, 5, 2, 20)) == pytest.approx(0)
    assert direction(block(5, 5, 20, 2)) == pytest.approx(90)
    assert direction(np.eye(9, dtype=bool)[::-1]) == pytest.approx(45)  # rising to the right
    assert direction(np.eye(9, dtype=bool)) == pytest.approx(135)
    assert direction(disc(20, 6)) is None and direction(block(3, 3, 1, 1)) is None


def test_spread_by_hand():
    shots = [np.pad(transform_mask(block(0, 0, 2, 24), turn, 1), 2) for turn in (170, 0, 20)]
    shots = [np.pad(shot, [(0, 64 - shot.shape[0]), (0, 64 - shot.shape[1])]) for shot in shots]
    spread = ShotSpread.of(shots)
    mean, around = spread.direction
    assert mean == pytest.approx(3.3, abs=1) and around == pytest.approx(16.7, abs=1.5)  # over the jump from 180 to 0
    assert spread.area == (min(s.mean() for s in shots), max(s.mean() for s in shots))
    assert ShotSpread.of([disc(64, 5), block(5, 5, 2, 20, (64, 64))]).direction is None
    with pytest.raises(InputError, match="no masks to learn"):
        ShotSpread.of([])
    with pytest.raises(InputError, match="is empty"):
        ShotSpread.of([np.zeros((4, 4), dtype=bool)])


@given(seed=st.integers(0, 10**6), turn=st.floats(0, 180))
@settings(deadline=None, max_examples=20)
def test_masks_take_directions_and_sizes_of_the_shots(seed, turn):
    spread = ShotSpread((0.01, 0.04), (30.0, 15.0))
    mask = np.zeros((96, 96), dtype=bool)
    shape = transform_mask(block(0, 0, 5, 30), turn, 1)
    mask[10 : 10 + shape.shape[0], 10 : 10 + shape.shape[1]] = shape
    (placed,) = place_masks([mask], [np.ones((96, 96), dtype=bool)], seed=seed, spread=spread)
    assert 10 <= direction(placed.mask) <= 50  # and a few degrees of the grid
    assert 0.008 <= placed.mask.mean() <= 0.05


# places


@st.composite
def scenes(draw):
    """A mask, a foreground, and how to place the one on the other."""
    shape = draw(st.integers(12, 40)), draw(st.integers(12, 40))
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    foreground = ndimage.gaussian_filter(rng.random(shape), 3) > 0.5
    mask = np.zeros(shape if draw(st.booleans()) else (24, 24), dtype=bool)
    mask[2 : 2 + draw(st.integers(1, 6)), 3 : 3 + draw(st.integers(1, 6))] = True
    mask[2, 3 + draw(st.integers(0, 8))] = True
    turn, scale = draw(st.sampled_from([(0, (1, 1)), (180, (0.5, 1.5))]))
    edge = draw(st.sampled_from(["anywhere", NEAR, AWAY]))
    return mask, foreground, Placing(turn, scale, draw(st.sampled_from([1, 0.3])), edge, margin=2, tries=4)


@given(scene=scenes(), seed=st.integers(0, 1000))
@settings(deadline=None, max_examples=60)
def test_a_placed_mask_lies_on_the_object_or_it_is_said_why_not(scene, seed):
    mask, foreground, placing = scene
    try:
        ground = Ground.of(foreground, placing)
    except InputError as error:
        assert not foreground.any() or foreground.all() or "smaller margin" in str(error)
        return
    found = place_mask(mask, ground, placing, np.random.default_rng(seed))
    if isinstance(found, str):
        assert found == "larger than the object" or found.startswith("no place ")
        return
    placed, turn, scale = found
    assert placed.shape == foreground.shape and placed.any() and not (placed & ~foreground).any()
    if (turn, scale) == (0, 1) and mask.shape == foreground.shape:
        assert placed.sum() == mask.sum() and aligned_iou(placed, mask) == 1
        moved = [np.argwhere(m).mean(0) / m.shape for m in (placed, mask)]
        assert (np.abs(moved[0] - moved[1]) <= placing.move + 1e-9).all()
    assert abs(turn) <= placing.turn and placing.scale[0] <= scale <= placing.scale[1]
    inner = ndimage.binary_erosion(foreground, np.ones((5, 5)), border_value=1)
    assert placing.edge != AWAY or not (placed & ~inner).any()
    assert placing.edge != NEAR or (placed & ~inner).any()


@given(scene=scenes())
@settings(deadline=None, max_examples=40)
def test_a_place_is_found_wherever_there_is_one(scene):
    mask, foreground, _ = scene
    if mask.shape != foreground.shape or not foreground.any():
        return
    shape = transform_mask(mask, 0, 1)
    rows, columns = (side - length + 1 for side, length in zip(foreground.shape, shape.shape, strict=True))
    there = any(
        not (shape & ~foreground[top : top + shape.shape[0], left : left + shape.shape[1]]).any()
        for top in range(rows)
        for left in range(columns)
    )
    placed = place_mask(mask, Ground.of(foreground, Placing()), Placing(), np.random.default_rng(0))
    assert isinstance(placed, str) != there


def test_the_one_place_that_fits_is_found_and_in_blocks_one_of_many(monkeypatch):
    foreground = np.zeros((120, 120), dtype=bool)
    foreground[27:47, 69:89] = disc(20, 9.6)
    (placed,) = place_masks([np.pad(disc(20, 9.6), 50)], [foreground])
    assert np.array_equal(placed.mask, foreground)
    monkeypatch.setattr("adiff.placement.LARGEST", 100)  # blocks of 2
    monkeypatch.setattr("adiff.placement.DRAWS", 0)
    ground, everywhere = Ground.of(foreground, Placing()), Box(0, 0, 120, 120)
    assert ground.place(disc(20, 9.6), everywhere, np.random.default_rng(0)) is None
    monkeypatch.setattr("adiff.placement.DRAWS", 8)
    monkeypatch.setattr(Ground, "fits", lambda *_: True)
    top, left = ground._any_place(disc(8, 3.6), everywhere, np.random.default_rng(0))
    monkeypatch.undo()
    assert ground.fits(disc(8, 3.6), (top, left))


def test_every_place_has_the_same_chance():
    foreground = block(0, 0, 3, 7, (5, 9))
    places = [np.argwhere(p.mask)[0] for p in place_masks([block(0, 0, 2, 3, (5, 9))], [foreground], count=500)]
    tops, lefts = np.array(places).T
    assert np.bincount(tops, minlength=2)[:2].min() > 200 and tops.max() == 1
    assert np.bincount(lefts).min() > 70 and lefts.max() == 4


def test_several_foregrounds_and_masks_that_do_not_fit():
    small, large = block(0, 0, 2, 2), block(0, 0, 20, 20)
    narrow, wide = block(10, 10, 5, 5), block(5, 5, 30, 30)
    first, second, third = place_masks([large, small], [narrow, wide], count=3)
    assert (first.number, second.number, third.number) == (1, 1, 1)
    assert [one.foreground for one in (first, second, third)] == [0, 1, 0]
    assert first.refused == ((0, "larger than the object"),) and second.refused == ()
    with pytest.raises(InputError, match="none of 1 masks fits on foreground 2 of 2: larger than the object \\(1\\)"):
        place_masks([large], [wide, narrow])
    lattice = np.indices((40, 40)).sum(0) % 2 == 0
    with pytest.raises(InputError, match="no place on the object \\(1\\)"):
        place_masks([small], [lattice])


def test_the_seed_decides_and_nothing_else():
    masks, grounds = [block(3, 3, 4, 9), disc(40, 4)], [disc(40, 15), block(5, 5, 30, 30)]
    placing = Placing(turn=180, scale=(0.5, 1.2))
    first, again, other = (place_masks(masks, grounds, placing, count=4, seed=seed) for seed in (1, 1, 2))
    assert all(np.array_equal(a.mask, b.mask) for a, b in zip(first, again, strict=True))
    assert not all(np.array_equal(a.mask, b.mask) for a, b in zip(first, other, strict=True))
    fewer = place_masks(masks, grounds, placing, count=2, seed=1)
    assert all(np.array_equal(a.mask, b.mask) for a, b in zip(first, fewer, strict=False))


def test_a_learned_mask_is_scaled_to_the_photo_by_the_short_side():
    (placed,) = place_masks([block(4, 4, 8, 8, (32, 32))], [np.ones((64, 160), dtype=bool)])
    assert placed.mask.shape == (64, 160) and placed.mask.sum() == pytest.approx(16 * 16, rel=0.03)


@pytest.mark.parametrize(
    ("given_", "message"),
    [
        ({"turn": 181}, "turn is 181; it must lie between 0 and 180"),
        ({"turn": math.nan}, "turn is nan"),
        ({"scale": (0, 1)}, "scale is 0 to 1"),
        ({"scale": (2, 1)}, "scale is 2 to 1"),
        ({"scale": (1, math.inf)}, "scale is 1 to inf"),
        ({"move": -0.1}, "move is -0.1"),
        ({"edge": "inside"}, "edge 'inside' is unknown; choose one of anywhere, near, away"),
        ({"margin": 0}, "margin is 0"),
        ({"tries": 0}, "tries is 0"),
    ],
)
def test_what_cannot_be_is_refused(given_, message):
    with pytest.raises(InputError, match=message):
        Placing(**given_)


def test_bad_masks_and_foregrounds():
    full, empty = np.ones((9, 9), dtype=bool), np.zeros((9, 9), dtype=bool)
    with pytest.raises(InputError, match="mask \\(9x9\\) is empty"):
        place_masks([full, empty], [full])
    with pytest.raises(InputError, match="foreground \\(9x9\\) is empty"):
        place_masks([full], [empty])
    with pytest.raises(InputError, match="0 masks for 1 foregrounds"):
        place_masks([], [full])
    with pytest.raises(InputError, match="fills the image and has no edge"):
        place_masks([full], [full], Placing(edge=NEAR))
    with pytest.raises(InputError, match="no pixel of the object is 8 pixels away"):
        place_masks([full], [block(2, 2, 4, 4)], Placing(edge=AWAY))


def test_what_shrinks_below_a_pixel_is_one():
    assert np.array_equal(transform_mask(block(3, 3, 10, 20), 30, 1e-6), [[True]])
