"""What inversions are told."""

import pytest

from adiff.training import AnomalySettings, MaskSettings


@pytest.mark.parametrize(("kind", "steps"), [(AnomalySettings, 100), (MaskSettings, 150)])
def test_more_types_together_get_more_steps_unless_steps_are_given(kind, steps):
    assert [kind.for_types(types).steps for types in (1, 4, 6, 56)] == [steps, steps, steps * 3 // 2, steps * 14]
    chosen = kind.for_types(56, steps=30, batch=2)
    assert (chosen.steps, chosen.batch) == (30, 2) and kind.for_types(8, batch=2).batch == 2
