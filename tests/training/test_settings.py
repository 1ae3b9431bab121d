"""What inversions are told."""

import pytest

from adiff.errors import InputError
from adiff.training import AnomalySettings, MaskSettings


@pytest.mark.parametrize(("kind", "steps"), [(AnomalySettings, 100), (MaskSettings, 150)])
def test_more_types_together_get_more_steps_unless_steps_are_given(kind, steps):
    assert [kind.for_types(types).steps for types in (1, 4, 6, 56)] == [steps, steps, steps * 3 // 2, steps * 14]
    chosen = kind.for_types(56, steps=30, batch=2)
    assert (chosen.steps, chosen.batch) == (30, 2) and kind.for_types(8, batch=2).batch == 2


@pytest.mark.parametrize("kind", [AnomalySettings, MaskSettings])
def test_too_few_samples_for_all_defects_are_refused(kind):
    assert kind.for_types(9, steps=3, batch=3).turn(9) == 3
    with pytest.raises(InputError, match="of 10 defects 9 would be drawn .* at least 4 steps"):
        kind.for_types(10, steps=3, batch=3)


def test_a_held_out_loss_is_first_measured_when_all_defects_have_been_drawn():
    settings = AnomalySettings(steps=100, batch=2)
    assert [settings.validation(float, types).every for types in (4, 60)] == [10, 30]
