"""DualAnoDiff (Jin et al., CVPR 2025): an image and its defect part, generated together.

Read in this order: `layers` (the branches' LoRAs and SAIM inside an attention), `parts` (what the second branch shows,
and the mask in it), `training`, `sampling`, `file`, `run`. BCM, the background's branch, is not there.
"""

from .file import DualModel, check_base, load_dual, save_dual
from .layers import DualEdit
from .sampling import DualPair, DualSampling, sample_pairs
from .training import DualSettings, train_pair

__all__ = [
    "DualEdit",
    "DualModel",
    "DualPair",
    "DualSampling",
    "DualSettings",
    "check_base",
    "load_dual",
    "sample_pairs",
    "save_dual",
    "train_pair",
]
