"""How clear and how varied generated images are: the formulas of IS and IC-LPIPS on a named network's features.

| symbol | meaning | shape |
|---|---|---|
| p | what a classifier tells of each image | (n, classes), rows sum to 1 |
| f | features of an image, one map a stage, of length 1 at each place | (C, h, w) each |

The Inception Score is exp(E KL(p(y|x) || p(y))) on Inception-v3 (Salimans et al., NeurIPS 2016, sec. 4); IC-LPIPS is
the mean distance within clusters around the nearest shot on LPIPS (Ojha et al., CVPR 2021, sec. 4.1). `published` has
both as published. Here they run on a ResNet-34 of the user's, which needs no download: their values compare with each
other, never with published ones, and go by other names.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..contact_sheet import read_pair
from ..datasets.readers import Shot
from ..devices import best_device, device_of
from ..errors import InputError
from ..geometry import resize_image
from ..progress import NullProgress, Progress
from ..tensor_files import sha256_of
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
    p = p.astype(np.float64)
    bounds = [number * len(p) // splits for number in range(splits + 1)]
    for part in (p[start:stop] for start, stop in zip(bounds, bounds[1:], strict=False)):
        log = np.log(np.maximum(part, np.finfo(np.float64).tiny))
        marginal = np.log(np.maximum(part.mean(0), np.finfo(np.float64).tiny))
        values.append(np.exp((part * (log - marginal)).sum(1).mean()))
    return float(np.mean(values)), float(np.std(values))


def cluster_distance(
    images: Sequence[Features], shots: Sequence[Features], distance: Callable[[Features, Features], float],
    most: int = MOST,
) -> tuple[float | None, list[int]]:  # fmt: skip
    """Mean over clusters of the mean distance between two of a cluster's images; the clusters' sizes beside it.

    A cluster is the images nearest to one shot. Clusters of fewer than two images have no distance; None if all are.
    An image is asked for again when its cluster's turn comes, so that one cluster at a time is held.
    """
    nearest = [int(np.argmin([distance(image, shot) for shot in shots])) for image in images]
    means = []
    for cluster in range(len(shots)):
        members = [images[number] for number, of in enumerate(nearest) if of == cluster][:most]
        found = [distance(a, b) for i, a in enumerate(members) for b in members[:i]]
        means += [float(np.mean(found))] if found else []
    return (float(np.mean(means)) if means else None), [nearest.count(cluster) for cluster in range(len(shots))]


def stage_distance(a: Features, b: Features) -> float:
    """LPIPS' formula (Zhang et al., CVPR 2018, Eq. 1) with equal weights: squares, mean over places, sum."""
    return float(sum((one - other).square().sum(0).mean() for one, other in zip(a, b, strict=True)))


class RunFeatures(Sequence[Features]):
    """The features of runs' images, taken anew each time one is asked for; the bar moves the first time round."""

    def __init__(self, runs: Sequence[Run], features_of: Callable[[int, np.ndarray], Features], progress: Progress):
        self._pairs = [(run.folder, record) for run in runs for record in run.records]
        self._features_of, self._progress, self._seen = features_of, progress, 0
        progress.start(len(self._pairs), "features")

    def __len__(self) -> int:
        return len(self._pairs)

    def __getitem__(self, number: int) -> Features:
        folder, record = self._pairs[number]  # an IndexError here is what ends a loop over the images
        found = self._features_of(number, read_pair(folder, record, None).generated)
        self._seen = max(self._seen, number + 1)
        self._progress.update(self._seen)
        return found


class FeatureReader:
    """Tells an image's classes and features by a network; size: what images are resized to, pixels."""

    def __init__(self, network: nn.Module, size: int):
        self.network, self.size, self._maps = network.to(best_device()), size, {}
        for name in STAGES:
            network.get_submodule(name).register_forward_hook(self._keeper(name))

    def _keeper(self, name: str) -> Callable[..., None]:
        def keep(module: nn.Module, inputs: Any, output: Tensor) -> None:
            self._maps[name] = output

        return keep

    @torch.no_grad()
    def __call__(self, image: np.ndarray) -> tuple[np.ndarray, Features]:
        """Image (H, W, 3) uint8 -> p (classes,), f."""
        x = as_input(resize_image(image, self.size, self.size)[None], device_of(self.network))
        p = self.network(x).softmax(1)[0].cpu().numpy()
        return p, tuple(F.normalize(self._maps[name][0], dim=0) for name in STAGES)


def parts_for(images: int) -> int:
    """Parts that a score is taken over: SPLITS, or one where there are fewer than ten images for each."""
    return SPLITS if images >= 10 * SPLITS else 1


def measure_quality(
    runs: Sequence[Run], shots: Sequence[Shot], weights: Path, *, size: int = 224, progress: Progress | None = None
) -> dict[str, Any]:
    """Both formulas on runs' images, clustered by the shots that taught; the record names the network by its file."""
    progress = progress or NullProgress()
    reader = FeatureReader(load_network(weights), size)
    real = [reader(example.image)[1] for example in open_examples(shots)]
    told: dict[int, np.ndarray] = {}

    def features_of(number: int, image: np.ndarray) -> Features:
        told[number], maps = reader(image)
        return maps

    distance, sizes = cluster_distance(RunFeatures(runs, features_of, progress), real, stage_distance)
    progress.finish()
    splits = parts_for(len(told))
    score, deviation = class_score(np.stack([told[number] for number in range(len(told))]), splits)
    return {
        "class_score": score, "class_score_deviation": deviation if splits > 1 else None, "parts": splits,
        "cluster_distance": distance, "clusters": sizes, "images": len(told), "size": size,
        "network": {"kind": "ResNet-34", "file": weights.name,
                    "sha256": sha256_of(weights)},
        "note": "formulas of IS and IC-LPIPS on this network's features; not comparable with published IS or IC-LPIPS",
    }  # fmt: skip
