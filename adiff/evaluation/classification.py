"""Which defect is it? A ResNet-34 learned from generated pairs, tested on real images (METHOD 3, "Classification")."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from ..devices import best_device, device_of
from ..errors import InputError
from ..generation.seeds import rng_for
from ..geometry import resize_image
from ..progress import NullProgress, Progress
from .choice import Choice
from .localization import VALIDATION
from .material import Run, open_examples, open_pairs
from .resnet import as_input, build_network
from .splits import Split, split_by_group


@dataclass(frozen=True)
class ClassifierSettings:
    """size: side of the network's images, pixels. check_every: steps between two looks at the validation pairs."""

    size: int = 128
    steps: int = 300
    batch: int = 16
    lr: float = 3e-4
    check_every: int = 50


def confusion(true: Sequence[int], told: Sequence[int], classes: int) -> np.ndarray:
    """Counts (classes, classes): rows the true defect, columns what was told."""
    table = np.zeros((classes, classes), np.int64)
    np.add.at(table, (np.asarray(true, int), np.asarray(told, int)), 1)
    return table


def measure_classification(
    runs: Sequence[Run],
    split: Split,
    *,
    settings: ClassifierSettings | None = None,
    weights: Path | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Train on the runs' images, each run a class, and test on the real images of the split; the record.

    A share of the generated images chooses the state that is kept (`Choice`). Whole images are classified, as in the
    paper. Raises InputError for fewer than two defects.
    """
    settings, progress = settings or ClassifierSettings(), progress or NullProgress()
    classes = list(dict.fromkeys(run.key[1] for run in runs))
    if len(classes) < 2 or len({run.key[0] for run in runs}) != 1:
        raise InputError(f"runs of {', '.join('/'.join(r.key) for r in runs)}; give runs of two or more defects of one "
                         "product")  # fmt: skip
    images, labels, names = [], [], []
    for run in runs:
        pairs, normals = open_pairs(run, split, settings.size)
        images += [pair.image for pair in pairs]
        labels += [classes.index(run.key[1])] * len(pairs)
        names += normals
    test = [resize_image(one.image, settings.size, settings.size) for one in open_examples(split.test)]
    rest, aside = split_by_group(range(len(images)), names.__getitem__, VALIDATION, rng_for(seed, "validation"))
    network = build_network(len(classes), weights, seed).to(best_device())
    x, y = np.stack(images), np.array(labels)
    step, curve = _train(network, x, y, rest, aside, settings, seed, progress)
    table = confusion([classes.index(shot.defect) for shot in split.test], _classify(network, np.stack(test)),
                      len(classes))  # fmt: skip
    return {
        "classes": classes, "confusion": table.tolist(), "accuracy": float(np.trace(table) / table.sum()),
        "by_class": {name: float(row[k] / row.sum()) for k, (name, row) in enumerate(zip(classes, table, strict=True))},
        "pairs": {"synthetic": len(rest), "validation": len(aside)}, "seed": seed, "step": step, "curve": curve,
        "weights": None if weights is None else weights.name,
    }  # fmt: skip


def _train(
    network: nn.Module, x: np.ndarray, y: np.ndarray, rest: Sequence[int], aside: Sequence[int],
    settings: ClassifierSettings, seed: int, progress: Progress,
) -> tuple[int, list[tuple[int, float]]]:  # fmt: skip
    """Train in place; the step of the state that is kept and the validation curve (step, accuracy)."""
    optimiser = torch.optim.AdamW(network.parameters(), settings.lr)
    where, rng, curve, choice = device_of(network), rng_for(seed, "batches"), [], Choice()
    progress.start(settings.steps, "classifier")
    for step in range(1, settings.steps + 1):
        index = rng.choice(np.asarray(rest), settings.batch)
        turns = rng.integers(4, size=settings.batch)
        views = np.stack([np.rot90(x[i], turn) for i, turn in zip(index, turns, strict=True)])
        network.train()
        loss = F.cross_entropy(network(as_input(views, where)), torch.from_numpy(y[index]).to(where))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        if aside and (step % settings.check_every == 0 or step == settings.steps):
            right = (_classify(network, x[list(aside)]) == y[list(aside)]).astype(float)
            curve.append((step, float(right.mean())))
            choice.look(step, right, network)
        progress.update(step, loss=loss.item())
    progress.finish()
    if choice.state:
        network.load_state_dict(choice.state)
    return choice.step or settings.steps, curve


@torch.no_grad()
def _classify(network: nn.Module, images: np.ndarray) -> np.ndarray:
    """The class of each image (n, S, S, 3) uint8."""
    network.eval()
    where = device_of(network)
    return np.concatenate([network(as_input(image[None], where)).argmax(1).cpu().numpy() for image in images])
