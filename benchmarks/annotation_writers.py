"""Annotations of other programs through `adiff import`: masks that they write, read back.

    python -m benchmarks.annotation_writers DATA... [--shots 6] [--out FILE.json]

Takes the first shots of each defect in data sets (the layout of MVTec AD, or images/ and masks/), has supervision and
Datumaro write them in each of their formats, and labelme's JSON as its documents say (polygons from OpenCV's outlines,
masks), imports each and compares. Prints a Markdown table: the least and the mean IoU of a photo's mask with the
one that was written. pip install supervision datumaro.
"""

from __future__ import annotations

import argparse
import base64
import io
import logging
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import cv2
import datumaro
import numpy as np
import supervision
from datumaro.components.media import Image as Media
from PIL import Image

from adiff.annotations import read_annotations, write_dataset
from adiff.datasets.readers import read_dataset, read_shot
from adiff.storage import write_json


@dataclass(frozen=True)
class Item:
    """A photo that is annotated: its file, its defect and its mask, (H, W) bool."""

    image: Path
    defect: str
    mask: np.ndarray


def main() -> None:
    """Write, import, compare; print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", nargs="+", type=Path)
    parser.add_argument("--shots", type=int, default=6)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    logging.getLogger("adiff").setLevel(logging.ERROR)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        items = collect(given.data, given.shots, Path(folder) / "photos")
        for what, write in WRITERS.items():
            place = Path(folder) / what.replace(" ", "-").replace(",", "")
            write(items, place)
            found = overlaps(items, place, place.with_name(f"{place.name}-back"))
            rows.append({"writer": what, "photos": len(items), "least": min(found), "mean": float(np.mean(found))})
    print("| written by | photos | least IoU | mean IoU |\n|---|---|---|---|")
    for row in rows:
        print(f"| {row['writer']} | {row['photos']} | {row['least']:.4f} | {row['mean']:.4f} |")
    if given.out:
        write_json(given.out, rows)


def collect(data: list[Path], shots: int, folder: Path) -> list[Item]:
    """Copy the first shots of every defect into one folder, under names that tell their set."""
    items = []
    folder.mkdir()
    for root in data:
        for (product, defect), found in read_dataset(root).shots.items():
            for shot in found[:shots]:
                copy = folder / f"{product}-{defect}-{shot.image.name}"
                shutil.copy(shot.image, copy)
                items.append(Item(copy, defect, read_shot(shot)[1].mask))
    return items


def overlaps(items: list[Item], annotations: Path, out: Path) -> list[float]:
    """Import annotations; returns the IoU of each photo's mask, 0 where there is none."""
    write_dataset(read_annotations([annotations]), out)
    found = []
    for item in items:
        path = out / "ground_truth" / item.defect / f"{item.image.stem}_mask.png"
        if not path.exists():
            found.append(0.0)
            continue
        with Image.open(path) as image:
            mask = np.asarray(image) > 0
        found.append(float((mask & item.mask).sum() / (mask | item.mask).sum()))
    return found


def _labels(items: list[Item]) -> list[str]:
    return sorted({item.defect for item in items})


def _supervision(items: list[Item]) -> supervision.DetectionDataset:
    labels, marks = _labels(items), {}
    for item in items:
        count, parts = cv2.connectedComponents(item.mask.astype(np.uint8))
        masks = np.array([parts == part for part in range(1, count)])
        classes = np.full(len(masks), labels.index(item.defect))
        marks[str(item.image)] = supervision.Detections(supervision.mask_to_xyxy(masks), masks, class_id=classes)
    return supervision.DetectionDataset(labels, list(marks), marks)


def _supervision_coco(items: list[Item], place: Path) -> None:
    _supervision(items).as_coco(str(place / "images"), str(place / "annotations.json"))


def _supervision_yolo(items: list[Item], place: Path) -> None:
    _supervision(items).as_yolo(str(place / "images"), str(place / "labels"), data_yaml_path=str(place / "data.yaml"))


def _datumaro(format: str) -> Callable[[list[Item], Path], None]:
    def write(items: list[Item], place: Path) -> None:
        labels = _labels(items)
        entries = [
            datumaro.DatasetItem(item.image.stem, subset="train", media=Media.from_file(path=str(item.image)),
                                 annotations=[datumaro.Mask(item.mask, label=labels.index(item.defect), id=1, group=1)])
            for item in items
        ]  # fmt: skip
        datumaro.Dataset.from_iterable(entries, categories=labels).export(str(place), format, save_media=True)

    return write


def _labelme(shapes_of: Callable[[Item], list[dict]]) -> Callable[[list[Item], Path], None]:
    def write(items: list[Item], place: Path) -> None:
        for item in items:
            height, width = item.mask.shape
            shapes = [{"label": item.defect, "flags": {}, "group_id": None, **shape} for shape in shapes_of(item)]
            write_json(place / f"{item.image.stem}.json", {
                "version": "5.5.0", "flags": {}, "shapes": shapes, "imagePath": item.image.name, "imageData": None,
                "imageHeight": height, "imageWidth": width,
            })  # fmt: skip
            shutil.copy(item.image, place)

    return write


def _polygons(item: Item) -> list[dict]:
    outlines, _ = cv2.findContours(item.mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    return [
        {"shape_type": "polygon", "points": outline[:, 0].astype(float).tolist()}
        for outline in outlines if len(outline) >= 3
    ]  # fmt: skip


def _pixels(item: Item) -> list[dict]:
    rows, columns = (np.flatnonzero(item.mask.any(axis)) for axis in (1, 0))
    top, bottom, left, right = (int(side) for side in (rows[0], rows[-1], columns[0], columns[-1]))
    part, file = item.mask[top : bottom + 1, left : right + 1], io.BytesIO()
    Image.fromarray(part.astype(np.uint8) * 255).save(file, "PNG")
    mask = base64.b64encode(file.getvalue()).decode()
    return [{"shape_type": "mask", "points": [[left, top], [right, bottom]], "mask": mask}]


WRITERS: dict[str, Callable[[list[Item], Path], None]] = {
    f"supervision {version('supervision')}, COCO": _supervision_coco,
    f"supervision {version('supervision')}, YOLO": _supervision_yolo,
    f"Datumaro {version('datumaro')}, COCO": _datumaro("coco_instances"),
    f"Datumaro {version('datumaro')}, VOC": _datumaro("voc_segmentation"),
    "labelme, polygons": _labelme(_polygons),
    "labelme, masks": _labelme(_pixels),
}

if __name__ == "__main__":
    main()
