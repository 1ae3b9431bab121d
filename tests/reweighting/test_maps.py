"""The weight maps of Eq. 7 in every mode, against values worked out by hand."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from adiff.errors import InputError
from adiff.reweighting import (
    balanced_weights,
    dilated_mask,
    paper_weights,
    release_weights,
    uniform_weights,
    weights_on_grid,
    with_strength,
)
from adiff.reweighting.maps import check_level, check_strength

MEASURED = [paper_weights, release_weights, balanced_weights]


def row(*values):
    return torch.tensor(values, dtype=torch.float32).view(1, 1, 1, -1)


def test_paper_by_hand():
    """f = 2, 1, -inf, -inf (d = 0; outside): softmax e/(e+1), 1/(e+1), 0, 0; ||m||_1 = 3."""
    weights = paper_weights(row(0.5, 1.0, 0.0, 0.0), row(1, 1, 1, 0))
    torch.testing.assert_close(weights, 3 / (math.e + 1) * row(math.e, 1, 0, 0))


def test_paper_has_mean_one_inside():
    d = torch.rand(2, 1, 5, 7, generator=torch.Generator().manual_seed(0)) + 0.5
    m = (d > 0.7).float()
    weights = paper_weights(d * m, m)
    torch.testing.assert_close(weights.sum((1, 2, 3)), m.sum((1, 2, 3)))


def test_paper_with_real_distances_is_one_hot():
    assert paper_weights(row(1e-4, 1e-3, 1.0), row(1, 1, 1)).tolist() == [[[[3, 0, 0]]]]


def test_paper_counts_distance_in_the_mask_only():
    torch.testing.assert_close(paper_weights(row(1.0, 1.0, 1e-3), row(1, 1, 0)), row(1, 1, 0))


def test_release_by_hand():
    """1/d = 2, 1, 4, sum 7, ||m||_1 = 3."""
    weights = release_weights(row(0.5, 1.0, 0.25, 0.0), row(1, 1, 1, 0), clamp=(0, 9))
    torch.testing.assert_close(weights, row(6 / 7, 3 / 7, 12 / 7, 1))


def test_release_clamps_to_1_and_1_5():
    assert release_weights(row(0.5, 1.0, 0.25, 0.0), row(1, 1, 1, 0)).tolist() == [[[[1, 1, 1.5, 1]]]]


def test_release_gives_no_share_to_zero_distance():
    weights = release_weights(row(0.0, 1.0, 1.0), row(1, 1, 1), clamp=(0, 9))
    torch.testing.assert_close(weights, row(0, 1.5, 1.5))


def test_release_of_the_smallest_distances_does_not_overflow():
    """Five times 1/1e-38 is beyond float32; five equal shares of ||m||_1 = 5 are 1 each."""
    torch.testing.assert_close(release_weights(row(*[1e-38] * 5), row(*[1] * 5), clamp=(0, 9)), row(*[1] * 5))


def test_balanced_by_hand():
    """Ranks of d = 4, 1, 2, 3 are 7/8, 1/8, 3/8, 5/8; 2 (1 + (1 - 2 r) / 2) = 3 - 2 r."""
    weights = balanced_weights(row(4, 1, 2, 3, 0), row(1, 1, 1, 1, 0), 2.0)
    torch.testing.assert_close(weights, row(1.25, 2.75, 2.25, 1.75, 1))


def test_balanced_ties_share_their_rank():
    """d = 1, 5, 5: ranks 1/6 and twice (3/6 + 5/6) / 2 = 2/3."""
    torch.testing.assert_close(balanced_weights(row(5, 1, 5), row(1, 1, 1), 2.0), row(5 / 3, 8 / 3, 5 / 3))


def test_balanced_takes_zero_distance_for_the_smallest():
    torch.testing.assert_close(balanced_weights(row(0, 3), row(1, 1), 2.0), row(2.5, 1.5))


def test_balanced_takes_an_infinite_distance_for_the_largest():
    torch.testing.assert_close(balanced_weights(row(3, torch.inf, 0, 0), row(1, 1, 0, 0), 2.0), row(2.5, 1.5, 1, 1))


def test_balanced_with_level_1_has_mean_1():
    torch.testing.assert_close(balanced_weights(row(1, 2), row(1, 1), level=1.0), row(1.25, 0.75))


@pytest.mark.parametrize("level", [0.5, 1.0, 1.5, 4.0])
def test_balanced_has_the_mean_of_uniform_whatever_the_level(level):
    d, m = row(*range(1, 101), 0), row(*[1] * 100, 0)
    weights, uniform = balanced_weights(d, m, level=level), uniform_weights(m, level)
    torch.testing.assert_close(weights.mean(), uniform.mean())
    inside = weights[..., :-1]
    assert weights[..., -1] == uniform[..., -1] == 1 and inside.max() < 1.5 * level < 1.01 * inside.max()


@pytest.mark.parametrize("level", [-0.1, 4.1, math.nan])
def test_a_level_out_of_range_is_named(level):
    with pytest.raises(InputError, match=f"level is {level}"):
        check_level(level)


@given(st.lists(st.floats(1e-30, 1e30), min_size=2, max_size=60, unique_by=lambda v: float(torch.tensor(v))))
def test_balanced_is_not_off_in_disguise(distances):
    d = row(*distances, 0.0)
    weights = balanced_weights(d, row(*[1] * len(distances), 0), 2.0).flatten()
    inside = weights[:-1]
    low, high = inside.quantile(0.05), inside.quantile(0.95)
    assert high / low >= 1.5
    assert inside.mean().item() == pytest.approx(2, rel=1e-5)
    assert inside.min() >= 1 and inside.max() <= 3 and weights[-1] == 1
    assert inside[d.flatten()[:-1].argmin()] == inside.max()


def test_balanced_ignores_the_scale_of_the_distance():
    d, m = row(0.3, 0.1, 0.7, 0.2), row(1, 1, 1, 1)
    assert torch.equal(balanced_weights(d, m), balanced_weights(1e-6 * d, m))


def test_uniform_by_hand():
    assert uniform_weights(row(1, 0, 1), 2.0).tolist() == [[[[2, 1, 2]]]]
    assert uniform_weights(torch.tensor([[[[True, False]]]]), 2.0).tolist() == [[[[2, 1]]]]


@pytest.mark.parametrize("weigh", MEASURED)
def test_nothing_measured_gives_weight_1(weigh):
    m = torch.tensor([[1.0, 1.0], [0.0, 0.0], [1.0, 1.0]]).view(3, 1, 1, 2)
    d = torch.tensor([[0.0, 0.0], [0.0, 0.0], [1.0, 2.0]]).view(3, 1, 1, 2)
    weights = weigh(d, m)
    assert torch.equal(weights[:2], torch.ones(2, 1, 1, 2))  # all d = 0; an empty mask
    assert not torch.equal(weights[2], torch.ones(1, 1, 2))


@pytest.mark.parametrize("weigh", MEASURED)
@given(st.lists(st.one_of(st.just(0.0), st.just(float("inf")), st.floats(1e-45, 1e38)), min_size=1, max_size=30))
def test_weights_are_finite_whatever_the_distance(weigh, distances):
    weights = weigh(row(*distances, 0), row(*[1] * len(distances), 0))
    assert weights.isfinite().all() and weights.min() >= 0
    assert weights.dtype == torch.float32


@pytest.mark.parametrize("weigh", MEASURED)
def test_images_of_a_batch_do_not_touch_each_other(weigh):
    d = torch.rand(3, 1, 4, 5, generator=torch.Generator().manual_seed(1))
    m = torch.rand(3, 1, 4, 5, generator=torch.Generator().manual_seed(2)) > 0.4
    alone = torch.cat([weigh(d[i : i + 1] * m[i : i + 1], m[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(weigh(d * m, m), alone)


def test_strength_by_hand():
    assert with_strength(row(3, 0.5), 0.5).tolist() == [[[[2, 0.75]]]]
    assert with_strength(row(3, 0.5), 2.0).tolist() == [[[[5, 0]]]]
    assert with_strength(row(0), 3.0).item() == 0  # 1 + 3 (0 - 1) = -2 would reverse the condition


def test_strength_0_and_1_are_exact():
    w = torch.rand(1, 1, 8, 8, generator=torch.Generator().manual_seed(0)) * 1e-4
    assert torch.equal(with_strength(w, 1.0), w)
    assert torch.equal(with_strength(w, 0.0), torch.ones_like(w))


@pytest.mark.parametrize("strength", [-0.1, math.inf, math.nan])
def test_strength_out_of_range_is_named(strength):
    with pytest.raises(InputError, match=f"strength is {strength}"):
        check_strength(strength)


def test_grid_by_hand():
    """Cells: 2, 4 | 6 alone | none. Averages 3 and 6, their mean 4.5; the mean on the latent grid is 4."""
    w, m = row(2, 4, 6, 1, 1, 1), row(1, 1, 1, 0, 0, 0)
    torch.testing.assert_close(weights_on_grid(w, m, (1, 3)), torch.tensor([[3 * 4 / 4.5, 6 * 4 / 4.5, 1]]))


def test_grid_of_the_release_is_only_resized():
    w, m = row(1.5, 1, 1.25, 1, 1, 1), row(1, 1, 1, 0, 0, 0)
    torch.testing.assert_close(weights_on_grid(w, m, (1, 3), renormalise=False), torch.tensor([[1.25, 1.125, 1]]))


def test_grid_is_read_row_by_row():
    w = torch.tensor([[1.0, 2.0], [3.0, 4.0]]).repeat_interleave(2, 0).repeat_interleave(2, 1)[None, None]
    assert weights_on_grid(w, torch.ones_like(w), (2, 2)).tolist() == [[1, 2, 3, 4]]


def test_own_grid_changes_nothing():
    d = torch.rand(2, 1, 3, 5, generator=torch.Generator().manual_seed(0))
    m = (d > 0.3).float()
    for w in (balanced_weights(d * m, m), paper_weights(d * m, m)):
        assert torch.equal(weights_on_grid(w, m, (3, 5)), w.flatten(1))


def test_paper_stays_0_outside_and_1_on_average():
    d = torch.rand(1, 1, 8, 8, generator=torch.Generator().manual_seed(0)) + 0.5
    m = torch.zeros(1, 1, 8, 8)
    m[..., 1:4, 2:5] = 1
    weights = weights_on_grid(paper_weights(d * m, m), m, (4, 4)).view(4, 4)
    cells = torch.zeros(4, 4, dtype=torch.bool)
    cells[:2, 1:3] = True  # the 2 x 2 blocks that rows 1 to 3 and columns 2 to 4 touch
    assert (weights[~cells] == 0).all()
    assert weights[cells].mean().item() == pytest.approx(1, rel=1e-6)


@given(st.integers(0, 2**31), st.sampled_from([(8, 8), (4, 4), (2, 3), (1, 1), (5, 3)]), st.floats(0, 1))
def test_uniform_is_uniform_on_every_grid(seed, grid, share):
    m = (torch.rand(1, 1, 9, 8, generator=torch.Generator().manual_seed(seed)) < share).float()
    weights = weights_on_grid(uniform_weights(m, 2.0), m, grid)
    assert ((weights - 1).abs() * (weights - 2).abs() < 1e-5).all()
    assert (weights > 1.5).any() == m.any()  # one cell of the mask is enough: it vanishes on no grid


@given(st.integers(0, 2**31), st.sampled_from([(4, 4), (2, 3), (5, 3)]))
def test_grid_keeps_the_mean_of_balanced(seed, grid):
    generator = torch.Generator().manual_seed(seed)
    d = torch.rand(1, 1, 9, 8, generator=generator)
    m = (torch.rand(1, 1, 9, 8, generator=generator) < 0.3).float()
    weights = weights_on_grid(balanced_weights(d * m, m, 2.0), m, grid)
    cells = torch.nn.functional.adaptive_max_pool2d(m, grid).flatten(1) > 0
    if cells.any():
        assert weights[cells].mean().item() == pytest.approx(2, rel=1e-5)
    assert (weights[~cells] == 1).all()


def test_weight_1_stays_exactly_1_on_every_grid():
    m = torch.zeros(1, 1, 12, 12)
    m[..., 1:5, 3:10] = 1
    for grid in [(12, 12), (6, 6), (3, 3), (5, 7)]:
        assert torch.equal(weights_on_grid(torch.ones_like(m), m, grid), torch.ones(1, grid[0] * grid[1]))


@pytest.mark.parametrize(
    ("timestep", "steps", "size", "radius"),
    [
        (999, 200, 32, 8),  # int(1099 * 8 / 1000)
        (500, 200, 32, 4),  # int(4.8)
        (24, 200, 32, 0),  # int(0.992): the mask itself
        (999, 50, 32, 17),  # int(1099 * 16 / 1000)
        (500, 200, 64, 8),
        (500, 200, 16, 2),
    ],
)
def test_dilation_radius_of_the_release(timestep, steps, size, radius):
    m = torch.zeros(1, 1, size, size)
    m[..., size // 2, size // 2] = 1
    side = min(size // 2, radius) + 1 + min(size - 1 - size // 2, radius)
    assert dilated_mask(m, timestep, steps).sum() == side**2


def test_dilation_is_square_and_keeps_the_dtype():
    m = torch.zeros(1, 1, 32, 32, dtype=torch.float16)
    m[..., 10, 20] = 1
    dilated = dilated_mask(m, 275, 200)  # int(375 * 8 / 1000) = 3
    expected = torch.zeros_like(m)
    expected[..., 7:14, 17:24] = 1
    assert torch.equal(dilated, expected)
