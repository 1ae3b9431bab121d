import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from adiff.errors import InputError
from adiff.spatial_encoder import SpatialEncoder
from adiff.training import AnomalySettings, masked_loss, train_anomalies
from adiff.training.anomaly import _choose, digest_of, draw_views

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
    monkeypatch.setattr("adiff.training.loop.RECENT", 1)
    told, one = stopper(), {("metal", "hole"): shots["metal", "hole"][:1]}
    settings = AnomalySettings(steps=20, batch=2, draws=1, lr=5e-2)
    train_anomalies(backbone, one, None, freeze_encoder=True, settings=settings, progress=told)
    assert told.told[-1][1]["loss"] < 0.97 * told.told[0][1]["loss"]


def test_a_resumed_training_is_the_unbroken_one_to_the_bit(backbone, shots, stopper, tmp_path):
    def train(**options):
        encoder = SpatialEncoder("small")
        return train_anomalies(backbone, shots, encoder, freeze_encoder=False, settings=FEW, seed=1, **options)

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


def test_defects_take_turns_whatever_their_number_of_shots():
    owner = np.array([0] * 10 + [1] * 2 + [2])
    for batch in (1, 3, 4):
        counts = np.zeros(3, int)
        for step in range(12):
            index = _choose(owner, 3, batch, step, torch.Generator().manual_seed(step))
            counts += np.bincount(owner[index.numpy()], minlength=3)
        assert counts.tolist() == [4 * batch] * 3


def test_all_views_of_a_defect_are_chosen():
    owner = np.array([0, 1, 0, 1, 0])
    seen = {int(i) for s in range(40) for i in _choose(owner, 2, 2, s, torch.Generator().manual_seed(s))}
    assert seen == {0, 1, 2, 3, 4}


def test_views_keep_their_defect_and_carry_a_cell_for_each_pixel(backbone, shots):
    views = draw_views(backbone, [shots[key] for key in sorted(shots)], FEW, seed=0)
    assert views.owner.tolist() == [0, 0, 0, 0, 1, 1]
    assert views.latents.shape == (6, 4, 8, 8) and views.masks.shape == (6, 1, 64, 64)
    assert torch.equal(views.cells, torch.nn.functional.max_pool2d(views.masks, 8))
    assert (views.masks.flatten(1).sum(1) > 0).all()


def test_the_digest_sees_each_shot_and_its_defect(shots):
    key = ("metal", "hole")
    image, mask = shots[key][0]
    others = [
        {**shots, key: shots[key][::-1]}, {**shots, key: shots[key][:1]},
        {**shots, key: [(image, ~mask), shots[key][1]]},
        {("metal", "holes"): shots[key], ("wood", "stain"): shots["wood", "stain"]},
    ]  # fmt: skip
    assert len({digest_of(given) for given in [shots, *others]}) == 5


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
    ],
)
def test_bad_input_is_named(backbone, shots, make, said):
    with pytest.raises(InputError, match=said):
        make(SimpleNamespace(backbone=backbone, shots=shots))
