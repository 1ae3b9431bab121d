"""Anomaly conditioning: e = {e_a, e_s} as CONDITIONING, alone or behind a prompt (Eq. 6)."""

from __future__ import annotations

import logging

import torch
from comfy_api.latest import io

from ..adiff.embedding import embedding_fingerprint, join_condition
from ..adiff.errors import InputError
from .host import mask_batch
from .search import found_by
from .sockets import CATEGORY, DefectSocket, EncoderSocket, LearnedDefect, LoadedEncoder
from .spans import remember

log = logging.getLogger("adiff")


class AnomalyConditioning(io.ComfyNode):
    """Defect + encoder + mask [+ prompt] -> CONDITIONING."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Declare inputs and outputs."""
        return io.Schema(
            node_id="ADiffAnomalyConditioning",
            display_name="Anomaly Conditioning",
            category=f"{CATEGORY}/condition",
            **found_by("AnomalyDiffusion", "inpaint", "prompt"),
            description="The defect's appearance and the mask's place as conditioning, for any sampler. Give a prompt "
            "to append it to, or use it alone.",
            inputs=[
                DefectSocket.Input("defect", tooltip="From Load Defect"),
                io.Mask.Input("mask", tooltip="Where the defect goes: one mask, or one for each image"),
                EncoderSocket.Input("encoder", optional=True, tooltip="The encoder that the defect was learned with"),
                io.Conditioning.Input("conditioning", optional=True, tooltip="A prompt to append the defect to"),
                io.Float.Input(
                    "strength", default=1.0, min=0.0, max=2.0, step=0.05,
                    tooltip="Scales the appearance's tokens: 1 is as learned, less is weaker",
                ),
            ],
            outputs=[io.Conditioning.Output("CONDITIONING", display_name="conditioning", tooltip="For positive")],
        )  # fmt: skip

    @classmethod
    def execute(
        cls,
        defect: LearnedDefect,
        mask: torch.Tensor,
        encoder: LoadedEncoder | None = None,
        conditioning: list | None = None,
        strength: float = 1.0,
    ) -> io.NodeOutput:
        """Join the tokens."""
        entry = defect.entry
        if entry.anomaly is None:
            raise InputError(f"{entry.name} in {defect.source} has masks only; its appearance was not learned")
        _check_encoder(defect, encoder)
        mask = mask_batch(mask)
        e_a, e_s = entry.anomaly * strength, None
        if encoder is not None:
            with torch.no_grad():
                e_s = encoder.network(mask[:, None].float())
        batch = mask.shape[0] if e_s is not None else 1
        out = []
        for text, extra in conditioning or [[None, {"pooled_output": None}]]:
            if text is not None and text.shape[0] not in (1, batch):
                raise InputError(f"the prompt has {text.shape[0]} rows for {batch} masks; give one, or one a mask")
            condition = join_condition(e_a, e_s, text)
            start, stop = condition.span
            remember(condition.context[:, start:stop], embedding_fingerprint(entry.anomaly), entry.name)
            out.append([condition.context, dict(extra)])
        return io.NodeOutput(out)


def _check_encoder(defect: LearnedDefect, encoder: LoadedEncoder | None) -> None:
    """Raise InputError for an encoder that the defect was not learned with; warn if one is missing."""
    wanted = defect.library.encoder_fingerprint
    if encoder is None:
        if wanted is not None:
            log.warning("%s was learned with encoder %.8s; without it the defect may miss the mask", defect.entry.name,
                        wanted)  # fmt: skip
        return
    if wanted is None:
        raise InputError(f"{defect.entry.name} was learned without a spatial encoder; leave the encoder input open")
    if wanted != encoder.fingerprint:
        raise InputError(
            f"{defect.entry.name} was learned with encoder {wanted[:8]}, {encoder.name!r} is "
            f"{encoder.fingerprint[:8]}; load the encoder that came with the library"
        )
