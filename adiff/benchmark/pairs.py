"""The pairs of a cell, generated or a baseline's, as runs on disk: cells with the same pairs share them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from ..backbone import Backbone
from ..baselines import Pasted, paste_pairs
from ..baselines.painting import METHODS as PAINTING
from ..baselines.painting import paint_pairs
from ..baselines.run import write_pasted
from ..datasets.images import StoredImages, read_photo
from ..errors import InputError
from ..evaluation.material import Run, read_run
from ..generation import generate_run
from ..generation.run import references_of
from ..generation.sources import Batch
from ..geometry import resize_mask
from ..learning import Shots
from ..library import Key, Library
from ..pair_filter import auto_filter
from ..progress import Cancelled, Progress
from ..run_record import FORMAT, record_path
from ..scoring import ShotReference, describe, measure_pair
from ..storage import write_json
from .dual import make_dual_runs
from .learning import Workshop
from .matrix import DUAL, GENERATED, Recipe, digest_of
from .target import Unit


def make_runs(workshop: Workshop, unit: Unit, recipe: Recipe, seed: int, out: Path, progress: Progress) -> list[Run]:
    """Make the runs of a cell, one for each defect, in `out`; what is there of them is kept. No source: no runs.

    Raises Cancelled when the work is stopped; the pairs done so far stay.
    """
    if recipe.source is None:
        return []
    if recipe.mixed is not None:
        mixed = []
        for place, source in enumerate((recipe.source, recipe.mixed)):
            runs = make_runs(workshop, unit, replace(recipe, source=source, mixed=None), seed, out, progress)
            mixed += [replace(run, records=list(run.records)[place::2]) for run in runs]
        return mixed
    if recipe.source == DUAL:
        return make_dual_runs(workshop, unit, recipe, seed, out, progress)
    if recipe.source != GENERATED:
        return [_baseline(workshop, unit, recipe, key, seed, out, progress) for key in unit.keys]
    learned = workshop.learn(unit, recipe, seed, progress)
    masks = workshop.masks(unit, recipe, seed, progress)
    digest = digest_of(
        unit.record(), recipe.learning(), recipe.masks(), *recipe.painting(), *workshop.budget.places()
    )
    runs = []
    for key, library in _alone(learned.library):
        folder = out / f"{'-'.join(key)}-{seed}-{digest}"
        limits = auto_filter(references_of(library, [key], workshop.backbone)) if recipe.filtered else None
        result = generate_run(
            workshop.backbone, library, key, learned.encoder, unit.split.train_normals, masks[key],
            count=workshop.budget.pairs, out=folder, settings=recipe.generation, limits=limits, fit=recipe.fitted,
            seed=seed, progress=progress,
        )  # fmt: skip
        if result.cancelled:
            raise Cancelled(f"stopped after {len(result.pairs)} pairs of {'/'.join(key)}")
        runs.append(read_run(folder))
    return runs


def _alone(library: Library) -> list[tuple[Key, Library]]:
    return [(key, replace(library, defects={key: entry})) for key, entry in library.defects.items()]


def _baseline(
    workshop: Workshop, unit: Unit, recipe: Recipe, key: Key, seed: int, out: Path, progress: Progress
) -> Run:
    """Make a baseline's pairs; their record is that of a run, so that everything reads them alike."""
    shots, count = workshop.shots(unit, recipe)[key], workshop.budget.pairs
    about = {"method": recipe.source, "learning": recipe.learning(), "shots": shots.files, "unit": unit.record()}
    if workshop.budget.places():
        about["place"] = workshop.budget.place
    folder = out / f"{'-'.join(key)}-{seed}-{digest_of(about)}"
    with workshop.turns.alone(folder.name):
        if not record_path(folder, count - 1).exists():
            _make_baseline(workshop, unit, recipe, key, shots, seed, folder, progress)
    return read_run(folder)


def _make_baseline(
    workshop: Workshop, unit: Unit, recipe: Recipe, key: Key, shots: Shots, seed: int, folder: Path, progress: Progress
) -> None:
    """Write a baseline's run, its last record last."""
    count = workshop.budget.pairs
    plan = {"format": FORMAT, "product": key[0], "defect": key[1], "count": count, "seed": seed}
    write_json(folder / "run.json", {**plan, "method": recipe.source})
    paths, backbone = unit.split.train_normals, workshop.backbone
    normals, reference = StoredImages(paths), _reference(backbone, shots)
    known = workshop.objects(unit) if workshop.budget.places() else None
    objects = None if known is None else lambda index: known.find(read_photo(paths[index]))
    if recipe.source in PAINTING:
        embedding = workshop.learn(unit, recipe, seed, progress).library.defects[key].anomaly
        masks = _masks(workshop, unit, recipe, key, seed, progress)
        made = paint_pairs(
            recipe.source, normals, count, backbone=backbone, embedding=embedding, shots=shots.pairs, masks=masks,
            settings=recipe.generation, objects=objects, seed=seed,
        )  # fmt: skip
    else:
        made = paste_pairs(recipe.source, normals, count, shots=shots.pairs, objects=objects, seed=seed)
    progress.start(count, f"pairs {'/'.join(key)}")
    for number, pair in enumerate(made):
        measures = _measured(workshop, recipe.source, pair, normals[pair.normal], reference)
        write_pasted(folder, number, key, "baseline", pair, paths[pair.normal].name, seed, measures)
        progress.update(number + 1)
    progress.finish()


def _masks(
    workshop: Workshop, unit: Unit, recipe: Recipe, key: Key, seed: int, progress: Progress
) -> list[np.ndarray]:
    """The masks that generated pairs of the seed are painted in; none where normal images differ in size.

    There a mask is drawn for one photo and would not fit another; the baseline then takes the shots' own.
    """
    photos = [read_photo(path) for path in unit.split.train_normals]
    if len({photo.size for photo in photos}) > 1:
        return []
    source, batch = workshop.masks(unit, recipe, seed, progress)[key], recipe.generation.batch
    count = workshop.budget.pairs
    masks: list[np.ndarray] = []
    for number, first in enumerate(range(0, count, batch)):
        ids = range(first, min(first + batch, count))
        drawn = source.masks(workshop.backbone, photos[:1] * len(ids), Batch(seed, number, ids))
        masks += [mask for mask, _ in drawn]
    return masks


def _reference(backbone: Backbone, shots: Shots) -> ShotReference:
    """The shots that pasted pairs are compared with, as a library would hold them."""
    size, images = backbone.native_size, [image for image, _ in shots.pairs]
    masks = np.stack([resize_mask(mask, size, size) for mask in shots.masks])
    return ShotReference(masks, describe(backbone, images, shots.masks))


def _measured(
    workshop: Workshop, source: str, pair: Pasted, normal: np.ndarray, shots: ShotReference
) -> dict[str, float | None]:
    """The measures of a baseline's pair.

    fill is taken against the normal image itself, as no autoencoder had a part in a pasted pair; of a painted one it is
    None: there the autoencoder's own error would count as a defect.
    """
    if not pair.mask.any():
        raise InputError(f"a pair of {source} has an empty mask; give larger shots or images")
    found = describe(workshop.backbone, [pair.image], [pair.mask])[0]
    measures = measure_pair(pair.image, normal, normal, pair.mask, shots, found)
    return {**measures, "fill": None} if source in PAINTING else measures
