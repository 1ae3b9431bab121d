"""Learning from few shots on a frozen backbone: anomaly embeddings with their encoder, and mask embeddings."""

from .anomaly import AnomalyResult, AnomalySettings, masked_loss, train_anomalies
from .loop import Outcome, Schedule, fit
from .mask import MaskResult, MaskSettings, train_masks

__all__ = [
    "AnomalyResult",
    "AnomalySettings",
    "MaskResult",
    "MaskSettings",
    "Outcome",
    "Schedule",
    "fit",
    "masked_loss",
    "train_anomalies",
    "train_masks",
]
