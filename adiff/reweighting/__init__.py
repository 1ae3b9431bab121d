"""Adaptive attention re-weighting, AAR (Eq. 7, 8): where the defect is not there yet, the condition counts for more.

Read in this order: `distance` (how far x0_hat is from the normal image), `maps` (one weight per position from it),
`attention` (the weights applied to fused attention), `controller` (all three along one sampling run).
"""

from .attention import fused_attention, scaled_logits_attention, scaled_rows_attention
from .controller import DISTANCES, MODES, AttentionEdit, Reweighter
from .distance import distance_map, fit_latent_rgb, latent_rgb
from .maps import (
    LEVEL,
    balanced_weights,
    check_level,
    dilated_mask,
    paper_weights,
    release_weights,
    uniform_weights,
    weights_on_grid,
    with_strength,
)

__all__ = [
    "DISTANCES",
    "LEVEL",
    "MODES",
    "AttentionEdit",
    "Reweighter",
    "balanced_weights",
    "check_level",
    "dilated_mask",
    "distance_map",
    "fit_latent_rgb",
    "fused_attention",
    "latent_rgb",
    "paper_weights",
    "release_weights",
    "scaled_logits_attention",
    "scaled_rows_attention",
    "uniform_weights",
    "weights_on_grid",
    "with_strength",
]
