"""The condition e = {e_a, e_s} (Eq. 6): order, span, batches, errors; fingerprints."""

import hashlib
import struct
from types import SimpleNamespace

import pytest
import torch

from adiff.embedding import (
    K_ANOMALY,
    K_MASK,
    N_SPATIAL,
    OFF,
    embedding_fingerprint,
    first_embedding,
    join_condition,
    random_embedding,
)
from adiff.errors import InputError


def test_paper_constants():
    assert (K_ANOMALY, N_SPATIAL, K_MASK) == (8, 4, 4)


def test_random_embedding_follows_its_generator():
    first = random_embedding(3, 5, torch.Generator().manual_seed(7))
    again = random_embedding(3, 5, torch.Generator().manual_seed(7))
    assert first.shape == (3, 5) and first.dtype == torch.float32
    assert torch.equal(again, first)
    assert random_embedding(64, 64, torch.Generator().manual_seed(0)).std() == pytest.approx(1, abs=0.05)


def test_random_embedding_leaves_the_global_generator_alone():
    before = torch.get_rng_state()
    random_embedding(2, 2, torch.Generator().manual_seed(0))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("tokens", [2, 3, 5])
def test_an_inversion_starts_beside_the_empty_prompt_from_its_first_token_on(tokens):
    empty = 30 * torch.randn(1, 3, 64, generator=torch.Generator().manual_seed(1))
    base = SimpleNamespace(native_size=512, context_dim=64, null_context=empty)
    found = first_embedding(base, tokens, torch.Generator().manual_seed(0))
    off = found - torch.cat([empty[0], empty[0, -1:], empty[0, -1:]])[:tokens]
    assert off.std() == pytest.approx(OFF, rel=0.2) and found.dtype == torch.float32
    assert len(off.unique(dim=0)) == tokens  # none is another's copy


def test_on_a_small_base_an_inversion_starts_at_random():
    base = SimpleNamespace(native_size=128, context_dim=16, null_context=torch.ones(1, 12, 16))
    first, again = (start(0) for start in (
        lambda seed: first_embedding(base, 4, torch.Generator().manual_seed(seed)),
        lambda seed: random_embedding(4, 16, torch.Generator().manual_seed(seed)),
    ))  # fmt: skip
    assert torch.equal(first, again)


def test_condition_is_text_then_anomaly_then_spatial():
    e_a = torch.tensor([[1.0, 1.5]])
    e_s = torch.tensor([[[2.0, 2.5]], [[3.0, 3.5]]])
    text = torch.tensor([[[9.0, 9.5], [8.0, 8.5]]])
    condition = join_condition(e_a, e_s, text)
    expected = [[[9, 9.5], [8, 8.5], [1, 1.5], [2, 2.5]], [[9, 9.5], [8, 8.5], [1, 1.5], [3, 3.5]]]
    assert condition.context.tolist() == expected
    assert condition.span == (2, 4)


def test_condition_alone_is_all_ours():
    condition = join_condition(torch.ones(3, 2), torch.zeros(1, 4, 2))
    assert condition.context.shape == (1, 7, 2)
    assert condition.span == (0, 7)


def test_mask_embedding_alone():
    condition = join_condition(torch.ones(4, 2))
    assert condition.context.shape == (1, 4, 2) and condition.span == (0, 4)


def test_each_image_may_carry_its_own_defect():
    e_a = torch.arange(4.0).view(2, 1, 2)
    condition = join_condition(e_a, torch.zeros(2, 1, 2))
    assert condition.context[:, 0].tolist() == [[0, 1], [2, 3]]


def test_dtype_follows_the_text():
    assert join_condition(torch.ones(1, 2), None, torch.zeros(1, 1, 2).half()).context.dtype == torch.float16


def test_gradients_reach_both_embeddings():
    e_a, e_s = torch.ones(1, 2, requires_grad=True), torch.ones(3, 1, 2, requires_grad=True)
    join_condition(e_a, e_s).context.sum().backward()
    assert e_a.grad.tolist() == [[3, 3]]  # e_a is shared by the three images
    assert e_s.grad.sum() == 6


@pytest.mark.parametrize(
    ("e_s", "message"),
    [(torch.ones(1, 1, 3), "widths differ"), (torch.ones(3, 1, 2), "batches differ"), (torch.ones(1, 2), r"must be")],
)
def test_what_does_not_fit_is_named(e_s, message):
    with pytest.raises(InputError, match=message) as error:
        join_condition(torch.ones(2, 1, 2), e_s)
    assert str(tuple(e_s.shape)) in str(error.value)


def test_a_fingerprint_is_of_the_float32_values():
    values = torch.tensor([[1.0, -2.5]])
    expected = hashlib.sha256(struct.pack("=2f", 1.0, -2.5)).hexdigest()
    assert embedding_fingerprint(values) == embedding_fingerprint(values.double()) == expected
    assert embedding_fingerprint(values.T.contiguous().T) == expected  # whatever its layout in memory
    assert embedding_fingerprint(values + 1e-3) != expected
