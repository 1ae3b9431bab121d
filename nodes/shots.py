"""Photos in the graph with masks painted on them, to learn from: no folder is needed."""

from __future__ import annotations

from comfy_api.latest import io

from ..adiff.datasets.images import name_of
from ..adiff.errors import InputError
from ..adiff.learning import Shots
from ..adiff.library import Key, check_name
from ..adiff.library_edit import check_apart
from .dataset import dataset_outputs, shown
from .host import levels_of, mask_batch, masks_at
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
    def execute(cls, images, masks, product: str, defect: str, dataset: DefectDataset | None = None) -> io.NodeOutput:
        """Add the photos to what is there."""
        key = check_name(product, "product"), check_name(defect, "defect")
        before = DefectDataset(IN_GRAPH, {}) if dataset is None else dataset
        check_apart("/".join(key), ["/".join(other) for other in before.shots])
        shots = _added(before.shots.get(key, Shots([], (), (), ())), key, images, masks)
        return shown(cls, DefectDataset(before.name, {**before.shots, key: shots}))


def _added(shots: Shots, key: Key, images, masks) -> Shots:
    """Shots of a defect and more of them, each named after its pixels: so its name does not depend on the graph.

    Raises InputError for masks that do not belong to the images, and for a photo that is there already.
    """
    marks = mask_batch(masks)
    if len(marks) != len(images):
        raise InputError(f"{len(marks)} masks for {len(images)} photos; give one for each photo")
    marks = masks_at(marks, images.shape[1:3]).cpu().numpy()
    photos = list(levels_of(images))
    files = [name_of(photo) for photo in photos]
    known = [name_of(photo) for photo, _ in shots.pairs]
    for number, file in enumerate(files):
        if file in known + files[:number]:
            raise InputError(
                f"photo {number + 1} of {len(files)} is among the shots of {'/'.join(key)} already; give it once, with "
                "all that shows this defect in one mask"
            )
    pairs = [*shots.pairs, *zip(photos, marks, strict=True)]
    return Shots(pairs, (*shots.files, *files), shots.held_out, shots.grey_masks)
