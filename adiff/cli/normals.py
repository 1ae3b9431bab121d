"""Where the commands look for a product's normal images."""

from __future__ import annotations

from pathlib import Path

from ..errors import InputError

PLACES = "in DIR, DIR/train/good, DIR/PRODUCT or DIR/PRODUCT/train/good"
"""What `normals_of` takes, for the help of --normals."""


def normals_of(product: str, folder: Path) -> list[Path]:
    """A product's normal images: in the first of the folders in `folder` that PLACES names last, else in itself."""
    from ..datasets.readers import list_images

    inner = (f"{product}/train/good", product, "train/good")
    own = [folder / place for place in inner if (folder / place).is_dir()]
    try:
        return list(list_images(own[0] if own else folder))
    except InputError as error:
        places = "" if own or not folder.is_dir() else f", or in its {', '.join(inner[:-1])} or {inner[-1]}"
        raise InputError(f"normal images of {product}: {error}{places}") from error
