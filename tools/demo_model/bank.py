"""The demo model's training pictures: drawn once from the seed, kept as arrays, never a withheld combination."""

import json
import logging
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from adiff.datasets.surfaces import DEFECTS, PRODUCTS, VOCABULARY, WITHHELD, render, sample_seed

SIZE = 128  # pixels; the demo model's native size
MASK_WORD = "mask"
WORDS = (*VOCABULARY, MASK_WORD)
KNOWN = tuple((p, d) for p in PRODUCTS for d in DEFECTS if (p, d) not in WITHHELD)
log = logging.getLogger("adiff")


@dataclass(frozen=True)
class Bank:
    """Pictures (N, S, S, 3) uint8, masks (N, S, S) bool (empty for normals) and captions, lists of word indices."""

    images: np.ndarray
    masks: np.ndarray
    captions: list[list[int]]
    kinds: list[tuple[str, str | None]]

    @cached_property
    def defective(self) -> np.ndarray:
        """Indices of the pictures with a defect, (M,) int."""
        return np.flatnonzero(self.masks.any((1, 2)))


def _draw(task: tuple[int, str, str | None, str, int]):
    seed, product, defect, split, index = task
    surface = render(product, defect, SIZE, sample_seed(seed, product, defect, split, index))
    return surface.image, surface.mask, [WORDS.index(w) for w in surface.words]


def draw_bank(seed: int, split: str, normals: int, defects: int, workers: int = 2) -> Bank:
    """Draw `normals` pictures of each product and `defects` of each known combination."""
    tasks = [(seed, p, None, split, i) for p in PRODUCTS for i in range(normals)]
    tasks += [(seed, p, d, split, i) for p, d in KNOWN for i in range(defects)]
    with ProcessPoolExecutor(workers) as pool:
        drawn = list(pool.map(_draw, tasks, chunksize=64))
    return Bank(
        np.stack([d[0] for d in drawn]),
        np.stack([d[1] for d in drawn]),
        [d[2] for d in drawn],
        [(t[1], t[2]) for t in tasks],
    )


def load_bank(folder: Path, seed: int, normals: int, defects: int) -> Bank:
    """Return the training bank, drawn on first use and kept in `folder`."""
    record = folder / "bank.json"
    wanted = {"seed": seed, "normals": normals, "defects": defects, "size": SIZE}
    if record.exists():
        kept = json.loads(record.read_text())
        if kept["made_with"] == wanted:
            kinds = [tuple(k) for k in kept["kinds"]]
            return Bank(np.load(folder / "images.npy"), np.load(folder / "masks.npy"), kept["captions"], kinds)
    folder.mkdir(parents=True, exist_ok=True)
    bank = draw_bank(seed, "train", normals, defects)
    np.save(folder / "images.npy", bank.images)
    np.save(folder / "masks.npy", bank.masks)
    record.write_text(json.dumps({"made_with": wanted, "captions": bank.captions, "kinds": bank.kinds}))
    log.info("drew %d pictures", len(bank.images))
    return bank


def mask_pictures(masks: np.ndarray) -> np.ndarray:
    """Masks (N, S, S) bool as pictures (N, S, S, 3) uint8: white on black, as mask inversion sees them (Eq. 9)."""
    return np.repeat(masks[..., None].astype(np.uint8) * 255, 3, axis=-1)
