import json
import os
import pickle
import shutil
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from adiff.backbone import load_backbone
from adiff.backbone.diffusers_host import _fingerprint
from adiff.backbone.layout import METADATA, NULL_CONTEXT, TEXT, UNET
from adiff.backbone.loading import load_folder, load_single_file, save_single_file
from adiff.backbone.weights import open_weights
from adiff.errors import InputError

CONTEXT, SIZE = 768, 64
EXTRA = {"heads": 2, "vae_groups": 8, "native_size": SIZE}
FIRST = f"{UNET}input_blocks.0.0.weight"


@pytest.fixture(scope="module")
def parts(tiny_parts):
    return tiny_parts(1)


@pytest.fixture(scope="module")
def file(parts, tmp_path_factory):
    path = tmp_path_factory.mktemp("base") / "tiny.safetensors"
    save_single_file(path, parts, EXTRA)
    return path


@torch.no_grad()
def empty_prompt(encoder):
    return encoder(input_ids=torch.tensor([[49406] + [49407] * 76])).last_hidden_state


def changed(file, tmp_path, change, extra=None):
    """The model's file with its table of weights changed, or with other metadata."""
    tensors = load_file(file)
    change(tensors)
    path = tmp_path / "other.safetensors"
    save_file(tensors, path, metadata={METADATA: json.dumps(EXTRA) if extra is None else extra})
    return path


def test_a_model_reads_back_exactly_as_stored(parts, file):
    found = load_single_file(file)
    for kind in ("unet", "vae"):
        before, after = getattr(parts, kind), getattr(found, kind)
        assert before.state_dict().keys() == after.state_dict().keys()
        for name, tensor in before.state_dict().items():
            assert torch.equal(after.state_dict()[name], tensor.half().float()), name
    assert torch.equal(found.null_context, parts.null_context.half().float())


def test_the_architecture_reads_back(parts, file):
    found = load_single_file(file)
    for name in ("block_out_channels", "layers_per_block", "attention_head_dim", "cross_attention_dim", "sample_size"):
        there, given = found.unet.config[name], parts.unet.config[name]
        assert list(there) == list(given) if isinstance(there, (list, tuple)) else there == given, name
    assert found.vae.config.scaling_factor == parts.vae.config.scaling_factor == 0.18215
    assert tuple(found.vae.config.block_out_channels) == (8, 8, 16, 16) and found.vae.config.norm_num_groups == 8


def test_a_model_read_back_predicts_the_same(file):
    once = load_backbone(str(file), device="cpu")
    z, t, context = torch.randn(1, 4, 8, 8), torch.tensor([500]), torch.randn(1, 5, CONTEXT)
    again = load_backbone(str(file), device="cpu")
    assert torch.equal(once.predict_noise(z, t, context), again.predict_noise(z, t, context))
    assert (once.name, once.native_size, once.latent_downscale, once.context_dim) == ("tiny", SIZE, 8, CONTEXT)
    assert not any(p.requires_grad or p.is_meta for p in once._unet.parameters())


def test_more_tensors_may_travel_along(parts, tmp_path):
    save_single_file(tmp_path / "m.safetensors", parts, EXTRA, {"adiff.words": torch.ones(3)})
    assert load_file(tmp_path / "m.safetensors")["adiff.words"].tolist() == [1, 1, 1]
    load_single_file(tmp_path / "m.safetensors")


def test_weights_that_fp16_cannot_hold_are_not_written(parts, tmp_path):
    with pytest.raises(ValueError, match="adiff.words; the training diverged"):
        save_single_file(tmp_path / "m.safetensors", parts, EXTRA, {"adiff.words": torch.tensor([1e6])})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: t.pop(f"{UNET}middle_block.0.in_layers.2.weight"), "middle_block.0.in_layers.2.weight is missing"),
        (lambda t: t.pop("first_stage_model.quant_conv.bias"), "quant_conv.bias is missing"),
        (lambda t: t.update({f"{UNET}out.0.weight": torch.ones(8)}), r"out.0.weight is \(8,\), expected \(32,\)"),
        (lambda t: t.update({f"{UNET}label_emb.0.0.weight": torch.ones(8)}), "no place for the weight .*label_emb"),
        (
            lambda t: t.update({FIRST: torch.ones(32, 9, 3, 3)}),
            "an inpainting model .its U-Net takes 9 channels, not 4",
        ),
        (lambda t: t.update({FIRST: torch.ones(32)}), r"input_blocks.0.0.weight is \(32,\), expected 4 axes"),
        (lambda t: t.update({FIRST: t[FIRST].to(torch.int32)}), "input_blocks.0.0.weight holds torch.int32"),
        (
            lambda t: t.update({f"{UNET}input_blocks.1.0.in_layers.2.weight": torch.ones(())}),
            r"is \(\), expected 4 axes",
        ),
        (lambda t: t.update({f"{UNET}input_blocks.1.0.in_layers.2.weight": torch.ones(7, 3, 3, 3)}), "makes no UNet2D"),
        (
            lambda t: t.update({"first_stage_model.post_quant_conv.weight": torch.ones(16, 16, 1, 1)}),
            "takes 4 channels and gives 4, its autoencoder's latents have 16",
        ),
        (lambda t: t.pop(NULL_CONTEXT), "no text encoder"),
        (lambda t: t.update({NULL_CONTEXT: torch.ones(1, 4, 5)}), r"null_context is \(1, 4, 5\)"),
        (lambda t: [t.pop(k) for k in list(t) if k.startswith("first_stage")], "no KL autoencoder"),
        (lambda t: [t.pop(k) for k in list(t) if "attn2" in k], "no cross-attention"),
    ],
)
def test_a_file_that_is_not_the_model_is_refused(file, tmp_path, change, said):
    path = changed(file, tmp_path, change)
    with pytest.raises(InputError, match=said) as refused:
        load_single_file(path)
    assert path.name in str(refused.value)


def test_a_transposed_weight_is_not_taken_for_the_right_one(file, tmp_path):
    key = f"{UNET}time_embed.0.weight"  # (128, 32)
    path = changed(file, tmp_path, lambda t: t.update({key: t[key].T.contiguous()}))
    with pytest.raises(InputError, match=r"time_embed.0.weight is \(32, 128\), expected \(128, 32\)"):
        load_single_file(path)


def test_sd2_is_refused_by_its_width(file, tmp_path):
    def widen(tensors):
        for key in [k for k in tensors if k.endswith(("attn2.to_k.weight", "attn2.to_v.weight"))]:
            tensors[key] = torch.ones(tensors[key].shape[0], 1024)

    with pytest.raises(InputError, match="Stable Diffusion 2.x .its context is 1024 wide, SD 1.x's 768"):
        load_single_file(changed(file, tmp_path, widen))


def test_other_files_are_refused(file, tmp_path):
    lora = tmp_path / "lora.safetensors"
    save_file({"lora_unet_down_blocks_0_attn2_to_k.lora_up.weight": torch.ones(2, 2)}, lora)
    with pytest.raises(InputError, match="lora.safetensors is a LoRA, to be given with --lora"):
        load_single_file(lora)
    torch.save({"state_dict": {"emb_params": torch.ones(2, 768)}}, tmp_path / "e.ckpt")
    with pytest.raises(InputError, match="e.ckpt is a textual inversion"):
        load_single_file(tmp_path / "e.ckpt")
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(file.read_bytes()[:-1000])
    with pytest.raises(InputError, match="cut.safetensors is damaged"):
        load_single_file(cut)
    with pytest.raises(InputError, match="x.gguf: weights are a .safetensors or .ckpt file"):
        load_single_file(tmp_path / "x.gguf")
    with pytest.raises(FileNotFoundError, match="nowhere"):
        load_backbone(str(tmp_path / "nowhere"))


@pytest.mark.parametrize(
    ("extra", "said"),
    [
        ("{", "adiff_base is no JSON object"), ("[1]", "adiff_base is no JSON object"),
        ("[" * 100_000, "adiff_base is no JSON object"), ('{"heads": 0}', "heads 0; expected 1 to 64"),
        ('{"heads": "2"}', "heads 2; expected 1"), ('{"native_size": 1e3}', "native_size 1000.0"),
        ('{"native_size": 99999999}', "native_size 99999999; expected 1 to 4096"),
        ('{"vae_groups": true}', "vae_groups"),
        ('{"vae_groups": 7}', "makes no AutoencoderKL"), ('{"scaling_factor": NaN}', "scaling_factor"),
        ('{"scaling_factor": 0}', "scaling_factor"), ('{"scaling_factor": "1"}', "scaling_factor"),
        ('{"scaling_factor": 1' + "0" * 400 + "}", "scaling_factor"),
    ],
)  # fmt: skip
def test_metadata_that_cannot_be_is_refused(file, tmp_path, extra, said):
    with pytest.raises(InputError, match=f"other.safetensors.*{said}"):
        load_single_file(changed(file, tmp_path, lambda _: None, extra))


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_damage_never_ends_in_another_error(file, tmp_path, data):
    """Some bytes of the header, which tells names, shapes and metadata, are changed."""
    content = bytearray(file.read_bytes())
    end = 8 + int.from_bytes(content[:8], "little")
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, end - 1))
        content[place] = data.draw(st.sampled_from([*b'0123456789{}[]",:x', 0, 255]))
    path = tmp_path / "damaged.safetensors"
    path.write_bytes(content)
    try:
        load_single_file(path)
    except InputError as error:
        assert len(str(error)) < 1000


def test_a_ckpt_of_weights_is_read(parts, file, tmp_path, monkeypatch):
    path = tmp_path / "tiny.CKPT"
    torch.save({"state_dict": load_file(file), "global_step": 3}, path)
    # a .ckpt has no place for our metadata; the tiny model's is SD 1.5's for once
    for name, value in (("SD15_HEADS", 2), ("SD15_GROUPS", 8), ("SD15_SIZE", SIZE)):
        monkeypatch.setattr(f"adiff.backbone.layout.{name}", value)
    found = load_single_file(path)
    assert all(torch.equal(found.vae.state_dict()[n], t.half().float()) for n, t in parts.vae.state_dict().items())
    assert found.unet.config.attention_head_dim == 2


class ModelCheckpoint:
    """As the record of a training by PyTorch Lightning names it."""


def test_a_ckpt_with_the_record_of_its_training_is_read(tmp_path, monkeypatch):
    """The published .ckpt files of SD 1.x hold one: a class as a key, and NumPy's numbers."""
    module = "pytorch_lightning.callbacks.model_checkpoint"
    for name in ("pytorch_lightning", "pytorch_lightning.callbacks", module):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setattr(ModelCheckpoint, "__module__", module)
    monkeypatch.setattr(sys.modules[module], "ModelCheckpoint", ModelCheckpoint, raising=False)
    record = {ModelCheckpoint: {"monitor": "val/loss", "best": np.float64(0.5), "last": torch.tensor(1.0)}}
    torch.save({"state_dict": {FIRST: torch.ones(2)}, "callbacks": record, "epoch": 3}, tmp_path / "sd.ckpt")
    monkeypatch.undo()
    known = set(torch.serialization.get_safe_globals())
    with open_weights(tmp_path / "sd.ckpt") as weights:
        assert weights.shapes == {FIRST: (2,)} and torch.equal(weights.read(FIRST), torch.ones(2))
    assert set(torch.serialization.get_safe_globals()) == known  # other programs' loading stays as it is


class Payload:
    def __reduce__(self):
        import os

        return os.mkdir, ("executed",)


@pytest.mark.parametrize("legacy", [False, True])
def test_a_pickle_is_never_executed(tmp_path, monkeypatch, legacy):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "evil.ckpt"
    torch.save({"state_dict": {FIRST: torch.ones(2)}, "x": Payload()}, path, _use_new_zipfile_serialization=not legacy)
    with pytest.raises(InputError, match="evil.ckpt holds more than weights"):
        load_single_file(path)
    path.write_bytes(pickle.dumps(Payload()))
    with pytest.raises(InputError, match="evil.ckpt holds more than weights"):
        load_single_file(path)
    assert [p.name for p in tmp_path.iterdir()] == ["evil.ckpt"]


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"PK\x03\x04cut"])
def test_a_damaged_ckpt_is_refused(tmp_path, content):
    path = tmp_path / "x.ckpt"
    path.write_bytes(content)
    with pytest.raises(InputError, match="x.ckpt"):
        load_single_file(path)


def test_a_ckpt_without_a_table_is_refused(tmp_path):
    torch.save([1, 2], tmp_path / "x.ckpt")
    with pytest.raises(InputError, match="no table of weights"):
        load_single_file(tmp_path / "x.ckpt")


@pytest.mark.parametrize("level", ["text_model.", ""])
def test_the_null_context_is_the_text_encoders_own_output(file, tmp_path, text_encoder, level):
    weights = {f"{TEXT}{level}{n.removeprefix('text_model.')}": t for n, t in text_encoder.state_dict().items()}
    constant = {f"{TEXT}text_model.embeddings.position_ids": torch.arange(77)[None]}  # in older files

    def swap(tensors):
        del tensors[NULL_CONTEXT]
        tensors |= {**weights, **constant}

    found = load_single_file(changed(file, tmp_path, swap))
    assert found.null_context.shape == (1, 77, 768)
    torch.testing.assert_close(found.null_context, empty_prompt(text_encoder))


def test_a_text_encoder_with_a_weight_missing_is_refused(file, tmp_path, text_encoder):
    def swap(tensors):
        del tensors[NULL_CONTEXT]
        tensors[f"{TEXT}text_model.final_layer_norm.bias"] = torch.zeros(768)

    with pytest.raises(InputError, match="cond_stage_model.transformer.text_model.*is missing"):
        load_single_file(changed(file, tmp_path, swap))


@pytest.fixture
def folder(diffusers_folder, tmp_path):
    """A diffusers folder; what is to be changed in it has to be unlinked first."""
    return Path(shutil.copytree(diffusers_folder, tmp_path / "m", copy_function=os.link))


def rewrite(folder, part, change):
    """Change a part's weights."""
    (path,) = (folder / part).glob("*.safetensors")
    tensors = {name: tensor.clone() for name, tensor in load_file(path).items()}
    change(tensors)
    path.unlink()
    save_file(tensors, path)


def test_a_diffusers_folder_is_read(parts, text_encoder, folder):
    found = load_folder(folder)
    for name, tensor in parts.unet.state_dict().items():
        assert torch.equal(found.unet.state_dict()[name], tensor)
    for name, tensor in parts.vae.state_dict().items():
        assert torch.equal(found.vae.state_dict()[name], tensor)
    torch.testing.assert_close(found.null_context, empty_prompt(text_encoder))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_the_fingerprint_is_the_same_however_a_models_weights_are_stored(parts, file, folder, tmp_path, dtype):
    """In a file or a diffusers folder, whole or halved; bfloat16 has lost what it goes by."""
    tensors = {name: tensor.to(dtype) for name, tensor in load_file(file).items()}
    halved = [name for name, tensor in parts.unet.state_dict().items() if "attn2.to_" in name]
    save_file(tensors, tmp_path / "a.safetensors", metadata={METADATA: json.dumps(EXTRA)})
    rewrite(folder, "unet", lambda own: own.update({name: own[name].half().to(dtype) for name in halved}))
    found = [load_single_file(tmp_path / "a.safetensors"), load_folder(folder), parts]
    assert len({_fingerprint(one) for one in found}) == 1


def test_the_half_precision_of_a_folder_is_read_where_it_is_all_there_is(parts, folder):
    def halve(tensors):
        tensors.update({name: tensor.half() for name, tensor in tensors.items()})

    rewrite(folder, "unet", halve)
    file = folder / "unet" / "diffusion_pytorch_model.safetensors"
    file.rename(file.with_suffix(".fp16.safetensors"))
    weight = load_folder(folder).unet.state_dict()["conv_in.weight"]
    assert weight.dtype == torch.float32 and torch.equal(
        weight, parts.unet.state_dict()["conv_in.weight"].half().float()
    )


def test_the_pickled_weights_of_a_folder_are_read_where_they_are_all_there_is(parts, text_encoder, folder):
    """As in older downloads; nothing but weights is unpickled."""
    for part, stem in (("unet", "diffusion_pytorch_model"), ("text_encoder", "pytorch_model")):
        (path,) = (folder / part).glob("*.safetensors")
        torch.save(load_file(path), folder / part / f"{stem}.bin")
        path.unlink()
    found = load_folder(folder)
    assert all(torch.equal(found.unet.state_dict()[n], tensor) for n, tensor in parts.unet.state_dict().items())
    torch.testing.assert_close(found.null_context, empty_prompt(text_encoder))
    torch.save({"conv_in.weight": Path("x")}, folder / "unet" / "diffusion_pytorch_model.bin")
    with pytest.raises(InputError, match="diffusion_pytorch_model.bin"):
        load_folder(folder)


def test_the_old_names_of_a_folders_autoencoder_are_read(parts, folder):
    """As the published SD 1.5 has them."""
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}

    def rename(tensors):
        for name in [n for n in tensors if ".attentions." in n and "group_norm" not in n]:
            stem, leaf = name.rsplit(".", 1)
            new = next(v for k, v in old.items() if stem.endswith(k))
            tensors[f"{stem.split('.0.')[0]}.0.{new}.{leaf}"] = tensors.pop(name)

    rewrite(folder, "vae", rename)
    found = load_folder(folder).vae.state_dict()
    assert all(torch.equal(found[name], tensor) for name, tensor in parts.vae.state_dict().items())


@pytest.mark.parametrize(
    ("part", "change", "said"),
    [
        (
            "unet",
            lambda t: t.pop("conv_in.weight"),
            "unet/diffusion_pytorch_model.safetensors: the weight conv_in.weight is missing",
        ),
        ("unet", lambda t: t.update({"conv_in.weight": torch.ones(3)}), r"conv_in.weight is \(3,\), expected"),
        (
            "vae",
            lambda t: t.update({"extra.weight": torch.ones(3)}),
            "has a weight extra.weight that config.json knows",
        ),
        ("text_encoder", lambda t: [t.pop(n) for n in list(t) if "final_layer_norm" in n], "is missing"),
    ],
)
def test_no_weight_of_a_folder_is_made_up_or_skipped(folder, part, change, said):
    rewrite(folder, part, change)
    with pytest.raises(InputError, match=said):
        load_folder(folder)


@pytest.mark.parametrize(
    ("part", "change", "said"),
    [
        ("unet", {"block_out_channels": "many"}, "unet makes no UNet2DConditionModel"),
        ("unet", {"down_block_types": ["Mystery2D", "Mystery2D"]}, "unet makes no UNet2DConditionModel"),
        ("vae", {"norm_num_groups": 7}, "vae makes no AutoencoderKL"),
        ("text_encoder", {"hidden_act": "swish"}, "not the text encoder of SD 1.x"),
        ("scheduler", {"prediction_type": "v_prediction"}, "predicts v"),
        ("scheduler", {"prediction_type": "sample"}, "predicts 'sample', not noise"),
        ("unet", {"sample_size": [64, 48]}, r"unet/config.json has sample_size \[64, 48\]"),
        ("unet", {"sample_size": "64"}, "has sample_size 64; expected"),
        ("vae", {"scaling_factor": None}, "vae/config.json has another scaling_factor"),
    ],
)
def test_a_folders_configuration_that_cannot_be_is_refused(folder, part, change, said):
    path = folder / part / ("scheduler_config.json" if part == "scheduler" else "config.json")
    path.parent.mkdir(exist_ok=True)
    before = json.loads(path.read_text()) if path.exists() else {}
    path.unlink(missing_ok=True)
    path.write_text(json.dumps({**before, **change}))
    with pytest.raises(InputError, match=said):
        load_folder(folder)


@pytest.mark.parametrize(("given", "cells"), [(None, 64), ([16, 16], 16), (96, 96)])
def test_the_size_that_a_folder_was_trained_at(folder, given, cells):
    """diffusers leaves it out, or gives rows and columns, where whoever wrote the folder did."""
    path = folder / "unet" / "config.json"
    content = {**json.loads(path.read_text()), "sample_size": given}
    path.unlink()
    path.write_text(json.dumps(content))
    assert load_folder(folder).unet.config.sample_size == cells


def test_a_folder_without_weights_in_one_file_is_refused(folder):
    file = folder / "vae" / "diffusion_pytorch_model.safetensors"
    file.rename(file.with_name("diffusion_pytorch_model-00001-of-00002.safetensors"))
    with pytest.raises(
        InputError, match="vae cannot be read: it needs its weights as diffusion_pytorch_model.safetensors"
    ):
        load_folder(folder)


def test_a_folder_of_something_else_is_refused(tmp_path):
    with pytest.raises(InputError, match="it has no unet/config.json, vae/config.json, text_encoder/config.json"):
        load_folder(tmp_path)
