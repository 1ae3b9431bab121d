"""Annotated photos become a data set in MVTec AD's layout: photos as they are, a mask of each, photos without marks."""

from __future__ import annotations

import hashlib
import logging
import shlex
import shutil
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from ..datasets.images import read_photo, write_png
from ..datasets.readers import GROUPS, MASK_ENDING, natural_key
from ..errors import InputError, listed
from ..library import check_name
from ..progress import NullProgress, Progress
from ..storage import composed, filled_folder, remove_leftovers, run_lock, sha256_of, write_json, write_whole
from .marks import Annotated, Mark, Size, labels_listed, united

logger = logging.getLogger("adiff")

RECORD, KIND = "import.json", "import"
"""The file that says what a folder was imported from."""
NO_DEFECT = frozenset(("good", "normal", "ok"))
"""What people call photos, or parts of them, that have no defect; in lower case, behind the product."""


@dataclass(frozen=True)
class Imported:
    """shots: photos of each defect, by product/defect or, of one product, by defect; normals: photos without marks."""

    out: Path
    shots: dict[str, int]
    normals: int

    def told(self) -> str:
        """Say what was imported, and how to go on."""
        shots = ", ".join(f"{count} photo{'s' * (count != 1)} of {name}" for name, count in self.shots.items())
        good = f", {self.normals} without marks as normal" if self.normals else ""
        train = shlex.join(["adiff", "train", str(self.out), "--out", "library.safetensors"])
        return f"{shots}{good} in {self.out}; `{train}` learns from them"


@dataclass(frozen=True)
class _Shot:
    """A file to write: marks, () of a normal image; folder: of its product, under the data set's."""

    source: Annotated
    stem: str
    folder: str
    defect: str | None
    marks: tuple[Mark, ...] = ()

    @property
    def image(self) -> str:
        part = "train/good" if self.defect is None else f"test/{self.defect}"
        return f"{self.folder}{part}/{self.stem}{self.source.image.suffix.lower()}"

    @property
    def mask(self) -> str:
        return f"{self.folder}ground_truth/{self.defect}/{self.stem}{MASK_ENDING}.png"


def write_dataset(
    photos: Sequence[Annotated],
    out: Path,
    *,
    labels: Sequence[str] = (),
    as_one: str | None = None,
    good: bool = True,
    progress: Progress | None = None,
) -> Imported:
    """Write annotated photos as OUT/test/DEFECT, their masks in OUT/ground_truth/DEFECT, normal images in train/good.

    The label is the defect; labels that all read PRODUCT/DEFECT make a folder of each product. Marks called good,
    normal or OK are no marks. labels: only these, () for all; photos with other ones only are left out. as_one: the one
    defect that all labels count as. good: whether photos without any mark are normal images; else they are left out. A
    photo with several defects is written for each, with the marks of that one, and groups.json says that it is one.
    Everything is checked before anything is written; files are written whole, a stopped import is no data set, and the
    same one again completes what is missing.

    Raises InputError for labels that are not there or cannot be folders, for photos that do not open, or have another
    size than their annotation says, for marks outside their photo, and for a folder that holds something else.
    """
    progress = progress or NullProgress()
    shots = _planned(photos, labels, as_one, good)
    digest, sizes = hashlib.sha256(), dict[Path, Size]()
    for shot in _each(shots, progress, "checking photos"):
        photo = shot.source.image
        sizes[photo] = sizes.get(photo) or _size_of(shot.source)
        drawn = np.packbits(_mask_of(shot, sizes[photo])).tobytes() if shot.marks else b""
        digest.update(f"{shot.image} {sha256_of(photo)} ".encode("utf-8", "surrogateescape") + drawn)
    about, settings = {"kind": KIND, "photos": len(photos)}, {"content": digest.hexdigest()}
    with run_lock(out), filled_folder(out, RECORD, about, settings):
        remove_leftovers(*(folder for folder in out.rglob("*") if folder.is_dir()))  # of a process killed there
        if groups := _groups(shots):
            write_json(out / GROUPS, groups)
        for shot in _each(shots, progress, "writing photos"):
            if shot.marks:
                write_png(out / shot.mask, _mask_of(shot, sizes[shot.source.image]))
            write_whole(out / shot.image, partial(shutil.copyfile, shot.source.image))
    counts = Counter(f"{shot.folder}{shot.defect}" for shot in shots if shot.defect)
    return Imported(out, dict(counts), sum(shot.defect is None for shot in shots))


def _planned(photos: Sequence[Annotated], labels: Sequence[str], as_one: str | None, good: bool) -> list[_Shot]:
    """The files to write, in natural order of their names; warns of what is left out, and of marks that are boxes."""
    photos = _without_good(photos)
    if good_ones := [label for label in labels if _is_good(label)]:
        raise InputError(f"the label {good_ones[0]!r} is no defect; photos without other marks count as unmarked")
    every = list(dict.fromkeys(mark.label for photo in photos for mark in photo.marks))
    if missing := [label for label in labels if label not in every]:
        raise InputError(f"no mark has the label {missing[0]!r}; there: {labels_listed(every) or 'none'}")
    wanted = [label for label in every if label in labels] if labels else every
    places = _places(wanted, as_one)
    stems = _stems([photo.image for photo in photos])
    shots, bare, flagged = [], [], []
    for photo, stem in zip(photos, stems, strict=True):
        of_place: dict[tuple[str, str], list[Mark]] = defaultdict(list)
        for mark in photo.marks:
            if mark.label in places and mark.draw is not None:
                of_place[places[mark.label]].append(mark)
        shots += [_Shot(photo, stem, *place, tuple(marks)) for place, marks in of_place.items()]
        others = [flag for flag in photo.flags if not _is_good(flag)]
        if not photo.marks and others:
            flagged.append(others[0])
        elif not photo.marks:
            bare.append((photo, stem))
    if not shots:
        raise InputError(f"none of {len(photos)} photos has a mark with an area; expected polygons, masks or boxes")
    _warn_of_marks([mark for photo in photos for mark in photo.marks if mark.label in places])
    if flagged:
        logger.warning("photos without marks that are flagged %s: %d; they are left out: outline what is there, or "
                       "flag them good alone", labels_listed(flagged), len(flagged))  # fmt: skip
    if good:
        shots += _normals(bare, photos, {shot.folder for shot in shots})
    return sorted(shots, key=lambda shot: natural_key(shot.image))


def _normals(bare: Sequence[tuple[Annotated, str]], photos: Sequence[Annotated], wanted: set[str]) -> list[_Shot]:
    """Photos without marks, with their stems, as normal images of the product whose marked photos lie nearest.

    Those nearest are in the photo's folder, or below the first of the folders around it that holds any. wanted: the
    products' folders, "" where there is one only. What may be of several is left out with a warning; what is of a
    product that is not wanted, as its marked photos are, without.
    """
    around: dict[Path, set[str]] = defaultdict(set)
    for photo in photos:
        products = {"".join(mark.label.rpartition("/")[:2]) if wanted != {""} else "" for mark in photo.marks}
        for folder in photo.image.absolute().parents if products else ():
            around[folder] |= products
    normals, untold = [], []
    for photo, stem in bare:
        nearest = next((around[folder] for folder in photo.image.absolute().parents if folder in around), wanted)
        if len(nearest) > 1:
            untold.append((photo, nearest))
        elif nearest <= wanted:
            normals.append(_Shot(photo, stem, *nearest, None))
    if untold:
        products = listed(sorted({folder[:-1] for _, nearest in untold for folder in nearest} - {""}))
        logger.warning("photos without marks: %d; they are left out, as they may be of any of %s; put each product's "
                       "photos into a folder of their own", len(untold), products)  # fmt: skip
    return normals


def _without_good(photos: Sequence[Annotated]) -> list[Annotated]:
    """The photos with the marks of their defects alone."""
    kept = [replace(photo, marks=tuple(mark for mark in photo.marks if not _is_good(mark.label))) for photo in photos]
    every = [mark.label for photo in photos for mark in photo.marks]
    if good := [label for label in every if _is_good(label)]:
        logger.warning("marks called %s: %d of %d; they are no defect; photos without others count as unmarked",
                       labels_listed(good), len(good), len(every))  # fmt: skip
    return kept


def _is_good(label: str) -> bool:
    return label.rpartition("/")[2].strip().lower() in NO_DEFECT


def _warn_of_marks(marks: Sequence[Mark]) -> None:
    if lines := sum(mark.draw is None for mark in marks):
        logger.warning("marks without an area, as points or lines: %d of %d; they are left out, and with them the "
                       "photos that have no other; draw polygons", lines, len(marks))  # fmt: skip
    if boxes := sum(mark.box for mark in marks):
        logger.warning("marks that are boxes: %d of %d; their masks are rectangles, and so will be the defects", boxes,
                       len(marks))  # fmt: skip


def _places(labels: Sequence[str], as_one: str | None) -> dict[str, tuple[str, str]]:
    """Label -> the folder of its product, "" where there is one only, and its defect."""
    deep = as_one is None and all(label.count("/") == 1 for label in labels)
    places = {}
    for label in labels:
        product, _, defect = label.rpartition("/") if deep else ("", "", as_one or label.replace("/", "-"))
        for name in (product, defect) if deep else (defect,):
            check_name(name, f"label {label[:40]!r}:")
        if _is_good(defect):  # given for all
            raise InputError(f"a defect called {defect!r} would count as normal in MVTec's layout; name it otherwise")
        places[label] = (f"{product}/" if product else "", defect)
    same = Counter(_look("".join(place)) for place in set(places.values()))
    if twins := [label for label, place in places.items() if same[_look("".join(place))] > 1]:
        raise InputError(f"the labels {labels_listed(twins)} differ only in case or look; rename one")
    return places


def _stems(images: Sequence[Path]) -> list[str]:
    """A name for each photo: its own, with those of its folders before it, as many as tell it from all others."""
    parts = [path.absolute().with_suffix("").parts[1:] for path in images]
    depths = [1] * len(images)
    while True:
        stems = ["-".join(names[-depth:]) for names, depth in zip(parts, depths, strict=True)]
        looks = [_look(stem) for stem in stems]
        named = Counter(looks)
        twins = [number for number, look in enumerate(looks) if named[look] > 1]
        deeper = [number for number in twins if depths[number] < len(parts[number])]
        if not twins:
            return stems
        if not deeper:
            both = [image for image, look in zip(images, looks, strict=True) if look == looks[twins[0]]]
            raise InputError(f"{both[0]} and {both[1]} would get one name; rename one")
        for number in deeper:
            depths[number] += 1


def _look(name: str) -> str:
    """What two names must not share to be two files on every system."""
    return composed(name).casefold()


def _each(shots: Sequence[_Shot], progress: Progress, what: str) -> Iterator[_Shot]:
    progress.start(len(shots), what)
    for number, shot in enumerate(shots, 1):
        yield shot
        progress.update(number)
    progress.finish()


def _size_of(source: Annotated) -> Size:
    """Open a photo. Raises InputError for one that does not open, or has another size than its annotation says."""
    photo = read_photo(source.image)
    size, told = photo.size, source.size
    if told is not None and told != size:
        hint = "; its EXIF tag turns it, its marks lie on it unturned: take the tag out" if photo.turned else ""
        raise InputError(f"{source.image} is {size[1]}x{size[0]}, its annotation says {told[1]}x{told[0]}{hint}")
    return size


def _mask_of(shot: _Shot, size: Size) -> np.ndarray:
    """Draw a mask, (H, W) bool; InputError for one that marks nothing, or all."""
    mask = united(mark.draw(size) for mark in shot.marks)
    if not mask.any() or mask.all():
        told = "all of it" if mask.any() else "nothing in it"
        raise InputError(f"the marks of {shot.defect} in {shot.source.image} cover {told}; mark the defect only")
    return mask


def _groups(shots: Sequence[_Shot]) -> dict[str, str]:
    """File -> name of its photo, of photos that were written several times."""
    times = Counter(shot.source.image for shot in shots)
    shared = [shot for shot in shots if times[shot.source.image] > 1]
    if shared:
        count = len({shot.source.image for shot in shared})
        logger.warning("photos of several defects: %d; each is there once for each, with the marks of that one alone",
                       count)  # fmt: skip
    return {shot.image: f"{shot.folder}{shot.stem}" for shot in shared}
