"""The shipped demo model: what its card promises, in small."""

import json

import numpy as np
import pytest
import torch
from safetensors import safe_open

from adiff.backbone import demo_encoder_path, demo_folder, load_backbone
from adiff.datasets.surfaces import DEFECTS, PRODUCTS, render, sample_seed
from adiff.pixels import as_images
from adiff.progress import NullProgress
from adiff.spatial_encoder import load_encoder
from tools.demo_model.bank import SIZE, Bank
from tools.demo_model.gates import _contrast
from tools.demo_model.vae import new_vae, sharpen_decoder


@pytest.fixture(scope="module")
def backbone():
    return load_backbone("demo", device="cpu")


def test_files_are_small_enough_to_ship():
    assert (demo_folder() / "demo.safetensors").stat().st_size <= 20e6
    assert (demo_folder() / "MODEL_CARD.md").is_file()


def test_it_is_of_the_sd1_family(backbone):
    assert (backbone.context_dim, backbone.latent_downscale, backbone.native_size) == (768, 8, 128)
    assert backbone.null_context.shape == (1, 12, 768)
    with safe_open(demo_folder() / "demo.safetensors", "pt") as file:
        assert json.loads(file.metadata()["adiff_base"])["licence"] == "Apache-2.0"
        assert "model.diffusion_model.input_blocks.0.0.weight" in file.keys()
        assert file.get_tensor("model.diffusion_model.out.2.weight").dtype == torch.float16


def test_the_encoder_belongs_to_it(backbone):
    encoder, info = load_encoder(demo_encoder_path())
    assert info["base_fingerprint"] == backbone.fingerprint
    assert sum(p.numel() for p in encoder.parameters()) <= 3e6


@torch.no_grad()
def test_vae_rebuilds_unseen_surfaces(backbone):
    images = np.stack([render(p, DEFECTS[i], 128, sample_seed(9, p, "test", i)).image for i, p in enumerate(PRODUCTS)])
    pixels = as_images(images)
    latents = backbone.encode(pixels)
    rebuilt = backbone.decode(latents).clamp(-1, 1)
    error = ((rebuilt - pixels) / 2).square().mean()
    assert -10 * torch.log10(error) > 24
    assert 0.7 < latents.std() < 1.4


@torch.no_grad()
@pytest.mark.parametrize("kind", DEFECTS)
def test_vae_keeps_the_contrast_of_every_kind(backbone, kind):
    """On average over the products, on unseen surfaces; the card's aim is 80 %."""
    kept = []
    for product in PRODUCTS:
        surface = render(product, kind, SIZE, sample_seed(0, product, kind, "unseen", 3))
        picture = as_images(surface.image[None])
        rebuilt = backbone.decode(backbone.encode(picture)).clamp(-1, 1)
        kept.append(_contrast(rebuilt[0], surface.mask) / _contrast(picture[0], surface.mask))
    assert np.mean(kept) > 0.8


def test_the_decoder_is_sharpened_and_nothing_else(tmp_path):
    kinds = ("scratch", "crack", None)
    drawn = [render("metal", kind, SIZE, sample_seed(0, "metal", kind, "bank", 0)) for kind in kinds]
    bank = Bank(np.stack([s.image for s in drawn]), np.stack([s.mask for s in drawn]), [[], [], []],
                [("metal", kind) for kind in kinds])  # fmt: skip
    vae = new_vae().eval()
    before = {name: tensor.clone() for name, tensor in vae.state_dict().items()}
    sharpen_decoder(bank, vae, tmp_path, seed=0, steps=1, progress=NullProgress())
    changed = {name.split(".")[0] for name, tensor in vae.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed == {"decoder", "post_quant_conv"}
