"""What the library panel sees and does: every library with its defects, edits in the files, and taking them back."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import folder_paths

from ..adiff.curation import Journal, state_of
from ..adiff.errors import InputError
from ..adiff.library import Defect, Library
from ..adiff.library_edit import NOTES, remove, revise, tags_of
from .files import BUILT_IN, LIBRARIES, find_library, label_of, library_names, library_path

log = logging.getLogger("adiff")
LONGEST = 4000
"""Characters of a note."""
LOCKS = {
    "pack": "it comes with the pack; save a copy with Save Library",
    "link": "it is a link to a file outside the model folders; edit it there",
    "file": "the file or its folder is read-only",
}
"""Why a library takes no edits, by the word that the panel has its own languages' texts for."""
_journal = Journal()


def listing() -> dict[str, Any]:
    """Return every library that can be read, and of the others why not."""
    libraries, damaged = [], []
    for name in library_names():
        try:
            libraries.append(about_library(name))
        except (InputError, OSError) as error:
            damaged.append({"name": name, "why": _told(error, name)})
    return {"libraries": libraries, "damaged": damaged}


def about_library(name: str) -> dict[str, Any]:
    """Return a library as the panel shows it. state: to be given back with an edit; locked: one of LOCKS."""
    path = library_path(name)
    state = state_of(path)  # before it is read, so that a file which changes in between is taken for the old one
    library = find_library(name).library
    return {
        "name": name,
        "state": state,
        "locked": _lock_of(name, path),
        "base": library.base_name,
        "defects": [_about_defect(name, entry) for entry in library.defects.values()],
    }


def edit(request: Mapping[str, Any]) -> dict[str, Any]:
    """Change names, notes or tags of defects, of all or of none. Returns the edit's name, the library, the new names.

    request: {"library", "seen", "edits": {"product/defect": {"name"?, "notes"?, "tags"?}, ...}}; a name is given to a
    single one. Raises InputError for another request, and what `Journal.edit` raises.
    """
    given = _fields(request, {"library": str, "seen": str, "edits": dict})
    edits = {name: _wanted(one) for name, one in given["edits"].items()}
    if len(edits) > 1 and any("new_name" in wanted for wanted in edits.values()):
        raise InputError(f"{len(edits)} defects in one edit and a new name; rename one at a time")
    path = editable_path(given["library"])

    def change(library: Library) -> Library:
        for name, wanted in edits.items():
            library = revise(library, name, **wanted)
        return library

    number, _ = _journal.edit(path, list(edits), change, given["seen"])
    names = [wanted.get("new_name", name) for name, wanted in edits.items()]
    return {"edit": number, "library": about_library(given["library"]), "names": names}


def take_out(request: Mapping[str, Any]) -> dict[str, Any]:
    """Remove defects, all or none. request: {"library", "seen", "defects": [...]}; returns and raises as `edit` does.

    The names that it returns are none: nothing is left of them.
    """
    given = _fields(request, {"library": str, "seen": str, "defects": list})
    path, names = editable_path(given["library"]), given["defects"]
    if not all(isinstance(name, str) for name in names):
        raise InputError("names of defects are texts; something else came")
    number, _ = _journal.edit(path, names, lambda library: remove(library, names), given["seen"])
    return {"edit": number, "library": about_library(given["library"]), "names": []}


def take_back(request: Mapping[str, Any]) -> dict[str, Any]:
    """Undo an edit of this session. request: {"edit", "library"}; returns the library and the defects' names again.

    Raises InputError, and what `Journal.take_back` raises.
    """
    given = _fields(request, {"edit": str, "library": str})
    step, _ = _journal.take_back(given["edit"], editable_path(given["library"]))
    return {"library": about_library(given["library"]), "names": [change.before.name for change in step.changes]}


def editable_path(name: str) -> Path:
    """Return the file of a library that may be changed, links followed.

    Raises FileNotFoundError for a name that is not in the list, InputError for a library of the pack's own and for a
    link that leads out of the model folders.
    """
    path = library_path(name)
    locked = _lock_of(name, path)
    if locked:
        raise InputError(f"{name} stays as it is: {LOCKS[locked]}")
    return path.resolve()


def _lock_of(name: str, path: Path) -> str | None:
    """The one of LOCKS why a library takes no edits, or None."""
    if name == BUILT_IN:
        return "pack"
    file = path.resolve()
    roots = [Path(root).resolve() for root in folder_paths.get_folder_paths(LIBRARIES)]
    if not any(file.is_relative_to(root) for root in roots):
        return "link"
    if not (os.access(file, os.W_OK) and os.access(file.parent, os.W_OK)):
        return "file"
    return None


def _wanted(one: Any) -> dict[str, Any]:
    """What `revise` is told of one defect; InputError for anything but {"name"?, "notes"?, "tags"?} of texts."""
    given = _fields(one, {}, {"name": str, "notes": dict, "tags": list})
    notes, tags = given.get("notes", {}), given.get("tags")
    if not all(isinstance(text, str) for text in [*notes.values(), *(tags or [])]):
        raise InputError("notes and tags are texts; something else came")
    if any(len(text) > LONGEST for text in notes.values()):
        raise InputError(f"a note has {LONGEST} characters at most")
    return {"notes": notes, "tags": tags} | ({"new_name": given["name"]} if "name" in given else {})


def _fields(request: Any, needed: Mapping[str, type], more: Mapping[str, type] | None = None) -> dict[str, Any]:
    """Return a request's fields; InputError for one that lacks any, has others, or has them of another type."""
    known = {**needed, **(more or {})}
    if not isinstance(request, dict) or not set(needed) <= set(request) <= set(known):
        wanted = [*([", ".join(needed)] if needed else []), *([f"any of {', '.join(more)}"] if more else [])]
        raise InputError(f"expected an object with {' and '.join(wanted)}")
    for field, value in request.items():
        if not isinstance(value, known[field]):
            raise InputError(f"{field} is of type {type(value).__name__}; expected {known[field].__name__}")
    return request


def _about_defect(source: str, entry: Defect) -> dict[str, Any]:
    info = entry.info if isinstance(entry.info, dict) else {}
    shots = info.get("shots")
    masks = 0 if entry.shot_masks is None else len(entry.shot_masks)
    learned = {kind: tensor.shape[0] for kind in ("anomaly", "mask") if (tensor := getattr(entry, kind)) is not None}
    notes = {field: info[field][:LONGEST] for field in NOTES if isinstance(info.get(field), str)}
    return {
        "product": entry.product,
        "defect": entry.defect,
        "label": label_of(source, entry),
        "shots": len(shots) if isinstance(shots, list) and shots else masks,
        "tags": tags_of(entry),
        "picture": entry.preview is not None,
        "learned": learned,
        "notes": notes,
    }


def _told(error: Exception, name: str) -> str:
    """An error without the folder in which the file lies."""
    try:
        return str(error).replace(str(library_path(name)), name)
    except OSError:
        return str(error)
