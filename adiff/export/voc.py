"""Pascal VOC 2012: JPEGImages, Annotations, SegmentationClass, SegmentationObject, ImageSets.

An image is its own file, a PNG as a rule, as JPEG would change the pixels outside the mask; but it is called
<stem>.jpg, the only name under which torchvision, detectron2 and mmdetection look for it. They open it by its content,
as Pillow and OpenCV do. Boxes count pixels from 1, both ends included, as in the VOC development kit, section
"Annotation".
"""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
from PIL import Image

from ..errors import InputError
from ..geometry import mask_box
from ..storage import write_text, write_whole
from .layout import Target, copy_image, lines_of
from .runs import Sample

SUFFIX = ".jpg"
BACKGROUND = "background"
MOST = 254
"""Categories: 0 is the background, 255 what VOC leaves undecided."""


class VocWriter:
    """One object for each defect of an image, of one part or several.

    Provenance is in each annotation: the source, and JSON under `adiff`; labelmap.txt names the categories by their
    colours, the background first, as Datumaro and CVAT do.
    """

    def __init__(self, target: Target):
        if len(target.categories) > MOST:
            raise InputError(f"{len(target.categories)} categories; VOC holds at most {MOST}: export fewer runs")
        self.target = target
        self.stems: dict[str, list[str]] = {split: [] for split in target.splits}

    def add(self, sample: Sample) -> None:
        """Write masks and annotation, then the image."""
        out = self.target.out
        classes, objects = np.zeros(sample.photo.size, np.uint8), np.zeros(sample.photo.size, np.uint8)
        for number, (category, mask) in enumerate(sample.instances, 1):
            classes[mask], objects[mask] = self.target.categories.index(category) + 1, number
        write_palette_png(out / "SegmentationClass" / f"{sample.stem}.png", classes)
        write_palette_png(out / "SegmentationObject" / f"{sample.stem}.png", objects)
        write_text(out / "Annotations" / f"{sample.stem}.xml", _annotation(sample))
        copy_image(sample, out / "JPEGImages", SUFFIX)
        self.stems[sample.split].append(sample.stem)

    def finish(self) -> None:
        """Write the categories and the lists of images."""
        named = zip((BACKGROUND, *self.target.categories), voc_colours().tolist(), strict=False)
        labels = [f"{name}:{','.join(map(str, colour))}::" for name, colour in named]
        write_text(self.target.out / "labelmap.txt", lines_of(["# label:color_rgb:parts:actions", *labels]))
        every = sorted(stem for stems in self.stems.values() for stem in stems)
        for name, stems in (*self.stems.items(), ("trainval", every)):
            for task in ("Main", "Segmentation"):
                write_text(self.target.out / "ImageSets" / task / f"{name}.txt", lines_of(stems))


def write_palette_png(path: Path, labels: np.ndarray) -> None:
    """Write labels, (H, W) uint8, as a PNG in VOC's colours."""
    image = Image.fromarray(labels)
    image.putpalette(voc_colours().tobytes())
    write_whole(path, lambda temporary: image.save(temporary, format="PNG"))


def voc_colours() -> np.ndarray:
    """VOC's colour map, (256, 3) uint8: a label's bits go to red, green, blue in turn, from the highest bit down."""
    labels, colours = np.arange(256), np.zeros((256, 3), np.uint8)
    for bit in range(8):
        for channel in range(3):
            value = labels >> (3 * bit + channel) & 1
            colours[:, channel] |= (value << 7 - bit).astype(np.uint8)
    return colours


def _annotation(sample: Sample) -> str:
    height, width = sample.photo.size
    root = ElementTree.Element("annotation")
    synthetic = sample.defect is not None
    source = {"database": "adiff", "annotation": "synthetic" if synthetic else "normal", "image": sample.stem}
    channels = 1 if sample.photo.pixels.ndim == 2 else sample.photo.pixels.shape[2]
    _fill(root, {"folder": "JPEGImages", "filename": f"{sample.stem}{SUFFIX}", "source": source,
                 "adiff": json.dumps(sample.about), "size": {"width": width, "height": height, "depth": channels},
                 "segmented": 1})  # fmt: skip
    for category, mask in sample.instances:
        box = mask_box(mask)
        at_border = box.left == 0 or box.top == 0 or box.right == width or box.bottom == height
        corners = {"xmin": box.left + 1, "ymin": box.top + 1, "xmax": box.right, "ymax": box.bottom}
        _fill(root, {"object": {"name": category, "pose": "Unspecified", "truncated": int(at_border), "difficult": 0,
                                "bndbox": corners}})  # fmt: skip
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode") + "\n"


def _fill(parent: ElementTree.Element, values: dict) -> None:
    """Add elements; a dict becomes one with elements in it."""
    for name, value in values.items():
        child = ElementTree.SubElement(parent, name)
        if isinstance(value, dict):
            _fill(child, value)
        else:
            child.text = str(value)
