"""Re-weighted cross-attention on the fused kernel; the map m_c is never materialised (Eq. 8; METHOD 2, facts 1 and 2).

| symbol | meaning | shape |
|---|---|---|
| q, k, v | as projected | (B, N, heads * dim_head), k and v (B, T, heads * dim_head) |
| m_c | softmax(q k^T / sqrt(dim_head)), the map that is not formed | (B, heads, N, T) |
| w_m | weights, one for each query position | (B, N) |
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from ..errors import InputError

Attend = Callable[[Tensor, Tensor, Tensor, int], Tensor]
"""A plain attention (q, k, v, heads) -> (B, N, heads * dim_head)."""


def fused_attention(q: Tensor, k: Tensor, v: Tensor, heads: int) -> Tensor:
    """m_c v: the plain fused attention, every host's starting point.

    Shapes as in the table. Returns (B, N, heads * dim_head), before the output projection.
    """
    return _merge(F.scaled_dot_product_attention(_split(q, heads), _split(k, heads), _split(v, heads)))


def scaled_rows_attention(
    q: Tensor, k: Tensor, v: Tensor, heads: int, weights: Tensor, attend: Attend = fused_attention
) -> Tensor:
    """(m_c * w_m) v = w_m * (m_c v) (Eq. 8): one weight for all tokens of a query leaves the sum over tokens.

    weights: (B, N). attend: the host's own attention, whose result weight 1 leaves as it is to the bit.
    Returns (B, N, heads * dim_head).
    """
    return _scale(attend(q, k, v, heads), weights[:, :, None])


def scaled_logits_attention(
    q: Tensor, k: Tensor, v: Tensor, heads: int, weights: Tensor, span: tuple[int, int]
) -> Tensor:
    """softmax([w_m q k_e^T, q k_rest^T] / sqrt(dim_head)) v, the release's form, w_m on the logits of our tokens k_e.

    One product of the doubled width makes both kinds of logits: [w q, q] against [k_e, 0] and [0, k_rest].
    (The release, off by one, also weights the start token; not followed.)
    weights: (B, N). span: [start, stop) of our tokens among the T. Returns (B, N, heads * dim_head).
    """
    start, stop = span
    if not 0 <= start < stop <= k.shape[1]:
        raise InputError(f"token span {start} to {stop} does not lie within the context's {k.shape[1]} tokens")
    query, key, value = _split(q, heads), _split(k, heads), _split(v, heads)
    width, weighted = query.shape[-1], _scale(query, weights[:, None, :, None])
    if stop - start == k.shape[1]:
        return _merge(F.scaled_dot_product_attention(weighted, key, value))
    tokens = torch.arange(k.shape[1], device=k.device)[:, None]
    ours = (tokens >= start) & (tokens < stop)
    query = torch.cat([weighted, query], dim=-1)
    key = torch.cat([key.masked_fill(~ours, 0), key.masked_fill(ours, 0)], dim=-1)
    # Values of another width than the keys send some devices to a kernel that does form the map: pad, then cut.
    value = F.pad(value, (0, query.shape[-1] - value.shape[-1]))
    out = F.scaled_dot_product_attention(query, key, value, scale=width**-0.5)
    return _merge(out[..., :width])


def _scale(rows: Tensor, weights: Tensor) -> Tensor:
    """rows * weights in float32 or better; a narrower dtype's rows are cut to its finite range on the way back.

    A float16 row times ||m||_1 (4096 at 512 px) leaves that range; weight 1 changes no bit of a finite row.
    """
    wide = torch.promote_types(rows.dtype, torch.float32)
    scaled = rows.to(wide) * weights.to(wide)
    if wide == rows.dtype:
        return scaled
    finfo = torch.finfo(rows.dtype)
    return scaled.clamp(finfo.min, finfo.max).to(rows.dtype)


def _split(x: Tensor, heads: int) -> Tensor:
    return rearrange(x, "b n (heads d) -> b heads n d", heads=heads)


def _merge(x: Tensor) -> Tensor:
    return rearrange(x, "b heads n d -> b n (heads d)")
