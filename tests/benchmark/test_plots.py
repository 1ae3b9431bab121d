"""Places in a plot, worked out by hand."""

import pytest

from adiff.benchmark.plots import LINE, WIDTH, plot
from adiff.benchmark.summary import summarise_suite


def entries(line, **values):
    rows = [line(name, value, seed=seed) for name, of_one in values.items() for seed, value in enumerate(of_one)]
    return summarise_suite(rows, "pixel_ap")["metal/scratch"]


def test_dots_means_and_deviations_stand_where_the_scale_says(line):
    drawn = plot(entries(line, a=(0.2, 0.4), b=(0.6,)), "pixel_ap")
    # a: 0.3 +- 0.1414; the range 0.1586 to 0.6 in steps of 0.05: 0.1 to 0.65
    assert (drawn.low, drawn.high, drawn.better) == ("10.0", "65.0", "more is better")
    a, b = drawn.marks
    assert a.dots == pytest.approx([WIDTH * 0.1 / 0.55, WIDTH * 0.3 / 0.55])
    assert a.mean == pytest.approx(WIDTH * 0.2 / 0.55) and a.high - a.mean == pytest.approx(WIDTH * 0.1414 / 0.55, 1e-3)
    assert b.low == b.mean == b.high == pytest.approx(WIDTH * 0.5 / 0.55)
    assert (a.y, b.y) == (LINE / 2, 1.5 * LINE) and a.told == "a: 30.0 ± 14.1, n 2"


def test_equal_values_have_a_scale_around_them_and_a_single_variant_no_plot(line):
    drawn = plot(entries(line, a=(0.5,), b=(0.5,)), "pixel_ap")
    assert all(0 < mark.mean < WIDTH for mark in drawn.marks)
    assert plot(entries(line, a=(0.5,), b=(0.5,)), "leak") is None
    assert plot(entries(line, a=(0.5,), b=(None,)), "pixel_ap") is None
