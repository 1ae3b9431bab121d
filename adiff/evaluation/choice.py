"""Which state of a training is kept: the latest that what was set aside cannot tell from the best.

| symbol | meaning | shape |
|---|---|---|
| v | how well a state does on each item set aside, higher is better | (n,) |
| d | v of the best state so far - v of this one | (n,) |

A state is kept if mean d is within its standard error, s / sqrt(n) (after Breiman et al., Classification and Regression
Trees, 1984, sec. 3.4.3): few items cannot tell states apart, and the later one has learned more.
"""

from __future__ import annotations

import numpy as np
from torch import Tensor, nn


class Choice:
    """step, state: of the state that is kept, 0 and empty before the first look."""

    def __init__(self) -> None:
        self.step, self.state, self._best = 0, dict[str, Tensor](), np.zeros(0)

    def look(self, step: int, v: np.ndarray, network: nn.Module) -> None:
        """Take a state for the one to keep, or not. v: of the same items at every look."""
        if not self.step or v.mean() >= self._best.mean():
            self._best = v
        # mean d > s / sqrt(n), multiplied out: exact where v counts, and never of one item
        elif (d := self._best - v).sum() ** 2 > (d**2).sum():
            return
        self.step, self.state = step, {name: tensor.clone() for name, tensor in network.state_dict().items()}
