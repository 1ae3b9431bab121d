"""Export: what Save Pairs wrote, as one data set in a format that training programs read."""

from __future__ import annotations

import tempfile
from collections.abc import Hashable, Mapping, Sequence
from itertools import count
from pathlib import Path

import folder_paths
import torch
from comfy_api.latest import io, ui

from ..adiff.datasets.images import name_of, write_png
from ..adiff.errors import InputError
from ..adiff.export import FORMATS, Exported, Run, TakenError, export_runs, read_saved
from .finish import output_folder
from .host import GraphProgress, levels_of
from .search import found_by
from .sockets import CATEGORY
from .written import Written

_made = Written()


class ExportPairs(io.ComfyNode):
    """A folder of Save Pairs -> a data set beside it.

    A node of its own, as pairs are saved with each queued graph but exported once they are all there, and another
    choice in Save Pairs would make it save the same pairs again.
    """

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Declare inputs and outputs."""
        return io.Schema(
            node_id="ADiffExportPairs",
            display_name="Export Pairs",
            category=f"{CATEGORY}/finish",
            **found_by("MVTec", "COCO", "YOLO", "VOC", "dataset", "annotations"),
            description="Makes a data set of all pairs in a folder of Save Pairs, in a format that training programs "
            "read. It is written beside that folder under ComfyUI's output folder; the pairs stay as they are.",
            is_output_node=True,
            inputs=[
                io.String.Input(
                    "folder", default="adiff",
                    tooltip="The folder that Save Pairs wrote to; connect its output to export after it has saved",
                ),
                io.Combo.Input(
                    "format", options=list(FORMATS), default="coco",
                    tooltip="mvtec and folder are folders of images and masks; coco, yolo and voc list every defect",
                ),
                io.String.Input(
                    "product", default="", tooltip="Only these products, separated by commas; empty takes all"
                ),
                io.Float.Input(
                    "validation", default=0.0, min=0.0, max=0.9, step=0.05,
                    tooltip="Share of the images to keep apart for validation; with mvtec, of the normal ones",
                ),
                io.Boolean.Input("polygons", default=False, tooltip="With coco: polygons instead of run lengths"),
                io.Image.Input(
                    "normals", optional=True, tooltip="Images without defects to add, of the one product exported"
                ),
            ],
            outputs=[
                io.String.Output("FOLDER", display_name="folder", tooltip="Where the data set is"),
                io.String.Output("REPORT", display_name="report", tooltip="What it holds"),
            ],
        )  # fmt: skip

    @classmethod
    def fingerprint_inputs(
        cls, folder: str | None = None, product: str | None = None, normals=None, **choices
    ) -> str | float:
        """Run again when pairs have come or gone or the data set is deleted, and always if a node gives the folder."""
        if not isinstance(folder, str) or not isinstance(product, str):
            return float("nan")
        try:
            digests = [run.digest(run.ids) for run in _saved(folder, product)]
        except InputError:
            return float("nan")
        return " ".join([*digests, str(_made.losses(_told(folder, product, **choices)))])

    @classmethod
    def execute(
        cls, folder: str, format: str, product: str, validation: float, polygons: bool, normals=None
    ) -> io.NodeOutput:
        """Find the pairs and export them."""
        runs = _saved(folder, product)
        with tempfile.TemporaryDirectory(dir=_temporary()) as place:
            given = {} if normals is None else _written(normals, runs, Path(place))
            options = {"normals": given, "validation": validation, "polygons": polygons and format == "coco"}
            made = _exported(folder, runs, format, options)
        _made.add(_told(folder, product, format=format, validation=validation, polygons=polygons), made.out)
        report = made.told(f"output/{made.out.relative_to(output_folder('')).as_posix()}")
        return io.NodeOutput(str(made.out), report, ui=ui.PreviewText(report))


def _told(folder: str, product: str, **choices) -> Hashable:
    """What an export was asked for, without the normal images."""
    return folder, product, frozenset(choices.items())


def _saved(folder: str, product: str) -> list[Run]:
    """The pairs in a folder under ComfyUI's output folder, by product and defect; InputError if there are none."""
    wanted = [name.strip() for name in product.split(",") if name.strip()]
    found = read_saved(output_folder(folder))
    runs = [run for run in found if not wanted or run.product in wanted]
    if not runs:
        there = ", ".join(dict.fromkeys(run.product for run in found)) or "none"
        what = f"no pairs of {', '.join(wanted)}" if found else "no pairs"
        raise InputError(f"output/{folder} holds {what} that Save Pairs wrote; give its folder (products: {there})")
    return runs


def _exported(folder: str, runs: Sequence[Run], format: str, options: Mapping) -> Exported:
    """Export beside the folder; into the first place that is free or holds this export of fewer pairs."""
    place = output_folder(folder).relative_to(output_folder("")).as_posix()
    plain = format if place == "." else f"{place}-{format}"
    for number in count(1):
        out = output_folder(plain if number == 1 else f"{plain}-{number}")
        try:
            return export_runs(runs, out, format, extend=True, progress=GraphProgress(), **options)
        except TakenError:
            continue


def _written(normals: torch.Tensor, runs: Sequence[Run], place: Path) -> dict[str, list[Path]]:
    """Write normal images where an export finds them, named by their content: another one is another data set."""
    products = sorted({run.product for run in runs})
    if len(products) > 1:
        raise InputError(f"the pairs show {', '.join(products)}; normal images are of one product: choose it")
    paths = {}
    for image in normals:
        pixels = levels_of(image)
        path = place / name_of(pixels)
        write_png(path, pixels)
        paths[path] = None
    return {products[0]: list(paths)}


def _temporary() -> Path:
    """ComfyUI's folder for temporary files, which it makes no sooner than it needs it."""
    folder = Path(folder_paths.get_temp_directory())
    folder.mkdir(parents=True, exist_ok=True)
    return folder
