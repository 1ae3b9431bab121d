"""Where the commands look for a product's normal images."""

from __future__ import annotations

from pathlib import Path

from ..errors import InputError

PLACES = "in DIR, DIR/PRODUCT or DIR/PRODUCT/train/good"
"""What `normals_of` takes, for the help of --normals."""


def normals_of(product: str, folder: Path) -> list[Path]:
    """A product's normal images: in folder/product/train/good or folder/product if there is one, else in the folder."""
    from ..datasets.readers import list_images

    own = [place for place in (folder / product / "train" / "good", folder / product) if place.is_dir()]
    try:
        return list(list_images(own[0] if own else folder))
    except InputError as error:
        raise InputError(f"normal images of {product}: {error}") from error
