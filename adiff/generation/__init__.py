"""Making masks and image-mask pairs from what was learned, one batch or thousands."""

from .guidance import GuidanceFit, fit_guidance
from .mask import GeneratedMask, sample_masks
from .pairs import Pair, make_pairs
from .run import RunResult, check_run, generate_run
from .settings import GenerationSettings, MaskSampling
from .sources import FolderMasks, LearnedMasks, MaskSource, ShotMasks

__all__ = [
    "FolderMasks",
    "GeneratedMask",
    "GenerationSettings",
    "GuidanceFit",
    "LearnedMasks",
    "MaskSampling",
    "MaskSource",
    "Pair",
    "RunResult",
    "ShotMasks",
    "check_run",
    "fit_guidance",
    "generate_run",
    "make_pairs",
    "sample_masks",
]
