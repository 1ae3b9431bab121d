"""Libraries and encoders that the user has: ComfyUI's model folders, and what the pack brings itself."""

from __future__ import annotations

import hashlib
import logging
import os
import re
from collections.abc import Callable
from functools import lru_cache
from itertools import chain
from pathlib import Path

import folder_paths
import numpy as np
import yaml
from comfy.cli_args import args
from safetensors import SafetensorError, safe_open

from ..adiff.backbone import demo_encoder_path, demo_library_path
from ..adiff.embedding import embedding_fingerprint
from ..adiff.errors import InputError
from ..adiff.library import Defect, Library, check_name, load_library
from .sockets import LearnedDefect, LoadedLibrary

log = logging.getLogger("adiff")
LIBRARIES, ENCODERS, LOCALIZERS = "adiff_libraries", "adiff_encoders", "adiff_localizers"
DUALS, FEATURES = "adiff_dual", "adiff_features"
BUILT_IN = "demo (built in)"
"""The library and the encoder that come with the pack, in the lists."""
BETWEEN, MARK = " / ", " @"
SUFFIX = ".safetensors"
LAYOUT = frozenset(("images", "masks", "test", "ground_truth"))
"""Folders that a data set of one product has in it."""
NO_DATA = frozenset(("3d", "clipspace"))
"""Folders that ComfyUI itself makes in its input folder."""
_defaults: dict[str, str] = {}
"""The folders that extra_model_paths.yaml makes the default of a kind."""


def register_folders() -> None:
    """Add models/adiff_libraries and the like, keeping what extra_model_paths.yaml says of them."""
    for name in (LIBRARIES, ENCODERS, LOCALIZERS, DUALS, FEATURES):
        own = os.path.join(folder_paths.models_dir, name)
        folder_paths.add_model_folder_path(name, own)
        paths, _ = folder_paths.folder_names_and_paths[name]
        if _is_default(name):
            _defaults[name] = paths[0]
        suffixes = {SUFFIX, ".pth", ".pt"} if name == FEATURES else {SUFFIX}  # an empty set would mean any file
        folder_paths.folder_names_and_paths[name] = (paths, suffixes)
        try:
            os.makedirs(own, exist_ok=True)
        except OSError as error:  # a models folder that may not be written is no reason to stay away
            log.warning("%s could not be made (%s); the pack looks in the other folders", own, error)


def _is_default(kind: str) -> bool:
    """Whether extra_model_paths.yaml marks a folder of a kind as default: ComfyUI has it first, and says no more."""
    own = Path(folder_paths.__file__).with_name("extra_model_paths.yaml")
    files = [Path(file) for file in (own, *chain(*args.extra_model_paths_config or ()))]
    read = [yaml.safe_load(file.read_text("utf-8")) or {} for file in files if file.is_file()]
    sections = [section or {} for one in read for section in one.values()]
    return any(section.get("is_default") and kind in section for section in sections)


def found_or_why(find: Callable[[str], object], name: str | None) -> bool | str:
    """Return True for a name that `find` takes, else its message: an answer for `validate_inputs`.

    A name that another node gives is None by then; `find` is asked when the node runs.
    """
    try:
        if name is not None:
            find(name)
    except (InputError, OSError) as error:
        return str(error)
    return True


def encoder_names() -> list[str]:
    """Return the encoders to choose from."""
    return [BUILT_IN, *folder_paths.get_filename_list(ENCODERS)]


def encoder_path(name: str) -> Path:
    """Return the file of an encoder in the list; raises InputError for another name."""
    return demo_encoder_path() if name == BUILT_IN else _find(ENCODERS, "there is no spatial encoder", name)


def defect_labels() -> list[str]:
    """Return every learned defect as "library / product / defect @fingerprint"; damaged libraries are left out."""
    return [label_of(source, entry) for source in _sources() for entry in _entries_of(source)]


def find_defect(label: str) -> LearnedDefect:
    """Return the defect that a label names.

    A library that was renamed or moved, and a defect that was renamed in its library, are found again by the
    fingerprint. Raises InputError naming library, product, defect and fingerprint.
    """
    source, product, defect, mark = _parts(label)
    if source in _sources():
        library = _open(source)
        if (product, defect) in library.defects:
            entry = library.defects[product, defect]
            if mark and mark != _mark(entry):
                log.warning("%s now holds %s @%s; the graph was made with @%s", source, entry.name, _mark(entry), mark)
            return LearnedDefect(source, library, entry)
        renamed = [entry for entry in library.defects.values() if mark and mark == _mark(entry)]
        if len(renamed) == 1:
            log.warning("%s holds %s / %s @%s as %s now", source, product, defect, mark, renamed[0].name)
            return LearnedDefect(source, library, renamed[0])
    for other in _sources():
        entries = {(entry.product, entry.defect, _mark(entry)): entry for entry in _entries_of(other)}
        if (entry := entries.get((product, defect, mark))) is not None:
            log.warning("library %s is not there; %s / %s @%s is taken from %s", source, product, defect, mark, other)
            return LearnedDefect(other, _open(other), entry)
    there = ", ".join(name for name in _sources())
    raise InputError(
        f"no library holds {product[:80]}/{defect[:80]}{f' with fingerprint {mark[:8]}' if mark else ''}; the graph "
        f"took it from {source[:80]!r}. Put that file into models/{LIBRARIES} and refresh (libraries there: {there})"
    )


def learned_state(chosen: LearnedDefect) -> str:
    """Return a digest of all that a graph takes from a defect: another one when any of it has changed."""
    entry, library = chosen.entry, chosen.library
    base = (library.base_name, library.base_fingerprint, library.context_dim)
    digest = hashlib.sha256(repr((chosen.source, entry.key, base, library.encoder_fingerprint)).encode())
    for part in (entry.anomaly, entry.mask, entry.likeness, entry.shot_masks):
        digest.update(b"none" if part is None else repr(tuple(part.shape)).encode() + np.asarray(part).tobytes())
    return digest.hexdigest()


def label_of(source: str, entry: Defect) -> str:
    """Return what a defect is called in the list of all defects; the pack's own have no fingerprint, in any version."""
    name = f"{source}{BETWEEN}{entry.product}{BETWEEN}{entry.defect}"
    return name if source == BUILT_IN else f"{name}{MARK}{_mark(entry)}"


def library_path(name: str) -> Path:
    """Return the file of a library in the list; FileNotFoundError for any other name."""
    if name not in _sources():
        raise FileNotFoundError(f"there is no library {name!r} in models/{LIBRARIES}")
    return demo_library_path() if name == BUILT_IN else Path(folder_paths.get_full_path_or_raise(LIBRARIES, name))


def library_names() -> list[str]:
    """Return the libraries to choose from."""
    return _sources()


def find_library(name: str) -> LoadedLibrary:
    """Return a library in the list; raises InputError for another name or a damaged file."""
    if name not in _sources():
        there = ", ".join(_sources())
        raise InputError(f"there is no library {name!r} in models/{LIBRARIES}; put it there and refresh ({there})")
    return LoadedLibrary(name, _open(name))


def new_file(kind: str, name: str, overwrite: bool) -> Path:
    """Return where a library or the like of this name is to be written.

    In ComfyUI's own models folder, or the one that extra_model_paths.yaml makes the default.
    kind: LIBRARIES, ENCODERS, LOCALIZERS or DUALS. Raises InputError for a name that is no file name, and for one
    that is taken, unless that very file may be overwritten.
    """
    check_name(name, "file name")
    path = Path(_defaults.get(kind) or Path(folder_paths.models_dir) / kind) / f"{name}{SUFFIX}"
    there = folder_paths.get_full_path(kind, path.name)
    if there is None:
        return path
    if not overwrite:
        raise InputError(f"{path.name} is in models/{kind} already; choose another name, or turn overwrite on")
    if not (path.exists() and path.samefile(there)):  # of two of one name the list has the first folder's
        raise InputError(f"{path.name} lies in {there}, which this node does not write to; choose another name")
    return path


def place_of(path: Path) -> str:
    """Return what to call a file: models/... in ComfyUI's own models folder, elsewhere all of its path."""
    own = Path(folder_paths.models_dir)
    return f"models/{path.relative_to(own).as_posix()}" if path.is_relative_to(own) else str(path)


def encoder_holding(fingerprint: str) -> str | None:
    """Return the encoder in the list that has this fingerprint, or None; no weights are read."""
    return next((name for name in encoder_names() if _fingerprint_of(encoder_path(name)) == fingerprint), None)


def localizer_names() -> list[str]:
    """Return the localizers to choose from."""
    return folder_paths.get_filename_list(LOCALIZERS)


def find_localizer(name: str) -> Path:
    """Return the file of a localizer in the list; raises InputError for another name."""
    return _find(LOCALIZERS, "there is no localizer", name)


def dual_names() -> list[str]:
    """Return the dual models to choose from."""
    return folder_paths.get_filename_list(DUALS)


def find_dual(name: str) -> Path:
    """Return the file of a dual model in the list; raises InputError for another name."""
    return _find(DUALS, "there is no dual model", name)


def feature_names() -> list[str]:
    """Return the feature networks to choose from."""
    return folder_paths.get_filename_list(FEATURES)


def find_features(name: str) -> Path:
    """Return the file of a feature network in the list, or its folder, of one of Hugging Face's.

    Raises InputError for another name.
    """
    path = _find(FEATURES, "there is no feature network", name)
    return path.parent if path.name == "model.safetensors" else path


def dataset_folders() -> list[str]:
    """Return the folders in ComfyUI's input folder, and those in them that hold a data set of one product."""
    root = Path(folder_paths.get_input_directory())
    found = []
    for folder in [one for one in _folders_in(root) if one.name not in NO_DATA]:
        inner = [one for one in _folders_in(folder) if LAYOUT & {part.name for part in _folders_in(one)}]
        found += [folder.name, *(f"{folder.name}/{one.name}" for one in inner)]
    return found


def dataset_folder(name: str) -> Path:
    """Return a folder under ComfyUI's input folder; raises InputError for a name that leads out of it or to nothing."""
    root, told = Path(folder_paths.get_input_directory()).resolve(), repr(name[:80])
    try:
        folder = (root / name).resolve()
        is_there = folder.is_dir()
    except (OSError, ValueError, RuntimeError):  # no file can have such a name, or links lead in a circle
        name = ""
    if not name or folder == root or not folder.is_relative_to(root) or ".." in Path(name).parts:
        raise InputError(f"{told} is no folder in ComfyUI's input folder; put the photos into one there and refresh")
    if not is_there:
        raise InputError(
            f"there is no folder {told} in ComfyUI's input folder; make it, with the photos in images/ and a mask of "
            "the same name for each in masks/, and refresh"
        )
    return root / name


def _find(kind: str, otherwise: str, name: str) -> Path:
    there = folder_paths.get_filename_list(kind)
    if name not in there:
        told = ", ".join(there) or "none is there"
        raise InputError(f"{otherwise} {name!r} in models/{kind}; put it there and refresh ({told})")
    return Path(folder_paths.get_full_path_or_raise(kind, name))


def _folders_in(folder: Path) -> list[Path]:
    try:
        return sorted(one for one in folder.iterdir() if one.is_dir() and not one.name.startswith("."))
    except OSError as error:
        log.warning("left out of the list: %s", error)
        return []


def _fingerprint_of(encoder: Path) -> str:
    try:
        with safe_open(encoder, "pt") as file:
            return (file.metadata() or {}).get("fingerprint", "")
    except (SafetensorError, OSError):  # no encoder: another one may hold it
        return ""


def _sources() -> list[str]:
    own = [BUILT_IN] if demo_library_path().is_file() else []
    return [*own, *folder_paths.get_filename_list(LIBRARIES)]


def _open(source: str) -> Library:
    path = library_path(source)
    about = path.stat()
    return _read(path, about.st_mtime_ns, about.st_size)


@lru_cache(maxsize=256)
def _read(path: Path, _changed: int, _size: int) -> Library:
    return load_library(path)


def _entries_of(source: str) -> list[Defect]:
    """A library's defects; none if it is damaged."""
    try:
        return list(_open(source).defects.values())
    except (InputError, OSError) as error:
        log.warning("left out of the list: %s", error)
        return []


def _mark(entry: Defect) -> str:
    """The first 8 hexadecimal digits of what was learned."""
    learned = entry.anomaly if entry.anomaly is not None else entry.mask
    return embedding_fingerprint(learned)[:8]


def _parts(label: str) -> tuple[str, str, str, str]:
    """Split a label; the fingerprint may be missing, and a library's name may hold what stands before one."""
    name, mark = re.fullmatch(rf"(.*?)(?:{MARK}([0-9a-f]{{8}}))?", label, re.DOTALL).groups(default="")
    parts = name.rsplit(BETWEEN, 2)
    if len(parts) != 3:
        raise InputError(f"{label[:80]!r} names no defect; expected 'library / product / defect', chosen from the list")
    return parts[0], parts[1], parts[2], mark
