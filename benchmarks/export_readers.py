"""Exports through the programs they are for: what their own readers make of each format's masks and images.

    python -m benchmarks.export_readers [--pairs 60] [--size 128] [--format FORMAT] [--out FILE.json]

Draws two runs, one of two defects in each image, with masks that are hard on outlines among them, exports them in every
format, and opens each export with pycocotools, torchvision, transformers, ultralytics, supervision, Datumaro and
anomalib, as far as they are installed. Prints a Markdown table: of all pairs, the smallest and the mean IoU of a
defect's mask, as it is read, with the run's own, and how many images come back bit for bit.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import logging
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from itertools import chain
from itertools import product as products
from pathlib import Path

import numpy as np
from PIL import Image

from adiff.datasets.images import write_png
from adiff.datasets.surfaces import render
from adiff.export import Run, export_runs, read_runs
from adiff.export.runs import pairs_of
from adiff.export.splits import Splits
from adiff.storage import write_json

PRODUCTS = {"metal": ("scratch", "dent"), "wood": ("hole",)}
EXACT, OUTLINED = 1.0, 0.98
"""What the IoU of every mask must reach: pixels and run lengths, polygons."""
ROUNDED = 0.0
"""supervision rounds a COCO polygon's corners, which are edges of pixels, to whole pixels and counts these in; so it
reads a pixel too much on the right and below, of any program's polygons. Run lengths, the default, it reads exactly."""

Seen = tuple[str, np.ndarray | None, dict[str, np.ndarray]]
"""What a reader says of an image: its stem, its pixels or None, and a mask for each category; "" is any of them."""
Reader = Callable[[Path, int], Iterator[Seen]]


@dataclass(frozen=True)
class Check:
    """A reader of one format. package: what it needs; options: of the export; due: the IoU every mask must reach."""

    package: str
    what: str
    format: str
    read: Reader
    due: float
    options: dict[str, bool]


# --- what is exported


def hard_masks(size: int) -> list[np.ndarray]:
    """Masks (size, size) bool that outlines get wrong: holes, corners that touch, single pixels, combs, the border."""
    rows, columns = np.mgrid[:size, :size]
    away = np.hypot(rows - size / 2, columns - size / 2)
    ring = (away > size / 6) & (away < size / 4)
    return [
        ring,
        ring | (away < size / 12),  # an island in the hole
        ring | ((away < size / 4) & ((rows + columns) % 9 == 0)),  # many holes
        np.abs(rows - columns) < 1,  # a line of corners
        (rows == 7) & (columns == 3),
        (rows % 8 < 4) & (columns % 8 < 4) & ((rows // 8 + columns // 8) % 2 == 0) & (away < size / 3),
        (columns % 6 < 2) & (rows > size // 3) | (rows == size // 3),  # down to the border
        np.ones((size, size), bool) & (rows < size - 1),
        (rows < 2) | (rows >= size - 1) | (columns < 1) | (columns >= size - 2),  # a frame: all border, one hole
    ]


def draw_run(folder: Path, product: str, defects: tuple[str, ...], pairs: int, size: int) -> None:
    """Write a run as `adiff generate` does; of two defects, the second one's mask gives way to the first one's."""
    name, hard = "+".join(defects), hard_masks(size)
    many = {"defects": list(defects)} if len(defects) > 1 else {}
    write_json(folder / "run.json", {"format": 1, "product": product, "defect": name, "seed": 0, **many})
    for number in range(pairs):
        stem = f"{number:06d}"
        drawn = [render(product, defect, size, np.random.default_rng((number, i))) for i, defect in enumerate(defects)]
        labels = np.zeros((size, size), np.uint8)
        for label, one in enumerate(drawn, 1):
            labels[(one.mask if number >= len(hard) or label > 1 else hard[number]) & (labels == 0)] = label
        labels[-1, -len(defects) :] = range(1, len(defects) + 1)  # each is there, whatever was drawn
        write_png(folder / "image" / f"{stem}.png", drawn[0].image)
        write_png(folder / "mask" / f"{stem}_mask.png", labels > 0)
        write_png(folder / "mask" / f"{stem}_labels.png", labels)
        write_json(folder / "pairs" / f"{stem}.json", {"id": stem, "product": product, "defect": name, "seed": 0})


# --- the readers


def read_coco(out: Path, size: int) -> Iterator[Seen]:
    """pycocotools' COCO.annToMask."""
    from pycocotools.coco import COCO

    for split in ("train", "val"):
        coco = COCO(out / "annotations" / f"instances_{split}.json")
        for image in coco.imgs.values():
            found = coco.loadAnns(coco.getAnnIds(image["id"]))
            masks = {coco.cats[one["category_id"]]["name"]: coco.annToMask(one) > 0 for one in found}
            yield Path(image["file_name"]).stem, pixels_of(out / "images" / split / image["file_name"]), masks


def read_detr(out: Path, size: int) -> Iterator[Seen]:
    """transformers' DetrImageProcessor at the images' own size; it asks for a defect in each image."""
    from pycocotools.coco import COCO
    from transformers import DetrImageProcessor

    prepare = DetrImageProcessor(do_resize=False, do_normalize=False, do_rescale=False, do_pad=False)
    for split in ("train", "val"):
        coco = COCO(out / "annotations" / f"instances_{split}.json")
        for image in coco.imgs.values():
            pixels, told = pixels_of(out / "images" / split / image["file_name"]), coco.imgToAnns[image["id"]]
            masks = {}
            if told:
                about = {"image_id": image["id"], "annotations": told}
                made = prepare(pixels, about, return_segmentation_masks=True, return_tensors="pt")
                pixels = made["pixel_values"][0].numpy().astype(np.uint8).transpose(1, 2, 0)
                found = made["labels"][0]
                categories = [coco.cats[number]["name"] for number in found["class_labels"].tolist()]
                masks = dict(zip(categories, found["masks"].numpy() > 0, strict=True))
            yield Path(image["file_name"]).stem, pixels, masks


def datumaro_reader(format: str) -> Reader:
    """Datumaro's Dataset.import_from; splits of other names, which hold the same images again, are left out."""

    def read(out: Path, size: int) -> Iterator[Seen]:
        import datumaro

        data = datumaro.Dataset.import_from(str(out), format)
        names = [label.name for label in data.categories()[datumaro.AnnotationType.label]]
        for one in data:
            if one.subset in ("train", "val"):
                masks = {names[part.label]: part.image > 0 for part in one.annotations
                         if part.type is datumaro.AnnotationType.mask}  # fmt: skip
                yield one.id, one.media.data[..., ::-1], masks  # it reads BGR

    return read


def supervision_reader(load: Callable) -> Reader:
    """supervision's DetectionDataset, opened by load(its class, the export's folder, split)."""

    def read(out: Path, size: int) -> Iterator[Seen]:
        import supervision

        for split in ("train", "val"):
            data = load(supervision.DetectionDataset, out, split)
            for path, image, found in data:
                masks: dict[str, np.ndarray] = {}
                for number, mask in zip(found.class_id, [] if found.mask is None else found.mask, strict=False):
                    name = data.classes[number]
                    masks[name] = masks.get(name, False) | mask
                yield Path(path).stem, image[..., ::-1], masks  # it reads BGR

    return read


def _coco(reader, out: Path, split: str):
    images, annotations = out / "images" / split, out / "annotations" / f"instances_{split}.json"
    return reader.from_coco(str(images), str(annotations), force_masks=True)


def _yolo(reader, out: Path, split: str):
    folders = (str(out / kind / split) for kind in ("images", "labels"))
    return reader.from_yolo(*folders, str(out / "data.yaml"), force_masks=True)


def read_yolo(out: Path, size: int) -> Iterator[Seen]:
    """ultralytics' YOLODataset, as its training has it, at the images' own size and without augmentation."""
    from ultralytics.cfg import get_cfg
    from ultralytics.data.dataset import YOLODataset
    from ultralytics.data.utils import check_det_dataset

    about = check_det_dataset(str(out / "data.yaml"), autodownload=False)
    settings = get_cfg(overrides={"task": "segment", "mask_ratio": 1, "overlap_mask": False})
    for split in ("train", "val"):
        data = YOLODataset(img_path=about[split], imgsz=size, data=about, task="segment", augment=False, hyp=settings)
        for number in range(len(data)):
            one = data[number]
            masks: dict[str, np.ndarray] = {}
            for category, mask in zip(one["cls"].ravel().tolist(), one["masks"].numpy() > 0, strict=True):
                name = about["names"][int(category)]
                masks[name] = masks.get(name, False) | mask
            pixels = one["img"].numpy().transpose(1, 2, 0)
            yield Path(one["im_file"]).stem, pixels, masks


def read_voc(out: Path, size: int) -> Iterator[Seen]:
    """torchvision's VOCSegmentation; of the parts of both splits."""
    from torchvision.datasets import VOCSegmentation

    lines = (out / "labelmap.txt").read_text().splitlines()
    names = [line.partition(":")[0] for line in lines if not line.startswith("#")]
    (out / "VOCdevkit").mkdir()
    (out / "VOCdevkit" / "VOC2012").symlink_to(out)
    for split in ("train", "val"):
        data = VOCSegmentation(out, "2012", split)
        for path, (image, marked) in zip(data.images, data, strict=True):
            labels = np.array(marked)
            masks = {names[label]: labels == label for label in np.unique(labels) if label}
            yield Path(path).stem, np.array(image), masks


def read_voc_boxes(out: Path, size: int) -> Iterator[Seen]:
    """supervision's from_pascal_voc knows boxes only: each one filled, to be held against the box of the mask."""
    import supervision

    data = supervision.DetectionDataset.from_pascal_voc(str(out / "JPEGImages"), str(out / "Annotations"))
    for path, image, found in data:
        masks = {}
        for number, (left, top, right, bottom) in zip(found.class_id, found.xyxy.astype(int), strict=True):
            masks[data.classes[number]] = np.zeros(image.shape[:2], bool)
            masks[data.classes[number]][top:bottom, left:right] = True
        yield Path(path).stem, image[..., ::-1], masks


def read_mvtec(out: Path, size: int) -> Iterator[Seen]:
    """anomalib's MVTecAD data module, a category for each product."""
    from anomalib.data import MVTecAD

    for product in PRODUCTS:
        yield from _items(MVTecAD(root=out, category=product, num_workers=0))


def read_folder(out: Path, size: int) -> Iterator[Seen]:
    """anomalib's Folder data module, told of the normal images, the defects' and their masks."""
    from anomalib.data import Folder

    for split, (product, defects) in products(("train", "val"), PRODUCTS.items()):
        folder, defect = out / split / product, "+".join(defects)
        yield from _items(Folder(name=product, root=folder, normal_dir="normal", abnormal_dir=f"{defect}/images",
                                 mask_dir=f"{defect}/masks", num_workers=0, val_split_mode="same_as_test"))  # fmt: skip


def _items(module) -> Iterator[Seen]:
    """What an anomalib data module trains and tests on."""
    module.prepare_data()
    module.setup()
    for one in chain(module.train_data, module.test_data):
        pixels = (one.image.numpy() * 255).round().astype(np.uint8).transpose(1, 2, 0)
        mask = None if one.gt_mask is None else one.gt_mask.numpy().squeeze() > 0
        yield Path(one.image_path).stem, pixels, {} if mask is None or not mask.any() else {"": mask}


CHECKS = (
    Check("pycocotools", "COCO", "coco", read_coco, EXACT, {}),
    Check("pycocotools", "COCO, polygons", "coco", read_coco, OUTLINED, {"polygons": True}),
    Check("transformers", "DetrImageProcessor", "coco", read_detr, EXACT, {}),
    Check("datumaro", "coco", "coco", datumaro_reader("coco"), EXACT, {}),
    Check("supervision", "from_coco", "coco", supervision_reader(_coco), EXACT, {}),
    Check("supervision", "from_coco, polygons", "coco", supervision_reader(_coco), ROUNDED, {"polygons": True}),
    Check("supervision", "from_yolo", "yolo", supervision_reader(_yolo), OUTLINED, {}),
    Check("ultralytics", "YOLODataset", "yolo", read_yolo, OUTLINED, {}),
    Check("supervision", "from_pascal_voc, boxes", "voc", read_voc_boxes, EXACT, {}),
    Check("datumaro", "voc_segmentation", "voc", datumaro_reader("voc_segmentation"), EXACT, {}),
    Check("torchvision", "VOCSegmentation", "voc", read_voc, EXACT, {}),
    Check("anomalib", "MVTecAD", "mvtec", read_mvtec, EXACT, {}),
    Check("anomalib", "Folder", "folder", read_folder, EXACT, {}),
)


# --- what is held against what


def compare(check: Check, runs: list[Run], normals: dict[str, list[Path]], out: Path, size: int) -> dict:
    """Export, open, and hold every image that comes against the runs' own."""
    export_runs(runs, out, check.format, normals=normals, validation=0.25, **check.options)
    own = {sample.stem: sample for sample in pairs_of(runs, Splits((), 0.0, 0))}
    overlaps, pixels, good, worst = [], [], 0, ("", 2.0)
    for stem, image, masks in check.read(out, size):
        if stem.startswith("normal_"):
            good += not masks
            continue
        sample = own[stem]
        pixels.append(np.array_equal(image, sample.photo.pixels))
        truth = {"": sample.mask} if "" in masks else dict(sample.instances)
        if check.read is read_voc_boxes:
            truth = {name: box_of(mask) for name, mask in truth.items()}
        for name in truth.keys() | masks.keys():
            overlaps.append(iou(truth.get(name), masks.get(name)))
            worst = min(worst, (f"{stem} {name}", overlaps[-1]), key=lambda one: one[1])
    return {"reader": f"{check.package} {version(check.package)}", "what": check.what, "format": check.format,
            "pairs": len(pixels), "of": len(own), "normals": good, "due": check.due, "images_equal": sum(pixels),
            "least": min(overlaps, default=0.0), "mean": float(np.mean(overlaps)) if overlaps else 0.0,
            "worst": worst[0]}  # fmt: skip


def iou(one: np.ndarray | None, other: np.ndarray | None) -> float:
    """Intersection over union; 0 if either is missing."""
    if one is None or other is None or one.shape != other.shape:
        return 0.0
    return float((one & other).sum() / (one | other).sum())


def box_of(mask: np.ndarray) -> np.ndarray:
    """The mask's bounding box, filled."""
    rows, columns = np.nonzero(mask)
    box = np.zeros_like(mask)
    box[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1] = True
    return box


def pixels_of(path: Path) -> np.ndarray:
    """An image's pixels."""
    with Image.open(path) as image:
        return np.array(image)


def main() -> None:
    """Draw, export, open, print."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--pairs", type=int, default=60)
    options.add_argument("--size", type=int, default=128)
    options.add_argument("--format", help="only this one")
    options.add_argument("--out", type=Path)
    chosen = options.parse_args()
    rows = []
    print("| reader | what | format | pairs | normals | least IoU | mean IoU | asked | images equal |")
    print("|---|---|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as place:
        folder, normals = Path(place), {}
        for product, defects in PRODUCTS.items():
            draw_run(folder / product, product, defects, chosen.pairs, chosen.size)
            normals[product] = [folder / "good" / product / f"{number}.png" for number in range(8)]
            for number, path in enumerate(normals[product]):
                write_png(path, render(product, None, chosen.size, np.random.default_rng(number)).image)
        runs = read_runs([folder / product for product in PRODUCTS])
        for number, check in enumerate(CHECKS):
            if chosen.format not in (None, check.format):
                continue
            try:
                version(check.package)
            except PackageNotFoundError:
                print(f"{check.package} is not installed: {check.what} is left out")
                continue
            logging.disable(logging.WARNING)
            with contextlib.redirect_stdout(io.StringIO()):  # readers tell of their progress
                row = compare(check, runs, normals, folder / f"export-{number}", chosen.size)
            rows.append(row)
            print(f"| {row['reader']} | {row['what']} | {row['format']} | {row['pairs']} of {row['of']} | "
                  f"{row['normals']} | {row['least']:.4f} | {row['mean']:.4f} | {row['due']} | "
                  f"{row['images_equal']} |", flush=True)  # fmt: skip
    if chosen.out is not None:
        write_json(chosen.out, {"pairs": chosen.pairs, "size": chosen.size, "rows": rows})


if __name__ == "__main__":
    main()
