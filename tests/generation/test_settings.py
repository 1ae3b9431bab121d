import math
from types import SimpleNamespace

import pytest

from adiff.errors import InputError
from adiff.generation import GenerationSettings, MaskSampling
from adiff.generation.settings import idle


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"steps": 0}, "steps is 0; it must be at least 1"),
        ({"steps": 1001}, "steps is 1001; the noise schedule has 1000"),
        ({"guidance": math.nan}, "guidance is nan"),
        ({"strength": -1}, "strength is -1"),
        ({"severity": -0.1}, "severity is -0.1; it must be at least 0"),
        ({"severity": 2.1}, r"severity is 2.1; it must lie between 0 \(no defect\) and 2"),
        ({"eta": 1.5}, "eta is 1.5; it must lie between 0"),
        ({"batch": 0}, "batch is 0"),
        ({"interval": 0}, "interval is 0"),
        ({"context": 0.5}, "context is 0.5"),
        ({"reweighting": "best"}, "reweighting 'best' is unknown; choose one of off, uniform"),
        ({"distance": "best"}, "distance 'best' is unknown"),
        ({"blending": "best"}, "blending 'best' is unknown; choose one of fixed, fresh"),
        ({"distance": "preview"}, "needs a preview decoder"),
    ],
)
def test_impossible_settings_are_refused(given, said):
    with pytest.raises(InputError, match=said):
        GenerationSettings(**given)


@pytest.mark.parametrize(
    "given",
    [{"steps": 1001}, {"steps": 0}, {"guidance": -1.0}, {"tries": 0}, {"batch": 0}, {"threshold": 1.0}, {"denoise": 0}],
)
def test_impossible_mask_sampling_is_refused(given):
    with pytest.raises(InputError, match=next(iter(given))):
        MaskSampling(**given)


@pytest.mark.parametrize(("native", "steps", "guidance"), [(128, 12, 2.0), (512, 25, 5.0)])
def test_masks_are_sampled_as_suits_the_base_model_unless_told(native, steps, guidance):
    base = SimpleNamespace(native_size=native)
    assert MaskSampling(threshold=0.7).on(base) == MaskSampling(steps, guidance, threshold=0.7)
    assert MaskSampling(guidance=1.0).on(base) == MaskSampling(steps, 1.0)
    told = MaskSampling(7, 3.0)
    assert told.on(base) == told


@pytest.mark.parametrize(("mode", "of_mode"), [
    ("balanced", set()), ("uniform", {"distance", "preview_decoder"}), ("paper", {"level"}), ("release", {"level"}),
    ("off", {"strength", "level", "distance", "preview_decoder"}),
])  # fmt: skip
def test_settings_that_do_nothing(mode, of_mode):
    assert set(idle(mode, "preview")) == of_mode and set(idle(mode, "vae")) == of_mode | {"preview_decoder"}
    assert all(other in ("reweighting", "distance") for other in idle(mode, "vae").values())


def test_a_preview_decoder_is_asked_for_only_where_it_measures():
    GenerationSettings(distance="preview", reweighting="uniform")
    GenerationSettings(distance="preview", preview_decoder="x.safetensors")
