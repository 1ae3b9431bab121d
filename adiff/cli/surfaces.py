"""`adiff surfaces`: a procedural inspection data set in MVTec's layout."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, NamedTuple

import typer

from ..errors import InputError
from ..storage import filled_folder, write_json
from .app import keeping
from .options import Seed
from .progress import CliProgress

RECORD, CAPTIONS = "surfaces.json", "captions.json"
KIND = "surfaces"


def surfaces(
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder to write; empty, or of the same settings.")],
    images: Annotated[
        int, typer.Option("--images", min=2, help="Images: N good for training, N/2 for testing, N of each defect.")
    ] = 20,
    size: Annotated[int, typer.Option("--size", min=32, max=4096, help="Side of an image, pixels.")] = 128,
    product: Annotated[
        list[str] | None,
        typer.Option("--product", metavar="P", help="Product, once for each.  [dim]default: all six[/dim]"),
    ] = None,
    seed: Seed = 0,
) -> None:
    """Draw photos of inspected surfaces with pixel-exact defect masks, in MVTec's layout."""
    from ..datasets.surfaces import DEFECTS, PRODUCTS

    wanted = tuple(dict.fromkeys(product or PRODUCTS))
    with CliProgress() as progress:
        count = write_surfaces(out, {name: DEFECTS for name in wanted}, images, size, seed, progress)
    typer.echo(f"{count} images of {', '.join(wanted)} in {out}")


class _Picture(NamedTuple):
    product: str
    defect: str | None
    split: str
    index: int

    @property
    def stem(self) -> str:
        return f"{self.index:03d}"

    @property
    def folder(self) -> str:
        return f"{self.split}/{self.defect or 'good'}"


def write_surfaces(
    out: Path, products: Mapping[str, Sequence[str]], images: int, size: int, seed: int, progress: CliProgress
) -> int:
    """Write a set and return the number of its images; written again with the same settings it is the same, bytewise.

    products: product -> its defects. Foreground masks of products that do not fill the frame go to
    PRODUCT/foreground/<split>_<good or defect>/. Raises InputError for unknown products and for a folder that holds
    anything but a set of these settings.
    """
    from ..datasets.surfaces import PRODUCTS

    unknown = [product for product in products if product not in PRODUCTS]
    if unknown:
        raise InputError(f"there is no product {unknown[0]!r}; choose from {', '.join(PRODUCTS)}")
    settings = {"products": {p: list(d) for p, d in products.items()}, "images": images, "size": size, "seed": seed}
    with filled_folder(out, RECORD, {"kind": KIND, "licence": "CC0-1.0"}, settings):
        return _fill(products, images, size, seed, out, progress)


def _fill(
    products: Mapping[str, Sequence[str]], images: int, size: int, seed: int, out: Path, progress: CliProgress
) -> int:
    from ..datasets.surfaces import VOCABULARY
    from ..datasets.writers import write_mvtec_good, write_mvtec_pair

    pictures = list(_pictures(products, images))
    captions: dict[str, list[str]] = {}
    progress.start(len(pictures), "drawing surfaces")
    for done, picture in enumerate(pictures):
        with keeping(f"{done} of {len(pictures)} images are in {out}; the same command completes them"):
            surface = _draw(picture, size, seed)
            if picture.defect is None:
                write_mvtec_good(out, picture.product, picture.split, picture.stem, surface.image)
            else:
                write_mvtec_pair(out, picture.product, picture.defect, picture.stem, surface.image, surface.mask)
            _write_foreground(out, picture, surface.foreground)
            captions[f"{picture.product}/{picture.folder}/{picture.stem}.png"] = list(surface.words)
            progress.update(done + 1)
    write_json(out / CAPTIONS, {"vocabulary": list(VOCABULARY), "captions": captions})
    progress.finish()
    return len(pictures)


def _pictures(products: Mapping[str, Sequence[str]], images: int) -> Iterator[_Picture]:
    for product, defects in products.items():
        for split, count in (("train", images), ("test", images // 2)):
            yield from (_Picture(product, None, split, index) for index in range(count))
        for defect in defects:
            yield from (_Picture(product, defect, "test", index) for index in range(images))


def _draw(picture: _Picture, size: int, seed: int):
    from ..datasets.surfaces import render, sample_seed

    generator = sample_seed(seed, picture.product, picture.defect, picture.split, picture.index)
    return render(picture.product, picture.defect, size, generator)


def _write_foreground(out: Path, picture: _Picture, foreground) -> None:
    """Write the foreground mask of a product that stands on a background."""
    from ..datasets.images import write_png

    if not foreground.all():
        name = picture.folder.replace("/", "_")
        write_png(out / picture.product / "foreground" / name / f"{picture.stem}.png", foreground)
