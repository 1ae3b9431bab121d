"""Photos in the graph with masks painted on them, to learn from: no folder is needed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from comfy_api.latest import io
from torch import Tensor

from ..adiff.datasets.images import name_of
from ..adiff.errors import InputError
from ..adiff.learning import Shots
from ..adiff.library import Key, check_name
from ..adiff.library_edit import check_apart
from .dataset import dataset_outputs, shown
from .host import levels_of, marks_of, masks_at
from .search import found_by
from .sockets import CATEGORY, IN_GRAPH, DatasetSocket, DefectDataset


class AddShots(io.ComfyNode):
    """IMAGE + MASK -> shots, added to those of a data set."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Declare inputs and outputs."""
        return io.Schema(
            node_id="ADiffAddShots",
            display_name="Add Shots",
            category=f"{CATEGORY}/train",
            **found_by("photos", "few-shot", "mask editor", "draw mask"),
            is_input_list=True,  # else a loader's list would make a data set of each photo
            description="Photos of a defect with masks painted in ComfyUI's mask editor, to learn from: no folder is "
            "needed. Another Add Shots behind it adds photos of another size, or of another defect.",
            inputs=[
                io.Image.Input("images", tooltip="Photos of the defect, from Load Image"),
                io.Mask.Input("masks", tooltip="Where the defect is, one for each photo: painted in its mask editor"),
                io.String.Input("product", default="product", tooltip="Name of the product"),
                io.String.Input(
                    "defect", default="defect",
                    tooltip="Name of the defect. The same product and defect again adds to that defect's shots",
                ),
                DatasetSocket.Input(
                    "dataset", optional=True,
                    tooltip="From another Add Shots or Load Defect Dataset: the shots to add these to",
                ),
            ],
            outputs=dataset_outputs(),
        )  # fmt: skip

    @classmethod
    def execute(
        cls, images: list, masks: list, product: list[str], defect: list[str], dataset: Sequence[DefectDataset] = ()
    ) -> io.NodeOutput:
        """Add the photos to what is there; every input is a list, of one batch, or of all that a loader gives."""
        if len(dataset) > 1:
            raise InputError(f"{len(dataset)} datasets; give one, and other photos by another Add Shots behind it")
        before = dataset[0] if dataset else DefectDataset(IN_GRAPH, {})
        shots = dict(before.shots)
        for key, painted in _by_key(images, masks, product, defect).items():
            check_apart("/".join(key), ["/".join(other) for other in shots])
            shots[key] = _added(shots.get(key, Shots([], (), (), ())), key, painted)
        return shown(cls, DefectDataset(before.name, shots))


class _Painted(NamedTuple):
    """photo: (H, W, C) in [0, 1]; mark: (H, W) bool, of its shape."""

    photo: Tensor
    mark: Tensor


def _by_key(images: list, masks: list, product: Sequence[str], defect: Sequence[str]) -> dict[Key, list[_Painted]]:
    """The photos of each defect with what is marked in them; InputError for masks that are not one for each photo."""
    photos = [(number, photo) for number, batch in enumerate(images) for photo in batch]
    every = [mask for batch in masks for mask in batch.reshape(-1, *batch.shape[-2:])]
    if len(every) != len(photos):
        raise InputError(f"{len(every)} masks for {len(photos)} photos; give one for each photo")
    found: dict[Key, list[_Painted]] = {}
    for (number, photo), mark in zip(photos, marks_of(every), strict=True):
        key = check_name(_at(product, number), "product"), check_name(_at(defect, number), "defect")
        found.setdefault(key, []).append(_Painted(photo, mark))
    return found


def _at(names: Sequence[str], number: int) -> str:
    """The name that goes with an item of the images' list; the last one goes with all further ones, as in all nodes."""
    return names[min(number, len(names) - 1)]


def _added(shots: Shots, key: Key, painted: Sequence[_Painted]) -> Shots:
    """Shots of a defect and more of them, each named after its pixels: so its name does not depend on the graph.

    Raises InputError for a mask that does not belong to its photo, and for a photo that is there already.
    """
    pairs, files = list(shots.pairs), list(shots.files)
    known = {name_of(photo) for photo, _ in pairs}
    for number, (photo, mark) in enumerate(painted, 1):
        image = levels_of(photo)
        if (file := name_of(image)) in known:
            raise InputError(
                f"photo {number} of {len(painted)} is among the shots of {'/'.join(key)} already; give it once, with "
                "all that shows this defect in one mask"
            )
        known.add(file)
        files.append(file)
        pairs.append((image, masks_at(mark[None], photo.shape[:2])[0].cpu().numpy()))
    return Shots(pairs, tuple(files), shots.held_out, shots.grey_masks)
