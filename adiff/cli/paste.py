"""`adiff paste`: image-mask pairs by pasting, to mix with generated ones."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from ..errors import InputError
from . import options
from .app import keeping
from .command import given_command
from .destination import clearing
from .dual import DefectType, Product, one_defect
from .generate import PAIRS
from .generated import counted
from .normals import PLACES, normals_of
from .objects import Foreground, Found, OnObject, Place
from .options import Data, Resume, Seed, of_masks
from .progress import CliProgress


class Method(str, Enum):
    """What is pasted (`baselines.METHODS`)."""

    crop_paste = "crop-paste"
    cutpaste = "cutpaste"
    draem = "draem"


def paste(
    ctx: typer.Context,
    data: Data,
    normals: Annotated[Path, typer.Option("--normals", metavar="DIR", help=f"Images without defects, {PLACES}.")],
    out: Annotated[Path, typer.Option("--out", metavar="RUN", help="Folder of the run.")],
    product: Product = None,
    defect: DefectType = None,
    shots: options.Shots = None,
    count: Annotated[int, typer.Option("-n", min=1, help="Pairs to make.")] = PAIRS,
    method: Annotated[
        Method,
        typer.Option("--method", help="A shot's defect, turned and scaled ([b]crop-paste[/b]); a patch of the normal "
                     "image itself ([b]cutpaste[/b]); a texture by noise ([b]draem[/b])."),
    ] = Method.crop_paste,
    textures: Annotated[
        Path | None,
        typer.Option("--textures", metavar="DIR", help="Textures for draem.  [dim]default: the normal images[/dim]"),
    ] = None,
    place: Annotated[
        Place,
        of_masks("--place", help="[b]move[/b] lets all that is pasted lie on the object in its normal image."),
    ] = Place.stay,
    foreground: Foreground = None,
    find: Found = None,
    resume: Resume = True,
    seed: Seed = 0,
) -> None:  # fmt: skip
    """Make pairs by pasting, without a model: Crop-Paste, CutPaste or DRAEM; a run like one of generated pairs.

    Reports, exports and evaluations take it, and `adiff export` mixes it with others.
    """
    from ..datasets.readers import list_images

    if place is Place.learned:
        raise InputError("pasted defects are turned and scaled anyway; give --place move")
    if textures is not None and method is not Method.draem:
        raise InputError("--textures goes with --method draem")
    on = OnObject(place, foreground, find)
    key, opened = one_defect(data, product, defect, shots, "one defect is pasted")
    paths = normals_of(key[0], normals)
    given = list_images(textures) if textures is not None else ()
    objects = None if place is Place.stay else on.objects(key[0], paths)
    from ..baselines.run import paste_run
    from ..report import report_of_run

    clear = clearing(out, resume)
    command = given_command(ctx, out=out.name, resume=None)
    with CliProgress() as progress, keeping(f"finished pairs are in {out}; the same command makes the rest"):
        result = paste_run(
            method.value, key, opened, paths, count=count, out=out, textures=given, objects=objects, seed=seed,
            command=command, progress=progress, clear=clear,
        )  # fmt: skip
        if result.cancelled:
            raise KeyboardInterrupt
    report = report_of_run(out, normals=paths[0].parent)
    typer.echo(f"{counted(len(result.pairs), 'pair')} of {'/'.join(key)} in {out}; report: {report}")

