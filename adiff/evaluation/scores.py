"""A set of images with masks in numbers: what its masks are like (METHOD 6), and how well a localizer finds them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..datasets.images import LUMA
from ..scoring import area, border, components, novelty
from .localization import measure
from .localizer import Example, Scorer
from .table import SHOWN, UNDEFINED

ALL = "all"
"""The row of all sets together."""
OF_MASKS = {"area": ("area, %", 100, "{:.3g}"), "components": ("parts", 1, "{:.3g}"),
            "border": ("border, %", 100, "{:.3g}"), "novelty": ("novelty", 1, "{:.2f}")}  # fmt: skip
"""Measures of a mask: heading, factor and form in the table."""

READINGS = 8
"""Levels of brightness by which decoders read one JPEG differently, at most: 5 were seen, 74 in colours, and 37 or more
between two photos."""


def score_sets(
    sets: Mapping[str, Sequence[Example]],
    *,
    shots: Sequence[np.ndarray] = (),
    normals: Sequence[np.ndarray] = (),
    scorer: Scorer | None = None,
) -> dict[str, dict[str, Any]]:
    """Measure each set, and where there are several all of them as ALL.

    shots: masks (H, W) bool to compare with, for the novelty. normals: (H, W, 3) uint8, defect-free images that a
    detector should leave alone. scorer: the detector. Returns of each set how many images it has, the mean, least and
    largest value of each measure of a mask, and with a detector `localization.METRICS`, None where undefined.
    """
    if len(sets) > 1:
        sets = {**sets, ALL: [example for of_set in sets.values() for example in of_set]}
    told = {}
    for name, examples in sets.items():
        masks = [example.mask for example in examples]
        told[name] = {"images": len(examples), "masks": _of_masks(masks, shots)}
        if scorer is not None:
            of = None if name == ALL else name  # of all is undefined what is so of each
            told[name] |= {"normals": len(normals), "metrics": measure(scorer, examples, normals, of=of).metrics}
    return told


def without_taught(
    pairs: Sequence[tuple[np.ndarray, np.ndarray]], taught: Sequence[tuple[np.ndarray, np.ndarray]]
) -> list[Example]:
    """Leave out the pairs (image (H, W, 3) uint8, mask (H, W) bool) whose image something learned from.

    Told by its brightness, as ComfyUI's Load Image reads other colours from a JPEG than Pillow: what was learned from a
    photo with another mask, drawn by another hand, was learned from it.
    """
    known = [(image.shape, _brightness(image)) for image, _ in taught]

    def is_known(image: np.ndarray) -> bool:
        own = _brightness(image)
        return any(shape == image.shape and np.abs(own - other).max() <= READINGS for shape, other in known)

    return [Example(image, mask) for image, mask in pairs if not is_known(image)]


def _brightness(image: np.ndarray) -> np.ndarray:
    return image.astype(np.float32) @ LUMA.astype(np.float32)


def _of_masks(masks: Sequence[np.ndarray], shots: Sequence[np.ndarray]) -> dict[str, dict[str, float]]:
    measures = {"area": area, "components": components, "border": border}
    if len(shots):
        measures["novelty"] = lambda mask: novelty(mask, shots)
    found = {name: [float(take(mask)) for mask in masks] for name, take in measures.items()}
    return {name: {"mean": float(np.mean(v)), "least": min(v), "most": max(v)} for name, v in found.items()}


def score_rows(told: Mapping[str, Mapping[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """The table of what `score_sets` returned: headings, and a row of cells for each set; metrics in hundredths."""
    first = next(iter(told.values()))
    measures = [name for name in OF_MASKS if name in first["masks"]]
    metrics = list(SHOWN) if "metrics" in first else []
    head = ["", "images", *(OF_MASKS[name][0] for name in measures), *(SHOWN[name] for name in metrics)]
    rows = []
    for name, one in told.items():
        cells = [name, str(one["images"]), *(_span(measure, one["masks"][measure]) for measure in measures)]
        values = [one["metrics"][metric] for metric in metrics]
        rows.append([*cells, *(UNDEFINED if value is None else f"{100 * value:.1f}" for value in values)])
    return head, rows


def _span(name: str, of_masks: Mapping[str, float]) -> str:
    """Mean, then least and largest value."""
    _, factor, form = OF_MASKS[name]
    mean, least, most = (form.format(factor * of_masks[which]) for which in ("mean", "least", "most"))
    return mean if least == most else f"{mean} ({least} to {most})"
