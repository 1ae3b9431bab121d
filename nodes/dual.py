"""DualAnoDiff in a graph: open what was learned (`train_dual`), make pairs."""

from __future__ import annotations

import json
import logging
from dataclasses import replace

import numpy as np
import torch
from comfy_api.latest import io
from torch import Tensor

from ..adiff.curation import state_of
from ..adiff.errors import InputError
from ..adiff.geometry import resize_mask
from .attentions import EditableComfyBackbone
from .dual_host import PairSampler
from .files import dual_names, find_dual, found_or_why, place_of
from .host import check_context, check_sampling, levels_of, mask_batch, to_batch
from .sample import sampler_inputs
from .search import found_by
from .sockets import CATEGORY, DualSocket, LoadedDual, base_inputs, seed_input

log = logging.getLogger("adiff")
NAMED = {"LoRA": "lora", "SAIM": "saim", "BCM": "bcm"}
"""Parts of a dual model, by what its record calls them."""


class LoadDual(io.ComfyNode):
    """A file -> DUAL."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Declare inputs and outputs."""
        return io.Schema(
            node_id="ADiffLoadDual",
            display_name="Load Dual",
            category=f"{CATEGORY}/dual",
            **found_by("DualAnoDiff"),
            description="A dual model of one defect, as Train Dual or `adiff train-dual` wrote it. Dual models lie in "
            "models/adiff_dual.",
            inputs=[io.Combo.Input("dual", options=dual_names(), tooltip="File of the dual model")],
            outputs=[
                DualSocket.Output("DUAL", display_name="dual", tooltip="For Dual Sampler"),
                io.String.Output("REPORT", display_name="report", tooltip="What it was learned from"),
            ],
        )

    @classmethod
    def validate_inputs(cls, dual: str) -> bool | str:
        """Say where the file belongs instead of "value not in list"."""
        return found_or_why(find_dual, dual)

    @classmethod
    def fingerprint_inputs(cls, dual: str) -> str:
        """Run again when the file has changed."""
        return state_of(find_dual(dual))

    @classmethod
    def execute(cls, dual: str) -> io.NodeOutput:
        """Open it."""
        from ..adiff.dual import load_dual

        path = find_dual(dual)
        model = load_dual(path)
        return io.NodeOutput(LoadedDual(dual, model), report_of(model, path))


class DualSampler(io.ComfyNode):
    """MODEL + VAE + DUAL -> IMAGE, part, MASK."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Declare inputs and outputs."""
        return io.Schema(
            node_id="ADiffDualSampler",
            display_name="Dual Sampler",
            category=f"{CATEGORY}/dual",
            **found_by("DualAnoDiff"),
            description="Makes whole images with a defect, each together with its part, and reads the mask off the "
            "part. Needs no normal image and no mask. The same seed makes the same pairs as `adiff generate-dual` with "
            "euler and simple.",
            inputs=[
                *base_inputs("that the dual model was learned on", "the guidance"),
                DualSocket.Input("dual", tooltip="From Load Dual or Train Dual"),
                io.Int.Input("pairs", default=4, min=1, max=256, tooltip="Pairs to make, all as one batch"),
                seed_input("The same seed and inputs give the same pairs; with ancestral samplers their number counts"),
                io.Int.Input("steps", default=50, min=1, max=1000, tooltip="Sampling steps"),
                io.Float.Input(
                    "cfg", default=2.5, min=1.0, max=30.0, step=0.1, round=0.01,
                    tooltip="Guidance against the empty prompt; 2 suits a model with bcm. 1 is none, and twice as fast",
                ),
                *sampler_inputs("simple"),
                io.Image.Input(
                    "normal", optional=True,
                    tooltip="For a model with bcm: photos whose background the images get, in turn. Left open, those "
                    "of the shots",
                ),
                io.Mask.Input(
                    "foreground", optional=True,
                    tooltip="Where the object is in the photos of normal. Left open it is told by its colour",
                ),
                *prompt_inputs("What the images show, from CLIP Text Encode. Left open, what the model was learned "
                                "with", "The defect alone. Left open, what the model was learned with"),
            ],
            outputs=[
                io.Image.Output("IMAGE", display_name="image", tooltip="Whole images with the defect"),
                io.Image.Output("PART", display_name="part", tooltip="The defect alone, on grey; for a segmentation "
                                "node of your own"),
                io.Mask.Output("MASK", display_name="mask", tooltip="Read off the parts"),
                io.String.Output("MEASURES", display_name="measures", tooltip="Measures of each pair, as JSON"),
            ],
        )  # fmt: skip

    @classmethod
    def execute(
        cls, model, vae, empty, dual: LoadedDual, pairs, seed, steps, cfg, sampler_name, scheduler, normal=None,
        foreground=None, prompt=None, part_prompt=None,
    ) -> io.NodeOutput:  # fmt: skip
        """Sample with ComfyUI's own samplers, every attention edited."""
        from ..adiff.dual import DualSampling, check_base
        from ..adiff.dual.run import backgrounds_for, draw_pairs, lacking_part, measure, shot_reference

        check_sampling(sampler_name, scheduler)
        settings = DualSampling(steps=steps, guidance=cfg, batch=pairs)
        backbone = EditableComfyBackbone(model, vae, empty)
        asked = replace(dual.model, prompts=prompts_of(empty, prompt, part_prompt, dual.model.prompts))
        check_base(asked, backbone)
        behind, _ = backgrounds_for(asked, _backgrounds(backbone, dual, normal, foreground))
        sampler = PairSampler(backbone, asked, settings, empty, behind, (sampler_name, scheduler, seed))
        found = draw_pairs(sampler, asked.name, settings, range(pairs), seed)
        if len(found) < pairs:
            log.warning("%d of %d pairs of %s: each %s", pairs - len(found), pairs, asked.name, lacking_part(settings))
        made = [found[i][0] for i in sorted(found)]
        shots = shot_reference(asked, backbone)
        measures = [measure(backbone, pair, shots) for pair in made]
        known = [{name: value for name, value in one.items() if value is not None} for one in measures]
        images, parts = (_as_images([getattr(pair, kind) for pair in made]) for kind in ("image", "part"))
        masks = torch.from_numpy(np.stack([pair.mask for pair in made])).float()
        return io.NodeOutput(images, parts, masks, json.dumps([{**one, "seed": seed} for one in known], indent=1))


def prompt_inputs(whole: str, part: str) -> list[io.Input]:
    """The prompts of the image and of its part; whole, part: what these say, in words."""
    return [
        io.Conditioning.Input("prompt", optional=True, tooltip=whole),
        io.Conditioning.Input("part_prompt", optional=True, tooltip=part),
    ]


def prompts_of(empty: list, whole: list | None, part: list | None, known: Tensor | None = None) -> Tensor | None:
    """Prompts of whole and part as contexts (2, T, D); one that is open is the known one, else the empty prompt."""
    if whole is None and part is None:
        return known
    others = known[:, None] if known is not None else [empty[0][0]] * 2
    texts = [
        own if given is None else _context_of(given, name)
        for given, own, name in zip((whole, part), others, ("prompt", "part_prompt"), strict=True)
    ]
    if texts[0].shape != texts[1].shape:
        lengths = " and ".join(str(text.shape[1]) for text in texts)
        raise InputError(
            f"prompt and part_prompt have {lengths} tokens; give both, and shorten the longer one until they are alike"
        )
    return torch.cat([text.float().cpu() for text in texts])


def _context_of(conditioning: list, name: str) -> Tensor:
    """The one context (1, T, D) of a prompt."""
    check_context(conditioning, 1, name)
    if len(conditioning) != 1:
        raise InputError(f"{name} is a combination of {len(conditioning)} prompts; give one, from one CLIP Text Encode")
    return conditioning[0][0]


def _backgrounds(
    backbone: EditableComfyBackbone, dual: LoadedDual, normal: Tensor | None, foreground: Tensor | None
) -> tuple[Tensor, list[str]] | None:
    """What surrounds the object in the photos given, encoded, and what to call them."""
    from ..adiff.dual.background import background_picture, encode_backgrounds, foregrounds_of

    if normal is None:
        if foreground is not None:
            raise InputError("the foreground marks the object in photos; connect them to normal, or leave it open")
        return None
    images = list(levels_of(normal))
    names = [f"photo {i + 1}" for i in range(len(images))]
    if foreground is None:
        masks = foregrounds_of(images, names)
    else:
        given = to_batch(mask_batch(foreground), len(images), "foregrounds").cpu().numpy()
        masks = [resize_mask(mask, *image.shape[:2]) for mask, image in zip(given, images, strict=True)]
    size = dual.model.size
    pictures = [background_picture(image, mask, size) for image, mask in zip(images, masks, strict=True)]
    return encode_backgrounds(backbone, pictures), names


def _as_images(pictures: list[np.ndarray]) -> Tensor:
    """Pictures (H, W, 3) uint8 as IMAGE (B, H, W, 3) in [0, 1]."""
    return torch.from_numpy(np.stack(pictures)).float() / 255


def report_of(model, path, taken: str | None = None) -> str:
    """What a dual model was learned from, in words; taken: steps, and the time that they took just now."""
    info = model.info
    endings = {
        "early": ", the held-out loss fell no further",
        "not finite": f", the loss was not finite then; kept: step {info.get('best')}",
    }
    ended = endings.get(info.get("stopped"), "")
    counts = {what: info.get("parameters", {}).get(name) for what, name in NAMED.items()}
    sizes = ", ".join(f"{count / 1e6:.1f} M of {what}" for what, count in counts.items() if count)
    taken = taken or f"{info.get('steps', '?')} steps"
    steps = f"{taken}{ended}; loss {info.get('loss', float('nan')):.3f}"
    shots = f"{len(model.shot_masks)} shots of {model.size} pixels"
    prompts = "" if model.prompts is None else f", prompts of {model.prompts.shape[1]} tokens"
    return "\n".join([
        f"{place_of(path)}: {model.name}, {shots}{prompts}", steps,
        f"parameters: {sizes}; file {path.stat().st_size / 1e6:.1f} MB; bcm {model.bcm}; base {model.base_name}",
    ])  # fmt: skip
