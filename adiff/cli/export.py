"""`adiff export`: runs as one data set, in a format that training programs read."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import InputError
from .app import keeping
from .jobs import normals_of
from .options import Seed
from .progress import CliProgress

if TYPE_CHECKING:
    from ..export import Exported


class Format(str, Enum):
    """Formats of data sets (`export.FORMATS`)."""

    mvtec = "mvtec"
    coco = "coco"
    yolo = "yolo"
    voc = "voc"
    folder = "folder"


def export(
    runs: Annotated[
        list[Path], typer.Argument(metavar="RUN...", help="Runs, as `adiff generate` writes them; they become one set.")
    ],
    out: Annotated[
        Path, typer.Option("--out", metavar="DIR", help="Folder to write; new, empty, or of the same export.")
    ],
    format: Annotated[Format, typer.Option("--format", help="Layout of the data set.")] = Format.mvtec,
    normals: Annotated[
        Path | None,
        typer.Option("--normals", metavar="DIR", help="Normal images to add, in DIR, DIR/PRODUCT or "
                     "DIR/PRODUCT/train/good."),
    ] = None,
    validation: Annotated[
        float,
        typer.Option("--validation", metavar="SHARE", min=0.0, max=0.99, help="Share of the images for validation; "
                     "with mvtec, of the normal images for test/good."),
    ] = 0.0,
    polygons: Annotated[
        bool, typer.Option("--polygons", help="With coco: polygons instead of run lengths.")
    ] = False,
    seed: Seed = 0,
) -> None:  # fmt: skip
    """Make a data set of the finished pairs of runs; the runs stay as they are."""
    from ..export import export_runs, read_runs

    opened = read_runs(runs)
    products = dict.fromkeys(run.product for run in opened)
    good = {} if normals is None else {product: normals_of(product, normals) for product in products}
    folders = [paths[0].parent for paths in good.values()]
    if len(set(folders)) < len(folders):
        raise InputError(f"the runs show {', '.join(products)}; give --normals a folder with one for each in it")
    with CliProgress() as progress, keeping(f"what is done is in {out}; the same command completes it"):
        made = export_runs(opened, out, format.value, normals=good, validation=validation, polygons=polygons,
                           seed=seed, progress=progress)  # fmt: skip
    typer.echo(_told(made, format))


def _told(made: Exported, format: Format) -> str:
    def number(counts: dict[str, int], what: str) -> str:
        parts = ", ".join(f"{count} {split}" for split, count in counts.items())
        return f"{sum(counts.values())} {what}" + (f" ({parts})" if all(counts.values()) else "")

    good = f" and {number(made.normals, 'normal images')}" if any(made.normals.values()) else ""
    return f"{number(made.pairs, 'pairs')} of {', '.join(made.categories)}{good} in {made.out}, as {format.value}"
