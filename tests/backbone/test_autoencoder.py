import torch

from adiff.backbone import demo_folder
from adiff.backbone.autoencoder import read_single_file
from adiff.backbone.loading import load_single_file


def test_it_gives_what_diffusers_gives():
    path = demo_folder() / "demo.safetensors"
    ours, theirs = read_single_file(path), load_single_file(path)
    images = torch.randn(2, 3, 64, 48, generator=torch.Generator().manual_seed(0)).clamp(-1, 1)
    latents = theirs.vae.encode(images).latent_dist.mean
    torch.testing.assert_close(ours.autoencoder.encode(images), latents, rtol=1e-4, atol=1e-5)
    decoded = theirs.vae.decode(latents).sample
    torch.testing.assert_close(ours.autoencoder.decode(latents), decoded, rtol=1e-4, atol=1e-5)


def test_it_reads_what_the_weights_do_not_tell():
    path = demo_folder() / "demo.safetensors"
    ours, theirs = read_single_file(path), load_single_file(path)
    assert ours.scaling_factor == theirs.vae.config.scaling_factor
    assert ours.about["heads"] == theirs.unet.config.attention_head_dim
    assert ours.null_context.equal(theirs.null_context)
    assert not any(name.startswith("first_stage_model.") for name in ours.tensors)
