"""YOLO: images/<split>, labels/<split>, data.yaml (docs.ultralytics.com, "Instance Segmentation Datasets").

A line of a label is `class x y x y ...`, in shares of the image's sides.
"""

from __future__ import annotations

import json
from typing import Any

from ..storage import write_json, write_text
from .contours import outlines
from .layout import PROVENANCE, Target, copy_image, lines_of
from .runs import TRAIN, VALIDATION, Sample


class YoloWriter:
    """One line for each part of each defect: a line holds one polygon, its holes are reached by cuts (`contours`).

    Provenance is in provenance.json, to which data.yaml points under `adiff`.
    """

    def __init__(self, target: Target):
        self.target = target
        self.about: dict[str, Any] = {}

    def add(self, sample: Sample) -> None:
        """Write the label, then the image."""
        height, width = sample.photo.size
        lines = []
        for category, mask in sample.instances:
            number = self.target.categories.index(category)
            for polygon in outlines(mask):
                places = " ".join(f"{x / width:.6f} {y / height:.6f}" for x, y in polygon)
                lines.append(f"{number} {places}")
        write_text(self.target.out / "labels" / sample.split / f"{sample.stem}.txt", lines_of(lines))
        path = copy_image(sample, self.target.out / "images" / sample.split)
        self.about[f"{sample.split}/{path.name}"] = sample.about

    def finish(self) -> None:
        """Write provenance.json, then data.yaml; trained without a validation split, the training images stand in."""
        write_json(self.target.out / PROVENANCE, {**self.target.origin, "images": self.about})
        validation = VALIDATION if VALIDATION in self.target.splits else TRAIN
        # JSON's strings are YAML's
        names = [f"  {n}: {json.dumps(name, ensure_ascii=False)}" for n, name in enumerate(self.target.categories)]
        origin = ["adiff:", "  synthetic: true", f"  provenance: {PROVENANCE}"]
        lines = [f"train: images/{TRAIN}", f"val: images/{validation}", "names:", *names, *origin]
        write_text(self.target.out / "data.yaml", lines_of(lines))
