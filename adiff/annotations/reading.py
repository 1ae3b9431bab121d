"""Which format annotations are in: told by what is there, not by a name."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from ..errors import InputError
from ..storage import read_json
from .coco import is_coco, read_coco
from .labelme import is_labelme, read_labelme
from .marks import Annotated, files_in
from .supervisely import is_supervisely, read_supervisely
from .voc import CLASSES, read_voc
from .yolo import label_folders, read_yolo

EXPECTED = (
    "expected COCO's .json, a folder of labelme's .json, Supervisely's project, YOLO's data.yaml with labels/ and "
    f"images/, or a folder with {CLASSES}/"
)
OF_BOXES = "obj.names"
"""File that names the classes of Darknet's YOLO, which CVAT calls YOLO 1.1."""
KINDS = {"COCO": is_coco, "labelme": is_labelme, "Supervisely": is_supervisely}
"""What a JSON file's content may be."""
LARGEST = 2**30
"""Bytes of a JSON file that is opened."""


def read_annotations(paths: Sequence[Path], images: Path | None = None) -> list[Annotated]:
    """Read the photos of annotations with their marks; a photo that several files tell of has the marks of all.

    images: the folder of the photos; None looks for them around the annotations. Raises InputError, naming the file,
    for what is in none of the formats or damaged, and for photos that are not there, FileNotFoundError for no file.
    """
    if images is not None and not images.is_dir():
        raise InputError(f"the folder {images} {'is a file' if images.exists() else 'does not exist'}")
    found: dict[Path, Annotated] = {}
    for one in (one for path in paths for one in _read(path, images)):
        place = one.image.resolve()
        found[place] = _joined(found[place], one) if place in found else one
    return list(found.values())


def _joined(one: Annotated, other: Annotated) -> Annotated:
    if one.size and other.size and one.size != other.size:
        raise InputError(f"{one.image} has two sizes in its annotations: {one.size} and {other.size} (height, width)")
    return Annotated(one.image, one.marks + other.marks, one.size or other.size, one.flags + other.flags)


def _read(path: Path, images: Path | None) -> list[Annotated]:
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist; {EXPECTED}")
    if path.suffix != ".json" and _tells_boxes_only(path if path.is_dir() else path.parent):
        raise InputError(f"{path} is YOLO 1.1 ({OF_BOXES}), which holds boxes only: photos whose defects were outlined "
                         "would pass as such without marks; export COCO 1.0 instead, from CVAT as from others")
    if path.is_file():
        if path.suffix.lower() in (".yaml", ".yml", ".txt"):
            return _yolo(path.parent, images, path)
        content = _content(path, EXPECTED)
        if is_labelme(content):
            return read_labelme([path], images, bare=False)
        if is_supervisely(content):
            return read_supervisely([path], images)
        return read_coco(path, images)
    if (path / CLASSES).is_dir():
        return read_voc(path, images)
    if label_folders(path):
        return _yolo(path, images)
    found: dict[str, list[Path]] = {}
    for file, content in _json_files(path):
        if (kind := _kind_of(content)) is not None:
            found.setdefault(kind, []).append(file)
    if len(found) > 1:
        told = " and of ".join(f"{kind} ({files[0].name})" for kind, files in found.items())
        raise InputError(f"{path} holds files of {told}; give one kind")
    if files := found.get("labelme"):
        return read_labelme(files, images)
    if files := found.get("Supervisely"):
        return read_supervisely(files, images)
    if files := found.get("COCO"):
        return [one for file in files for one in read_coco(file, images, path)]
    raise InputError(f"no annotations in {path}; {EXPECTED}")


def _kind_of(content: object) -> str | None:
    return next((kind for kind, is_it in KINDS.items() if is_it(content)), None)


def _tells_boxes_only(folder: Path) -> bool:
    return (folder / OF_BOXES).is_file()


def is_annotated(folder: Path) -> bool:
    """Whether a folder holds annotations that are read here, or refused with a word on what to do."""
    return (
        (folder / CLASSES).is_dir()
        or bool(label_folders(folder))
        or _tells_boxes_only(folder)
        or any(_kind_of(content) for _, content in _json_files(folder))
    )


def _json_files(folder: Path) -> Iterator[tuple[Path, object]]:
    """The JSON files in a folder and those below it, one after the other: labelme's hold their photos, often.

    Raises InputError for a damaged one, whose photos would pass as such without marks.
    """
    for path in files_in(folder, "**/*.json"):
        yield path, _content(path, "mend it, or take it out")


def _yolo(root: Path, images: Path | None, names: Path | None = None) -> list[Annotated]:
    if images is not None:
        raise InputError("YOLO's photos are in images/ beside labels/; leave --images out")
    return read_yolo(root, names)


def _content(path: Path, remedy: str) -> object:
    if path.stat().st_size > LARGEST:
        raise InputError(f"{path} has {path.stat().st_size >> 20} MB; at most {LARGEST >> 20} are opened")
    return read_json(path, remedy)
