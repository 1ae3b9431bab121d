"""What `adiff train` says of the defects that it learns, before the work and after it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from ..errors import listed

if TYPE_CHECKING:
    from ..learning import Shots
    from ..library import Defect, Key, Library
    from .begun import Todo


def shots_to_learn(
    data: Path, products: Sequence[str], defects: Sequence[str], count: int | None
) -> dict[Key, Shots]:  # fmt: skip
    """Open what is asked for of a data set; warns of defects that could then not be tested on. Raises InputError."""
    from ..datasets.readers import read_dataset
    from ..evaluation.splits import tell_untested

    dataset = read_dataset(data, products, defects)
    from ..learning import open_shots  # after the folder is known to be sound: this takes seconds

    opened = open_shots(dataset, count)
    for key, shots in opened.items():
        tell_untested(data, key, *([data / name for name in names] for names in (shots.files, shots.held_out)))
    return opened


def say_what_is_learned(
    opened: Mapping[Key, Shots], library: Library, todo: Todo, encoder: Path | None
) -> None:  # fmt: skip
    """Say it before the work, which a wrong folder would spend. encoder: file of the one learned with, if any."""
    from ..backbone import demo_encoder_path

    now = dict.fromkeys(todo.anomalies + todo.masks)
    kept = ["/".join(key) for key in opened if key not in now and key in library.defects]
    if kept:
        typer.echo(f"kept as they are: {', '.join(kept)} (--restart learns them again)", err=True)
    if encoder == demo_encoder_path():
        typer.echo("spatial encoder: the demo's own, frozen (--encoder ENC learns one)", err=True)
    taken = sum(len(opened[key].files) for key in now)
    there = taken + sum(len(opened[key].held_out) for key in now)
    names = ["/".join(key) for key in now]
    what = listed(names, 4) if len(names) <= 4 else f"{len(names)} defects ({listed(names, 4)})"
    typer.echo(f"learning {what} from {taken} of {there} shots", err=True)


def say_what_was_learned(out: Path, library: Library, todo: Todo) -> None:
    """A table of what each defect got, and why the trainings ended where they did."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table("defect", "shots", "appearance", "masks", box=None, pad_edge=False, header_style="dim")
    for key in dict.fromkeys(todo.anomalies + todo.masks):
        entry = library.defects[key]
        table.add_row(Text(entry.name), str(len(entry.info["shots"])), _told(entry, "anomaly"), _told(entry, "mask"))
    Console().print(table)
    for kind, name, keys in (("anomaly", "appearances", todo.anomalies), ("mask", "masks", todo.masks)):
        if keys and (line := _why_stopped(library.defects[keys[0]].info[kind])):
            typer.echo(f"{name}: {line}")
    typer.echo(f"{out}: {len(library.defects)} {'defect' if len(library.defects) == 1 else 'defects'}")


def _told(entry: Defect, kind: str) -> str:
    about = entry.info.get(kind)
    if not about:
        return "–"
    loss = "" if about["loss"] is None else f", loss {about['loss']:.3f}"  # of a library that older versions wrote
    return f"{about['steps']} steps{loss}"


def _why_stopped(about: dict[str, Any]) -> str:
    """Where a training by held-out shots ended and which step is kept; nothing of one without."""
    if about["validation"] is None or about["stopped"] == "not finite":
        return ""
    best = f"step {about['best']}, the lowest loss of the held-out shots, is kept"
    return f"stopped early at step {about['steps']}, as nothing got better; {best}" if about["stopped"] else best
