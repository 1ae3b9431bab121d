"""The measures of a cell, worked out by hand."""

from pathlib import Path

import numpy as np
import pytest

from adiff.benchmark import measures as module
from adiff.benchmark.measures import RealLook, of_pairs
from adiff.contact_sheet import Pair
from adiff.evaluation.localizer import Example
from adiff.evaluation.material import Run


def run(*records, defect="scratch"):
    return Run(Path("run"), {"product": "metal", "defect": defect}, list(records))


def test_measures_are_means_over_the_pairs_of_all_runs_and_the_largest_leak():
    taken = of_pairs([run({"fill": 0.2, "leak": 0.0}, {"fill": 0.4, "leak": 3.0}), run({"fill": 0.9, "leak": 1.0})])
    assert taken["fill"] == pytest.approx(0.5) and taken["leak"] == 3.0 and taken["likeness"] is None


def test_the_gap_is_between_mean_descriptors_and_averaged_over_defects(work, monkeypatch):
    """A picture's descriptor is its first pixel here: generated 10 and 20, real ones 3, 4, 5 and 6."""
    described = []

    def describe(backbone, images, masks):
        described.append(len(images))
        return np.array([[image[0, 0, 0], 0.0] for image in images])

    def image(value):
        return np.full((2, 2, 3), value, np.uint8)

    monkeypatch.setattr(module, "describe", describe)
    monkeypatch.setattr(module, "read_pair", lambda folder, record, _: Pair(None, None, image(record["value"])))
    real = [Example(image(value), None) for value in (3, 4, 5, 6)]
    monkeypatch.setattr(module, "open_examples", lambda shots: real)
    look, made = RealLook(None), run({"value": 10}, {"value": 20})
    assert look.gap([made], work.units[0]) == pytest.approx(15 - 4.5)
    assert look.gap([made, run({"value": 5})], work.units[0]) == pytest.approx((10.5 + 0.5) / 2)
    assert described.count(4) == 1  # the real ones are described once
