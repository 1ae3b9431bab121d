import hashlib
import logging

import pytest
import torch

from adiff.backbone.diffusers_host import DiffusersBackbone
from adiff.errors import InputError
from adiff.reweighting import fused_attention

CONTEXT = 768


def make_input(batch=2, grid=(8, 8), tokens=5):
    rng = torch.Generator().manual_seed(0)
    z = torch.randn(batch, 4, *grid, generator=rng)
    return z, torch.tensor([10, 900][:batch]), torch.randn(batch, tokens, CONTEXT, generator=rng)


def recording(calls):
    def edit(q, k, v, *, heads, grid):
        calls.append((q.shape, k.shape, heads, grid))
        return fused_attention(q, k, v, heads)

    return edit


@torch.no_grad()
def plain(parts, z, t, context):
    return parts.unet(z, t, encoder_hidden_states=context).sample


def test_without_an_edit_the_unet_is_untouched_to_the_bit(backbone, tiny_parts):
    given = make_input()
    assert torch.equal(backbone.predict_noise(*given), plain(tiny_parts(), *given))


def test_a_pass_through_edit_changes_nothing_but_rounding(backbone):
    given = make_input()
    torch.testing.assert_close(backbone.predict_noise(*given, recording([])), backbone.predict_noise(*given))


@pytest.mark.parametrize("grid", [(8, 8), (6, 10)])
def test_an_edit_sees_every_cross_attention_with_its_grid_and_rows(backbone, grid):
    calls = []
    backbone.predict_noise(*make_input(grid=grid), recording(calls))
    half = (grid[0] // 2, grid[1] // 2)
    # one layer a level: 1 on the way down, 2 up, and the one in the middle
    assert sorted(grid for *_, grid in calls) == sorted([grid] * 3 + [half] * 4)
    for q, k, heads, at in calls:
        assert heads == 2
        assert q == (2, at[0] * at[1], 32 if at == grid else 64) and k == (2, 5, q[2])  # 5 tokens: attn2, never attn1


def test_an_edit_reaches_the_output(backbone):
    given = make_input()
    out = backbone.predict_noise(*given, lambda q, k, v, *, heads, grid: 0 * q)
    assert not torch.allclose(out, backbone.predict_noise(*given), atol=1e-3)
    same_for_all = backbone.predict_noise(*given[:2], given[2] + 1, lambda q, k, v, *, heads, grid: 0 * q)
    assert torch.equal(out, same_for_all)  # the context enters nowhere else


def test_an_edit_that_fails_is_forgotten(backbone):
    given = make_input()
    before = backbone.predict_noise(*given)

    def fail(*_, **__):
        raise RuntimeError("edit")

    with pytest.raises(RuntimeError, match="edit"):
        backbone.predict_noise(*given, fail)
    assert torch.equal(backbone.predict_noise(*given), before)


def test_gradients_flow_to_the_context_alone(backbone):
    z, t, context = make_input()
    backbone.predict_noise(z, t, context.requires_grad_(True)).sum().backward()
    assert context.grad.abs().sum() > 0
    assert all(p.grad is None for p in backbone._unet.parameters())


@pytest.fixture
def host(tiny_parts):
    def make(change=None, dtype=torch.float32):
        parts = tiny_parts()
        if change:
            with torch.no_grad():
                dict(parts.unet.named_parameters())[change].mul_(2)
        return DiffusersBackbone("tiny", parts, torch.device("cpu"), dtype)

    return make


BLOCK = "mid_block.attentions.0.transformer_blocks.0."


def test_the_fingerprint_depends_on_cross_attention_keys_and_values_alone(backbone, host):
    assert host(BLOCK + "attn2.to_k.weight").fingerprint != backbone.fingerprint
    assert host(BLOCK + "attn2.to_v.weight").fingerprint != backbone.fingerprint
    for other in (BLOCK + "attn2.to_q.weight", BLOCK + "attn1.to_k.weight", "conv_in.weight"):
        assert host(other).fingerprint == backbone.fingerprint
    assert len(backbone.fingerprint) == len(hashlib.sha256().hexdigest())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_the_fingerprint_does_not_depend_on_the_dtype(backbone, host, dtype):
    assert host(dtype=dtype).fingerprint == backbone.fingerprint


def test_a_model_is_made_without_a_word_of_diffusers(host, monkeypatch):
    """It would stand on stderr, beside the one line of an error."""
    said, ear = [], logging.Handler()
    ear.emit = said.append
    monkeypatch.setattr(logging.getLogger("diffusers"), "handlers", [ear])
    host(dtype=torch.bfloat16)
    assert not said


def test_latents_have_the_models_scale_and_size(backbone, tiny_parts):
    images = torch.rand(2, 3, 64, 48, generator=torch.Generator().manual_seed(0)) * 2 - 1
    latents = backbone.encode(images)
    vae = tiny_parts().vae
    with torch.no_grad():
        torch.testing.assert_close(latents, vae.encode(images).latent_dist.mean * 0.18215)
        torch.testing.assert_close(backbone.decode(latents), vae.decode(latents / 0.18215).sample, atol=1e-4, rtol=1e-4)
    assert latents.shape == (2, 4, 8, 6)


def test_members_of_the_protocol(backbone):
    assert (backbone.native_size, backbone.latent_downscale, backbone.context_dim) == (64, 8, CONTEXT)
    assert backbone.null_context.shape == (1, 12, CONTEXT)
    assert backbone.alphas_cumprod.shape == (1000,)
    # the first and last of SD 1.x: 1 - 0.00085, and its well-known 0.0047
    assert abs(backbone.alphas_cumprod[0] - 0.99915) < 1e-6 and abs(backbone.alphas_cumprod[-1] - 0.00466) < 1e-5


@pytest.mark.parametrize(("dtype", "remedy"), [(torch.float32, "the LoRAs in it"), (torch.bfloat16, "--precision")])
def test_numbers_that_are_not_finite_make_no_picture(tiny_parts, dtype, remedy):
    backbone = DiffusersBackbone("tiny", tiny_parts(), torch.device("cpu"), dtype)
    told = rf"tiny gave numbers that are not finite, computing in {str(dtype)[6:]}; .*{remedy}"
    with pytest.raises(InputError, match=told):
        backbone.decode(torch.full((1, 4, 8, 8), torch.nan))
    with pytest.raises(InputError, match=told):
        backbone.encode(torch.full((1, 3, 64, 64), torch.inf))


@pytest.mark.parametrize("part", ["unet", "vae"])
def test_a_training_knows_its_model_by_more_than_the_keys_and_values(tiny_parts, part):
    """A LoRA of self-attention, or another VAE, leaves the library's base as it is, and is another model."""
    plain, parts = DiffusersBackbone("a", tiny_parts(), torch.device("cpu"), torch.float32), tiny_parts()
    network = getattr(parts, part)
    name = "mid_block.attentions.0.transformer_blocks.0.attn1.to_q.weight" if part == "unet" else "quant_conv.weight"
    network.get_parameter(name).data.add_(0.01)
    other = DiffusersBackbone("b", parts, torch.device("cpu"), torch.float32)
    again = DiffusersBackbone("c", tiny_parts(), torch.device("cpu"), torch.bfloat16)
    assert plain.fingerprint == other.fingerprint and plain.weights == again.weights != other.weights
