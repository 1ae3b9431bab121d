"""Heat maps of masks: by hand."""

import numpy as np
import pytest

from adiff.contact_sheet import Pair, StoredPairs
from adiff.datasets.images import write_png
from adiff.errors import InputError
from adiff.report.places import CELLS, MOST, STOPS, places_of


def pair(*box, size=(96, 96)):
    """top, bottom, left, right of the mask, pixels."""
    mask = np.zeros(size, bool)
    mask[box[0] : box[1], box[2] : box[3]] = True
    return Pair(None, mask, np.zeros((*size, 3), np.uint8))


def test_shares_by_hand():
    """The left half in both, the upper left quarter again in one: 1 there, 0.5 below, 0 to the right."""
    found = places_of([pair(0, 96, 0, 48), pair(0, 48, 0, 48)])
    pixels = np.asarray(found.picture)
    assert (found.most, found.masks, found.empty) == (1.0, 2, 0.5) and pixels.shape == (CELLS, CELLS, 3)
    colours = dict(STOPS)
    assert [tuple(pixels[y, x]) for y, x in ((0, 0), (CELLS - 1, 0), (0, CELLS - 1))] == [
        colours[1.0], colours[0.5], colours[0.0]
    ]  # fmt: skip


def test_a_small_mask_is_not_lost_between_cells():
    found = places_of([pair(0, 1, 0, 1)])
    assert found.most == pytest.approx(1 / 4) and found.empty == 1 - 1 / CELLS**2  # a cell is 2 x 2 pixels


def test_images_of_other_shapes_are_stretched():
    found = places_of([pair(0, 48, 0, 96, size=(48, 96)), pair(0, 96, 0, 48)])
    assert found.picture.size == (CELLS, CELLS // 2) and found.most == 1.0


def test_without_pairs_there_is_no_map():
    assert places_of([]) is None


def test_of_stored_pairs_only_masks_are_opened_and_of_many_some(tmp_path):
    write_png(tmp_path / "mask" / "7_mask.png", pair(0, 9, 0, 9).mask)
    found = places_of(StoredPairs(tmp_path, [{"id": "7"}] * (2 * MOST)))
    assert found.masks == MOST and found.most == 1.0
    with pytest.raises(InputError, match="8_mask.png does not exist"):
        places_of(StoredPairs(tmp_path, [{"id": "../8"}]))
