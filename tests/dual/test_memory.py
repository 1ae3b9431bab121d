"""When a training's blocks are checkpointed."""

from types import SimpleNamespace

import pytest
import torch

from adiff.dual.layers import count_weights, new_weights
from adiff.dual.memory import needs_checkpoints
from adiff.dual.training import DualSettings, _Pairs

GB = 10**9


def card(room, dtype=torch.float16):
    return SimpleNamespace(room=room, edited_dtype=dtype, latent_downscale=8)


@pytest.mark.parametrize(
    ("room", "rows", "dtype", "needs"),
    [  # 16 bytes of 137 M parameters: 2.19 GB; 4096 cells of 342,418 bytes: 1.40 GB a row, 2.35 GB in float32
        (6.0, 2, torch.float16, False), (4.9, 2, torch.float16, True), (13.5, 8, torch.float16, False),
        (13.0, 8, torch.float16, True), (6.0, 2, torch.float32, True), (7.0, 2, torch.float32, False),
        (7.0, 2, torch.float64, True), (12.0, 2, torch.float64, False),
    ],
)  # fmt: skip
def test_a_step_that_does_not_fit_is_checkpointed(room, rows, dtype, needs):
    assert needs_checkpoints(card(int(room * GB), dtype), 137_000_000, rows, 512) is needs


def test_where_nothing_is_known_of_the_room_it_is_taken_to_fit():
    assert not needs_checkpoints(card(None), 10**9, 64, 512)


def test_a_training_counts_what_it_learns_and_its_batch(backbone, shots, monkeypatch):
    settings = DualSettings(steps=1, batch=3, rank=2, saim="low", saim_rank=4)
    learned = sum(count_weights(new_weights(backbone.attentions, torch.Generator(), 2, "low", 4)).values())
    needed = 16 * learned + 572_634 * 2 * 3 * 8 * 8
    known = [(shot, None) for shot in shots["metal", "hole"]]
    for room, needs in ((needed, False), (needed - 1, True)):
        monkeypatch.setattr(type(backbone), "room", room)
        assert _Pairs(backbone, known, settings, 0, {}, None).checkpoint is needs
