"""The table: means, spreads, paired differences and tests, undefined values."""

import numpy as np
import pytest

from adiff.evaluation.table import SHOWN, markdown, p_value, paired_test, summarise_rows


def row(name, seed, ap, per_image=(0.5,) * 6, **others):
    metrics = {**dict.fromkeys(SHOWN, 0.5), "pixel_ap": ap, **others}
    return {"row": name, "seed": seed, "metrics": metrics, "per_image": list(per_image), "step": 10}


def test_by_hand():
    worse = (0.4, 0.3, 0.2, 0.35, 0.25, 0.15)  # all six below the control's, by different amounts
    rows = [row("real", 0, 0.3), row("real", 1, 0.5), row("both", 0, 0.6, worse), row("both", 1, 0.4, worse)]
    control, other = summarise_rows(rows, "real")
    assert control["metrics"]["pixel_ap"] == {"mean": pytest.approx(0.4), "deviation": pytest.approx(0.02**0.5)}
    assert "difference" not in control and other["better"] == 1 and other["seeds"] == 2
    assert other["difference"] == {"mean": pytest.approx(0.1), "deviation": pytest.approx(0.08**0.5)}
    assert other["p"] == pytest.approx(2 / 2**6)  # the sharpest that six images allow
    assert other["by_image"] == pytest.approx(-0.225)  # what the test is of: the sign is not that of all pixels
    lines = markdown([other, control], "real").splitlines()
    assert "| pixel AP against real |" in lines[0]
    lines[2:] = reversed(lines[2:])
    assert lines[2].startswith("| real | 40.0 ± 14.1 | 50.0 ± 0.0 |") and lines[2].endswith("|  |  |  |  |")
    assert lines[3].endswith("| +10.0 ± 28.3 | 1/2 | -22.5 | 0.031 |")
    assert len({line.count("|") for line in lines}) == 1


def test_a_small_p_is_never_zero():
    assert [p_value(p) for p in (1.0, 0.031, 0.001, 0.00099, 0.0)] == ["1.000", "0.031", "0.001", "<0.001", "<0.001"]


def test_undefined_stays_undefined():
    rows = [row("real", 0, 0.3, image_auroc=None), row("both", 0, None, (None,) * 6, image_auroc=None)]
    control, other = summarise_rows(rows, "real")
    assert control["metrics"]["image_auroc"] is None and other["metrics"]["pixel_ap"] is None
    assert other["difference"] is None and other["p"] is None and other["better"] == 0
    assert markdown([control, other], "real").count("undefined") == 5


def test_no_difference_has_no_p():
    assert paired_test(np.zeros(5)) is None and paired_test(np.array([np.nan, 0.0])) is None
    assert paired_test(np.array([])) is None and paired_test(np.array([0.1])) == 1.0
