import pytest
import torch
from diffusers import DDIMScheduler

from adiff.backbone.schedule import alpha_bar_at, clean_estimate, ddim_step, sampling_timesteps, sd1_scheduler


@pytest.mark.parametrize("steps", [*range(1, 131), 200, 333, 600, 999, 1000])
def test_timesteps_start_at_noise_and_fall_to_the_end(steps):
    found = sampling_timesteps(steps)
    assert len(found) == steps + 1 and found[0] == 999 and found[-1] == -1
    assert all(a > b for a, b in zip(found, found[1:], strict=False))


def test_timesteps_by_hand():
    assert sampling_timesteps(4) == [999, 749, 499, 249, -1]
    assert sampling_timesteps(3) == [999, 666, 332, -1]


def test_alpha_bar_is_one_at_the_end():
    assert alpha_bar_at(torch.tensor([0.9, 0.5]), [1, 0, -1]) == pytest.approx([0.5, 0.9, 1.0])


def test_clean_estimate_undoes_the_noising():
    x0, eps = torch.randn(1, 4, 2, 2), torch.randn(1, 4, 2, 2)
    torch.testing.assert_close(clean_estimate(0.6 * x0 + 0.8 * eps, eps, 0.36), x0)


def test_a_step_with_the_true_noise_stays_on_the_way():
    """sqrt(a) x_0 + sqrt(1 - a) eps at a = 0.36 goes to the same at a = 0.64; at a = 1 it is x_0."""
    x0, eps = torch.randn(1, 4, 2, 2), torch.randn(1, 4, 2, 2)
    x = 0.6 * x0 + 0.8 * eps
    torch.testing.assert_close(ddim_step(x, eps, (0.36, 0.64)), 0.8 * x0 + 0.6 * eps)
    torch.testing.assert_close(ddim_step(x, eps, (0.36, 1.0)), x0)


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_steps_are_diffusers_where_the_steps_divide_the_schedule(eta):
    scheduler: DDIMScheduler = sd1_scheduler()
    scheduler.set_timesteps(50)
    times = sampling_timesteps(50)
    alphas = alpha_bar_at(scheduler.alphas_cumprod, times)
    assert scheduler.timesteps.tolist() == times[:-1]
    x, eps, noise = (torch.randn(1, 4, 4, 4) for _ in range(3))
    for number in (0, 20, 49):
        expected = scheduler.step(eps, times[number], x, eta=eta, variance_noise=noise)
        ours = ddim_step(x, eps, (alphas[number], alphas[number + 1]), eta, noise)
        torch.testing.assert_close(ours, expected.prev_sample, rtol=1e-4, atol=1e-5)


def test_noise_has_to_be_given_for_a_noisy_step():
    x = torch.ones(1, 4, 2, 2)
    with pytest.raises(ValueError, match="eta 1 needs noise"):
        ddim_step(x, x, (0.3, 0.6), 1)
    assert ddim_step(x.half(), x.half(), (0.3, 0.6)).dtype == torch.float16
