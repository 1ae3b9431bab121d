"""YOLO: images/<split>, labels/<split>, data.yaml (docs.ultralytics.com, "Instance Segmentation Datasets").

A line of a label is `class x y x y ...`, in shares of the image's sides.
"""

from __future__ import annotations

import json
from typing import Any

from ..storage import write_json, write_text
from .contours import on_pixels, outlines
from .layout import PROVENANCE, Target, copy_image, lines_of
from .runs import Sample
from .splits import TRAIN, VALIDATION

SEEN = "val are the training images, as none were kept apart (a validation share of 0.2 does): its scores tell nothing"
"""What a data.yaml without a validation split has to say; readers refuse one that names none."""


class YoloWriter:
    """One line for each part of each defect: a line holds one polygon, its holes are reached by cuts (`contours`).

    Corners stand for pixels, as everywhere in this format: ultralytics cuts them to whole ones, supervision rounds.

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
                places = " ".join(f"{x / width:.6f} {y / height:.6f}" for x, y in on_pixels(polygon))
                lines.append(f"{number} {places}")
        write_text(self.target.out / "labels" / sample.split / f"{sample.stem}.txt", lines_of(lines))
        path = copy_image(sample, self.target.out / "images" / sample.split)
        self.about[f"{sample.split}/{path.name}"] = sample.about

    def finish(self) -> None:
        """Write provenance.json, then data.yaml; without a validation split the training images stand in (SEEN)."""
        write_json(self.target.out / PROVENANCE, {**self.target.origin, "images": self.about})
        validation = VALIDATION if VALIDATION in self.target.splits else TRAIN
        # JSON's strings are YAML's
        names = [f"  {n}: {json.dumps(name, ensure_ascii=False)}" for n, name in enumerate(self.target.categories)]
        origin = ["adiff:", "  synthetic: true", f"  provenance: {PROVENANCE}"]
        note = [] if validation == VALIDATION else [f"# {SEEN}"]
        lines = [f"train: images/{TRAIN}", *note, f"val: images/{validation}", "names:", *names, *origin]
        write_text(self.target.out / "data.yaml", lines_of(lines))
