import pytest
import torch

from adiff.training.timesteps import LAWS, draw_timesteps, fixed_timesteps, timestep_weights


def draw(law, count, length=1000):
    return draw_timesteps(law, count, length, torch.Generator().manual_seed(0))


def test_min_snr_weights_by_hand():
    """gamma = 5; SNR = 9 / 1 at alpha_bar 0.9, 1 at 0.5, 19 at 0.95: min(SNR, 5) / SNR = 5/9, 1, 5/19."""
    weights = timestep_weights("min-snr", torch.tensor([0.9, 0.5, 0.95]), torch.tensor([0, 1, 2, 1]))
    assert weights.tolist() == pytest.approx([5 / 9, 1, 5 / 19, 1], rel=1e-5)


@pytest.mark.parametrize("law", ["uniform", "shifted"])
def test_the_other_laws_weigh_alike(law):
    assert timestep_weights(law, torch.tensor([0.9, 0.1]), torch.tensor([1, 0, 1])).tolist() == [1, 1, 1]


def test_shifted_timesteps_by_hand():
    """u = 1/4, 1/2, 3/4 go to 3 u / (1 + 2 u) = 1/2, 3/4, 9/10: as many timesteps lie above 750 as below."""
    t = draw("shifted", 40_000).float() / 1000
    quartiles = t.quantile(torch.tensor([0.25, 0.5, 0.75]))
    assert quartiles.tolist() == pytest.approx([0.5, 0.75, 0.9], abs=0.01)


def test_uniform_timesteps_are_torch_s_own_draw():
    assert draw("uniform", 9).equal(torch.randint(0, 1000, (9,), generator=torch.Generator().manual_seed(0)))
    assert draw("min-snr", 9).equal(draw("uniform", 9))


@pytest.mark.parametrize("law", LAWS)
def test_all_timesteps_are_in_the_schedule(law):
    assert set(draw(law, 3000, 4).tolist()) == {0, 1, 2, 3}


def test_fixed_timesteps_by_hand():
    """Two of each of two defects in [0, 100): quarters of the schedule's halves."""
    assert fixed_timesteps(2, 2, 100).tolist() == [12, 62, 37, 87]
    assert fixed_timesteps(1, 4, 100).tolist() == [12, 37, 62, 87]
