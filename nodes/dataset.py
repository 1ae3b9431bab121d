"""Load a few photos of defects with their masks, to learn from."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import folder_paths
from comfy_api.latest import io, ui

from ..adiff.annotations import is_annotated, read_annotations, write_dataset
from ..adiff.datasets.readers import MOST, Dataset, read_dataset
from ..adiff.datasets.surfaces import WITHHELD, render, sample_seed
from ..adiff.errors import InputError
from ..adiff.learning import Shots, open_shots
from ..adiff.library import Key
from .files import dataset_folder, dataset_folders, found_or_why
from .pictures import as_image, shot_sheet
from .search import found_by
from .sockets import CATEGORY, DatasetSocket, DefectDataset

MASK_FOLDERS = ("masks", "ground_truth")
"""Folders of a data set's masks, beside which annotations are not looked for."""
DRAWN = "built in: "
DRAWN_SIZE, DRAWN_LIMIT = 128, 20
"""Pixels of a drawn photo's side, and how many there are of a defect."""


class LoadDefectDataset(io.ComfyNode):
    """A folder under input/ -> shots."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Declare inputs and outputs."""
        return io.Schema(
            node_id="ADiffLoadDefectDataset",
            display_name="Load Defect Dataset",
            category=f"{CATEGORY}/train",
            **found_by("MVTec", "photos", "few-shot", "COCO", "labelme", "Supervisely", "YOLO"),
            description="A few photos of a defect with their masks, to learn from. Put a folder into ComfyUI's input "
            "folder, with photos in images/ and a mask of the same name for each in masks/; MVTec AD's layout works "
            "too, and photos annotated in COCO, labelme, Supervisely, YOLO or Pascal VOC. The built-in ones are "
            "drawn, for the demo model. For masks painted in ComfyUI take Add Shots.",
            inputs=[
                io.Combo.Input(
                    "data", options=[*_drawn_names(), *dataset_folders()], default=_drawn_names()[0],
                    tooltip="A folder in ComfyUI's input folder, or a drawn set to try things out with",
                ),
                io.String.Input(
                    "product", default="", tooltip="Only these products, separated by commas; empty takes all"
                ),
                io.String.Input(
                    "defect", default="",
                    tooltip="Only these defects, separated by commas; empty takes all. The defect in a folder of "
                    "images/ and masks/ gets this name",
                ),
                io.Int.Input(
                    "shots", default=8, min=1, max=1000,
                    tooltip="Photos to learn from of each defect, at most: those with the lowest numbers. From 4 on "
                    "the training can stop by itself",
                ),
            ],
            outputs=dataset_outputs(),
        )  # fmt: skip

    @classmethod
    def validate_inputs(cls, data: str) -> bool | str:
        """Say how a folder must look instead of "value not in list"."""
        return found_or_why(lambda name: name.startswith(DRAWN) or dataset_folder(name), data)

    @classmethod
    def fingerprint_inputs(cls, data: str, product: str, defect: str, shots: int) -> str:
        """Run again when a file of the folder has changed."""
        if data.startswith(DRAWN):
            return data
        return _digest(dataset_folder(data))

    @classmethod
    def execute(cls, data: str, product: str, defect: str, shots: int) -> io.NodeOutput:
        """Find the photos and open them."""
        if data.startswith(DRAWN):
            opened = _drawn(data, shots)
        else:
            opened = _opened(_read(dataset_folder(data), _listed(product), _listed(defect)), shots)
        return shown(cls, DefectDataset(data, opened))


def dataset_outputs() -> list[io.Output]:
    """The outputs of a node that gives a data set; `shown` fills them."""
    return [
        DatasetSocket.Output("DATASET", display_name="dataset", tooltip="For Train Defects and Train Masks"),
        io.Image.Output("SHOTS", display_name="shots", tooltip="The photos, their masks outlined"),
        io.String.Output("REPORT", display_name="report", tooltip="What was found"),
    ]


def shown(cls: type[io.ComfyNode], dataset: DefectDataset) -> io.NodeOutput:
    """A data set with its picture and what is to be said of it."""
    sheet = as_image(shot_sheet(dataset.shots))
    report = "\n".join(_told(key, one) for key, one in dataset.shots.items())
    return io.NodeOutput(dataset, sheet, report, ui=ui.PreviewImage(sheet, cls=cls))


def _drawn_names() -> list[str]:
    return [f"{DRAWN}{product}/{defect}" for product, defect in WITHHELD]


def _drawn(name: str, count: int) -> dict[Key, Shots]:
    """Draw photos of a defect that the demo model has never seen."""
    if name not in _drawn_names():
        raise InputError(f"there is no {name!r}; choose one of {', '.join(_drawn_names())}")
    product, defect = name.removeprefix(DRAWN).split("/")
    taken = range(min(count, DRAWN_LIMIT))
    drawn = [render(product, defect, DRAWN_SIZE, sample_seed(0, product, defect, "test", i)) for i in taken]
    files = tuple(f"{product}/test/{defect}/{i:03d}.png" for i in taken)
    return {(product, defect): Shots([(one.image, one.mask) for one in drawn], files, (), ())}


def _digest(folder: Path) -> str:
    """A digest of the names, times and sizes of all that a folder holds."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        about = path.lstat()
        digest.update(f"{path} {about.st_mtime_ns} {about.st_size}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def _read(folder: Path, products: Sequence[str], defects: Sequence[str]) -> Dataset:
    """Find the photos of a folder; of an annotated one in the data set that it becomes, in ComfyUI's temp folder."""
    try:
        return read_dataset(folder, products, defects)
    except InputError:
        if any(path.name in MASK_FOLDERS for path in folder.rglob("*")) or not is_annotated(folder):
            raise  # who has masks wants these, and to know what is wrong with them
    made = Path(folder_paths.get_temp_directory()) / "adiff_annotations" / _digest(folder)[:16] / folder.name
    write_dataset(read_annotations([folder]), made, good=False)
    return read_dataset(made, products, defects)


def _opened(dataset: Dataset, count: int) -> dict[Key, Shots]:
    """Open the `count` shots of each defect with the lowest numbers, or as many as there are."""
    opened: dict[Key, Shots] = {}
    for key, files in dataset.shots.items():
        opened |= open_shots(replace(dataset, shots={key: files}), min(count, len(files)))
    return opened


def _listed(names: str) -> Sequence[str]:
    return [name.strip() for name in names.split(",") if name.strip()]


def _told(key: Key, shots: Shots) -> str:
    areas = [100 * mask.mean() for mask in shots.masks]
    sizes = sorted({f"{image.shape[1]} x {image.shape[0]}" for image, _ in shots.pairs})
    more = f", {len(shots.held_out)} more left for tests" if shots.held_out else ""
    grey = f", {len(shots.grey_masks)} grey masks cut at half of full scale" if shots.grey_masks else ""
    large = sum(area > 100 * MOST for area in areas)
    white = f"; {large} mark more than {100 * MOST:g} %: white marks the defect, else invert them" if large else ""
    size = f"masks {min(areas):.3g} to {max(areas):.3g} % of the image"
    count = "1 shot" if len(shots.pairs) == 1 else f"{len(shots.pairs)} shots"
    return f"{'/'.join(key)}: {count} of {', '.join(sizes)}, {size}{white}{more}{grey}"
