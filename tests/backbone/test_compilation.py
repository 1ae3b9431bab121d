"""A compiled training step is one graph and gives what the model gives; nothing else is compiled."""

import pytest
import torch
from torch import nn

from adiff.backbone import compilation
from adiff.backbone.compilation import compile_network
from adiff.backbone.diffusers_host import DiffusersBackbone
from adiff.errors import InputError
from adiff.reweighting import fused_attention

CPU = torch.device("cpu")


@pytest.fixture
def graphs(monkeypatch):
    """The graphs that are handed to a compiler which leaves them as they are."""
    handed = []

    def keep(graph, inputs):
        handed.append(graph)
        return graph.forward

    monkeypatch.setattr(compilation, "BACKEND", keep)
    torch.compiler.reset()
    yield handed
    torch.compiler.reset()


def test_a_training_step_is_one_graph_and_the_same(tiny_parts, graphs):
    """In bfloat16, where attention is done in float32 on the way."""
    plain, compiled = (
        DiffusersBackbone("tiny", tiny_parts(channels=(32,)), CPU, torch.bfloat16, given) for given in (False, True)
    )
    graphs.clear()  # of the attempt
    for step in range(2):
        generator = torch.Generator().manual_seed(step)
        z, t = torch.randn(2, 4, 8, 8, generator=generator), torch.randint(0, 1000, (2,), generator=generator)
        context = torch.randn(2, 12, 768, generator=generator)
        found = []
        for backbone in (plain, compiled):
            given = context.clone().requires_grad_()
            predicted = backbone.predict_noise(z, t, given)
            predicted.square().sum().backward()
            found.append((predicted.detach(), given.grad))
        assert torch.equal(found[0][0], found[1][0]) and torch.equal(found[0][1], found[1][1])
    assert len(graphs) == 1

    with torch.no_grad():
        assert torch.equal(plain.predict_noise(z, t, context), compiled.predict_noise(z, t, context))
    compiled.predict_noise(z, t, context, lambda q, k, v, *, heads, grid: fused_attention(q, k, v, heads))
    assert len(graphs) == 1


@pytest.mark.parametrize("device, needs", [("cpu", "a C[+][+] compiler"), ("cuda", "Triton")])
def test_where_nothing_compiles_it_says_what_is_missing(monkeypatch, device, needs):
    def fail(*_):
        raise RuntimeError("no compiler found.\nSet TORCHDYNAMO_VERBOSE=1")

    monkeypatch.setattr(torch, "compile", lambda *_, **__: fail)
    monkeypatch.setattr(torch, "zeros", lambda *_, **__: None)
    with pytest.raises(InputError, match=rf"for {device} \(no compiler found\): torch needs {needs} for it; install"):
        compile_network(nn.Identity(), torch.device(device))
