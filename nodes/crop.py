"""Small defects at the model's full resolution: crops around masks, and the way back into the photos."""

from __future__ import annotations

import json

import numpy as np
import torch
from comfy_api.latest import io

from ..adiff.crops import PARTS, Crop, blend_weight, crops_of, join_measures
from ..adiff.datasets.images import name_of
from ..adiff.errors import InputError
from ..adiff.geometry import CONTEXT, resize_image, resize_mask
from .finish import measures_of
from .host import levels_of, mask_batch, masks_at, to_batch
from .search import found_by
from .sockets import CATEGORY, CroppedPhotos, CropSocket


class CropToMask(io.ComfyNode):
    """IMAGE + MASK -> IMAGE, MASK and the way back."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Declare inputs and outputs."""
        return io.Schema(
            node_id="ADiffCropToMask",
            display_name="Crop to Mask",
            category=f"{CATEGORY}/sample",
            **found_by("inpaint crop", "zoom"),
            description="Cuts the surroundings of a mask out of a photo of any size and brings them to the model's "
            "size: a small defect is then painted in full detail. Stitch puts it back.",
            inputs=[
                io.Image.Input("image", tooltip="The normal photo, of any size; one for each mask, or one for all"),
                io.Mask.Input("mask", tooltip="Where the defect goes; one for each photo, or one for all"),
                io.Int.Input(
                    "size", default=512, min=64, max=2048, step=8,
                    tooltip="Side of the crop in pixels: what the model was trained on, 512 for SD 1.5 and 128 for "
                    "the demo model",
                ),
                io.Float.Input(
                    "context", default=CONTEXT, min=1.2, max=16.0, step=0.1,
                    tooltip="How much of the photo the model sees: side of the crop in sides of the mask",
                ),
                io.Combo.Input(
                    "parts", options=list(PARTS), default=PARTS[0],
                    tooltip="A mask of several parts: near together gives far ones a crop each, one by one all of "
                    "them, together makes one crop. The batch grows with the crops",
                ),
            ],
            outputs=[
                io.Image.Output("IMAGE", display_name="image", tooltip="The crops: encode them in place of the photo"),
                io.Mask.Output("MASK", display_name="mask", tooltip="What is to be painted in each crop"),
                CropSocket.Output("CROP", display_name="crop", tooltip="For Stitch: the photos, and what lies where"),
            ],
        )  # fmt: skip

    @classmethod
    def execute(cls, image, mask, size: int, context: float, parts: str) -> io.NodeOutput:
        """Cut every photo where its own mask says."""
        mask = masks_at(mask_batch(mask), image.shape[1:3])
        batch = max(len(image), len(mask))
        photos = to_batch(image[..., :3], batch, "images")
        masks = to_batch(mask, batch, "masks").cpu().numpy()
        crops = tuple(tuple(crops_of(one, size, parts, context=context)) for one in masks)
        pairs = [(photo, crop) for photo, of_photo in zip(photos, crops, strict=True) for crop in of_photo]
        views = [resize_image(levels_of(photo[crop.box.slices]), size, size) for photo, crop in pairs]
        painted = [resize_mask(crop.mask, size, size) for _, crop in pairs]
        return io.NodeOutput(
            torch.from_numpy(np.stack(views)).float() / 255,
            torch.from_numpy(np.stack(painted)).float(),
            CroppedPhotos(photos, crops, size),
        )


class Stitch(io.ComfyNode):
    """Painted crops -> full-size IMAGE and MASK."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Declare inputs and outputs."""
        return io.Schema(
            node_id="ADiffStitch",
            display_name="Stitch",
            category=f"{CATEGORY}/finish",
            **found_by("inpaint stitch", "uncrop"),
            description="Puts painted crops back into their photos, inside the mask. Outside the mask the photos stay "
            "as they were, bit for bit.",
            inputs=[
                io.Image.Input("images", tooltip="The painted crops, from Finish Pair or VAE Decode"),
                CropSocket.Input("crop", tooltip="From the Crop to Mask that made them"),
                io.Float.Input(
                    "feather_radius", default=1.5, min=0.0, max=64.0, step=0.5,
                    tooltip="Pixels of the crop over which the defect fades in, inside the mask",
                ),
                io.Mask.Input(
                    "masks", optional=True,
                    tooltip="From Finish Pair: masks that it has shrunk; else those that went into Crop to Mask",
                ),
                io.String.Input(
                    "measures", optional=True, force_input=True, tooltip="From Finish Pair, to be told of each photo"
                ),
            ],
            outputs=[
                io.Image.Output("IMAGE", display_name="image", tooltip="The photos at their full size"),
                io.Mask.Output("MASK", display_name="mask", tooltip="Their masks, alike"),
                io.String.Output("MEASURES", display_name="measures", tooltip="Measures of each photo, as JSON"),
            ],
        )  # fmt: skip

    @classmethod
    def execute(
        cls, images, crop: CroppedPhotos, feather_radius: float, masks=None, measures: str | None = None
    ) -> io.NodeOutput:
        """Put every crop back; several rounds of crops give several batches of photos."""
        crops = [(number, one) for number, of_photo in enumerate(crop.crops) for one in of_photo]
        rounds = _rounds(images, len(crops))
        painted = None if masks is None else to_batch(mask_batch(masks), len(images), "masks").cpu().numpy()
        told = measures_of(measures, len(images)) if measures else []
        height, width = crop.photos.shape[1:3]
        photos = crop.photos.repeat(rounds, 1, 1, 1)
        marked = np.zeros((len(photos), height, width), dtype=bool)
        found: list[list[dict]] = [[] for _ in photos]
        for place, view in enumerate(images):
            number, one = crops[place % len(crops)]
            number += place // len(crops) * len(crop.photos)
            _put_back(photos[number], view, one, feather_radius, crop.size)
            marked[number][one.box.slices] |= _shrunk(one, None if painted is None else painted[place])
            found[number] += told[place : place + 1]
        names = [name_of(levels_of(photo)) for photo in crop.photos] * rounds if told else []
        joined = [{**join_measures(*one), "normal": name}
                  for name, *one in zip(names, found, crop.crops * rounds, marked, strict=False) if one[0]]  # fmt: skip
        return io.NodeOutput(photos, torch.from_numpy(marked).float(), json.dumps(joined, indent=1) if joined else "")


def _rounds(images: torch.Tensor, crops: int) -> int:
    """How many times the crops were painted; raises InputError for images that are not theirs."""
    if len(images) % crops:
        raise InputError(f"{len(images)} images for {crops} crops; give as many, from what Crop to Mask cut out")
    if images.shape[1] != images.shape[2]:
        raise InputError(
            f"the images are {images.shape[2]} x {images.shape[1]}; crops are square: give what was painted from Crop "
            "to Mask's image"
        )
    return len(images) // crops


def _put_back(photo: torch.Tensor, view: torch.Tensor, crop: Crop, radius: float, size: int) -> None:
    """Lay a painted crop over its photo (H, W, 3), in place, inside the mask; what is outside is not touched."""
    patch = torch.from_numpy(resize_image(levels_of(view), crop.box.height, crop.box.width)).to(photo) / 255
    weight = torch.from_numpy(blend_weight(crop, tuple(photo.shape[:2]), radius, size)).to(photo)[..., None]
    there = photo[crop.box.slices]
    there.copy_(there.lerp(patch, weight).where(weight > 0, there))


def _shrunk(crop: Crop, mask: np.ndarray | None) -> np.ndarray:
    """What a crop paints, or what Finish Pair has left of it."""
    return crop.mask if mask is None else crop.mask & resize_mask(mask, *crop.mask.shape)
