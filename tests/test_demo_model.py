"""The shipped demo model: what its card promises, in small."""

import json

import numpy as np
import pytest
import torch
from safetensors import safe_open

from adiff.backbone import demo_encoder_path, demo_folder, load_backbone
from adiff.datasets.surfaces import DEFECTS, PRODUCTS, render, sample_seed
from adiff.spatial_encoder import load_encoder


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
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 127.5 - 1
    latents = backbone.encode(pixels)
    rebuilt = backbone.decode(latents).clamp(-1, 1)
    error = ((rebuilt - pixels) / 2).square().mean()
    assert -10 * torch.log10(error) > 24
    assert 0.7 < latents.std() < 1.4
