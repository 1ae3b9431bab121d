"""Run lengths as pycocotools writes and reads them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis.extra.numpy import array_shapes, arrays
from pycocotools import mask as coco

from adiff.export.rle import decode_rle, encode_rle


def test_lengths_worked_out_by_hand():
    # columns: off on on | on off off
    mask = np.array([[0, 1], [1, 0], [1, 0]], bool)
    assert encode_rle(mask) == {"size": [3, 2], "counts": [1, 3, 2]}
    assert np.array_equal(decode_rle([1, 3, 2], (3, 2)), mask)
    # a mask that starts with a pixel on begins with none off
    assert encode_rle(np.ones((5, 8), bool))["counts"] == [0, 40]
    assert encode_rle(np.zeros((5, 8), bool))["counts"] == [40]


def test_text_worked_out_by_hand():
    # a character is "0" + count below 16
    assert np.array_equal(decode_rle("132", (3, 2)), np.array([[0, 1], [1, 0], [1, 0]], bool))
    # 40 = 8 + 32: "0" + 8 + 32 = "X", then "0" + 1
    assert decode_rle("0X1", (5, 8)).all()


def test_later_lengths_of_a_text_are_differences_to_the_one_before_the_last():
    # 2 off, 1 on, 4 off, 3 on: the fourth is 3 - 1 = 2
    assert np.array_equal(decode_rle("2142", (1, 10)), np.array([[0, 0, 1, 0, 0, 0, 0, 1, 1, 1]], bool))
    # 1 off, 3 on, 1 off, 1 on: 1 - 3 = -2 is 11110 in five bits, 30: "0" + 30
    assert np.array_equal(decode_rle("131N", (1, 6)), np.array([[0, 1, 1, 1, 0, 1]], bool))


@given(arrays(bool, array_shapes(min_dims=2, max_dims=2, max_side=40)))
@settings(max_examples=60, deadline=None)
def test_pycocotools_agrees(mask):
    ours, theirs = encode_rle(mask), coco.encode(np.asfortranarray(mask.astype(np.uint8)))
    assert coco.frPyObjects(ours, *ours["size"]) == theirs
    assert np.array_equal(decode_rle(theirs["counts"].decode(), mask.shape), mask)


@pytest.mark.parametrize(
    "counts", ["133", "13", "o", "~", "1 2", "o" * 8 + "1", [1, 3, 3], [7, -1], [2.5, 3.5], "\ud800"]
)
def test_lengths_of_no_mask(counts):
    with pytest.raises(ValueError, match="they|is not one"):
        decode_rle(counts, (3, 2))
