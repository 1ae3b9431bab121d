"""Whether longer training paints defects that look more like real ones.

Defects of a folder, of one or several products, are learned together from 5 shots each, with an E that starts random,
as on a base model that has none. Then they are painted into normal images, in the masks of photos that nothing was
learned from (of other groups, where groups are known). loss: Eq. 5 by area on those photos, at fixed timesteps with
fixed noise. gap: distance of the mean look of the pairs to theirs, as in `adiff benchmark`; shots: to the shots'.
The rate falls with the steps as `InversionSettings.for_base` has it.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from adiff.backbone import Backbone, load_backbone
from adiff.benchmark import Unit, open_units
from adiff.datasets.images import Photo, read_photo
from adiff.generation import GenerationSettings, make_pairs
from adiff.generation.seeds import generator_for
from adiff.geometry import resize_mask
from adiff.learning import new_encoder
from adiff.library import Key
from adiff.scoring import describe
from adiff.spatial_encoder import SpatialEncoder
from adiff.training import AnomalySettings, train_anomalies

from .record import Record
from .reweighting import SHOTS
from .time_to_quality import Case, HeldOut, read_shot, spread

UNSEEN, PAIRS, BATCH = 16, 24, 8
"""Photos at most that nothing is learned from, and pairs, of each defect; pairs at a time."""
SETTINGS = GenerationSettings(steps=10)
MEASURES, DIGITS = ("loss", "gap", "shots", "fill"), 3


def measure(record: Record, root: Path, names: Sequence[str], lengths: Sequence[int], seeds: int, early: bool) -> str:
    """Measure what is not on record yet, seed by seed. Returns the table."""
    wanted = {tuple(name.split("/")): name for name in names}
    units, _ = open_units(root, [product for product, _ in wanted], [defect for _, defect in wanted], teach=SHOTS)
    chosen = {unit.keys[0]: unit for unit in units if unit.keys[0] in wanted}
    if missing := [name for key, name in wanted.items() if key not in chosen]:
        raise SystemExit(f"{missing[0]} has too few photos, or groups of them, for {SHOTS} shots and others to test on")
    backbone, part = load_backbone("demo"), f"length{', early stop' * early}, {', '.join(names)}"
    found: dict[int, list[dict]] = {}
    for seed in range(seeds):
        for steps in lengths:
            row = record.row(
                part, f"{steps} steps, seed {seed}",
                lambda n=steps, number=seed: _run(backbone, chosen, n, early, number),
            )  # fmt: skip
            found.setdefault(steps, []).append(row)
    return f"{part}, {seeds} seeds\n\n{table(found, names)}"


def _run(backbone: Backbone, units: Mapping[Key, Unit], steps: int, early: bool, seed: int) -> dict:
    """Learn all defects together and paint each; returns the measures of each defect."""
    cases = {
        key: Case(*([read_shot(shot) for shot in shots] for shots in (unit.split.train, unit.split.test[:UNSEEN])))
        for key, unit in units.items()
    }
    settings = AnomalySettings.for_base(backbone, [SHOTS] * len(cases), steps=steps, early_stop=early)
    shots, began = {key: case.shots for key, case in cases.items()}, time.process_time()
    found = train_anomalies(
        backbone, shots, new_encoder(backbone, seed), freeze_encoder=False, settings=settings, seed=seed
    )
    row = {"lr": settings.lr, "cpu": time.process_time() - began, "kept": found.outcome.best or found.outcome.steps}
    for key, case in cases.items():
        loss = HeldOut(backbone, found.encoder, seed, {key: case}).loss(found.embeddings)
        normals, e_a = units[key].split.train_normals[:PAIRS], found.embeddings[key]
        row["/".join(key)] = {"loss": loss, **_painted(backbone, case, normals, e_a, found.encoder, seed)}
    return row


def _painted(backbone: Backbone, case: Case, normals: Sequence[Path], e_a, encoder: SpatialEncoder, seed: int) -> dict:
    """gap, shots and fill of pairs in the unseen photos' masks."""
    photos, pairs = [read_photo(path) for path in normals], []
    masks = [resize_mask(case.unseen[i % len(case.unseen)][1], *photo.size) for i, photo in enumerate(photos)]
    for first in range(0, len(photos), BATCH):
        part = slice(first, first + BATCH)
        generators = [generator_for(seed, "pair", number) for number in range(len(photos))[part]]
        pairs += make_pairs(backbone, photos[part], masks[part], e_a, encoder, SETTINGS, generators)
    look = _look(backbone, [(Photo(pair.image, Path("a pair")).rgb, pair.mask) for pair in pairs])
    gap, shots = (float(np.linalg.norm(look - _look(backbone, real))) for real in (case.unseen, case.shots))
    return {"gap": gap, "shots": shots, "fill": statistics.mean(pair.measures["fill"] for pair in pairs)}


def _look(backbone: Backbone, shots: Sequence[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    images, masks = zip(*shots, strict=True)
    return describe(backbone, images, masks).mean(0)


def table(found: Mapping[int, Sequence[Mapping]], names: Sequence[str]) -> str:
    """Each measure by steps, its mean over defects with the deviation over seeds, and the gap of each defect."""
    lines = [f"| steps | rate | CPU s | {' | '.join(MEASURES)} | {' | '.join(f'gap, {name}' for name in names)} |",
             "|---" * (3 + len(MEASURES) + len(names)) + "|"]  # fmt: skip
    for steps, rows in found.items():
        cells = [f"{rows[0]['lr']:.3g}", f"{statistics.mean(row['cpu'] for row in rows):.0f}"]
        cells += [spread([statistics.mean(row[name][of] for name in names) for row in rows], DIGITS) for of in MEASURES]
        cells += [spread([row[name]["gap"] for row in rows], DIGITS) for name in names]
        lines.append(f"| {steps} | {' | '.join(cells)} |")
    return "\n".join(lines)
