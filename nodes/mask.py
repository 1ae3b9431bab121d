"""Masks: sampled from a mask embedding (Eq. 10), varied from real ones, and sorted by the rules of real ones."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import torch
from comfy_api.latest import io, ui

from ..adiff.errors import InputError
from ..adiff.library import check_base
from ..adiff.masks import MaskRules, check_mask
from ..adiff.outline import enlarge_mask
from ..adiff.variation import MaskVariation
from .host import ComfyBackbone, GraphProgress
from .search import found_by
from .sockets import CATEGORY, DefectSocket, LearnedDefect, base_inputs, seed_input


class GenerateMasks(io.ComfyNode):
    """Mask embedding -> MASK batch."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Declare inputs and outputs."""
        return io.Schema(
            node_id="ADiffGenerateMasks",
            display_name="Generate Masks",
            category=f"{CATEGORY}/mask",
            **found_by("AnomalyDiffusion", "random mask"),
            description="New masks in the manner of a defect's real ones, each checked against their range of sizes, "
            "parts and places.",
            inputs=[
                DefectSocket.Input("defect", tooltip="From Load Defect; its masks must have been learned"),
                *base_inputs("that the defect was learned on", "guidance"),
                io.Int.Input("count", default=4, min=1, max=256, tooltip="Masks to make"),
                seed_input("The same seed and inputs give the same masks"),
                io.Int.Input(
                    "steps", default=0, min=0, max=1000,
                    tooltip="Sampling steps. 0: 12 on the demo model, 25 on one of full size such as SD 1.5",
                ),
                io.Float.Input(
                    "cfg", default=0.0, min=0.0, max=30.0, step=0.1,
                    tooltip="Guidance; more makes larger masks. 0: 2 on the demo model, 5, as published, on one of "
                    "full size",
                ),
                io.Float.Input(
                    "threshold", default=0.6, min=0.05, max=0.95, step=0.05,
                    tooltip="Above which level a sampled pixel belongs to the mask",
                ),
                io.Int.Input(
                    "tries", default=24, min=1, max=200,
                    tooltip="Masks drawn for each one wanted, before giving up",
                ),
                io.Image.Input("image", optional=True, tooltip="Masks take its size; else the model's own size"),
                io.Float.Input(
                    "denoise", default=1.0, min=0.05, max=1.0, step=0.05, optional=True,
                    tooltip="How far a real mask is made anew; 1: sampled from noise, as published",
                ),
            ],
            outputs=[
                io.Mask.Output("MASK", display_name="masks", tooltip="The masks, as a batch"),
                io.String.Output("REPORT", display_name="report", tooltip="Likeness of each mask to the real ones"),
            ],
        )  # fmt: skip

    @classmethod
    def execute(
        cls, defect: LearnedDefect, model, vae, empty, count, seed, steps, cfg, threshold, tries, image=None,
        denoise=1.0,
    ) -> io.NodeOutput:  # fmt: skip
        """Sample with the engine on the graph's model."""
        from ..adiff.generation import MaskSampling, sample_masks  # takes seconds to import

        entry = defect.entry
        shots = real_masks(defect)
        if entry.mask is None:
            raise InputError(f"{entry.name} in {defect.source} has no masks; train it with masks")
        size = shots[0].shape[0]
        backbone = ComfyBackbone(model, vae, empty, native_size=size)
        check_base(defect.library, backbone)
        drawn = sample_masks(
            backbone, entry.mask.to(backbone.device), count, rules=MaskRules.from_shots(shots), shots=shots, seed=seed,
            settings=MaskSampling(steps or None, cfg or None, denoise, threshold, tries),
            progress=GraphProgress(),
        )  # fmt: skip
        masks = [one.mask for one in drawn]
        if image is not None:
            masks = [enlarge_mask(mask, image.shape[1], image.shape[2]) for mask in masks]
        return _shown(cls, masks, (f"best overlap with a real mask {one.iou:.2f}" for one in drawn))


class VaryShotMasks(io.ComfyNode):
    """Real masks of a defect -> MASK batch."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Declare inputs and outputs."""
        return io.Schema(
            node_id="ADiffVaryShotMasks",
            display_name="Vary Shot Masks",
            category=f"{CATEGORY}/mask",
            **found_by("augment masks"),
            description="A defect's real masks as new ones: mirrored, stretched, turned, scaled and moved within their "
            "own range. Nothing has to be learned for it.",
            inputs=[
                DefectSocket.Input("defect", tooltip="From Load Defect, Pick Defect or Train Defects"),
                io.Int.Input("count", default=4, min=1, max=256, tooltip="Masks to make"),
                seed_input("The same seed and inputs give the same masks"),
                io.Image.Input("image", optional=True, tooltip="Masks take its size; else that of the real masks"),
            ],
            outputs=[
                io.Mask.Output("MASK", display_name="masks", tooltip="The masks, as a batch"),
                io.String.Output("REPORT", display_name="report", tooltip="Which real mask each one was, and its turn"),
            ],
        )  # fmt: skip

    @classmethod
    def execute(cls, defect: LearnedDefect, count, seed, image=None) -> io.NodeOutput:
        """Vary each mask by a generator of its own."""
        shots = real_masks(defect)
        size = shots[0].shape if image is None else tuple(image.shape[1:3])
        variation = MaskVariation(shots)
        drawn = [variation.draw(size, np.random.default_rng((seed, number))) for number in range(count)]
        return _shown(cls, [one.mask for one in drawn], [f"shot {o.shot + 1}, turned by {o.turn:.0f}°" for o in drawn])


def _shown(cls: type[io.ComfyNode], masks: list[np.ndarray], told: Iterable[str]) -> io.NodeOutput:
    """Masks as a batch and a preview, with a line about each."""
    both = enumerate(zip(masks, told, strict=True), 1)
    lines = [f"mask {number}: area {100 * mask.mean():.1f} %, {about}" for number, (mask, about) in both]
    made = torch.from_numpy(np.stack(masks)).float()
    return io.NodeOutput(made, "\n".join(lines), ui=ui.PreviewMask(made, cls=cls))


class FilterMasks(io.ComfyNode):
    """MASK batch -> the masks that pass."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Declare inputs and outputs."""
        return io.Schema(
            node_id="ADiffFilterMasks",
            display_name="Filter Masks",
            category=f"{CATEGORY}/mask",
            **found_by("select masks"),
            description="Keeps the masks of a batch that pass all rules, and says which rules the others break.",
            inputs=[
                io.Mask.Input("masks", tooltip="A batch of masks"),
                io.Float.Input(
                    "min_area", default=0.0, min=0.0, max=1.0, step=0.001, tooltip="Share of the image, at least"
                ),
                io.Float.Input(
                    "max_area", default=1.0, min=0.0, max=1.0, step=0.001, tooltip="Share of the image, at most"
                ),
                io.Int.Input("max_parts", default=100, min=1, max=10_000, tooltip="Parts of a mask, at most"),
                io.Float.Input(
                    "max_border", default=1.0, min=0.0, max=1.0, step=0.01,
                    tooltip="Share of one border line of the image that a mask may cover",
                ),
                DefectSocket.Input("defect", optional=True, tooltip="Also within the range of its real masks"),
                io.Mask.Input("foreground", optional=True, tooltip="Where the object is: masks must lie on it"),
                io.Float.Input(
                    "min_foreground", default=1.0, min=0.0, max=1.0, step=0.01, optional=True,
                    tooltip="Share of a mask that must lie on the foreground",
                ),
            ],
            outputs=[
                io.Mask.Output("MASK", display_name="masks", tooltip="Those that pass"),
                io.String.Output("REPORT", display_name="report", tooltip="What became of each mask"),
            ],
        )  # fmt: skip

    @classmethod
    def execute(
        cls, masks, min_area, max_area, max_parts, max_border, defect=None, foreground=None, min_foreground=1.0
    ) -> io.NodeOutput:
        """Check each mask."""
        rules = MaskRules() if defect is None else MaskRules.from_shots(real_masks(defect))
        rules = replace(
            rules, min_area=max(min_area, rules.min_area), max_area=min(max_area, rules.max_area),
            max_components=min(max_parts, rules.max_components), max_border=min(max_border, rules.max_border),
            min_foreground=min_foreground,
        )  # fmt: skip
        shapes, grounds = binary_masks(masks), [None] if foreground is None else list(binary_masks(foreground))
        if len(grounds) not in (1, len(shapes)):
            raise InputError(f"{len(grounds)} foregrounds for {len(shapes)} masks; connect one for all or one for each")
        grounds = grounds if len(grounds) > 1 else grounds * len(shapes)
        pairs = zip(shapes, grounds, strict=True)
        broken = [check_mask(shape, replace(rules, foreground=ground)) for shape, ground in pairs]
        kept = [number for number, rules_broken in enumerate(broken) if not rules_broken]
        lines = [f"mask {i + 1}: {'kept' if not b else ', '.join(b)}" for i, b in enumerate(broken)]
        if not kept:
            counts = ", ".join(f"{rule} ({n})" for rule, n in Counter(r for b in broken for r in b).most_common())
            raise InputError(f"none of {len(broken)} masks passes: {counts}; loosen the rules or make more masks")
        passed = masks.reshape(-1, *masks.shape[-2:])[kept]
        return io.NodeOutput(passed, "\n".join(lines), ui=ui.PreviewMask(passed, cls=cls))


def binary_masks(masks: torch.Tensor) -> np.ndarray:
    """Masks (B, H, W) bool of a MASK, empty ones too."""
    return (masks.reshape(-1, *masks.shape[-2:]) >= 0.5).cpu().numpy()


def real_masks(defect: LearnedDefect) -> list[np.ndarray]:
    """The real masks that came with a defect; raises InputError if there are none."""
    if defect.entry.shot_masks is None:
        raise InputError(f"{defect.entry.name} in {defect.source} carries no real masks to compare with; train it here")
    return list(defect.entry.shot_masks)
