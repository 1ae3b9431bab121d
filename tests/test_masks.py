"""Mask rules, cleaning and likeness, on masks drawn by hand."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adiff.errors import InputError
from adiff.masks import MaskRules, aligned_iou, best_aligned_iou, border_share, check_mask, clean_mask, count_components


def drawn(*rows):
    """A mask from lines of . and #."""
    return np.array([[cell == "#" for cell in row] for row in rows])


def blank(side=20):
    return np.zeros((side, side), dtype=bool)


def block(top, left, height, width, side=20):
    mask = blank(side)
    mask[top : top + height, left : left + width] = True
    return mask


L_SHAPE = drawn("......", ".#....", ".#....", ".###..", "......", "......")


# rules


def test_each_rule_is_broken_by_name():
    rules = MaskRules(min_area=0.02, max_area=0.25, max_components=2, min_component=4, max_border=1 / 3)
    assert check_mask(block(5, 5, 4, 4), rules) == ()
    assert check_mask(blank(), rules) == ("empty",)
    assert check_mask(block(5, 5, 2, 3), rules) == ("area too small",)
    assert check_mask(block(2, 2, 11, 11), rules) == ("area too large",)
    assert check_mask(block(0, 2, 3, 7), rules) == ("border",)
    assert check_mask(block(0, 2, 3, 6), rules) == ()
    three = block(2, 2, 2, 2) | block(8, 8, 2, 2) | block(14, 14, 2, 2)
    assert check_mask(three, rules) == ("components",)
    assert check_mask(block(5, 5, 4, 4) | block(15, 15, 1, 3), rules) == ("components",)  # a speck
    assert check_mask(block(0, 0, 20, 20), rules) == ("area too large", "border")


def test_areas_at_the_limits_pass():
    rules = MaskRules(min_area=16 / 400, max_area=16 / 400)
    assert check_mask(block(5, 5, 4, 4), rules) == ()
    assert check_mask(block(5, 5, 3, 5), rules) == ("area too small",)
    assert check_mask(block(5, 1, 1, 17), rules) == ("area too large",)


def test_the_foreground_rule_and_its_share():
    mask, object_ = block(5, 5, 4, 4), block(0, 0, 20, 8)
    assert check_mask(mask, MaskRules(foreground=object_)) == ("foreground",)
    assert check_mask(mask, MaskRules(foreground=object_, min_foreground=0.75)) == ()
    assert check_mask(mask, MaskRules(foreground=object_, min_foreground=0.76)) == ("foreground",)
    assert check_mask(mask, MaskRules(foreground=np.repeat(np.repeat(block(0, 0, 20, 9), 3, 0), 3, 1))) == ()


def test_rules_from_shots_by_hand():
    shots = [block(5, 5, 4, 5), block(5, 5, 10, 10) | block(17, 17, 2, 2)]
    rules = MaskRules.from_shots(shots, slack=0.5)
    assert rules.min_area == pytest.approx(0.05 * 0.5) and rules.max_area == pytest.approx(0.26 * 1.5)
    assert rules.max_components == 3 and rules.min_component == 2  # half of the 2 x 2 part
    assert rules.max_border == pytest.approx(1 / 3) and rules.foreground is None
    assert MaskRules.from_shots(shots, slack=0).max_components == 2


def test_specks_of_the_shots_do_not_loosen_the_rules():
    speckled = block(5, 5, 6, 6)
    speckled[1, 1::3] = True
    assert MaskRules.from_shots([speckled], slack=0).max_components == 1


def test_a_droplet_beside_a_large_part_does_not_loosen_them_either():
    """5 of 405 pixels; 16 of 416 are a part of its own."""
    large, droplet = np.zeros((40, 40), bool), np.zeros((40, 40), bool)
    large[:20, :20], droplet[30, 30:35] = True, True
    rules = MaskRules.from_shots([large, large | droplet])
    assert (rules.min_component, rules.max_components) == (200, 2)
    droplet[30:34, 30:34] = True
    assert MaskRules.from_shots([large, large | droplet]).min_component == 8


def test_shots_on_the_border_widen_its_rule():
    assert MaskRules.from_shots([block(0, 0, 3, 15)]).max_border == 0.75


def test_shots_of_one_pixel_give_rules_that_one_pixel_passes():
    shot = block(9, 9, 1, 1)
    assert check_mask(shot, MaskRules.from_shots([shot])) == ()


def test_rules_need_shots():
    with pytest.raises(InputError, match="no masks"):
        MaskRules.from_shots([])
    with pytest.raises(InputError, match="empty"):
        MaskRules.from_shots([blank()])
    with pytest.raises(ValueError, match="slack -1"):
        MaskRules.from_shots([block(5, 5, 3, 3)], slack=-1)


def test_the_record_is_plain_numbers():
    record = MaskRules(min_area=0.1, foreground=blank()).record()
    assert record["min_area"] == 0.1 and record["foreground"] is True
    assert all(isinstance(value, (int, float)) for value in record.values())


@given(seed=st.integers(0, 10**6), count=st.integers(1, 4))
@settings(deadline=None, max_examples=50)
def test_shots_pass_their_own_rules_once_cleaned(seed, count):
    rng = np.random.default_rng(seed)
    shots = []
    for _ in range(count):
        height, width = rng.integers(3, 12, size=2)
        shots.append(block(*rng.integers(0, 9, size=2), height, width))
    rules = MaskRules.from_shots(shots)
    for shot in shots:
        assert check_mask(clean_mask(shot, rules.min_component), rules) == ()


def test_border_share_is_that_of_one_line():
    mask = drawn("#...", "#...", "#...", "....", "..##")
    assert border_share(mask) == pytest.approx(3 / 5)


def test_parts_that_touch_at_corners_are_one():
    assert count_components(drawn("#..", ".#.", "..#")) == 1
    assert count_components(drawn("#.#", "...", "#.#")) == 4


# cleaning


def test_clean_drops_specks_and_fills_pin_holes():
    rough = drawn("#.......", "..#####.", "..#.###.", "..##.##.", "..#####.", "#.......")
    clean = drawn("........", "..#####.", "..#####.", "..#####.", "..#####.", "........")
    assert np.array_equal(clean_mask(rough, 2), clean)


def test_clean_keeps_large_holes_and_bays():
    ring = drawn("#####", "#...#", "#...#", "#####")
    assert np.array_equal(clean_mask(ring, 6), ring)  # the hole has 6 pixels
    assert clean_mask(ring, 7).all()
    bay = drawn("###", "#.#", "#.#")  # open to the border
    assert np.array_equal(clean_mask(bay, 5), bay)


def test_clean_with_one_changes_nothing_and_may_empty():
    mask = np.random.default_rng(0).random((30, 30)) < 0.4
    assert np.array_equal(clean_mask(mask, 1), mask)
    assert not clean_mask(block(3, 3, 2, 2), 5).any()


# likeness


@given(turns=st.integers(0, 3), flip=st.booleans(), dy=st.integers(0, 9), dx=st.integers(0, 20))
@settings(deadline=None, max_examples=40)
def test_a_moved_turned_and_flipped_copy_is_a_copy(turns, flip, dy, dx):
    shape = np.rot90(L_SHAPE[1:4, 1:4], turns)
    shape = shape[:, ::-1] if flip else shape
    mask = np.zeros((12, 23), dtype=bool)
    mask[dy : dy + 3, dx : dx + 3] = shape
    assert aligned_iou(mask, L_SHAPE) == 1


def test_aligned_iou_by_hand():
    bar, square = drawn("####"), drawn("##", "##")
    assert aligned_iou(bar, square) == pytest.approx(2 / 6)
    assert aligned_iou(bar, bar.T) == 1
    assert aligned_iou(bar, drawn("#.#.")) == pytest.approx(2 / 4)


@given(seed=st.integers(0, 10**6))
@settings(deadline=None, max_examples=30)
def test_aligned_iou_against_brute_force(seed):
    rng = np.random.default_rng(seed)
    a, b = rng.random((4, 5)) < 0.5, rng.random((3, 4)) < 0.5
    a[0, 0] = b[0, 0] = True
    best = 0.0
    field = np.zeros((20, 20), dtype=bool)
    field[8:12, 8:13] = a
    for turns in range(4):
        for shape in (np.rot90(b, turns), np.rot90(b[:, ::-1], turns)):
            for y in range(20 - shape.shape[0]):
                for x in range(20 - shape.shape[1]):
                    other = np.zeros_like(field)
                    other[y : y + shape.shape[0], x : x + shape.shape[1]] = shape
                    best = max(best, (field & other).sum() / (field | other).sum())
    assert aligned_iou(a, b) == pytest.approx(best)
    assert aligned_iou(b, a) == pytest.approx(best)


def test_best_of_shots_and_of_nothing():
    shots = [drawn("##", "##"), drawn("###.")]
    assert best_aligned_iou(drawn("#", "#", "#"), shots) == 1
    assert best_aligned_iou(drawn("###"), []) == 0
    assert aligned_iou(blank(), L_SHAPE) == aligned_iou(L_SHAPE, blank()) == 0
