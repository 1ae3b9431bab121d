from types import SimpleNamespace

import torch

from adiff.training.noising import add_noise, noise_like

MODEL = SimpleNamespace(alphas_cumprod=torch.tensor([0.64, 0.36]))


def test_noised_latents_by_hand():
    """sqrt(0.64) 10 + sqrt(0.36) = 8.6 at t = 0, sqrt(0.36) 10 + sqrt(0.64) = 6.8 at t = 1."""
    z, noise = torch.full((2, 1, 1, 1), 10.0), torch.ones(2, 1, 1, 1)
    torch.testing.assert_close(add_noise(MODEL, z, noise, torch.tensor([0, 1])).flatten(), torch.tensor([8.6, 6.8]))


def test_the_dtype_is_the_latents():
    z = torch.ones(1, 4, 2, 2, dtype=torch.float16)
    noise = noise_like(z, torch.Generator().manual_seed(0))
    assert noise.dtype == add_noise(MODEL, z, noise, torch.tensor([1])).dtype == torch.float16


def test_noise_is_the_generators():
    z = torch.zeros(1, 4, 2, 2)
    first, again = (noise_like(z, torch.Generator().manual_seed(5)) for _ in range(2))
    assert torch.equal(first, again) and torch.equal(
        first, torch.randn(z.shape, generator=torch.Generator().manual_seed(5))
    )
