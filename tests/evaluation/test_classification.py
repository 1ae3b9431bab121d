"""Classification: the confusion matrix, the split, what is left aside."""

import numpy as np
import pytest

from adiff.errors import InputError
from adiff.evaluation import classification as module
from adiff.evaluation.classification import ClassifierSettings, confusion, measure_classification
from adiff.evaluation.material import read_run
from adiff.evaluation.splits import read_split


def test_confusion_by_hand():
    table = confusion([0, 0, 1, 2, 2], [0, 1, 1, 2, 0], 3)
    assert np.array_equal(table, [[1, 1, 0], [0, 1, 0], [1, 0, 1]])


def test_generated_images_teach_and_held_out_real_ones_are_counted(work):
    runs = [read_run(work.run), read_run(work.holes)]
    split = read_split(work.data, "metal", {"scratch": 2, "hole": 3})
    settings = ClassifierSettings(size=32, steps=1, batch=4, check_every=1)
    record = measure_classification(runs, split, settings=settings)
    table = np.array(record["confusion"])
    assert record["classes"] == ["scratch", "hole"] and table.sum(1).tolist() == [3, 2]
    assert record["accuracy"] == pytest.approx(np.trace(table) / 5)
    assert record["pairs"] == {"synthetic": 12, "validation": 4}  # one of the four normal images is set aside
    assert [step for step, _ in record["curve"]] == [1]
    with pytest.raises(InputError, match="two or more defects"):
        measure_classification(runs[:1], split, settings=settings)


def test_a_later_state_that_tells_one_image_less_is_kept(work, monkeypatch):
    """Of the four images set aside, two of each defect, the first state tells all, the second three."""
    told = iter([[0, 0, 1, 1], [0, 0, 1, 0], [0] * 5])
    monkeypatch.setattr(module, "_classify", lambda network, images: np.array(next(told)))
    split = read_split(work.data, "metal", {"scratch": 2, "hole": 3})
    settings = ClassifierSettings(size=32, steps=2, batch=4, check_every=1)
    record = measure_classification([read_run(work.run), read_run(work.holes)], split, settings=settings)
    assert record["curve"] == [(1, 1.0), (2, 0.75)] and record["step"] == 2
