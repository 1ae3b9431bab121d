"""Learned words go through the text encoder as words of its vocabulary do."""

import pytest
import torch

from adiff.backbone import prompt_context
from adiff.backbone.text import context_of
from adiff.errors import InputError

A_DOG = [320, 1929]
"""Two words of CLIP's vocabulary."""


@pytest.fixture(scope="module")
def words(text_encoder):
    return text_encoder.get_input_embeddings().weight[A_DOG].detach().clone()


@torch.no_grad()
def test_words_given_by_their_vectors_are_the_prompt_of_these_words(text_encoder, words):
    before = text_encoder.get_input_embeddings().weight
    prompt = torch.tensor([[49406, *A_DOG] + [49407] * 74])
    torch.testing.assert_close(context_of(text_encoder, words), text_encoder(input_ids=prompt).last_hidden_state)
    assert text_encoder.get_input_embeddings().weight is before and before.shape == (49408, 768)


def test_as_many_words_as_a_prompt_holds_and_no_more(text_encoder, words):
    many = words.repeat(38, 1)
    assert context_of(text_encoder, many[:75]).shape == (1, 77, 768)
    with pytest.raises(InputError, match="76 words of width 768 are no prompt: expected at most 75 of 768"):
        context_of(text_encoder, many)
    with pytest.raises(InputError, match="2 words of width 1024"):
        context_of(text_encoder, torch.zeros(2, 1024))


def test_a_base_models_own_text_encoder_is_taken(diffusers_folder, text_encoder, words):
    torch.testing.assert_close(prompt_context(str(diffusers_folder), words), context_of(text_encoder, words)[0])
    assert prompt_context("demo", words) is None  # the shipped model has none
    with pytest.raises(FileNotFoundError, match="base model 'none' is not there"):
        prompt_context("none", words)
