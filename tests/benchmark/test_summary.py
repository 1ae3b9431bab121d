"""Lines in numbers, worked out by hand."""

import pytest

from adiff.benchmark.summary import COLUMNS, EVERY, best_of, spread_of, summarise_suite, varies


def test_mean_deviation_and_number_of_what_is_defined():
    spread = spread_of([0.2, None, 0.4, 0.6])
    assert spread.mean == pytest.approx(0.4) and spread.deviation == pytest.approx(0.2) and spread.n == 3
    assert spread_of([0.5]).deviation is None and spread_of([None]) is None
    assert spread.text(COLUMNS["pixel_ap"]) == "40.0 ± 20.0" and spread_of([0.5]).text(COLUMNS["fill"]) == "0.50"


def test_what_rounds_to_nothing_has_no_minus():
    gap = COLUMNS["gap"]
    assert (gap.text(-0.004, "+"), gap.text(-0.006, "+"), gap.text(-0.004)) == ("+0.00", "-0.01", "0.00")


def test_the_best_is_that_of_the_shown_means(line):
    found = {"a": (0.5, 2.0, 0), "b": (0.5001, 1.0, 0), "c": (0.4, 1.5, 0), "d": (0.45, None, 0)}
    rows = [line(name, measures={"pixel_ap": ap, "gap": gap, "leak": leak, "seam": ap})
            for name, (ap, gap, leak) in found.items()]  # fmt: skip
    entries = summarise_suite(rows, "pixel_ap")["metal/scratch"]
    assert best_of(entries, "pixel_ap") == {"a", "b"}  # both 50.0
    assert best_of(entries, "gap") == {"b"} and varies(entries, "gap")
    assert best_of(entries, "leak") == frozenset() and not varies(entries, "leak")
    assert best_of(entries, "seam") == frozenset()  # more of it is not better, nor less


def test_differences_are_taken_cell_by_cell(line):
    rows = [line("plain", value, seed=seed) for seed, value in enumerate((0.1, 0.5, 0.9))]
    rows += [line("all", value, seed=seed, control="plain") for seed, value in enumerate((0.3, 0.6))]
    (name,) = summarise_suite(rows, "pixel_ap")
    plain, every = summarise_suite(rows, "pixel_ap")[name]
    assert (plain.control, plain.difference, plain.cells) == (None, {}, 3)
    assert every.difference["pixel_ap"].values == pytest.approx((0.2, 0.1))  # the third seed has no pair
    assert every.better["pixel_ap"] == 2 and every.better["fill"] == 0 and every.seconds == 120


def test_less_is_better_where_it_is(line):
    rows = [line("a", measures={"gap": 2.0}), line("b", measures={"gap": 1.0, "seam": 3.0}, control="a")]
    entry = summarise_suite(rows, "gap")["metal/scratch"][1]
    assert entry.better == {"gap": 1} and entry.difference["gap"].mean == -1


def test_undefined_and_failed_are_told_and_never_counted(line):
    rows = [line("a", None), line("a", 0.5, seed=1), line("b", None), line("c", error="ValueError: x", measures={})]
    a, b, c = summarise_suite(rows, "pixel_ap")["metal/scratch"]
    assert a.measures["pixel_ap"].n == 1 and a.cells == 2 and a.text("pixel_ap") == "50.0"
    assert b.text("pixel_ap") == "undefined" and b.text("pro") == "–" and b.record()["undefined"] == ["pixel_ap"]
    assert (c.cells, c.failed, c.text("pixel_ap")) == (0, 1, "failed")


def test_several_units_have_a_table_of_all_first(line):
    rows = [line("a", 0.2, unit="x"), line("a", 0.4, unit="y"), line("a", 0.6, unit="y", seed=1)]
    tables = summarise_suite(rows, "pixel_ap")
    assert list(tables) == [EVERY, "x", "y"]
    assert tables[EVERY][0].measures["pixel_ap"].n == 3 and tables["y"][0].measures["pixel_ap"].mean == 0.5


def test_p_is_paired_over_images_averaged_over_seeds(line):
    # differences of five images, averaged over two seeds: all +0.1 -> the smallest two-sided p of 5 pairs is 1/16
    rows = [line("a", seed=seed, per_image=[0.1, 0.2, 0.3, 0.4, 0.5]) for seed in (0, 1)]
    rows += [line("b", seed=0, control="a", per_image=[0.1, 0.22, 0.33, 0.44, 0.55]),
             line("b", seed=1, control="a", per_image=[0.21, 0.23, 0.34, 0.45, 0.56])]  # fmt: skip
    assert summarise_suite(rows, "pixel_ap")["metal/scratch"][1].p == pytest.approx(0.0625)
    assert summarise_suite(rows, "pixel_ap")["metal/scratch"][1].by_image == pytest.approx(0.043)
    assert summarise_suite(rows, "fill")["metal/scratch"][1].p is None
    same = [line("a", per_image=[0.1]), line("b", control="a", per_image=[0.1])]
    assert summarise_suite(same, "pixel_ap")["metal/scratch"][1].p is None
