"""Lay drawn surfaces out as MVTec AD: its categories, folder and file names, numbers and sizes of images, grey levels.

    python -m tools.mvtec_layout OUT [--share 0.1] [--category bottle ...]

The real set may not be passed on, and is at hand nowhere that tests run. What reads this copy reads the real one; what
it measures on it says nothing of the real one. A copy that was begun is completed.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from adiff.datasets.surfaces import DEFECTS, render, sample_seed
from adiff.datasets.writers import write_mvtec_good, write_mvtec_pair

LEAST = 6
"""Images of each kind that a smaller copy keeps: a third of a defect's must teach, and some must test."""
PAPERS = ("license.txt", "readme.txt")
"""Files beside a category's folders."""


@dataclass(frozen=True)
class Category:
    """size: side of an image, pixels. train, good: normal images for training and testing. defects: name -> images.

    surface: the drawn product in its place. grey: whether its files have a single channel.
    """

    size: int
    train: int
    good: int
    defects: Mapping[str, int]
    surface: str
    grey: bool = False


CATEGORIES = {
    "bottle": Category(900, 209, 20, {"broken_large": 20, "broken_small": 22, "contamination": 21}, "gasket"),
    "cable": Category(1024, 224, 58, {
        "bent_wire": 13, "cable_swap": 12, "combined": 11, "cut_inner_insulation": 14, "cut_outer_insulation": 10,
        "missing_cable": 12, "missing_wire": 10, "poke_insulation": 10}, "gasket"),
    "capsule": Category(1000, 219, 23, {
        "crack": 23, "faulty_imprint": 22, "poke": 21, "scratch": 23, "squeeze": 20}, "gasket"),
    "carpet": Category(1024, 280, 28, {
        "color": 19, "cut": 17, "hole": 17, "metal_contamination": 17, "thread": 19}, "carpet"),
    "grid": Category(1024, 264, 21, {
        "bent": 12, "broken": 12, "glue": 11, "metal_contamination": 11, "thread": 11}, "metal", grey=True),
    "hazelnut": Category(1024, 391, 40, {"crack": 18, "cut": 17, "hole": 18, "print": 17}, "gasket"),
    "leather": Category(1024, 245, 32, {"color": 19, "cut": 19, "fold": 17, "glue": 19, "poke": 18}, "leather"),
    "metal_nut": Category(700, 220, 22, {"bent": 25, "color": 22, "flip": 23, "scratch": 23}, "metal"),
    "pill": Category(800, 267, 26, {
        "color": 25, "combined": 17, "contamination": 21, "crack": 26, "faulty_imprint": 19, "pill_type": 9,
        "scratch": 24}, "gasket"),
    "screw": Category(1024, 320, 41, {
        "manipulated_front": 24, "scratch_head": 24, "scratch_neck": 25, "thread_side": 23, "thread_top": 23},
        "gasket", grey=True),
    "tile": Category(840, 230, 33, {"crack": 17, "glue_strip": 18, "gray_stroke": 16, "oil": 18, "rough": 15}, "tile"),
    "toothbrush": Category(1024, 60, 12, {"defective": 30}, "gasket"),
    "transistor": Category(1024, 213, 60, {
        "bent_lead": 10, "cut_lead": 10, "damaged_case": 10, "misplaced": 10}, "metal"),
    "wood": Category(1024, 247, 19, {"color": 8, "combined": 11, "hole": 10, "liquid": 10, "scratch": 21}, "wood"),
    "zipper": Category(1024, 240, 32, {
        "broken_teeth": 19, "combined": 16, "fabric_border": 17, "fabric_interior": 16, "rough": 17,
        "split_teeth": 18, "squeezed_teeth": 16}, "metal", grey=True),
}  # fmt: skip
"""Bergmann et al., CVPR 2019, Table 1; the defects are the folders of the archive."""


def kind_of(category: Category, defect: str) -> str:
    """The drawn kind in the place of a defect: the one that its name tells, else one by its place in the list."""
    told = [kind for kind in DEFECTS if kind in defect]
    return told[0] if told else DEFECTS[list(category.defects).index(defect) % len(DEFECTS)]


def reduced(count: int, share: float) -> int:
    """A share of a number of images, LEAST of them at least where there are so many."""
    return min(count, max(LEAST, math.ceil(count * share)))


def lay_out(out: Path, names: Sequence[str], share: float = 1.0, seed: int = 0) -> Iterator[Path]:
    """Write categories and yield each image's path; those that are there are kept.

    share: of each kind's images, the first ones. Raises KeyError for a category that MVTec AD does not have.
    """
    for name in names:
        category, folder = CATEGORIES[name], out / name
        folder.mkdir(parents=True, exist_ok=True)
        for paper in PAPERS:
            (folder / paper).write_text("Drawn surfaces in the layout of MVTec AD. CC0-1.0\n", "utf-8")
        kinds = [("train", None, category.train), ("test", None, category.good)]
        kinds += [("test", defect, count) for defect, count in category.defects.items()]
        for split, defect, count in kinds:
            for index in range(reduced(count, share)):
                path = folder / split / (defect or "good") / f"{index:03d}.png"
                if not path.exists():
                    _write(out, name, split, defect, index, seed)
                yield path


def _write(out: Path, name: str, split: str, defect: str | None, index: int, seed: int) -> None:
    """Draw an image, and write it after its mask."""
    category, stem = CATEGORIES[name], f"{index:03d}"
    kind = None if defect is None else kind_of(category, defect)
    surface = render(category.surface, kind, category.size, sample_seed(seed, name, defect, split, index))
    image = _grey(surface.image) if category.grey else surface.image
    if defect is None:
        write_mvtec_good(out, name, split, stem, image)
    else:
        write_mvtec_pair(out, name, defect, stem, image, surface.mask)


def _grey(image: np.ndarray) -> np.ndarray:
    """The mean of the channels: (H, W, 3) uint8 -> (H, W) uint8."""
    return image.mean(axis=2).round().astype(np.uint8)


def main() -> None:
    """Write a copy; the command above."""
    parser = argparse.ArgumentParser(prog="python -m tools.mvtec_layout", description=__doc__.partition("\n")[0])
    parser.add_argument("out", type=Path, help="folder to write")
    parser.add_argument("--share", type=float, default=1.0, help="of each kind's images; default: all 5354")
    parser.add_argument("--category", action="append", choices=list(CATEGORIES), help="once for each; default: all")
    given = parser.parse_args()
    written = sum(1 for _ in lay_out(given.out, given.category or list(CATEGORIES), given.share))
    print(f"{written} images in {given.out}")


if __name__ == "__main__":
    main()
