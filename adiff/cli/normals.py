"""Where the commands look for a product's normal images."""

from __future__ import annotations

import logging
from pathlib import Path

from ..errors import InputError, listed

logger = logging.getLogger("adiff")

PLACES = "in DIR, DIR/train/good, DIR/normal, DIR/good, DIR/PRODUCT or DIR/PRODUCT/train/good"
"""What `normals_of` takes, for the help of --normals."""


def normals_of(product: str, folder: Path) -> list[Path]:
    """A product's normal images: in the first of the folders in `folder` that PLACES names, else in itself.

    Those in further folders within it are not taken, which is said. Raises InputError for a folder with masks beside
    its photos: these show defects, and masks would pass for photos.
    """
    from ..annotations.pictures import masks_among
    from ..datasets.readers import NORMAL_FOLDERS, list_images

    inner = (f"{product}/train/good", product, "train/good", *NORMAL_FOLDERS)
    own = [folder / place for place in inner if (folder / place).is_dir()]
    place = own[0] if own else folder
    try:
        found = list(list_images(place))
    except InputError as error:
        if _holds_images(place):  # a link that leads out, or what is not finished: other places are no remedy
            raise InputError(f"normal images of {product}: {error}") from error
        places = "" if own or not folder.is_dir() else f", or in its {', '.join(inner[:-1])} or {inner[-1]}"
        told = f"; its folders hold some, but each is taken alone: {listed(bare)}" if (bare := _within(folder)) else ""
        raise InputError(f"normal images of {product}: {error}{places}{told}") from error
    if masks := masks_among(found):
        names = listed(path.name for path in masks)
        raise InputError(f"normal images of {product}: {found[0].parent} holds masks beside its photos, which may show "
                         f"defects ({names}); give a folder of normal images alone")  # fmt: skip
    if within := _within(found[0].parent):
        logger.warning("%s: the images in its folders are not taken: %s", found[0].parent, listed(within))
    return found


def _within(folder: Path) -> list[str]:
    """Names of the folders in a folder that hold images."""
    return [path.name for path in sorted(folder.glob("[!.]*/")) if _holds_images(path)]


def _holds_images(folder: Path) -> bool:
    """Whether a folder is there and holds files that are called images."""
    from ..datasets.images import SUFFIXES

    return folder.is_dir() and any(one.suffix.lower() in SUFFIXES for one in folder.iterdir())
