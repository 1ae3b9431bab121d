"""Re-weighted fused attention against the explicit softmax map of Eq. 8."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from adiff.errors import InputError
from adiff.reweighting import fused_attention, paper_weights, scaled_logits_attention, scaled_rows_attention


def explicit_map(q, k, heads, weights=None, span=None):
    """m_c in float64 (B, heads, N, T); with weights, the logits of the tokens in span multiplied (the release)."""
    q, k = (x.double().unflatten(-1, (heads, -1)).transpose(1, 2) for x in (q, k))
    logits = q @ k.mT / q.shape[-1] ** 0.5
    if weights is not None:
        logits[..., span[0] : span[1]] *= weights.double()[:, None, :, None]
    return logits.softmax(-1)


def times_values(attention_map, v, heads):
    return (attention_map @ v.double().unflatten(-1, (heads, -1)).transpose(1, 2)).transpose(1, 2).flatten(2)


def explicit_rows(q, k, v, heads, weights):
    """(m_c * w_m) v of Eq. 8, the map multiplied before it meets the values."""
    return times_values(explicit_map(q, k, heads) * weights.double()[:, None, :, None], v, heads)


def explicit_logits(q, k, v, heads, weights, span):
    return times_values(explicit_map(q, k, heads, weights, span), v, heads)


def case(batch=2, grid=(6, 4), tokens=12, heads=3, dim_head=8, dtype=torch.float32, seed=0):
    generator = torch.Generator().manual_seed(seed)
    n, width = grid[0] * grid[1], heads * dim_head
    q, k, v = (torch.randn(batch, t, width, generator=generator).to(dtype) for t in (n, tokens, tokens))
    return q, k, v, 3 * torch.rand(batch, n, generator=generator)


def close(actual, expected, weights=None, eps=2**-23):
    """Within a few roundings of the row: a row times w carries w times the rounding of the row."""
    allowed = 16 * eps * (expected.abs().amax(-1, keepdim=True) + 1)
    if weights is not None:
        allowed = allowed * weights.double()[:, :, None].clamp(min=1)
    assert actual.isfinite().all()
    assert ((actual.double() - expected).abs() <= allowed).all()


def test_rows_by_hand():
    """Equal logits: the row is the mean of the values, (1 + 5) / 2 = 3; times the weights 2 and 0.5."""
    q, k, v = torch.zeros(1, 2, 1), torch.zeros(1, 2, 1), torch.tensor([[[1.0], [5.0]]])
    assert scaled_rows_attention(q, k, v, 1, torch.tensor([[2.0, 0.5]])).flatten().tolist() == [6, 1.5]


def test_logits_by_hand():
    """q = k = 1, weight w on the first of two tokens with values 1 and 0: e^w / (e^w + e)."""
    q, k, v = torch.ones(1, 2, 1), torch.ones(1, 2, 1), torch.tensor([[[1.0], [0.0]]])
    out = scaled_logits_attention(q, k, v, 1, torch.tensor([[1.0, 1.5]]), (0, 1))
    torch.testing.assert_close(out.flatten(), torch.tensor([0.5, 0.6224593312]))  # 1 / (1 + e^-0.5)


@pytest.mark.parametrize("heads", [1, 2, 8])
@pytest.mark.parametrize("grid", [(4, 4), (3, 7)])
def test_rows_equal_the_explicit_map(heads, grid):
    q, k, v, weights = case(grid=grid, heads=heads)
    close(scaled_rows_attention(q, k, v, heads, weights), explicit_rows(q, k, v, heads, weights), weights)


@pytest.mark.parametrize("heads", [1, 2, 8])
@pytest.mark.parametrize("grid", [(4, 4), (3, 7)])
@pytest.mark.parametrize("span", [(0, 12), (0, 4), (8, 12), (3, 9)])
def test_logits_equal_the_explicit_map_with_mixed_tokens(heads, grid, span):
    q, k, v, weights = case(grid=grid, heads=heads)
    close(scaled_logits_attention(q, k, v, heads, weights, span), explicit_logits(q, k, v, heads, weights, span))


def test_the_span_matters():
    q, k, v, weights = case()
    first = scaled_logits_attention(q, k, v, 3, weights, (0, 4))
    assert (first - scaled_logits_attention(q, k, v, 3, weights, (1, 5))).abs().max() > 0.1


def test_rows_equal_the_explicit_map_with_the_papers_weights():
    """Real distances of 1e-4 to 1: all but one weight inside the mask is 0, that one is ||m||_1."""
    q, k, v, _ = case(grid=(8, 8))
    generator = torch.Generator().manual_seed(1)
    m = (torch.rand(2, 1, 8, 8, generator=generator) < 0.5).float()
    weights = paper_weights(10 ** (-4 * torch.rand(2, 1, 8, 8, generator=generator)) * m, m).flatten(1)
    assert weights.max() > 10
    close(scaled_rows_attention(q, k, v, 3, weights), explicit_rows(q, k, v, 3, weights), weights)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
def test_rows_with_weight_1_are_bitwise_the_unedited(dtype):
    q, k, v, _ = case(dtype=dtype)
    assert torch.equal(scaled_rows_attention(q, k, v, 3, torch.ones(2, 24)), fused_attention(q, k, v, 3))


def test_unedited_is_the_explicit_map():
    q, k, v, _ = case()
    close(fused_attention(q, k, v, 3), times_values(explicit_map(q, k, 3), v, 3))


def test_rows_use_the_hosts_attention():
    q, k, v, weights = case()
    out = scaled_rows_attention(q, k, v, 3, weights, attend=lambda q, k, v, heads: q + heads)
    torch.testing.assert_close(out, (q + 3) * weights[:, :, None])


@pytest.fixture(scope="module")
def at_512_px():
    """The widest grid of SD 1.5 at 512 px: 64 x 64 positions, 8 heads of 40, 77 + 12 tokens, in float16."""
    q, k, v, _ = case(batch=1, grid=(64, 64), tokens=89, heads=8, dim_head=40, dtype=torch.float16)
    return q, k, v


def test_float16_rows_at_512_px(at_512_px):
    q, k, v = at_512_px
    d = 10 ** (-4 * torch.rand(1, 1, 64, 64, generator=torch.Generator().manual_seed(3)))
    weights = paper_weights(d, torch.ones_like(d)).flatten(1)
    assert weights.max() > 2000
    close(scaled_rows_attention(q, k, v, 8, weights), explicit_rows(q, k, v, 8, weights), weights, eps=2**-11)


def test_float16_logits_at_512_px(at_512_px):
    q, k, v = at_512_px
    weights = 1 + torch.rand(1, 4096, generator=torch.Generator().manual_seed(3)) / 2
    out = scaled_logits_attention(q, k, v, 8, weights, (77, 89))
    assert out.dtype == torch.float16
    close(out, explicit_logits(q, k, v, 8, weights, (77, 89)), eps=2**-11)


def test_float16_rows_beyond_its_range_stay_finite():
    """60 * 4096 = 245760; the largest float16 is 65504."""
    q, k = torch.zeros(1, 2, 1).half(), torch.zeros(1, 1, 1).half()
    for value in (60.0, -60.0):
        out = scaled_rows_attention(q, k, torch.full((1, 1, 1), value).half(), 1, torch.tensor([[4096.0, 1.0]]))
        assert out.flatten().tolist() == [value / 60 * 65504, value]


def test_float16_rows_are_rounded_once():
    """2000 * 1.0004 = 2000.8, to the nearest float16 2001; the weight rounded first would be 1."""
    q, k, v = torch.zeros(1, 1, 1).half(), torch.zeros(1, 1, 1).half(), torch.full((1, 1, 1), 2000.0).half()
    assert scaled_rows_attention(q, k, v, 1, torch.tensor([[1.0004]])).item() == 2001


class Shapes(TorchDispatchMode):
    """Writes down the shape of every tensor that any operation makes."""

    def __init__(self):
        super().__init__()
        self.made = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for one in out if isinstance(out, (tuple, list)) else (out,):
            if isinstance(one, torch.Tensor):
                self.made.add(tuple(one.shape))
        return out


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_no_attention_map_is_materialised(dtype):
    q, k, v, weights = case(grid=(31, 5), tokens=13, dtype=dtype)  # 155 and 13 occur nowhere else
    with Shapes() as shapes, torch.no_grad():
        scaled_rows_attention(q, k, v, 3, weights)
        scaled_logits_attention(q, k, v, 3, weights, (5, 13))
        scaled_logits_attention(q, k, v, 3, weights, (0, 13))
    assert not [shape for shape in shapes.made if shape[-2:] in ((155, 13), (13, 155))]
    with Shapes() as shapes:
        times_values(explicit_map(q, k, 3), v, 3)
    assert [shape for shape in shapes.made if shape[-2:] == (155, 13)]  # the watch does see a map


@pytest.mark.parametrize("span", [(-1, 3), (3, 3), (5, 4), (0, 13)])
def test_a_span_outside_the_context_is_refused(span):
    q, k, v, weights = case()
    with pytest.raises(InputError, match="does not lie within the context's 12 tokens"):
        scaled_logits_attention(q, k, v, 3, weights, span)
