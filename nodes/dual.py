"""DualAnoDiff in a graph: learn one defect's images together with its part, open what was learned, make pairs."""

from __future__ import annotations

import json
import logging
import time
from dataclasses import asdict, replace

import numpy as np
import torch
from comfy.samplers import KSampler
from comfy_api.latest import io, ui
from torch import Tensor

from ..adiff.curation import state_of
from ..adiff.errors import InputError
from ..adiff.geometry import resize_mask
from ..adiff.learning import Shots
from ..adiff.library import Key
from .attentions import EditableComfyBackbone, EditableTrainableBackbone
from .dual_host import PairSampler, dual_preview
from .files import DUALS, SUFFIX, dual_names, find_dual, found_or_why, new_file
from .gradients import LearningProgress, normal_tensors
from .host import check_context, check_sampling, mask_batch, to_batch
from .pictures import as_image, loss_curve
from .sockets import (
    CATEGORY,
    DatasetSocket,
    DefectDataset,
    DualSocket,
    LoadedDual,
    base_inputs,
    preview_input,
    seed_input,
    training_seed,
)
from .train import training_state
from .upstream import model_name
from .written import Written

SAIM, BCM, FLIPS = ("full", "low", "off"), ("off", "paper", "release"), ("none", "horizontal", "both")
"""As in `adiff.dual.layers` and `adiff.dual.training`, which take seconds to import."""
CHECKPOINTING = {"auto": None, "on": True, "off": False}
log = logging.getLogger("adiff")
NAMED = {"LoRA": "lora", "SAIM": "saim", "BCM": "bcm"}
"""Parts of a dual model, by what its record calls them."""
_saved = Written()
_last = {}
"""The DualModel that was learned last, by its state and shots: written again, or under another name, it is at hand."""


class TrainDual(io.ComfyNode):
    """Shots -> DUAL, and its file."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Declare inputs and outputs."""
        return io.Schema(
            node_id="ADiffTrainDual",
            display_name="Train Dual",
            category=f"{CATEGORY}/dual",
            description="Learns to make whole images with a defect together with the defect's part (DualAnoDiff), for "
            "defects that change the object's shape. One model for one defect, written into models/adiff_dual. A "
            "cancelled training goes on where it was when the graph is run again.",
            is_output_node=True,
            inputs=[
                DatasetSocket.Input("dataset", tooltip="From Load Defect Dataset, of one product and one defect"),
                *base_inputs("to learn on; LoRAs on it count", "the background's own pass and the preview"),
                *_file_inputs(),
                *_learning_inputs(),
                io.Mask.Input(
                    "foreground", optional=True,
                    tooltip="For bcm: where the object is, one mask for each photo of the dataset, in its order. Left "
                    "open it is told by its colour",
                ),
                *_prompt_inputs("What the photos show, defect included, from CLIP Text Encode; learned with, and kept "
                                "in the file", "The defect alone"),
            ],
            outputs=[
                DualSocket.Output("DUAL", display_name="dual", tooltip="For Dual Sampler"),
                io.Image.Output("CURVE", display_name="loss curve", tooltip="The loss over the steps"),
                io.String.Output("REPORT", display_name="report", tooltip="What was learned from what, and how well"),
            ],
            hidden=[io.Hidden.prompt, io.Hidden.unique_id],
        )  # fmt: skip

    @classmethod
    def fingerprint_inputs(cls, name: str | None = None, **_) -> int:
        """Run again when the file has been deleted."""
        return _saved.losses(name)

    @classmethod
    def execute(
        cls, dataset: DefectDataset, model, vae, empty, name, overwrite, steps, batch, learning_rate, rank, saim, bcm,
        flips, size, seed, early_stop, preview_every, checkpointing, foreground=None, prompt=None, part_prompt=None,
    ) -> io.NodeOutput:  # fmt: skip
        """Learn, and write what was learned."""
        from ..adiff.dual import DualSettings, save_dual  # takes seconds to import
        from ..adiff.dual.learning import learn_dual
        from ..adiff.training.shots import digest_of

        began, path = time.monotonic(), new_file(DUALS, name.strip().removesuffix(SUFFIX), overwrite)
        key, shots = _one_defect(dataset)
        objects = None if foreground is None else _foregrounds(foreground, shots)
        settings = DualSettings(
            steps=steps, batch=batch, lr=learning_rate, rank=rank, saim=saim, bcm=bcm, flips=flips, size=size or None,
            early_stop=early_stop,
        )  # fmt: skip
        with normal_tensors():
            prompts = _prompts(empty, prompt, part_prompt)
            called, progress = model_name(cls.hidden, model), LearningProgress()
            backbone = EditableTrainableBackbone(model, vae, empty, 2 * batch, called)
            given = [*(objects or ()), *(() if prompts is None else prompts.cpu().numpy())]
            marks = [asdict(settings), seed, [digest_of(one) for one in given]]
            with training_state(cls.hidden, backbone, "dual", {key: shots}, marks) as state:
                which = state.name, shots.files
                learned = _last.get(which) or learn_dual(
                    backbone, key, shots, foregrounds=objects, prompts=prompts, settings=settings, seed=seed,
                    progress=progress, state=state, checkpoint=CHECKPOINTING[checkpointing],
                    preview_every=max(1, preview_every),
                    preview=dual_preview(backbone, settings, progress) if preview_every else None,
                )  # fmt: skip
                _last.clear()
                _last[which] = learned
                save_dual(path, learned)
                _saved.add(name, path)
        picture = loss_curve(learned.info["curve"], learned.info["best"], f"dual model of {learned.name}")
        progress.close(picture)
        curve = as_image(picture)
        report = _report(learned, path, time.monotonic() - began)
        return io.NodeOutput(LoadedDual(path.name, learned), curve, report, ui=ui.PreviewImage(curve, cls=cls))


class LoadDual(io.ComfyNode):
    """A file -> DUAL."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Declare inputs and outputs."""
        return io.Schema(
            node_id="ADiffLoadDual",
            display_name="Load Dual",
            category=f"{CATEGORY}/dual",
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
        return io.NodeOutput(LoadedDual(dual, model), _report(model, path))


class DualSampler(io.ComfyNode):
    """MODEL + VAE + DUAL -> IMAGE, part, MASK."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Declare inputs and outputs."""
        return io.Schema(
            node_id="ADiffDualSampler",
            display_name="Dual Sampler",
            category=f"{CATEGORY}/dual",
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
                io.Combo.Input(
                    "sampler_name", options=list(KSampler.SAMPLERS), default="euler", tooltip="The sampling method"
                ),
                io.Combo.Input(
                    "scheduler", options=list(KSampler.SCHEDULERS), default="simple",
                    tooltip="How the noise goes down over the steps",
                ),
                io.Image.Input(
                    "normal", optional=True,
                    tooltip="For a model with bcm: photos whose background the images get, in turn. Left open, those "
                    "of the shots",
                ),
                io.Mask.Input(
                    "foreground", optional=True,
                    tooltip="Where the object is in the photos of normal. Left open it is told by its colour",
                ),
                *_prompt_inputs("What the images show, from CLIP Text Encode. Left open, what the model was learned "
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
        asked = replace(dual.model, prompts=_prompts(empty, prompt, part_prompt, dual.model.prompts))
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
        return io.NodeOutput(images, parts, masks, json.dumps(known, indent=1))


def _file_inputs() -> list[io.Input]:
    return [
        io.String.Input("name", default="my defect", tooltip="Name of the file to write, without a folder"),
        io.Boolean.Input(
            "overwrite", default=False, tooltip="Replace a file of this name; off: such a file is an error"
        ),
    ]  # fmt: skip


def _learning_inputs() -> list[io.Input]:
    return [
        io.Int.Input("steps", default=5000, min=1, max=100_000, tooltip="Training steps, at most"),
        io.Int.Input("batch", default=4, min=1, max=256, tooltip="Pairs a step. If memory runs out, taken in parts"),
        io.Float.Input(
            "learning_rate", default=2e-5, min=1e-6, max=1.0, step=1e-6, round=False,
            tooltip="Peak learning rate of what is learned inside the model",
        ),
        io.Int.Input("rank", default=32, min=1, max=320, tooltip="Of the LoRAs of the two branches"),
        io.Combo.Input(
            "saim", options=list(SAIM), default="full",
            tooltip="How image and part exchange what they know. full: whole matrices, as published, 248 MB for SD "
            "1.5. low: through 64 channels, 7 MB. off: not at all",
        ),
        io.Combo.Input(
            "bcm", options=list(BCM), default="off",
            tooltip="For objects that do not fill the frame: the image sees its background. paper, release: as "
            "published and as in the authors' code. off: it does not",
        ),
        io.Combo.Input(
            "flips", options=list(FLIPS), default="horizontal",
            tooltip="Mirrored views of the photos, image and part alike: none, horizontal, or both ways",
        ),
        io.Int.Input(
            "size", default=0, min=0, max=2048, step=64,
            tooltip="Side in pixels of the images learned on and made; 0 is the model's own. Smaller is quicker and "
            "takes less memory",
        ),
        training_seed(),
        io.Boolean.Input(
            "early_stop", default=False,
            tooltip="With 4 photos or more: keep one aside and stop when its loss falls no further",
        ),
        preview_input(250),
        io.Combo.Input(
            "checkpointing", options=list(CHECKPOINTING), default="auto",
            tooltip="Compute the model's blocks twice, for less memory; what is learned is the same. auto: where the "
            "card's memory does not suffice",
        ),
    ]  # fmt: skip


def _prompt_inputs(whole: str, part: str) -> list[io.Input]:
    """The prompts of the image and of its part; whole, part: what these say, in words."""
    return [
        io.Conditioning.Input("prompt", optional=True, tooltip=whole),
        io.Conditioning.Input("part_prompt", optional=True, tooltip=part),
    ]


def _prompts(empty: list, whole: list | None, part: list | None, known: Tensor | None = None) -> Tensor | None:
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


def _one_defect(dataset: DefectDataset) -> tuple[Key, Shots]:
    """The only defect of a data set."""
    if len(dataset.shots) != 1:
        names = ", ".join("/".join(key) for key in sorted(dataset.shots)[:5])
        raise InputError(
            f"a dual model is of one defect, and {dataset.name} holds {len(dataset.shots)} ({names}); name one product "
            "and one defect in Load Defect Dataset"
        )
    return next(iter(dataset.shots.items()))


def _foregrounds(foreground: Tensor, shots: Shots) -> list[np.ndarray]:
    """A MASK of the object as (H, W) bool for each shot, at its photo's size."""
    masks = mask_batch(foreground)
    if len(masks) != len(shots.pairs):
        raise InputError(
            f"{len(masks)} foregrounds for {len(shots.pairs)} photos; give one for each, in the dataset's order"
        )
    return [resize_mask(mask, *own.shape) for mask, own in zip(masks.cpu().numpy(), shots.masks, strict=True)]


def _backgrounds(
    backbone: EditableComfyBackbone, dual: LoadedDual, normal: Tensor | None, foreground: Tensor | None
) -> tuple[Tensor, list[str]] | None:
    """What surrounds the object in the photos given, encoded, and what to call them."""
    from ..adiff.dual.background import background_picture, encode_backgrounds, foregrounds_of

    if normal is None:
        if foreground is not None:
            raise InputError("the foreground marks the object in photos; connect them to normal, or leave it open")
        return None
    images = [(image * 255).round().clamp(0, 255).byte().cpu().numpy() for image in normal[..., :3]]
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


def _report(model, path, seconds: float | None = None) -> str:
    """What a dual model was learned from, in words; seconds: that it took just now."""
    info = model.info
    took = "" if seconds is None else f" in {seconds:.0f} s"
    endings = {
        "early": ", the held-out loss fell no further",
        "not finite": f", the loss was not finite then; kept: step {info.get('best')}",
    }
    ended = endings.get(info.get("stopped"), "")
    counts = {what: info.get("parameters", {}).get(name) for what, name in NAMED.items()}
    sizes = ", ".join(f"{count / 1e6:.1f} M of {what}" for what, count in counts.items() if count)
    steps = f"{info.get('steps', '?')} steps{took}{ended}; loss {info.get('loss', float('nan')):.3f}"
    shots = f"{len(model.shot_masks)} shots of {model.size} pixels"
    prompts = "" if model.prompts is None else f", prompts of {model.prompts.shape[1]} tokens"
    return "\n".join([
        f"models/{DUALS}/{path.name}: {model.name}, {shots}{prompts}", steps,
        f"parameters: {sizes}; file {path.stat().st_size / 1e6:.1f} MB; bcm {model.bcm}; base {model.base_name}",
    ])  # fmt: skip
