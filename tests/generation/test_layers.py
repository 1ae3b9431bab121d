"""Several defects in one image: masks that lie apart, painted one after another, measured together."""

from pathlib import Path

import numpy as np
import pytest
import torch

from adiff.datasets.images import Photo, write_png
from adiff.errors import InputError
from adiff.generation import FolderMasks, GenerationSettings, Pair
from adiff.generation.layers import (
    TRIES,
    Layer,
    Region,
    check_folders,
    label_map,
    lie_apart,
    masks_apart,
    measure_all,
    paint_masks,
    surrounding_box,
)
from adiff.generation.sources import Batch, NoMask
from adiff.geometry import Box

FEW = GenerationSettings(steps=1, reweighting="off", guidance=1.0)


def spot(top, left, side=2, size=64):
    mask = np.zeros((size, size), bool)
    mask[top : top + side, left : left + side] = True
    return mask


def photos(count=1):
    rng = np.random.default_rng(3)
    return [Photo(rng.integers(0, 255, (64, 64, 3), np.uint8), Path(f"{i}.png")) for i in range(count)]


class Scripted:
    """A source whose mask of a pair's n-th asking is script(id, n); remembers the batches it was asked for."""

    def __init__(self, script):
        self.script, self.asked = script, []

    def masks(self, backbone, photos, batch):
        assert len(photos) == len(batch.ids)
        self.asked.append(batch)
        return [(self.script(i, len(self.asked) - 1), {"try": len(self.asked)}) for i in batch.ids]


@pytest.mark.parametrize(
    ("second", "apart"),
    [((12, 12), False), ((12, 13), True), ((12, 11), False), ((9, 9), False), ((8, 8), False), ((7, 7), True)],
    ids=["corner", "beside the corner", "edge", "overlap", "other corner", "gap"],
)
def test_masks_lie_apart_with_one_pixel_between(second, apart):
    assert lie_apart([spot(10, 10), spot(*second)]) == apart == lie_apart([spot(*second), spot(10, 10)])


def test_the_third_mask_is_held_against_all_before():
    assert lie_apart([spot(0, 0)]) and lie_apart([spot(0, 0), spot(0, 8), spot(0, 16)])
    assert not lie_apart([spot(0, 0), spot(0, 8), spot(2, 2)])


def test_only_photos_whose_masks_touch_get_new_ones():
    first = Scripted(lambda i, n: spot(10, 10))
    second = Scripted(lambda i, n: spot(30, 30) if i == 8 or n == 2 else spot(11, 11))
    chosen = masks_apart(None, [first, second], photos(2), Batch(7, 4, [8, 9]))
    assert [list(batch.ids) for batch in second.asked] == [[8, 9], [9], [9]] == [list(b.ids) for b in first.asked]
    assert [[source["try"] for _, source in of_photo] for of_photo in chosen] == [[1, 1], [3, 3]]
    seeds = [batch.seed for batch in first.asked + second.asked]
    assert seeds[0] == 7 and len(set(seeds)) == 6  # alone, the first defect would get the same masks
    assert {batch.number for batch in first.asked} == {4}


def test_one_mask_is_drawn_once():
    source = Scripted(lambda i, n: spot(10, 10))
    ((chosen,),) = masks_apart(None, [source], photos(), Batch(7, 0, [3]))
    assert np.array_equal(chosen[0], spot(10, 10)) and source.asked == [Batch(7, 0, [3])]


def test_masks_that_never_lie_apart_are_given_up():
    source = Scripted(lambda i, n: spot(10, 10))
    (none,) = masks_apart(None, [source, source], photos(), Batch(0, 0, [0]))
    assert f"no 2 masks that lie apart were found in {TRIES} draws" in none.reason


def test_a_photo_without_one_of_its_masks_has_none_and_is_not_drawn_again():
    first = Scripted(lambda i, n: spot(10, 10))
    second = Scripted(lambda i, n: spot(30, 30))
    second.masks = lambda backbone, photos, batch: [NoMask("none passed") if i == 8 else (spot(30, 30), {})
                                                    for i in batch.ids]  # fmt: skip
    lacking, found = masks_apart(None, [first, second], photos(2), Batch(7, 4, [8, 9]))
    assert lacking == NoMask("none passed") and len(found) == 2 and len(first.asked) == 1


@pytest.fixture
def folder(tmp_path):
    def write(name, *masks):
        for i, mask in enumerate(masks):
            write_png(tmp_path / name / f"{i}.png", mask)
        return FolderMasks(sorted((tmp_path / name).iterdir()))

    return write


def test_folders_of_masks_for_one_image_are_checked(folder):
    left = folder("left", spot(0, 0), spot(9, 9))
    check_folders([left])
    check_folders([left, Scripted(None)])
    check_folders([left, folder("right", spot(9, 9), spot(0, 0))])
    with pytest.raises(InputError, match="hold 2 and 1 masks; they are paired by order"):
        check_folders([left, folder("less", spot(9, 9))])
    with pytest.raises(InputError, match=r"left.1.png and .*near.1.png touch or overlap"):
        check_folders([left, folder("near", spot(9, 9), spot(11, 11))])
    with pytest.raises(InputError, match=r"left.0.png and .*large.0.png belong to one image, but differ in size"):
        check_folders([left, folder("large", spot(9, 9, size=32), spot(0, 0))])


def region(mask, image, fill, box):
    measures = {"fill": fill, "refined_iou": fill / 2, "leak": 0.0, "area": 0.5, "likeness": 3.0}
    return Region(Pair(image, mask, Box(*box), measures), {})


def test_measures_of_two_regions_by_hand():
    (photo,) = photos()
    masks = [spot(0, 0, side=10), spot(20, 20, side=20)]  # 100 and 400 pixels of 4096
    image = photo.pixels.copy()
    image[50, 50, 1] ^= 4  # a pixel outside both that should not have changed
    regions = [region(masks[0], photo.pixels, 1.0, (0, 0, 32, 32)), region(masks[1], image, 0.5, (8, 4, 60, 56))]
    measures = measure_all(photo, regions)
    assert measures["fill"] == pytest.approx((100 * 1.0 + 400 * 0.5) / 500) == 2 * measures["refined_iou"]
    assert (measures["leak"], measures["area"], measures["components"]) == (4.0, 500 / 4096, 2.0)
    assert measures.get("likeness") is None  # each region has its own
    assert tuple(surrounding_box(regions)) == (0, 0, 60, 56)
    labels = label_map(regions)
    assert labels.dtype == np.uint8 and np.array_equal(labels, masks[0] + 2 * masks[1])


def paint_layers(backbone, layers, encoder, photos, batch, settings):
    chosen = masks_apart(backbone, [layer.masks for layer in layers], photos, batch)
    return paint_masks(backbone, layers, encoder, photos, chosen, batch, settings)


def embedding(seed):
    return torch.randn(8, 768, generator=torch.Generator().manual_seed(seed))


def test_the_second_defect_is_painted_into_what_the_first_left(backbone, monkeypatch):
    masks = [spot(6, 6, side=20), spot(34, 30, side=20)]
    layers = [
        Layer(("metal", str(seed)), embedding(seed), Scripted(lambda i, n, mask=mask: mask))
        for seed, mask in enumerate(masks)
    ]
    given, batch = photos(2), Batch(5, 0, [0, 1])
    both = paint_layers(backbone, layers, None, given, batch, FEW)
    alone = paint_layers(backbone, layers[:1], None, given, batch, FEW)
    for photo, (first, second), (only,) in zip(given, both, alone, strict=True):
        assert np.array_equal(first.pair.image, only.pair.image)  # as if it were the only one
        outside, normal = ~masks[1], first.pair.image
        assert np.array_equal(second.pair.image[outside], normal[outside])
        assert (second.pair.image[masks[1]] != normal[masks[1]]).any()
        union = masks[0] | masks[1]
        assert np.array_equal(second.pair.image[~union], photo.pixels[~union])
        assert measure_all(photo, [first, second])["leak"] == 0
    # two regions of the same defect, in the same place of the same photo, are not the same picture
    twice = [Layer(("metal", "0"), embedding(0), Scripted(lambda i, n: masks[0]))] * 2
    monkeypatch.setattr("adiff.generation.layers.lie_apart", lambda masks: True)
    ((first, second),) = paint_layers(backbone, twice, None, given[:1], Batch(5, 0, [0]), FEW)
    assert (first.pair.image[masks[0]] != second.pair.image[masks[0]]).any()
