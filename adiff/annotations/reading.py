"""Which format annotations are in: told by what is there, not by a name."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from ..errors import InputError
from ..storage import read_json
from .coco import is_coco, read_coco
from .cvat import is_cvat, read_cvat
from .labelme import is_labelme, read_labelme
from .marks import Annotated, files_in, images_in, read_xml
from .pictures import read_pictures
from .run_lengths import columns_of, is_run_lengths, read_run_lengths
from .supervisely import is_supervisely, read_supervisely
from .voc import CLASSES, read_voc
from .voc_boxes import is_voc, read_voc_boxes
from .yolo import label_folders, read_yolo

EXPECTED = (
    "expected COCO's .json, a folder of labelme's .json, Supervisely's project, YOLO's data.yaml with labels/ and "
    f"images/, CVAT's or Pascal VOC's .xml, a folder with {CLASSES}/, Severstal's .csv, or photos with their masks"
)
OF_BOXES = "obj.names"
"""File that names the classes of Darknet's YOLO, which CVAT calls YOLO 1.1."""
BRUSHED = re.compile(r"task-\d+-annotation-\d+-by-.+")
"""Stem of a brush label that Label Studio writes as PNG: it tells the task, and not which photo that is of."""
RUN_LENGTHS = "Severstal"
KINDS = {
    "COCO": is_coco, "labelme": is_labelme, "Supervisely": is_supervisely, "CVAT": is_cvat, "Pascal VOC": is_voc,
    RUN_LENGTHS: is_run_lengths,
}  # fmt: skip
"""What a file's content may be."""
FOREIGN = {
    "Label Studio's own": lambda content: isinstance(content, list) and _tells(content, "data", "annotations"),
    "Label Studio's JSON-MIN": lambda content: isinstance(content, list) and _tells(content, "image", "annotation_id"),
    "VIA's": lambda content: isinstance(content, dict) and _tells(_via(content), "filename", "regions"),
    "VoTT's": lambda content: _tells([content], "assets", "name"),
    "Datumaro's": lambda content: _tells([content], "items", "categories"),
}
"""What it may be besides, which is not read but named."""
LARGEST = 2**30
"""Bytes of a JSON or an XML file that is opened."""


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
        raise InputError(
            f"{path} is YOLO 1.1 ({OF_BOXES}), which holds boxes only: photos whose defects were outlined "
            "would pass as such without marks; export COCO 1.0 instead, from CVAT as from others"
        )
    if path.is_file():
        if path.suffix.lower() in (".yaml", ".yml", ".txt"):
            return _yolo(path.parent, images, path)
        kind = _kind_of(_content(path, EXPECTED))
        if kind is None and path.suffix.lower() in (".xml", ".csv"):
            raise InputError(f"no annotations in {path}; {EXPECTED}")
        return _of_kind(kind or "COCO", [path], images, None)  # whose reader says what is missing
    if (path / CLASSES).is_dir():
        return read_voc(path, images)
    if label_folders(path):
        return _yolo(path, images)
    found: dict[str, list[Path]] = {}
    for file, kind in _kinds(path):
        found.setdefault(kind, []).append(file)
    known = found.keys() & KINDS.keys()
    if len(known) > 1:
        told = " and of ".join(f"{kind} ({found[kind][0].name})" for kind in found if kind in known)
        raise InputError(f"{path} holds files of {told}; give one kind")
    if not known and (brushed := _brushed(path)):
        raise InputError(f"{brushed} is a brush label of Label Studio's as PNG, which does not tell its photo; export "
                         "Brush labels to COCO instead")  # fmt: skip
    if not known and (pictures := read_pictures(path, images)):
        return pictures
    for kind in (*known, *found):
        return _of_kind(kind, found[kind], images, path)
    raise InputError(f"no annotations in {path}; {EXPECTED}")


def _of_kind(kind: str, files: Sequence[Path], images: Path | None, root: Path | None) -> list[Annotated]:
    """Read files of one kind; root: the folder that was given, None for a single file."""
    if kind == "labelme":
        return read_labelme(files, images, bare=root is not None)
    if kind == "Supervisely":
        return read_supervisely(files, images)
    if kind == "COCO":
        return [one for file in files for one in read_coco(file, images, root)]
    if kind == "CVAT":
        return [one for file in files for one in read_cvat(file, images)]
    if kind == "Pascal VOC":
        return read_voc_boxes(files, images or root or files[0].parent)
    if kind == RUN_LENGTHS:
        if len(files) > 1:  # a sample of what is to be handed in lies beside that of the marks
            raise InputError(f"{files[0]} and {files[1]} hold run lengths; give the one with the marks")
        return read_run_lengths(files[0], images)
    raise InputError(f"{files[0]} is in {kind} format, which is not read; export COCO from that program instead")


def _kinds(folder: Path) -> Iterator[tuple[Path, str]]:
    """The files in a folder, and below it, with their kinds, one after the other, as labelme's hold their photos often.

    XML files, of which many a program leaves some, count where no JSON does, and CSV where no XML. Raises InputError
    for a damaged one, whose photos would pass as such without marks.
    """
    for suffix in ("json", "xml", "csv"):
        some = False
        for path in files_in(folder, f"**/*.{suffix}"):
            if kind := _kind_of(_content(path, "mend it, or take it out")):
                some = True
                yield path, kind
        if some:
            return


def _kind_of(content: object) -> str | None:
    return next((kind for kind, is_it in {**KINDS, **FOREIGN}.items() if is_it(content)), None)


def _tells(values: Iterable[object], *keys: str) -> bool:
    """Whether the first of some values is an object with all keys."""
    first = next(iter(values), None)
    return isinstance(first, dict) and all(key in first for key in keys)


def _via(content: dict[str, object]) -> Iterable[object]:
    """What VIA tells of each photo; a project has it among its settings."""
    of_photos = content.get("_via_img_metadata", content)
    return of_photos.values() if isinstance(of_photos, dict) else ()


def _tells_boxes_only(folder: Path) -> bool:
    return (folder / OF_BOXES).is_file()


def _brushed(folder: Path) -> Path | None:
    """The first of Label Studio's brush labels in a folder."""
    return next((path for path in images_in(folder, "**/*") if BRUSHED.fullmatch(path.stem)), None)


def is_annotated(folder: Path) -> bool:
    """Whether a folder holds annotations that are read here, or refused with a word on what to do."""
    return (
        (folder / CLASSES).is_dir()
        or bool(label_folders(folder))
        or _tells_boxes_only(folder)
        or any(True for _ in _kinds(folder))
        or _brushed(folder) is not None
    )


def _yolo(root: Path, images: Path | None, names: Path | None = None) -> list[Annotated]:
    if images is not None:
        raise InputError("YOLO's photos are in images/ beside labels/; leave --images out")
    return read_yolo(root, names)


def _content(path: Path, remedy: str) -> object:
    if path.stat().st_size > LARGEST:
        raise InputError(f"{path} has {path.stat().st_size >> 20} MB; at most {LARGEST >> 20} are opened")
    if path.suffix.lower() == ".csv":
        return columns_of(path)
    return read_xml(path, remedy) if path.suffix.lower() == ".xml" else read_json(path, remedy)
