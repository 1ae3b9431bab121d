"""Files that are not what they are given as: named, whatever command they are given to."""

import json
import os
import struct

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from typer.testing import CliRunner

from adiff.cli import app
from adiff.library import Defect, Library, save_library
from adiff.spatial_encoder import SpatialEncoder, save_encoder
from adiff.tensor_files import tensors_of

WIDTH = 768
UNET = "model.diffusion_model."


def tensors(**shapes):
    """A writer of a file of zeros by name and shape; `__` stands for a dot."""

    def write(path, metadata=None):
        save_file({name.replace("__", "."): torch.zeros(shape) for name, shape in shapes.items()}, path, metadata)

    return write


def sd(width=768, channels=4, metadata=None, **more):
    """A writer of something with SD 1.x's names."""
    names = {f"{UNET}input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight": (2, width),
             f"{UNET}input_blocks.0.0.weight": (2, channels, 3, 3), **more}  # fmt: skip
    return lambda path: tensors(**names)(path, metadata)


def cut(path):
    """A file of which the end is missing."""
    save_file({"a": torch.zeros(1000)}, path)
    path.write_bytes(path.read_bytes()[:-100])


def claims_a_terabyte(path):
    path.write_bytes(struct.pack("<Q", 2**40) + b"{}")


def claims_a_large_tensor(path):
    header = json.dumps({"a": {"dtype": "F32", "shape": [2**38], "data_offsets": [0, 2**40]}}).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(64))


class Payload:
    def __reduce__(self):
        return os.mkdir, ("executed",)


def pickled(path):
    torch.save({"state_dict": {"a": torch.zeros(2)}, "more": Payload()}, path.with_suffix(".ckpt"))


def folder_of_sdxl(path):
    (path.with_suffix("") / "unet").mkdir(parents=True)
    (path.with_suffix("") / "unet" / "config.json").write_text('{"cross_attention_dim": 2048}')


def torch_saved(content, suffix=".pt"):
    """A writer of a file as torch pickles it."""
    return lambda path: torch.save(content, path.with_suffix(suffix))


BASES = {
    "SDXL": (sd(2048, conditioner__embedders__1__model__ln_final__bias=(2,)), "is SDXL"),
    "SD 2": (sd(1024), "is Stable Diffusion 2.x"),
    "v-prediction": (sd(metadata={"modelspec.prediction_type": "v"}), "predicts v"),
    "inpainting": (sd(channels=9), "an inpainting model"),
    "SD 3": (tensors(**{f"{UNET}joint_blocks.0.x.weight": (2, 2)}), "is Stable Diffusion 3"),
    "LoRA": (tensors(lora_unet_a__lora_down__weight=(2, 2)), "is a LoRA"),
    "embedding": (tensors(emb_params=(8, 768)), "is a textual inversion"),
    "VAE": (
        tensors(encoder__down__0__block__0__conv1__weight=(2, 2, 3, 3), quant_conv__bias=(8,)),
        "autoencoder (VAE)",
    ),
    "embedding as .pt": (torch_saved({"string_to_param": {"*": torch.zeros(2, 768)}}), "is a textual inversion"),
    "embedding as .bin": (torch_saved({"<rust>": torch.zeros(768)}, ".bin"), "is a textual inversion"),
    "VAE as .pt": (torch_saved({"state_dict": {"decoder.conv_in.weight": torch.zeros(2)}}), "autoencoder (VAE)"),
    "LoRA as .ckpt": (torch_saved({"a.lora_down.weight": torch.zeros(2, 2)}, ".ckpt"), "is a LoRA"),
    "quantised": (lambda path: path.with_suffix(".gguf").write_bytes(b"GGUF"), "base.gguf: weights are a .safetensors"),
    "CLIP": (tensors(text_model__final_layer_norm__bias=(2,), logit_scale=()), "text encoder (CLIP) alone"),
    "ControlNet": (tensors(input_hint_block__0__weight=(2, 3, 3, 3)), "is a ControlNet"),
    "library": (lambda path: save_library(path, Library({}, "f", "demo", 768)), "a defect library"),
    "encoder": (lambda path: save_encoder(path, SpatialEncoder("small", dim=8), {}), "a spatial encoder"),
    "truncated": (cut, "damaged"),
    "1 TB header": (claims_a_terabyte, "damaged"),
    "1 TB tensor": (claims_a_large_tensor, "damaged"),
    "text": (lambda path: path.write_text("<html>not found</html>"), "damaged"),
    "empty": (lambda path: path.write_bytes(b""), "damaged"),
    "our metadata damaged": (sd(metadata={"adiff_base": "[]"}), "adiff_base is no JSON object"),
    "pickle": (pickled, "more than weights"),
    "folder of SDXL": (folder_of_sdxl, "is SDXL"),
    "empty folder": (lambda path: path.with_suffix("").mkdir(), "it has no unet/config.json"),
    "nothing": (lambda path: None, "is not there"),
}


def made(write, path):
    """Let `write` make a file or folder at `path`, or one like it; returns what there is."""
    write(path)
    like = [path, *map(path.with_suffix, (".ckpt", ".pt", ".bin", ".gguf", ""))]
    return next((p for p in like if p.exists()), path)


@pytest.mark.parametrize("kind", BASES)
def test_what_is_no_base_model_is_named(refused, place, kind, train):
    write, said = BASES[kind]
    line = refused(*train("--base", made(write, place / "base.safetensors")))
    assert said in line and (said.startswith("adiff") or "base" in line)


@pytest.mark.parametrize("command", ["generate", "masks", "library import"])
def test_every_command_that_takes_a_base_model_names_what_it_is_not(refused, place, command, generate):
    sd(2048)(place / "base.safetensors")
    tensors(emb_params=(8, 768))(place / "rust.safetensors")
    given = {
        "generate": generate(),
        "masks": ("masks", place / "lib.safetensors", "metal/scratch", "--out", place / "new"),
        "library import": (
            "library",
            "import",
            place / "rust.safetensors",
            "metal/rust",
            "--to",
            place / "n.safetensors",
        ),
    }[command]
    assert "is SDXL" in refused(*given, "--base", place / "base.safetensors")


def metadata_of(path, **changes):
    """Write a file anew with some of its metadata changed."""
    with safe_open(path, "pt") as file:
        kept, old = tensors_of(file), file.metadata()
    save_file(kept, path, {**old, **changes})


LIBRARIES = {
    "truncated": (cut, "not a whole safetensors file"),
    "1 TB header": (claims_a_terabyte, "not a whole safetensors file"),
    "1 TB tensor": (claims_a_large_tensor, "not a whole safetensors file"),
    "empty": (lambda path: path.write_bytes(b""), "not a whole safetensors file"),
    "of another program": (tensors(weight=(2, 2)), "another program"),
    "encoder": (lambda path: save_encoder(path, SpatialEncoder("small", dim=8), {}), "kind 'spatial_encoder'"),
    "newer": (lambda path: metadata_of(path, adiff_format="99"), "format 99, this version reads up to"),
    "a format beyond reason": (lambda path: metadata_of(path, adiff_format="9" * 9999), "unknown format '9999"),
    "a kind beyond reason": (lambda path: metadata_of(path, kind="\x1b[2J" * 999), r"of kind '\x1b[2J"),
    "metadata of others": (lambda path: metadata_of(path, adiff_format="one"), "unknown format 'one'"),
    "damaged metadata": (lambda path: metadata_of(path, defects="[" * 99999), "damaged"),
    "nothing": (lambda path: path.unlink(), "no library at"),
}


@pytest.mark.parametrize("command", ["generate", "library rename", "train"])
@pytest.mark.parametrize("kind", LIBRARIES)
def test_what_is_no_library_is_named(refused, place, tiny, kind, command, train, generate):
    path = place / "lib.safetensors"
    write, said = LIBRARIES[kind]
    write(path)
    if command == "train":
        if kind == "nothing":
            pytest.skip("train begins one")
        assert said in refused(*train("--out", path))
    elif command == "generate":
        assert said in refused(*generate())
    else:
        assert said in refused("library", "rename", path, "metal/scratch", "metal/line")


ENCODERS = {
    **{
        kind: (LIBRARIES[kind][0], "not a whole safetensors file")
        for kind in ("truncated", "1 TB header", "1 TB tensor")
    },
    "of another program": (tensors(weight=(2, 2)), "not a spatial encoder"),
    "library": (lambda path: save_library(path, Library({}, "f", "demo", 768)), "not a spatial encoder"),
    "newer": (lambda path: metadata_of(path, adiff_format="99"), "format 99"),
    "damaged metadata": (lambda path: metadata_of(path, info="{"), "damaged"),
    "other metadata": (lambda path: metadata_of(path, info="5"), "damaged"),
    "metadata that claim a lot": (lambda path: metadata_of(path, tokens="9" * 12, dim="9" * 30), "damaged"),
    "nothing": (lambda path: path.unlink(), "no spatial encoder at"),
}


@pytest.mark.parametrize("kind", ENCODERS)
def test_what_is_no_encoder_is_named(refused, place, tiny, kind, generate):
    write, said = ENCODERS[kind]
    write(place / "enc.safetensors")
    assert said in refused(*generate("--encoder", place / "enc.safetensors"))


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="the super-user may read everything")
@pytest.mark.parametrize("kind", ["library", "base", "embedding"])
def test_a_file_without_the_right_to_read_is_not_called_missing(place, kind, train):
    sd()(place / "base.safetensors")
    tensors(emb_params=(8, 768))(place / "rust.safetensors")
    given, path = {
        "library": (("library", "list", place / "lib.safetensors"), place / "lib.safetensors"),
        "base": (train("--base", place / "base.safetensors"), place / "base.safetensors"),
        "embedding": (("library", "import", place / "rust.safetensors", "metal/rust", "--to",
                       place / "new.safetensors"), place / "rust.safetensors"),
    }[kind]  # fmt: skip
    path.chmod(0)
    result = CliRunner().invoke(app, [str(argument) for argument in given])
    assert result.exit_code == 2 and f"error: Permission denied: {path}; change its rights" in result.stderr


def test_another_width_is_an_error_and_another_base_or_encoder_a_warning(
    refused, place, tiny, backbone, done, generate
):
    path = place / "lib.safetensors"
    scratch = Defect("metal", "scratch", torch.zeros(8, 32))
    save_library(path, Library({scratch.key: scratch}, backbone.fingerprint, "small", 32))
    line = refused(*generate())
    assert "base 'small' with context width 32" in line and "base 'tiny' has width 768" in line
    other = Defect("metal", "scratch", torch.randn(8, WIDTH))
    save_library(path, Library({other.key: other}, "e" * 64, "other", WIDTH, encoder_fingerprint="d" * 64))
    said = done(*generate("--encoder", place / "enc.safetensors"))
    assert "warning: the library was learned on base 'other' (eeeeeeee), not on 'tiny'" in said
    assert "warning: the library was learned with spatial encoder dddddddd" in said


def test_an_encoder_of_another_width_is_an_error(refused, place, tiny, generate):
    save_encoder(place / "enc.safetensors", SpatialEncoder("small", dim=32), {})
    line = refused(*generate("--encoder", place / "enc.safetensors"))
    assert "32" in line and "768" in line


@pytest.mark.parametrize("command", ["train", "generate", "masks"])
def test_what_is_no_lora_is_named(refused, place, command, train, generate):
    given = {
        "train": train(),
        "generate": generate(),
        "masks": ("masks", place / "lib.safetensors", "metal/scratch", "--out", place / "new"),
    }[command]
    assert "no LoRA known here" in refused(*given, "--lora", f"{place / 'lib.safetensors'}:0.5")
    assert "there is no LoRA at" in refused(*given, "--lora", place / "none.safetensors")
    assert "no FILE[:WEIGHT]" in refused(*given, "--lora", "lcm.safetensors:nan")
