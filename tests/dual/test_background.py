"""What BCM takes for the background, and how foregrounds are found and read."""

import logging

import numpy as np
import pytest
import torch

from adiff.backbone.schedule import alpha_bar_at
from adiff.datasets.images import write_png
from adiff.datasets.surfaces import render, sample_seed
from adiff.dual.background import (
    background_picture,
    encode_backgrounds,
    encode_black,
    find_foreground,
    foregrounds_of,
    read_backgrounds,
    read_foregrounds,
    see_background,
)  # fmt: skip
from adiff.dual.layers import BackgroundPass
from adiff.errors import InputError


def surface(product, number, defect=None, size=128):
    return render(product, defect, size, sample_seed(0, product, defect, "test", number))


def test_an_object_is_told_from_what_surrounds_it_by_its_colour():
    for number in range(3):
        scene = surface("gasket", number)
        found = find_foreground(scene.image)
        overlap = (found & scene.foreground).sum() / (found | scene.foreground).sum()
        assert overlap > 0.8


@pytest.mark.parametrize("product", ["wood", "metal", "carpet", "tile", "leather"])
def test_a_surface_has_no_background(product):
    assert find_foreground(surface(product, 0).image) is None


def test_a_uniform_image_has_no_background():
    assert find_foreground(np.full((32, 32, 3), 90, np.uint8)) is None


def test_it_is_said_in_how_many_photos_no_background_was_found(caplog):
    images = [surface("gasket", 0).image, surface("wood", 0).image]
    with caplog.at_level(logging.WARNING):
        found = foregrounds_of(images, ["a.png", "b.png"])
    assert found[0] is not None and found[1] is None
    assert "no background was found in 1 of 2 photos (b.png)" in caplog.text


def test_the_background_is_grey_where_the_object_is():
    image, foreground = np.full((8, 8, 3), 40, np.uint8), np.zeros((8, 8), bool)
    foreground[2:6, 2:6] = True
    picture = background_picture(image, foreground, 8)
    assert (picture[foreground] == 127.5).all() and (picture[~foreground] == 40).all()
    assert (background_picture(image, None, 4) == 127.5).all()


@torch.no_grad()
def test_the_background_is_seen_noised_under_the_null_context(backbone):
    z, noise = torch.randn(2, 2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    t = torch.tensor([10, 900])
    seen = see_background(backbone, z, noise, t)
    for pair in range(2):
        (level,) = alpha_bar_at(backbone.alphas_cumprod, [int(t[pair])])
        z_t = level**0.5 * z[pair] + (1 - level) ** 0.5 * noise[pair]
        alone = BackgroundPass()
        backbone.predict_noise_edited(z_t[None], t[pair][None], backbone.null_context, alone)
        for name, hidden in alone.seen.items():
            torch.testing.assert_close(seen[name][pair], hidden[0], rtol=1e-3, atol=1e-3)


def test_black_is_black(backbone):
    black = encode_backgrounds(backbone, [np.zeros((64, 64, 3), np.float32)])
    torch.testing.assert_close(encode_black(backbone, 64), black, atol=1e-3, rtol=0)


@pytest.fixture
def folders(tmp_path):
    """Photos a.png and b.png, and a foreground of each."""
    for name in "ab":
        write_png(tmp_path / "photos" / f"{name}.png", np.full((16, 24, 3), 60, np.uint8))
        mask = np.zeros((16, 24), bool)
        mask[4:12, 4:20] = True
        write_png(tmp_path / "objects" / f"{name}{'_mask' if name == 'b' else ''}.png", mask)
    return tmp_path / "photos", tmp_path / "objects"


def test_foregrounds_go_by_the_photos_names(folders):
    masks = read_foregrounds(folders[1], ["metal/test/b.png", "a.png"], [(16, 24)] * 2)
    assert [int(mask.sum()) for mask in masks] == [128, 128]
    (folders[1] / "b_mask.png").rename(folders[1] / "face_mask.png")
    assert read_foregrounds(folders[1], ["face_mask.png"], [(16, 24)])[0].sum() == 128  # a photo that is called so
    with pytest.raises(InputError, match="no foreground for metal/c.png; give a mask of the object for each"):
        read_foregrounds(folders[1], ["metal/c.png"], [(16, 24)])
    with pytest.raises(InputError, match="24x16, its image 16x16"):
        read_foregrounds(folders[1], ["a.png"], [(16, 16)])
    write_png(folders[1] / "full.png", np.ones((16, 24), bool))
    with pytest.raises(InputError, match="marks the whole image; mark the object only"):
        read_foregrounds(folders[1], ["full.png"], [(16, 24)])


def test_backgrounds_are_read_with_their_foregrounds(backbone, folders):
    photos = sorted(folders[0].iterdir())
    latents, names = read_backgrounds(backbone, 64, photos, folders[1])
    assert names == ("a.png", "b.png") and latents.shape == (2, 4, 8, 8)
    alone, _ = read_backgrounds(backbone, 64, photos, None)
    assert not torch.allclose(latents, alone, atol=1e-3)
