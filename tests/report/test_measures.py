"""Numbers and histograms of the measures, worked out by hand."""

import math

import numpy as np
import pytest

from adiff.report.measures import BINS, HEIGHT, MEASURES, WIDTH, Measure, Taken, histogram, round_up, summarise
from adiff.scoring import measure_pair

PLAIN = Measure("seam", "")
SHARE = Measure("fill", "", ends=(0, 1))
COUNT = Measure("components", "", digits=0, whole=True)


def test_every_measure_of_a_pair_is_shown():
    image, mask = np.zeros((4, 4), np.uint8), np.eye(4, dtype=bool)
    assert {measure.name for measure in MEASURES} == set(measure_pair(image, image, image, mask)) - {"likeness_shots"}


def test_the_summary_is_median_lowest_and_largest():
    records = [
        {"fill": 0.2, "leak": 0.0, "area": 0.01, "seam": 2.0, "mask": {"iou": 0.5}},
        {"fill": 0.9, "leak": 3.0, "area": 0.03, "seam": 1.0, "mask": {"iou": 0.9}, "likeness": None},
        {"fill": 0.8, "leak": 0.0, "area": 0.02, "seam": 4.0, "mask": {"kind": "file"}, "likeness": 1.5},
    ]
    told = summarise(records)
    assert {name: value for name, value in told.items() if value is not None} == {
        "pairs": 3, "fill": 0.8, "fill_low": 0.2, "leak": 3.0, "area": 0.02, "seam": 2.0, "iou": 0.7, "likeness": 1.5,
    }  # fmt: skip
    nothing = summarise([])
    assert nothing.pop("pairs") == 0 and set(nothing) == set(told) - {"pairs"} and set(nothing.values()) == {None}


@pytest.mark.parametrize("value", [10**400, -(10**400), 1e300, math.nan, math.inf, True, "1", None, [1]])
def test_what_is_no_measure_is_passed_over(value):
    assert summarise([{"fill": value}, {"fill": 0.5}, {}]) | {"pairs": 0} == summarise([{"fill": 0.5}]) | {"pairs": 0}


def test_measures_of_several_are_those_of_all_their_pairs():
    first, second = [{"fill": 0.1, "mask": {"iou": 0.3}}, {"leak": 2}], [{"fill": 0.4}, {"fill": 0.9, "leak": 1}]
    both = Taken.together([Taken.of(first), Taken.of(iter(second))])
    assert both.summary() == summarise(first + second) and both.pairs == 4
    assert list(both.values["fill"]) == [0.1, 0.4, 0.9] and list(both.values["iou"]) == [0.3]


def test_values_are_told_with_their_digits():
    assert (PLAIN.text(1.239), COUNT.text(3.0), PLAIN.text(None)) == ("1.24", "3", "–")
    assert (COUNT.text(1.5), COUNT.text(2.5), COUNT.text(10.0)) == ("1.5", "2.5", "10")
    assert Measure("area", "", percent=True).text(0.0123) == "1.2 %"


@pytest.mark.parametrize(
    ("value", "up"),
    [(0.9, 1), (1, 1), (1.01, 2), (2.2, 2.5), (3, 5), (7, 10), (70, 100), (0.03, 0.05), (0, 1), (-3, 1)],
)
def test_scales_end_at_round_numbers(value, up):
    assert round_up(value) == pytest.approx(up)


def test_a_histogram_of_shares_goes_from_0_to_1():
    """24 bars of 1 / 24: 0.01 and 0.02 fall into the first, 0.5 into the thirteenth, 1 into the last."""
    drawn = histogram(SHARE, [[0.01, 0.02, 0.5, 1.0]])
    step = WIDTH / BINS
    places = [(round((bar.x - 0.5) / step), bar.y, bar.height, bar.told) for bar in drawn.bars]
    assert places == [
        (0, 0, HEIGHT, "0.00 to 0.04: 2"),
        (12, HEIGHT / 2, HEIGHT / 2, "0.50 to 0.54: 1"),
        (23, HEIGHT / 2, HEIGHT / 2, "0.96 to 1.00: 1"),
    ]
    assert (drawn.low, drawn.high, drawn.median) == ("0.00", "1.00", "0.26")
    assert drawn.median_x == pytest.approx(0.26 * WIDTH)


def test_defect_types_are_stacked():
    drawn = histogram(PLAIN, [[1.9, 0.1], [1.9, 1.9]])
    last = [(bar.group, bar.y, bar.height) for bar in drawn.bars if bar.told.startswith("1.8")]
    assert last == [(0, *map(pytest.approx, (48, 24))), (1, *map(pytest.approx, (0, 48)))]  # of 72
    assert (drawn.low, drawn.high) == ("0.00", "2.00")


def test_whole_numbers_have_a_bar_each_while_they_are_few():
    drawn = histogram(COUNT, [[1, 1, 3]])
    assert [bar.told for bar in drawn.bars] == ["1: 2", "3: 1"] and (drawn.low, drawn.high) == ("1", "3")
    assert [bar.x + bar.width / 2 for bar in drawn.bars] == [pytest.approx(WIDTH / 6), pytest.approx(WIDTH * 5 / 6)]
    assert drawn.median_x == pytest.approx(WIDTH / 6)
    many = histogram(COUNT, [[0, 47]])
    assert [bar.told for bar in many.bars] == ["0 to 1: 1", "46 to 47: 1"]


def test_values_that_are_all_the_same_have_no_bars():
    drawn = histogram(COUNT, [[2.0, 2.0], [2.0]])
    assert drawn.bars == () and drawn.median == "2"
    assert histogram(COUNT, [[], []]) is None


def test_values_off_the_scale_stand_at_its_end():
    assert [bar.told for bar in histogram(SHARE, [[-3.0, 7.0]]).bars] == ["0.00 to 0.04: 1", "0.96 to 1.00: 1"]
