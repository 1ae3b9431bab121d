"""The latent grid: grids worked out by hand."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from adiff.latent_grid import area_resize, latent_mask

sides = st.integers(1, 60)


def test_latent_cell_is_on_if_any_pixel_is():
    mask = torch.zeros(1, 1, 16, 24, dtype=torch.bool)
    mask[0, 0, 7, 8] = True
    expected = torch.tensor([[[[0.0, 1.0, 0.0], [0.0, 0.0, 0.0]]]])
    assert torch.equal(latent_mask(mask, 8), expected)


def test_latent_mask_keeps_the_incomplete_last_cell():
    mask = torch.zeros(1, 1, 9, 17)
    mask[0, 0, 8, 16] = 1
    cells = latent_mask(mask, 8)
    assert cells.shape == (1, 1, 2, 3) and cells[0, 0, 1, 2] == 1 and cells.sum() == 1


def test_latent_mask_cuts_soft_masks_at_half():
    mask = torch.tensor([[[[0.49, 0.0], [0.0, 0.5]]]])
    assert latent_mask(mask, 1).flatten().tolist() == [0, 0, 0, 1]
    assert latent_mask(mask[..., :1], 2).item() == 0


@pytest.mark.parametrize("shape", [(4, 4), (1, 3, 4, 4)])
def test_latent_mask_refuses_other_layouts(shape):
    with pytest.raises(ValueError, match="expected \\(B, 1, H, W\\)"):
        latent_mask(torch.zeros(shape), 2)


def test_area_resize_averages_down():
    maps = torch.tensor([[[[0.0, 2.0, 1.0, 1.0], [4.0, 6.0, 1.0, 1.0]]]])
    assert area_resize(maps, (1, 2)).flatten().tolist() == [3.0, 1.0]


def test_area_resize_repeats_up_and_mixes_both():
    maps = torch.tensor([[[[1.0, 3.0]]]])
    assert area_resize(maps, (2, 4))[0, 0].tolist() == [[1, 1, 3, 3], [1, 1, 3, 3]]
    assert area_resize(maps, (2, 1))[0, 0].tolist() == [[2], [2]]


@given(h=sides, w=sides, rows=sides, columns=sides)
@settings(deadline=None, max_examples=50)
def test_area_resize_keeps_constants_and_same_size(h, w, rows, columns):
    assert torch.allclose(area_resize(torch.full((1, 2, h, w), 3.5), (rows, columns)), torch.tensor(3.5))
    maps = torch.rand(1, 1, h, w, generator=torch.Generator().manual_seed(h * 61 + w))
    assert torch.equal(area_resize(maps, (h, w)), maps)
