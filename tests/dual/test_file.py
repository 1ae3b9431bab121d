"""Dual models on disk."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from adiff.dual.file import DualModel, check_base, fingerprint, load_dual, nested_contexts, save_dual
from adiff.dual.layers import new_weights
from adiff.errors import InputError
from adiff.library import Library, save_library
from adiff.reweighting import fused_attention


@pytest.fixture
def model(backbone):
    rng = torch.Generator().manual_seed(0)
    weights = new_weights(backbone.attentions, rng, rank=2, saim="low", saim_rank=3)
    masks = np.random.default_rng(0).random((2, 61, 61)) < 0.5  # 61: no whole number of bytes
    tokens = torch.randn(2, 4, 768, generator=rng)
    return DualModel("metal", "dent", weights, *tokens, masks, torch.randn(2, 8, generator=rng), backbone.fingerprint,
                     "tiny", {"shots": ["a.png", "b.png"], "steps": 3})  # fmt: skip


def test_what_is_loaded_is_what_was_saved_and_saves_to_the_same(tmp_path, model):
    first, second = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    save_dual(first, model)
    found = load_dual(first)
    save_dual(second, found)
    again = load_dual(second)
    assert first.stat().st_size == second.stat().st_size and again.info == found.info
    assert all(torch.equal(again.weights[name], tensor) for name, tensor in found.weights.items())
    assert found.weights.keys() == model.weights.keys()
    for name, tensor in model.weights.items():
        assert torch.equal(found.weights[name], tensor.half().float())
    for name in ("object_tokens", "defect_tokens", "likeness"):
        assert torch.equal(getattr(found, name), getattr(model, name))
    assert np.array_equal(found.shot_masks, model.shot_masks)
    assert (found.name, found.base_name, found.base_fingerprint, found.info) == (
        "metal/dent", "tiny", model.base_fingerprint, model.info)  # fmt: skip
    assert fingerprint(found) == fingerprint(model)


def test_backgrounds_come_back_with_bcm_and_only_then(tmp_path, backbone, model):
    rng, path = torch.Generator().manual_seed(1), tmp_path / "x.safetensors"
    bcm = {n: w for n, w in new_weights(backbone.attentions, rng, bcm="release").items() if "/bcm." in n}
    known = replace(model, weights=model.weights | bcm, backgrounds=torch.randn(2, 4, 8, 8, generator=rng))
    assert (model.bcm, known.bcm, known.size) == ("off", "release", 61)
    save_dual(path, known)
    found = load_dual(path)
    assert found.bcm == "release" and torch.equal(found.backgrounds, known.backgrounds.half().float())
    assert fingerprint(found) == fingerprint(known) != fingerprint(replace(known, backgrounds=known.backgrounds + 1))
    for damaged in (replace(known, backgrounds=None), replace(model, backgrounds=known.backgrounds)):
        save_dual(path, damaged)
        with pytest.raises(InputError, match=f"damaged dual model.*BCM {damaged.bcm} with"):
            load_dual(path)


def test_a_fingerprint_tells_models_apart(model):
    before = fingerprint(model)
    model.defect_tokens[0, 0] += 1
    assert fingerprint(model) != before


def test_the_parts_context_is_the_defects_tokens_alone():
    """Repeated whole, a context gives the same attention; there is no padding in it."""
    rng = torch.Generator().manual_seed(0)
    ours, theirs, q = (torch.randn(n, 8, generator=rng) for n in (3, 3, 5))
    whole, part = nested_contexts(ours, theirs, 2).chunk(2)
    assert torch.equal(whole, torch.cat([ours, theirs]).expand(2, -1, -1))
    repeated, alone = (fused_attention(q[None], c[None], c[None], heads=2) for c in (part[1], theirs))
    torch.testing.assert_close(repeated, alone)


def test_conditions_that_are_not_nested_share_no_token(tmp_path, model):
    """The whole has the object's group alone, twice as long, so that both contexts keep their length."""
    rng = torch.Generator().manual_seed(0)
    ours, theirs = (torch.randn(n, 768, generator=rng) for n in (6, 3))
    whole, part = nested_contexts(ours, theirs, 2).chunk(2)
    assert torch.equal(whole, ours.expand(2, -1, -1)) and torch.equal(part[0], torch.cat([theirs, theirs]))
    save_dual(tmp_path / "x.safetensors", replace(model, object_tokens=ours, defect_tokens=theirs))
    assert torch.equal(load_dual(tmp_path / "x.safetensors").object_tokens, ours)
    save_dual(tmp_path / "x.safetensors", replace(model, object_tokens=ours[:4], defect_tokens=theirs))
    with pytest.raises(InputError, match="damaged dual model.*token groups"):
        load_dual(tmp_path / "x.safetensors")


def test_prompts_stand_in_front_of_the_tokens_and_come_back_from_the_file(tmp_path, model):
    rng, path = torch.Generator().manual_seed(0), tmp_path / "x.safetensors"
    prompts = torch.randn(2, 5, 768, generator=rng)
    whole, part = nested_contexts(model.object_tokens, model.defect_tokens, 2, prompts).chunk(2)
    assert torch.equal(whole[1], torch.cat([prompts[0], model.object_tokens, model.defect_tokens]))
    assert torch.equal(part[1], torch.cat([prompts[1], model.defect_tokens, model.defect_tokens]))
    known = replace(model, prompts=prompts)
    save_dual(path, known)
    assert torch.equal(load_dual(path).prompts, prompts)
    assert fingerprint(load_dual(path)) == fingerprint(known) != fingerprint(model)
    for damaged in (prompts[:1], prompts[..., :8], prompts[0]):
        save_dual(path, replace(model, prompts=damaged.clone()))
        with pytest.raises(InputError, match=r"the prompts are contexts of the shape .*; give \(2, tokens, 768\)"):
            load_dual(path)


def test_files_of_another_kind_and_damaged_ones_are_named(tmp_path, model):
    path = tmp_path / "x.safetensors"
    with pytest.raises(FileNotFoundError, match="no dual model"):
        load_dual(path)
    path.write_bytes(b"nothing")
    with pytest.raises(InputError, match="not a whole safetensors file"):
        load_dual(path)
    save_file({"a": torch.zeros(1)}, path)
    with pytest.raises(InputError, match="file of another program"):
        load_dual(path)
    save_library(path, Library({}, "f" * 64, "tiny", 768))
    with pytest.raises(InputError, match="file of library, no dual model"):
        load_dual(path)
    metadata = {"kind": "dual", "adiff_format": "1"}
    save_file({"a": torch.zeros(1)}, path, metadata)
    with pytest.raises(InputError, match="damaged"):
        load_dual(path)
    save_file({"a": torch.zeros(1)}, path, metadata | {"adiff_format": "2"})
    with pytest.raises(InputError, match="format '2'.*update"):
        load_dual(path)


def test_weights_that_float16_does_not_hold_are_not_written(tmp_path, model):
    next(iter(model.weights.values())).fill_(1e5)
    with pytest.raises(InputError, match="diverged"):
        save_dual(tmp_path / "x.safetensors", model)
    assert not list(tmp_path.iterdir())


def test_a_model_of_another_base_is_refused_or_told(backbone, model, caplog):
    check_base(model, backbone)
    assert not caplog.records
    object.__setattr__(model, "base_fingerprint", "0" * 64)
    check_base(model, backbone)
    assert "may look different" in caplog.text
    object.__setattr__(model, "object_tokens", torch.zeros(4, 1024))
    with pytest.raises(InputError, match="context width 1024.*width 768"):
        check_base(model, backbone)
