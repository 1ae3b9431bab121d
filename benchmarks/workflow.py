"""What a workflow and the library panel's page send to the nodes, read by the nodes' own functions without ComfyUI.

ComfyUI's modules are stood in for by names that hold nothing, and its folders by those of a trial. The texts of a
workflow's inputs are what its JSON says: any character, lone surrogates too.
"""

from __future__ import annotations

import importlib
import json
import os
import shutil
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

from adiff.errors import InputError

ROOT = Path(__file__).parents[1]
PACK = "pack_without_comfyui"
HOST = ("comfy", "comfy.cli_args", "comfy.model_base", "comfy.model_management", "comfy.patcher_extension",
        "comfy.samplers", "comfy.utils", "comfy_api", "comfy_api.latest", "comfy_execution", "comfy_execution.graph",
        "comfy_execution.progress", "comfy_execution.utils")  # fmt: skip
SEEN = 1_700_000_000_000_000_000
"""Nanoseconds at which the panel's library was written: its state is told from them."""


class _Anything(type):
    def __getattr__(cls, name: str) -> type:
        if name.startswith("__"):
            raise AttributeError(name)
        return Nothing


class Nothing(metaclass=_Anything):
    """Whatever is asked of ComfyUI while the nodes are imported."""

    def __init__(self, *_: object, **__: object):
        pass


class _Host(types.ModuleType):
    def __getattr__(self, name: str) -> type:
        if name.startswith("__"):
            raise AttributeError(name)
        return Nothing


class Folders(types.ModuleType):
    """ComfyUI's folder_paths: input, output and models in the folder `here`."""

    here = Path()

    def __init__(self) -> None:
        super().__init__("folder_paths")
        self.folder_names_and_paths: dict[str, Any] = {}

    @property
    def models_dir(self) -> str:
        """Where models lie."""
        return str(self.here / "models")

    def get_input_directory(self) -> str:
        """Where a workflow's files lie."""
        return str(self.here / "input")

    def get_output_directory(self) -> str:
        """Where a workflow writes."""
        return str(self.here / "output")

    def get_folder_paths(self, kind: str) -> list[str]:
        """The folders of a kind of model."""
        return [os.path.join(self.models_dir, kind)]

    def get_filename_list(self, kind: str) -> list[str]:
        """The files of a kind of model."""
        folder = Path(self.models_dir) / kind
        return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []

    def get_full_path(self, kind: str, name: str) -> str | None:
        """Where a file in that list lies."""
        return os.path.join(self.models_dir, kind, name) if name in self.get_filename_list(kind) else None

    get_full_path_or_raise = get_full_path


def nodes(*names: str) -> list[types.ModuleType]:
    """Import modules of the nodes with nothing in ComfyUI's place; `folder_paths` is of the first import."""
    sys.modules.setdefault("folder_paths", Folders())
    for name in HOST:
        sys.modules.setdefault(name, _Host(name))
    for name, folder in ((PACK, ROOT), (f"{PACK}.nodes", ROOT / "nodes")):  # their __init__ would import every node
        package = sys.modules.setdefault(name, types.ModuleType(name))
        package.__path__ = [str(folder)]
    importlib.import_module(f"{PACK}.adiff.errors")
    return [importlib.import_module(f"{PACK}.nodes.{name}") for name in names]


def documented(read: Callable[[Path], object]) -> Callable[[Path], object]:
    """Turn what the nodes may raise, of the adiff that they import, into the same error of ours."""

    def call(path: Path) -> object:
        nodes()
        sys.modules["folder_paths"].here = path.parent
        known = sys.modules[f"{PACK}.adiff.errors"].InputError
        try:
            return read(path)
        except known as error:
            raise InputError(str(error)) from None

    return call


def make(text: str, library: Callable[[Path], None]) -> Callable[[Path], None]:
    """Fill a folder with ComfyUI's, a data set in the input folder, a library, and the text in value.json."""

    def fill(folder: Path) -> None:
        (folder / "input" / "photos" / "images").mkdir(parents=True)
        (folder / "output").mkdir()
        place = folder / "models" / "adiff_libraries"
        place.mkdir(parents=True)
        library(place)
        shutil.copyfile(place / "lib.safetensors", folder / "whole.safetensors")
        os.utime(place / "lib.safetensors", ns=(SEEN, SEEN))
        (folder / "value.json").write_text(text, encoding="utf-8")

    return fill


def _value(path: Path) -> Any:
    """A workflow's value; what is no JSON never comes as far as a node."""
    try:
        return json.loads(path.read_bytes().decode("utf-8", "surrogatepass"))
    except (ValueError, RecursionError):
        raise InputError("no JSON") from None


def _fields(path: Path, *names: str) -> list[str]:
    """Inputs of a node, as ComfyUI hands them over: texts."""
    given = _value(path)
    if not isinstance(given, dict):
        raise InputError("no inputs")
    return [str(given.get(name, "")) for name in names]


def read_measures(path: Path) -> None:
    """The text that Finish Pair hands on to Filter Pairs and Save Pairs."""
    finish, keep = nodes("finish", "filter")
    limits = keep.PairFilter(0.5, 2.0, 3.0, 0.1)
    for record in finish.measures_of(path.read_bytes().decode("utf-8", "surrogateescape"), 2):
        limits.reasons(record)


def read_folders(path: Path) -> None:
    """Folders and file names that a workflow gives lie where they must, or are refused."""
    files, finish = nodes("files", "finish")
    data, out, name = _fields(path, "data", "folder", "name")
    for find, given, root in (
        (files.dataset_folder, data, "input"), (finish.output_folder, out, "output"),
        (lambda given: files.new_file(files.LIBRARIES, given, False), name, "models"),
    ):  # fmt: skip
        try:
            found = find(given)
        except sys.modules[f"{PACK}.adiff.errors"].InputError as error:
            if len(str(error)) > 1500:
                raise
            continue
        if not found.resolve().is_relative_to((path.parent / root).resolve()):
            raise AssertionError(f"{given!r} leads to {found}")


def read_label(path: Path) -> None:
    """A defect, as Load Defect's list names it."""
    files, _ = nodes("files", "dataset")
    files.find_defect(_fields(path, "defect")[0])


def read_edit(path: Path) -> None:
    """The inputs of Edit Library."""
    files, library = nodes("files", "library")
    given = _fields(path, "defect", "new_name", "tags", "licence", "author", "notes")
    opened = files.find_library("lib.safetensors").library
    removed = bool(_value(path).get("remove"))
    library._edited(opened, given[0], removed, given[1], given[2], licence=given[3], author=given[4], notes=given[5])


def read_request(path: Path) -> None:
    """What the library panel's page posts: an edit, and taking it back."""
    (curate,) = nodes("curate")
    place = path.parent / "models" / "adiff_libraries" / "lib.safetensors"
    shutil.copyfile(path.parent / "whole.safetensors", place)
    os.utime(place, ns=(SEEN, SEEN))
    request = _value(path)
    for change in (curate.edit, curate.take_out, curate.take_back):
        try:
            done = change(request)
        except sys.modules[f"{PACK}.adiff.errors"].InputError as error:
            if len(str(error)) > 1500:
                raise
        except (LookupError, FileNotFoundError):  # an edit, or a library, that is not known
            pass
        else:
            curate.take_back({"edit": done["edit"], "library": request["library"]})


MEASURES = json.dumps([{"fill": 0.7, "seam": 1.1, "likeness": 0.9, "novelty": 0.4, "components": 1}] * 2)
FOLDERS = json.dumps({"data": "photos", "folder": "pairs/metal", "name": "my defects"})
LABEL = json.dumps({"defect": "lib.safetensors / metal / scratch @00000000"})
EDIT = json.dumps({"defect": "metal/scratch", "new_name": "metal/line", "tags": "a, b", "licence": "CC0", "author": "-",
                   "notes": "a note", "remove": False})  # fmt: skip


def request(library: Callable[[Path], None]) -> str:
    """An edit that fits the library: its state is told from its length too."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        library(Path(folder))
        length = (Path(folder) / "lib.safetensors").stat().st_size
    return json.dumps({"library": "lib.safetensors", "seen": f"{SEEN:x}-{length:x}", "defect": "metal/scratch",
                       "name": "metal/line", "notes": {"author": "Ada"}, "tags": ["a", "b"]})  # fmt: skip
