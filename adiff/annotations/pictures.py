"""Masks as pictures, under the names that people and published data sets give them.

| masks | for instance |
|---|---|
| in a folder for them, beside the photos' or in it | image/7.jpg, mask/7.png; Train/7.png, Train/Label/7_label.png |
| beside the photo, by an ending | 7.jpg, 7_label.bmp; 7.png, 7_GT.png |
| beside the photo, by the suffix | 7.jpg, 7.png |
| several of a photo, in a folder of its name | test/dent/7.png, ground_truth/dent/7/0.png |

The folders of a photo name its defect, those apart that are called images, train and their like. A black mask says that
there is no defect, and so does, of a photo without a mask, a folder called good, normal or OK.
"""

from __future__ import annotations

import logging
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from ..datasets.images import LOSSY, mask_levels
from ..datasets.readers import DEFECT
from ..errors import InputError, listed
from ..storage import composed
from .dataset import NO_DEFECT
from .marks import Annotated, Mark, Size, images_in

logger = logging.getLogger("adiff")

WORDS = "masks?|labels?|gt|ground[ _-]?truths?|seg|segmentations?|annotations?"
FOLDER = re.compile(rf"(.*[ _-])?({WORDS})([ _-](images?|imgs?|png))?", re.IGNORECASE)
"""Name of a folder of masks."""
ENDING = re.compile(rf"(.+)[ _.-]({WORDS})", re.IGNORECASE)
"""Stem of a mask, and in it that of its photo."""
NO_NAME = re.compile(
    "(.*[ _-])?(images?|imgs?|photos?|pictures?|rgb|jpegimages)|data|train|training|test|testing|test_public|val|valid|"
    "validation",
    re.IGNORECASE,
)
"""Name of a folder that tells no defect."""
FEW = 8
"""Levels of a mask of classes, at most; soft edges have more."""
CLEAR = 0.9
"""Share of a soft mask's pixels within an eighth of full scale from black or white, at least; of a photo's they are
fewer."""

LOOKED_AT = 16
"""Pictures that differ from others in their suffix alone, of which so many are opened to see if they are masks."""

Place = tuple[str, ...]
"""Where a file lies: the names of the folders and its stem, composed."""
Files = dict[Place, Path]


def read_pictures(root: Path, images: Path | None = None) -> list[Annotated]:
    """Read the photos below a folder that have masks there, and those said to be good; [] where no photo has a mask.

    images: the folder of the photos; all pictures in `root` are masks then. Raises InputError for masks without a
    photo, or that may be of several, and for photos in the place of masks.
    """
    if images is None:
        photos, masks = told_apart(_placed(root))
    else:
        photos, masks = told_apart([*_placed(images, "images"), *_placed(root, "masks")])
    of_photo = _matched(photos, masks)
    if not of_photo:
        return []
    found, bare, classes = [], [], []
    for place, path in photos.items():
        if path not in of_photo and not any(name.lower() in NO_DEFECT for name in place[:-1]):
            bare.append(path.name)
            continue
        label = "/".join(name for name in place[:-1] if not NO_NAME.fullmatch(name)) or DEFECT
        marks = []
        for mask in of_photo.get(path, ()):
            drawn, several = _opened(mask)
            if drawn.any():
                marks.append(Mark(label, partial(_drawn, mask)))
            if several:
                classes.append(mask.name)
        found.append(Annotated(path, tuple(marks)))
    if bare:
        logger.warning("photos without a mask: %d of %d; they are left out, as they may show defects; put those that "
                       "show none into a folder called good: %s", len(bare), len(photos), listed(bare))  # fmt: skip
    if classes:
        logger.warning("masks of several numbers: %d; all that is not black in them is taken as one defect (in Pascal "
                       "VOC's layout each is its own): %s", len(classes), listed(classes))  # fmt: skip
    return found


def _placed(folder: Path, *before: str) -> list[tuple[Place, Path]]:
    """The pictures below a folder with their places; before: names that each begins with."""
    found = [(path.relative_to(folder).with_suffix("").parts, path) for path in images_in(folder, "**/*")]
    return [((*before, *map(composed, parts)), path) for parts, path in found]


def told_apart(pictures: Sequence[tuple[Place, Path]]) -> tuple[Files, list[tuple[Place, Path]]]:
    """Return the photos, and the masks; InputError for pictures that differ in their suffix alone and may be either."""
    of_place: dict[Place, list[Path]] = defaultdict(list)
    photos, masks = {}, []
    for place, path in pictures:
        if any(map(FOLDER.fullmatch, place[:-1])):
            masks.append((place, path))
        else:
            of_place[place].append(path)
    for place, paths in of_place.items():
        ending = ENDING.fullmatch(place[-1])
        lossless = [path for path in paths if path.suffix.lower() not in LOSSY]
        if ending and (*place[:-1], ending[1]) in of_place:
            masks += [(place, path) for path in paths]
        elif len(paths) == 2 and len(lossless) == 1:
            masks.append((place, *lossless))
            photos[place] = next(path for path in paths if path not in lossless)
        elif len(paths) > 1:
            raise InputError(
                f"{paths[0]} and {paths[1]} differ in their suffix alone, and either may be the mask; call it "
                f"{place[-1]}_mask"
            )
        else:
            photos[place] = paths[0]
    return photos, masks


def masks_among(files: Sequence[Path]) -> list[Path]:
    """Return the files of one folder that are masks of others in it: called so, or of their stem and black and white.

    Of those that differ in their suffix alone the first LOOKED_AT are opened; a camera may have saved photos twice.
    """
    stems = Counter(composed(path.stem) for path in files)
    called = [path for path in files if (e := ENDING.fullmatch(composed(path.stem))) and e[1] in stems]
    twins = [path for path in files if stems[composed(path.stem)] > 1 and path.suffix.lower() not in LOSSY]
    return called or [path for path in twins[:LOOKED_AT] if _is_mask(path)]


def _is_mask(path: Path) -> bool:
    """Whether a picture opens, and could be a mask by its levels."""
    try:
        _opened(path)
    except InputError:
        return False
    return True


def _matched(photos: Files, masks: Sequence[tuple[Place, Path]]) -> dict[Path, list[Path]]:
    """The masks of each photo that has any; InputError for a mask without a photo, or that may be of several."""
    around: dict[tuple[Place, Place], list[Path]] = defaultdict(list)
    for place, path in photos.items():
        for depth in range(len(place) - 1):
            around[place[:depth], place[depth + 1 :]].append(path)
    of_photo, lost = defaultdict(list), []
    for place, mask in masks:
        found = next(filter(None, (_photos_of(tried, photos, around) for tried in _tried(place))), [])
        if len(found) > 1:
            raise InputError(f"the mask {mask} may be of {found[0]} or {found[1]}; give a folder with one of them")
        for photo in found:
            of_photo[photo].append(mask)
        if not found:
            lost.append(mask)
    if of_photo and lost:
        raise InputError(f"{len(lost)} of {len(masks)} masks have no photo of their name, the first is {lost[0]}; add "
                         "the photos, or take the masks out")  # fmt: skip
    return of_photo


def _tried(place: Place) -> Iterator[Place]:
    """Places that a mask's photo may have, the mask's folder still among them: of its stem, and of its last folder."""
    yield place
    if ending := ENDING.fullmatch(place[-1]):
        yield (*place[:-1], ending[1])
    if len(place) > 2:
        yield place[:-1]


def _photos_of(place: Place, photos: Files, around: dict[tuple[Place, Place], list[Path]]) -> list[Path]:
    """The photos in a place, the folder of masks in it left out or replaced by any other."""
    depths = [depth for depth, name in enumerate(place[:-1]) if FOLDER.fullmatch(name)]
    if not depths:
        return [photos[place]] if place in photos else []
    for before, behind in ((place[:depth], place[depth + 1 :]) for depth in depths):
        if found := [photos[before + behind]] if before + behind in photos else around.get((before, behind), []):
            return found
    return []


def _drawn(path: Path, size: Size) -> np.ndarray:
    return _opened(path, size)[0]


def _opened(path: Path, size: Size | None = None) -> tuple[np.ndarray, bool]:
    """What a mask marks, (H, W) bool, and whether by several classes: of few levels all but 0 mark, of many those from
    half of full scale. Raises InputError for a photo.
    """
    values, full, _ = mask_levels(path, size)
    levels = np.unique(values)
    if path.suffix.lower() not in LOSSY and len(levels) <= FEW:
        return values > 0, len(levels) > 2
    if ((values <= full // 8) | (values >= full - full // 8)).mean() < CLEAR:
        raise InputError(f"{path} is in the place of a mask, and most of it is neither black nor white; is it a photo?")
    return values > full // 2, False
