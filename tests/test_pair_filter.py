"""Limits on pairs: what breaks them, and what the shots propose; by hand."""

import math

import numpy as np
import pytest

from adiff.errors import InputError
from adiff.pair_filter import AUTO, AUTO_FILL, AUTO_LIKENESS, AUTO_NOVELTY, PairFilter, auto_filter, proposals
from adiff.scoring import ShotReference

GOOD = {"fill": 0.8, "seam": 1.5, "likeness": 2.0, "novelty": 0.4}


def bar(height, width, size=16):
    mask = np.zeros((size, size), bool)
    mask[2 : 2 + height, 2 : 2 + width] = True
    return mask


MASKS = np.stack([bar(2, 4), bar(2, 8), bar(8, 8)])
"""Best overlaps: 8/16 of the first two, 16/64 and 8/64 with the third; novelties among themselves 0.5, 0.5, 0.75."""
POINTS = np.array([[0.0, 0.0], [3.0, 4.0], [3.0, 5.0]], np.float32)
"""Distances to the nearest fellow: 5, 1, 1."""


def test_a_pair_at_its_limits_keeps_them():
    assert PairFilter(0.8, 1.5, 2.0, 0.4).reasons(GOOD) == ()


@pytest.mark.parametrize(
    ("limit", "said"),
    [
        ({"min_fill": 0.81}, "fill 0.8 below 0.81"),
        ({"max_seam": 1.4}, "seam 1.5 above 1.4"),
        ({"max_likeness": 1.9}, "likeness 2 above 1.9"),
        ({"min_novelty": 0.5}, "novelty 0.4 below 0.5"),
    ],
)
def test_each_limit_is_said_by_what_breaks_it(limit, said):
    assert PairFilter(**limit).reasons(GOOD) == (said,)


def test_all_broken_limits_are_said_and_no_number_breaks_every_limit():
    assert len(PairFilter(0.9, 1.0, 1.0, 0.9).reasons(GOOD)) == 4
    assert PairFilter(min_fill=0.0).reasons({"fill": math.nan}) and PairFilter(max_seam=9).reasons({"seam": math.nan})


@pytest.mark.parametrize("measures", [{}, {"fill": None}, {"fill": "0.9"}, {"fill": True}, {"fill": -(10**400)}])
def test_a_measure_that_was_not_taken_is_an_error(measures):
    with pytest.raises(InputError, match="no fill to hold against min-fill 0.5"):
        PairFilter(min_fill=0.5).reasons(measures)


@pytest.mark.parametrize(
    ("limit", "said"),
    [
        ({"min_fill": 1.1}, "min-fill is 1.1; expected a number between 0 and 1, or auto"),
        ({"min_novelty": -0.1}, "min-novelty is -0.1"),
        ({"max_likeness": "much"}, "max-likeness is much; expected a finite number from 0, or auto"),
        ({"max_seam": AUTO}, "max-seam is auto; expected a finite number from 0$"),
        ({"max_seam": math.inf}, "max-seam is inf"),
        ({"min_fill": math.nan}, "min-fill is nan"),
    ],
)
def test_a_limit_out_of_range_is_refused(limit, said):
    with pytest.raises(InputError, match=said):
        PairFilter(**limit)


def test_shots_propose_limits_by_hand():
    found = proposals(ShotReference(MASKS, POINTS))
    assert found == {"min_fill": AUTO_FILL, "max_likeness": 5 * AUTO_LIKENESS, "min_novelty": 0.5 * AUTO_NOVELTY}
    assert PairFilter(min_fill=AUTO, max_likeness=AUTO).settled(ShotReference(MASKS, POINTS), "x") == PairFilter(
        AUTO_FILL, None, 5 * AUTO_LIKENESS
    )


def test_auto_leaves_out_what_the_shots_do_not_set_and_what_is_given():
    everything, masks, alone = ShotReference(MASKS, POINTS), ShotReference(MASKS), ShotReference(MASKS[:1], POINTS[:1])
    assert auto_filter([everything]) == PairFilter(AUTO, None, AUTO, AUTO)
    assert auto_filter([everything, masks], PairFilter(min_fill=0.5)) == PairFilter(0.5, None, None, AUTO)
    assert auto_filter([alone]) == PairFilter(AUTO)


@pytest.mark.parametrize(
    ("limit", "shots", "said"),
    [
        ({"max_likeness": 2.0}, ShotReference(MASKS), "the likeness of metal/dent cannot be measured"),
        ({"min_novelty": 0.1}, ShotReference(None, POINTS), "the novelty of metal/dent cannot be measured"),
        ({"min_novelty": AUTO}, ShotReference(MASKS[:1]), "metal/dent has one shot only, which sets no min-novelty"),
    ],
)
def test_what_cannot_be_measured_is_said_before_the_run(limit, shots, said):
    with pytest.raises(InputError, match=said):
        PairFilter(**limit).settled(shots, "metal/dent")


def test_only_a_filter_with_a_limit_is_one():
    assert not PairFilter() and PairFilter(min_fill=0.0) and PairFilter(0.5, 2.0).record() == {
        "min_fill": 0.5, "max_seam": 2.0
    }  # fmt: skip
