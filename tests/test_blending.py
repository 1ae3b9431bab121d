"""Blended generation (Eq. 1)."""

import pytest
import torch

from adiff.blending import Blender, blend, noised_normal
from adiff.errors import InputError

MASK = torch.tensor([[[[1.0, 0.0]]]])
Y = torch.tensor([[[[2.0, 4.0]]]])
NOISE = torch.tensor([[[[1.0, -1.0]]]])
ALPHAS = torch.tensor([0.64, 0.36])


def test_noised_normal_by_hand():
    """sqrt(0.64) 2 + sqrt(0.36) 1 = 2.2; 0.8 * 4 - 0.6 = 2.6."""
    torch.testing.assert_close(noised_normal(Y, NOISE, 0.64), torch.tensor([[[[2.2, 2.6]]]]))


def test_noised_normal_at_the_ends():
    assert torch.equal(noised_normal(Y, NOISE, 1.0), Y)
    assert torch.equal(noised_normal(Y, NOISE, 0.0), NOISE)


def test_blend_by_hand():
    x = torch.tensor([[[[10.0, 20.0]], [[30.0, 40.0]]]])
    y = torch.tensor([[[[1.0, 2.0]], [[3.0, 4.0]]]])
    assert blend(x, y, MASK).tolist() == [[[[10, 2]], [[30, 4]]]]


def test_blend_is_the_sum_of_equation_1():
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(2, 2, 4, 3, 5, generator=generator)
    m = (torch.rand(2, 1, 3, 5, generator=generator) > 0.5).float()
    assert torch.equal(blend(x, y, m), x * m + y * (1 - m))
    assert torch.equal(blend(x, y, m.bool()), blend(x, y, m))


def test_blend_forgets_what_overflowed_outside():
    x = torch.tensor([[[[1.0, float("inf")]]]])
    assert blend(x, Y, MASK).tolist() == [[[[1, 4]]]]


def test_fixed_blending_by_hand():
    """Step 1: outside sqrt(0.36) 4 - sqrt(0.64) = 1.6; step 0: 2.6; the end: 4 itself."""
    blender = Blender(Y, MASK, ALPHAS, "fixed", NOISE)
    x = torch.tensor([[[[7.0, 7.0]]]])
    torch.testing.assert_close(blender(x, 1), torch.tensor([[[[7.0, 1.6]]]]))
    torch.testing.assert_close(blender(x, 0), torch.tensor([[[[7.0, 2.6]]]]))
    assert blender(x, -1).tolist() == [[[[7, 4]]]]


def test_fresh_blending_uses_each_calls_noise():
    blender = Blender(Y, MASK, ALPHAS, "fresh")
    x = torch.tensor([[[[7.0, 7.0]]]])
    torch.testing.assert_close(blender(x, 0, NOISE), torch.tensor([[[[7.0, 2.6]]]]))
    torch.testing.assert_close(blender(x, 0, -NOISE), torch.tensor([[[[7.0, 3.8]]]]))  # 3.2 + 0.6
    assert blender(x, -1).tolist() == [[[[7, 4]]]]  # after the last step there is no noise


def test_a_mask_for_one_call():
    blender = Blender(Y, MASK, ALPHAS, "fixed", NOISE)
    x = torch.tensor([[[[7.0, 7.0]]]])
    assert torch.equal(blender(x, 0, mask=torch.ones_like(MASK)), x)
    torch.testing.assert_close(blender(x, 0)[..., 1], torch.tensor([[[2.6]]]))  # the run's own is kept


def test_dtype_follows_the_latents():
    blender = Blender(Y, MASK, ALPHAS, "fixed", NOISE)
    assert blender(torch.ones(1, 1, 1, 2).half(), 0).dtype == torch.float16


def test_alpha_bar_near_0_keeps_its_noise_in_half_precision():
    """sqrt(1 - alpha_bar) is taken in float64, noise and image meet in float32."""
    out = noised_normal(Y.half(), NOISE.half(), 0.0047)
    torch.testing.assert_close(out, (0.0047**0.5 * Y + 0.9953**0.5 * NOISE).half(), rtol=0, atol=0)


def test_noise_in_the_wrong_place_is_refused():
    with pytest.raises(ValueError, match="'fixed', and only then"):
        Blender(Y, MASK, ALPHAS, "fixed")
    with pytest.raises(ValueError, match="'fixed', and only then"):
        Blender(Y, MASK, ALPHAS, "fresh", NOISE)
    x = torch.zeros_like(Y)
    with pytest.raises(ValueError, match="'fresh', and only then"):
        Blender(Y, MASK, ALPHAS, "fresh")(x, 0)
    with pytest.raises(ValueError, match="'fresh', and only then"):
        Blender(Y, MASK, ALPHAS, "fixed", NOISE)(x, 0, NOISE)


def test_wrong_arguments_are_named():
    with pytest.raises(InputError, match="'new' is unknown; choose one of fixed, fresh"):
        Blender(Y, MASK, ALPHAS, "new")
    with pytest.raises(InputError, match=r"mask \(1, 1, 1, 1\) does not fit the normal latents \(1, 1, 1, 2\)"):
        Blender(Y, MASK[..., :1], ALPHAS)
