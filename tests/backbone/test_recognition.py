import json
from pathlib import Path

import pytest

from adiff.backbone.recognition import check_file, check_folder
from adiff.errors import InputError

UNET = "model.diffusion_model."
TO_K = f"{UNET}input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight"
FIRST = f"{UNET}input_blocks.0.0.weight"
CLIP = "cond_stage_model.transformer.text_model.encoder.layers.0.mlp.fc1.weight"
SD15 = {TO_K: (320, 768), FIRST: (320, 4, 3, 3), CLIP: (3072, 768),
        "first_stage_model.encoder.down.0.block.0.conv1.weight": (128, 128, 3, 3)}  # fmt: skip


def check(shapes, metadata=None, path="/nowhere/m.safetensors"):
    check_file(shapes, metadata or {}, Path(path))


# names as the published files of each kind have them
FILES = {
    "SDXL( .its context is 2048 wide.*)?;": [
        {**SD15, TO_K: (640, 2048)},
        {TO_K: (640, 2048), "conditioner.embedders.0.transformer.text_model.final_layer_norm.bias": (768,),
         "conditioner.embedders.1.model.ln_final.bias": (1280,), f"{UNET}label_emb.0.0.weight": (1280, 2816)},
    ],
    "SDXL's refiner": [{TO_K: (768, 1280), "conditioner.embedders.0.model.ln_final.bias": (1280,)}],
    "Stable Diffusion 2.x .its context is 1024 wide, SD 1.x's 768": [
        {**SD15, TO_K: (320, 1024), "cond_stage_model.model.ln_final.bias": (1024,)},
    ],
    "latent diffusion with BERT": [{**SD15, TO_K: (320, 1280)}],
    "no known family .its context is 640 wide": [{**SD15, TO_K: (320, 640)}],
    "an inpainting model .its U-Net takes 9 channels, not 4.: it wants mask": [{**SD15, FIRST: (320, 9, 3, 3)}],
    "InstructPix2Pix": [{**SD15, FIRST: (320, 8, 3, 3)}],
    "no text-to-image model .its U-Net takes 5 channels": [{**SD15, FIRST: (320, 5, 3, 3)}],
    "Stable Diffusion 3": [{f"{UNET}joint_blocks.0.context_block.attn.qkv.weight": (4608, 1536)}],
    "Flux": [{"double_blocks.0.img_attn.qkv.weight": (9216, 3072)},
             {f"{UNET}double_blocks.0.img_attn.qkv.weight": (9216, 3072)}],
    "a LoRA, to be given with --lora": [
        {"lora_unet_down_blocks_0_attentions_0_proj_in.lora_down.weight": (64, 320),
         "lora_te_text_model_encoder_layers_0_mlp_fc1.lora_up.weight": (3072, 8)},
        {"unet.down_blocks.0.attentions.0.proj_in.lora_A.weight": (64, 320)},
        {"unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.processor.to_q_lora.down.weight": (4, 320)},
        {"unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q.lora.up.weight": (320, 4)},
    ],
    "a LoKr, LoHa": [{"lora_unet_mid_block_attentions_0_proj_in.lokr_w1": (8, 8)},
                     {"lora_unet_mid_block_attentions_0_proj_in.hada_w1_a": (8, 8)}],
    "a textual inversion .an embedding.": [{"emb_params": (8, 768)}, {"<rust>": (768,)}, {"*": (2, 768)}],
    "an embedding. for SDXL": [{"clip_g": (8, 1280), "clip_l": (8, 768)}],
    "an autoencoder .VAE. alone": [
        {"encoder.down.0.block.0.conv1.weight": (128, 128, 3, 3), "post_quant_conv.bias": (4,)},
        {"decoder.up_blocks.0.resnets.0.conv1.weight": (512, 512, 3, 3), "post_quant_conv.bias": (4,)},
        {"first_stage_model.decoder.conv_in.weight": (512, 4, 3, 3), "first_stage_model.quant_conv.bias": (8,)},
    ],
    "a text encoder .CLIP. alone": [
        {"text_model.encoder.layers.0.mlp.fc1.weight": (3072, 768), "text_model.final_layer_norm.bias": (768,)},
        {CLIP: (3072, 768), "cond_stage_model.transformer.text_model.final_layer_norm.bias": (768,)},
    ],
    "a text encoder .T5. alone": [{"encoder.block.0.layer.0.SelfAttention.k.weight": (8, 8), "shared.weight": (1, 1)}],
    "a ControlNet": [
        {"control_model.input_hint_block.0.weight": (16, 3, 3, 3), **SD15},
        {"input_hint_block.0.weight": (16, 3, 3, 3), "zero_convs.0.0.weight": (320, 320, 1, 1)},
        {"controlnet_cond_embedding.conv_in.weight": (16, 3, 3, 3), "down_blocks.0.resnets.0.conv1.bias": (320,)},
    ],
    "an IP-Adapter": [{"image_proj.proj.weight": (3072, 1024), "ip_adapter.1.to_k_ip.weight": (320, 768)}],
    "an AnimateDiff": [{"down_blocks.0.motion_modules.0.temporal_transformer.norm.bias": (320,)}],
    "Stable Video": [{f"{UNET}input_blocks.1.0.time_stack.in_layers.0.bias": (320,),
                      "conditioner.embedders.0.open_clip.model.logit_scale": ()}],
    "U-Net alone in diffusers' layout": [{"down_blocks.0.resnets.0.conv1.bias": (320,), "conv_in.bias": (320,)}],
    "no model known here .it holds 'a, b', ...": [{"b": (1,), "a": (1,)}],
    "no model known here .it holds no tensor": [{}],
}  # fmt: skip


@pytest.mark.parametrize(("said", "shapes"), [(said, one) for said, group in FILES.items() for one in group])
def test_every_other_kind_of_file_is_named(said, shapes):
    with pytest.raises(
        InputError, match=f"m.safetensors is (a )?.*({said}).*expected a Stable Diffusion 1.x checkpoint"
    ):
        check(shapes)


def test_a_checkpoint_of_sd_1_passes_with_what_trainings_and_merges_add():
    check(SD15)
    more = {"model_ema.decay": (), "cond_stage_model.logit_scale": (), "alphas_cumprod": (1000,), "v_prediction": (1,)}
    check({**SD15, **more}, {"modelspec.prediction_type": "epsilon", "format": "pt", "kind": "mine"})


@pytest.mark.parametrize(
    ("metadata", "said"),
    [
        ({"adiff_format": "1", "kind": "library"}, "a defect library of adiff's"),
        ({"adiff_format": "9", "kind": "spatial_encoder"}, "a spatial encoder of adiff's"),
        ({"adiff_format": "1", "kind": "dual\x1b" + "x" * 999}, r"of kind 'dual\\x1bx{35}'"),
        ({"adiff_training": "{}"}, "state of an interrupted training"),
    ],
)
def test_our_own_files_are_named(metadata, said):
    with pytest.raises(InputError, match=said):
        check({"anomaly/metal/hole": (8, 768)}, metadata)


@pytest.mark.parametrize(
    ("more", "metadata"),
    [
        ({"v_pred": ()}, {}),
        ({}, {"modelspec.prediction_type": "v"}),
        ({}, {"modelspec.prediction_type": "V_prediction"}),
    ],
)
def test_v_prediction_is_told_by_the_file(more, metadata):
    with pytest.raises(InputError, match="predicts v, while"):
        check({**SD15, **more}, metadata)


@pytest.mark.parametrize(
    ("line", "is_v"),
    [('    parameterization: "v"', True), ("parameterization: v", True), ('    parameterization: "eps"', False),
     ('    # parameterization: "v"', False), ('    parameterization: "v2"', False)],
)  # fmt: skip
def test_v_prediction_is_told_by_the_configuration_beside(tmp_path, line, is_v):
    (tmp_path / "m.yaml").write_text(f"model:\n  params:\n{line}\n    linear_start: 0.00085\n")
    if not is_v:
        return check(SD15, path=tmp_path / "m.safetensors")
    with pytest.raises(InputError, match="predicts v"):
        check(SD15, path=tmp_path / "m.safetensors")


def folder(tmp_path, **files):
    """A folder of JSON files; unet="..." is unet/config.json."""
    for name, content in files.items():
        place = {"index": "model_index.json", "scheduler": "scheduler/scheduler_config.json", "own": "config.json"}
        path = tmp_path / place.get(name, f"{name}/config.json")
        path.parent.mkdir(exist_ok=True)
        path.write_text(content if isinstance(content, str) else json.dumps(content))
    return tmp_path


GOOD = {"cross_attention_dim": 768, "in_channels": 4, "_class_name": "UNet2DConditionModel"}
WHOLE = {"unet": GOOD, "vae": {}, "text_encoder": {}, "scheduler": {"prediction_type": "epsilon"}}


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"unet": {**GOOD, "cross_attention_dim": 2048}}, "is SDXL"),
        ({"unet": {**GOOD, "cross_attention_dim": 1024}}, r"is Stable Diffusion 2.x \(its context is 1024 wide"),
        ({"unet": {**GOOD, "cross_attention_dim": [768, 768]}}, "is of no known family"),
        ({"unet": {**GOOD, "in_channels": 9}}, "is an inpainting model"),
        ({"unet": {**GOOD, "in_channels": "4"}}, "no text-to-image model"),
        ({"unet": {**GOOD, "_class_name": "UNetSpatioTemporalConditionModel"}}, "U-Net of kind UNetSpatio"),
        ({"unet": {**GOOD, "addition_embed_type": "text_time"}}, "more than a context .addition_embed_type text_time"),
        ({"unet": {**GOOD, "time_cond_proj_dim": 256}}, "an LCM that takes its guidance"),
        ({"scheduler": {"prediction_type": "v_prediction"}}, "predicts v, while"),
        ({"scheduler": {"prediction_type": "epsilon", "rescale_betas_zero_snr": True}}, "ends in noise alone"),
        ({"unet": {}, "index": {"_class_name": "StableDiffusion3Pipeline"}}, "folder of StableDiffusion3Pipeline"),
        ({"unet": {}, "own": {"_class_name": "AutoencoderKL"}}, r"one part of a model \(AutoencoderKL\)"),
        ({"unet": "{"}, "config.json is damaged .no JSON"),
        ({"unet": "[" * 100_000}, "config.json is damaged .no JSON"),
        ({"unet": "[]"}, "config.json is damaged .no JSON object"),
    ],
)
def test_every_other_folder_is_named(tmp_path, files, said):
    with pytest.raises(InputError, match=said):
        check_folder(folder(tmp_path, **{**WHOLE, **files}))


def test_a_folder_of_sd_1_passes_and_one_with_a_part_missing_does_not(tmp_path):
    check_folder(folder(tmp_path, **WHOLE, index={"_class_name": "StableDiffusionPipeline"}))
    (tmp_path / "vae" / "config.json").unlink()
    with pytest.raises(InputError, match="no diffusers folder of SD 1.x: it has no vae/config.json"):
        check_folder(tmp_path)
