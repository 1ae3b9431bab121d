"""How well a detector finds real defects: pixel and image metrics on images that nothing learned from (METHOD 3)."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import Any

import numpy as np
import torch

from ..datasets.images import StoredImages
from ..errors import InputError
from ..generation.seeds import rng_for
from ..progress import Progress
from .localizer import Example, LocalizerSettings, Scorer, Trained, score, train_localizer
from .material import Run, open_examples, open_pairs
from .metrics import average_precision, image_metrics, image_score, pixel_metrics
from .splits import Split, split_by_group

logger = logging.getLogger("adiff")

VALIDATION = 0.2
"""Share of the synthetic pairs that chooses the state that is kept: whole normal images, never a test image."""
METRICS = (
    "pixel_auroc", "pixel_ap", "pixel_f1_max", "pro", "image_auroc", "image_ap", "image_f1_max"
)  # fmt: skip


@dataclass(frozen=True)
class Measured:
    """metrics: name of METRICS -> value, None where undefined. per_image: pixel AP of each defective image alone."""

    metrics: dict[str, float | None]
    per_image: tuple[float | None, ...]


def measure(
    scorer: Scorer, defective: Sequence[Example], normals: Sequence[np.ndarray], *, of: str | None
) -> Measured:
    """Score images and compare with their masks, at each image's own size.

    The image's score is taken at the detector's own size (`metrics.image_score`), so that it means the same for photos
    of any size. normals: (H, W, 3) uint8; so is an image whose mask is empty. Metrics that have one class only are
    None, and a warning says so by the name `of` the images, unless that is None as it was said before.
    """
    scores, masks, of_images = [], [], []
    good = (Example(image, np.zeros(image.shape[:2], bool)) for image in normals)
    for example in chain(defective, good):
        own, large = scorer(example.image)
        scores.append(large)
        masks.append(example.mask)
        of_images.append(image_score(own))
    labels = [bool(mask.any()) for mask in masks]
    metrics = pixel_metrics(scores, masks) | image_metrics(of_images, labels)
    undefined = [name for name in METRICS if metrics[name] is None]
    if undefined and of is not None:
        logger.warning("%s: undefined for %d defective and %d normal images: %s", of, sum(labels), labels.count(False),
                       ", ".join(undefined))  # fmt: skip
    alone = [average_precision(s.ravel(), m.ravel()) for s, m in zip(scores, masks, strict=True)]
    return Measured({name: metrics[name] for name in METRICS}, tuple(alone[: len(defective)]))


def measure_localization(
    runs: Sequence[Run],
    split: Split,
    *,
    settings: LocalizerSettings | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> tuple[Trained, dict[str, Any]]:
    """Train on the pairs of a product's runs and its normal images, test on its real defects; network and record.

    The record has the metrics over all test images, and of each defect beside the same normal images.
    """
    settings = settings or LocalizerSettings()
    pairs, names = pairs_of(runs, split, settings.size)
    test, normals = open_examples(split.test), StoredImages(split.test_normals)  # before the work: one may be damaged
    trained, aside = train_on_pairs(
        pairs, StoredImages(split.train_normals), names=names, settings=settings, seed=seed, progress=progress
    )  # fmt: skip
    scorer, by_defect = partial(score, trained), {}
    for defect in dict.fromkeys(shot.defect for shot in split.test):
        of_defect = [example for shot, example in zip(split.test, test, strict=True) if shot.defect == defect]
        by_defect[defect] = measure(scorer, of_defect, normals, of=f"{runs[0].key[0]}/{defect}").metrics
    whole = by_defect[split.test[0].defect] if len(by_defect) == 1 else measure(scorer, test, normals, of=None).metrics
    return trained, {
        "metrics": whole, "by_defect": by_defect, "pairs": {"synthetic": len(pairs) - aside, "validation": aside},
        "images": {"defective": len(test), "normal": len(normals)}, "seed": seed, "step": trained.step,
        "curve": trained.curve,
    }  # fmt: skip


def train_on_pairs(
    pairs: Sequence[Example],
    normals: Sequence[np.ndarray],
    *,
    names: Sequence[str] | None = None,
    real: Sequence[Example] = (),
    settings: LocalizerSettings | None = None,
    seed: int = 0,
    device: torch.device | str | None = None,
    progress: Progress | None = None,
) -> tuple[Trained, int]:
    """`train_localizer`, a share of the pairs set aside to choose the state that is kept; how many these are beside it.

    names: of the normal image of each pair: all pairs of one are on the same side; None: each is of its own.
    """
    order = range(len(pairs))
    group_of = order.__getitem__ if names is None else names.__getitem__
    rest, aside = split_by_group(order, group_of, VALIDATION, rng_for(seed, "validation"))
    trained = train_localizer(
        real, [pairs[i] for i in rest], normals, [pairs[i] for i in aside], settings=settings, seed=seed, device=device,
        progress=progress,
    )  # fmt: skip
    return trained, len(aside)


def pairs_of(runs: Sequence[Run], split: Split, size: int) -> tuple[list[Example], list[str]]:
    """Open the pairs of runs of one product, with the names of their normal images; InputError for several products."""
    products = sorted({run.key[0] for run in runs})
    if len(products) != 1:
        raise InputError(f"the runs are of {', '.join(products) or 'nothing'}; give runs of one product")
    opened = [open_pairs(run, split, size) for run in runs]
    return [pair for pairs, _ in opened for pair in pairs], [name for _, names in opened for name in names]
