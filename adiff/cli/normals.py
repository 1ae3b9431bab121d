"""Where the commands look for a product's normal images."""

from __future__ import annotations

from pathlib import Path

from ..errors import InputError

PLACES = "in DIR, DIR/PRODUCT or DIR/PRODUCT/train/good"
"""What `normals_of` takes, for the help of --normals."""


def normals_folder(product: str, folder: Path) -> Path:
    """Where a product's normal images are: folder/product/train/good or folder/product if there is one, else folder."""
    own = (folder / product / "train" / "good", folder / product)
    return next((place for place in own if place.is_dir()), folder)


def normals_of(product: str, folder: Path) -> list[Path]:
    """A product's normal images, in its `normals_folder`; InputError if there are none."""
    from ..datasets.readers import list_images

    try:
        return list(list_images(normals_folder(product, folder)))
    except InputError as error:
        raise InputError(f"normal images of {product}: {error}") from error
