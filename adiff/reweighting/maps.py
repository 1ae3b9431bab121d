"""One weight per position from the distance (Eq. 7, second half), in the modes of METHOD 2.

| symbol | meaning | shape |
|---|---|---|
| m, ||m||_1 | anomaly mask on the latent grid, its number of cells | (B, 1, h, w), (B,) |
| d | squared distance inside m (distance.distance_map) | (B, 1, h, w) |
| w_m | weight map | (B, 1, h, w), on an attention grid (B, hw) |

All is float32. Without a measurement (an empty mask, or d = 0 throughout, for which the plain formulas give 0/0) an
image's weights are 1 everywhere.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import InputError
from ..latent_grid import area_resize

RELEASE_CLAMP = (1.0, 1.5)
"""Bounds of the release's weights (METHOD 2, table of modes)."""
LEVEL = 1.25
"""Mean weight inside the mask of `balanced` and its control `uniform`: most of what re-weighting gives; chosen by
docs/evidence.md, "Re-weighting"."""
HIGHEST_LEVEL = 4.0
SPREAD = 0.5
"""Half the range of the adaptive factor of `balanced`, 1 - SPREAD to 1 + SPREAD."""
TINY, HUGE = torch.finfo(torch.float32).tiny, torch.finfo(torch.float32).max
"""Between these 1/d and its ratios are finite numbers."""


def paper_weights(d: Tensor, m: Tensor) -> Tensor:
    """w_m = ||m||_1 softmax(f(d)), f(x) = 1/x for x != 0 and -inf otherwise (Eq. 7), word for word.

    Its mean inside m is 1; outside f = -inf gives 0. With d of 1e-4 to 1 it is all but one-hot.
    d, m: (B, 1, h, w). Returns (B, 1, h, w) float32.
    """
    measured = (d > 0) & (m > 0)
    f = (1 / d.float().clamp(TINY, HUGE)).where(measured, -torch.inf)
    softmax = f.flatten(1).softmax(dim=1).view_as(f)  # subtracts the maximum
    return _or_ones(_area(m) * softmax, measured)


def release_weights(d: Tensor, m: Tensor, clamp: tuple[float, float] = RELEASE_CLAMP) -> Tensor:
    """w_m = ||m||_1 (1/d) / sum(1/d), clamped (the release's reading of Eq. 7); 1 outside m.

    Cells with d = 0 have no share, as in the paper's f, and get the lower bound.
    d, m: (B, 1, h, w). Returns (B, 1, h, w) float32.
    """
    measured = (d > 0) & (m > 0)
    d = d.float().clamp(TINY, HUGE)
    smallest = d.where(measured, torch.inf).amin(dim=(1, 2, 3), keepdim=True)
    inverse = (smallest / d).where(measured, 0.0)  # 1/d in units of its largest: no overflow, and it cancels
    share = inverse / inverse.sum(dim=(1, 2, 3), keepdim=True)
    return _or_ones((_area(m) * share).clamp(*clamp).where(m > 0, 1.0), measured)


def balanced_weights(d: Tensor, m: Tensor, level: float = LEVEL, spread: float = SPREAD) -> Tensor:
    """w_m = level * (1 + spread * (1 - 2 r(d))), r the rank of d within the mask; 1 outside m (ours, METHOD 2).

    The smaller d, the less of the defect is there, the larger the weight, as in Eq. 7 (d = 0 included, where the
    paper's f turns round). Ranks, unlike 1/d, do not depend on the scale of d, which falls a thousandfold in a run. The
    adaptive factor has mean 1 and stays within 1 +- spread, so the weights have mean `level`. Over n cells without ties
    the factor's 95th and 5th percentiles are 1 +- 0.9 spread (1 - 1/n): a ratio of 1.58 for 2 cells and 2.64 for many.
    d, m: (B, 1, h, w). Returns (B, 1, h, w) float32.
    """
    inside = m > 0
    adaptive = 1 + spread * (1 - 2 * _rank(d, inside))
    return _or_ones((level * adaptive).where(inside, 1.0), (d > 0) & inside)


def uniform_weights(m: Tensor, level: float = LEVEL) -> Tensor:
    """w_m = level inside m, 1 outside: the control of `balanced`, the same mean and nothing adaptive."""
    return torch.full_like(m, level, dtype=torch.float32).where(m > 0, 1.0)


def with_strength(w: Tensor, strength: float) -> Tensor:
    """w' = 1 + s (w - 1), not below 0 (a negative weight would turn the condition against itself).

    As a lerp, for which s = 1 is w itself and s = 0 is 1 itself, to the bit.
    """
    return torch.lerp(torch.ones_like(w), w, strength).clamp(min=0.0)


def weights_on_grid(w: Tensor, m: Tensor, grid: tuple[int, int], renormalise: bool = True) -> Tensor:
    """Bring a weight map to an attention grid (METHOD 2, "At each attention grid").

    renormalise=False (`release`): averaged down by area, no more.
    renormalise=True: a cell belongs to the mask if any of its latent cells does, and its weight is the area average
    over those alone; else the border would dilute by coverage, and `uniform` would not be uniform. Then the mean
    inside the mask is brought back to what it was on the latent grid.
    w, m: (B, 1, h, w). grid: (rows, columns). Returns (B, rows * columns) float32, row by row.
    """
    plain = area_resize(w.float(), grid)
    if not renormalise:
        return plain.flatten(1)
    inside = (m > 0).float()
    coverage = area_resize(inside, grid)
    cells = coverage > 0
    average = area_resize(w.float() * inside, grid) / coverage.where(cells, 1.0)
    wanted, got = _mean(w.float(), inside), _mean(average, cells.float())
    back = (wanted / got.where(got > 0, 1.0)).where(got > 0, 1.0)
    return (average * back).where(cells, plain).flatten(1)


def dilated_mask(m: Tensor, timestep: int, steps: int) -> Tensor:
    """Mask that the release blends with: dilated early in sampling, shrinking to m (METHOD 2, below the table).

    A square kernel of radius int((t + 100) * 8 / 1000) cells of the release's 32 x 32 grid, 16 in place of 8 when there
    are exactly 50 steps; on other grids in proportion to the shorter side.
    m: (B, 1, h, w). timestep: 0 to 999. steps: of the whole run. Returns (B, 1, h, w), m's dtype.
    """
    reach = 16 if steps == 50 else 8
    radius = int((timestep + 100) * reach / 1000) * min(m.shape[-2:]) // 32
    dilated = F.max_pool2d(m.float(), kernel_size=2 * radius + 1, stride=1, padding=radius)
    return dilated.to(m.dtype)


def check_strength(strength: float) -> float:
    """Return a usable strength s; raises InputError for a negative or infinite one."""
    if not 0 <= strength < float("inf"):
        raise InputError(f"re-weighting strength is {strength}; it must be 0 (no effect) or more, 1 is the mode's own")
    return strength


def check_level(level: float) -> float:
    """Return a usable mean weight inside the mask; raises InputError for one out of range."""
    if not 0 <= level <= HIGHEST_LEVEL:
        raise InputError(
            f"re-weighting level is {level}; it is the mean weight inside the mask, from 0 to {HIGHEST_LEVEL:g}; "
            "1 is a plain model's"
        )
    return level


def _rank(d: Tensor, inside: Tensor) -> Tensor:
    """Rank of each cell's d among the mask's n cells: (position + 1/2) / n, tied cells share the mean of theirs."""
    n = inside.flatten(1).sum(dim=1, keepdim=True)
    values = d.float().where(inside, torch.inf).flatten(1)
    ordered = values.sort(dim=1).values
    smaller = torch.searchsorted(ordered, values)
    not_larger = torch.searchsorted(ordered, values, right=True).minimum(n)  # minimum: cells outside are no ties
    return ((smaller + not_larger) / (2 * n.clamp(min=1))).view_as(d)


def _area(m: Tensor) -> Tensor:
    """||m||_1 of each image, (B, 1, 1, 1)."""
    return (m > 0).float().sum(dim=(1, 2, 3), keepdim=True)


def _mean(w: Tensor, inside: Tensor) -> Tensor:
    """Mean of each image's weights inside its mask, (B, 1, 1, 1); 0 for an empty mask."""
    return (w * inside).sum(dim=(1, 2, 3), keepdim=True) / inside.sum(dim=(1, 2, 3), keepdim=True).clamp(min=1)


def _or_ones(w: Tensor, measured: Tensor) -> Tensor:
    """The weights of those images that have a measurement, 1 everywhere for the others."""
    return w.where(measured.flatten(1).any(dim=1)[:, None, None, None], 1.0)
