"""LoRAs: every naming gives the change worked out by hand; what is not understood is refused."""

import json
import logging

import pytest
import torch
from safetensors.torch import load_file, save_file

from adiff.backbone import load_backbone
from adiff.backbone.layout import UNET
from adiff.backbone.loading import load_single_file, save_single_file
from adiff.backbone.lora import merge_lora
from adiff.errors import InputError

TO_K = "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k"  # (32, 768)
TO_OUT = "mid_block.attentions.0.transformer_blocks.0.attn1.to_out.0"  # (64, 64)
PROJ = "down_blocks.0.attentions.0.proj_in"  # a 1 x 1 convolution, (32, 32, 1, 1)
CONV = "down_blocks.0.resnets.0.conv1"  # (32, 32, 3, 3)


def factors(out, inside, entries, rank=2):
    """down (rank, *inside) and up (out, rank), 0 but for `entries`: (r, where in down, value, row of up, value)."""
    down, up = torch.zeros(rank, *inside), torch.zeros(out, rank)
    for r, place, value, row, other in entries:
        down[(r, *place)], up[row, r] = value, other
    return down, up


# 2 * 4 from the first pair of factors, 3 * 5 from the second, which meet in no place
LINEAR = factors(32, (768,), [(0, (5,), 4.0, 3, 2.0), (1, (9,), 5.0, 7, 3.0)])
CHANGED = {(3, 5): 8.0, (7, 9): 15.0}


def kohya(name, down, up, alpha=None):
    stem = f"lora_unet_{name.replace('.', '_')}"
    found = {f"{stem}.lora_down.weight": down, f"{stem}.lora_up.weight": up}
    return found if alpha is None else {**found, f"{stem}.alpha": torch.tensor(alpha)}


@pytest.fixture
def merged(tiny_parts, tmp_path):
    """merged(tensors, weight): what a LoRA of these tensors changes in the tiny model, by name."""

    def merge(tensors, weight=1.0, metadata=None):
        path = tmp_path / "l.safetensors"
        save_file({name: tensor.clone().contiguous() for name, tensor in tensors.items()}, path, metadata)
        unet = tiny_parts().unet
        before = {name: tensor.clone() for name, tensor in unet.state_dict().items()}
        merge_lora(unet, path, weight)
        after = unet.state_dict()
        return {name: after[name] - before[name] for name in before if not torch.equal(after[name], before[name])}

    return merge


def assert_change(found, name, shape, entries):
    """Only `name` has changed, by `entries` and nothing elsewhere."""
    assert set(found) == {f"{name}.weight"}
    expected = torch.zeros(shape)
    for place, value in entries.items():
        expected[place] = value
    torch.testing.assert_close(found[f"{name}.weight"], expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("alpha", "weight", "scale"), [(None, 1.0, 1.0), (1.0, 1.0, 0.5), (1.0, 0.5, 0.25), (6.0, -1.0, -3.0)]
)
def test_a_linear_layer_changes_by_weight_times_alpha_over_rank(merged, alpha, weight, scale):
    found = merged(kohya(TO_K, *LINEAR, alpha=alpha), weight)
    assert_change(found, TO_K, (32, 768), {place: scale * value for place, value in CHANGED.items()})


@pytest.mark.parametrize(
    "names",
    [
        (f"lora_unet_{TO_K.replace('.', '_')}.lora_down.weight", f"lora_unet_{TO_K.replace('.', '_')}.lora_up.weight"),
        ("lora_unet_input_blocks_1_1_transformer_blocks_0_attn2_to_k.lora_down.weight",
         "lora_unet_input_blocks_1_1_transformer_blocks_0_attn2_to_k.lora_up.weight"),
        (f"unet.{TO_K}.lora_A.weight", f"unet.{TO_K}.lora_B.weight"),
        (f"base_model.model.{TO_K}.lora_A.default.weight", f"base_model.model.{TO_K}.lora_B.default.weight"),
        (f"unet.{TO_K}.lora.down.weight", f"unet.{TO_K}.lora.up.weight"),
        (f"unet.{TO_K[:-5]}.processor.to_k_lora.down.weight", f"unet.{TO_K[:-5]}.processor.to_k_lora.up.weight"),
        (f"{UNET}input_blocks.1.1.transformer_blocks.0.attn2.to_k.lora_A.weight",
         f"{UNET}input_blocks.1.1.transformer_blocks.0.attn2.to_k.lora_B.weight"),
    ],
)  # fmt: skip
def test_every_programs_names_mean_the_same_weight(merged, names):
    assert_change(merged(dict(zip(names, LINEAR, strict=True))), TO_K, (32, 768), CHANGED)


@pytest.mark.parametrize("name", [TO_OUT, TO_OUT.removesuffix(".0")])
def test_attentions_output_is_known_by_its_old_name_too(merged, name):
    found = merged(kohya(name, *factors(64, (64,), [(0, (2,), 1.0, 1, 7.0)])))
    assert_change(found, TO_OUT, (64, 64), {(1, 2): 7.0})


def test_a_convolution_changes_by_its_kernel(merged):
    down, up = factors(32, (32, 3, 3), [(1, (6, 0, 2), 5.0, 4, 3.0)])
    assert_change(merged(kohya(CONV, down, up[:, :, None, None], alpha=4.0), 0.5), CONV, (32, 32, 3, 3),
                  {(4, 6, 0, 2): 15.0})  # fmt: skip  # 0.5 * 4 / 2 * 5 * 3


@pytest.mark.parametrize("axes", [0, 2])
def test_a_1_x_1_convolution_takes_both_forms(merged, axes):
    down, up = factors(32, (32,), [(0, (2,), 2.0, 1, 3.0)])
    shape = (1,) * axes
    found = merged(kohya(PROJ, down.reshape(*down.shape, *shape), up.reshape(*up.shape, *shape)))
    assert_change(found, PROJ, (32, 32, 1, 1), {(1, 2, 0, 0): 6.0})


@pytest.mark.parametrize(
    ("config", "scale"),
    [({"unet.lora_alpha": 8}, 4.0), ({"unet.lora_alpha": 8, "unet.alpha_pattern": {"attn2.to_k": 1}}, 0.5),
     ({"unet.lora_alpha": 8, "unet.alpha_pattern": {"to_q": 1, "o_k": 1}}, 4.0), ({"unet.r": 2}, 1.0)],
)  # fmt: skip
def test_pefts_alpha_comes_from_the_metadata(merged, config, scale):
    tensors = dict(zip((f"unet.{TO_K}.lora_A.weight", f"unet.{TO_K}.lora_B.weight"), LINEAR, strict=True))
    found = merged(tensors, metadata={"lora_adapter_metadata": json.dumps(config)})
    assert_change(found, TO_K, (32, 768), {place: scale * value for place, value in CHANGED.items()})


def test_the_text_encoders_part_is_left_out_and_that_is_said(merged, caplog):
    text = {"lora_te_text_model_encoder_layers_0_mlp_fc1.lora_down.weight": torch.ones(2, 768),
            "lora_te_text_model_encoder_layers_0_mlp_fc1.lora_up.weight": torch.ones(3072, 2)}  # fmt: skip
    with caplog.at_level(logging.WARNING, "adiff"):
        assert_change(merged({**kohya(TO_K, *LINEAR), **text}), TO_K, (32, 768), CHANGED)
    assert "its 2 tensors for the text encoder are left out" in caplog.text
    with pytest.raises(InputError, match="for the text encoder only"):
        merged(text)


ONE = torch.ones(1)


@pytest.mark.parametrize(
    ("tensors", "said"),
    [
        (
            kohya("down_blocks.7.resnets.0.conv1", *LINEAR),
            "for another model: SD 1.x's U-Net has no place for lora_unet",
        ),
        (kohya(TO_K, LINEAR[0][:, :700], LINEAR[1]), r"another model: down \(2, 700\) and up \(32, 2\) make no change"),
        (kohya(TO_K, LINEAR[0], LINEAR[1][:, :1]), r"another model: down \(2, 768\) and up \(32, 1\)"),
        (kohya(CONV, torch.ones(2, 32, 1, 9), torch.ones(32, 2, 1, 1)), "another model"),
        (kohya(TO_K, torch.ones(0, 768), torch.ones(32, 0)), "another model"),
        ({**kohya(TO_K, *LINEAR), "lora_te2_x.lora_up.weight": ONE}, "a LoRA for SDXL"),
        ({**kohya(TO_K, *LINEAR), "notes": ONE}, r"no LoRA known here \(notes\)"),
        ({f"{UNET}out.2.weight": ONE, f"{UNET}out.2.bias": ONE}, "no LoRA known here"),
        ({"lora_unet_x.hada_w1_a": ONE}, "a LoHa"),
        ({"lora_unet_x.lokr_w1": ONE}, "a LoKr"),
        ({"lora_unet_x.diff": ONE}, "whole differences"),
        ({**kohya(TO_K, *LINEAR), f"lora_unet_{TO_K.replace('.', '_')}.dora_scale": ONE}, "a DoRA"),
        ({**kohya(CONV, *LINEAR), f"lora_unet_{CONV.replace('.', '_')}.lora_mid.weight": ONE}, "Tucker"),
        ({f"unet.{TO_K}.lora_A.weight": LINEAR[0]}, "no up factor; it is incomplete"),
        ({**kohya(TO_K, *LINEAR), f"unet.{TO_K}.lora_A.weight": LINEAR[0]}, "change the same weight"),
        (kohya(TO_K, LINEAR[0], LINEAR[1] * torch.nan), "not finite"),
        (kohya(TO_K, *LINEAR, alpha=[1.0, 2.0]), r"alpha is \(2,\), expected one number"),
        ({}, "empty, no LoRA"),
    ],
)
def test_what_is_not_understood_is_refused(merged, tensors, said):
    with pytest.raises(InputError, match=f"l.safetensors.*{said}"):
        merged(tensors)


@pytest.mark.parametrize("text", ["{", "[1]", '{"unet.lora_alpha": "x"}', '{"unet.alpha_pattern": [1]}'])
def test_damaged_metadata_is_refused(merged, text):
    with pytest.raises(InputError, match="lora_adapter_metadata is damaged"):
        merged(kohya(TO_K, *LINEAR), metadata={"lora_adapter_metadata": text})


def test_other_files_and_weights_are_refused(tiny_parts, tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no LoRA at"):
        merge_lora(None, tmp_path / "none.safetensors")
    (tmp_path / "l.pt").write_bytes(b"")
    with pytest.raises(InputError, match="a LoRA is a .safetensors file"):
        merge_lora(None, tmp_path / "l.pt")
    save_file(kohya(TO_K, *LINEAR), tmp_path / "l.safetensors")
    for weight in (float("nan"), float("inf")):
        with pytest.raises(InputError, match="expected a finite number"):
            merge_lora(None, tmp_path / "l.safetensors", weight)


def test_the_model_is_loaded_with_loras_its_name_tells_them_and_its_file_stays(tiny_parts, tmp_path):
    base = tmp_path / "base.safetensors"
    save_single_file(base, tiny_parts(), {"heads": 2, "vae_groups": 8, "native_size": 64})
    save_file({name: tensor.float() for name, tensor in load_file(base).items()}, tmp_path / "f32.safetensors",
              {"adiff_base": json.dumps({"heads": 2, "vae_groups": 8, "native_size": 64})})  # fmt: skip
    base = tmp_path / "f32.safetensors"
    before = base.read_bytes()
    attn1 = TO_K.replace("attn2", "attn1")
    save_file(kohya(TO_K, *LINEAR), tmp_path / "keys.safetensors")
    save_file(kohya(attn1, *factors(32, (32,), [(0, (2,), 2.0, 1, 3.0)])), tmp_path / "other.safetensors")
    plain = load_backbone(str(base), "cpu")
    both = load_backbone(
        str(base), "cpu", loras=[(tmp_path / "keys.safetensors", 0.5), (tmp_path / "other.safetensors", 1)]
    )
    assert (plain.name, both.name) == ("f32", "f32+keys:0.5+other")
    old, new = plain._unet.state_dict(), both._unet.state_dict()
    assert {n for n in old if not torch.equal(old[n], new[n])} == {f"{TO_K}.weight", f"{attn1}.weight"}
    assert abs(float((new[f"{TO_K}.weight"] - old[f"{TO_K}.weight"])[3, 5]) - 4.0) < 1e-5  # 0.5 * 8
    assert base.read_bytes() == before  # a mapped file is not written through
    # a library of the plain base warns where the keys and values of the cross-attention changed, and only there
    only_attn1 = load_backbone(str(base), "cpu", loras=[(tmp_path / "other.safetensors", 1)])
    assert both.fingerprint != plain.fingerprint == only_attn1.fingerprint
    assert load_single_file(base).unet.state_dict()[f"{TO_K}.weight"].equal(old[f"{TO_K}.weight"])
