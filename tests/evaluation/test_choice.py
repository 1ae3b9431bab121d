"""Which state of a training is kept."""

import numpy as np
import pytest
import torch

from adiff.evaluation.choice import Choice


@pytest.mark.parametrize(
    "looks, kept",
    [
        ([[0.5, 0.6], [0.7, 0.8], [0.1, 0.2]], 2),  # much worse at the end
        ([[0.5, 0.6], [0.7, 0.8], [0.9, 0.59]], 3),  # worse in the mean, but one pair says the contrary
        ([[0.5, 0.6], [0.7, 0.8], [0.9, 0.59], [0.5, 0.5]], 3),
        ([[0.7, 0.8], [0.69, 0.79], [0.8, 0.9]], 3),
        ([[0.7, 0.8], [0.69, 0.79]], 1),  # a little worse, in both alike
        ([[0.7, 0.8], [0.7, 0.8]], 2),
        ([[0.9], [0.2]], 2),  # one pair tells nothing
        *(([[1.0] * n, [1.0] * (n - 1) + [0.0]], 2) for n in range(2, 30)),  # one of n is a standard error, whatever n
        *(([[1.0] * n, [1.0] * (n - 2) + [0.0] * 2], 1) for n in range(3, 30)),
        ([[1.0, 1.0, 1.0, 0.0, 1.0], [0.0, 0.0, 0.0, 1.0, 1.0]], 2),  # three lost, one gained: just as much
    ],
)
def test_of_states_that_the_items_cannot_tell_apart_the_latest_is_chosen(looks, kept):
    choice, network = Choice(), torch.nn.Linear(1, 1)
    for step, values in enumerate(looks, 1):
        torch.nn.init.constant_(network.weight, step)
        choice.look(step, np.array(values), network)
    assert choice.step == kept and choice.state["weight"].item() == kept
