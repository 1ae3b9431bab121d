"""`adiff library`: look into library files, put them together, take them apart, exchange embeddings."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import InputError
from .app import printable
from .options import Base, DefectName

if TYPE_CHECKING:
    from ..library import Defect, Library

library = typer.Typer(rich_markup_mode="rich")
MANY = "PRODUCT/DEFECT..."

File = Annotated[Path, typer.Argument(metavar="FILE", help="Library file.")]
NewLibrary = Annotated[Path, typer.Option("--out", metavar="LIB", help="Library to write; must not exist.")]


class Prefer(str, Enum):
    """Which of several defects of one name counts (`library_edit.PREFER`)."""

    first = "first"
    last = "last"


class Kind(str, Enum):
    """Embeddings of a defect (`foreign.KINDS`)."""

    anomaly = "anomaly"
    mask = "mask"


@library.callback(invoke_without_command=True, epilog="Example:  adiff library list holes.safetensors")
def root(ctx: typer.Context) -> None:
    """Look into libraries of learned defects, join and split them, exchange embeddings with other programs."""
    if ctx.invoked_subcommand is None:
        typer.echo(ctx.get_help())


@library.command("list", epilog="Example:  adiff library list holes.safetensors")
def list_(files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="Library files.")]) -> None:
    """Print the names of a library's defects, one a line."""
    from ..library import read_header

    for opened, _ in [read_header(file) for file in files]:
        for entry in opened.defects.values():
            typer.echo(entry.name)


@library.command(epilog="Example:  adiff library show holes.safetensors wood/hole")
def show(
    file: File,
    name: Annotated[
        str | None, typer.Argument(metavar="PRODUCT/DEFECT", help="Which defect.  [dim]default: all[/dim]")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Print what a library holds and how it was learned."""
    from ..library import read_header

    opened, shapes = read_header(file)
    entries = list(opened.defects.values()) if name is None else [opened.get(name)]
    if as_json:
        about = about_library(opened) | {"defects": {entry.name: about_defect(entry, shapes) for entry in entries}}
        typer.echo(json.dumps(about, indent=1))
        return
    lines = [] if name is not None else [*_lines(about_library(opened))]
    for entry in entries:
        about = about_defect(entry, shapes)
        about["shapes"] = {kind: shape and " x ".join(map(str, shape)) for kind, shape in about["shapes"].items()}
        lines += [*([""] if lines else []), entry.name, *_lines(about, "  ")]
    for line in lines:
        typer.echo(line)


@library.command(epilog="Example:  adiff library merge holes.safetensors knots.safetensors --out wood.safetensors")
def merge(
    files: Annotated[list[Path], typer.Argument(metavar="FILE FILE...", help="Libraries of one base model.")],
    out: NewLibrary,
    prefer: Annotated[
        Prefer | None,
        typer.Option("--prefer", help="Which counts where a name comes twice.  [dim]default: refuse[/dim]"),
    ] = None,
) -> None:
    """Join libraries of one base model and one spatial encoder."""
    from ..library import load_library, save_library
    from ..library_edit import HeldTwice
    from ..library_edit import merge as merged

    check_new(out, ".safetensors")
    try:
        joined = merged({str(file): load_library(file) for file in files}, prefer.value if prefer else None)
    except HeldTwice as error:
        raise InputError(f"{error}, with --prefer") from None
    save_library(out, joined)
    typer.echo(f"{out}: {_count(joined)}")


@library.command(epilog="Example:  adiff library split wood.safetensors wood/hole --out holes.safetensors")
def split(
    file: File,
    names: Annotated[list[str], typer.Argument(metavar=MANY, help="Defects to take.")],
    out: NewLibrary,
) -> None:
    """Copy some of a library's defects to a library of their own."""
    from ..library import load_library, save_library
    from ..library_edit import split as taken

    check_new(out, ".safetensors")
    part = taken(load_library(file), names)
    save_library(out, part)
    typer.echo(f"{out}: {_count(part)}")


@library.command(epilog="Example:  adiff library rename wood.safetensors wood/hole oak/hole")
def rename(
    file: File,
    old: DefectName,
    new: Annotated[str, typer.Argument(metavar="NEW", help="New name, PRODUCT/DEFECT.")],
) -> None:
    """Give a defect another name, in the file."""
    from ..curation import edit_library
    from ..library_edit import rename as renamed

    edit_library(file, lambda opened: renamed(opened, old, new))
    typer.echo(f"{file}: {old} is now {new}")


@library.command(epilog="Example:  adiff library remove wood.safetensors wood/hole")
def remove(file: File, names: Annotated[list[str], typer.Argument(metavar=MANY, help="Defects to remove.")]) -> None:
    """Remove defects from a library, in the file."""
    from ..curation import edit_library
    from ..library_edit import remove as without

    left = edit_library(file, lambda opened: without(opened, names))
    typer.echo(f"{file}: {_count(left)}")


@library.command(epilog="Example:  adiff library note wood.safetensors wood/hole --author Ada --licence CC0-1.0")
def note(
    file: File,
    name: DefectName,
    author: Annotated[str | None, typer.Option("--author", help="Who learned it; an empty text takes it out.")] = None,
    licence: Annotated[str | None, typer.Option("--licence", help="Under which others may use it.")] = None,
    text: Annotated[str | None, typer.Option("--text", help="Anything else.")] = None,
    tags: Annotated[
        str | None, typer.Option("--tags", metavar="TAG,TAG", help="What it is filed under, instead of what it was.")
    ] = None,
) -> None:
    """Write author, licence, a note and tags into a defect's record, in the file."""
    from ..curation import edit_library
    from ..library_edit import revise

    notes = {"author": author, "licence": licence, "notes": text}
    if tags is None and not any(value is not None for value in notes.values()):
        raise InputError(f"nothing to note on {name}; give --author, --licence, --text or --tags")
    words = None if tags is None else tags.split(",")
    edit_library(file, lambda opened: revise(opened, name, notes=notes, tags=words))
    typer.echo(f"{file}: {name} is noted")


@library.command(epilog="Example:  adiff library preview wood.safetensors wood/hole --out hole.png")
def preview(
    file: File,
    name: DefectName,
    out: Annotated[Path, typer.Option("--out", metavar="PNG", help="Picture to write; must not exist.")],
) -> None:
    """Write a defect's picture as PNG."""
    from einops import rearrange

    from ..datasets.images import write_png
    from ..library import load_library

    check_new(out, ".png")
    entry = load_library(file).get(name)
    if entry.preview is None:
        raise InputError(f"{entry.name} has no preview; `adiff train` makes one from its first shot")
    write_png(out, rearrange(entry.preview, "c h w -> h w c").numpy())
    typer.echo(f"{out}: {entry.preview.shape[2]} x {entry.preview.shape[1]} pixels")


@library.command("import", epilog="Example:  adiff library import rust.pt metal/rust --to metal.safetensors "
                 "--base v1-5-pruned.safetensors")  # fmt: skip
def import_(
    source: Annotated[Path, typer.Argument(metavar="SOURCE", help="Textual inversion: .pt, .bin or .safetensors.")],
    name: Annotated[str, typer.Argument(metavar="PRODUCT/DEFECT", help="What to call it.")],
    to: Annotated[Path, typer.Option("--to", metavar="LIB", help="Library to add to, or to write.")],
    base: Base = "demo",
    what: Annotated[Kind, typer.Option("--what", help="What it is to be used as.")] = Kind.anomaly,
) -> None:
    """Add a textual inversion of A1111's or diffusers' to a library, as the prompt that it is; nothing in it is run."""
    from ..curation import edit_library
    from ..foreign import NO_ENCODER, OWN, add_foreign, behind_text_encoder, read_embedding
    from ..learning import open_library
    from ..library import load_library, parse_name, save_library

    key = parse_name(name)
    if to.suffix != ".safetensors":
        raise InputError(f"--to {to} has to end in .safetensors")
    foreign = read_embedding(source)
    if to.exists():
        load_library(to)  # before the base model, which takes seconds
    from ..backbone import load_backbone
    from ..backbone.precision import AUTO

    backbone = load_backbone(base, precision=AUTO)
    begun = open_library(to, backbone)
    placed = behind_text_encoder(foreign, base, backbone)

    def added(opened: Library) -> Library:
        return add_foreign(opened, key, what.value, placed, backbone)

    if to.exists():
        edit_library(to, added)
    else:
        save_library(to, added(begun))
    if placed is foreign and foreign.source["format"] != OWN:
        logging.getLogger("adiff").warning(NO_ENCODER)
    count = foreign.vectors.shape[0]
    typer.echo(f"{to}: {name}, {count} {'token' if count == 1 else 'tokens'} from {source}")


@library.command(epilog="Example:  adiff library export wood.safetensors wood/hole --out hole.safetensors")
def export(
    file: File,
    name: DefectName,
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help=".safetensors to write; must not exist.")],
    what: Annotated[Kind, typer.Option("--what", help="Which embedding.")] = Kind.anomaly,
) -> None:
    """Write an embedding as a textual inversion that A1111's web UI and diffusers read."""
    from ..foreign import OTHER_SPACE, write_embedding
    from ..library import load_library

    check_new(out, ".safetensors")
    vectors = write_embedding(out, load_library(file), name, what.value)
    logging.getLogger("adiff").warning(OTHER_SPACE)
    typer.echo(f"{out}: {vectors.shape[0]} tokens of width {vectors.shape[1]}")


def check_new(path: Path, suffix: str) -> None:
    """Raise InputError for a file that is there already, or does not end as it should."""
    if path.suffix.lower() != suffix:
        raise InputError(f"--out {path} has to end in {suffix}")
    if path.exists():
        raise InputError(f"{path} exists; remove it or give another --out")


def about_library(opened: Library) -> dict[str, Any]:
    """What a library says of itself."""
    return {
        "base": opened.base_name,
        "base_fingerprint": opened.base_fingerprint,
        "context_width": opened.context_dim,
        "encoder_fingerprint": opened.encoder_fingerprint,
        "info": opened.info,
    }


def about_defect(entry: Defect, shapes: Mapping[str, list[int]]) -> dict[str, Any]:
    """What a defect holds, as shapes, and its record. shapes: of the file's tensors."""
    held = {kind: shapes.get(f"{kind}/{entry.name}") for kind in ("anomaly", "mask", "preview")}
    packed = shapes.get(f"shots/{entry.name}")  # 8 pixels a byte
    return {"shapes": {**held, "shot_masks": packed and packed[:2] + packed[1:2]}, "info": entry.info}


def _count(opened: Library) -> str:
    return f"{len(opened.defects)} {'defect' if len(opened.defects) == 1 else 'defects'}"


def _lines(content: dict[str, Any], under: str = "") -> list[str]:
    """A record as lines of name and value; tables inside it are indented. What is empty is left out."""
    lines: list[str] = []
    for name, value in content.items():
        if value in (None, "", [], {}):
            continue
        if isinstance(value, dict):
            lines += [f"{under}{_plain(name)}", *_lines(value, f"{under}  ")]
        else:
            if isinstance(value, list) and isinstance(value[0], list):
                told = f"{len(value)} points (--json tells them)"
            else:
                told = ", ".join(map(_plain, value)) if isinstance(value, list) else _plain(value)
            lines.append(f"{under + _plain(name):<22}  {told}")
    return lines


def _plain(value: Any) -> str:
    return printable(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))
