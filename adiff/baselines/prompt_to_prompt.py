"""Textual inversion with Prompt-to-Prompt's attention replacement (Hertz et al., ICLR 2023, arXiv 2208.01626).

| symbol | meaning | shape |
|---|---|---|
| q | queries, one a place of the grid | (B, N, C) |
| k_0, v_0 | keys and values of the source prompt's tokens, here the empty prompt's | (B, T, C) |
| k_e, v_e | those of the defect's tokens e_a | (B, k, C) |
| M_0, M_e | attention maps, softmax(q k^T / sqrt(dim_head)) over one prompt's tokens | (B, heads, N, T or k) |
| m | mask on the attention's grid, a place is on if any of its cells is | (B, N) |

The target prompt is the source with the defect's tokens added. Outside the mask their maps are replaced by the
source's, inside the source's by theirs: out = m M_e v_e + (1 - m) M_0 v_0 (AnomalyDiffusion, suppl. E, compares with
this). Both terms are fused attentions; no map is formed. Prompt-to-Prompt runs the source beside the target for its
maps; with the normal image blended in at every step (Eq. 1) the outside already is the source: one run serves both.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..backbone import Backbone
from ..embedding import Condition, join_condition
from ..latent_grid import area_resize
from ..reweighting import AttentionEdit, fused_attention


class Replacement:
    """Takes a `Reweighter`'s place in the sampling loop; cells: m on the latent grid, (B, 1, h, w)."""

    def __init__(self, cells: Tensor):
        self._cells = cells

    def reset(self) -> None:
        """Nothing is kept from step to step."""

    def observe(self, x0_hat: Tensor, x_t: Tensor, timestep: int) -> None:
        """Nothing is measured."""

    def blend_mask(self, timestep: int, steps: int) -> Tensor:
        """Mask of Eq. 1: m."""
        return self._cells

    def edit(self, rows: slice, span: tuple[int, int]) -> AttentionEdit:
        """Make the edit of one model call; rows: one an image. span: of the defect's tokens, behind the source's."""
        start, stop = span

        def edited(q: Tensor, k: Tensor, v: Tensor, *, heads: int, grid: tuple[int, int]) -> Tensor:
            out = fused_attention(q, k, v, heads)
            of_source = fused_attention(q[rows], k[rows, :start], v[rows, :start], heads)
            of_defect = fused_attention(q[rows], k[rows, start:stop], v[rows, start:stop], heads)
            m = area_resize(self._cells.to(q.device), grid).flatten(1) > 0
            out[rows] = torch.where(m[..., None], of_defect, of_source)
            return out

        return edited


def prompt_to_prompt(backbone: Backbone, embedding: Tensor, cells: Tensor) -> tuple[Condition, Replacement]:
    """The condition under which masks (B, 1, h, w) are painted, {empty prompt, e_a}, and the edit of the attention."""
    source = backbone.null_context.to(cells.device).expand(len(cells), -1, -1)
    e_a = embedding.to(cells.device)[None].expand(len(cells), -1, -1)
    return join_condition(e_a, text=source), Replacement(cells)
