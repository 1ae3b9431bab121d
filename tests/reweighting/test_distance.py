"""d of Eq. 7 and the linear look at latents."""

import pytest
import torch

from adiff.errors import InputError
from adiff.reweighting import distance_map, fit_latent_rgb, latent_rgb


def test_distance_sums_squares_over_channels_inside_the_mask():
    x = torch.tensor([[[[1.0, 2.0]], [[0.0, 5.0]]]])  # (1, 2 channels, 1, 2)
    y = torch.tensor([[[[0.0, 5.0]], [[2.0, 1.0]]]])
    assert distance_map(x, y, torch.tensor([[[[1.0, 1.0]]]])).tolist() == [[[[1 + 4, 9 + 16]]]]
    assert distance_map(x, y, torch.tensor([[[[0.0, 1.0]]]])).tolist() == [[[[0, 25]]]]


def test_distance_in_pixels_is_averaged_down_to_the_latent_grid():
    x = torch.tensor([[[[1.0, 3.0, 9.0, 9.0], [2.0, 0.0, 9.0, 9.0]]]])
    d = distance_map(x, torch.zeros_like(x), torch.tensor([[[[1.0, 0.0]]]]))
    assert d.tolist() == [[[[(1 + 9 + 4 + 0) / 4, 0]]]]


def test_each_image_has_its_own_mask():
    x = torch.ones(2, 1, 1, 2)
    m = torch.tensor([[[[1.0, 0.0]]], [[[0.0, 1.0]]]])
    assert distance_map(x, torch.zeros_like(x), m).flatten(1).tolist() == [[1, 0], [0, 1]]


def test_distance_of_half_precision_is_float32_and_ignores_what_overflowed_outside():
    x = torch.tensor([[[[300.0, float("inf")]]]]).half()
    d = distance_map(x, torch.zeros_like(x), torch.tensor([[[[1.0, 0.0]]]]))
    assert d.dtype == torch.float32 and d.tolist() == [[[[90000, 0]]]]  # 90000 is beyond float16


def test_the_fit_finds_the_map_it_was_made_with():
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(3, 4, 4, 6, generator=generator)
    weight, bias = torch.randn(3, 4, generator=generator), torch.tensor([0.1, -0.2, 0.3])
    pixels = latent_rgb(z, weight, bias).repeat_interleave(8, 2).repeat_interleave(8, 3)
    fitted, offset = fit_latent_rgb(z, pixels)
    torch.testing.assert_close(fitted, weight, atol=1e-5, rtol=0)
    torch.testing.assert_close(offset, bias, atol=1e-5, rtol=0)


def test_the_fit_is_least_squares():
    """One channel 0, 1, 2 against red 0, 1, 5: slope 2.5, intercept -0.5."""
    z = torch.tensor([0.0, 1.0, 2.0]).view(1, 1, 1, 3)
    red = torch.tensor([0.0, 1.0, 5.0]).view(1, 1, 1, 3)
    weight, bias = fit_latent_rgb(z, torch.cat([red, 0 * red, 0 * red + 1], dim=1))
    torch.testing.assert_close(weight, torch.tensor([[2.5], [0.0], [0.0]]))
    torch.testing.assert_close(bias, torch.tensor([-0.5, 0.0, 1.0]))


def test_latent_rgb_by_hand():
    z = torch.tensor([1.0, 2.0]).view(1, 2, 1, 1)
    weight = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    assert latent_rgb(z, weight, torch.tensor([0.0, 0.0, 0.5])).flatten().tolist() == [1, 2, 3.5]


@pytest.mark.parametrize(("latents", "images"), [((1, 4, 2, 2), (1, 3, 16, 16)), ((2, 4, 8, 8), (3, 3, 64, 64))])
def test_a_fit_without_enough_images_is_refused(latents, images):
    with pytest.raises(InputError, match="one image per latent and more than 4 positions"):
        fit_latent_rgb(torch.zeros(latents), torch.zeros(images))
