import json
import pickle

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import CLIPTextConfig, CLIPTextModel

from adiff.backbone import load_backbone
from adiff.backbone.layout import TEXT, UNET
from adiff.backbone.loading import EMPTY_PROMPT, METADATA, NULL_CONTEXT, load_folder, load_single_file, save_single_file
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


@pytest.fixture(scope="module")
def text_encoder():
    """SD 1.x's text encoder with one layer of its twelve."""
    torch.manual_seed(0)
    config = CLIPTextConfig(vocab_size=49408, hidden_size=768, intermediate_size=3072, num_hidden_layers=1,
                            num_attention_heads=12, hidden_act="quick_gelu", projection_dim=768)  # fmt: skip
    return CLIPTextModel(config).eval()


@torch.no_grad()
def empty_prompt(encoder):
    return encoder(input_ids=torch.tensor([[49406] + [49407] * 76])).last_hidden_state


def changed(file, tmp_path, change):
    """The model's file with its table of weights changed."""
    tensors = load_file(file)
    change(tensors)
    path = tmp_path / "other.safetensors"
    save_file(tensors, path, metadata={METADATA: json.dumps(EXTRA)})
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
        (lambda t: t.update({FIRST: torch.ones(32, 9, 3, 3)}), "takes 9 channels, not 4"),
        (lambda t: t.update({FIRST: torch.ones(32)}), r"first weight is \(32,\)"),
        (lambda t: t.pop(NULL_CONTEXT), "no text encoder"),
        (lambda t: t.update({NULL_CONTEXT: torch.ones(1, 4, 5)}), r"null_context is \(1, 4, 5\)"),
        (lambda t: [t.pop(k) for k in list(t) if k.startswith("first_stage")], "no KL autoencoder"),
        (lambda t: [t.pop(k) for k in list(t) if "attn2" in k], "no cross-attention"),
    ],
)
def test_a_file_that_is_not_the_model_is_refused(file, tmp_path, change, said):
    with pytest.raises(InputError, match=said):
        load_single_file(changed(file, tmp_path, change))


def test_a_transposed_weight_is_not_taken_for_the_right_one(file, tmp_path):
    key = f"{UNET}time_embed.0.weight"  # (128, 32)
    path = changed(file, tmp_path, lambda t: t.update({key: t[key].T.contiguous()}))
    with pytest.raises(InputError, match=r"time_embed.0.weight is \(32, 128\), expected \(128, 32\)"):
        load_single_file(path)


def test_sd2_is_refused_by_its_width(file, tmp_path):
    def widen(tensors):
        for key in [k for k in tensors if k.endswith(("attn2.to_k.weight", "attn2.to_v.weight"))]:
            tensors[key] = torch.ones(tensors[key].shape[0], 1024)

    with pytest.raises(InputError, match="context is 1024 wide, SD 1.x's is 768"):
        load_single_file(changed(file, tmp_path, widen))


def test_other_files_are_refused(file, tmp_path):
    lora = tmp_path / "lora.safetensors"
    save_file({"lora_unet_down_blocks_0_attn2_to_k.lora_up.weight": torch.ones(2, 2)}, lora)
    with pytest.raises(InputError, match="not a checkpoint of the SD 1.x family"):
        load_single_file(lora)
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(file.read_bytes()[:-1000])
    with pytest.raises(InputError, match="cut.safetensors is damaged"):
        load_single_file(cut)
    with pytest.raises(InputError, match="x.bin: a base model is"):
        load_single_file(tmp_path / "x.bin")
    with pytest.raises(FileNotFoundError, match="nowhere"):
        load_backbone(str(tmp_path / "nowhere"))


def test_a_ckpt_of_weights_is_read(parts, file, tmp_path, monkeypatch):
    path = tmp_path / "tiny.CKPT"
    torch.save({"state_dict": load_file(file), "global_step": 3}, path)
    # a .ckpt has no place for our metadata; the tiny model's is SD 1.5's for once
    for name, value in (("SD15_HEADS", 2), ("SD15_GROUPS", 8), ("SD15_SIZE", SIZE)):
        monkeypatch.setattr(f"adiff.backbone.layout.{name}", value)
    found = load_single_file(path)
    assert all(torch.equal(found.vae.state_dict()[n], t.half().float()) for n, t in parts.vae.state_dict().items())
    assert found.unet.config.attention_head_dim == 2


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
    assert EMPTY_PROMPT == [49406] + [49407] * 76
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


def test_a_diffusers_folder_is_read(parts, text_encoder, tmp_path):
    for name, part in (("unet", parts.unet), ("vae", parts.vae), ("text_encoder", text_encoder)):
        part.save_pretrained(tmp_path / name)
    found = load_folder(tmp_path)
    for name, tensor in parts.unet.state_dict().items():
        assert torch.equal(found.unet.state_dict()[name], tensor)
    torch.testing.assert_close(found.null_context, empty_prompt(text_encoder))
    (tmp_path / "vae" / "diffusion_pytorch_model.safetensors").unlink()
    with pytest.raises(InputError, match="vae cannot be read"):
        load_folder(tmp_path)


def test_a_folder_of_something_else_is_refused(tmp_path):
    with pytest.raises(InputError, match="it has no unet/config.json, vae/config.json, text_encoder/config.json"):
        load_folder(tmp_path)
