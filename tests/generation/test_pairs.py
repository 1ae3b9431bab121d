from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from adiff.datasets.images import Photo
from adiff.errors import InputError
from adiff.generation import GenerationSettings, make_pairs, pairs
from adiff.generation.pairs import paint_box, paint_crops
from adiff.geometry import box_of
from adiff.scoring import ShotReference, describe

FEW = GenerationSettings(steps=2, reweighting="off", guidance=1.0)
KINDS = {"rgb": ((3,), np.uint8), "grey": ((), np.uint8), "rgba": ((4,), np.uint8), "grey 16": ((), np.uint16)}


def photo(height, width, kind="rgb", seed=0):
    shape, dtype = KINDS[kind]
    pixels = np.random.default_rng(seed).integers(0, np.iinfo(dtype).max, (height, width, *shape), dtype, endpoint=True)
    return Photo(pixels, Path(f"{kind}.png"))


def rectangle(height, width, top, left, h, w):
    mask = np.zeros((height, width), bool)
    mask[top : top + h, left : left + w] = True
    return mask


@pytest.fixture
def embedding():
    return torch.randn(8, 768, generator=torch.Generator().manual_seed(0))


def paint(backbone, photos, masks, embedding, encoder=None, settings=FEW, seed=0, shots=None):
    generators = [torch.Generator().manual_seed(seed + i) for i in range(len(photos))]
    return make_pairs(backbone, photos, masks, embedding, encoder, settings, generators, shots=shots)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [(64, 64), (100, 150), (40, 56)], ids=["native", "larger", "smaller"])
def test_pixels_outside_the_mask_are_identical(backbone, embedding, encoder, kind, size):
    normal, mask = photo(*size, kind), rectangle(*size, 7, 12, 14, 9)
    (pair,) = paint(backbone, [normal], [mask], embedding, encoder)
    assert pair.image.dtype == normal.pixels.dtype and pair.image.shape == normal.pixels.shape
    assert np.array_equal(pair.image[~mask], normal.pixels[~mask])
    assert (pair.image[mask] != normal.pixels[mask]).any() and np.array_equal(pair.mask, mask)
    if kind == "rgba":
        assert np.array_equal(pair.image[..., 3], normal.pixels[..., 3])
    assert pair.measures["leak"] == 0 and pair.measures["area"] == mask.mean() and pair.measures["components"] == 1


def test_photos_of_several_sizes_go_into_one_batch(backbone, embedding):
    normals = [photo(64, 64), photo(90, 130, "grey"), photo(33, 47, "rgba")]
    masks = [rectangle(*n.size, 5, 6, 12, 10) for n in normals]
    for pair, normal, mask in zip(paint(backbone, normals, masks, embedding), normals, masks, strict=True):
        assert np.array_equal(pair.image[~mask], normal.pixels[~mask]) and pair.measures["leak"] == 0


def test_the_box_holds_the_mask_and_follows_the_setting(backbone):
    small, large = rectangle(64, 64, 10, 50, 4, 6), rectangle(64, 64, 4, 4, 40, 40)
    assert tuple(paint_box(large, backbone, FEW)) == (0, 0, 64, 64)  # covers 25 of 64 cells
    left, top, right, bottom = paint_box(small, backbone, FEW)
    assert right - left == bottom - top == 32 and left <= 50 and top <= 10 and right >= 56 and bottom >= 14
    whole = paint_box(small, backbone, GenerationSettings(crop=False))
    assert tuple(whole) == (0, 0, 64, 64)


def test_far_parts_are_painted_in_crops_of_their_own(backbone, embedding, encoder):
    normal = photo(400, 600)
    near, far = rectangle(400, 600, 20, 30, 9, 12), rectangle(400, 600, 350, 540, 12, 8)
    crops = paint_crops(near | far, backbone, FEW)
    assert len(crops) == 2 and all(crop.box.width == 32 for crop in crops)
    (pair,) = paint(backbone, [normal], [near | far], embedding, encoder)
    (alone,) = paint(backbone, [normal], [near], embedding, encoder)
    assert np.array_equal(pair.image[~(near | far)], normal.pixels[~(near | far)]) and pair.measures["leak"] == 0
    assert all((pair.image[part] != normal.pixels[part]).any() for part in (near, far))
    assert pair.measures["components"] == 2 and tuple(pair.box) == tuple(box_of([crop.box for crop in crops]))
    assert alone.box == crops[0].box
    # in one crop for both neither would cover a latent cell
    assert len(paint_crops(near | far, backbone, GenerationSettings(crop=False))) == 1


def test_more_views_than_a_batch_are_painted_in_several(backbone, embedding):
    mask = np.zeros((400, 600), bool)
    for top in (20, 200, 370):
        mask[top : top + 8, 100:110] = mask[top : top + 8, 500:510] = True
    settings = replace(FEW, batch=2)
    (pair,) = paint(backbone, [photo(400, 600)], [mask], embedding, settings=settings)
    (again,) = paint(backbone, [photo(400, 600)], [mask], embedding, settings=settings)
    assert np.array_equal(pair.image, again.image) and pair.measures["components"] == 6
    changed = (pair.image != photo(400, 600).pixels).any(-1)
    assert all(changed[top : top + 8, left : left + 10].any() for top in (20, 200, 370) for left in (100, 500))


def test_out_of_memory_paints_the_far_parts_of_one_photo_a_few_at_a_time(backbone, embedding, monkeypatch):
    """6 views of one photo where 2 fit: 6, 3, then 2, 2, 2, from the same noise."""
    mask, sizes, whole = np.zeros((400, 600), bool), [], pairs.sample_blended
    for top in (20, 200, 370):
        mask[top : top + 8, 100:110] = mask[top : top + 8, 500:510] = True
    given = backbone, [photo(400, 600)], [mask], embedding
    (pair,) = paint(*given)

    def small(backbone, y, *more):
        sizes.append(len(y))
        painted = whole(backbone, y, *more)
        if len(y) > 2:  # when the noise is drawn already
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        return painted

    monkeypatch.setattr(pairs, "sample_blended", small)
    (again,) = paint(*given)
    assert sizes == [6, 3, 2, 2, 2]
    assert np.abs(again.image.astype(int) - pair.image).max() <= 2 and (pair.image != again.image).mean() < 0.01


def test_a_photo_that_is_not_square_is_painted_in_a_square_without_crop(backbone):
    box = paint_box(rectangle(60, 100, 10, 70, 20, 20), backbone, GenerationSettings(crop=False))
    assert box.width == box.height == 60 and box.left <= 70 and box.right >= 90


def test_a_mask_longer_than_the_short_side_is_held_whole(backbone, embedding):
    normal, mask = photo(30, 120), rectangle(30, 120, 10, 5, 4, 110)
    (pair,) = paint(backbone, [normal], [mask], embedding)
    assert pair.box.left <= 5 and pair.box.right >= 115
    assert np.array_equal(pair.image[~mask], normal.pixels[~mask])


def test_the_same_generators_paint_the_same(backbone, embedding, encoder):
    given = backbone, [photo(64, 64)], [rectangle(64, 64, 10, 10, 20, 20)], embedding, encoder
    first, again, other = (paint(*given, seed=seed)[0].image for seed in (0, 0, 9))
    assert np.array_equal(first, again) and not np.array_equal(first, other)


def test_fill_is_measured_against_the_round_trip(backbone, embedding, monkeypatch):
    """A model that paints back what the autoencoder makes of the photo has filled nothing."""
    monkeypatch.setattr("adiff.generation.pairs.sample_blended", lambda backbone, y, *_: y)
    (pair,) = paint(backbone, [photo(64, 64)], [rectangle(64, 64, 10, 10, 30, 30)], embedding)
    assert pair.measures["fill"] == 0


@pytest.mark.parametrize("kind", KINDS)
def test_pairs_are_compared_with_the_shots(backbone, embedding, kind):
    """Against a pair's own region and mask, likeness and novelty are 0; against another's they are not."""
    normals, masks = [photo(90, 70, kind, seed) for seed in range(2)], [rectangle(90, 70, 20, 20, 12, 30)] * 2
    first, second = paint(backbone, normals, masks, embedding)
    assert first.measures["likeness"] is None and first.measures["novelty"] is None
    one = describe(backbone, [Photo(first.image, Path("x")).rgb], masks[:1])
    shots = ShotReference(rectangle(64, 64, 1, 1, 8, 27)[None], one)
    again, other = paint(backbone, normals, masks, embedding, shots=shots)
    assert np.array_equal(again.image, first.image)
    assert again.measures["likeness"] == 0 < other.measures["likeness"]
    assert again.measures["likeness_shots"] is None and 0 < again.measures["novelty"] < 0.2


@pytest.mark.parametrize("mask", [np.zeros((64, 64), bool), rectangle(32, 64, 2, 2, 9, 9)], ids=["empty", "size"])
def test_a_mask_that_does_not_fit_is_refused(backbone, embedding, mask):
    with pytest.raises(InputError, match="for rgb.png is empty or not of the photo's size"):
        paint(backbone, [photo(64, 64)], [mask], embedding)
