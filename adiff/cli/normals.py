"""Where the commands look for a product's normal images."""

from __future__ import annotations

from pathlib import Path

from ..errors import InputError, listed

PLACES = "in DIR, DIR/train/good, DIR/normal, DIR/good, DIR/PRODUCT or DIR/PRODUCT/train/good"
"""What `normals_of` takes, for the help of --normals."""


def normals_of(product: str, folder: Path) -> list[Path]:
    """A product's normal images: in the first of the folders in `folder` that PLACES names, else in itself.

    Raises InputError for a folder with masks beside its photos: these show defects, and masks would pass for photos.
    """
    from ..annotations.pictures import masks_among
    from ..datasets.readers import NORMAL_FOLDERS, list_images

    inner = (f"{product}/train/good", product, "train/good", *NORMAL_FOLDERS)
    own = [folder / place for place in inner if (folder / place).is_dir()]
    try:
        found = list(list_images(own[0] if own else folder))
    except InputError as error:
        places = "" if own or not folder.is_dir() else f", or in its {', '.join(inner[:-1])} or {inner[-1]}"
        raise InputError(f"normal images of {product}: {error}{places}") from error
    if masks := masks_among(found):
        names = listed(path.name for path in masks)
        raise InputError(f"normal images of {product}: {found[0].parent} holds masks beside its photos, which may show "
                         f"defects ({names}); give a folder of normal images alone")  # fmt: skip
    return found
