"""Gradient checkpointing: the same gradients, less kept for the way back, and nothing left behind."""

import pytest
import torch
from torch import nn

from adiff.backbone.checkpointing import checkpointed
from adiff.backbone.diffusers_host import DiffusersBackbone
from adiff.dual.background import see_background
from adiff.dual.layers import DualEdit, new_weights


def predicted(backbone, checkpoint):
    """eps of two pairs with BCM, its gradients by name, and the bytes that were kept for the way back."""
    rng = torch.Generator().manual_seed(1)
    weights = new_weights(backbone.attentions, torch.Generator().manual_seed(0), rank=2, saim="low", bcm="paper")
    weights = {n: (w + 0.1 * torch.randn(w.shape, generator=rng)).requires_grad_() for n, w in weights.items()}
    z, context = (torch.randn(4, *shape, generator=rng) for shape in ((4, 8, 8), (6, 768)))
    t, kept = torch.tensor([7, 300] * 2), {}
    edit = DualEdit(weights, [[0, 1], [2, 3]], see_background(backbone, z[:2], z[2:], t[:2]))
    own = {one.untyped_storage().data_ptr() for one in [*weights.values(), *backbone._unet.parameters()]}

    def note(tensor):
        if tensor.untyped_storage().data_ptr() not in own:
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        eps = backbone.predict_noise_edited(z, t, context.requires_grad_(), edit, checkpoint=checkpoint)
    held = sum(kept.values())
    eps.square().mean().backward()
    return eps.detach(), {"context": context.grad} | {name: weight.grad for name, weight in weights.items()}, held


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_gradients_are_the_same_and_less_is_kept(tiny_parts, dtype):
    backbone = DiffusersBackbone("tiny", tiny_parts(), torch.device("cpu"), dtype)
    before = [module.forward for module in backbone._unet.modules()]
    eps, gradients, kept = predicted(backbone, checkpoint=False)
    same, others, less = predicted(backbone, checkpoint=True)
    assert torch.equal(eps, same) and any(gradient.any() for gradient in gradients.values())
    assert all(torch.equal(others[name], gradient) for name, gradient in gradients.items())
    assert less < kept / 4
    assert [module.forward for module in backbone._unet.modules()] == before  # also once an edit has gone


class _Doubling(nn.Module):
    def forward(self, x, options):
        return x * options["factor"] * self.factor

    factor = 2


def test_a_block_runs_again_as_it_ran_with_what_is_in_force_then():
    """The host writes on into its options: the block has to see those of its own turn."""
    block, x, entered = _Doubling(), torch.ones(3, requires_grad=True), []

    class Again:
        def __enter__(self):
            entered.append("again")

        def __exit__(self, *_):
            entered.append("over")

    options = {"factor": torch.tensor(3.0, requires_grad=True)}
    with checkpointed([block], Again):
        out = block(x, options)
        options["factor"] = torch.tensor(5.0)
    assert not entered and "forward" not in vars(block)
    out.sum().backward()
    assert entered == ["again", "over"] and torch.equal(x.grad, torch.full((3,), 6.0))


def test_a_patch_of_one_block_stays():
    block = _Doubling()
    block.forward = patch = lambda x, options: x + 1
    with checkpointed([block], Again := torch.enable_grad):
        assert block(torch.zeros(1), {}).item() == 1 and Again is torch.enable_grad
    assert block.forward is patch
