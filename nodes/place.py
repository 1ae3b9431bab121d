"""Masks placed onto an object: moved, turned and scaled, never off it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from comfy_api.latest import io, ui

from ..adiff.errors import InputError
from ..adiff.foreground import WAYS, find_foregrounds
from ..adiff.placement import EDGES, Placed, Placing, ShotSpread, place_masks
from .mask import binary_masks, real_masks
from .search import found_by
from .sockets import CATEGORY, DefectSocket, LearnedDefect, seed_input


class PlaceMasks(io.ComfyNode):
    """MASK batch + foreground -> MASK batch."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Declare inputs and outputs."""
        return io.Schema(
            node_id="ADiffPlaceMasks",
            display_name="Place Masks",
            category=f"{CATEGORY}/mask",
            **found_by("move mask", "foreground"),
            description="Moves, turns and scales masks onto the object, never off it. The object is given as a mask or "
            "found in the normal images: by their transparency, by the background's colour, or by what is constant "
            "across aligned ones.",
            inputs=[
                io.Mask.Input("masks", tooltip="Masks of any size, drawn or generated"),
                io.Int.Input(
                    "count", default=0, min=0, max=256,
                    tooltip="Masks to place; 0 is one for each mask or each normal image, whichever are more",
                ),
                seed_input("The same seed and inputs give the same places"),
                io.Float.Input(
                    "turn", default=0.0, min=0.0, max=180.0, step=1.0,
                    tooltip="Degrees that a mask is turned to either side, at most; 180 is any direction",
                ),
                io.Float.Input(
                    "min_scale", default=1.0, min=0.05, max=10.0, step=0.05, tooltip="Factor of its sides, at least"
                ),
                io.Float.Input(
                    "max_scale", default=1.0, min=0.05, max=10.0, step=0.05, tooltip="Factor of its sides, at most"
                ),
                io.Combo.Input(
                    "edge", options=list(EDGES), default=EDGES[0],
                    tooltip="anywhere on the object; near: some of the mask within the margin of the object's edge; "
                    "away: all of it further from the edge than the margin",
                ),
                io.Int.Input("margin", default=8, min=1, max=4096, tooltip="Pixels, for near and away"),
                io.Int.Input(
                    "tries", default=32, min=1, max=1000, tooltip="Turns and scales drawn for a mask before giving up"
                ),
                io.Combo.Input(
                    "find", options=list(WAYS), default=WAYS[0],
                    tooltip="How the object is found in the normal images: alpha, border colour and constant part tell "
                    "it from the background, automatic tries them in this order; whole picture is for surfaces",
                ),
                io.Mask.Input("foreground", optional=True, tooltip="Where the object is; one for all, or one for each"),
                io.Image.Input("normals", optional=True, tooltip="Normal images to find the object in, without a mask"),
                DefectSocket.Input(
                    "defect", optional=True, tooltip="Turns and scales as its real masks show, not as set above"
                ),
            ],
            outputs=[
                io.Mask.Output("MASK", display_name="masks", tooltip="The placed masks, one for each normal image"),
                io.Mask.Output("FOREGROUND", display_name="foreground", tooltip="Where the object is"),
                io.String.Output("REPORT", display_name="report", tooltip="What was done to each mask"),
            ],
        )  # fmt: skip

    @classmethod
    def execute(
        cls, masks, count, seed, turn, min_scale, max_scale, edge, margin, tries, find, foreground=None, normals=None,
        defect: LearnedDefect | None = None,
    ) -> io.NodeOutput:  # fmt: skip
        """Find the object, place the masks."""
        placing = Placing(turn, (min_scale, max_scale), edge=edge, margin=margin, tries=tries)
        shapes = binary_masks(masks)
        grounds, way = _grounds(foreground, normals, find)
        found = place_masks(
            shapes, grounds, placing, count=count or max(len(shapes), len(grounds)), seed=seed,
            spread=None if defect is None else ShotSpread.of(real_masks(defect)),
        )
        placed = torch.from_numpy(np.stack([one.mask for one in found])).float()
        lines = [f"object: {way}", *(_line(number, one) for number, one in enumerate(found, 1))]
        there = torch.from_numpy(np.stack(grounds)).float()
        return io.NodeOutput(placed, there, "\n".join(lines), ui=ui.PreviewMask(placed, cls=cls))


def _grounds(foreground, normals, find: str) -> tuple[Sequence[np.ndarray], str]:
    """Foregrounds, one for each normal image, and where they come from."""
    if foreground is not None:
        return binary_masks(foreground), "as given"
    if normals is None:
        raise InputError("nothing tells where the object is; connect a foreground mask, or normal images to find it in")
    levels = (normals * 255).round().clamp(0, 255).to(torch.uint8).cpu().numpy()
    return find_foregrounds(levels, find)


def _line(number: int, one: Placed) -> str:
    """What became of one place."""
    what = f"mask {number}: from mask {one.number + 1}, turned by {one.turn:.0f} degrees, scaled by {one.scale:.2f}"
    refused = "; ".join(f"mask {other + 1}: {reason}" for other, reason in one.refused)
    return f"{what} (did not fit: {refused})" if refused else what
