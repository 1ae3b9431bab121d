"""What is measured of a cell: its pairs, their gap to real defects, and what a detector learns from them.

| symbol | meaning | shape |
|---|---|---|
| f | descriptors (`scoring.describe`) of generated defects, of unseen real ones | (n, F), (u, F) |

gap = || mean f of the generated - mean f of the real ||: it falls as the generated defects look, on the whole, like
real ones that nothing learned from; `likeness` compares with the shots, and is best for copies of them. diversity: mean
distance of f to f within clusters around the shots' (`quality.cluster_distance`). alignment: see `benchmark.alignment`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np

from ..backbone import Backbone
from ..contact_sheet import read_pair
from ..datasets.images import StoredImages
from ..evaluation.classification import ClassifierSettings, measure_classification
from ..evaluation.localization import Measured, measure, train_on_pairs
from ..evaluation.localizer import Example, LocalizerSettings, score
from ..evaluation.material import Run, open_examples, open_pairs
from ..evaluation.published import InceptionReader, LpipsReader, check_packages, measure_published
from ..evaluation.quality import cluster_distance, measure_quality
from ..evaluation.resnet import load_network
from ..progress import Progress
from ..report.measures import values_of
from ..scoring import describe
from ..tensor_files import sha256_of
from .alignment import alignment
from .target import Unit

MEANS = ("fill", "likeness", "likeness_shots", "seam", "novelty", "area")
"""Measures of pairs that are averaged over the pairs; of `leak` the largest counts."""
QUALITY = ("class_score", "cluster_distance", "inception_score", "ic_lpips")
"""Measures of a run's images as a whole, averaged over the defects of a product."""


def of_pairs(runs: Sequence[Run]) -> dict[str, float | None]:
    """Mean measures of all pairs of runs, None where none was taken."""
    records = [record for run in runs for record in run.records]
    taken = {name: values_of(records, name) for name in (*MEANS, "leak")}
    means = {name: mean_of(taken[name]) for name in MEANS}
    return {**means, "leak": max(taken["leak"], default=None)}


@dataclass(frozen=True, eq=False)
class Look:
    """How defects look. f: their descriptors, (n, F). alignments: of each mask with its image."""

    f: np.ndarray
    alignments: Sequence[float]


class RealLook:
    """The look of each unit's real defects, taken once."""

    def __init__(self, backbone: Backbone):
        self.backbone, self._known = backbone, {}

    def compare(self, runs: Sequence[Run], unit: Unit) -> dict[str, float | None]:
        """gap, diversity and alignment of runs (above), each the mean over defects."""
        told = []
        for run in runs:
            pairs = (read_pair(run.folder, record, None) for record in run.records)
            look, real = self._look((pair.generated, pair.mask) for pair in pairs), self._real(unit, run.key[1])
            gap = float(np.linalg.norm(look.f.mean(0) - real.f.mean(0)))
            told.append({"gap": gap, **self._spread(look, unit, run.key[1])})
        return {name: mean_of([one[name] for one in told]) for name in told[0]}

    def reference(self, unit: Unit) -> dict[str, float | None]:
        """diversity and alignment of the unseen real defects: what pairs that look like them would have."""
        told = [self._spread(self._real(unit, defect), unit, defect) for defect in unit.defects]
        return {name: mean_of([one[name] for one in told]) for name in told[0]}

    def _spread(self, look: Look, unit: Unit, defect: str) -> dict[str, float | None]:
        shots = self._real(unit, defect, teaching=True).f
        diversity, _ = cluster_distance(look.f, shots, lambda one, other: float(np.linalg.norm(one - other)))
        return {"diversity": diversity, "alignment": mean(look.alignments)}

    def _real(self, unit: Unit, defect: str, teaching: bool = False) -> Look:
        place = unit.name, defect, teaching
        if place not in self._known:
            shots = unit.split.train if teaching else unit.split.test
            examples = open_examples([shot for shot in shots if shot.defect == defect])
            self._known[place] = self._look((example.image, example.mask) for example in examples)
        return self._known[place]

    def _look(self, defects: Iterable[tuple[np.ndarray, np.ndarray]]) -> Look:
        f, alignments = [], []
        for image, mask in defects:  # one at a time: there may be many large ones
            f.append(describe(self.backbone, [image], [mask])[0])
            alignments.append(alignment(image, mask))
        return Look(np.stack(f), alignments)


def mean_of(values: Iterable[float | None]) -> float | None:
    """Mean of what is defined, None if nothing is."""
    known = [value for value in values if value is not None]
    return mean(known) if known else None


@dataclass(frozen=True)
class Detected:
    """tested: metrics on the test images. pairs: how many taught and chose. step: the state that was kept."""

    tested: Measured
    pairs: Mapping[str, int]
    step: int


def detect(
    runs: Sequence[Run], real: Sequence[Example], unit: Unit, settings: LocalizerSettings, seed: int,
    progress: Progress, of: str | None,
) -> Detected:  # fmt: skip
    """Train a detector on pairs of runs, real shots and normal images, and test it on the unit's test images.

    of: what to call these where metrics are undefined, None where that was said before (`measure`).
    """
    opened = [open_pairs(run, unit.split, settings.size) for run in runs]
    pairs = [pair for of_run, _ in opened for pair in of_run]
    names = [name for _, of_run in opened for name in of_run]
    test = open_examples(unit.split.test)  # before the work: one may be damaged
    trained, aside = train_on_pairs(
        pairs, StoredImages(unit.split.train_normals), names=names, real=real, settings=settings, seed=seed,
        progress=progress,
    )  # fmt: skip
    tested = measure(partial(score, trained), test, StoredImages(unit.split.test_normals), of=of)
    counts = {"real": len(real), "synthetic": len(pairs) - aside, "validation": aside}
    return Detected(tested, counts, trained.step)


@dataclass(frozen=True)
class Weights:
    """Files of networks that were learned elsewhere, None where there is none; nothing is downloaded.

    features: a ResNet-34, from which the classifier starts and on which both formulas of quality are taken, under other
    names. inception, vgg: of the Inception Score and IC-LPIPS as published, which take both.
    """

    features: Path | None = None
    inception: Path | None = None
    vgg: Path | None = None

    def record(self) -> dict[str, str]:
        """Name -> digest of each file that is given."""
        return {name: sha256_of(path) for name, path in vars(self).items() if path is not None}

    def check(self) -> None:
        """Open each file, as a cell will at its end; InputError for one that is not what it should be."""
        if self.features is not None:
            load_network(self.features)
        if self.inception is not None and self.vgg is not None:
            check_packages()
            InceptionReader(self.inception)
            LpipsReader(self.vgg)


def of_product(
    runs: Sequence[Run], unit: Unit, settings: LocalizerSettings, weights: Weights, seed: int, progress: Progress
) -> dict[str, float | None]:
    """What only a whole product has: accuracy over its defects (None for one), and quality where there are weights."""
    found: dict[str, float | None] = {"accuracy": None}
    if len(runs) > 1:
        chosen = ClassifierSettings(size=settings.size, steps=settings.steps)
        told = measure_classification(
            runs, unit.split, settings=chosen, weights=weights.features, seed=seed, progress=progress
        )  # fmt: skip
        found["accuracy"] = told["accuracy"]
    shots = [[shot for shot in unit.split.train if shot.defect == run.key[1]] for run in runs]
    told_of: list[dict[str, Any]] = []
    if weights.features is not None:
        told_of += [measure_quality([run], of_run, weights.features, progress=progress)
                    for run, of_run in zip(runs, shots, strict=True)]  # fmt: skip
    if weights.inception is not None and weights.vgg is not None:
        told_of += [measure_published([run], of_run, inception=weights.inception, vgg=weights.vgg, progress=progress)
                    for run, of_run in zip(runs, shots, strict=True)]  # fmt: skip
    for name in QUALITY:
        if any(name in one for one in told_of):
            found[name] = mean_of(one.get(name) for one in told_of)
    return found
