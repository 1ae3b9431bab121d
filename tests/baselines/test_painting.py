"""Baselines that paint: what the replaced attention is, what is learned, and pairs that change nothing elsewhere."""

import numpy as np
import pytest
import torch

from adiff.baselines.painting import METHODS, paint_pairs
from adiff.baselines.prompt_to_prompt import Replacement, prompt_to_prompt
from adiff.baselines.textual_inversion import KEY, learn_tokens, textual_inversion
from adiff.errors import InputError
from adiff.generation import GenerationSettings
from adiff.geometry import resize_mask
from adiff.progress import Cancelled
from adiff.training import AnomalySettings, train_anomalies

FEW = AnomalySettings(steps=2, batch=2, tokens=3, draws=2, early_stop=False, crop=False)
QUICK = GenerationSettings(steps=2, batch=2)


@pytest.fixture
def tokens():
    return torch.randn(3, 768, generator=torch.Generator().manual_seed(4))


@pytest.fixture
def normals():
    rng = np.random.default_rng(1)
    return [rng.integers(80, 120, (height, 70, 3), np.uint8) for height in (64, 90)]


def maps_by_hand(q, k, v, heads, rows):
    """Attention with its map written out, over some of the tokens."""
    q, k, v = (x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in (q, k[:, rows], v[:, rows]))
    weights = (q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5).softmax(-1)
    return (weights @ v).transpose(1, 2).flatten(2)


def test_maps_are_replaced_inside_by_the_defects_and_outside_by_the_sources():
    random = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, count, 8, generator=random) for count in (4, 5, 5))
    cells = torch.zeros(1, 1, 4, 4)
    cells[..., 0, 3] = 1  # one cell of the four that are the grid's upper right place
    out = Replacement(cells).edit(slice(1, 2), (3, 5))(q, k, v, heads=2, grid=(2, 2))
    source, defect, whole = (maps_by_hand(q, k, v, 2, rows) for rows in (slice(0, 3), slice(3, 5), slice(0, 5)))
    assert torch.allclose(out[0], whole[0], atol=1e-6)  # not a conditional row: as it is
    assert torch.allclose(out[1, [0, 2, 3]], source[1, [0, 2, 3]], atol=1e-6)
    assert torch.allclose(out[1, 1], defect[1, 1], atol=1e-6)


def test_the_conditions_hold_the_defects_tokens_behind_the_sources(backbone, tokens):
    cells = torch.ones(2, 1, 8, 8)
    plain, edit = textual_inversion(backbone, tokens, cells)
    assert edit is None and torch.equal(plain.context, tokens.expand(2, -1, -1))
    condition, _ = prompt_to_prompt(backbone, tokens, cells)
    source = backbone.null_context.expand(2, -1, -1)
    assert condition.span == (12, 15) and torch.equal(condition.context[:, :12], source)
    assert torch.equal(condition.context[:, 12:], tokens.expand(2, -1, -1))


def test_tokens_are_learned_from_whole_photos_whatever_their_masks(backbone, shots):
    (image, mask), *_ = shots["metal", "hole"]
    first = learn_tokens(backbone, [(image, mask)], settings=FEW, seed=1)
    other = learn_tokens(backbone, [(image, ~mask)], settings=FEW, seed=1)
    assert first.shape == (3, 768) and torch.equal(first, other)
    masked = train_anomalies(backbone, {KEY: [(image, mask)]}, None, freeze_encoder=True, settings=FEW, seed=1)
    assert not torch.equal(first, masked.embeddings[KEY])


@pytest.mark.parametrize("method", METHODS)
def test_painted_pairs_change_their_masks_alone_and_are_the_same_again(backbone, tokens, normals, shots, method):
    def paint(count, **more):
        given = {"shots": shots["metal", "hole"], "settings": QUICK, "seed": 2, **more}
        return list(paint_pairs(method, normals, count, backbone=backbone, embedding=tokens, **given))

    pairs = paint(2)
    for pair in pairs:
        normal = normals[pair.normal]
        assert pair.image.shape == normal.shape and np.array_equal(pair.image[~pair.mask], normal[~pair.mask])
        assert (pair.image != normal).any()
    assert all(np.array_equal(a.image, b.image) for a, b in zip(pairs, paint(2), strict=True))
    assert len({pair.mask.sum() for pair in pairs}) > 1  # a shot's mask, turned and scaled
    given = np.zeros((64, 70), bool)
    given[10:30, 20:50] = True
    masked = paint(2, masks=[given], shots=())
    due = {0: given.sum(), 1: resize_mask(given, 90, 70).sum()}
    assert all(pair.mask.sum() == due[pair.normal] for pair in masked)


def test_the_replacement_changes_what_is_painted(backbone, tokens, normals, shots):
    given = {"backbone": backbone, "embedding": tokens, "masks": [shots["metal", "hole"][0][1]], "settings": QUICK}
    with torch.no_grad():
        z, cells = torch.randn(1, 4, 8, 8), torch.zeros(1, 1, 8, 8)
        cells[..., 2:5, 2:5] = 1
        condition, edit = prompt_to_prompt(backbone, tokens, cells)
        t = torch.tensor([500])
        edited = backbone.predict_noise(z, t, condition.context, edit.edit(slice(0, 1), condition.span))
        plain = backbone.predict_noise(z, t, condition.context)
    assert not torch.allclose(edited, plain, atol=1e-4)
    (one,) = paint_pairs("prompt-to-prompt", normals[:1], 1, **given)
    assert one.mask.any()


def test_what_is_missing_is_said(backbone, tokens, normals, shots, stopper):
    given = {"backbone": backbone, "embedding": tokens}
    with pytest.raises(InputError, match="no baseline 'magic'; choose from textual-inversion, prompt-to-prompt"):
        next(paint_pairs("magic", normals, 1, **given))
    with pytest.raises(InputError, match="no masks or shots for textual-inversion"):
        next(paint_pairs("textual-inversion", normals, 1, **given))
    with pytest.raises(InputError, match="no normal images for textual-inversion"):
        next(paint_pairs("textual-inversion", [], 1, masks=[np.ones((4, 4), bool)], **given))
    with pytest.raises(Cancelled):
        learn_tokens(backbone, shots["metal", "hole"], settings=FEW, progress=stopper(1))
