"""Checkpoints of the authors' code, read as what a training begins with."""

import logging

import pytest
import torch
from safetensors.torch import save_file

from adiff.backbone.layout import UNET, unet_names
from adiff.dual.layers import new_weights
from adiff.dual.release import NAMES, read_release
from adiff.dual.training import DualSettings, _Pairs
from adiff.errors import InputError

THEIRS = {ours: theirs for theirs, ours in NAMES.items()}


@pytest.fixture
def weights(backbone):
    rng = torch.Generator().manual_seed(0)
    return {n: w + torch.randn(w.shape, generator=rng) for n, w in
            new_weights(backbone.attentions, rng, rank=2, saim="full").items()}  # fmt: skip


@pytest.fixture
def checkpoint(tmp_path, backbone, weights):
    """The weights as the authors' training names them."""
    unet = backbone._unet
    table = {ours.removeprefix(UNET): theirs for theirs, ours in unet_names(unet.state_dict(), 1).items()}
    tensors = {"text_encoder.text_model.encoder.layers.0.self_attn.to_q_lora.down.weight": torch.zeros(2, 2)}
    for name, tensor in weights.items():
        place, _, part = name.partition("/")
        processor = f"unet.{table[f'{place}.to_q.weight'].removesuffix('.to_q.weight')}.processor"
        layer, factor = part.split(".")
        if factor in ("down", "up"):
            for branch in range(2):
                tensors[f"{processor}.{layer}_lora.{branch}.{factor}.weight"] = tensor[branch].clone()
        else:
            tensors[f"{processor}.temporal_{THEIRS[layer]}.{factor}"] = tensor
    tmp_path.joinpath("checkpoint-5000").mkdir()
    return tensors, tmp_path / "checkpoint-5000" / "pytorch_lora_weights.safetensors"


def test_every_weight_finds_its_place_and_the_rest_is_named(backbone, weights, checkpoint, caplog):
    tensors, file = checkpoint
    save_file(tensors | {"unet.down_blocks.0.mystery": torch.zeros(1)}, file)
    with caplog.at_level(logging.WARNING):
        found = read_release(file.parent, backbone.attentions)
    assert found.keys() == weights.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in weights.items())
    assert "its 1 tensors for the text encoder are left out" in caplog.text
    assert "1 tensors have no place here and are left out: unet.down_blocks.0.mystery" in caplog.text


def test_a_training_begins_with_them(backbone, shots, weights, checkpoint):
    tensors, file = checkpoint
    save_file(tensors, file)
    begin = read_release(file, backbone.attentions)
    known = [(shots["metal", "hole"][0], None)]
    task = _Pairs(backbone, known, DualSettings(rank=2, steps=1), 0, begin)
    assert all(torch.equal(task.weights[name], tensor) for name, tensor in weights.items())
    with pytest.raises(InputError, match="give the rank and the SAIM that they have"):
        _Pairs(backbone, known, DualSettings(rank=4, steps=1), 0, begin)


def test_other_files_and_other_bases_are_refused(backbone, tmp_path, checkpoint):
    tensors, file = checkpoint
    with pytest.raises(FileNotFoundError, match="no release checkpoint"):
        read_release(tmp_path / "nothing", backbone.attentions)
    save_file({"a": torch.zeros(1)}, file)
    with pytest.raises(InputError, match="holds no LoRA of two branches"):
        read_release(file, backbone.attentions)
    save_file(tensors, file)
    fewer = dict(list(backbone.attentions.items())[2:])
    with pytest.raises(InputError, match="14 attentions.*not the 12 of this base model"):
        read_release(file, fewer)
    half = next(name for name in tensors if ".1.down" in name)
    save_file({name: tensor for name, tensor in tensors.items() if name != half}, file)
    with pytest.raises(InputError, match="not two branches of one shape"):
        read_release(file, backbone.attentions)
