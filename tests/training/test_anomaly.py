import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from adiff.backbone.diffusers_host import DiffusersBackbone
from adiff.embedding import random_embedding
from adiff.errors import InputError
from adiff.spatial_encoder import SpatialEncoder
from adiff.training import AnomalySettings, masked_loss, train_anomalies
from adiff.training.loop import step_generator
from adiff.training.views import choose_views

FEW = AnomalySettings(steps=6, batch=3, draws=2)


def weights(module):
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def same(a, b):
    return all(torch.equal(a[name], b[name]) for name in a)


def test_masked_loss_by_hand():
    """Errors 1, 2, 3, 4 and 10 times them in two channels; the mask takes positions 2 and 4 (Eq. 5)."""
    error = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]], [[10.0, 20.0], [30.0, 40.0]]]])
    cells = torch.tensor([[[[0.0, 1.0], [0.0, 1.0]]]])
    inside = (2**2 + 4**2 + 20**2 + 40**2) / 2  # mean over channels
    assert masked_loss(error, cells, "area").tolist() == [inside / 2]
    assert masked_loss(error, cells, "release").tolist() == [inside / 4]


def test_a_small_mask_weighs_as_much_as_a_large_one_only_by_area():
    error, cells = torch.ones(2, 4, 4, 4), torch.zeros(2, 1, 4, 4)
    cells[0, 0, 0, 0] = 1
    cells[1] = 1
    assert masked_loss(error, cells, "area").tolist() == [1, 1]
    assert masked_loss(error, cells, "release").tolist() == [1 / 16, 1]


def test_an_empty_mask_has_no_loss():
    assert masked_loss(torch.ones(1, 4, 2, 2), torch.zeros(1, 1, 2, 2)).tolist() == [0]


@pytest.mark.parametrize("freeze", [True, False])
def test_the_backbone_stays_as_it_is_and_a_frozen_encoder_too(backbone, shots, encoder, freeze):
    before = [weights(m) for m in (backbone._unet, backbone._vae, encoder)]
    result = train_anomalies(backbone, shots, encoder, freeze_encoder=freeze, settings=FEW, seed=3)
    after = [weights(m) for m in (backbone._unet, backbone._vae, result.encoder)]
    assert same(before[0], after[0]) and same(before[1], after[1])
    assert same(before[2], after[2]) == freeze
    assert all(p.grad is None for m in (backbone._unet, backbone._vae, encoder) for p in m.parameters())
    assert not encoder.training


def test_what_comes_out(backbone, shots, encoder):
    result = train_anomalies(backbone, shots, encoder, freeze_encoder=True, settings=FEW, seed=3)
    assert set(result.embeddings) == set(result.losses) == set(shots)
    for embedding in result.embeddings.values():
        assert embedding.shape == (8, 768) and embedding.dtype == torch.float32 and not embedding.requires_grad
    assert result.outcome.steps == 6 and all(math.isfinite(loss) for loss in result.losses.values())


def test_names_that_would_join_to_one_are_two_defects(backbone, shots):
    one, other = shots.values()
    keys = ("metal", "plate scratch"), ("metal plate", "scratch")
    given = dict(zip(keys, (one, other), strict=True))
    start, end = (train_anomalies(backbone, given, None, freeze_encoder=True, settings=replace(FEW, lr=lr)).embeddings
                  for lr in (1e-9, 0.1))  # fmt: skip
    assert all(not torch.allclose(start[key], end[key], atol=1e-3) for key in keys)


def test_on_a_base_of_full_size_it_starts_beside_the_empty_prompt(large_backbone, shots):
    found = train_anomalies(large_backbone, shots, None, freeze_encoder=True, settings=replace(FEW, lr=1e-9)).embeddings
    assert all(torch.allclose(e, large_backbone.null_context[0, :8], atol=1) for e in found.values())


def test_without_an_encoder_the_embedding_stands_alone(backbone, shots):
    result = train_anomalies(backbone, shots, None, freeze_encoder=False, settings=FEW)
    assert result.encoder is None and len(result.embeddings) == 2


def test_the_start_is_random_and_of_the_seed(backbone, shots):
    slow = replace(FEW, steps=1, lr=1e-9)
    starts = [
        train_anomalies(backbone, shots, None, freeze_encoder=True, settings=slow, seed=seed).embeddings
        for seed in (0, 0, 1)
    ]
    hole, stain = starts[0].values()
    assert torch.equal(hole, starts[1]["metal", "hole"]) and not torch.allclose(hole, starts[2]["metal", "hole"])
    # Gaussian of unit variance: no word, no two the same
    assert abs(hole.mean()) < 0.1 and abs(hole.std() - 1) < 0.05
    tokens = torch.cat([hole, stain])
    assert (torch.corrcoef(tokens) - torch.eye(16)).abs().max() < 0.3


def test_the_loss_falls_on_one_shot(backbone, shots, stopper, monkeypatch):
    """With the same draws at each step, so that nothing but learning moves it."""
    monkeypatch.setattr("adiff.training.loop.step_generator", lambda seed, step: torch.Generator().manual_seed(0))
    monkeypatch.setattr("adiff.training.state.RECENT", 1)
    told, one = stopper(), {("metal", "hole"): shots["metal", "hole"][:1]}
    settings = AnomalySettings(steps=20, batch=2, draws=1, lr=5e-2)
    train_anomalies(backbone, one, None, freeze_encoder=True, settings=settings, progress=told)
    assert told.told[-1][1]["loss"] < 0.97 * told.told[0][1]["loss"]


@pytest.fixture
def many(shots):
    """Two defects with 4 and 5 shots."""
    one, other = shots["metal", "hole"], shots["wood", "stain"]
    return {("metal", "hole"): one * 2, ("wood", "stain"): other * 4 + one[:1]}


def test_the_last_shot_of_each_defect_decides_when_to_stop_and_nothing_else(backbone, many, stopper):
    settings = replace(FEW, steps=4, validate_every=2)

    def train(shots, **options):
        return train_anomalies(backbone, shots, None, freeze_encoder=True, **options)

    told = stopper()
    result = train(many, settings=settings, progress=told)
    assert result.held_out == {("metal", "hole"): 3, ("wood", "stain"): 4}
    measured = {done: info["validation"] for done, info in told.told if "validation" in info}
    assert list(measured) == [2, 4] and result.outcome.best == min(measured, key=measured.get)
    assert result.outcome.curve == tuple((done, info["loss"], info.get("validation")) for done, info in told.told)
    # learned from the others alone, to the same step
    fewer = {key: of_defect[:-1] for key, of_defect in many.items()}
    plain = train(fewer, settings=replace(settings, early_stop=False))
    if result.outcome.best == 4:
        assert same(result.embeddings, plain.embeddings)
    assert plain.held_out == {} and plain.outcome.best == 4
    assert [loss for _, loss, _ in plain.outcome.curve] == [loss for _, loss, _ in result.outcome.curve]


def test_with_fewer_shots_of_one_defect_all_are_learned_from(backbone, many):
    given = {**many, ("wood", "stain"): many["wood", "stain"][:3]}
    result = train_anomalies(backbone, given, None, freeze_encoder=True, settings=replace(FEW, steps=1))
    assert result.held_out == {} and result.outcome.curve[-1][2] is None


def test_the_held_out_loss_is_the_same_whatever_is_trained_with(backbone, many, stopper):
    first = []
    for changes in ({}, {"normalisation": "release", "timesteps": "shifted", "batch": 2}):
        told = stopper()
        settings = replace(FEW, steps=1, lr=1e-9, validate_every=1, **changes)
        train_anomalies(backbone, many, None, freeze_encoder=True, settings=settings, progress=told)
        first.append(told.told[0][1])
    assert first[0]["validation"] == pytest.approx(first[1]["validation"], rel=1e-4)
    assert first[0]["loss"] != pytest.approx(first[1]["loss"], rel=1e-2)


def test_without_the_mask_all_cells_count_alike(backbone, many, stopper):
    """No normalisation tells them from a mask of the whole view; what is held out is measured within its mask."""
    told = []
    for masked, normalisation in ((True, "area"), (False, "area"), (False, "release")):
        settings = replace(FEW, steps=1, lr=1e-9, validate_every=1, masked=masked, normalisation=normalisation)
        progress = stopper()
        train_anomalies(backbone, many, None, freeze_encoder=True, settings=settings, progress=progress)
        told.append(progress.told[0][1])
    losses = [info["loss"] for info in told]
    assert losses[1] == pytest.approx(losses[2], rel=1e-5) and losses[1] != pytest.approx(losses[0], rel=1e-2)
    assert [info["validation"] for info in told] == pytest.approx([told[0]["validation"]] * 3, rel=1e-4)


def test_min_snr_weighs_each_sample(backbone, shots, stopper):
    """One sample a step: its loss is the uniform one times min(1, 5 (1 - alpha_bar) / alpha_bar)."""
    losses = []
    for law in ("uniform", "min-snr"):
        told = stopper()
        settings = AnomalySettings(steps=1, batch=1, draws=1, timesteps=law)
        one = {("metal", "hole"): shots["metal", "hole"]}
        train_anomalies(backbone, one, None, freeze_encoder=True, settings=settings, progress=told, seed=3)
        losses.append(told.told[0][1]["loss"])
    generator = step_generator(3, 0)
    choose_views(np.array([0, 0]), 1, 1, 0, generator)
    alpha_bar = float(backbone.alphas_cumprod[torch.randint(0, 1000, (1,), generator=generator)])
    assert alpha_bar > 5 / 6  # or the weight would be 1
    assert losses[1] == pytest.approx(losses[0] * 5 * (1 - alpha_bar) / alpha_bar, rel=1e-4)


def test_a_learned_encoder_sees_each_mask_once(backbone, shots, encoder):
    """Two views in all: of 6 samples 2 masks are encoded, and the tokens go to the samples they belong to."""
    one, seen = {("metal", "hole"): shots["metal", "hole"]}, []
    encoder.register_forward_hook(lambda module, args, out: seen.append(len(args[0])))
    settings = AnomalySettings(steps=2, batch=6, draws=1)
    train_anomalies(backbone, one, encoder, freeze_encoder=False, settings=settings)
    assert seen == [2, 2]


def test_previews_change_nothing(backbone, many, encoder):
    settings, seen = replace(FEW, steps=4, validate_every=2), {}

    def look(done, embeddings):
        assert not torch.is_grad_enabled()
        seen[done] = embeddings
        for e in embeddings.values():
            e.zero_()
        torch.randn(5)

    plain = train_anomalies(backbone, many, encoder, freeze_encoder=True, settings=settings)
    watched = train_anomalies(
        backbone, many, encoder, freeze_encoder=True, settings=settings, preview=look, preview_every=2
    )
    assert list(seen) == [2, 4] and set(seen[2]) == set(many)
    assert watched.outcome == plain.outcome and same(watched.embeddings, plain.embeddings)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_half_precision_backbone_learns_the_float32_one_s_embeddings(tiny_parts, backbone, shots, encoder, dtype):
    half = DiffusersBackbone("tiny", tiny_parts(), torch.device("cpu"), dtype)
    settings = replace(FEW, steps=2, lr=1e-3)
    found, expected = (
        train_anomalies(model, shots, encoder, freeze_encoder=True, settings=settings) for model in (half, backbone)
    )
    assert found.outcome.loss == pytest.approx(expected.outcome.loss, rel=0.05)
    moved = [
        result.embeddings["metal", "hole"] - start
        for result, start in ((found, first_e_a(8)), (expected, first_e_a(8)))
    ]
    assert found.embeddings["metal", "hole"].dtype == torch.float32
    assert torch.cosine_similarity(moved[0].flatten(), moved[1].flatten(), dim=0) > 0.7


def first_e_a(tokens):
    return random_embedding(tokens, 768, torch.Generator().manual_seed(0))


def test_out_of_memory_learns_the_same_in_smaller_parts(backbone, shots, monkeypatch, caplog):
    whole = train_anomalies(backbone, shots, None, freeze_encoder=True, settings=FEW, seed=1)
    predict, sizes = type(backbone).predict_noise, []

    def small(self, z, *given):
        sizes.append(len(z))
        if len(z) > 2:
            raise torch.cuda.OutOfMemoryError("not this much")
        return predict(self, z, *given)

    monkeypatch.setattr(type(backbone), "predict_noise", small)
    parted = train_anomalies(backbone, shots, None, freeze_encoder=True, settings=FEW, seed=1)
    assert sizes == [3] + [2, 1] * 6 and "taken in parts of 2" in caplog.text
    assert parted.outcome.loss == pytest.approx(whole.outcome.loss, rel=1e-3)
    for key in shots:
        torch.testing.assert_close(parted.embeddings[key], whole.embeddings[key], rtol=0, atol=2e-2)
        assert parted.losses[key] == pytest.approx(whole.losses[key], rel=1e-3)


def test_a_mask_of_few_cells_is_named_where_the_frame_is_not_cropped(backbone, shots, make_mask, caplog):
    image = shots["metal", "hole"][0][0]
    given = {("metal", "dot"): [(image, make_mask(4, 4, 48, 48)), (image, make_mask(0, 0, 3, 3))]}
    settings, names = replace(FEW, steps=1), {("metal", "dot"): ["a.png", "b.png"]}
    train_anomalies(backbone, given, None, freeze_encoder=True, settings=settings, names=names)
    assert not caplog.text
    train_anomalies(backbone, given, None, freeze_encoder=True, settings=replace(settings, crop=False), names=names)
    assert "metal/dot: b.png" in caplog.text and "a.png" not in caplog.text and "crop" in caplog.text


@pytest.mark.parametrize("early", [False, True])
def test_a_resumed_training_is_the_unbroken_one_to_the_bit(backbone, many, early, stopper, tmp_path, monkeypatch):
    monkeypatch.setattr("adiff.training.validation.SAMPLES", 2)
    settings = replace(FEW, steps=5, validate_every=1, patience=2) if early else FEW

    def train(**options):
        encoder = SpatialEncoder("small")
        return train_anomalies(backbone, many, encoder, freeze_encoder=False, settings=settings, seed=1, **options)

    unbroken, state = train(), tmp_path / "s"
    assert train(state=state, progress=stopper(2)).outcome.stopped == "cancelled"
    resumed = train(state=state)
    assert resumed.losses == unbroken.losses and resumed.outcome == unbroken.outcome
    assert same(resumed.embeddings, unbroken.embeddings)
    assert same(weights(resumed.encoder), weights(unbroken.encoder))


@pytest.mark.parametrize("other", ["batch", "normalisation", "crop", "shots", "frozen", "encoder"])
def test_a_training_of_other_settings_does_not_go_on(backbone, shots, stopper, tmp_path, other):
    def train(shots, settings, encoder, freeze, **options):
        train_anomalies(
            backbone, shots, encoder, freeze_encoder=freeze, settings=settings, state=tmp_path / "s", **options
        )

    freeze = other != "frozen"
    train(shots, FEW, SpatialEncoder("small"), True, progress=stopper(1))
    changes = {"batch": {"batch": 2}, "normalisation": {"normalisation": "release"}, "crop": {"crop": True}}
    given = {**shots, ("wood", "stain"): shots["metal", "hole"]} if other == "shots" else shots
    encoder = SpatialEncoder("small", seed=1 if other == "encoder" else 0)
    with pytest.raises(InputError, match="other settings or shots"):
        train(given, replace(FEW, **changes.get(other, {})), encoder, freeze)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda s: train_anomalies(s.backbone, {}, None, freeze_encoder=True), "no shots to learn from; give"),
        (lambda s: train_anomalies(s.backbone, {("a", "b"): []}, None, freeze_encoder=True), "learn from: a/b; give"),
        (
            lambda s: train_anomalies(s.backbone, s.shots, SpatialEncoder("small", dim=16), freeze_encoder=True),
            "tokens are 16 wide, the base model's context 768",
        ),
        (lambda s: AnomalySettings(normalisation="mean"), "'mean' is unknown"),
        (lambda s: AnomalySettings(batch=0), "batch is 0"),
        (lambda s: AnomalySettings(draws=0), "draws is 0"),
        (lambda s: AnomalySettings(steps=0), "steps is 0"),
        (lambda s: AnomalySettings(timesteps="late"), "'late' is unknown"),
        (lambda s: AnomalySettings(patience=0), "patience is 0"),
        (lambda s: AnomalySettings(average=1.0), "averaging decay is 1.0"),
    ],
)
def test_bad_input_is_named(backbone, shots, make, said):
    with pytest.raises(InputError, match=said):
        make(SimpleNamespace(backbone=backbone, shots=shots))
