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


@pytest.fixture
def looks(monkeypatch):
    """A picture's descriptor is its first pixel here, its alignment a hundredth of that; the calls of `describe`.

    Unseen real ones are 3, 4, 5 and 6, shots 0 and 100.
    """
    described = []

    def describe(backbone, images, masks):
        described.append(len(images))
        return np.array([[image[0, 0, 0], 0.0] for image in images])

    def image(value):
        return np.full((2, 2, 3), value, np.uint8)

    monkeypatch.setattr(module, "describe", describe)
    monkeypatch.setattr(module, "alignment", lambda image, mask: image[0, 0, 0] / 100)
    monkeypatch.setattr(module, "read_pair", lambda folder, record, _: Pair(None, None, image(record["value"])))
    values = {2: (0, 100), 4: (3, 4, 5, 6)}
    monkeypatch.setattr(module, "open_examples", lambda shots: [Example(image(v), None) for v in values[len(shots)]])
    return described


def test_the_gap_is_between_mean_descriptors_and_averaged_over_defects(work, looks):
    look, made = RealLook(None), run({"value": 10}, {"value": 20})
    assert look.compare([made], work.units[0])["gap"] == pytest.approx(15 - 4.5)
    both = look.compare([made, run({"value": 5})], work.units[0])
    assert both["gap"] == pytest.approx((10.5 + 0.5) / 2) and both["alignment"] == pytest.approx((0.15 + 0.05) / 2)
    assert len(looks) == (2 + 4 + 2) + (2 + 1)  # the real ones are described once


def test_diversity_is_the_distance_within_clusters_around_the_shots(work, looks):
    """Around 0: 10, 20 and 40, 20 apart on average; around 100: 90 and 94, 4 apart. One alone has no distance."""
    look, unit = RealLook(None), work.units[0]
    made = run(*({"value": value} for value in (10, 20, 40, 90, 94)))
    assert look.compare([made], unit)["diversity"] == pytest.approx((20 + 4) / 2)
    alone = look.compare([run({"value": 10}, {"value": 90})], unit)
    assert alone["diversity"] is None
    assert look.compare([made, run({"value": 1})], unit)["diversity"] == pytest.approx(12)  # of the other defect none
    real = look.reference(unit)
    assert real == {"diversity": pytest.approx((1 + 2 + 3 + 1 + 2 + 1) / 6), "alignment": pytest.approx(0.045)}
