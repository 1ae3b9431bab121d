"""Pairs sampled by a dual model, and the folder that they are written to."""

import json
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

from adiff.cli.runs import plan_of, progress_of
from adiff.cli.verification import check_run
from adiff.datasets.images import read_photo
from adiff.dual import run as run_module
from adiff.dual.background import see_background
from adiff.dual.file import DualModel
from adiff.dual.layers import new_weights
from adiff.dual.run import NEEDS_NORMAL, backgrounds_for, generate_dual_run
from adiff.dual.sampling import DualPair, DualSampling, first_noise, sample_latents, sample_pairs, step_edits
from adiff.errors import InputError
from adiff.generation.sampler import seeded_noise
from adiff.generation.seeds import generator_for
from adiff.progress import NullProgress
from adiff.rejection import reject_pairs

FEW = DualSampling(steps=2, batch=2)


@pytest.fixture(scope="module")
def model(backbone):
    rng = torch.Generator().manual_seed(0)
    weights = new_weights(backbone.attentions, rng, rank=2, saim="low", saim_rank=4)
    weights = {name: tensor + 0.05 * torch.randn(tensor.shape, generator=rng) for name, tensor in weights.items()}
    masks = np.zeros((2, 64, 64), bool)
    masks[:, 10:30, 10:30] = True
    tokens = torch.randn(2, 3, 768, generator=rng)
    return DualModel("metal", "dent", weights, *tokens, masks, torch.randn(2, 8, generator=rng), backbone.fingerprint,
                     "tiny")  # fmt: skip


def with_bcm(backbone, model, kind):
    """The model with a BCM whose weights are random."""
    rng = torch.Generator().manual_seed(1)
    weights = {n: w + 0.05 for n, w in new_weights(backbone.attentions, rng, bcm=kind).items() if "/bcm." in n}
    backgrounds = torch.randn(2, 4, 8, 8, generator=rng)
    return replace(model, weights=model.weights | weights, backgrounds=backgrounds, info={"shots": ["a.png", "b.png"]})


def generators(*numbers):
    return [generator_for(0, "test", number) for number in numbers]


def test_guidance_is_between_the_null_context_and_the_nested_ones(backbone, model):
    """One step from pure noise: x_0 is linear in eps, so guidance 3 is three times as far from none as guidance 1."""
    x = seeded_noise((2, 4, 8, 8), generators(0), backbone.null_context).transpose(0, 1)
    one, two, three = (sample_latents(backbone, model, x, DualSampling(1, s)) for s in (1, 2, 3))
    torch.testing.assert_close(three - two, two - one, rtol=1e-3, atol=1e-3)
    assert not torch.allclose(one, two, atol=1e-3)


def test_a_pair_depends_on_its_generator_alone(backbone, model):
    alone, (_, second) = sample_pairs(backbone, model, FEW, generators(1))[0], sample_pairs(
        backbone, model, FEW, generators(0, 1))  # fmt: skip
    for name in ("image", "part"):
        a, b = (getattr(pair, name).astype(int) for pair in (alone, second))
        assert a.shape == (64, 64, 3) and abs(a - b).max() <= 2
    assert not np.array_equal(alone.image, alone.part)


@pytest.mark.parametrize("kind", ["paper", "release"])
def test_unconditional_rows_see_the_same_background_or_black(backbone, model, kind):
    """In the paper's form the background passes once a step; in the release's a black image does, too."""
    known = with_bcm(backbone, model, kind)
    _, background = first_noise(backbone, known, generators(0, 1), known.backgrounds)
    edit, without = step_edits(backbone, known, 2, 500, background, guided=True)
    assert (without is edit) == (kind == "paper")
    expected = background.latents if kind == "paper" else background.black.expand(2, -1, -1, -1)
    seen = see_background(backbone, expected, background.noise, torch.tensor([500, 500]))
    assert all(torch.equal(without.background[name], one) for name, one in seen.items())
    assert step_edits(backbone, known, 2, 500, background, guided=False)[1] is None


def test_a_background_changes_the_pair_and_takes_no_noise_from_it(backbone, model):
    known = with_bcm(backbone, model, "paper")
    plain, _ = first_noise(backbone, model, generators(0), None)
    x, background = first_noise(backbone, known, generators(0), known.backgrounds[:1])
    assert torch.equal(x, plain) and background.noise.shape == (1, 4, 8, 8)
    one, two = (sample_pairs(backbone, known, FEW, generators(0), z)[0] for z in known.backgrounds.split(1))
    assert not np.array_equal(one.image, two.image)
    with pytest.raises(InputError, match="got no background"):
        sample_pairs(backbone, known, FEW, generators(0))


def test_defaults_are_the_methods_with_and_without_bcm(backbone, model):
    assert DualSampling.of(model) == DualSampling(100, 2.5) == DualSampling()
    assert DualSampling.of(with_bcm(backbone, model, "paper")) == DualSampling(50, 2.0)
    assert DualSampling.of(model, guidance=1.0, batch=2) == DualSampling(100, 1.0, 2)


def test_a_run_takes_backgrounds_in_turn_and_tells_which(backbone, model, monkeypatch, tmp_path):
    fake(monkeypatch)
    known = with_bcm(backbone, model, "paper")
    result = generate_dual_run(backbone, known, count=3, out=tmp_path / "run", settings=FEW)
    assert [record["background"] for record in result.pairs] == ["a.png", "b.png", "a.png"]
    given = torch.zeros(1, 4, 8, 8), ("normal.png",)
    with pytest.raises(InputError, match="another run.*backgrounds.kind shots, now photos"):
        generate_dual_run(backbone, known, count=3, out=tmp_path / "run", settings=FEW, backgrounds=given)
    with pytest.raises(InputError, match="metal/dent was learned without BCM and takes no background"):
        backgrounds_for(model, given)


@pytest.mark.parametrize("guidance", [0, 0.5, float("nan"), float("inf")])
def test_guidance_that_leaves_out_what_was_learned_is_refused(guidance):
    with pytest.raises(InputError, match="1 for none"):
        DualSampling(guidance=guidance)


def fake(monkeypatch, empty=()):
    """Pairs that cost nothing: a square at a place of the generator's own; `empty`: numbers of draws without one."""
    drawn = []

    def sample(_backbone, _model, _settings, of_batch, _behind):
        pairs = []
        for rng in of_batch:
            mask = np.zeros((64, 64), bool)
            place = int(torch.randint(4, 40, (), generator=rng))
            if len(drawn) not in empty:
                mask[place : place + 16, 8:24] = True
            drawn.append(place)
            part = np.where(mask[..., None], 200, 127).astype(np.uint8).repeat(3, 2)
            pairs.append(DualPair(np.full((64, 64, 3), place, np.uint8), part, mask))
        return pairs

    monkeypatch.setattr(run_module, "sample_pairs", sample)
    return drawn


def test_a_run_is_one_that_status_and_verify_read(backbone, model, monkeypatch, tmp_path):
    fake(monkeypatch)
    out = tmp_path / "run"
    result = generate_dual_run(backbone, model, count=3, out=out, settings=FEW)
    plan = plan_of(out)
    assert (plan.name, plan.count, plan.batch) == ("metal/dent", 3, 2)
    assert progress_of(out, plan)["left"] == 0
    found = check_run(out, plan, None, NullProgress())
    assert found.pairs == 3 and not found.wrong and len(found.notes) == 1  # that no normal images were given
    record = result.pairs[1]
    assert record == json.loads((out / "pairs" / "000001.json").read_text())
    mask = read_photo(out / "mask" / "000001_mask.png").pixels > 0
    assert np.array_equal(read_photo(out / "part" / "000001.png").pixels[..., 0] == 200, mask)
    assert record["area"] == mask.mean() == 256 / 4096 and record["components"] == 1
    assert all(record[name] is None for name in NEEDS_NORMAL)
    assert record["likeness"] > 0 and abs(record["novelty"] - (1 - 256 / 400)) < 1e-6


def test_a_run_goes_on_and_is_the_same_whatever_was_there(backbone, model, monkeypatch, stopper, tmp_path, listing):
    fake(monkeypatch)
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    generate_dual_run(backbone, model, count=5, out=whole, settings=FEW)
    first = generate_dual_run(backbone, model, count=5, out=broken, settings=FEW, progress=stopper(2))
    assert first.cancelled and len(first.pairs) == 2
    assert len(generate_dual_run(backbone, model, count=5, out=broken, settings=FEW).pairs) == 5
    assert listing(whole) == listing(broken)
    with pytest.raises(InputError, match="another run.*seed"):
        generate_dual_run(backbone, model, count=5, out=broken, settings=FEW, seed=1)
    reject_pairs(broken, [3])
    (broken / "pairs" / "000002.json").unlink()
    assert len(generate_dual_run(backbone, model, count=5, out=broken, settings=FEW).pairs) == 4


@pytest.fixture
def listing():
    return lambda folder: {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_out_of_memory_the_same_pairs_are_made_in_parts(backbone, model, small_card, monkeypatch, tmp_path, caplog):
    settings, made = replace(FEW, batch=2), []
    for name in ("whole", "parted"):
        generate_dual_run(backbone, model, count=2, out=tmp_path / name, settings=settings)
        made.append([read_photo(tmp_path / name / "image" / f"00000{i}.png").rgb.astype(int) for i in range(2)])
        small_card(3, "decode")  # when the noise is drawn already: two wholes, two parts and plain grey
    assert "painted in parts of 1" in caplog.text
    assert np.abs(np.subtract(*made)).max() <= 2


def test_a_pair_whose_part_shows_nothing_is_drawn_again(backbone, model, monkeypatch, tmp_path):
    drawn = fake(monkeypatch, empty=(1, 2))
    result = generate_dual_run(backbone, model, count=2, out=tmp_path / "run", settings=FEW)
    assert [record["draw"] for record in result.pairs] == [0, 2] and len(drawn) == 4


def test_a_model_that_shows_no_part_is_told_of(backbone, model, monkeypatch, tmp_path):
    fake(monkeypatch, empty=range(100))
    with pytest.raises(InputError, match="000000 of metal/dent showed no part in 8 draws"):
        generate_dual_run(backbone, model, count=2, out=tmp_path / "run", settings=FEW)
    assert not (tmp_path / "run" / "pairs").exists()


def test_what_is_there_is_removed_once_the_first_batch_is_drawn(backbone, model, monkeypatch, tmp_path):
    out, cleared = tmp_path / "run", []
    drawn = fake(monkeypatch, empty=range(16))
    begin = partial(generate_dual_run, backbone, model, count=3, out=out, settings=FEW)
    with pytest.raises(InputError, match="showed no part"):
        begin(clear=lambda: cleared.append(len(drawn)))
    assert not cleared and not out.exists()
    assert len(begin(clear=lambda: cleared.append(len(drawn))).pairs) == 3
    assert cleared == [18] and len(drawn) == 19  # nothing is drawn twice


def test_one_pair_that_shows_no_part_costs_only_itself(backbone, model, monkeypatch, tmp_path):
    """Draws 0 to 3 are pairs 0 and 1, then pair 1 alone, to its end; the run goes on, and is not drawn again."""
    out = tmp_path / "run"
    drawn = fake(monkeypatch, empty=(1, *range(2, 9)))
    result = generate_dual_run(backbone, model, count=4, out=out, settings=FEW)
    assert [record["id"] for record in result.pairs] == ["000000", "000002", "000003"]
    (broken,) = result.broken
    assert broken["id"] == "000001" and "showed no part in 8 draws" in broken["reason"]
    about = progress_of(out, plan_of(out))
    assert (about["left"], len(about["broken"])) == (0, 1)
    assert len(drawn) == 1 + 8 + 2
    assert len(generate_dual_run(backbone, model, count=4, out=out, settings=FEW).pairs) == 3 and len(drawn) == 11
