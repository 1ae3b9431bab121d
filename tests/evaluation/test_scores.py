"""A set in numbers: its masks by hand, a detector's metrics, what is undefined, and what taught left out."""

import numpy as np
import pytest

from adiff.evaluation.localizer import Example
from adiff.evaluation.scores import ALL, score_rows, score_sets, without_taught


def example(*boxes, level=230):
    """Grey, with squares of 2 x 2 at (row, column) of 10 x 10."""
    image, mask = np.full((10, 10, 3), 100, np.uint8), np.zeros((10, 10), bool)
    for row, column in boxes:
        mask[row : row + 2, column : column + 2] = True
    image[mask] = level
    return Example(image, mask)


def see_bright(image):
    """A detector that finds everything."""
    score = image[..., 0].astype(np.float32) / 255
    return score, score


def test_masks_by_hand():
    told = score_sets({"dent": [example((4, 4)), example((2, 2), (6, 6))]})["dent"]
    assert told["images"] == 2 and set(told) == {"images", "masks"}
    assert told["masks"]["area"] == {"mean": pytest.approx(0.06), "least": 0.04, "most": 0.08}
    assert told["masks"]["components"] == {"mean": 1.5, "least": 1, "most": 2}
    assert told["masks"]["border"]["most"] == 0 and "novelty" not in told["masks"]
    head, (row,) = score_rows({"dent": told})
    assert head == ["", "images", "area, %", "parts", "border, %"]
    assert row == ["dent", "2", "6 (4 to 8)", "1.5 (1 to 2)", "0"]


def test_novelty_is_against_the_masks_given():
    one = example((4, 4))
    told = score_sets({"pairs": [one]}, shots=[one.mask])["pairs"]
    assert told["masks"]["novelty"]["mean"] == pytest.approx(0)
    assert score_rows({"pairs": told})[0][-1] == "novelty"


def test_several_sets_have_a_row_of_all_and_a_detector_its_metrics():
    sets = {"dent": [example((4, 4))], "stain": [example((2, 2)), example((6, 6))]}
    good = [np.full((10, 10, 3), 100, np.uint8)]
    told = score_sets(sets, normals=good, scorer=see_bright)
    assert list(told) == ["dent", "stain", ALL] and told[ALL]["images"] == 3
    assert told[ALL]["normals"] == 1 and told[ALL]["metrics"]["pixel_ap"] == told["dent"]["metrics"]["image_ap"] == 1
    head, rows = score_rows(told)
    assert head[-7:] == ["pixel AP", "pixel AUROC", "pixel F1-max", "PRO", "image AUROC", "image AP", "image F1-max"]
    assert rows[0][-7:-4] == ["100.0"] * 3


def test_without_good_images_the_image_scores_are_undefined(caplog):
    with caplog.at_level("WARNING", logger="adiff"):
        told = score_sets({"dent": [example((4, 4))]}, scorer=see_bright)
    (row,) = score_rows(told)[1]
    assert row[-3:] == ["undefined"] * 3 and told["dent"]["metrics"]["image_auroc"] is None
    assert "image_auroc" in caplog.text


def test_what_is_undefined_is_said_of_each_set_and_not_again_of_all(caplog):
    score_sets({"dent": [example((4, 4))], "stain": [example((2, 2))]}, scorer=see_bright)
    assert [line.split(":")[0] for line in caplog.messages] == ["dent", "stain"]


def test_what_taught_is_told_by_its_content():
    first, second = example((4, 4)), example((2, 2))
    copy = Example(first.image.copy(), first.mask.copy())
    assert without_taught([tuple(first), tuple(second)], [tuple(copy)]) == [second]
    assert without_taught([tuple(first)], [(copy.image, second.mask)]) == []


def test_what_taught_is_told_in_another_decoders_colours():
    """As of a JPEG, whose colours are coarser than its brightness."""
    photo = np.random.default_rng(0).integers(80, 176, (16, 16, 3), np.uint8)
    colours = photo.astype(int) + np.array([50, -17, -50])  # of no brightness, or nearly
    taught, mask = colours.clip(0, 255).astype(np.uint8), np.eye(16, dtype=bool)
    assert without_taught([(photo, mask)], [(taught, mask)]) == []
    photo[3, 5] += 40
    assert len(without_taught([(photo, mask)], [(taught, mask)])) == 1
    assert len(without_taught([(photo[1:], mask[1:])], [(taught, mask)])) == 1
