"""Learning from few shots on a frozen backbone: anomaly embeddings with their encoder, and mask embeddings."""

from .anomaly import NORMALISATIONS, AnomalyResult, AnomalySettings, masked_loss, train_anomalies
from .batch import Batch
from .loop import Outcome, Schedule, fit
from .mask import MaskResult, MaskSettings, train_masks
from .timesteps import LAWS
from .validation import Validation

__all__ = [
    "LAWS",
    "NORMALISATIONS",
    "AnomalyResult",
    "AnomalySettings",
    "Batch",
    "MaskResult",
    "MaskSettings",
    "Outcome",
    "Schedule",
    "Validation",
    "fit",
    "masked_loss",
    "train_anomalies",
    "train_masks",
]
