"""How clear and how varied generated images are: the formulas of IS and IC-LPIPS on a named network's features.

| symbol | meaning | shape |
|---|---|---|
| p | what a classifier tells of each image | (n, classes), rows sum to 1 |
| f | features of an image, one map a stage, of length 1 at each place | (C, h, w) each |

The Inception Score is exp(E KL(p(y|x) || p(y))) on Inception-v3 (Salimans et al., NeurIPS 2016, sec. 4); IC-LPIPS is
the mean distance within clusters around the nearest shot on LPIPS (Ojha et al., CVPR 2021, sec. 4.1). Here both run on
a ResNet-34 of the user's: their values compare with each other, never with published ones, and go by other names.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..contact_sheet import read_pair
from ..datasets.readers import Shot
from ..errors import InputError
from ..geometry import resize_image
from ..progress import NullProgress, Progress
from .material import Run, open_examples
from .resnet import as_input, load_network

SPLITS = 10
"""Parts over which the score's mean and deviation are taken (Salimans et al.)."""
MOST = 50
"""Images of a cluster that are compared with each other, the first ones (METHOD 3)."""
STAGES = ("layer1", "layer2", "layer3", "layer4")

Features = tuple[Tensor, ...]


def class_score(p: np.ndarray, splits: int = SPLITS) -> tuple[float, float]:
    """exp(mean KL(p(y|x) || p(y))) of each of `splits` parts: mean and standard deviation (of the parts themselves).

    p: (n, classes). Raises InputError for fewer images than parts.
    """
    if len(p) < splits or splits < 1:
        raise InputError(f"{len(p)} images for a score over {splits} parts; give at least as many")
    values = []
    for part in np.array_split(p.astype(np.float64), splits):
        log = np.log(np.maximum(part, np.finfo(np.float64).tiny))
        marginal = np.log(np.maximum(part.mean(0), np.finfo(np.float64).tiny))
        values.append(np.exp((part * (log - marginal)).sum(1).mean()))
    return float(np.mean(values)), float(np.std(values))


def cluster_distance(
    images: Iterable[Features], shots: Sequence[Features], distance: Callable[[Features, Features], float],
    most: int = MOST,
) -> tuple[float | None, list[int]]:  # fmt: skip
    """Mean over clusters of the mean distance between two of a cluster's images; the clusters' sizes beside it.

    A cluster is the images nearest to one shot. Clusters of fewer than two images have no distance; None if all are.
    """
    clusters: list[list[Features]] = [[] for _ in shots]
    sizes = [0] * len(shots)
    for image in images:
        nearest = int(np.argmin([distance(image, shot) for shot in shots]))
        sizes[nearest] += 1
        if len(clusters[nearest]) < most:
            clusters[nearest].append(image)
    means = []
    for members in clusters:
        found = [distance(a, b) for i, a in enumerate(members) for b in members[:i]]
        means += [float(np.mean(found))] if found else []
    return (float(np.mean(means)) if means else None), sizes


def stage_distance(a: Features, b: Features) -> float:
    """LPIPS' formula (Zhang et al., CVPR 2018, Eq. 1) with equal weights: squares, mean over places, sum."""
    return float(sum((one - other).square().sum(0).mean() for one, other in zip(a, b, strict=True)))


class FeatureReader:
    """Tells an image's classes and features by a network; size: what images are resized to, pixels."""

    def __init__(self, network: nn.Module, size: int):
        self.network, self.size, self._maps = network, size, {}
        for name in STAGES:
            network.get_submodule(name).register_forward_hook(self._keeper(name))

    def _keeper(self, name: str) -> Callable[..., None]:
        def keep(module: nn.Module, inputs: Any, output: Tensor) -> None:
            self._maps[name] = output

        return keep

    @torch.no_grad()
    def __call__(self, image: np.ndarray) -> tuple[np.ndarray, Features]:
        """Image (H, W, 3) uint8 -> p (classes,), f."""
        p = self.network(as_input(resize_image(image, self.size, self.size)[None])).softmax(1)[0].numpy()
        return p, tuple(F.normalize(self._maps[name][0], dim=0) for name in STAGES)


def measure_quality(
    run: Run, shots: Sequence[Shot], weights: Path, *, size: int = 224, progress: Progress | None = None
) -> dict[str, Any]:
    """Both formulas on a run's images, clustered by the shots that taught; the record names the network by its file.

    The score is taken over SPLITS parts, over one where there are fewer than ten images for each.
    """
    progress = progress or NullProgress()
    reader = FeatureReader(load_network(weights), size)
    real = [reader(example.image)[1] for example in open_examples(shots)]
    told: list[np.ndarray] = []

    def features() -> Iterable[Features]:
        for done, record in enumerate(run.records):
            p, maps = reader(read_pair(run.folder, record, None).generated)
            told.append(p)
            yield maps
            progress.update(done + 1)

    progress.start(len(run.records), "features")
    distance, sizes = cluster_distance(features(), real, stage_distance)
    progress.finish()
    splits = SPLITS if len(told) >= 10 * SPLITS else 1
    score, deviation = class_score(np.stack(told), splits)
    return {
        "class_score": score, "class_score_deviation": deviation if splits > 1 else None, "parts": splits,
        "cluster_distance": distance, "clusters": sizes, "images": len(told), "size": size,
        "network": {"kind": "ResNet-34", "file": weights.name,
                    "sha256": hashlib.sha256(weights.read_bytes()).hexdigest()},
        "note": "formulas of IS and IC-LPIPS on this network's features; not comparable with published IS or IC-LPIPS",
    }  # fmt: skip
