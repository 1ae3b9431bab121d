"""The procedural surfaces: valid masks, truthful words, exactness outside the mask, and the same bytes each time."""

import itertools

import numpy as np
import pytest
from scipy import ndimage

from adiff.datasets.surfaces import DEFECTS, PRODUCTS, VOCABULARY, WITHHELD, render, sample_seed

COMBINATIONS = list(itertools.product(PRODUCTS, DEFECTS))
SIZE = 128


def pair(product, defect, index=0, size=SIZE, **options):
    """Return the normal and the defective surface of the same generator."""
    path = (11, product, defect, index)
    return tuple(render(product, kind, size, sample_seed(*path), **options) for kind in (None, defect))


def centroid(mask):
    """Return the mask's centroid (u, v) in image sides."""
    rows, columns = np.nonzero(mask)
    return (columns.mean() + 0.5) / mask.shape[1], (rows.mean() + 0.5) / mask.shape[0]


@pytest.mark.parametrize(("product", "defect"), COMBINATIONS)
def test_defect_is_valid_and_exact(product, defect):
    for index in range(2):
        normal, spoiled = pair(product, defect, index)
        mask = spoiled.mask
        assert spoiled.image.shape == (SIZE, SIZE, 3) and spoiled.image.dtype == np.uint8
        assert 0.008 <= mask.mean() <= 0.12
        border = np.ones_like(mask)
        border[1:-1, 1:-1] = False
        assert not (mask & border).any()
        assert not (mask & ~spoiled.foreground).any()
        change = np.abs(spoiled.image.astype(int) - normal.image)
        # Clipping at 255 and rounding take up to a level from what the noise-free pictures promise.
        assert change[mask].mean() >= (24 if defect == "dent" else 34)
        near = ndimage.distance_transform_edt(~mask) <= 3
        assert change[~near].max() == 0
        # Most of the mask is really changed: closed gaps are the exception.
        assert (change.max(-1)[mask] > 8).mean() > 0.75


@pytest.mark.parametrize(("product", "defect"), COMBINATIONS)
def test_words_tell_what_the_mask_shows(product, defect):
    surface = pair(product, defect, 5)[1]
    assert set(surface.words) <= set(VOCABULARY)
    assert surface.words[0] == product and surface.words[2] == defect and len(surface.words) == 7
    u, v = centroid(surface.mask)
    if max(abs(u - 0.5), abs(v - 0.5)) < 0.16:
        expected = "centre"
    else:
        expected = ("top" if v < 0.5 else "bottom") + ("-left" if u < 0.5 else "-right")
    assert surface.words[6] == expected


def test_normal_surfaces_have_no_mask():
    for product in PRODUCTS:
        surface = render(product, None, SIZE, sample_seed(3, product, "good", "train", 0))
        assert not surface.mask.any()
        assert surface.defect is None and len(surface.words) == 2 and set(surface.words) <= set(VOCABULARY)
        assert surface.foreground.all() == (product != "gasket")
        assert 40 < surface.image[surface.foreground].mean() < 235


def test_same_path_gives_the_same_bytes():
    first = render("wood", "stain", SIZE, sample_seed(1, "wood", "stain", "train", 4))
    again = render("wood", "stain", SIZE, sample_seed(1, "wood", "stain", "train", 4))
    other = render("wood", "stain", SIZE, sample_seed(1, "wood", "stain", "train", 5))
    assert first.image.tobytes() == again.image.tobytes() and first.mask.tobytes() == again.mask.tobytes()
    assert first.words == again.words
    assert first.image.tobytes() != other.image.tobytes()


def test_seed_path_is_read_by_value_and_in_order():
    by_none, by_word = sample_seed(1, "wood", None, 2), sample_seed(1, "wood", "good", np.int64(2))
    assert by_none.integers(2**62) == by_word.integers(2**62)
    values = {sample_seed(*path).integers(2**62) for path in ((1, "a", "b"), (1, "b", "a"), (1, "ab"), (2, "a", "b"))}
    assert len(values) == 4
    # A fixed value: streams must not change between processes and releases.
    assert sample_seed(0, "wood", "good", "train", 0).integers(1000) == 289


@pytest.mark.parametrize("size", [64, 96, 128])
def test_every_size_draws_the_same_scene(size):
    for product in PRODUCTS:
        small = render(product, None, size, sample_seed(7, product)).image.astype(float)
        full = render(product, None, 256, sample_seed(7, product)).image.astype(float)
        blocks = [a.reshape(16, a.shape[0] // 16, 16, a.shape[1] // 16, 3).mean((1, 3)) for a in (small, full)]
        assert np.abs(blocks[0] - blocks[1]).mean() < 4
        surface = render(product, "hole", size, sample_seed(8, product))
        assert 0.008 <= surface.mask.mean() <= 0.12


@pytest.mark.parametrize("defect", DEFECTS)
@pytest.mark.parametrize("place", [(0.25, 0.3), (0.5, 0.5), (0.75, 0.7)])
def test_place_is_respected(defect, place):
    for product in ("metal", "leather"):
        u, v = centroid(pair(product, defect, 2, place=place)[1].mask)
        assert np.hypot(u - place[0], v - place[1]) < 0.17


def test_place_outside_of_the_foreground_moves_onto_it():
    surface = render("gasket", "hole", SIZE, sample_seed(4), place=(0.0, 0.0))
    u, v = centroid(surface.mask)
    assert u < 0.5 and v < 0.5 and not (surface.mask & ~surface.foreground).any()


def test_withheld_combinations_exist():
    assert set(WITHHELD) <= set(COMBINATIONS)
    assert len(VOCABULARY) == len(set(VOCABULARY))


def test_errors_name_what_came_and_what_exists():
    rng = sample_seed(0)
    with pytest.raises(ValueError, match=r"'glass'.*wood.*gasket"):
        render("glass", None, SIZE, rng)
    with pytest.raises(ValueError, match=r"'rust'.*scratch.*contamination"):
        render("wood", "rust", SIZE, rng)
    with pytest.raises(ValueError, match=r"31.*32"):
        render("wood", None, 31, rng)
