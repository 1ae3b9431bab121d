from dataclasses import replace

import pytest
import torch

from adiff.errors import InputError
from adiff.training import MaskSettings, train_masks
from adiff.training.mask import encode_masks

FEW = MaskSettings(steps=4, batch=3, draws=2)


@pytest.fixture
def masks(shots):
    return {key: [mask for _, mask in of_defect] for key, of_defect in shots.items()}


def test_what_comes_out(backbone, masks):
    result = train_masks(backbone, masks, settings=FEW, seed=1)
    assert set(result.embeddings) == set(result.losses) == set(masks)
    assert all(e.shape == (4, 768) and not e.requires_grad for e in result.embeddings.values())
    assert all(p.grad is None for p in backbone._unet.parameters())


def test_on_a_base_of_full_size_it_starts_beside_the_empty_prompt(large_backbone, masks):
    found = train_masks(large_backbone, masks, settings=replace(FEW, lr=1e-9)).embeddings
    assert all(torch.allclose(e, large_backbone.null_context[0, :4], atol=1) for e in found.values())


def test_a_mask_is_encoded_white_on_black(backbone, make_mask, monkeypatch):
    monkeypatch.setattr("adiff.training.mask.augment_mask", lambda mask, size, rng: mask)
    seen = []
    monkeypatch.setattr(
        type(backbone), "encode", lambda self, images: (seen.append(images), torch.zeros(len(images), 4, 8, 8))[1]
    )
    mask = make_mask()
    latents = encode_masks(backbone, [mask], draws=3, seed=(0, 0), batch=2)
    assert latents.shape == (3, 4, 8, 8) and [len(images) for images in seen] == [2, 1]
    for channel in seen[0][0]:
        assert torch.equal(channel, torch.from_numpy(mask).float() * 2 - 1)


def test_the_largest_seed_will_do(backbone, masks):
    assert train_masks(backbone, masks, settings=replace(FEW, steps=1), seed=2**64 - 1).outcome.steps == 1


def test_a_resumed_training_is_the_unbroken_one_to_the_bit(backbone, masks, stopper, tmp_path):
    unbroken = train_masks(backbone, masks, settings=FEW, seed=1)
    assert train_masks(backbone, masks, settings=FEW, seed=1, state=tmp_path / "s", progress=stopper(2)).outcome.stopped
    resumed = train_masks(backbone, masks, settings=FEW, seed=1, state=tmp_path / "s")
    assert all(torch.equal(resumed.embeddings[key], unbroken.embeddings[key]) for key in masks)
    assert resumed.losses == unbroken.losses


def test_a_training_of_other_settings_does_not_go_on(backbone, masks, stopper, tmp_path):
    train_masks(backbone, masks, settings=FEW, state=tmp_path / "s", progress=stopper(1))
    with pytest.raises(InputError, match="other settings"):
        train_masks(backbone, masks, settings=replace(FEW, draws=3), state=tmp_path / "s")


@pytest.fixture
def many(masks):
    return {key: of_defect * 4 for key, of_defect in masks.items()}


def test_early_stopping_resumes_to_the_bit(backbone, many, stopper, tmp_path, monkeypatch):
    monkeypatch.setattr("adiff.training.validation.SAMPLES", 2)
    settings = replace(FEW, steps=5, validate_every=1, patience=2)
    unbroken = train_masks(backbone, many, settings=settings, seed=1)
    assert train_masks(backbone, many, settings=settings, seed=1, state=tmp_path / "s", progress=stopper(2)).outcome
    resumed = train_masks(backbone, many, settings=settings, seed=1, state=tmp_path / "s")
    assert all(torch.equal(resumed.embeddings[key], unbroken.embeddings[key]) for key in many)
    assert resumed.outcome == unbroken.outcome
    assert resumed.held_out == {key: len(of_defect) - 1 for key, of_defect in many.items()}


def test_previews_change_nothing(backbone, masks):
    seen = {}
    plain = train_masks(backbone, masks, settings=FEW)
    watched = train_masks(
        backbone, masks, settings=FEW, preview=lambda done, e: seen.update({done: e, "grad": torch.is_grad_enabled()}),
        preview_every=4,
    )  # fmt: skip
    assert watched.outcome == plain.outcome and set(seen) == {4, "grad"} and not seen["grad"]
    assert all(torch.equal(seen[4][key], plain.embeddings[key]) for key in masks)
    assert all(torch.equal(watched.embeddings[key], plain.embeddings[key]) for key in masks)


def test_bad_input_is_named(backbone):
    with pytest.raises(InputError, match="no masks to learn from: a/b"):
        train_masks(backbone, {("a", "b"): []})
    with pytest.raises(InputError, match="tokens is 0"):
        MaskSettings(tokens=0)
