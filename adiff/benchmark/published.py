"""Published numbers on MVTec AD, 15 categories, to stand beside those measured here.

Averages over the categories. Only what is known here is given; what is not is left out, and the table leaves its place
blank. In the units of a cell's measures.
"""

from __future__ import annotations

from collections.abc import Mapping

PAPER = "AnomalyDiffusion (Hu et al., AAAI 2024)"

PUBLISHED: Mapping[str, Mapping[str, Mapping[str, float]]] = {
    "paper": {
        "all": {
            "pixel_auroc": 0.991, "pixel_ap": 0.814, "pixel_f1_max": 0.763, "pro": 0.940,
            "image_auroc": 0.992, "image_ap": 0.997, "image_f1_max": 0.987, "accuracy": 0.661, "inception_score": 1.80,
            "ic_lpips": 0.32,
        },
    },
    "ablation": {
        "textual inversion": {"pixel_auroc": 0.813, "pixel_ap": 0.311, "pixel_f1_max": 0.465},
        "textual inversion + Prompt-to-Prompt": {"pixel_auroc": 0.912, "pixel_ap": 0.551, "pixel_f1_max": 0.644},
        "SAE": {"pixel_auroc": 0.903, "pixel_ap": 0.512, "pixel_f1_max": 0.607},
        "SAE + masked loss": {"pixel_auroc": 0.950, "pixel_ap": 0.649, "pixel_f1_max": 0.688},
        "masked loss + AAR": {"pixel_auroc": 0.955, "pixel_ap": 0.675, "pixel_f1_max": 0.689},
        "all": {"pixel_auroc": 0.991, "pixel_ap": 0.814, "pixel_f1_max": 0.763},
    },
}  # fmt: skip
"""Suite -> variant -> measure. The ablation is the paper's Table 6 with its comparison of suppl. E."""

QUOTED: tuple[tuple[str, Mapping[str, float]], ...] = (
    (PAPER, {"inception_score": 1.80, "ic_lpips": 0.32, "pixel_auroc": 0.991, "pixel_ap": 0.814}),
    ("DualAnoDiff (Jin et al., CVPR 2025)",
     {"inception_score": 1.93, "ic_lpips": 0.38, "pixel_auroc": 0.991, "pixel_ap": 0.845}),
    ("SeaS (ICCV 2025)", {"inception_score": 1.88, "ic_lpips": 0.34}),
)  # fmt: skip
"""What other systems report of themselves; none of it is measured here."""
