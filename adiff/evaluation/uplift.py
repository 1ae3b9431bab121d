"""Does it help? A detector learned with and without synthetic pairs, at the same budget, on the same real images.

A row is one choice of training pairs and one seed. All rows share the real shots, the normal images, the number of
synthetic pairs, the steps and the test images; the seed sets the network's start, the batches, the pasted pairs and
which of the runs' pairs are taken. A share of the synthetic pairs, whole normal images, chooses the state that is kept;
without synthetic pairs the last state is. The baselines that paint do so on the run's own base model, with tokens that
are learned from the real shots once and kept beside the rows.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
from torch import Tensor

from ..backbone import Backbone
from ..baselines import METHODS as PASTING
from ..baselines import paste_pairs
from ..baselines.painting import METHODS as PAINTING
from ..baselines.painting import paint_pairs
from ..baselines.textual_inversion import learn_tokens
from ..datasets.images import StoredImages
from ..errors import InputError
from ..generation import GenerationSettings
from ..generation.seeds import rng_for
from ..progress import NullProgress, Prefixed, Progress
from ..storage import LOCK, read_json_object, run_lock, short_digest, write_json, write_whole
from ..tensor_files import open_safetensors, tensors_of
from ..training import AnomalySettings
from ..versions import versions
from .localization import VALIDATION, Measured, measure, pairs_of
from .localizer import Example, LocalizerSettings, score, train_localizer
from .material import Run, open_examples
from .splits import Split, split_by_group

REAL, GENERATED = "real", "generated"
WITH = " + "
ROWS = (REAL, *(f"{REAL}{WITH}{name}" for name in (*PASTING, GENERATED)), GENERATED)
"""What a detector learns from, the control first."""
PAINTED = tuple(f"{REAL}{WITH}{name}" for name in PAINTING)
"""Rows that are asked for by name: they paint with a base model, which takes its time."""
RECORD, FOLDER, TOKENS = "uplift.json", "rows", "textual_inversion.safetensors"
FORMAT = 1


@dataclass(frozen=True)
class Painter:
    """backbone: the base model that rows of PAINTED paint with. learning, sampling: None for the methods' own."""

    backbone: Backbone
    learning: AnomalySettings | None = None
    sampling: GenerationSettings | None = None


@dataclass(frozen=True, eq=False)
class Material:
    """Everything opened. pairs: the runs', with the names of their normal images; textures: for DRAEM, may be none.

    painter: of rows of PAINTED, with e_a; None without such a row.
    """

    real: list[Example]
    normals: Sequence[np.ndarray]
    pairs: list[Example]
    names: list[str]
    test: list[Example]
    test_normals: Sequence[np.ndarray]
    textures: Sequence[np.ndarray]
    painter: tuple[Painter, Tensor] | None = None


def open_material(runs: Sequence[Run], split: Split, size: int, textures: Sequence[Path] = ()) -> Material:
    """Open the files of a split, the pairs of runs that may teach (at size x size pixels), and textures."""
    pairs, names = pairs_of(runs, split, size)
    return Material(
        open_examples(split.train), StoredImages(split.train_normals), pairs, names, open_examples(split.test),
        StoredImages(split.test_normals), StoredImages(textures),
    )  # fmt: skip


def measure_uplift(
    runs: Sequence[Run],
    split: Split,
    out: Path,
    *,
    rows: Sequence[str] = ROWS,
    seeds: int = 3,
    count: int | None = None,
    settings: LocalizerSettings | None = None,
    textures: Sequence[Path] = (),
    painter: Painter | None = None,
    progress: Progress | None = None,
) -> list[dict[str, Any]]:
    """Measure every row for every seed; those that `out` holds already are kept. Returns the rows' records.

    runs: of one product; their pairs are mixed. count: synthetic pairs of each row; None: as many as the runs have.
    painter: for rows of PAINTED, on the base model that the runs were painted with. Raises InputError when `out` holds
    another evaluation (saying what differs) or fewer pairs than `count` may teach. Cancelled goes through; whole rows
    are kept.
    """
    settings, progress = settings or LocalizerSettings(), progress or NullProgress()
    if unknown := [row for row in rows if row not in (*ROWS, *PAINTED)]:
        raise InputError(f"there is no row {unknown[0]!r}; choose from {', '.join((*ROWS, *PAINTED))}")
    painted = [row for row in rows if row in PAINTED]
    if painted:
        for run in runs:
            _check_base(run, painter, painted[0])
    material = open_material(runs, split, settings.size, textures)
    count = len(material.pairs) if count is None else count
    if count > len(material.pairs):
        there = " and ".join(str(run.folder) for run in runs)
        raise InputError(f"{count} synthetic pairs asked for; {len(material.pairs)} pairs of {there} may teach")
    records = [run.record() for run in runs]
    identity = {
        "format": FORMAT, "count": count, "settings": asdict(settings), "validation": VALIDATION,
        "run": records[0] if len(records) == 1 else records, "split": split.record(), "shots": split.digest(),
        "textures": [path.name for path in textures],
        "texture_digests": {path.name: short_digest(path) for path in textures} or None,
    }  # fmt: skip
    with run_lock(out):
        _open(out, identity)
        if painted:
            material = replace(material, painter=(painter, _tokens(out, painter, material.real, progress)))
        # said once: all rows are tested on the same images
        of = " and ".join(dict.fromkeys("/".join(run.key) for run in runs))
        for number, (seed, row) in enumerate(product(range(seeds), rows), 1):
            path = _row_path(out, row, seed)
            if not path.exists():
                told = Prefixed(progress, f"{number} of {seeds * len(rows)}, {row}, seed {seed}")
                write_json(path, _measure_row(row, seed, count, material, settings, told, of))
                of = None
    again = "remove it to make it again"
    return [read_json_object(_row_path(out, row, seed), again) for row in rows for seed in range(seeds)]


def _measure_row(
    row: str, seed: int, count: int, material: Material, settings: LocalizerSettings, progress: Progress, of: str | None
) -> dict[str, Any]:
    """Train and test one row; its record. of: what to call the test images where metrics are undefined."""
    began = time.monotonic()
    synthetic, groups = _synthetic(row, seed, count, material, settings.size)
    order = range(len(synthetic))
    rest, aside = split_by_group(order, groups.__getitem__, VALIDATION, rng_for(seed, "validation", row))
    trained = train_localizer(
        material.real if REAL in row else [], [synthetic[i] for i in rest], material.normals,
        [synthetic[i] for i in aside], settings=settings, seed=seed, progress=progress,
    )  # fmt: skip
    tested: Measured = measure(partial(score, trained), material.test, material.test_normals, of=of)
    return {
        "row": row, "seed": seed, "metrics": tested.metrics, "per_image": list(tested.per_image),
        "pairs": {"real": len(material.real) if REAL in row else 0, "synthetic": len(rest), "validation": len(aside)},
        "step": trained.step, "curve": trained.curve, "seconds": round(time.monotonic() - began, 1),
    }  # fmt: skip


def _synthetic(row: str, seed: int, count: int, material: Material, size: int) -> tuple[list[Example], list[Any]]:
    """The synthetic pairs of a row, and of each the normal image that it was made from."""
    source = row.rpartition(WITH)[2]
    if source == REAL:
        return [], []
    if source == GENERATED:
        chosen = sorted(rng_for(seed, "pairs").permutation(len(material.pairs))[:count].tolist())
        return [material.pairs[i] for i in chosen], [material.names[i] for i in chosen]
    if source in PAINTING:
        painter, tokens = material.painter
        made = paint_pairs(
            source, material.normals, count, backbone=painter.backbone, embedding=tokens, shots=material.real,
            settings=painter.sampling, seed=seed,
        )  # fmt: skip
    else:
        made = paste_pairs(
            source, material.normals, count, shots=material.real, textures=material.textures, seed=seed
        )  # fmt: skip
    pairs, normals = zip(*((Example(p.image, p.mask).resized(size), p.normal) for p in made), strict=True)
    return list(pairs), list(normals)


def _check_base(run: Run, painter: Painter | None, row: str) -> None:
    """Raise InputError unless there is a base model, and it is the one that the run was painted with."""
    if painter is None:
        raise InputError(f"the row {row!r} paints with a base model; give the one of {run.folder}")
    recorded, backbone = run.plan.get("base"), painter.backbone
    if isinstance(recorded, dict) and recorded.get("fingerprint") != backbone.fingerprint:
        raise InputError(
            f"{run.folder} was painted on base {str(recorded.get('name'))!r}, not on {backbone.name!r}; baselines are "
            "compared on the same one: give it with --base"
        )


def _tokens(out: Path, painter: Painter, real: Sequence[Example], progress: Progress) -> Tensor:
    """e_a of the baselines that paint, read or learned and written; InputError if it is another base model's."""
    path, backbone = out / TOKENS, painter.backbone
    if not path.exists():
        learned = learn_tokens(backbone, real, settings=painter.learning, progress=progress)
        content = safetensors.torch.save({"e_a": learned}, {"base": backbone.fingerprint})
        write_whole(path, lambda temporary: temporary.write_bytes(content))
    with open_safetensors(path, "file of tokens") as file:
        if (file.metadata() or {}).get("base") != backbone.fingerprint or "e_a" not in file.keys():
            raise InputError(f"{path} was learned on another base model; choose another folder")
        return tensors_of(file)["e_a"]


def _row_path(out: Path, row: str, seed: int) -> Path:
    return out / FOLDER / f"{row.replace(WITH, '_')}-{seed}.json"


def _open(out: Path, identity: dict[str, Any]) -> None:
    """Begin an evaluation's folder, or check that the one there is of the same settings and files."""
    record = out / RECORD
    if record.exists():
        there = read_json_object(record, "remove it to make it again")
        if other := [name for name, value in identity.items() if there.get(name) != value]:
            raise InputError(f"{out} holds another evaluation ({', '.join(other)} differ); choose another folder")
        return
    if any(path.name not in (LOCK, FOLDER) for path in out.iterdir()):
        raise InputError(f"{out} is not empty and holds no {RECORD}; choose a new or empty folder")
    write_json(record, {**identity, "versions": versions()})
