"""Pairs measured, and compared with the real shots of their defect as far as the graph gives what that takes."""

from __future__ import annotations

import logging

import numpy as np

from ..adiff.scoring import ShotReference, measure_pair
from .host import ComfyBackbone
from .sockets import LearnedDefect

log = logging.getLogger("adiff")


class Comparison:
    """The measures of pairs of a defect; without one, those that need no shots.

    The likeness needs the MODEL too, unless a network of the user's has described the shots. shots: what is known of
    them; eye: the MODEL as what sees them, None without one.
    """

    def __init__(self, defect: LearnedDefect | None, model, vae):
        masks = None if defect is None else defect.entry.shot_masks
        self.shots, self.eye = (defect and defect.shots) or ShotReference(masks), None
        if defect is None or defect.shots is not None or model is None:
            return
        self.eye = ComfyBackbone(model, vae, native_size=512 if masks is None else masks.shape[-1])
        self.shots = ShotReference.of(defect.library, defect.entry.key, self.eye)
        if self.shots.descriptors is None:
            log.warning(
                "%s in %s: no likeness; the library describes no shots, or was learned on another model than this",
                defect.entry.name, defect.source,
            )  # fmt: skip

    def measures(
        self,
        image: np.ndarray,
        normal: np.ndarray,
        round_trip: np.ndarray,
        mask: np.ndarray,
        asked: np.ndarray | None = None,
    ) -> dict[str, float]:
        """`scoring.measure_pair` without what cannot be measured; images (H, W, 3) uint8, masks (H, W) bool."""
        descriptor = self.shots.describe(self.eye, image, mask)
        found = measure_pair(image, normal, round_trip, mask, self.shots, descriptor, asked)
        return {name: value for name, value in found.items() if value is not None}
