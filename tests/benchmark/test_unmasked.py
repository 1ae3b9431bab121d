"""Inversion without m in the loss."""

import numpy as np
import pytest
import torch

from adiff.benchmark.unmasked import learn_unmasked
from adiff.progress import Cancelled
from adiff.spatial_encoder import SpatialEncoder
from adiff.training import AnomalySettings, train_anomalies

SETTINGS = AnomalySettings(steps=3, batch=2, tokens=2, draws=2, crop=False, early_stop=False)


def whole(shots):
    """The same shots with masks of the whole image: there Eq. 5 is the plain loss."""
    return {key: [(image, np.ones_like(mask)) for image, mask in pairs] for key, pairs in shots.items()}


@pytest.mark.parametrize("kind", ["none", "frozen", "learned"])
def test_it_is_the_masked_inversion_where_the_mask_is_everything(backbone, shots, kind):
    def encoder():
        return None if kind == "none" else SpatialEncoder("small", tokens=2)

    given = {"freeze_encoder": kind == "frozen", "settings": SETTINGS, "seed": 4}
    ours, theirs = encoder(), encoder()
    found = learn_unmasked(backbone, whole(shots), ours, **given)
    expected = train_anomalies(backbone, whole(shots), theirs, **given).embeddings
    for key, embedding in expected.items():
        torch.testing.assert_close(found[key], embedding, rtol=1e-4, atol=1e-5)
    if kind == "learned":
        moved = SpatialEncoder("small", tokens=2).state_dict()
        assert any(not torch.equal(tensor, moved[name]) for name, tensor in ours.state_dict().items())
        torch.testing.assert_close(ours.state_dict(), theirs.state_dict(), rtol=1e-3, atol=1e-4)


def test_what_lies_outside_the_mask_counts(backbone, shots):
    key = ("wood", "stain")
    given = {"freeze_encoder": True, "settings": SETTINGS}
    found = learn_unmasked(backbone, {key: shots[key]}, None, **given)[key]
    masked = train_anomalies(backbone, {key: shots[key]}, None, **given).embeddings[key]
    assert not torch.allclose(found, masked, atol=1e-3)


def test_a_stopped_one_goes_on(backbone, shots, stopper, tmp_path):
    given = {"freeze_encoder": True, "settings": SETTINGS}
    whole_run = learn_unmasked(backbone, shots, None, **given)
    with pytest.raises(Cancelled):
        learn_unmasked(backbone, shots, None, **given, progress=stopper(2), state=tmp_path / "state")
    again = stopper()
    resumed = learn_unmasked(backbone, shots, None, **given, progress=again, state=tmp_path / "state")
    assert [done for done, _ in again.told] == [3]
    for key, embedding in whole_run.items():
        torch.testing.assert_close(resumed[key], embedding)
