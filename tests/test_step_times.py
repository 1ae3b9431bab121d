"""The benchmarks' times of training steps are those of the steps: what a training does before them does not count."""

import numpy as np

from adiff.backbone import demo_encoder_path, load_backbone
from adiff.spatial_encoder import load_encoder
from adiff.training import AnomalySettings, train_anomalies
from benchmarks.full_size import Steps


def test_only_a_training_s_steps_are_timed():
    image, mask = np.full((64, 64, 3), 90, np.uint8), np.zeros((64, 64), bool)
    mask[20:40, 20:40] = True
    told, settings = Steps(), AnomalySettings(steps=3, batch=1, draws=2, early_stop=False)
    encoder, _ = load_encoder(demo_encoder_path())
    train_anomalies(load_backbone("demo"), {("metal", "hole"): [(image, mask)]}, encoder, freeze_encoder=True,
                    settings=settings, progress=told)  # fmt: skip
    assert len(told.ended) == 1 + 3
    taken = np.diff(told.ended, axis=0)
    assert told.least() == {"step": taken[1:, 0].min(), "cpu_step": taken[1:, 1].min()}
