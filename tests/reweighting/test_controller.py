"""Reweighter: when a map is made, from what, and which rows it reaches."""

import pytest
import torch

from adiff.errors import InputError
from adiff.reweighting import (
    DISTANCES,
    LEVEL,
    MODES,
    Reweighter,
    balanced_weights,
    dilated_mask,
    distance_map,
    fused_attention,
    paper_weights,
    release_weights,
    scaled_logits_attention,
    scaled_rows_attention,
    weights_on_grid,
)

GRID = (4, 6)  # not square
HEADS = 2


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def images():
    """Two images with a mask each: (mask, y, x0_hat, x_t)."""
    mask = torch.zeros(2, 1, *GRID)
    mask[0, :, :2, :3] = 1
    mask[1, :, 1:, 4:] = 1
    return mask, noise(2, 4, *GRID), noise(2, 4, *GRID, seed=1), noise(2, 4, *GRID, seed=2)


def qkv(rows, grid=GRID, tokens=10, seed=3):
    n = grid[0] * grid[1]
    return noise(rows, n, 8, seed=seed), noise(rows, tokens, 8, seed=seed + 1), noise(rows, tokens, 8, seed=seed + 2)


def make(images, mode, **options):
    run = Reweighter(images[0], images[1], mode=mode, **options)
    run.observe(images[2], images[3], 500)
    return run


def test_choices():
    assert MODES == ("off", "uniform", "balanced", "paper", "release")
    assert DISTANCES == ("latent", "rgb", "vae", "preview")


@pytest.mark.parametrize("mode", MODES)
def test_the_first_step_is_bitwise_unedited(images, mode):
    run = Reweighter(images[0], images[1], mode=mode)
    q, k, v = qkv(2)
    assert run.weight_map is None
    assert torch.equal(run.edit([0, 1], (2, 10))(q, k, v, heads=HEADS, grid=GRID), fused_attention(q, k, v, HEADS))


def test_off_stays_off(images):
    run = make(images, "off")
    q, k, v = qkv(2)
    assert run.weight_map is None
    assert torch.equal(run.edit([0, 1], (2, 10))(q, k, v, heads=HEADS, grid=GRID), fused_attention(q, k, v, HEADS))


def test_the_maps_of_the_modes(images):
    mask, y, x0_hat, x_t = images
    d = distance_map(x0_hat, y, mask)
    assert torch.equal(make(images, "paper").weight_map, paper_weights(d, mask))
    assert torch.equal(make(images, "balanced").weight_map, balanced_weights(d, mask))
    assert torch.equal(make(images, "uniform").weight_map, 1 + (LEVEL - 1) * mask)
    noisy = release_weights(distance_map(x_t, y, mask), mask)  # the release measures x_t, not x0_hat
    assert torch.equal(make(images, "release").weight_map, noisy)


def test_strength_is_applied_to_the_map(images):
    assert torch.equal(make(images, "uniform", strength=0.5, level=2.0).weight_map, 1 + 0.5 * images[0])
    full = make(images, "balanced").weight_map
    torch.testing.assert_close(make(images, "balanced", strength=0.25).weight_map, 1 + 0.25 * (full - 1))


def test_the_level_is_the_mean_weight_of_the_modes_that_have_one(images):
    inside = images[0] > 0
    for mode in ("uniform", "balanced"):
        torch.testing.assert_close(make(images, mode, level=1.5).weight_map[inside].mean(), torch.tensor(1.5))
    for mode in ("paper", "release"):
        assert torch.equal(make(images, mode, level=1.5).weight_map, make(images, mode).weight_map)


def test_balanced_and_uniform_have_the_same_mean(images):
    inside = images[0] > 0
    mean = [make(images, mode).weight_map[inside].mean() for mode in ("balanced", "uniform")]
    torch.testing.assert_close(mean[0], mean[1])


@pytest.mark.parametrize("mode", ["paper", "balanced", "uniform"])
@pytest.mark.parametrize("grid", [GRID, (2, 3), (1, 1)])
def test_conditional_rows_are_scaled_and_the_others_bitwise_plain(images, mode, grid):
    run = make(images, mode)
    q, k, v = qkv(4, grid)
    out = run.edit(slice(2, 4), (2, 10))(q, k, v, heads=HEADS, grid=grid)
    weights = weights_on_grid(run.weight_map, images[0], grid)
    assert torch.equal(out[:2], fused_attention(q, k, v, HEADS)[:2])
    assert torch.equal(out[2:], scaled_rows_attention(q[2:], k[2:], v[2:], HEADS, weights))
    reached = not torch.equal(out[2:], fused_attention(q, k, v, HEADS)[2:])
    assert reached == (mode != "paper" or grid != (1, 1))  # mean 1 over a single cell is weight 1


@pytest.mark.parametrize("grid", [GRID, (2, 3)])
def test_release_weights_our_tokens_in_the_conditional_rows(images, grid):
    run = make(images, "release")
    q, k, v = qkv(4, grid)
    out = run.edit(slice(2, 4), (2, 10))(q, k, v, heads=HEADS, grid=grid)
    weights = weights_on_grid(run.weight_map, images[0], grid, renormalise=False)
    assert torch.equal(out[:2], fused_attention(q, k, v, HEADS)[:2])
    torch.testing.assert_close(out[2:], scaled_logits_attention(q[2:], k[2:], v[2:], HEADS, weights, (2, 10)))


def test_the_whole_of_equation_7_and_8_written_out(images):
    """paper, image by image and head by head with an explicit map in float64, from the latents to the rows."""
    mask, y, x0_hat, _ = images
    q, k, v = qkv(2)
    out = make(images, "paper").edit([0, 1], (0, 10))(q, k, v, heads=HEADS, grid=GRID)
    for b in range(2):
        m = mask[b].double().flatten()
        d = (m * (y[b] - x0_hat[b]).double().flatten(1)).square().sum(0)
        f = torch.tensor([1 / value if value else -torch.inf for value in d.tolist()], dtype=torch.float64)
        w_m = m.sum() * f.softmax(0)
        for head in range(HEADS):
            part = slice(4 * head, 4 * head + 4)
            m_c = (q[b, :, part].double() @ k[b, :, part].double().T / 4**0.5).softmax(-1)
            expected = (m_c * w_m[:, None]) @ v[b, :, part].double()
            torch.testing.assert_close(out[b, :, part].double(), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("mode", ["paper", "balanced", "uniform", "release"])
@pytest.mark.parametrize("rows", [[3, 1], torch.tensor([3, 1])])
def test_row_i_belongs_to_image_i(images, mode, rows):
    run = make(images, mode)
    q, k, v = qkv(4)
    out = run.edit(rows, (2, 10))(q, k, v, heads=HEADS, grid=GRID)
    in_order = run.edit([0, 1], (2, 10))(q[[3, 1]], k[[3, 1]], v[[3, 1]], heads=HEADS, grid=GRID)
    torch.testing.assert_close(out[[3, 1]], in_order)
    torch.testing.assert_close(out[[0, 2]], fused_attention(q, k, v, HEADS)[[0, 2]])


def test_several_conditions_share_the_masks(images):
    run = make(images, "balanced")
    q, k, v = qkv(2)
    twice = [torch.cat([x, x]) for x in (q, k, v)]
    out = run.edit([0, 1, 2, 3], (2, 10))(*twice, heads=HEADS, grid=GRID)
    assert torch.equal(out[2:], out[:2])


def test_a_call_without_conditional_rows_is_plain(images):
    run = make(images, "balanced")
    q, k, v = qkv(2)
    assert torch.equal(run.edit([], (2, 10))(q, k, v, heads=HEADS, grid=GRID), fused_attention(q, k, v, HEADS))


def test_x0_hat_equal_to_y_is_bitwise_unedited(images):
    mask, y, _, _ = images
    q, k, v = qkv(2)
    for mode in ("paper", "balanced"):
        run = Reweighter(mask, y, mode=mode)
        run.observe(y, y, 500)
        assert torch.equal(run.weight_map, torch.ones_like(mask))
        assert torch.equal(run.edit([0, 1], (2, 10))(q, k, v, heads=HEADS, grid=GRID), fused_attention(q, k, v, HEADS))


def test_an_edit_uses_the_latest_map(images):
    """As `lookahead` needs it: a map observed in a step acts in the same step, also on an edit made before."""
    mask, y, x0_hat, x_t = images
    run = Reweighter(mask, y, mode="balanced", lookahead=True)
    edit = run.edit([0, 1], (2, 10))
    q, k, v = qkv(2)
    outs = [edit(q, k, v, heads=HEADS, grid=GRID)]
    for estimate in (x0_hat, x_t):
        run.observe(estimate, x_t, 500)
        outs.append(edit(q, k, v, heads=HEADS, grid=GRID))
    assert run.lookahead
    assert not torch.equal(outs[0], outs[1]) and not torch.equal(outs[1], outs[2])


def test_interval_renews_every_third_map(images):
    mask, y, _, x_t = images
    run = Reweighter(mask, y, mode="balanced", interval=3)
    maps = []
    for step in range(4):
        run.observe(noise(2, 4, *GRID, seed=10 + step), x_t, 500)
        maps.append(run.weight_map)
    assert torch.equal(maps[1], maps[0]) and torch.equal(maps[2], maps[0])
    assert not torch.equal(maps[3], maps[0])


def test_reset_starts_anew(images):
    run = make(images, "balanced", interval=2)
    run.reset()
    assert run.weight_map is None
    run.observe(images[2], images[3], 500)
    assert run.weight_map is not None  # the count starts anew too


@pytest.mark.parametrize("distance", ["rgb", "vae", "preview"])
def test_distances_in_pixels(images, distance):
    """The look takes the first three channels, twice as fine; y is looked at once in a run, and kept over a reset."""
    mask, y, x0_hat, x_t = images
    seen = []

    def to_pixels(z):
        seen.append(z)
        return z[:, :3].repeat_interleave(2, 2).repeat_interleave(2, 3)

    run = Reweighter(mask, y, mode="balanced", distance=distance, to_pixels=to_pixels)
    run.observe(x0_hat, x_t, 500)
    expected = balanced_weights(distance_map(x0_hat[:, :3], y[:, :3], mask), mask)
    assert torch.equal(run.weight_map, expected)
    run.reset()
    run.observe(x0_hat, x_t, 400)
    assert sum(torch.equal(z, y) for z in seen) == 1 and len(seen) == 3


def test_blend_mask_is_dilated_by_the_release_only(images):
    mask = torch.zeros(1, 1, 32, 32)
    mask[..., 16, 16] = 1
    y = torch.zeros(1, 4, 32, 32)
    assert torch.equal(Reweighter(mask, y, mode="release").blend_mask(999, 30), dilated_mask(mask, 999, 30))
    assert torch.equal(Reweighter(mask, y, mode="balanced").blend_mask(999, 30), mask)


def test_half_precision_run(images):
    mask, y, x0_hat, x_t = images
    run = Reweighter(mask.half(), y.half(), mode="paper")
    run.observe(x0_hat.half(), x_t.half(), 500)
    q, k, v = (x.half() for x in qkv(2))
    out = run.edit([0, 1], (2, 10))(q, k, v, heads=HEADS, grid=GRID)
    assert run.weight_map.dtype == torch.float32
    assert out.dtype == torch.float16 and out.isfinite().all()


def test_an_estimate_that_is_not_finite_is_named(images):
    mask, y, x0_hat, x_t = images
    run = Reweighter(mask, y, mode="paper")
    with pytest.raises(InputError, match="timestep 321 are not finite inside the mask"):
        run.observe(x0_hat * float("nan"), x_t, 321)
    run.observe(torch.where(mask > 0, x0_hat, float("nan")), x_t, 320)  # outside it is no matter
    assert run.weight_map.isfinite().all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mode": "strong"}, "mode 'strong' is unknown; choose one of off, uniform, balanced, paper, release"),
        ({"mode": "paper", "distance": "clip"}, "distance 'clip' is unknown"),
        ({"mode": "paper", "distance": "vae"}, "pass to_pixels"),
        ({"mode": "paper", "interval": 0}, "interval is 0"),
        ({"mode": "paper", "strength": -1.0}, "strength is -1.0"),
    ],
)
def test_wrong_options_are_named(images, options, message):
    with pytest.raises(InputError, match=message):
        Reweighter(images[0], images[1], **options)


def test_shapes_that_do_not_fit_are_named(images):
    mask, y, x0_hat, x_t = images
    with pytest.raises(InputError, match=r"\(1, 1, 4, 6\) does not fit the normal latents \(2, 4, 4, 6\)"):
        Reweighter(mask[:1], y, mode="paper")
    edit = make(images, "paper").edit([0, 1, 2], (0, 10))
    with pytest.raises(InputError, match="3 conditional rows for 2 masks"):
        edit(*qkv(3), heads=HEADS, grid=GRID)
    edit = make(images, "paper").edit([0, 1], (0, 10))
    with pytest.raises(InputError, match="grid 3 x 6 does not hold the 24"):
        edit(*qkv(2), heads=HEADS, grid=(3, 6))
