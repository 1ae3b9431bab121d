import logging

import pytest
import torch

from adiff.errors import InputError
from adiff.training.batch import HALF_SCALE, Batch, Gradient, first_scale

X = torch.randn(7, 3, generator=torch.Generator().manual_seed(0))


class Task:
    """Sample losses (x . w)^2, on a device that holds `room` samples."""

    def __init__(self, room=99):
        self.w, self.room, self.sizes = torch.ones(3, requires_grad=True), room, []

    def losses(self, part):
        x = X[part]
        self.sizes.append(len(x))
        if len(x) > self.room:
            raise torch.cuda.OutOfMemoryError("not this much")
        return (x @ self.w).square()

    def gradient(self, **options):
        return Gradient([self.w], **options)


@pytest.mark.parametrize(("room", "sizes"), [(4, [7, 4, 3]), (3, [7, 4, 2, 2, 2, 1]), (1, [7, 4, 2, *[1] * 7])])
def test_out_of_memory_takes_smaller_parts_of_the_same_batch(caplog, room, sizes):
    whole, parted = Task(), Task(room)
    expected = whole.gradient().of(Batch(7, whole.losses))
    gradient = parted.gradient()
    with caplog.at_level(logging.WARNING, "adiff"):
        losses = gradient.of(Batch(7, parted.losses))
    torch.testing.assert_close(losses, expected)
    torch.testing.assert_close(parted.w.grad, whole.w.grad)
    torch.testing.assert_close(parted.w.grad, (2 * (X @ torch.ones(3))[:, None] * X).mean(0))  # by hand
    assert parted.sizes == sizes and f"batch of 7 is now taken in parts of {gradient.most}" in caplog.text
    parted.sizes.clear()
    gradient.of(Batch(7, parted.losses))  # the next step knows
    assert max(parted.sizes) == gradient.most
    torch.testing.assert_close(parted.w.grad, whole.w.grad)


def test_memory_may_end_in_the_backward_pass_too():
    task, calls = Task(), []

    class Backward(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, slope):
            calls.append(len(slope))
            if len(slope) > 4:
                raise torch.cuda.OutOfMemoryError("not this much")
            return slope

    task.gradient().of(Batch(7, lambda part: Backward.apply(task.losses(part))))
    assert calls == [7, 4, 3]
    torch.testing.assert_close(task.w.grad, (2 * (X @ torch.ones(3))[:, None] * X).mean(0))


def test_a_batch_that_can_spare_memory_does_so_before_it_is_halved():
    task = Task(room=2)

    def spare():
        more, task.room = task.room == 2, 4
        return more

    task.gradient().of(Batch(7, task.losses, spare=spare))
    assert task.sizes == [7, 7, 4, 3]
    torch.testing.assert_close(task.w.grad, (2 * (X @ torch.ones(3))[:, None] * X).mean(0))


def test_a_single_sample_that_does_not_fit_is_said():
    task = Task(0)
    with pytest.raises(InputError, match="out of memory with a single sample"):
        task.gradient().of(Batch(7, task.losses))


def test_a_float16_loss_is_scaled_as_far_as_its_gradient_bears():
    """The gradient of 2e-8 w in float16 is 0 unscaled; that of 100 / 2 w overflows at 4096, not at 1024."""
    for slope, scale in ((2e-8, HALF_SCALE), (100.0, 1024.0)):
        w = torch.ones(2, requires_grad=True)
        gradient = Gradient([w], first_scale(torch.float16))

        def losses(part, w=w, slope=slope):
            return (w.half()[part] * 1.0).float() * slope

        gradient.of(Batch(2, losses))
        assert gradient.scale == scale
        assert w.grad.tolist() == pytest.approx([slope / 2] * 2, rel=0.02)


def test_a_gradient_that_no_scale_makes_finite_is_left_to_the_loop():
    w = torch.zeros(1, requires_grad=True)
    gradient = Gradient([w], HALF_SCALE)
    gradient.of(Batch(1, lambda part: w.square().sum().sqrt()[None]))
    assert gradient.scale == 1 and not w.grad.isfinite().all()


def test_only_float16_is_scaled():
    assert first_scale(torch.float16) > 1 == first_scale(torch.bfloat16) == first_scale(torch.float32)


def test_whether_gradients_are_finite_is_asked_once(monkeypatch):
    """Each such question waits for the device, and a dual model has hundreds of parameters."""
    parameters = [torch.ones(2, requires_grad=True) for _ in range(9)]
    asked, plain = [], torch.Tensor.__bool__
    monkeypatch.setattr(torch.Tensor, "__bool__", lambda tensor: asked.append(tensor) or plain(tensor))
    gradient = Gradient([*parameters, torch.ones(1, requires_grad=True)], first_scale(torch.float16))
    gradient.of(Batch(1, lambda part: torch.stack(parameters).sum()[None]))
    assert len(asked) == 2  # whether the losses are, and the gradients
