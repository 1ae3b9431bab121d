"""Edits of libraries, each a function from libraries to a new one; nothing here touches a file."""

from __future__ import annotations

import logging
import unicodedata
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from .errors import InputError
from .library import DEVICE_NAMES, Defect, Key, Library, parse_name

logger = logging.getLogger("adiff")

PREFER = ("first", "last")
"""Which of several defects of one name a merge takes."""
NOTES = ("author", "licence", "notes")
"""Fields of a defect's record that people write."""
OF_SHOTS = ("preview", "shot_masks", "likeness")
"""What a defect holds of its shots."""
TAGS = "tags"
"""The field of a defect's record that holds what people file it under, a list of words."""
MOST_TAGS, MAX_TAG = 32, 40
"""Tags of a defect, and characters of one."""
SLASHES = frozenset("\u2044\u2215\u29f8\u2571\u29f5\u29f9")
"""Characters that look like a separator and fold to none."""


class HeldTwice(InputError):
    """Two libraries hold a defect of one name, and nobody said which one counts."""


def merge(libraries: Mapping[str, Library], prefer: str | None = None) -> Library:
    """Join libraries of one base model and one spatial encoder.

    libraries: what to call each in messages (its file) -> library, in order. prefer: which defect counts where a name
    comes twice, `first` or `last`; None refuses such names.
    Raises InputError for fewer than two libraries, other context widths, base models or encoders, names twice, and
    names of two libraries that look alike.
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
        before = [entry.name for entry in defects.values()]
        for key, entry in library.defects.items():
            check_apart(entry.name, before)
            if key in defects and prefer is None:
                raise HeldTwice(
                    f"{came_from[key]} and {name} both hold {entry.name}; rename one, or let the first or the last "
                    "count"
                )
            if key not in defects or prefer == "last":
                defects[key], came_from[key] = entry, name
    info: dict[str, Any] = {}
    for name, library in libraries.items():
        if not isinstance(library.info, dict):
            raise InputError(f"the record of {name} is no table of names and values; the library is damaged")
        info = {**info, **library.info} if prefer == "last" else {**library.info, **info}
    return replace(first, defects=defects, encoder_fingerprint=encoder, info=info)


def add_learned(library: Library, learned: Mapping[Key, Defect], kind: str) -> Library:
    """Return the library with what a training has learned, `anomaly` or `mask`; what an entry has stays as it is."""
    defects = dict(library.defects)
    for key, entry in learned.items():
        there = defects.get(key, entry)
        lacking = {part: getattr(entry, part) for part in OF_SHOTS if getattr(there, part) is None}
        info = {**entry.info, **record_of(there), kind: entry.info[kind]}
        defects[key] = replace(there, info=info, **lacking, **{kind: getattr(entry, kind)})
    return replace(library, defects=defects)


def forget(library: Library, parts: Mapping[str, Collection[str]]) -> Library:
    """Return the library without what is to be learned anew: part, `anomaly` or `mask` -> names of defects.

    A defect that has neither left keeps its tags and what people wrote of it, nothing of its shots.
    """
    defects = {}
    for key, entry in library.defects.items():
        gone = [part for part, names in parts.items() if entry.name in names]
        info = {field: value for field, value in record_of(entry).items() if field not in gone}
        left = replace(entry, info=info, **dict.fromkeys(gone))
        if gone and left.anomaly is None and left.mask is None:
            info = {field: info[field] for field in (*NOTES, TAGS) if field in info}
            left = replace(left, info=info, **dict.fromkeys(OF_SHOTS))
        defects[key] = left
    encoder = library.encoder_fingerprint if any(one.anomaly is not None for one in defects.values()) else None
    return replace(library, defects=defects, encoder_fingerprint=encoder)


def check_apart(name: str, others: Collection[str]) -> None:
    """Raise InputError if a defect's name is another than all others and only looks like one, see `rename`."""
    alike = [other for other in others if _seen(other) == _seen(name)] if name not in others else []
    if alike:
        raise InputError(
            f"{alike[0]} and {name} differ only in letters that look alike, and would share a folder on Windows and "
            "macOS; rename one"
        )


def split(library: Library, names: Sequence[str]) -> Library:
    """Return a library of the named defects alone, in the order of the names; InputError for what is not there."""
    _check_some(names)
    return replace(library, defects={entry.key: entry for entry in map(library.get, names)})


def rename(library: Library, old: str, new: str) -> Library:
    """Return the library with one defect under another name, in its old place.

    Raises InputError for names that are not PRODUCT/DEFECT or only look so, an `old` that is not there and a `new` that
    is, or that differs from one only in letters which look alike (case, full width).
    """
    entry, key = library.get(old), parse_name(new)
    if key in library.defects:
        raise InputError(f"the library holds a {new} already; remove it first or choose another name")
    _check_seen(new)
    alike = [other.name for other in library.defects.values() if other is not entry and _seen(other.name) == _seen(new)]
    if alike:
        raise InputError(f"the library holds a {alike[0]} already, which looks like {new!r}; choose another name")
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
    Raises InputError for other fields, no field at all, a text that is no Unicode, and a defect that is not there.
    """
    entry = library.get(name)
    unknown = [field for field in fields if field not in NOTES]
    if unknown:
        raise InputError(f"{unknown[0][:80]!r} is no note; choose from {', '.join(NOTES)}")
    given = {field: text for field, text in fields.items() if text is not None}
    if not given:
        raise InputError(f"nothing to note on {entry.name}; give at least one of {', '.join(NOTES)}")
    broken = [field for field, text in given.items() if any(unicodedata.category(c) == "Cs" for c in text)]
    if broken:
        raise InputError(f"{broken[0]} holds half a character (a lone surrogate), which no file can; write it again")
    kept = {field: value for field, value in record_of(entry).items() if field not in given}
    info = kept | {field: text for field, text in given.items() if text}
    return replace(library, defects={**library.defects, entry.key: replace(entry, info=info)})


def tag(library: Library, name: str, tags: Iterable[str]) -> Library:
    """Return the library with a defect filed under these tags instead of those that it had; none takes the field out.

    Raises InputError for too many tags, a tag that is too long or holds a comma or a control character, and a defect
    that is not there.
    """
    entry, kept = library.get(name), list({word.casefold(): word for word in _words(tags)}.values())
    if len(kept) > MOST_TAGS:
        raise InputError(f"{len(kept)} tags on {entry.name}; a defect has {MOST_TAGS} at most")
    info = {field: value for field, value in record_of(entry).items() if field != TAGS}
    info |= {TAGS: kept} if kept else {}
    return replace(library, defects={**library.defects, entry.key: replace(entry, info=info)})


def tags_of(entry: Defect) -> list[str]:
    """Return a defect's tags; what a damaged record has in their place counts as none."""
    stored = entry.info.get(TAGS) if isinstance(entry.info, dict) else None
    return [word for word in stored if isinstance(word, str)] if isinstance(stored, list) else []


def revise(
    library: Library,
    name: str,
    *,
    new_name: str | None = None,
    notes: Mapping[str, str | None] | None = None,
    tags: Iterable[str] | None = None,
) -> Library:
    """Return the library with a defect's notes, tags and name changed; None leaves what it is about as it is.

    Raises InputError for what `note`, `tag` and `rename` refuse, and if nothing is asked for.
    """
    entry = library.get(name)
    given = {field: text for field, text in (notes or {}).items() if text is not None}
    renamed = new_name is not None and new_name != entry.name
    if not (given or renamed or tags is not None):
        raise InputError(f"nothing to note on {entry.name}; give tags, another name, or one of {', '.join(NOTES)}")
    if given:
        library = note(library, name, given)
    if tags is not None:
        library = tag(library, name, tags)
    return rename(library, name, new_name) if renamed else library


def record_of(entry: Defect) -> dict[str, Any]:
    """Return a defect's record; InputError if a damaged file has something else in its place."""
    if not isinstance(entry.info, dict):
        raise InputError(f"the record of {entry.name} is no table of names and values; its library is damaged")
    return entry.info


def _words(tags: Iterable[str]) -> list[str]:
    """Tags without the space around them, empty ones left out; InputError for one that will not do."""
    words = [word.strip() for word in tags if word.strip()]
    for word in words:
        if len(word) > MAX_TAG:
            raise InputError(f"tag {word[:MAX_TAG]!r}... has {len(word)} characters; expected {MAX_TAG} at most")
        unfit = [c for c in word if c == "," or unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp")]
        if unfit:
            raise InputError(f"tag {word!r} has {unfit[0]!r} in it; commas and control characters are not allowed")
    return words


def _check_seen(name: str) -> None:
    """Refuse a new name that a reader, or another system, would take for one that `parse_name` refuses.

    Full-width letters and superscripts fold to the plain ones: Windows takes COM with a superscript one for a device.
    """
    for part in name.split("/"):
        folded = unicodedata.normalize("NFKC", part)
        if SLASHES & set(part) or "/" in folded or "\\" in folded or folded.endswith(".") or folded != folded.strip():
            raise InputError(f"name {name!r} has a letter that looks like a separator, a dot or a space in it")
        if folded.split(".")[0].rstrip().upper() in DEVICE_NAMES:
            raise InputError(f"name {name!r} looks like a device on Windows; choose another")


def _seen(name: str) -> str:
    """A name as a reader, or a file system without case, tells it from others."""
    return unicodedata.normalize("NFKC", name).casefold()


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
