"""Layouts in which a folder's name is the label: MVTec AD's, and plain folders, as `datasets.readers` finds them.

An image of several defects lies in one folder, named after all of them: scratch+dent.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ..datasets.images import write_png
from ..datasets.readers import MASK_ENDING, NORMAL_FOLDERS
from ..datasets.writers import write_mvtec_good, write_mvtec_pair
from ..errors import InputError
from ..storage import write_json, write_text
from .layout import PROVENANCE, Target, copy_image, lines_of, readable
from .runs import Sample
from .splits import TRAIN


class MvtecWriter:
    """PRODUCT/test/DEFECT and PRODUCT/ground_truth/DEFECT; of the normal images, those of the validation share in
    test/good, the others in train/good.

    Provenance is in PRODUCT/pairs/DEFECT/<stem>.json and in the images' files.
    """

    def __init__(self, target: Target):
        self.target = target
        _check_defects(target)

    def add(self, sample: Sample) -> None:
        """Write a pair, or a normal image."""
        out, pixels = self.target.out, readable(sample.photo)
        if sample.defect is None:
            split = "train" if sample.split == TRAIN else "test"
            write_mvtec_good(out, sample.product, split, sample.stem, pixels)
            return
        text = {"adiff": json.dumps(sample.about)}
        write_mvtec_pair(out, sample.product, sample.defect, sample.stem, pixels, sample.mask, text=text,
                         record=sample.about)  # fmt: skip

    def finish(self) -> None:
        """Nothing lists the images."""


class FolderWriter:
    """PRODUCT/DEFECT/images and PRODUCT/DEFECT/masks, PRODUCT/normal; with a validation share under train/ and val/.

    Each split's metadata.jsonl says which mask belongs to which image: by it Hugging Face's `imagefolder` tells them
    apart. Provenance is in provenance.json.
    """

    def __init__(self, target: Target):
        self.target = target
        self.about: dict[str, Any] = {}
        self.listed: dict[str, list[str]] = {split: [] for split in target.splits}
        _check_defects(target)

    def add(self, sample: Sample) -> None:
        """Write a mask, then its image."""
        root, mask = self._root(sample.split), None
        product = root / sample.product
        if sample.defect is None:
            path = copy_image(sample, product / NORMAL_FOLDERS[0])
        else:
            mask = product / sample.defect / "masks" / f"{sample.stem}{MASK_ENDING}.png"
            write_png(mask, sample.mask)
            path = copy_image(sample, product / sample.defect / "images")
        image, mask = (None if file is None else file.relative_to(root).as_posix() for file in (path, mask))
        line = {"file_name": image, "mask_file_name": mask, "product": sample.product, "defect": sample.defect}
        self.listed[sample.split].append(json.dumps(line, ensure_ascii=False))
        self.about[path.relative_to(self.target.out).as_posix()] = sample.about

    def finish(self) -> None:
        """Write each split's metadata.jsonl, then provenance.json."""
        for split, lines in self.listed.items():
            write_text(self._root(split) / "metadata.jsonl", lines_of(lines))
        write_json(self.target.out / PROVENANCE, {**self.target.origin, "images": self.about})

    def _root(self, split: str) -> Path:
        return self.target.out / split if len(self.target.splits) > 1 else self.target.out


def _check_defects(target: Target) -> None:
    """Raise InputError for a defect whose folder would be one of normal images."""
    for category in target.categories:
        if category.split("/")[1].lower() in NORMAL_FOLDERS:
            raise InputError(f"the defect of {category} would count as normal in this layout; choose another format")
