"""Edits of libraries, each a function from libraries to a new one; nothing here touches a file."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from .errors import InputError
from .library import Defect, Key, Library, parse_name

logger = logging.getLogger("adiff")

PREFER = ("first", "last")
"""Which of several defects of one name a merge takes."""
NOTES = ("author", "licence", "notes")
"""Fields of a defect's record that people write."""


def merge(libraries: Mapping[str, Library], prefer: str | None = None) -> Library:
    """Join libraries of one base model and one spatial encoder.

    libraries: what to call each in messages (its file) -> library, in order. prefer: which defect counts where a name
    comes twice, `first` or `last`; None refuses such names.
    Raises InputError for fewer than two libraries, other context widths, base models or encoders, and names twice.
    """
    if len(libraries) < 2:
        raise InputError(f"{len(libraries)} library to merge; give at least two different ones")
    if prefer is not None and prefer not in PREFER:
        raise InputError(f"prefer {prefer!r} is unknown; choose one of {', '.join(PREFER)}")
    (first_name, first), *others = libraries.items()
    for name, library in others:
        _check_same_base(first_name, first, name, library)
    encoder = _common_encoder(libraries)
    defects, came_from = dict(first.defects), dict.fromkeys(first.defects, first_name)
    for name, library in others:
        for key, entry in library.defects.items():
            if key in defects and prefer is None:
                raise InputError(
                    f"{came_from[key]} and {name} both hold {entry.name}; rename one, or take the first or the last "
                    "with --prefer"
                )
            if key not in defects or prefer == "last":
                defects[key], came_from[key] = entry, name
    info: dict[str, Any] = {}
    for name, library in libraries.items():
        if not isinstance(library.info, dict):
            raise InputError(f"the record of {name} is no table of names and values; the library is damaged")
        info = {**info, **library.info} if prefer == "last" else {**library.info, **info}
    return replace(first, defects=defects, encoder_fingerprint=encoder, info=info)


def split(library: Library, names: Sequence[str]) -> Library:
    """Return a library of the named defects alone, in the order of the names; InputError for what is not there."""
    _check_some(names)
    return replace(library, defects={entry.key: entry for entry in map(library.get, names)})


def rename(library: Library, old: str, new: str) -> Library:
    """Return the library with one defect under another name, in its old place.

    Raises InputError for names that are not PRODUCT/DEFECT, an `old` that is not there and a `new` that is.
    """
    entry, key = library.get(old), parse_name(new)
    if key in library.defects:
        raise InputError(f"the library holds a {new} already; remove it first or choose another name")
    product, defect = key
    renamed = replace(entry, product=product, defect=defect)
    defects = [renamed if other.key == entry.key else other for other in library.defects.values()]
    return replace(library, defects={other.key: other for other in defects})


def remove(library: Library, names: Sequence[str]) -> Library:
    """Return the library without the named defects; InputError for what is not there, and if nothing would be left."""
    _check_some(names)
    gone: set[Key] = {library.get(name).key for name in names}
    left = {key: entry for key, entry in library.defects.items() if key not in gone}
    if not left:
        raise InputError("nothing would be left in the library; delete its file instead")
    return replace(library, defects=left)


def note(library: Library, name: str, fields: Mapping[str, str | None]) -> Library:
    """Return the library with notes in a defect's record.

    fields: names of NOTES -> text; an empty text takes the note out, None leaves it as it is.
    Raises InputError for other fields, no field at all, and a defect that is not there.
    """
    entry = library.get(name)
    unknown = [field for field in fields if field not in NOTES]
    if unknown:
        raise InputError(f"{unknown[0]!r} is no note; choose from {', '.join(NOTES)}")
    given = {field: text for field, text in fields.items() if text is not None}
    if not given:
        raise InputError(f"nothing to note on {entry.name}; give at least one of {', '.join(NOTES)}")
    kept = {field: value for field, value in record_of(entry).items() if field not in given}
    info = kept | {field: text for field, text in given.items() if text}
    return replace(library, defects={**library.defects, entry.key: replace(entry, info=info)})


def record_of(entry: Defect) -> dict[str, Any]:
    """Return a defect's record; InputError if a damaged file has something else in its place."""
    if not isinstance(entry.info, dict):
        raise InputError(f"the record of {entry.name} is no table of names and values; its library is damaged")
    return entry.info


def _check_same_base(first_name: str, first: Library, name: str, library: Library) -> None:
    if first.context_dim != library.context_dim:
        raise InputError(
            f"{first_name} is for context width {first.context_dim} (base {first.base_name!r}), {name} for "
            f"{library.context_dim} (base {library.base_name!r}); merge libraries of one base model"
        )
    if first.base_fingerprint != library.base_fingerprint:
        raise InputError(
            f"{first_name} was learned on base {first.base_name!r} ({first.base_fingerprint[:8]}), {name} on "
            f"{library.base_name!r} ({library.base_fingerprint[:8]}); merge libraries of one base model"
        )


def _common_encoder(libraries: Mapping[str, Library]) -> str | None:
    """The one spatial encoder of all appearances; a library of masks alone needs none."""
    with_appearance = {
        name: library
        for name, library in libraries.items()
        if any(entry.anomaly is not None for entry in library.defects.values())
    }
    encoders = {name: library.encoder_fingerprint for name, library in with_appearance.items()}
    known = {name: encoder for name, encoder in encoders.items() if encoder is not None}
    if len(set(known.values())) > 1:
        (first, ours), (other, theirs) = _first_two_different(known)
        raise InputError(
            f"{first} was learned with spatial encoder {ours[:8]}, {other} with {theirs[:8]}; a library has one encoder"
        )
    without = [name for name in encoders if name not in known]
    if known and without:
        logger.warning("the defects of %s were learned without a spatial encoder, now they get one", without[0])
    if known:
        return next(iter(known.values()))
    return None if with_appearance else next((lib.encoder_fingerprint for lib in libraries.values()), None)


def _first_two_different(known: Mapping[str, str]) -> tuple[tuple[str, str], tuple[str, str]]:
    first, *rest = known.items()
    return first, next(item for item in rest if item[1] != first[1])


def _check_some(names: Sequence[str]) -> None:
    if not names:
        raise InputError("no defect was named; give at least one PRODUCT/DEFECT")
