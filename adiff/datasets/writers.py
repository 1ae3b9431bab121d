"""Pairs written in MVTec AD's layout, each file whole or not at all."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError
from ..library import check_name
from ..storage import write_json
from .images import write_png

SPLITS = ("train", "test")


def write_mvtec_pair(
    root: Path | str,
    product: str,
    defect: str,
    stem: str,
    image: np.ndarray,
    mask: np.ndarray,
    *,
    text: Mapping[str, str] | None = None,
    record: Mapping[str, Any] | None = None,
) -> tuple[Path, Path]:
    """Write ROOT/product/test/defect/stem.png and ROOT/product/ground_truth/defect/stem_mask.png (0 and 255).

    image: as `write_png` takes it, written last. mask: (H, W) bool. text: kept inside the image's file. record: JSON,
    written as ROOT/product/pairs/defect/stem.json if given. Returns both paths. Raises InputError for names that cannot
    be folders, for the defect "good" (MVTec's word for normal) and for an empty mask.
    """
    for name, what in ((product, "product"), (defect, "defect"), (stem, "image name")):
        check_name(name, what)
    if defect == "good":
        raise InputError("the defect 'good' would count as normal in MVTec's layout; name it otherwise")
    if image.shape[:2] != mask.shape:
        raise ValueError(f"image of {image.shape[1]}x{image.shape[0]} with a mask of {mask.shape[1]}x{mask.shape[0]}")
    if not mask.any():
        raise InputError(f"the mask of {product}/{defect}/{stem} is empty; a pair needs one that marks the defect")
    folder = Path(root) / product
    image_path = folder / "test" / defect / f"{stem}.png"
    mask_path = folder / "ground_truth" / defect / f"{stem}_mask.png"
    write_png(mask_path, mask.astype(bool))
    if record is not None:
        write_json(folder / "pairs" / defect / f"{stem}.json", record)
    write_png(image_path, image, text)
    return image_path, mask_path


def write_mvtec_good(root: Path | str, product: str, split: str, stem: str, image: np.ndarray) -> Path:
    """Write ROOT/product/split/good/stem.png, split being train or test; returns the path."""
    check_name(product, "product")
    check_name(stem, "image name")
    if split not in SPLITS:
        raise ValueError(f"split {split!r}; expected one of {', '.join(SPLITS)}")
    path = Path(root) / product / split / "good" / f"{stem}.png"
    write_png(path, image)
    return path
