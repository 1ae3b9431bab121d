"""What is learned of a pair, on a small random base model."""

import logging

import numpy as np
import pytest
import torch

from adiff.backbone.schedule import alpha_bar_at
from adiff.dual.background import see_background
from adiff.dual.file import DEFECT, OBJECT, nested_contexts
from adiff.dual.layers import DualEdit
from adiff.dual.training import DualSettings, _Pairs, encode_pairs, train_pair
from adiff.errors import InputError
from adiff.training.noising import add_noise

KEY = ("metal", "hole")
SMALL = {"steps": 4, "batch": 2, "lr": 1e-3, "rank": 2, "tokens": 3, "saim": "low", "saim_rank": 4}


@pytest.fixture
def pairs(shots):
    return shots[KEY]


def test_views_are_encoded_with_their_parts_mirrored_alike(backbone, pairs):
    latents = encode_pairs(backbone, pairs, "both", 64)
    assert latents.shape == (2, 8, 4, 8, 8)
    image, mask = pairs[1]
    flipped = torch.from_numpy(np.ascontiguousarray(image[:, ::-1])).permute(2, 0, 1)[None] / 127.5 - 1
    alone = flipped * torch.from_numpy(np.ascontiguousarray(mask[:, ::-1]))  # image * mask in [-1, 1]
    for branch, pixels in enumerate((flipped, alone)):  # the groups' norms make much of the rounding of plain grey
        torch.testing.assert_close(latents[branch, 5], backbone.encode(pixels)[0], atol=1e-3, rtol=0)
        assert (latents[branch, 5] - latents[branch, 4]).abs().max() > 0.01


def test_conditions_that_are_not_nested_have_groups_of_their_own_and_the_same_context_length(backbone, pairs):
    known = [(shot, None) for shot in pairs]
    settings = [DualSettings(**SMALL, nested=one) for one in (True, False)]
    nested, apart = (_Pairs(backbone, known, one, 0, {}).learned() for one in settings)
    assert [len(one.object_tokens) for one in (nested, apart)] == [3, 6] and len(apart.defect_tokens) == 3
    contexts = [nested_contexts(one.object_tokens, one.defect_tokens, 1) for one in (nested, apart)]
    assert contexts[0].shape == contexts[1].shape


def test_on_a_base_of_full_size_each_group_starts_beside_the_empty_prompt(large_backbone, pairs):
    task = _Pairs(large_backbone, [(shot, None) for shot in pairs], DualSettings(**SMALL, size=64), 0, {})
    for tokens in (task.parameters[OBJECT], task.parameters[DEFECT]):
        assert torch.allclose(tokens, large_backbone.null_context[0, : len(tokens)], atol=1)


@torch.no_grad()
def test_the_loss_is_the_plain_one_of_both_branches_at_one_timestep_with_noise_of_their_own(backbone, pairs):
    task = _Pairs(backbone, [(shot, None) for shot in pairs], DualSettings(**SMALL), 0, {})
    batch = task.batch(0, torch.Generator().manual_seed(3))
    rng = torch.Generator().manual_seed(3)  # the same draws: views, timesteps, noise
    index, t = torch.randint(4, (2,), generator=rng), torch.randint(1000, (2,), generator=rng)
    noise = torch.randn(2, 2, 4, 8, 8, generator=rng)
    assert not torch.equal(noise[0], noise[1])
    found, contexts = batch.losses(slice(0, 2)), nested_contexts(task.parameters[OBJECT], task.parameters[DEFECT], 1)
    for pair in range(2):
        (level,) = alpha_bar_at(backbone.alphas_cumprod, [int(t[pair])])
        z_t = level**0.5 * task.latents[:, index[pair]] + (1 - level) ** 0.5 * noise[:, pair]
        eps = backbone.predict_noise_edited(z_t, t[pair].repeat(2), contexts, DualEdit(task.weights, [[0], [1]]))
        torch.testing.assert_close(found[pair], (eps - noise[:, pair]).square().mean(), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(batch.losses(slice(1, 2)), found[1:], atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_prompts_are_learned_with_and_stay_as_they_are(backbone, pairs, stopper, tmp_path):
    prompts = torch.randn(2, 5, 768, generator=torch.Generator().manual_seed(1))
    known = [(shot, None) for shot in pairs]
    with_words, without = (_Pairs(backbone, known, DualSettings(**SMALL), 0, {}, prompts=p) for p in (prompts, None))
    task, draws = with_words, [torch.Generator().manual_seed(3) for _ in range(2)]
    found, other = (one.batch(0, rng).losses(slice(0, 2)) for one, rng in zip((task, without), draws, strict=True))
    rng = torch.Generator().manual_seed(3)  # the same draws: views, timesteps, noise
    index, t = torch.randint(4, (2,), generator=rng), torch.randint(1000, (2,), generator=rng)
    noise = torch.randn(2, 2, 4, 8, 8, generator=rng)
    contexts = nested_contexts(task.parameters[OBJECT], task.parameters[DEFECT], 1, prompts)
    z_t = add_noise(backbone, task.latents[:, index[0]], noise[:, 0], t[0].repeat(2))
    eps = backbone.predict_noise_edited(z_t, t[0].repeat(2), contexts, DualEdit(task.weights, [[0], [1]]))
    torch.testing.assert_close(found[0], (eps - noise[:, 0]).square().mean(), atol=1e-4, rtol=1e-4)
    assert not torch.allclose(found, other, atol=1e-4)

    state, settings = tmp_path / "state.safetensors", DualSettings(**SMALL)
    with torch.enable_grad():
        result = train_pair(
            backbone, KEY, pairs, prompts=prompts, settings=settings, state=state, progress=stopper(1)
        )
        assert torch.equal(result.prompts, prompts)
        with pytest.raises(InputError, match="other settings or shots: .*prompts"):
            train_pair(backbone, KEY, pairs, prompts=prompts + 1, settings=settings, state=state)
    with pytest.raises(InputError, match=r"prompts are contexts of the shape \(2, 5, 8\)"):
        train_pair(backbone, KEY, pairs, prompts=prompts[..., :8], settings=settings)


def test_an_interrupted_run_goes_on_to_the_same_bits(backbone, pairs, stopper, tmp_path):
    whole = train_pair(backbone, KEY, pairs, settings=DualSettings(**SMALL))
    state = tmp_path / "state.safetensors"
    first = train_pair(backbone, KEY, pairs, settings=DualSettings(**SMALL), progress=stopper(2), state=state)
    assert (first.outcome.stopped, first.outcome.steps, state.exists()) == ("cancelled", 2, True)
    again = train_pair(backbone, KEY, pairs, settings=DualSettings(**SMALL), state=state)
    assert again.outcome.steps == 4 and torch.equal(again.defect_tokens, whole.defect_tokens)
    assert all(torch.equal(again.weights[name], tensor) for name, tensor in whole.weights.items())
    moved = [name for name, tensor in whole.weights.items() if name.endswith((".up", "out.weight")) and tensor.any()]
    assert len(moved) == 14 * 5  # each attention's four LoRAs and SAIM
    start = {name: weight + 1 for name, weight in whole.weights.items()}
    for change, told in (({"settings": DualSettings(**SMALL | {"rank": 3})}, "other settings or shots"),
                         ({"start": start}, "other settings or shots: another start")):  # fmt: skip
        with pytest.raises(InputError, match=told):
            train_pair(backbone, KEY, pairs, **{"settings": DualSettings(**SMALL), "state": state} | change)


@torch.no_grad()
def test_with_bcm_the_background_is_noised_to_the_pairs_timestep(backbone, pairs):
    settings = DualSettings(**SMALL | {"bcm": "release", "flips": "none"})
    objects = [mask | np.roll(mask, 5) for _, mask in pairs]
    task = _Pairs(backbone, list(zip(pairs, objects, strict=True)), settings, 0, {})
    for name, tensor in task.weights.items():
        if name.endswith("bcm.alpha"):
            tensor.fill_(0.5)
    batch = task.batch(0, torch.Generator().manual_seed(3))
    rng = torch.Generator().manual_seed(3)  # the same draws: views, timesteps, noise, noise over the background
    index, t = torch.randint(2, (2,), generator=rng), torch.randint(1000, (2,), generator=rng)
    noise, over = torch.randn(2, 2, 4, 8, 8, generator=rng), torch.randn(2, 4, 8, 8, generator=rng)
    found, contexts = batch.losses(slice(0, 2)), nested_contexts(task.parameters[OBJECT], task.parameters[DEFECT], 1)
    for pair in range(2):
        one = [t[pair : pair + 1]]
        seen = see_background(backbone, task.backgrounds[index[pair : pair + 1]], over[pair : pair + 1], *one)
        z_t = add_noise(backbone, task.latents[:, index[pair]], noise[:, pair], t[pair].repeat(2))
        edit = DualEdit(task.weights, [[0], [1]], seen)
        eps = backbone.predict_noise_edited(z_t, t[pair].repeat(2), contexts, edit)
        torch.testing.assert_close(found[pair], (eps - noise[:, pair]).square().mean(), atol=1e-3, rtol=1e-3)


def test_bcm_learns_from_foregrounds_or_finds_them(backbone, pairs, caplog):
    settings = DualSettings(**SMALL | {"bcm": "paper", "steps": 1})
    objects = [mask | np.roll(mask, 5) for _, mask in pairs]
    given = train_pair(backbone, KEY, pairs, foregrounds=objects, settings=settings)
    assert given.backgrounds.shape == (2, 4, 8, 8)  # of the shots as they are, without their mirrored views
    found = train_pair(backbone, KEY, pairs, settings=settings)
    assert not torch.allclose(found.backgrounds, given.backgrounds, atol=1e-3)
    assert any(tensor.any() for name, tensor in given.weights.items() if name.endswith("bcm.out.weight"))
    off = DualSettings(**SMALL)
    for wrong, used, told in (
        (objects, off, "foregrounds are for BCM, which is off"),
        (objects[:1], settings, "1 foregrounds for 2 shots"),
        ([mask[:32] for mask in objects], settings, "foreground of shot 1 is 64x32, its image 64x64"),
    ):
        with pytest.raises(InputError, match=told):
            train_pair(backbone, KEY, pairs, foregrounds=wrong, settings=used)


def test_the_defect_is_no_background_even_beyond_the_object(backbone, pairs):
    settings = DualSettings(**SMALL | {"bcm": "paper", "steps": 1})
    nothing = [np.zeros_like(mask) for _, mask in pairs]
    nothing[0][0, 0] = nothing[1][0, 0] = True
    defects = [mask | extra for (_, mask), extra in zip(pairs, nothing, strict=True)]
    one, two = (train_pair(backbone, KEY, pairs, foregrounds=f, settings=settings) for f in (nothing, defects))
    assert torch.equal(one.backgrounds, two.backgrounds)


def test_a_held_out_shot_ends_the_run_with_its_best_state(backbone, pairs):
    """With a rate of nearly nothing the held-out loss does not fall for long."""
    four = [pairs[0], pairs[1], pairs[0], pairs[1]]
    settings = DualSettings(**SMALL | {"early_stop": True, "steps": 10, "lr": 1e-12, "token_lr": 1e-12})
    seen = []
    result = train_pair(backbone, KEY, four, settings=settings, preview=lambda done, now: seen.append((done, now)),
                        preview_every=6)  # fmt: skip
    assert result.held_out == 3 and result.outcome.best == 10
    assert [measured for _, _, measured in result.outcome.curve if measured is not None]
    ((done, now),) = seen
    assert done == 6 and now.defect_tokens.shape == (3, 768) and not now.defect_tokens.requires_grad


def test_to_stop_early_takes_a_shot_that_can_be_held_out(backbone, pairs):
    with pytest.raises(InputError, match=f"4 shots or more of each defect, and {'/'.join(KEY)} has 2; do without it"):
        train_pair(backbone, KEY, pairs, settings=DualSettings(**SMALL | {"early_stop": True}))


def test_pairs_are_learned_at_the_size_asked_for(backbone, pairs):
    assert _Pairs(backbone, [(pairs[0], None)], DualSettings(**SMALL | {"size": 128}), 0, {}).latents.shape[-1] == 16


def test_what_is_learned_is_the_same_with_checkpoints(backbone, pairs):
    settings = DualSettings(**SMALL | {"steps": 2, "bcm": "paper"})
    one, other = (train_pair(backbone, KEY, pairs, settings=settings, checkpoint=kept) for kept in (False, True))
    assert all(torch.equal(one.weights[name], tensor) for name, tensor in other.weights.items())
    assert torch.equal(one.object_tokens, other.object_tokens)


@pytest.mark.parametrize(("asked", "seen"), [(None, [(4, False), (4, True)]), (False, [(4, False), (2, False)])])
def test_out_of_memory_blocks_are_computed_twice_before_batches_are_halved(backbone, pairs, monkeypatch, asked, seen):
    """The first step of two pairs; asked not to, the batch is halved."""
    calls, predict = [], backbone.predict_noise_edited

    def little(z_t, t, context, edit, checkpoint=False):
        calls.append((len(z_t), checkpoint))
        if len(calls) == 1:
            raise torch.cuda.OutOfMemoryError("not this much")
        return predict(z_t, t, context, edit, checkpoint)

    monkeypatch.setattr(backbone, "predict_noise_edited", little)
    train_pair(backbone, KEY, pairs, settings=DualSettings(**SMALL | {"steps": 1}), checkpoint=asked)
    assert calls[:2] == seen


def test_out_of_memory_views_are_encoded_and_the_held_out_loss_measured_in_smaller_parts(
    backbone, pairs, small_card, caplog
):
    settings = DualSettings(**SMALL | {"steps": 1, "early_stop": True, "bcm": "paper"})
    whole = train_pair(backbone, KEY, pairs * 2, settings=settings, checkpoint=False)
    given = small_card(2, "encode", "predict_noise_edited")
    parted = train_pair(backbone, KEY, pairs * 2, settings=settings, checkpoint=False)
    assert max(given) == 4 and parted.outcome.curve[0][2] == pytest.approx(whole.outcome.curve[0][2], rel=1e-3)
    assert "measured in parts of 1" in caplog.text
    small_card(1, "encode")
    train_pair(backbone, KEY, pairs * 2, settings=settings, checkpoint=False)
    assert "encoded in parts of 1" in caplog.text


def test_one_shot_is_told_of(backbone, pairs, caplog, stopper):
    with caplog.at_level(logging.WARNING):
        train_pair(backbone, KEY, pairs[:1], settings=DualSettings(**SMALL), progress=stopper(1))
    assert "one shot of metal/hole" in caplog.text


@pytest.mark.parametrize(("fill", "told"), [(True, "b.png covers everything"), (False, "b.png is empty")])
def test_masks_that_leave_nothing_to_tell_apart_are_refused(backbone, pairs, fill, told):
    wrong = [pairs[0], (pairs[1][0], np.full_like(pairs[1][1], fill))]
    with pytest.raises(InputError, match=told):
        train_pair(backbone, KEY, wrong, names=["a.png", "b.png"])


@pytest.mark.parametrize("change", [{"saim": "half"}, {"flips": "up"}, {"rank": 0}, {"lr": 0}, {"token_lr": 0},
                                    {"bcm": "on"}, {"size": 72}])
def test_settings_that_cannot_be_are_refused(change):
    with pytest.raises(InputError):
        DualSettings(**SMALL | change)
