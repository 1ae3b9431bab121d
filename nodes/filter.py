"""Filter: pairs that keep limits on their measures, and those that do not."""

from __future__ import annotations

import json
from collections import Counter

import torch
from comfy_api.latest import io
from comfy_execution.graph import ExecutionBlocker

from ..adiff.pair_filter import AUTO, PairFilter, settable
from ..adiff.scoring import ShotReference
from .finish import measures_of
from .host import mask_batch, to_batch
from .search import found_by
from .sockets import CATEGORY, DefectSocket, LearnedDefect


class FilterPairs(io.ComfyNode):
    """IMAGE + MASK + measures -> those that are good enough, and the others."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Declare inputs and outputs."""
        return io.Schema(
            node_id="ADiffFilterPairs",
            display_name="Filter Pairs",
            category=f"{CATEGORY}/finish",
            **found_by("quality", "select images"),
            description="Keeps the pairs whose measures are good enough, and says what is wrong with the others.",
            inputs=[
                io.Image.Input("images", tooltip="From Finish Pair"),
                io.Mask.Input("masks", tooltip="From Finish Pair"),
                io.String.Input("measures", force_input=True, tooltip="From Finish Pair"),
                io.Float.Input(
                    "min_fill", default=0.25, min=0.0, max=1.0, step=0.01,
                    tooltip="Share of the mask that must have changed visibly; 0 for no limit",
                ),
                io.Float.Input(
                    "max_seam", default=0.0, min=0.0, max=1000.0, step=0.1,
                    tooltip="How steep the border of the mask may be, 1 as in the normal image; 0 for no limit",
                ),
                io.Float.Input(
                    "max_likeness", default=0.0, min=0.0, max=1000.0, step=0.05,
                    tooltip="Distance to the nearest real shot, at most; 0 for no limit, or the shots' own",
                ),
                io.Float.Input(
                    "min_novelty", default=0.0, min=0.0, max=1.0, step=0.01,
                    tooltip="How new the mask's shape must be; 0 for no limit, or the shots' own",
                ),
                # in its output's place: that is what a bypassed node lets through
                io.Image.Input("change", optional=True, tooltip="From Finish Pair"),
                DefectSocket.Input(
                    "defect", optional=True,
                    tooltip="Its real shots set the limits on likeness and novelty that are left at 0",
                ),
            ],
            outputs=[
                io.Image.Output("IMAGE", display_name="images", tooltip="Those that pass"),
                io.Mask.Output("MASK", display_name="masks", tooltip="Their masks"),
                io.String.Output("MEASURES", display_name="measures", tooltip="Their measures, as JSON"),
                io.Image.Output("CHANGE", display_name="change", tooltip="Their change, if it was given"),
                io.Image.Output("REJECTED", display_name="rejected images", tooltip="Those that do not pass"),
                io.Mask.Output("REJECTED_MASK", display_name="rejected masks", tooltip="Their masks"),
                io.String.Output("REPORT", display_name="report", tooltip="What became of each pair"),
            ],
        )  # fmt: skip

    @classmethod
    def execute(
        cls, images, masks, measures, min_fill, max_seam, max_likeness, min_novelty,
        defect: LearnedDefect | None = None, change=None,
    ) -> io.NodeOutput:  # fmt: skip
        """Hold each pair against the limits; what an empty batch would feed does not run."""
        masks = to_batch(mask_batch(masks), len(images), "masks")
        change = None if change is None else to_batch(change, len(images), "changes")
        records = measures_of(measures, len(images))
        limits = _limits(PairFilter(*(value or None for value in (min_fill, max_seam, max_likeness, min_novelty))),
                         defect, records)  # fmt: skip
        reasons = [limits.reasons(record) for record in records]
        kept = [i for i, broken in enumerate(reasons) if not broken]
        rejected = [i for i, broken in enumerate(reasons) if broken]
        counts = Counter(reason.split()[0] for broken in reasons for reason in broken)
        broken = ", ".join(f"{measure} ({number})" for measure, number in counts.most_common())
        none = ExecutionBlocker(f"none of {len(reasons)} pairs passes: {broken}; loosen the limits or make more pairs")
        passed = (images, masks, json.dumps([records[i] for i in kept], indent=1), change)
        return io.NodeOutput(
            *(_chosen(value, kept) if kept else none for value in passed),
            *(_chosen(value, rejected) if rejected else ExecutionBlocker(None) for value in (images, masks)),
            "\n".join(f"pair {i + 1}: {', '.join(broken) or 'kept'}" for i, broken in enumerate(reasons)),
        )


def _limits(given: PairFilter, defect: LearnedDefect | None, records: list[dict]) -> PairFilter:
    """The limits given, and where there are none those that the shots set on what was measured of every pair."""
    if defect is None:
        return given
    entry = defect.entry
    seen = None if entry.likeness is None else entry.likeness.numpy()
    shots = defect.shots or ShotReference(entry.shot_masks, seen)
    measured = {name for name in ("likeness", "novelty") if all(name in record for record in records)}
    auto = {limit: AUTO for limit in settable(shots)
            if limit.split("_")[1] in measured and getattr(given, limit) is None}  # fmt: skip
    return PairFilter(**{**PairFilter(**auto).settled(shots, entry.name).record(), **given.record()})


def _chosen(value: torch.Tensor | str | None, numbers: list[int]) -> torch.Tensor | str | ExecutionBlocker:
    """The pairs of a batch by their numbers; text stays, and what was not given feeds nothing."""
    if value is None:
        return ExecutionBlocker(None)
    return value[numbers] if isinstance(value, torch.Tensor) else value
