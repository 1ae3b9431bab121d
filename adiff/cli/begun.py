"""What lies beside a library while it is trained: states to go on from, and what they are to replace."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import typer

from ..errors import InputError
from ..storage import clear_folder, read_json_object, write_json, write_whole

if TYPE_CHECKING:
    from ..library import Key, Library

ANOMALIES, MASKS = "anomalies.safetensors", "masks.safetensors"
STATES = {ANOMALIES: "anomaly", MASKS: "mask"}
"""Files of a state's folder, and what each learns of a defect."""
BEGUN = "begun.json"
"""File of a state's folder with what its training has begun to replace.

anew: part -> names of the defects that --restart learns anew, while the library still holds the old ones. encoder: the
file that a spatial encoder will be written to. aside: the library was put aside as it was before.
"""


class Todo(NamedTuple):
    """Entries that still want an anomaly embedding, and those that want a mask embedding."""

    anomalies: list[Key]
    masks: list[Key]


def state_folder(out: Path) -> Path:
    """Where an interrupted training's state lies: beside the library."""
    return out.with_name(f"{out.name}.state")


def encoder_beside(library: Path) -> Path:
    """Where a library's own spatial encoder lies unless told otherwise."""
    return library.with_suffix(f".encoder{library.suffix}")


def previous(out: Path) -> Path:
    """Where a library is kept as it was before the training that changes it."""
    return out.with_suffix(f".previous{out.suffix}")


def begun(out: Path) -> dict[str, Any]:
    """What the interrupted training of a library has begun to replace, see BEGUN; nothing if there is none."""
    try:
        return read_json_object(state_folder(out) / BEGUN)
    except (InputError, FileNotFoundError):
        return {}


def note_begun(out: Path, **fields: Any) -> None:
    """Change what is noted of a training; a field of nothing goes."""
    noted = {name: value for name, value in (begun(out) | fields).items() if value}
    write_json(state_folder(out) / BEGUN, noted)


def begun_anew(out: Path, asked: Sequence[str]) -> dict[str, list[str]]:
    """What an interrupted --restart has not learned yet: it goes on for the defects that it has a state of."""
    from ..training.state import names_in

    drawn = set().union(*(names_in(state_folder(out) / state) for state in STATES))
    noted = {part: [n for n in found if n in asked] for part, found in begun(out).get("anew", {}).items()}
    return {part: found for part, found in noted.items() if drawn & set(found)}


def put_aside(out: Path, encoder: Path | None) -> None:
    """Copy a library, and the encoder that is to be learned anew with it, to where they are kept as they were, once."""
    if begun(out).get("aside") or not out.exists():
        return
    for file, copy in ((out, previous(out)), (encoder, encoder_beside(previous(out)))):
        if file is not None and file.exists():
            write_whole(copy, partial(shutil.copy2, file))
    note_begun(out, aside=True)
    typer.echo(f"{out} as it was before is kept in {previous(out)}")


def what_is_left(learned: Sequence[Path]) -> str:
    """What an interrupted training says of the files that hold what it has learned."""
    if not learned:
        return "nothing is learned yet; the same command begins again"
    return f"what is learned is in {' and '.join(map(str, learned))}; the same command without --restart goes on"


def discard_learned(folder: Path, library: Library, todo: Todo) -> None:
    """Remove the states of what was learned now and of what the library holds; with the last one goes all else there.

    Those of other defects, or of the other part, wait for the command that left them.
    """
    from ..training.loop import discard_state
    from ..training.state import names_in

    for (state, part), now in zip(STATES.items(), todo, strict=True):
        learned = names_in(folder / state)
        stored = {e.name for e in library.defects.values() if getattr(e, part) is not None}
        if now or (learned and learned <= stored):
            discard_state(folder / state)
    if not any((folder / state).exists() for state in STATES):
        clear_folder(folder)
