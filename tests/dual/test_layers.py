"""Branch LoRA, SAIM and the edit against formulas written out, and on a small U-Net."""

import math

import pytest
import torch
from torch import nn

from adiff.backbone.attentions import AttentionShape, Projections, edited_attention
from adiff.dual.layers import (
    BackgroundPass,
    DualEdit,
    bcm_of,
    branch_lora,
    check_weights,
    count_weights,
    new_weights,
    share,
    with_background,
)  # fmt: skip
from adiff.errors import InputError
from adiff.reweighting import fused_attention

CONTEXT = 768


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def filled(weights, seed=1):
    """The weights with nothing zero."""
    rng = generator(seed)
    return {name: tensor + 0.1 * torch.randn(tensor.shape, generator=rng) for name, tensor in weights.items()}


def saim_of(width, inner, seed=0):
    rng = generator(seed)
    sizes = {"in": (inner, width), "query": (inner, inner), "key": (inner, inner), "value": (inner, inner),
             "out": (width, inner)}  # fmt: skip
    weights = {"norm.weight": torch.randn(width, generator=rng), "norm.bias": torch.randn(width, generator=rng)}
    for name, size in sizes.items():
        weights[f"{name}.weight"] = torch.randn(size, generator=rng)
        weights[f"{name}.bias"] = torch.randn(size[0], generator=rng)
    return weights


def saim_by_hand(h, w):
    """One position of one pair at a time, softmax over two elements."""
    out = h.clone()
    for pair in range(h.shape[1]):
        for place in range(h.shape[2]):
            rows = h[:, pair, place]
            mean, variance = rows.mean(1, keepdim=True), rows.var(1, correction=0, keepdim=True)
            x = (rows - mean) / torch.sqrt(variance + 1e-6) * w["norm.weight"] + w["norm.bias"]
            x = x @ w["in.weight"].T + w["in.bias"]
            q, k, v = (x @ w[f"{name}.weight"].T + w[f"{name}.bias"] for name in ("query", "key", "value"))
            attention = torch.softmax(q @ k.T / math.sqrt(len(x[0])), dim=1)
            out[:, pair, place] += attention @ v @ w["out.weight"].T + w["out.bias"]
    return out


@pytest.mark.parametrize(("width", "inner"), [(6, 6), (6, 2)])
def test_saim_is_an_attention_of_two_elements_at_each_position(width, inner):
    h, weights = torch.randn(2, 3, 5, width, generator=generator()).double(), saim_of(width, inner)
    weights = {name: tensor.double() for name, tensor in weights.items()}
    torch.testing.assert_close(share(h, weights), saim_by_hand(h, weights), rtol=1e-5, atol=1e-6)


def test_saim_of_large_float16_states_is_finite():
    h = torch.full((2, 1, 1, 320), 50.0, dtype=torch.float16) * torch.randn(320, generator=generator()).half()
    weights = {name: tensor.half() * (4 if "key" in name or "query" in name else 0.05)
               for name, tensor in saim_of(320, 320).items()}  # fmt: skip
    assert share(h, weights).isfinite().all()


def test_a_branch_has_its_own_lora():
    x, rng = torch.randn(2, 3, 5, 7, generator=generator()), generator(1)
    down, up = torch.randn(2, 4, 7, generator=rng), torch.randn(2, 6, 4, generator=rng)
    found = branch_lora(x, down, up)
    for branch in range(2):
        torch.testing.assert_close(found[branch], x[branch] @ (up[branch] @ down[branch]).T)


def bcm_weights(share, value, width=6, inner=3, seed=0):
    rng = generator(seed)
    sizes = {"in.weight": (inner, width), "in.bias": (inner,), "out.weight": (width, inner), "out.bias": (width,)}
    return {f"bcm.{name}": torch.randn(size, generator=rng) for name, size in sizes.items()} | {
        f"bcm.{share}": torch.tensor([value])
    }


@pytest.mark.parametrize(("share", "value"), [("gamma", 0.1), ("gamma", -2.0), ("alpha", 0.0), ("alpha", 0.3)])
def test_bcm_adds_the_mlp_of_the_background_or_goes_over_to_it(share, value):
    """h + gamma MLP(h_bg) in the paper, (1 - a) h + a MLP(h_bg) in the release; the MLP is two layers in a row."""
    h, background = torch.randn(2, 3, 5, 6, generator=generator())[:, 0]
    w = bcm_weights(share, value)
    seen = (background @ w["bcm.in.weight"].T + w["bcm.in.bias"]) @ w["bcm.out.weight"].T + w["bcm.out.bias"]
    expected = h + value * seen if share == "gamma" else (1 - value) * h + value * seen
    torch.testing.assert_close(with_background(h, background, w), expected, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_bcm_changes_keys_and_values_of_the_whole_images_alone():
    """The part's rows, the queries and the cross-attention are those of a model without it."""
    rows, shape = [[3, 0], [1, 4]], AttentionShape(8, 8, 8)
    hidden, background = torch.randn(5, 6, 8, generator=generator()), torch.randn(2, 6, 8, generator=generator(2))
    parts = attention()
    weights = filled(new_weights({"x.attn1": shape, "x.attn2": shape}, generator(), rank=2, saim="off", bcm="paper"))
    found = edited_attention(DualEdit(weights, rows, {"x.attn1": background}), "x.attn1", parts, hidden, hidden)
    own = {name.removeprefix("x.attn1/"): w for name, w in weights.items() if "attn1" in name}
    q, k, v, out = merged(parts, {f"a/{name}": w for name, w in own.items()}, 0)
    seen = with_background(hidden[rows[0]], background, own)
    torch.testing.assert_close(found[rows[0]], out(parts.attend(q(hidden[rows[0]]), k(seen), v(seen))), rtol=1e-4,
                               atol=1e-5)  # fmt: skip
    without = {name: tensor for name, tensor in weights.items() if "/bcm." not in name}
    plain = edited_attention(DualEdit(without, rows), "x.attn1", parts, hidden, hidden)
    others = [1, 2, 4]
    assert torch.equal(found[others], plain[others]) and not torch.allclose(found[rows[0]], plain[rows[0]], atol=1e-3)
    cross = [edited_attention(DualEdit(w, rows, {}), "x.attn2", parts, hidden, hidden) for w in (weights, without)]
    assert torch.equal(*cross)


def attention(width=8, context=8, heads=2, seed=0):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        q, k, v, out = nn.Linear(width, 8), nn.Linear(context, 8), nn.Linear(context, 8), nn.Linear(8, width)
    return Projections(q, k, v, out, lambda *qkv: fused_attention(*qkv, heads=heads))


def merged(parts, weights, branch):
    """The attention's projections with one branch's LoRA merged in."""

    def project(name):
        layer = getattr(parts, name)
        added = weights[f"a/{name}.up"][branch] @ weights[f"a/{name}.down"][branch]
        return lambda x: x @ (layer.weight + added).T + layer.bias

    return [project(name) for name in ("to_q", "to_k", "to_v", "to_out")]


@pytest.mark.parametrize("rows", [[[0, 1], [2, 3]], [[3, 0], [1, 4]]])
@pytest.mark.parametrize("context_width", [None, 5])
@torch.no_grad()
def test_an_edited_attention_is_two_attentions_with_merged_loras_then_saim(rows, context_width):
    """Rows are found by index, in any order; the rest of the batch is left alone."""
    hidden = torch.randn(5, 6, 8, generator=generator())
    context = hidden if context_width is None else torch.randn(5, 3, context_width, generator=generator(5))
    parts = attention(context=context.shape[-1])
    weights = filled(new_weights({"a": AttentionShape(8, context.shape[-1], 8)}, generator(), rank=2))
    found = edited_attention(DualEdit(weights, rows), "a", parts, hidden, context)
    own = {name.removeprefix("a/"): tensor for name, tensor in weights.items()}
    branches = []
    for branch, of_branch in enumerate(rows):
        q, k, v, out = merged(parts, weights, branch)
        x, c = hidden[of_branch], context[of_branch]
        branches.append(out(parts.attend(q(x), k(c), v(c))))
    expected = saim_by_hand(torch.stack(branches), own)
    for branch, of_branch in enumerate(rows):
        torch.testing.assert_close(found[of_branch], expected[branch], rtol=1e-4, atol=1e-5)
    for row in set(range(5)) - set(sum(rows, [])):
        plain = parts.attend(parts.to_q(hidden), parts.to_k(context), parts.to_v(context))
        torch.testing.assert_close(found[row], parts.to_out(plain)[row])


def make_input(pairs=2, grid=(8, 8), tokens=5):
    rng = generator()
    z = torch.randn(2 * pairs, 4, *grid, generator=rng)
    return z, torch.tensor([10, 900] * pairs), torch.randn(2 * pairs, tokens, CONTEXT, generator=rng)


def seen_in(backbone, grid, pairs=2):
    """What the model sees of backgrounds of its own."""
    seen = BackgroundPass()
    z = torch.randn(pairs, 4, *grid, generator=generator(8))
    backbone.predict_noise_edited(z, torch.tensor([10, 900][:pairs]), make_input(1, grid)[2][:pairs], seen)
    return seen.seen


@pytest.mark.parametrize(("saim", "bcm"), [("full", "off"), ("low", "paper"), ("off", "release")])
@pytest.mark.parametrize("grid", [(8, 8), (6, 10)])
@torch.no_grad()
def test_new_weights_leave_two_independent_branches_unedited_to_the_bit(backbone, saim, bcm, grid):
    weights = new_weights(backbone.attentions, generator(), saim=saim, bcm=bcm)
    given = make_input(grid=grid)
    background = None if bcm == "off" else seen_in(backbone, grid)
    for rows in ([[0, 1], [2, 3]], [[2, 0], [1, 3]]):
        found = backbone.predict_noise_edited(*given, DualEdit(weights, rows, background))
        assert torch.equal(found, backbone.predict_noise(*given))


@torch.no_grad()
def test_the_backgrounds_pass_changes_nothing_and_sees_every_self_attention(backbone):
    given, seen = make_input(), BackgroundPass()
    assert torch.equal(backbone.predict_noise_edited(*given, seen), backbone.predict_noise(*given))
    widths = {name: shape.width for name, shape in backbone.attentions.items() if name.endswith("attn1")}
    assert {name: one.shape[2] for name, one in seen.seen.items()} == widths
    assert all(one.shape[0] == 4 for one in seen.seen.values())


@torch.no_grad()
def test_the_background_reaches_the_part_through_saim_alone(backbone):
    z, t, context = make_input(pairs=1)
    first = seen_in(backbone, (8, 8), 1)
    other = {name: one + 1 for name, one in first.items()}
    for saim, linked in (("off", False), ("low", True)):
        weights = filled(new_weights(backbone.attentions, generator(), rank=4, saim=saim, bcm="paper"))
        one, two = (backbone.predict_noise_edited(z, t, context, DualEdit(weights, [[0], [1]], seen))
                    for seen in (first, other))  # fmt: skip
        assert not torch.allclose(one[0], two[0], atol=1e-3)
        assert torch.allclose(one[1], two[1], atol=1e-5) != linked


def test_bcm_needs_a_background():
    weights = new_weights({"a.attn1": AttentionShape(8, 8, 8)}, generator(), bcm="release")
    assert bcm_of(weights) == "release"
    with pytest.raises(InputError, match="got no background; give one"):
        DualEdit(weights, [[0], [1]])


@torch.no_grad()
def test_the_order_of_the_rows_is_the_order_of_the_results(backbone):
    """Swapped branches of the batch, their rows told, give swapped results."""
    weights = filled(new_weights(backbone.attentions, generator(), rank=4))
    z, t, context = make_input(grid=(6, 10))
    found = backbone.predict_noise_edited(z, t, context, DualEdit(weights, [[0, 1], [2, 3]]))
    order = torch.tensor([2, 1, 0, 3])  # whole, part of pair 0 change places
    swapped = backbone.predict_noise_edited(z[order], t[order], context[order], DualEdit(weights, [[2, 1], [0, 3]]))
    torch.testing.assert_close(swapped[order], found)
    wrong = backbone.predict_noise_edited(z[order], t[order], context[order], DualEdit(weights, [[0, 1], [2, 3]]))
    assert not torch.allclose(wrong[order], found, atol=1e-2)


@torch.no_grad()
def test_only_saim_lets_a_branch_see_the_other(backbone):
    z, t, context = make_input(pairs=1)
    other = z.clone()
    other[1] += 1
    for saim, linked in (("off", False), ("low", True), ("full", True)):
        weights = filled(new_weights(backbone.attentions, generator(), rank=4, saim=saim))
        edit = DualEdit(weights, [[0], [1]])
        first, second = (backbone.predict_noise_edited(x, t, context, edit)[0] for x in (z, other))
        assert torch.allclose(first, second, atol=1e-4) != linked


def test_gradients_reach_every_weight(backbone):
    """But the bias of SAIM's keys: it adds the same to both logits, and the softmax does not see it."""
    weights = filled(new_weights(backbone.attentions, generator(), rank=2, saim="low", saim_rank=4))
    for tensor in weights.values():
        tensor.requires_grad_(True)
    backbone.predict_noise_edited(*make_input(pairs=1), DualEdit(weights, [[0], [1]])).square().sum().backward()
    without = {name.split("/")[1] for name, tensor in weights.items() if tensor.grad.abs().max() == 0}
    assert without == {"key.bias"}


@torch.no_grad()
def test_after_an_edit_the_model_is_as_before(backbone):
    given = make_input()
    before = backbone.predict_noise(*given)
    weights = filled(new_weights(backbone.attentions, generator()))
    edited = backbone.predict_noise_edited(*given, DualEdit(weights, [[0, 1], [2, 3]]))
    assert not torch.allclose(edited, before, atol=1e-2)
    with pytest.raises(InputError, match="batch of 4"):
        backbone.predict_noise_edited(*given, DualEdit(weights, [[0], [4]]))
    assert torch.equal(backbone.predict_noise(*given), before)


def test_the_attentions_are_called_by_their_single_file_names(backbone):
    blocks = ["input_blocks.1", "input_blocks.3", "middle_block", *(f"output_blocks.{i}" for i in range(4))]
    names = {f"{block}.1.transformer_blocks.0.attn{kind}" for kind in (1, 2) for block in blocks}
    assert set(backbone.attentions) == names
    assert backbone.attentions["middle_block.1.transformer_blocks.0.attn2"] == AttentionShape(64, CONTEXT, 64)


def test_a_seed_means_the_same_on_every_host(backbone):
    """Hosts list their attentions in orders of their own."""
    turned = dict(reversed(backbone.attentions.items()))
    one, other = (new_weights(shapes, generator(), bcm="paper") for shapes in (backbone.attentions, turned))
    assert one.keys() == other.keys() and all(torch.equal(other[name], tensor) for name, tensor in one.items())


def test_parameters_are_as_many_as_the_formulas_say():
    """One attention of C = 320 with keys from 768: LoRA 2 branches x r x ends, SAIM 5 C x C and its vectors."""
    shapes, c, d, r, w = {"a": AttentionShape(320, 768, 320)}, 320, 768, 32, 64
    full = count_weights(new_weights(shapes, generator()))
    bcm = count_weights(new_weights({"a.attn1": shapes["a"]}, generator(), bcm="paper"))["bcm"]
    assert bcm == 2 * 320 * c + 320 + c + 1
    assert full == {"lora": 2 * r * (4 * c + 2 * (d + c)), "saim": 5 * c * c + 7 * c, "bcm": 0}
    low = count_weights(new_weights(shapes, generator(), saim="low"))["saim"]
    assert low == 2 * c * w + 3 * w * w + 4 * w + c + 2 * c


@pytest.mark.parametrize("rows", [[[0], [0]], [[0, 1], [1, 2]], [[-1], [0]]])
def test_a_row_belongs_to_one_branch(rows):
    with pytest.raises(InputError, match="own number"):
        DualEdit({}, rows)


def test_rows_are_those_of_two_branches():
    with pytest.raises(InputError, match="whole images, then parts"):
        DualEdit({}, [[0], [1], [2]])


def test_weights_of_another_model_are_refused(backbone):
    check_weights(new_weights(backbone.attentions, generator()), backbone.attentions)
    name = "middle_block.1.transformer_blocks.0.attn2"
    other = backbone.attentions | {name: AttentionShape(64, 32, 64)}
    with pytest.raises(InputError, match=rf"{name}/to_k.down is \(2, 32, 32\).*\(2, 32, 768\)"):
        check_weights(new_weights(other, generator()), backbone.attentions)
    fewer = {n: shape for n, shape in backbone.attentions.items() if n != name}
    with pytest.raises(InputError, match=f"none for {name}"):
        check_weights(new_weights(fewer, generator()), backbone.attentions)
    with pytest.raises(InputError, match=f"some for {name}"):
        check_weights(new_weights(backbone.attentions, generator()), fewer)
    half = new_weights(backbone.attentions, generator(), bcm="paper")
    del half["middle_block.1.transformer_blocks.0.attn1/bcm.gamma"]
    with pytest.raises(InputError, match="middle_block.*bcm.gamma is None"):
        check_weights(half, backbone.attentions)
    damaged = new_weights(backbone.attentions, generator(), saim="low")
    del damaged[f"{name}/value.bias"]
    with pytest.raises(InputError, match=f"{name}/value.bias is None"):
        check_weights(damaged, backbone.attentions)
