"""What inversions are told."""

from types import SimpleNamespace

import pytest

from adiff.errors import InputError
from adiff.training import AnomalySettings, MaskSettings

SMALL, FULL = SimpleNamespace(native_size=128), SimpleNamespace(native_size=512)


@pytest.mark.parametrize(
    ("kind", "base", "steps"),
    [
        (AnomalySettings, SMALL, 100), (MaskSettings, SMALL, 150),
        (AnomalySettings, FULL, 1000), (MaskSettings, FULL, 1000),
    ],
)  # fmt: skip
def test_more_types_together_get_more_steps_unless_steps_are_given(kind, base, steps):
    found = [kind.for_base(base, [5] * types) for types in (1, 4, 6, 56)]
    assert [one.steps for one in found] == [steps, steps, steps * 3 // 2, steps * 14]
    assert len({one.lr for one in found}) == 1  # each defect gets as many samples
    chosen = kind.for_base(base, [5] * 56, steps=30, batch=2)
    assert (chosen.steps, chosen.batch) == (30, 2) and kind.for_base(base, [5] * 8, batch=2).batch == 2


@pytest.mark.parametrize("kind", [AnomalySettings, MaskSettings])
def test_where_no_shot_is_held_out_a_full_size_base_gets_fewer_steps(kind):
    assert [kind.for_base(FULL, shots).steps for shots in ([4, 9], [4, 3], [1])] == [1000, 300, 300]
    assert kind.for_base(FULL, [9], early_stop=False).steps == 300
    assert len({kind.for_base(SMALL, shots).steps for shots in ([4], [3])}) == 1


@pytest.mark.parametrize("kind", [AnomalySettings, MaskSettings])
def test_the_rate_falls_with_the_root_of_the_steps_unless_it_is_given(kind):
    own = kind()
    assert kind.for_base(SMALL, [5]) == own and kind.for_base(SMALL, [5], steps=own.steps // 2).lr == own.lr
    assert kind.for_base(FULL, [5], steps=4 * own.steps).lr == pytest.approx(own.lr / 2)
    assert kind.for_base(FULL, [5]).lr == pytest.approx(own.lr * (own.steps / 1000) ** 0.5)
    assert kind.for_base(FULL, [5], lr=0.3).lr == 0.3


@pytest.mark.parametrize("kind", [AnomalySettings, MaskSettings])
def test_too_few_samples_for_all_defects_are_refused(kind):
    assert kind.for_base(SMALL, [5] * 9, steps=3, batch=3).turn(9) == 3
    with pytest.raises(InputError, match="of 10 defects 9 would be drawn .* at least 4 steps"):
        kind.for_base(SMALL, [5] * 10, steps=3, batch=3)


def test_a_held_out_loss_is_first_measured_when_all_defects_have_been_drawn():
    settings = AnomalySettings(steps=100, batch=2)
    assert [settings.validation(float, types).every for types in (4, 60)] == [10, 30]
