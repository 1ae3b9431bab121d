"""Which number format is chosen, and that a narrow one gives what float32 gives, within its rounding."""

import pytest
import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode

from adiff.backbone import load_backbone
from adiff.backbone.precision import WideAttention, dtype_of
from adiff.embedding import random_embedding
from adiff.errors import InputError
from adiff.training import masked_loss

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


@pytest.mark.parametrize("name", ["float32", "bfloat16", "float16"])
def test_a_precision_by_name_is_that_of_any_device(name):
    assert dtype_of(name, CPU) == dtype_of(name, CUDA) == getattr(torch, name)


@pytest.mark.parametrize("capability, dtype", [((9, 0), torch.bfloat16), ((8, 0), torch.bfloat16),
                                               ((7, 5), torch.float16), ((6, 1), torch.float16)])  # fmt: skip
def test_auto_on_a_gpu_goes_by_its_capability(monkeypatch, capability, dtype):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert dtype_of("auto", CUDA) == dtype


@pytest.mark.parametrize("tiles, dtype", [(True, torch.bfloat16), (False, torch.float32)])
def test_auto_on_a_cpu_asks_for_amx(monkeypatch, tiles, dtype):
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: tiles, raising=False)
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: True)
    assert dtype_of("auto", CPU) == dtype
    assert dtype_of("auto", torch.device("mps")) == torch.float32


def test_a_torch_that_cannot_tell_computes_in_float32(monkeypatch):
    monkeypatch.delattr(torch.cpu, "_is_amx_tile_supported", raising=False)
    assert dtype_of("auto", CPU) == torch.float32


def test_an_unknown_precision_is_refused():
    with pytest.raises(InputError, match="'half' is unknown; choose one of .*'auto'"):
        load_backbone("demo", precision="half")


@pytest.fixture(scope="module")
def wide_and_narrow():
    return load_backbone("demo"), load_backbone("demo", precision="bfloat16")


def test_what_the_model_gives_is_float32_and_nearly_the_same(wide_and_narrow):
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(1, 3, 64, 64, generator=generator) * 2 - 1
    z, t = torch.randn(2, 4, 8, 8, generator=generator), torch.tensor([50, 900])
    found = []
    for backbone in wide_and_narrow:
        with torch.no_grad():
            predicted = backbone.predict_noise(z, t, backbone.null_context.expand(2, -1, -1))
            found.append((backbone.encode(image), backbone.decode(z), predicted))
    for wide, narrow in zip(*found, strict=True):
        assert wide.dtype == narrow.dtype == torch.float32
        assert not torch.equal(wide, narrow)
        assert (wide - narrow).norm() < 0.02 * wide.norm()


def test_the_gradient_of_the_embedding_is_nearly_the_same(wide_and_narrow):
    generator = torch.Generator().manual_seed(1)
    z, noise = (torch.randn(2, 4, 8, 8, generator=generator) for _ in range(2))
    gradients = []
    for backbone in wide_and_narrow:
        e = random_embedding(8, backbone.context_dim, torch.Generator().manual_seed(2)).requires_grad_(True)
        predicted = backbone.predict_noise(z, torch.tensor([300, 700]), e.expand(2, -1, -1))
        masked_loss(predicted - noise, torch.ones(2, 1, 8, 8)).sum().backward()
        gradients.append(e.grad.flatten())
    assert F.cosine_similarity(*gradients, dim=0) > 0.99


def test_widened_attention_is_float32_s_rounded_once():
    q, k, v = torch.randn(3, 1, 2, 5, 8, generator=torch.Generator().manual_seed(3)).bfloat16()
    with WideAttention():
        wide = F.scaled_dot_product_attention(q, k, v, scale=0.5)
    expected = F.scaled_dot_product_attention(q.float(), k.float(), v.float(), scale=0.5).bfloat16()
    torch.testing.assert_close(wide, expected, rtol=0, atol=0)


class Attentions(TorchFunctionMode):
    """Notes the number format of every attention that is computed."""

    def __init__(self):
        super().__init__()
        self.formats = set()

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function is F.scaled_dot_product_attention:
            self.formats.add(args[0].dtype)
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("gradients, dtype", [(True, torch.float32), (False, torch.bfloat16)])
def test_attention_is_widened_where_gradients_are_computed(wide_and_narrow, gradients, dtype):
    _, narrow = wide_and_narrow
    with Attentions() as attentions, torch.set_grad_enabled(gradients):
        narrow.predict_noise(torch.zeros(1, 4, 8, 8), torch.tensor([500]), narrow.null_context)
    assert attentions.formats == {dtype}
