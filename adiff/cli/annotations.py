"""`adiff import`: photos annotated elsewhere as a data set with masks."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from ..errors import InputError
from .app import keeping, left_of
from .progress import CliProgress


def import_(
    annotations: Annotated[
        list[Path],
        typer.Argument(metavar="ANNOTATIONS...", help="COCO's .json, a folder of labelme's .json, Supervisely's "
                       "project, YOLO's data.yaml or its folder, CVAT's .xml, a folder in Pascal VOC's layout, "
                       "Severstal's .csv, or a folder with photos and masks; several become one set."),
    ],
    out: Annotated[
        Path, typer.Option("--out", metavar="DIR", help="Folder to write; new, empty, or of the same import.")
    ],
    images: Annotated[
        Path | None,
        typer.Option("--images", metavar="DIR", help="Where the photos are.  [dim]default: by the annotations[/dim]"),
    ] = None,
    defect: Annotated[
        list[str] | None,
        typer.Option(
            "--defect", metavar="LABEL", help="Only marks of this label; once for each.  [dim]default: all[/dim]"
        ),
    ] = None,
    as_one: Annotated[
        str | None, typer.Option("--as-one", metavar="NAME", help="Take all labels as one defect of this name.")
    ] = None,
    good: Annotated[
        bool, typer.Option("--good/--no-good", help="Take photos without any mark as normal images, or leave them out.")
    ] = True,
) -> None:  # fmt: skip
    """Make a data set of photos annotated in COCO, labelme, Supervisely, YOLO, CVAT or Pascal VOC, or with masks."""
    from ..annotations import read_annotations, write_dataset

    for place in (*annotations, *filter(None, (images,))):
        if place.is_dir() and out.resolve().is_relative_to(place.resolve()):
            raise InputError(f"{out} lies in {place}, which is imported; give a folder outside it")
    photos = read_annotations(annotations, images)
    with CliProgress() as progress, keeping(partial(left_of, out)):
        made = write_dataset(photos, out, labels=defect or (), as_one=as_one, good=good, progress=progress)
    typer.echo(made.told())
