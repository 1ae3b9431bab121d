"""The defects of one image, painted one after another: what the first leaves is the normal image of the next.

Their masks lie apart, so each defect keeps its own pixels, and outside all masks the photo stays as it was, bit for
bit. One defect is the common case.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy import ndimage
from torch import Tensor

from ..backbone import Backbone
from ..datasets.images import Photo, read_mask
from ..errors import InputError
from ..geometry import EIGHT, Box, box_of
from ..library import Key
from ..memory import Parts
from ..scoring import ShotReference, measure_pair
from ..spatial_encoder import SpatialEncoder
from .pairs import Pair, make_pairs
from .seeds import derived_seed, generator_for
from .settings import GenerationSettings
from .sources import Batch, Chosen, FolderMasks, MaskSource, NoMask

TRIES = 24
"""Times that the masks of an image are drawn until they lie apart."""


@dataclass(frozen=True, eq=False)
class Layer:
    """One defect of a run: (product, defect), e_a (k, D), where its masks come from, the shots to compare with.

    guidance: that it is painted with, None for the settings'.
    """

    key: Key
    embedding: Tensor
    masks: MaskSource
    shots: ShotReference | None = None
    guidance: float | None = None

    def settings(self, of_run: GenerationSettings) -> GenerationSettings:
        """How the layer is painted."""
        return of_run if self.guidance is None else replace(of_run, guidance=self.guidance)


@dataclass(frozen=True, eq=False)
class Region:
    """One defect painted into one photo: the pair, whose image holds the earlier defects too, and its mask's origin."""

    pair: Pair
    source: dict[str, Any]


def paint_masks(
    backbone: Backbone,
    layers: Sequence[Layer],
    encoder: SpatialEncoder | None,
    photos: Sequence[Photo],
    chosen: Sequence[Sequence[Chosen]],
    batch: Batch,
    settings: GenerationSettings,
    parts: Parts | None = None,
) -> list[list[Region]]:
    """Paint every layer's defect into every photo of a batch; chosen: a mask of each layer for each photo.

    parts: what is known of the device's memory. Returns the regions of each photo in the order of the layers; the last
    one's image shows all of them.
    """
    if not photos:
        return []
    normals, regions = list(photos), [[] for _ in photos]
    for number, layer in enumerate(layers):
        masks, sources = zip(*(of_photo[number] for of_photo in chosen), strict=True)
        purpose = ("layer", number) if number else ()  # the first layer is what it would be alone
        generators = [generator_for(batch.seed, "pair", i, *purpose) for i in batch.ids]
        pairs = make_pairs(
            backbone, normals, masks, layer.embedding, encoder, layer.settings(settings), generators,
            shots=layer.shots, parts=parts,
        )  # fmt: skip
        normals = [Photo(pair.image, photo.path) for pair, photo in zip(pairs, photos, strict=True)]
        for of_photo, pair, source in zip(regions, pairs, sources, strict=True):
            of_photo.append(Region(pair, source))
    return regions


def masks_apart(
    backbone: Backbone, sources: Sequence[MaskSource], photos: Sequence[Photo], batch: Batch
) -> list[list[Chosen] | NoMask]:
    """Choose a mask of every source for each photo; where two touch, all of that photo are drawn again, TRIES times.

    A photo for which a source has none, or no two masks lie apart, gets no mask.
    """
    found: dict[int, list[Chosen] | NoMask] = {}
    for attempt in range(TRIES):
        left = [place for place in range(len(photos)) if place not in found]
        if not left:
            break
        of_left, ids = [photos[place] for place in left], [batch.ids[place] for place in left]
        drawn = []
        for number, source in enumerate(sources):
            seed = derived_seed(batch.seed, "layer", number, attempt) if number or attempt else batch.seed
            drawn.append(source.masks(backbone, of_left, Batch(seed, batch.number, ids)))
        for place, *of_photo in zip(left, *drawn, strict=True):
            lacking = next((one for one in of_photo if isinstance(one, NoMask)), None)
            if lacking is not None:
                found[place] = lacking
            elif lie_apart([mask for mask, _ in of_photo]):
                found[place] = of_photo
    touching = NoMask(
        f"no {len(sources)} masks that lie apart were found in {TRIES} draws; paint fewer defects in one image, or "
        "give smaller masks with --masks"
    )
    return [found.get(place, touching) for place in range(len(photos))]


def lie_apart(masks: Sequence[np.ndarray]) -> bool:
    """Whether no two of the masks, (H, W) bool, share a pixel or touch, corners included."""
    taken = np.zeros_like(masks[0])
    for mask in masks:
        if (taken & mask).any():
            return False
        taken |= ndimage.binary_dilation(mask, EIGHT)
    return True


def check_folders(sources: Sequence[MaskSource]) -> None:
    """Raise InputError if masks given as files, the i-th of each folder for one image, do not pair or are not apart."""
    given = [source for source in sources if isinstance(source, FolderMasks)]
    folders = [source.paths for source in given]
    if len(folders) < 2:
        return
    if len({len(paths) for paths in folders}) > 1:
        counts = " and ".join(str(len(paths)) for paths in folders)
        raise InputError(f"the folders hold {counts} masks; they are paired by order, so give equally many of each")
    for number, paths in enumerate(zip(*folders, strict=True)):
        masks = [read_mask(path).mask for path in paths]
        names = " and ".join(str(path) for path in paths)
        if len(normals := {source.normal_of(number) for source in given} - {None}) > 1:
            raise InputError(
                f"the masks {names} belong to one image, but were placed on {' and '.join(sorted(normals))}; place "
                "them on the same normal images"
            )
        if len({mask.shape for mask in masks}) > 1:
            raise InputError(f"the masks {names} belong to one image, but differ in size; give them in one size")
        if not lie_apart(masks):
            raise InputError(f"the masks {names} touch or overlap; masks for one image must lie apart")


def label_map(regions: Sequence[Region], asked: bool = False) -> np.ndarray:
    """Which defect each pixel shows: (H, W) uint8, 0 for none, else 1 for the first and so on.

    asked: by the masks that were painted, where those written are refined.
    """
    labels = np.zeros(regions[0].pair.mask.shape, np.uint8)
    for label, region in enumerate(regions, 1):
        pair = region.pair
        labels[pair.asked if asked and pair.asked is not None else pair.mask] = label
    return labels


def surrounding_box(regions: Sequence[Region]) -> Box:
    """The least box around the boxes that the model has seen."""
    return box_of([region.pair.box for region in regions])


def measure_all(photo: Photo, regions: Sequence[Region]) -> dict[str, float | None]:
    """The measures of an image with several defects, under the mask of all of them (METHOD 6).

    fill and refined_iou are means over the defects by their area, which are those of all masks: they lie apart. What
    compares with the shots of one defect is None; each region has its own.
    """
    rgb, written, asked = photo.rgb, label_map(regions) > 0, label_map(regions, asked=True)
    image = Photo(regions[-1].pair.image, photo.path).rgb
    measures = measure_pair(image, rgb, rgb, written, asked=asked > 0)
    areas = [int((asked == label).sum()) for label in range(1, len(regions) + 1)]
    for name in ("fill", "refined_iou"):
        measures[name] = float(np.average([region.pair.measures[name] for region in regions], weights=areas))
    return measures
