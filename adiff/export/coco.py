"""COCO: images/<split>, annotations/instances_<split>.json (cocodataset.org, "Data format", object detection)."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from .. import __version__
from ..geometry import mask_box
from ..storage import write_text
from .contours import outlines
from .layout import Target, copy_image
from .rle import encode_rle
from .runs import Sample


class CocoWriter:
    """One annotation for each defect of an image, of one part or several: run lengths, or a polygon for each part.

    Provenance is in `info` and, of each image, under `adiff`.
    """

    def __init__(self, target: Target):
        self.target = target
        self.images: dict[str, list[dict[str, Any]]] = {split: [] for split in target.splits}
        self.annotations: dict[str, list[dict[str, Any]]] = {split: [] for split in target.splits}

    def add(self, sample: Sample) -> None:
        """Copy the image and keep its annotations."""
        images, annotations = self.images[sample.split], self.annotations[sample.split]
        path = copy_image(sample, self.target.out / "images" / sample.split)
        height, width = sample.photo.size
        image = {"id": len(images) + 1, "file_name": path.name, "width": width, "height": height}
        images.append({**image, "adiff": sample.about})
        for category, mask in sample.instances:
            about = {"id": len(annotations) + 1, "image_id": image["id"], "iscrowd": 0}
            about["category_id"] = self.target.categories.index(category) + 1
            annotations.append({**about, **self._shape(mask)})

    def finish(self) -> None:
        """Write the annotations of each split."""
        names = [name.split("/") for name in self.target.categories]
        categories = [
            {"id": number, "name": f"{product}/{defect}", "supercategory": product}
            for number, (product, defect) in enumerate(names, 1)
        ]
        info = {"description": "synthetic anomalies made by adiff", "version": __version__, **self.target.origin}
        for split in self.target.splits:
            content = {"info": info, "licenses": [], "categories": categories, "images": self.images[split],
                       "annotations": self.annotations[split]}  # fmt: skip
            text = json.dumps(content, ensure_ascii=False)  # not indented: polygons would stand a number a line
            write_text(self.target.out / "annotations" / f"instances_{split}.json", text + "\n")

    def _shape(self, mask: np.ndarray) -> dict[str, Any]:
        box = mask_box(mask)
        if self.target.polygons:
            shape: Any = [[value for point in polygon for value in point] for polygon in outlines(mask)]
        else:
            shape = encode_rle(mask)
        return {"bbox": [box.left, box.top, box.width, box.height], "area": int(mask.sum()), "segmentation": shape}
