"""Re-weighting along one sampling run: which distance, which map, when it is renewed, which rows it acts on.

| symbol | meaning | shape |
|---|---|---|
| m | anomaly mask on the latent grid, one for each image | (B, 1, h, w) |
| y | clean latents of the normal images | (B, C, h, w) |
| x_t, x0_hat | current latents, the model's clean estimate from them | (B, C, h, w) |
| w_m | weight map | (B, 1, h, w), on an attention grid (B, hw) |

    run = Reweighter(m, y, mode="balanced")
    for t in timesteps:
        eps = model(x_t, t, context, attention_edit=run.edit(rows, condition.span))
        run.observe(x0_hat(x_t, eps), x_t, t)  # its map acts from the next call of the model on

x0_hat of step t is known only after the model ran at t. So a map acts one step late, and the first step has none; with
`lookahead` the sampling loop runs the model once more in the same step, after `observe` (the paper's exact reading).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import cycle

import torch
from torch import Tensor

from ..errors import InputError
from .attention import Attend, fused_attention, scaled_logits_attention, scaled_rows_attention
from .distance import distance_map
from .maps import (
    LEVEL,
    balanced_weights,
    check_level,
    check_strength,
    dilated_mask,
    paper_weights,
    release_weights,
    uniform_weights,
    weights_on_grid,
    with_strength,
)

MODES = ("off", "uniform", "balanced", "paper", "release")
DISTANCES = ("latent", "rgb", "vae", "preview")

MEASURED = {"balanced": balanced_weights, "paper": paper_weights, "release": release_weights}
"""The modes whose weights come from a distance."""
LEVELLED = ("uniform", "balanced")
"""The modes whose mean weight inside the mask is the level."""

Rows = slice | Sequence[int] | Tensor
AttentionEdit = Callable[..., Tensor]
"""edit(q, k, v, *, heads, grid) -> (B, N, heads * dim_head), in the place of the host's cross-attention."""


class Reweighter:
    """AAR for the images of one batch (Eq. 7, 8; METHOD 2)."""

    def __init__(
        self,
        mask: Tensor,
        normal: Tensor,
        *,
        mode: str,
        strength: float = 1.0,
        level: float = LEVEL,
        distance: str = "latent",
        interval: int = 1,
        lookahead: bool = False,
        to_pixels: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        """mask: m (B, 1, h, w), 0 or 1. normal: y (B, C, h, w), clean latents. mode: one of MODES.

        strength: s of w' = 1 + s (w - 1). level: mean of w inside the mask, of the modes in LEVELLED. distance: where d
        is measured, one of DISTANCES. interval: a map is renewed at every interval-th observation. lookahead: read by
        the sampling loop, see above. to_pixels: latents (B, C, h, w) -> (B, 3, H, W), the linear map (`rgb`), the VAE
        (`vae`) or a small decoder (`preview`).
        Raises InputError for an unknown mode or distance, shapes that do not belong together, numbers out of range.
        """
        _check_choice("re-weighting mode", mode, MODES)
        _check_choice("re-weighting distance", distance, DISTANCES)
        if mask.ndim != 4 or mask.shape[1] != 1 or mask.shape != (normal.shape[0], 1, *normal.shape[2:]):
            raise InputError(f"mask {tuple(mask.shape)} does not fit the normal latents {tuple(normal.shape)}")
        if interval < 1:
            raise InputError(f"re-weighting interval is {interval}; it must be at least 1 (a new map at every step)")
        if mode in MEASURED and distance != "latent" and to_pixels is None:
            raise InputError(f"distance {distance!r} compares pixels; pass to_pixels, or use distance 'latent'")
        self.mask, self.normal = mask, normal
        self.mode, self.strength, self.level = mode, check_strength(strength), check_level(level)
        self.distance = distance
        self.interval, self.lookahead = interval, lookahead
        self._view = (lambda z: z) if distance == "latent" else to_pixels
        self._normal_view: Tensor | None = None
        self.reset()

    def reset(self) -> None:
        """Start a run: no map yet, weight 1. What is known of the normal images is kept."""
        self._observations = 0
        self._set_map(None)

    @property
    def weight_map(self) -> Tensor | None:
        """The map in use, (B, 1, h, w) float32 with the strength applied, or None before the first."""
        return self._map

    @torch.no_grad()
    def observe(self, x0_hat: Tensor, x_t: Tensor, timestep: int) -> None:
        """Take in what the model said at `timestep`; the map from it acts from the next edit call on.

        x0_hat, x_t: (B, C, h, w). `release` measures x_t, the others x0_hat, against y.
        Raises InputError if that is not finite inside the mask.
        """
        due = self._observations % self.interval == 0
        self._observations += 1
        if self.mode == "off" or not due:
            return
        x = x_t if self.mode == "release" else x0_hat
        m = self.mask.to(x.device)
        if self.mode == "uniform":
            weights = uniform_weights(m, self.level)
        else:
            weights = self._measured_weights(x, m, timestep)
        self._set_map(with_strength(weights, self.strength))

    def edit(self, rows: Rows, span: tuple[int, int], attend: Attend = fused_attention) -> AttentionEdit:
        """Make the attention edit of one model call; it always uses the latest map.

        rows: the conditional rows of the model's batch; rows[i] belongs to image i (mod B: a multiple of B is allowed).
            The others stay plain.
        span: [start, stop) of our tokens in the context; only `release` needs it. attend: the host's own attention.
        """

        def edited(q: Tensor, k: Tensor, v: Tensor, *, heads: int, grid: tuple[int, int]) -> Tensor:
            index = _row_index(rows, q.shape[0])
            if self._map is None or not index:
                return attend(q, k, v, heads)
            weights = self._image_weights(grid, index, q)
            if self.mode == "release":
                return _logits_on_rows(q, k, v, heads, weights, span, index, attend)
            return scaled_rows_attention(q, k, v, heads, _every_row(weights, index, q.shape[0]), attend)

        return edited

    def blend_mask(self, timestep: int, steps: int) -> Tensor:
        """Mask of Eq. 1 at `timestep` of a run of `steps`: dilated early in the mode `release`, m in the others.

        Returns (B, 1, h, w).
        """
        return dilated_mask(self.mask, timestep, steps) if self.mode == "release" else self.mask

    def _measured_weights(self, x: Tensor, m: Tensor, timestep: int) -> Tensor:
        if self._normal_view is None:
            self._normal_view = self._view(self.normal.to(x))
        d = distance_map(self._view(x), self._normal_view, m)
        if not d.isfinite().all():
            raise InputError(f"the latents at timestep {timestep} are not finite inside the mask; try float32")
        weigh = MEASURED[self.mode]
        return weigh(d, m, self.level) if self.mode in LEVELLED else weigh(d, m)

    def _set_map(self, weights: Tensor | None) -> None:
        self._map = weights
        self._on_grid: dict[tuple[int, int], Tensor] = {}  # each attention layer of a grid asks again

    def _image_weights(self, grid: tuple[int, int], index: Sequence[int], q: Tensor) -> Tensor:
        """The map's weights for the rows `index` of q, (B, N): rows[i] takes those of image i mod B."""
        images = self.mask.shape[0]
        if len(index) % images:
            raise InputError(f"{len(index)} conditional rows for {images} masks; each image needs its own mask")
        if grid[0] * grid[1] != q.shape[1]:
            raise InputError(f"attention grid {grid[0]} x {grid[1]} does not hold the {q.shape[1]} query positions")
        if grid not in self._on_grid:
            m = self.mask.to(self._map.device)
            on_grid = weights_on_grid(self._map, m, grid, renormalise=self.mode != "release")
            self._on_grid[grid] = on_grid.to(q.device)
        return self._on_grid[grid].to(q.device)  # a host may give each card a share of the conditions


def _row_index(rows: Rows, batch: int) -> list[int]:
    if isinstance(rows, Tensor):
        rows = rows.tolist()
    return [range(batch)[row] for row in (range(batch)[rows] if isinstance(rows, slice) else rows)]


# Rows are put together by host numbers: an index tensor would have to go to the device in every attention.


def _every_row(weights: Tensor, index: Sequence[int], batch: int) -> Tensor:
    """Weights (batch, N) of all rows, 1 for those that `index` does not name."""
    of_row, plain = dict(zip(index, cycle(weights), strict=False)), torch.ones_like(weights[0])
    return torch.stack([of_row.get(row, plain) for row in range(batch)])


def _logits_on_rows(
    q: Tensor, k: Tensor, v: Tensor, heads: int, weights: Tensor, span: tuple[int, int], index: list[int],
    attend: Attend,
) -> Tensor:  # fmt: skip
    """The logits form on the rows `index`, plain attention on the others (there it would not be bitwise the same)."""

    def rows_of(rows: Sequence[int]) -> list[Tensor]:
        return [torch.stack([x[row] for row in rows]) for x in (q, k, v)]

    weights = weights.repeat(len(index) // len(weights), 1)
    if index == list(range(len(q))):
        return scaled_logits_attention(q, k, v, heads, weights, span)
    found = dict(zip(index, scaled_logits_attention(*rows_of(index), heads, weights, span), strict=True))
    if others := [row for row in range(len(q)) if row not in found]:
        found |= zip(others, attend(*rows_of(others), heads), strict=True)
    return torch.stack([found[row] for row in range(len(q))])


def _check_choice(what: str, given: str, known: tuple[str, ...]) -> None:
    if given not in known:
        raise InputError(f"{what} {given!r} is unknown; choose one of {', '.join(known)}")
