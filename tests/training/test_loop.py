import math

import pytest
import torch

from adiff.errors import InputError
from adiff.training.loop import Schedule, discard_state, fit, step_generator

PLAN = Schedule(steps=12, lr=0.1, average=0.9)


class Problem:
    """|| w - target ||^2 with noise from the step's generator, over w and a slow w2."""

    def __init__(self):
        self.w, self.w2, self.notes, self.asked = torch.zeros(3), torch.ones(2), {}, []
        self.bad = None

    def loss_at(self, step, generator):
        self.asked.append(step)
        target = torch.tensor([1.0, -2.0, 3.0]) + 0.1 * torch.randn(3, generator=generator)
        loss = (self.w - target).square().sum() + self.w2.square().sum()
        loss = loss * self.bad(step) if self.bad else loss
        self.notes["sum"] = self.notes.get("sum", 0.0) + float(loss.detach())
        return loss

    def fit(self, schedule=PLAN, **options):
        options = {"seed": 1, "what": "test", "rates": {"w2": 0.5}, "notes": self.notes, **options}
        return fit({"w": self.w, "w2": self.w2}, self.loss_at, schedule, **options)

    def result(self):
        return self.w, self.w2


def test_rates_by_hand():
    """100 steps, 5 of warm-up: 1/5, ..., 5/5; then from 1 by half a cosine to 0.01."""
    rate = Schedule(steps=105, lr=2.0, warm_up=5 / 105).rate
    assert [rate(i) for i in range(5)] == pytest.approx([0.4, 0.8, 1.2, 1.6, 2.0])
    assert rate(5) == pytest.approx(2.0) and rate(55) == pytest.approx(2 * 0.505)
    assert rate(105) == pytest.approx(0.02) and rate(30) == pytest.approx(2 * (0.01 + 0.495 * (1 + math.sqrt(0.5))))


def test_a_schedule_of_one_step_takes_it_at_the_peak():
    assert Schedule(steps=1, lr=0.3).rate(0) == 0.3


@pytest.mark.parametrize(("steps", "lr"), [(0, 1.0), (5, 0.0), (5, -1.0), (5, math.nan), (5, math.inf)])
def test_impossible_schedules_are_refused(steps, lr):
    with pytest.raises(InputError, match="at least 1 step and a positive"):
        Schedule(steps, lr)


def test_a_steps_generator_is_a_function_of_seed_and_step():
    def draw(seed, step):
        return torch.randn(4, generator=step_generator(seed, step)).tolist()

    assert draw(1, 2) == draw(1, 2)
    assert len({tuple(draw(seed, step)) for seed in range(5) for step in range(5)}) == 25


def test_the_loss_falls_and_the_listener_hears_of_it(stopper):
    problem, told = Problem(), stopper()
    outcome = problem.fit(Schedule(steps=200, lr=0.1), progress=told)
    assert outcome.steps == 200 and not outcome.stopped
    assert torch.allclose(problem.w, torch.tensor([1.0, -2.0, 3.0]), atol=0.1)
    assert [done for done, _ in told.told] == list(range(1, 201)) and told.ended
    assert told.told[-1][1]["loss"] == outcome.loss < told.told[0][1]["loss"] / 10


def test_parameters_end_without_gradients():
    problem = Problem()
    problem.fit()
    assert not problem.w.requires_grad and problem.w.grad is None


def test_the_average_is_what_a_run_ends_with():
    """With decay min(0.5, (1 + i) / (10 + i)), by hand from the plain run's parameters."""
    plain, seen = Problem(), []
    whole = plain.loss_at
    plain.loss_at = lambda step, g: (seen.append(plain.w.detach().clone()), whole(step, g))[1]
    plain.fit(Schedule(steps=3, lr=0.1))
    average = torch.zeros(3)
    for i, w in enumerate([*seen[1:], plain.w]):
        average = average + (1 - min(0.5, (1 + i) / (10 + i))) * (w - average)
    averaged = Problem()
    averaged.fit(Schedule(steps=3, lr=0.1, average=0.5))
    torch.testing.assert_close(averaged.w, average)


def test_a_slower_parameter_moves_less():
    """The first step of Adam is its rate, whatever the gradient: 0.1 against 0.05."""
    problem = Problem()
    problem.fit(Schedule(steps=1, lr=0.1))
    assert problem.w.abs().tolist() == pytest.approx([0.1] * 3, rel=1e-4)
    assert (1 - problem.w2).tolist() == pytest.approx([0.05] * 2, rel=1e-4)


@pytest.mark.parametrize("after", [1, 5, 11])
def test_a_resumed_run_is_the_unbroken_one_to_the_bit(tmp_path, stopper, after):
    unbroken = Problem()
    expected = unbroken.fit()
    state = tmp_path / "new" / "run.state"
    first = Problem()
    broken = first.fit(state=state, progress=stopper(after))
    assert (broken.steps, broken.stopped) == (after, "cancelled")
    second = Problem()
    outcome = second.fit(state=state)
    assert second.asked == list(range(after, 12))
    assert all(torch.equal(a, b) for a, b in zip(second.result(), unbroken.result(), strict=True))
    assert outcome == expected and second.notes == unbroken.notes
    discard_state(state)
    assert not list(state.parent.iterdir())
    discard_state(None)


def test_a_run_killed_after_its_state_was_written_goes_on(tmp_path):
    unbroken, killed, second = Problem(), Problem(), Problem()
    unbroken.fit()
    whole = killed.loss_at

    def die(step, generator):
        if step == 7:
            raise MemoryError
        return whole(step, generator)

    killed.loss_at = die
    with pytest.raises(MemoryError):
        killed.fit(state=tmp_path / "s", save_every=0)
    assert not killed.w.requires_grad
    second.fit(state=tmp_path / "s")
    assert second.asked == list(range(7, 12)) and torch.equal(second.w, unbroken.w)


def test_ctrl_c_within_the_optimisers_step_leaves_no_half_step(tmp_path, monkeypatch):
    unbroken, broken, second = Problem(), Problem(), Problem()
    unbroken.fit()
    calls, whole = [], torch.optim.AdamW.step

    def step(self, closure=None):
        calls.append(0)
        whole(self)
        if len(calls) == 4:
            raise KeyboardInterrupt

    monkeypatch.setattr(torch.optim.AdamW, "step", step)
    outcome = broken.fit(state=tmp_path / "s")
    assert outcome.stopped == "cancelled" and outcome.steps <= 3
    monkeypatch.undo()
    second.fit(state=tmp_path / "s")
    assert torch.equal(second.w, unbroken.w) and second.notes == unbroken.notes


@pytest.mark.parametrize(
    "other",
    [{"seed": 2}, {"what": "other"}, {"schedule": Schedule(steps=12, lr=0.2, average=0.9)}, {"about": {"batch": 3}}],
)
def test_a_state_of_other_settings_is_refused(tmp_path, stopper, other):
    Problem().fit(state=tmp_path / "s", progress=stopper(2))
    with pytest.raises(InputError, match="other settings or shots"):
        Problem().fit(state=tmp_path / "s", **other)


def test_a_damaged_state_is_refused(tmp_path):
    (tmp_path / "s").write_bytes(b"no state")
    with pytest.raises(InputError, match="no readable training state"):
        Problem().fit(state=tmp_path / "s")


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_goes_back_to_the_last_good_state(monkeypatch, bad):
    monkeypatch.setattr("adiff.training.loop.RECENT", 4)
    diverging = Problem()
    diverging.bad = lambda step: bad if step >= 6 else 1.0
    seen = []
    whole = diverging.loss_at
    diverging.loss_at = lambda step, g: (seen.append(diverging.w.detach().clone()), whole(step, g))[1]
    outcome = diverging.fit(Schedule(steps=12, lr=0.1))
    assert (outcome.steps, outcome.stopped) == (4, "not finite")  # states are kept at steps 0, 4, 8
    assert torch.equal(diverging.w, seen[4]) and math.isfinite(outcome.loss) and math.isfinite(diverging.notes["sum"])


def test_a_loss_that_is_never_finite_leaves_the_start():
    problem = Problem()
    problem.bad = lambda step: math.nan
    outcome = problem.fit()
    assert (outcome.steps, outcome.stopped) == (0, "not finite") and math.isnan(outcome.loss)
    assert problem.w.tolist() == [0, 0, 0] and problem.notes == {}


def test_a_gradient_that_is_not_finite_counts_as_such():
    """A norm has no slope at 0: the loss is finite, its gradient not."""
    w = torch.zeros(2)
    outcome = fit({"w": w}, lambda step, g: w.square().sum().sqrt(), PLAN, seed=0, what="t")
    assert outcome.stopped == "not finite" and w.tolist() == [0, 0]
