import numpy as np
import pytest
import torch

from adiff.errors import InputError
from adiff.training import AnomalySettings, MaskSettings, train_anomalies, train_masks
from adiff.training.views import ENCODED, MEASURED, choose_views, draw_views


def test_defects_take_turns_whatever_their_number_of_shots():
    owner = np.array([0] * 10 + [1] * 2 + [2])
    for batch in (1, 3, 4):
        counts = np.zeros(3, int)
        for step in range(12):
            index = choose_views(owner, 3, batch, step, torch.Generator().manual_seed(step))
            counts += np.bincount(owner[index.numpy()], minlength=3)
        assert counts.tolist() == [4 * batch] * 3


def test_all_views_of_a_defect_are_chosen():
    owner = np.array([0, 1, 0, 1, 0])
    seen = {int(i) for s in range(40) for i in choose_views(owner, 2, 2, s, torch.Generator().manual_seed(s))}
    assert seen == {0, 1, 2, 3, 4}


def test_views_keep_their_defect_and_carry_a_cell_for_each_pixel(backbone, shots):
    views = draw_views(backbone, [shots[key] for key in sorted(shots)], draws=2, seed=0)
    assert views.owner.tolist() == [0, 0, 0, 0, 1, 1]
    assert views.latents.shape == (6, 4, 8, 8) and views.masks.shape == (6, 1, 64, 64)
    assert torch.equal(views.cells, torch.nn.functional.max_pool2d(views.masks.float(), 8))
    assert (views.masks.flatten(1).sum(1) > 0).all()


def test_the_encoding_of_views_is_told(backbone, shots):
    """With SD 1.5 on a CPU it takes minutes."""
    told = []

    class Listener:
        def start(self, total, what):
            told.append((total, what))

        def update(self, done, **_):
            told.append(done)

        def finish(self):
            told.append("end")

    train_anomalies(
        backbone, shots, None, freeze_encoder=True, settings=AnomalySettings(steps=1, batch=2, draws=1),
        progress=Listener(),
    )  # fmt: skip
    train_masks(
        backbone, {key: [mask for _, mask in of_one] for key, of_one in shots.items()},
        settings=MaskSettings(steps=1, batch=2, draws=1), progress=Listener(),
    )  # fmt: skip
    views = [(3, "views of shots"), 0, 2, 3, "end"]
    assert told == [*views, (1, "anomaly embeddings"), 1, "end", *views, (1, "mask embeddings"), 1, "end"]


@pytest.mark.parametrize("train", [train_anomalies, train_masks])
def test_out_of_memory_views_are_encoded_and_measured_in_smaller_parts(backbone, shots, small_card, caplog, train):
    """Without a graph a held-out loss takes less than a step, but of one sample each nothing less than one fits."""
    anomalies = train is train_anomalies
    four = {key: [shot if anomalies else shot[1] for shot in of_one * 4] for key, of_one in shots.items()}
    of = AnomalySettings if anomalies else MaskSettings
    settings, more = of(steps=1, batch=3, draws=2), (None,) if anomalies else ()
    how = {"freeze_encoder": True} if anomalies else {}
    whole = train(backbone, four, *more, settings=settings, **how)
    given = small_card(1, "encode", "predict_noise")
    parted = train(backbone, four, *more, settings=settings, **how)
    assert max(given) == 3 and parted.outcome.loss == pytest.approx(whole.outcome.loss, rel=1e-3)
    assert parted.outcome.curve[0][2] == pytest.approx(whole.outcome.curve[0][2], rel=1e-3)
    assert all(f"out of memory: batches are now {done} in parts of 1" in caplog.text for done in (ENCODED, MEASURED))
    small_card(0, "encode")
    with pytest.raises(InputError, match="out of memory with a single image"):
        train(backbone, four, *more, settings=settings, **how)
