"""`adiff export`: runs as one data set, in a format that training programs read."""

from __future__ import annotations

from enum import Enum
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from ..errors import InputError
from .app import keeping, left_of
from .command import check_idle
from .normals import PLACES, normals_of
from .options import Seed
from .progress import CliProgress


class Format(str, Enum):
    """Formats of data sets (`export.FORMATS`)."""

    mvtec = "mvtec"
    coco = "coco"
    yolo = "yolo"
    voc = "voc"
    folder = "folder"


def export(
    ctx: typer.Context,
    runs: Annotated[
        list[Path],
        typer.Argument(metavar="RUN...", help="Runs, as `adiff generate` writes them, or folders that the node Save "
                       "Pairs wrote to; they become one set."),
    ],
    out: Annotated[
        Path, typer.Option("--out", metavar="DIR", help="Folder to write; new, empty, or of the same export.")
    ],
    format: Annotated[Format, typer.Option("--format", help="Layout of the data set.")] = Format.mvtec,
    normals: Annotated[
        Path | None,
        typer.Option("--normals", metavar="DIR", help=f"Normal images to add, {PLACES}."),
    ] = None,
    validation: Annotated[
        float,
        typer.Option("--validation", metavar="SHARE", min=0.0, max=0.99, help="Share of the normal images for "
                     "validation, each with all pairs painted into it; with mvtec, for test/good."),
    ] = 0.0,
    polygons: Annotated[
        bool, typer.Option("--polygons", help="With coco: polygons instead of run lengths.")
    ] = False,
    extend: Annotated[
        bool, typer.Option("--extend", help="Add what the runs have got since to an export of their first pairs.")
    ] = False,
    seed: Seed = 0,
) -> None:  # fmt: skip
    """Make a data set of the finished pairs of runs; the runs stay as they are."""
    if not validation:
        check_idle(ctx, "without --validation", "seed")
    from ..export import export_runs, read_runs

    opened = read_runs(runs)
    products = dict.fromkeys(run.product for run in opened)
    good = {} if normals is None else {product: normals_of(product, normals) for product in products}
    folders = [paths[0].parent for paths in good.values()]
    if len(set(folders)) < len(folders):
        raise InputError(f"the runs show {', '.join(products)}; give --normals a folder with one for each in it")
    with CliProgress() as progress, keeping(partial(left_of, out)):
        made = export_runs(opened, out, format.value, normals=good, validation=validation, polygons=polygons,
                           seed=seed, extend=extend, progress=progress)  # fmt: skip
    typer.echo(made.told())
