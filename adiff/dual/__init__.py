"""DualAnoDiff (Jin et al., CVPR 2025): an image and its defect part, generated together.

Read in this order: `layers` (the branches' LoRAs, SAIM and BCM inside an attention), `parts` (what the second branch
shows, and the mask in it), `background` (what BCM sees), `training`, `sampling`, `file`, `run`; and `release`,
which reads the authors' checkpoints.
"""

from .background import read_backgrounds, read_foregrounds
from .file import DualModel, check_base, load_dual, save_dual
from .layers import DualEdit
from .release import read_release
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
    "read_backgrounds",
    "read_foregrounds",
    "read_release",
    "sample_pairs",
    "save_dual",
    "train_pair",
]
