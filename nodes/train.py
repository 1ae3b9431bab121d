"""Train: learn appearances and masks of defects on the graph's own MODEL."""

from __future__ import annotations

import contextlib
import copy
import hashlib
import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import folder_paths
import numpy as np
from comfy_api.latest import io, ui
from torch import Tensor

from ..adiff.errors import InputError
from ..adiff.learning import Shots, changed_shots, learn_anomalies, learn_masks, new_defect, new_encoder, with_shots
from ..adiff.library import Defect, Key, Library
from ..adiff.spatial_encoder import SpatialEncoder, fingerprint
from .gradients import LearningProgress, TrainableBackbone, normal_tensors
from .live import mask_preview, painted_preview
from .pictures import as_image, loss_curve
from .search import found_by
from .sockets import (
    CATEGORY,
    IN_GRAPH,
    DatasetSocket,
    DefectDataset,
    EncoderSocket,
    LibrarySocket,
    LoadedEncoder,
    LoadedLibrary,
    base_inputs,
    preview_input,
    training_seed,
)  # fmt: skip
from .upstream import identity_of, model_name

STATES = "adiff_training"
"""Folder under ComfyUI's output folder that holds the states of interrupted trainings."""


def _learning_inputs(steps: int) -> list[io.Input]:
    return [
        io.Int.Input(
            "steps", default=0, min=0, max=100_000,
            tooltip=f"Training steps, at most. 0: {steps} on the demo model, 1000 on one of full size such as SD 1.5, "
            "or 300 without early_stop or with fewer than 4 shots; more for more than 4 defects",
        ),
        io.Int.Input("batch", default=8, min=1, max=256, tooltip="Samples a step, over all defects"),
        io.Float.Input(
            "learning_rate", default=0.0, min=0.0, max=1.0, step=1e-5, round=False,
            tooltip="Peak learning rate of the embeddings. 0: what suits the steps",
        ),
        training_seed(),
        io.Boolean.Input(
            "early_stop", default=True,
            tooltip="With 4 shots or more of each defect: keep one aside and stop when its loss falls no further",
        ),
        preview_input(50),
    ]  # fmt: skip


def _outputs() -> list[io.Output]:
    return [
        io.Image.Output("CURVE", display_name="loss curve", tooltip="The loss over the steps"),
        io.String.Output("REPORT", display_name="report", tooltip="What was learned from what, and how well"),
    ]


class TrainDefects(io.ComfyNode):
    """Shots -> LIBRARY of appearances, and their ENCODER."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Declare inputs and outputs."""
        return io.Schema(
            node_id="ADiffTrainDefects",
            display_name="Train Defects",
            category=f"{CATEGORY}/train",
            **found_by("AnomalyDiffusion", "few-shot", "textual inversion", "learn"),
            description="Learns the appearance of defects from a few photos, on the model as it is in the graph, which "
            "stays as it is. A cancelled training goes on where it was when the graph is run again.",
            inputs=[
                DatasetSocket.Input("dataset", tooltip="From Load Defect Dataset or Add Shots"),
                *base_inputs("to learn on; LoRAs on it count", "the tokens' start and the preview's guidance"),
                *_learning_inputs(100),
                EncoderSocket.Input(
                    "encoder", optional=True,
                    tooltip="A spatial encoder to learn with, which stays as it is: quickest, and the defects fit its "
                    "other libraries. Without one a new encoder is learned",
                ),
            ],
            outputs=[
                LibrarySocket.Output("LIBRARY", display_name="library", tooltip="For Train Masks, Save Library, Pick "
                                     "Defect"),
                EncoderSocket.Output("ENCODER", display_name="encoder", tooltip="The encoder learned with; keep it"),
                *_outputs(),
            ],
        )  # fmt: skip

    @classmethod
    def execute(
        cls, dataset: DefectDataset, model, vae, empty, steps, batch, learning_rate, seed, early_stop, preview_every,
        encoder: LoadedEncoder | None = None,
    ) -> io.NodeOutput:  # fmt: skip
        """Learn all defects together."""
        from ..adiff.training import AnomalySettings  # takes a second to import

        began, shots = time.monotonic(), dataset.shots
        with normal_tensors():
            backbone = TrainableBackbone(model, vae, empty, batch, model_name(model))
            settings = _settings(AnomalySettings, backbone, shots, steps, learning_rate, batch, early_stop)
            network, progress = _network(backbone, encoder, seed), LearningProgress()
            marks = [asdict(settings), seed, encoder and encoder.fingerprint]
            with training_state(backbone, "anomaly", shots, marks) as state:
                entries = {key: new_defect(key, one, backbone) for key, one in shots.items()}
                learned, network = learn_anomalies(
                    backbone, entries, shots, network, freeze_encoder=encoder is not None, settings=settings, seed=seed,
                    progress=progress, state=state, preview_every=max(1, preview_every),
                    preview=painted_preview(backbone, shots, network, progress) if preview_every else None,
                )  # fmt: skip
            if encoder is None:
                encoder = LoadedEncoder(IN_GRAPH, network.cpu().eval(), fingerprint(network))
                which = f"spatial encoder {encoder.fingerprint[:8]}: learned with them; save it with the library"
            else:
                which = f"spatial encoder {encoder.fingerprint[:8]}: {encoder.name}, as it was"
            library = Library(
                learned, backbone.fingerprint, backbone.name, backbone.context_dim, encoder.fingerprint
            )  # fmt: skip
        curve, report = _shown(learned, shots, "anomaly", "appearance", began, progress)
        return io.NodeOutput(
            LoadedLibrary(IN_GRAPH, library), encoder, curve, f"{report}\n{which}", ui=ui.PreviewImage(curve, cls=cls)
        )


class TrainMasks(io.ComfyNode):
    """Shots -> LIBRARY with mask embeddings."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Declare inputs and outputs."""
        return io.Schema(
            node_id="ADiffTrainMasks",
            display_name="Train Masks",
            category=f"{CATEGORY}/train",
            **found_by("AnomalyDiffusion", "few-shot", "learn"),
            description="Learns the shapes and places of a defect's masks, for Generate Masks, and puts them into the "
            "library. The model stays as it is; a cancelled training goes on where it was.",
            inputs=[
                *base_inputs("to learn on", "the tokens' start and the preview's guidance"),
                *_learning_inputs(150),
                LibrarySocket.Input(
                    "library", optional=True,
                    tooltip="The library to add to. Without a dataset: learn from the masks that its defects carry, "
                    "for those that have none learned yet",
                ),
                DatasetSocket.Input(
                    "dataset", optional=True, tooltip="Photos whose masks to learn from; needed without a library"
                ),
            ],
            outputs=[
                LibrarySocket.Output("LIBRARY", display_name="library", tooltip="The library with masks"),
                *_outputs(),
            ],
        )  # fmt: skip

    @classmethod
    def execute(
        cls, model, vae, empty, steps, batch, learning_rate, seed, early_stop, preview_every,
        library: LoadedLibrary | None = None, dataset: DefectDataset | None = None,
    ) -> io.NodeOutput:  # fmt: skip
        """Learn the masks of all defects together."""
        from ..adiff.training import MaskSettings

        began = time.monotonic()
        shots = _stored_shots(library) if dataset is None else dataset.shots
        with normal_tensors():
            backbone = TrainableBackbone(model, vae, empty, batch, model_name(model))
            settings = _settings(MaskSettings, backbone, shots, steps, learning_rate, batch, early_stop)
            known, progress = _begun(library, backbone), LearningProgress()
            with training_state(backbone, "mask", shots, [asdict(settings), seed]) as state:
                entries = {key: _entry(known, key, one, backbone, dataset is not None) for key, one in shots.items()}
                learned = learn_masks(
                    backbone, entries, shots, settings=settings, seed=seed, progress=progress, state=state,
                    preview=mask_preview(backbone, progress) if preview_every else None,
                    preview_every=max(1, preview_every),
                )  # fmt: skip
        curve, report = _shown(learned, shots, "mask", "masks", began, progress)
        made = replace(known, defects={**known.defects, **learned})
        return io.NodeOutput(LoadedLibrary(IN_GRAPH, made), curve, report, ui=ui.PreviewImage(curve, cls=cls))


def _settings(
    kind, backbone: TrainableBackbone, shots: Mapping[Key, Shots], steps: int, lr: float, batch: int, early_stop: bool
):  # fmt: skip
    """The settings of a training; of steps and learning rate 0 is the method's own."""
    given = {name: value for name, value in {"steps": steps, "lr": lr}.items() if value}
    counts = [len(one.pairs) for one in shots.values()]
    return kind.for_base(backbone, counts, **given, batch=batch, early_stop=early_stop)


def _network(backbone: TrainableBackbone, encoder: LoadedEncoder | None, seed: int) -> SpatialEncoder:
    """A copy of the encoder given, as it is shared with other nodes, or a new one."""
    if encoder is not None:
        return copy.deepcopy(encoder.network)
    return new_encoder(backbone, seed)


def _begun(library: LoadedLibrary | None, backbone: TrainableBackbone) -> Library:
    """The library to add to, or an empty one; InputError if it was learned on another base model."""
    if library is None:
        return Library({}, backbone.fingerprint, backbone.name, backbone.context_dim)
    inner = library.library
    if inner.base_fingerprint != backbone.fingerprint:
        raise InputError(
            f"the library ({library.source}) was learned on base {inner.base_name!r}, not on this model; connect the "
            "model that it was learned on, or leave the library open to begin a new one"
        )
    return inner


def _entry(library: Library, key: Key, shots: Shots, backbone: TrainableBackbone, whole: bool) -> Defect:
    """The library's entry for a defect, or a new one; InputError if it was learned from other photos than these.

    whole: the shots are photos, not just the masks that the entry carries.
    """
    old = library.defects.get(key)
    files = None if old is None else old.info.get("shots")
    if files is not None and files != list(shots.files):
        raise InputError(
            f"the library's {old.name} was learned from {', '.join(files)}; connect the same photos, or leave the "
            "dataset open to learn from the masks that it carries"
        )
    changed = changed_shots(old, shots) if whole and old is not None else []
    if changed:
        raise InputError(
            f"{', '.join(changed)} changed since the library's {old.name} was learned from it; put back what was "
            "there, or learn the defect anew with Train Defects"
        )
    return with_shots(old, key, shots, backbone)


def _stored_shots(library: LoadedLibrary | None) -> dict[Key, Shots]:
    """The masks that a library's defects carry, of those that have none learned yet."""
    if library is None:
        raise InputError("there are no masks to learn from; connect a dataset, or a library whose defects carry masks")
    carried = {key: one for key, one in library.library.defects.items() if one.shot_masks is not None}
    if not carried:
        raise InputError(f"the library ({library.source}) carries no masks of its shots; connect a dataset")
    wanted = {key: one for key, one in carried.items() if one.mask is None}
    if not wanted:
        raise InputError(
            f"all defects of the library ({library.source}) have masks already; connect a dataset to learn them anew"
        )
    return {key: _shots_of(one) for key, one in wanted.items()}


def _shots_of(entry: Defect) -> Shots:
    """A defect's stored masks as shots, whose photos are not needed."""
    files = entry.info.get("shots") or [f"shot {i + 1}" for i in range(len(entry.shot_masks))]
    pairs = [(np.zeros((*mask.shape, 3), np.uint8), mask) for mask in entry.shot_masks]
    return Shots(pairs, tuple(files), (), ())


@contextmanager
def training_state(
    backbone: TrainableBackbone, kind: str, shots: Mapping[Key, Shots], marks: list
) -> Iterator[Path]:
    """Give the file of a training's state, named after all that decides its result; it goes once there is a result."""
    from ..adiff.training.shots import shot_digests

    digests = shot_digests({key: one.pairs for key, one in shots.items()})
    known: list[Any] = [kind, backbone.fingerprint, identity_of(("model", "vae", "empty")), digests, marks]
    name = hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()[:32]
    state = Path(folder_paths.get_output_directory()) / STATES / f"{name}.safetensors"
    yield state
    state.unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # there are states of others in it, or it was never made
        state.parent.rmdir()


def _shown(
    learned: Mapping[Key, Defect], shots: Mapping[Key, Shots], kind: str, what: str, began: float,
    progress: LearningProgress,
) -> tuple[Tensor, str]:  # fmt: skip
    """The loss curve, IMAGE, and the report of a training; the curve takes the place of the last live preview."""
    about = next(iter(learned.values())).info[kind]  # all defects were learned together
    ended = {"": "all steps done", "early": "the held-out loss fell no further"}
    how = ended.get(about["stopped"], f"the loss was {about['stopped']}")
    lines = [f"{what}: {progress.took(about['steps'], began)}, {how}; kept: step {about['best']}"]
    for key, entry in learned.items():
        own = entry.info[kind]
        aside = f", {own['validation']} kept aside to decide when to stop" if own.get("validation") else ""
        lines.append(f"{entry.name}: {len(shots[key].pairs)} shots{aside}, loss {own['loss']:.3f}")
    names = ", ".join(entry.name for entry in learned.values())
    title = names if len(names) < 40 else f"{len(learned)} defects"
    curve = loss_curve(about["curve"], about["best"], f"{what} of {title}")
    progress.close(curve)
    return as_image(curve), "\n".join(lines)
