"""DualAnoDiff in a graph: learn one defect's images together with its part, and write what was learned."""

from __future__ import annotations

import time
from dataclasses import asdict
from weakref import WeakValueDictionary

import numpy as np
from comfy_api.latest import io, ui
from torch import Tensor

from ..adiff.errors import InputError
from ..adiff.geometry import resize_mask
from ..adiff.learning import Shots
from ..adiff.library import Key
from .attentions import EditableTrainableBackbone
from .dual import prompt_inputs, prompts_of, report_of
from .dual_host import dual_preview
from .files import DUALS, SUFFIX, new_file
from .gradients import LearningProgress, normal_tensors
from .host import mask_batch
from .pictures import as_image, loss_curve
from .search import found_by
from .sockets import (
    CATEGORY,
    DatasetSocket,
    DefectDataset,
    DualSocket,
    LoadedDual,
    base_inputs,
    preview_input,
    training_seed,
)
from .train import training_state
from .upstream import model_name
from .written import FileWriter

SAIM, BCM, FLIPS = ("full", "low", "off"), ("off", "paper", "release"), ("none", "horizontal", "both")
"""As in `adiff.dual.layers` and `adiff.dual.training`, which take seconds to import."""
CHECKPOINTING = {"auto": None, "on": True, "off": False}
_learned = WeakValueDictionary()
"""The DualModels that ComfyUI still has, by their state and shots: to be written again, or under another name."""
_last = []
"""The one that was learned last, which it may have dropped."""


class TrainDual(FileWriter):
    """Shots -> DUAL, and its file."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Declare inputs and outputs."""
        return io.Schema(
            node_id="ADiffTrainDual",
            display_name="Train Dual",
            category=f"{CATEGORY}/dual",
            **found_by("DualAnoDiff", "few-shot", "learn"),
            description="Learns to make whole images with a defect together with the defect's part (DualAnoDiff), for "
            "defects that change the object's shape. One model for one defect, written into models/adiff_dual. A "
            "cancelled training goes on where it was when the graph is run again.",
            is_output_node=True,
            inputs=[
                DatasetSocket.Input(
                    "dataset", tooltip="From Load Defect Dataset or Add Shots, of one product and one defect"
                ),
                *base_inputs("to learn on; LoRAs on it count", "the tokens' start, the "
                             "background's own pass and the preview"),
                *_file_inputs(),
                *_learning_inputs(),
                io.Mask.Input(
                    "foreground", optional=True,
                    tooltip="For bcm: where the object is, one mask for each photo of the dataset, in its order. Left "
                    "open it is told by its colour",
                ),
                *prompt_inputs("What the photos show, defect included, from CLIP Text Encode; learned with, and kept "
                                "in the file", "The defect alone"),
            ],
            outputs=[
                DualSocket.Output("DUAL", display_name="dual", tooltip="For Dual Sampler"),
                io.Image.Output("CURVE", display_name="loss curve", tooltip="The loss over the steps"),
                io.String.Output("REPORT", display_name="report", tooltip="What was learned from what, and how well"),
            ],
        )  # fmt: skip

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
            prompts = prompts_of(empty, prompt, part_prompt)
            called, progress = model_name(model), LearningProgress()
            backbone = EditableTrainableBackbone(model, vae, empty, 2 * batch, called)
            given = [*(objects or ()), *(() if prompts is None else prompts.cpu().numpy())]
            marks = [asdict(settings), seed, [digest_of(one) for one in given]]
            with training_state(backbone, "dual", {key: shots}, marks) as state:
                which = state.name, shots.files
                learned = _learned.get(which) or learn_dual(
                    backbone, key, shots, foregrounds=objects, prompts=prompts, settings=settings, seed=seed,
                    progress=progress, state=state, checkpoint=CHECKPOINTING[checkpointing],
                    preview_every=max(1, preview_every),
                    preview=dual_preview(backbone, settings, progress) if preview_every else None,
                )  # fmt: skip
                _last[:] = [learned]
                _learned[which] = learned
                save_dual(path, learned)
                cls.wrote(path)
        picture = loss_curve(learned.info["curve"], learned.info["best"], f"dual model of {learned.name}")
        progress.close(picture)
        curve = as_image(picture)
        report = report_of(learned, path, progress.took(learned.info["steps"], began))
        return io.NodeOutput(LoadedDual(path.name, learned), curve, report, ui=ui.PreviewImage(curve, cls=cls))


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


def _one_defect(dataset: DefectDataset) -> tuple[Key, Shots]:
    """The only defect of a data set."""
    if len(dataset.shots) != 1:
        names = ", ".join("/".join(key) for key in sorted(dataset.shots)[:5])
        raise InputError(
            f"a dual model is of one defect, and {dataset.name} holds {len(dataset.shots)} ({names}); name one product "
            "and one defect in Load Defect Dataset, or add shots of that one alone"
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
