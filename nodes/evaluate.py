"""Evaluate: learn from pairs to find a defect, see where it is found, and measure how well."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import comfy.model_management
import numpy as np
import torch
from comfy_api.latest import io, ui

from ..adiff.curation import state_of
from ..adiff.errors import InputError
from ..adiff.evaluation.networks import NETWORKS
from .files import LOCALIZERS, SUFFIX, find_localizer, found_or_why, localizer_names, new_file, place_of
from .gradients import LearningProgress, normal_tensors
from .host import GraphProgress, masks_of
from .paste import image_levels
from .pictures import as_image, loss_curve
from .search import found_by
from .sockets import CATEGORY, IN_GRAPH, DatasetSocket, DefectDataset, LoadedLocalizer, LocalizerSocket, training_seed
from .tables import overlaid, sheet, table_picture
from .written import FileWriter

SHOWN, COLUMNS = 12, 6
"""Photos on a sheet, and in a row of it."""
PAIRS = "pairs"
"""The name of pairs that come as IMAGE and MASK."""

Scorer = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]


class TrainLocalizer(FileWriter):
    """Pairs + normals -> LOCALIZER."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Declare inputs and outputs."""
        return io.Schema(
            node_id="ADiffTrainLocalizer",
            display_name="Train Localizer",
            category=f"{CATEGORY}/evaluate",
            **found_by("segmentation", "detector", "learn"),
            description="Learns to find a defect, from painted or pasted pairs and photos without defects. A fifth of "
            "the pairs decides which state is kept. With a name it is also written into models/adiff_localizers.",
            inputs=[
                io.Image.Input("images", tooltip="Images of the pairs, from Finish Pair or Paste Baseline"),
                io.Mask.Input("masks", tooltip="Their masks"),
                io.Image.Input("normals", tooltip="Photos without defects, the more the better"),
                io.Combo.Input(
                    "network", options=list(NETWORKS), default="small",
                    tooltip="small is quick; draem is the published papers' own, large and slow; smp is the U-Net of "
                    "segmentation-models-pytorch, which must be installed",
                ),
                io.Int.Input(
                    "size", default=128, min=32, max=1024, step=32,
                    tooltip="Side of the images that the network sees, pixels",
                ),
                io.Int.Input("steps", default=300, min=1, max=100_000, tooltip="Training steps"),
                io.Int.Input("batch", default=8, min=2, max=256, tooltip="Images a step, half of them without defects"),
                training_seed(),
                io.String.Input("name", default="", tooltip="Name of a file to keep it in; empty keeps none"),
                io.Boolean.Input("overwrite", default=False, tooltip="Replace a file of this name; off: an error"),
                DatasetSocket.Input("shots", optional=True, tooltip="Real defects to learn from as well"),
            ],
            outputs=[
                LocalizerSocket.Output("LOCALIZER", display_name="localizer", tooltip="For Localize, Score Dataset"),
                io.Image.Output("CURVE", display_name="loss curve", tooltip="The loss over the steps"),
                io.String.Output("REPORT", display_name="report", tooltip="What was learned from what, and how well"),
            ],
        )  # fmt: skip

    @classmethod
    def execute(
        cls, images, masks, normals, network: str, size: int, steps: int, batch: int, seed: int, name: str,
        overwrite: bool, shots: DefectDataset | None = None,
    ) -> io.NodeOutput:  # fmt: skip
        """Learn on the graph's device."""
        from ..adiff.evaluation.localization import train_on_pairs  # takes seconds to import
        from ..adiff.evaluation.localizer import Example, LocalizerSettings
        from ..adiff.evaluation.localizer_file import save_localizer

        settings = LocalizerSettings(network, size, steps=steps, batch=batch)
        name = name.strip().removesuffix(SUFFIX)
        path = new_file(LOCALIZERS, name, overwrite) if name else None  # before the work, not after it
        began, progress = time.monotonic(), _Losses()
        real = [] if shots is None else [Example(*pair) for one in shots.shots.values() for pair in one.pairs]
        with normal_tensors():
            trained, aside = train_on_pairs(
                _examples(images, masks), image_levels(normals), real=real, settings=settings, seed=seed,
                device=comfy.model_management.get_torch_device(), progress=progress,
            )  # fmt: skip
            trained.network.cpu()
        if path is not None:
            save_localizer(path, trained)
            cls.wrote(path)
        counts = f"{len(images)} pairs, {len(real)} real shots, {len(normals)} normal images"
        report = [f"{network}: {counts}, {steps} steps in {time.monotonic() - began:.0f} s"]
        if trained.curve:
            ap = dict(trained.curve)[trained.step]
            report.append(f"kept: step {trained.step}, pixel AP {100 * ap:.1f} on {aside} pairs set aside")
        report += [] if path is None else [place_of(path)]
        curve = as_image(loss_curve(progress.points, trained.step, f"localizer, {counts}"))
        source = IN_GRAPH if path is None else path.name
        return io.NodeOutput(
            LoadedLocalizer(source, trained), curve, "\n".join(report), ui=ui.PreviewImage(curve, cls=cls)
        )


class LoadLocalizer(io.ComfyNode):
    """A file -> LOCALIZER."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Declare inputs and outputs."""
        return io.Schema(
            node_id="ADiffLoadLocalizer",
            display_name="Load Localizer",
            category=f"{CATEGORY}/evaluate",
            **found_by("segmentation", "detector"),
            description="A trained localizer. Localizers lie in models/adiff_localizers; Train Localizer and "
            "adiff evaluate localization write them.",
            inputs=[io.Combo.Input("localizer", options=localizer_names(), tooltip="File of the localizer")],
            outputs=[
                LocalizerSocket.Output("LOCALIZER", display_name="localizer", tooltip="For Localize, Score Dataset")
            ],
        )

    @classmethod
    def validate_inputs(cls, localizer: str) -> bool | str:
        """Say where the file belongs instead of "value not in list"."""
        return found_or_why(find_localizer, localizer)

    @classmethod
    def fingerprint_inputs(cls, localizer: str) -> str:
        """Run again when the file has changed."""
        return state_of(find_localizer(localizer))

    @classmethod
    def execute(cls, localizer: str) -> io.NodeOutput:
        """Open the file."""
        from ..adiff.evaluation.localizer_file import load_localizer

        return io.NodeOutput(LoadedLocalizer(localizer, load_localizer(find_localizer(localizer))))


class Localize(io.ComfyNode):
    """LOCALIZER + IMAGE -> heat MASK and scores."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Declare inputs and outputs."""
        return io.Schema(
            node_id="ADiffLocalize",
            display_name="Localize",
            category=f"{CATEGORY}/evaluate",
            **found_by("segmentation", "detector", "heat map"),
            description="Tells where a trained localizer sees its defect, and how sure it is. Photos of any size.",
            inputs=[
                LocalizerSocket.Input("localizer", tooltip="From Train Localizer or Load Localizer"),
                io.Image.Input("image", tooltip="Photos to look at"),
            ],
            outputs=[
                io.Mask.Output("HEAT", display_name="heat", tooltip="The chance of a defect at each pixel, 0 to 1"),
                io.Image.Output("OVERLAY", display_name="overlay", tooltip="The photos, coloured by the heat"),
                io.Float.Output("SCORE", display_name="score", tooltip="The highest score of the batch"),
                io.String.Output("REPORT", display_name="report", tooltip="The score of each photo"),
            ],
        )

    @classmethod
    def execute(cls, localizer: LoadedLocalizer, image) -> io.NodeOutput:
        """Look at each photo."""
        from ..adiff.evaluation.metrics import image_score

        photos, heats, scores = image_levels(image), [], []
        with _scorer(localizer, len(photos)) as look:
            for photo in photos:
                own, heat = look(photo)
                heats.append(heat)
                scores.append(image_score(own))
        overlay = np.stack([overlaid(photo, heat) for photo, heat in zip(photos, heats, strict=True)])
        shown = torch.from_numpy(overlay).float() / 255
        report = "\n".join(f"image {number}: {score:.3f}" for number, score in enumerate(scores, 1))
        return io.NodeOutput(
            torch.from_numpy(np.stack(heats)), shown, max(scores), report, ui=ui.PreviewImage(shown, cls=cls)
        )


class ScoreDataset(io.ComfyNode):
    """A data set, or IMAGE + MASK -> table, measures."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Declare inputs and outputs."""
        return io.Schema(
            node_id="ADiffScoreDataset",
            display_name="Score Dataset",
            category=f"{CATEGORY}/evaluate",
            **found_by("AUROC", "metrics", "MVTec"),
            description="A data set, or pairs, in numbers: what its masks are like and, with a localizer, how well "
            "that finds the defects. A localizer is judged on real photos that nothing learned from.",
            inputs=[
                DatasetSocket.Input(
                    "dataset", optional=True, tooltip="From Load Defect Dataset or Add Shots: real photos"
                ),
                io.Image.Input("images", optional=True, tooltip="In place of a dataset: images of pairs"),
                io.Mask.Input("masks", optional=True, tooltip="Their masks"),
                DatasetSocket.Input(
                    "taught", optional=True,
                    tooltip="The shots that something learned from: they are left out of the dataset, and masks of "
                    "pairs are compared with theirs (novelty)",
                ),
                LocalizerSocket.Input("localizer", optional=True, tooltip="A detector to be judged"),
                io.Image.Input(
                    "normals", optional=True,
                    tooltip="Photos without defects that it never saw; needed for the image scores",
                ),
            ],
            outputs=[
                io.Image.Output("TABLE", display_name="table", tooltip="The numbers as a picture"),
                io.Image.Output("SHEET", display_name="sheet", tooltip="The first photos, and what the localizer saw"),
                io.String.Output("MEASURES", display_name="measures", tooltip="The numbers as JSON"),
            ],
        )  # fmt: skip

    @classmethod
    def execute(
        cls, dataset: DefectDataset | None = None, images=None, masks=None, taught: DefectDataset | None = None,
        localizer: LoadedLocalizer | None = None, normals=None,
    ) -> io.NodeOutput:  # fmt: skip
        """Measure the masks, then have the localizer look."""
        from ..adiff.evaluation.scores import score_rows, score_sets

        sets = _sets(dataset, images, masks, taught)
        first = [one for of_set in sets.values() for one in of_set][:SHOWN]
        known = [] if taught is None or images is None else [m for one in taught.shots.values() for m in one.masks]
        good = [] if normals is None else image_levels(normals)
        again = len(sets) > 1  # all sets together are a row too
        count = sum(map(len, sets.values())) * (1 + again) + len(good) * (len(sets) + again) + len(first)
        with _scorer(localizer, count) as look:
            told = score_sets(sets, shots=known, normals=good, scorer=look)
            heats = [] if look is None else [look(one.image)[1] for one in first]
        table = as_image(table_picture(*score_rows(told)))
        pictures = as_image(sheet(first, heats, COLUMNS))
        return io.NodeOutput(table, pictures, json.dumps(told, indent=1), ui=ui.PreviewImage(table, cls=cls))


class _Losses(LearningProgress):
    """The bar of a localizer's training, which keeps the losses for the curve."""

    def __init__(self) -> None:
        self.points: list[tuple[int, float, None]] = []

    def update(self, done: int, **info: float) -> None:
        """Move the bar, keep the loss."""
        self.points.append((done, info["loss"], None))
        super().update(done, **info)


@contextmanager
def _scorer(localizer: LoadedLocalizer | None, count: int) -> Iterator[Scorer | None]:
    """Give what scores an image on the graph's device, moving a bar of `count`; None without a localizer."""
    if localizer is None:
        yield None
        return
    from ..adiff.evaluation.localizer import score

    network, progress, done = localizer.trained.network, GraphProgress(), 0
    progress.start(count, "localize")

    def look(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        nonlocal done
        found, done = score(localizer.trained, image), done + 1
        progress.update(min(done, count))
        return found

    network.to(comfy.model_management.get_torch_device())
    try:
        yield look
    finally:
        network.cpu()


def _examples(images, masks) -> list:
    """Pairs as the engine takes them; InputError for other numbers or sizes."""
    from ..adiff.evaluation.localizer import Example

    return [Example(*pair) for pair in zip(image_levels(images), masks_of(images, masks), strict=True)]


def _sets(dataset: DefectDataset | None, images, masks, taught: DefectDataset | None) -> dict[str, list]:
    """What is to be measured, by name; InputError for nothing, both, or a dataset that all taught."""
    from ..adiff.evaluation.scores import without_taught

    if (images is None) != (masks is None):
        raise InputError("images without masks, or masks without images; connect both")
    if (dataset is None) == (images is None):
        raise InputError("connect either a dataset or images with masks" + ("" if dataset is None else ", not both"))
    if dataset is None:
        return {PAIRS: _examples(images, masks)}
    known = [] if taught is None else [pair for one in taught.shots.values() for pair in one.pairs]
    left = {"/".join(key): without_taught(one.pairs, known) for key, one in dataset.shots.items()}
    if not any(left.values()):
        raise InputError(f"all shots of {dataset.name} taught; give others, or raise `shots` of Load Defect Dataset")
    return {name: examples for name, examples in left.items() if examples}
