"""The text encoder of SD 1.x (CLIP ViT-L/14), and what it makes of the empty prompt and of learned words."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..errors import InputError
from .layout import TEXT
from .recognition import SD1_WIDTH
from .weights import Weights, fill

if TYPE_CHECKING:
    from transformers import CLIPTextModel

WORDS, LENGTH = 49408, 77
"""Entries of CLIP's vocabulary, and tokens of a prompt."""
START, END = 49406, 49407
"""CLIP's ids of a prompt's start, and of its end, with which SD 1.x pads it."""
MOST_LAYERS, ACTIVATIONS = 24, ("quick_gelu", "gelu")  # of a text encoder of CLIP's width


def has_text_encoder(weights: Weights) -> bool:
    """Whether a single file holds a text encoder."""
    return any(name.startswith(TEXT) for name in weights.shapes)


def read_text_encoder(weights: Weights, prefix: str = TEXT, activation: str = "quick_gelu") -> CLIPTextModel:
    """Read the text encoder that is stored under names with `prefix`; InputError for another one, or none."""
    from transformers import CLIPTextConfig, CLIPTextModel  # heavy, and the shipped model has no text encoder

    # some files, and transformers from version 5, leave out the "text_model." level of the names
    short = {n.removeprefix(prefix).removeprefix("text_model."): n for n in weights.shapes if n.startswith(prefix)}
    if not short:
        raise InputError(f"{weights.name} has no text encoder ({prefix}...), so its unconditional context is not known")
    layers = [int(m[1]) for name in short if (m := re.match(r"encoder\.layers\.(\d{1,3})\.", name))]
    if max(layers, default=0) >= MOST_LAYERS or activation not in ACTIVATIONS:
        raise InputError(f"{weights.name} is not the text encoder of SD 1.x (CLIP ViT-L/14)")
    config = CLIPTextConfig(
        vocab_size=WORDS, hidden_size=SD1_WIDTH, intermediate_size=3072, num_hidden_layers=1 + max(layers, default=0),
        num_attention_heads=12, max_position_embeddings=LENGTH, hidden_act=activation, projection_dim=SD1_WIDTH,
    )  # fmt: skip
    encoder = CLIPTextModel(config)
    names = {name: name.removeprefix("text_model.") for name in encoder.state_dict()}
    fill(encoder, {n: short.get(s, f"{prefix}text_model.{s}") for n, s in names.items()}, weights)
    return encoder.eval()


@torch.no_grad()
def context_of(encoder: CLIPTextModel, words: Tensor | None = None) -> Tensor:
    """Return the context (1, 77, 768) of a prompt of these words alone, (k, 768) as before the encoder's first layer.

    None: of the empty prompt. Raises InputError for more words than a prompt holds, or of another width.
    """
    words = torch.zeros(0, SD1_WIDTH) if words is None else words
    count, width = words.shape
    if width != SD1_WIDTH or count > LENGTH - 2:
        raise InputError(f"{count} words of width {width} are no prompt: expected at most {LENGTH - 2} of {SD1_WIDTH}")
    vocabulary = encoder.get_input_embeddings()
    encoder.set_input_embeddings(torch.nn.Embedding.from_pretrained(torch.cat([vocabulary.weight, words])))
    ids = [START, *range(WORDS, WORDS + count), *[END] * (LENGTH - 1 - count)]
    try:
        return encoder(input_ids=torch.tensor([ids])).last_hidden_state.float()
    finally:
        encoder.set_input_embeddings(vocabulary)
