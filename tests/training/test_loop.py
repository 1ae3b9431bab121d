import math
import shutil

import pytest
import torch

from adiff.errors import InputError
from adiff.training import state as state_module
from adiff.training.batch import Batch
from adiff.training.loop import Schedule, discard_state, fit, step_generator
from adiff.training.validation import Validation

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

    def held_out(self, target=2.0, every=2, patience=2):
        """|| w - target ||^2 for a target that the training passes by."""
        return Validation(lambda: float((self.w[2] - target).square()), every, patience)


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


def test_a_run_stops_where_nothing_gets_better_and_keeps_the_best(stopper):
    """w[2] grows from 0 towards 3 and passes 0.5: measures at 2, 4, ... fall until it does."""
    plain, seen = Problem(), {}
    whole = plain.loss_at
    plain.loss_at = lambda step, g: (seen.update({step: plain.w.detach().clone()}), whole(step, g))[1]
    plain.fit(Schedule(steps=40, lr=0.1))
    held = {step: float((seen[step][2] - 0.5).square()) for step in range(2, 40, 2)}
    best = min(held, key=held.get)
    assert 2 < best < 30 and held[best + 2] > held[best] < held[best - 2]
    problem, told = Problem(), stopper()
    outcome = problem.fit(Schedule(steps=40, lr=0.1), validation=problem.held_out(0.5), progress=told)
    assert (outcome.steps, outcome.best, outcome.stopped) == (best + 4, best, "early")
    assert torch.equal(problem.w, seen[best]) and not problem.w.requires_grad
    assert {step: value for step, _, value in outcome.curve if value is not None} == {
        step: value for step, value in held.items() if step <= best + 4
    }
    assert [done for done, info in told.told if "validation" in info] == list(range(2, best + 5, 2))
    assert told.told[1][1]["validation"] == held[2] and told.ended


def test_the_last_step_is_measured_too():
    problem = Problem()
    outcome = problem.fit(Schedule(steps=5, lr=0.1), validation=problem.held_out(10.0, every=3))
    assert [step for step, _, value in outcome.curve if value is not None] == [3, 5]
    assert (outcome.steps, outcome.best, outcome.stopped) == (5, 5, "")


def test_a_measure_that_is_never_finite_keeps_the_last_state():
    problem, plain = Problem(), Problem()
    outcome = problem.fit(validation=Validation(lambda: math.nan, 2, 3))
    assert (outcome.steps, outcome.best, outcome.stopped) == (6, 6, "early")
    plain.fit(validation=Validation(lambda: 0.0, 6, 9))  # best at step 6
    assert torch.equal(problem.w, plain.w)


@pytest.mark.parametrize("average", [0.0, 0.9])
@pytest.mark.parametrize("after", [1, 4, 9, 10, 13])
def test_a_resumed_run_with_early_stopping_is_the_unbroken_one_to_the_bit(tmp_path, stopper, after, average):
    schedule = Schedule(steps=40, lr=0.1, average=average)
    unbroken, first, second = Problem(), Problem(), Problem()
    expected = unbroken.fit(schedule, validation=unbroken.held_out(0.5))
    assert expected.stopped == "early"
    broken = first.fit(schedule, validation=first.held_out(0.5), state=tmp_path / "s", progress=stopper(after))
    assert broken.stopped == "cancelled" or after > expected.steps
    outcome = second.fit(schedule, validation=second.held_out(0.5), state=tmp_path / "s")
    assert outcome == expected and second.notes == unbroken.notes
    assert all(torch.equal(a, b) for a, b in zip(second.result(), unbroken.result(), strict=True))


def test_ctrl_c_within_a_measure_leaves_it_to_the_next_run(tmp_path):
    unbroken, first, second = Problem(), Problem(), Problem()
    expected = unbroken.fit(validation=unbroken.held_out(0.5))
    calls, held = [], first.held_out(0.5)

    def measure():
        calls.append(0)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return held.measure()

    assert first.fit(state=tmp_path / "s", validation=Validation(measure, 2, 2)).stopped == "cancelled"
    assert second.fit(state=tmp_path / "s", validation=second.held_out(0.5)) == expected
    assert torch.equal(second.w, unbroken.w) and second.notes == unbroken.notes


def test_cancelling_keeps_the_best_so_far(stopper):
    whole, cancelled = Problem(), Problem()
    whole.fit(Schedule(steps=40, lr=0.1), validation=whole.held_out(0.5, patience=50))
    best = whole.w.clone()
    outcome = cancelled.fit(
        Schedule(steps=40, lr=0.1), validation=cancelled.held_out(0.5, patience=50), progress=stopper(20)
    )
    assert outcome.stopped == "cancelled" and outcome.best < 20 and torch.equal(cancelled.w, best)


@pytest.mark.parametrize("average", [0.0, 0.9])
def test_a_preview_sees_what_a_run_would_end_with_and_changes_nothing(average):
    schedule, seen = Schedule(steps=12, lr=0.1, average=average), {}
    plain, watched = Problem(), Problem()
    expected = plain.fit(schedule)
    outcome = watched.fit(
        schedule, preview=lambda done: (seen.update({done: watched.w.clone()}), torch.randn(3)), preview_every=4
    )
    assert outcome == expected and torch.equal(watched.w, plain.w)
    assert list(seen) == [4, 8, 12] and torch.equal(seen[12], plain.w)
    assert not any(w.requires_grad for w in seen.values())


def test_a_curve_has_at_most_200_points():
    problem = Problem()
    outcome = problem.fit(Schedule(steps=450, lr=0.01), validation=problem.held_out(99.0, every=1, patience=999))
    assert len(outcome.curve) == 200 and outcome.curve[0][0] == 1 and outcome.curve[-1][0] == 450
    bare = Problem().fit(Schedule(steps=450, lr=0.01)).curve
    assert [step for step, *_ in bare] == list(range(9, 451, 9)) and all(held is None for *_, held in bare)


def test_a_batch_is_the_same_as_its_mean_loss(tmp_path):
    """Two samples of the one loss, in parts: the parameters go the same way, the notes hear of it once a step."""
    alone, parted, heard = Problem(), Problem(), []
    alone.fit(rates={})

    def batch_at(step, generator):
        loss = Problem.loss_at(parted, step, generator)
        return Batch(2, lambda part: loss.expand(2)[part], heard.append)

    fit({"w": parted.w, "w2": parted.w2}, batch_at, PLAN, seed=1, what="test", notes=parted.notes)
    torch.testing.assert_close(parted.w, alone.w)
    assert len(heard) == 12 and heard[0].shape == (2,)


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


def test_what_a_killed_write_of_the_state_left_is_removed(tmp_path, monkeypatch):
    state, found = tmp_path / "run.state", []

    def die(_, path, *__):
        path.with_name(".tmpa1B2c3").write_bytes(b"half")
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(state_module, "save_file", die)
        patch.setattr(shutil, "rmtree", lambda *_, **__: None)  # killed: nothing is cleaned up
        with pytest.raises(MemoryError):
            Problem().fit(state=state, save_every=0)
    assert list(tmp_path.rglob(".tmpa1B2c3"))
    problem = Problem()
    problem.fit(state=state, preview=lambda _: found.extend(tmp_path.iterdir()), preview_every=1)
    assert problem.asked == list(range(12)) and not found


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


def test_a_shot_that_has_changed_is_named(tmp_path, stopper):
    digests = {"metal/hole: a.png": "1", "metal/hole: b.png": "2"}
    Problem().fit(state=tmp_path / "s", progress=stopper(2), about={"shots": digests})
    with pytest.raises(InputError, match="metal/hole: b.png has changed; put back"):
        Problem().fit(state=tmp_path / "s", about={"shots": {**digests, "metal/hole: b.png": "3"}})
    with pytest.raises(InputError, match="other settings or shots"):
        Problem().fit(state=tmp_path / "s", about={"shots": {"metal/hole: a.png": "1"}})


def test_a_damaged_state_is_refused(tmp_path):
    (tmp_path / "s").write_bytes(b"no state")
    with pytest.raises(InputError, match="not a whole safetensors file"):
        Problem().fit(state=tmp_path / "s")


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_goes_back_to_the_last_good_state(monkeypatch, bad):
    monkeypatch.setattr("adiff.training.state.RECENT", 4)
    diverging = Problem()
    diverging.bad = lambda step: bad if step >= 6 else 1.0
    seen = []
    whole = diverging.loss_at
    diverging.loss_at = lambda step, g: (seen.append(diverging.w.detach().clone()), whole(step, g))[1]
    outcome = diverging.fit(Schedule(steps=12, lr=0.1))
    assert (outcome.steps, outcome.stopped) == (4, "not finite")  # states are kept at steps 0, 4, 8
    assert torch.equal(diverging.w, seen[4]) and math.isfinite(outcome.loss) and math.isfinite(diverging.notes["sum"])


def test_a_loss_that_is_not_finite_keeps_the_best_state(caplog):
    diverging, plain = Problem(), Problem()
    diverging.bad = lambda step: math.nan if step >= 7 else 1.0
    outcome = diverging.fit(validation=diverging.held_out(9.0))
    plain.fit(validation=Validation(lambda: 0.0, 6, 9))  # best at step 6
    assert (outcome.stopped, outcome.best) == ("not finite", 6) and torch.equal(diverging.w, plain.w)
    assert "not finite at step 8; went back to step 6" in caplog.text


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
