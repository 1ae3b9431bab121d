"""Defects that are pasted in place of painted: the baselines, for comparison and to be mixed in."""

from __future__ import annotations

import numpy as np
import torch
from comfy_api.latest import io, ui

from .host import GraphProgress, levels_of, mask_batch
from .search import found_by
from .sockets import CATEGORY, DatasetSocket, DefectDataset, seed_input

METHODS = ("crop-paste", "cutpaste", "draem")
"""Of `adiff.baselines`, which takes seconds to import; a test compares them."""


class PasteBaseline(io.ComfyNode):
    """Normals + (shots or masks) -> IMAGE, MASK."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Declare inputs and outputs."""
        return io.Schema(
            node_id="ADiffPasteBaseline",
            display_name="Paste Baseline",
            category=f"{CATEGORY}/evaluate",
            **found_by("Crop-Paste", "CutPaste", "DRAEM"),
            description="Pairs without any model, in a moment: a real shot's defect pasted elsewhere (crop-paste), a "
            "patch of the photo itself (cutpaste), or a texture in the shape of noise (draem). To be compared with "
            "painted pairs, and mixed with them.",
            inputs=[
                io.Image.Input("normals", tooltip="Photos without defects; each pair takes one of them at random"),
                io.Combo.Input(
                    "method", options=list(METHODS), default=METHODS[0],
                    tooltip="crop-paste needs shots and keeps their shape; cutpaste and draem take the masks' shapes, "
                    "or make their own",
                ),
                io.Int.Input("count", default=8, min=1, max=4096, tooltip="Pairs to make"),
                seed_input("The same seed and inputs give the same pairs"),
                DatasetSocket.Input(
                    "shots", optional=True,
                    tooltip="From Load Defect Dataset or Add Shots: the real defects that crop-paste pastes",
                ),
                io.Mask.Input(
                    "masks", optional=True,
                    tooltip="Where, one after the other: crop-paste takes their middle, the others their shape too",
                ),
                io.Image.Input(
                    "textures", optional=True, tooltip="For draem; without them the photo's own tiles are shuffled"
                ),
            ],
            outputs=[
                io.Image.Output("IMAGE", display_name="image", tooltip="The pairs' images"),
                io.Mask.Output("MASK", display_name="mask", tooltip="What was pasted"),
            ],
        )  # fmt: skip

    @classmethod
    def execute(
        cls, normals, method: str, count: int, seed: int, shots: DefectDataset | None = None, masks=None, textures=None
    ) -> io.NodeOutput:  # fmt: skip
        """Paste them one after the other."""
        from ..adiff.baselines import paste_pairs  # takes a second to import

        pasted = paste_pairs(
            method, image_levels(normals), count, shots=_pairs_of(shots),
            masks=[] if masks is None else mask_batch(masks).cpu().numpy(),
            textures=[] if textures is None else image_levels(textures), seed=seed,
        )  # fmt: skip
        progress, made = GraphProgress(), []
        progress.start(count, method)
        for one in pasted:
            made.append(one)
            progress.update(len(made))
        image = torch.from_numpy(np.stack([one.image for one in made])).float() / 255
        mask = torch.from_numpy(np.stack([one.mask for one in made])).float()
        return io.NodeOutput(image, mask, ui=ui.PreviewImage(image, cls=cls))


def image_levels(images: torch.Tensor) -> list[np.ndarray]:
    """IMAGE -> (H, W, 3) uint8 each."""
    return list(levels_of(images))


def _pairs_of(shots: DefectDataset | None) -> list[tuple[np.ndarray, np.ndarray]]:
    return [] if shots is None else [pair for one in shots.shots.values() for pair in one.pairs]
