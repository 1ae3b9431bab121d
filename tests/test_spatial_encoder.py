"""The spatial encoder: budgets, shapes, batch independence, sense of place, its file."""

import pytest
import torch
from safetensors.torch import save_file

from adiff.errors import InputError
from adiff.spatial_encoder import BasicBlock, FeaturePyramid, SpatialEncoder, fingerprint, load_encoder, save_encoder


@pytest.fixture(scope="module")
def small():
    return SpatialEncoder("small", tokens=4, dim=32).eval()


def square(row, column, size=64, side=8):
    mask = torch.zeros(1, 1, size, size)
    mask[..., row : row + side, column : column + side] = 1
    return mask


def count(module):
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.fixture(scope="module")
def base():
    return SpatialEncoder("base", tokens=4, dim=768).eval()


def test_base_stays_within_its_budget(base, tmp_path):
    assert 23e6 < count(base) <= 30e6
    save_encoder(tmp_path / "e.safetensors", base, {})
    assert (tmp_path / "e.safetensors").stat().st_size <= 60e6


def test_base_has_no_statistics_over_a_batch(base):
    norms = [module for module in base.modules() if isinstance(module, (torch.nn.GroupNorm, torch.nn.LayerNorm))]
    assert len(norms) == 53 + 1  # ResNet-50's 53 normalisations, and that of the tokens
    assert list(base.buffers()) == []


def test_base_runs_at_256(base):
    with torch.no_grad():
        features = base.stages(torch.zeros(1, 1, 256, 256))
        tokens = base(square(3, 5))
    assert [tuple(f.shape[1:]) for f in features] == [(256, 64, 64), (512, 32, 32), (1024, 16, 16), (2048, 8, 8)]
    assert tokens.shape == (1, 4, 768)


def test_small_stays_within_its_budget_at_the_widest_context():
    assert count(SpatialEncoder("small", tokens=4, dim=768)) <= 3e6


def test_small_stages_halve(small):
    features = small.stages(torch.zeros(2, 1, 64, 64))
    assert [tuple(f.shape) for f in features] == [(2, 32, 32, 32), (2, 64, 16, 16), (2, 128, 8, 8)]


def test_pyramid_adds_coarse_to_fine():
    pyramid = FeaturePyramid((1, 1), 1)
    for conv in pyramid.lateral:
        torch.nn.init.ones_(conv.weight), torch.nn.init.zeros_(conv.bias)
    torch.nn.init.dirac_(pyramid.smooth.weight), torch.nn.init.zeros_(pyramid.smooth.bias)
    fine, coarse = torch.tensor([[[[1.0, 2.0], [3.0, -9.0]]]]), torch.tensor([[[[5.0]]]])
    assert pyramid([fine, coarse]).tolist() == [[[[6, 7], [8, 0]]]]  # -9 + 5 is cut by the ReLU


def test_block_adds_its_input():
    block = BasicBlock(8, 8, stride=1)
    torch.nn.init.zeros_(block.body[-1].weight), torch.nn.init.zeros_(block.body[-1].bias)
    x = torch.rand(1, 8, 4, 4)
    assert torch.equal(block(x), x)


def test_tokens_have_unit_variance(small):
    with torch.no_grad():
        tokens = small(torch.cat([square(0, 0), square(40, 20)]))
    assert tokens.shape == (2, 4, 32)
    torch.testing.assert_close(tokens.var(-1, correction=0), torch.ones(2, 4), atol=2e-2, rtol=0)


def test_one_mask_or_many_give_the_same_tokens(small):
    masks = torch.cat([square(0, 0), square(40, 20), square(10, 50), torch.zeros(1, 1, 64, 64)])
    with torch.no_grad():
        together = small(masks)
        alone = torch.cat([small(mask[None]) for mask in masks])
    torch.testing.assert_close(alone, together, atol=2e-5, rtol=0)


def test_one_mask_or_many_give_the_same_tokens_in_training_mode(small):
    masks = torch.cat([square(0, 0), square(40, 20)])
    small.train()
    together, alone = small(masks), small(masks[:1])
    small.eval()
    torch.testing.assert_close(alone[0], together[0], atol=2e-5, rtol=0)


def test_tokens_know_the_place(small):
    """A global pooling would give the four corners nearly the same tokens."""
    with torch.no_grad():
        tokens = small(torch.cat([square(4, 4), square(4, 52), square(52, 4), square(52, 52)])).flatten(1)
    apart = torch.cdist(tokens, tokens) / tokens.norm(dim=1).mean()
    assert apart[~torch.eye(4, dtype=torch.bool)].min() > 0.3


def test_an_empty_mask_has_tokens(small):
    with torch.no_grad():
        assert small(torch.zeros(1, 1, 64, 64)).isfinite().all()


def test_masks_of_any_size_and_kind(small):
    with torch.no_grad():
        at_64 = small(square(8, 16))
        torch.testing.assert_close(small(square(32, 64, 256, 32)), at_64)  # area: blocks of 4 x 4 pixels
        torch.testing.assert_close(small(square(4, 8, 32, 4)), at_64)  # upscaled
        assert torch.equal(small(square(8, 16).bool()), at_64)
        assert small(torch.ones(1, 1, 30, 70)).shape == (1, 4, 32)


def test_a_thin_scratch_does_not_vanish(small):
    mask = torch.zeros(1, 1, 512, 512)
    mask[..., 100, 50:400] = 1  # one pixel high: an eighth of a cell of the 64 x 64 input
    with torch.no_grad():
        assert (small(mask) - small(torch.zeros_like(mask))).abs().max() > 0.1


def test_every_weight_learns(small):
    small(square(8, 8)).pow(3).sum().backward()
    still = [name for name, parameter in small.named_parameters() if parameter.grad is None or not parameter.grad.any()]
    small.zero_grad()
    assert still == []


def test_first_weights_follow_the_seed_and_nothing_else():
    before = torch.get_rng_state()
    first, again, other = (fingerprint(SpatialEncoder("small", 1, 8, seed=seed)) for seed in (0, 0, 1))
    assert first == again != other
    assert torch.equal(torch.get_rng_state(), before)


def test_file_round_trip(small, tmp_path):
    path = tmp_path / "new" / "encoder.safetensors"
    save_encoder(path, small, {"steps": 3, "note": "Kratzer, süß"})
    assert [file.name for file in path.parent.iterdir()] == ["encoder.safetensors"]  # no temporary left
    loaded, info = load_encoder(path)
    own = {"variant": "small", "tokens": 4, "dim": 32, "fingerprint": fingerprint(small)}
    assert info == {"steps": 3, "note": "Kratzer, süß", **own}
    assert fingerprint(loaded) == fingerprint(small) and not loaded.training
    assert all(p.requires_grad and p.dtype == torch.float32 for p in loaded.parameters())  # may be trained on
    with torch.no_grad():
        torch.testing.assert_close(loaded(square(8, 8)), small(square(8, 8)), atol=2e-2, rtol=0)


def test_a_write_cut_short_leaves_the_old_file(small, tmp_path, monkeypatch):
    path = tmp_path / "e.safetensors"
    path.write_bytes(b"old")

    def cut(source, target):
        raise OSError("no space left")

    monkeypatch.setattr("os.replace", cut)
    with pytest.raises(OSError, match="no space left"):
        save_encoder(path, small, {})
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


def test_fingerprint_sees_one_weight(small):
    before = fingerprint(small)
    with torch.no_grad():
        small.norm.bias[0] += 1
    changed = fingerprint(small)
    with torch.no_grad():
        small.norm.bias[0] -= 1
    assert changed != before == fingerprint(small)


def test_a_diverged_encoder_is_not_written(small, tmp_path):
    encoder = SpatialEncoder("small", 1, 8)
    with torch.no_grad():
        encoder.norm.bias[0] = 1e6
    with pytest.raises(ValueError, match="norm.bias.*diverged"):
        save_encoder(tmp_path / "e.safetensors", encoder, {})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("tensors", "metadata", "what"),
    [
        ({"anomaly/metal/scratch": torch.ones(8, 4)}, {}, "a defect library"),
        ({"model.diffusion_model.x": torch.ones(1)}, None, "a model checkpoint"),
        ({"w": torch.ones(1)}, {"kind": "dual"}, "a file of kind 'dual'"),
        ({"w": torch.ones(1)}, None, "a safetensors file of 1 tensors"),
        ({"w": torch.ones(1)}, {"kind": "spatial_encoder", "adiff_format": "99"}, "has format 99"),
    ],
)
def test_other_files_are_named(tmp_path, tensors, metadata, what):
    save_file(tensors, tmp_path / "other.safetensors", metadata)
    with pytest.raises(InputError, match=what):
        load_encoder(tmp_path / "other.safetensors")


def test_broken_files_are_named(small, tmp_path):
    path = tmp_path / "e.safetensors"
    save_encoder(path, small, {})
    whole = path.read_bytes()
    path.write_bytes(whole[:-100])
    with pytest.raises(InputError, match="not a whole safetensors file"):
        load_encoder(path)
    with pytest.raises(FileNotFoundError, match="no spatial encoder"):
        load_encoder(tmp_path / "none.safetensors")
    good = {"kind": "spatial_encoder", "adiff_format": "1", "variant": "small", "tokens": "1", "dim": "8", "info": "{}"}
    for damage in ({}, {"variant": "huge"}, {"info": "{"}, {"dim": "x"}):
        save_file({"w": torch.ones(1)}, path, {**good, **damage})
        with pytest.raises(InputError, match="damaged spatial encoder"):
            load_encoder(path)


def test_info_is_json(small, tmp_path):
    with pytest.raises(TypeError):
        save_encoder(tmp_path / "e.safetensors", small, {"tensor": torch.ones(1)})
    assert list(tmp_path.iterdir()) == []


def test_wrong_arguments_are_named(small):
    with pytest.raises(InputError, match="'large' is unknown; choose one of base, small"):
        SpatialEncoder("large")
    with pytest.raises(InputError, match="0 tokens of width 8"):
        SpatialEncoder("small", 0, 8)
    with pytest.raises(InputError, match=r"\(1, 3, 8, 8\)"):
        small(torch.ones(1, 3, 8, 8))
