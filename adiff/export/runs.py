"""The pairs of runs as samples of one data set: what is whole, under names that do not meet, each in its split.

What `ADiffSavePairs` wrote counts as a run for each defect; its records need not tell what they belong to.
"""

from __future__ import annotations

import filecmp
import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from ..datasets.images import Photo, name_of, read_mask, read_photo
from ..errors import InputError, all_reasons
from ..library import check_name
from ..progress import Progress
from ..run_record import REJECTS, check_once, given_up, read_plan, record_paths, tries_of
from ..storage import read_json_object
from .splits import TRAIN, VALIDATION, Splits

UNFIT = re.compile(r"[^\w.+-]+")
"""What a run's folder may be called, but an image should not."""
ORIGIN = ("library", "base", "embedding", "encoder", "seed")
"""What run.json tells of where its pairs come from."""
TOLD = ("seed", "normal", "library")
"""What a pair's record tells of that."""
SAVED_NAME = re.compile(r"\d{6,}\.png")
"""The image of a pair that a graph saved, and nothing of a stranger's."""


@dataclass(frozen=True)
class Run:
    """A run's finished pairs. name: the run's own in this data set; ids: of its pairs, in order; plan: its run.json.

    images, masks, records: the folders of its pairs' files; again: how a damaged pair is made anew.
    """

    folder: Path
    name: str
    product: str
    defects: tuple[str, ...]
    ids: tuple[str, ...]
    plan: Mapping[str, Any]
    images: Path
    masks: Path
    records: Path
    again: str = "remove its record, and `adiff generate` makes it again"

    @property
    def is_saved(self) -> bool:
        """Whether a graph wrote it, pair by pair, and no plan."""
        return not self.plan

    @property
    def defect(self) -> str:
        """The defects that each image shows, joined."""
        return "+".join(self.defects)

    @property
    def categories(self) -> tuple[str, ...]:
        """product/defect of each."""
        return tuple(f"{self.product}/{defect}" for defect in self.defects)

    def origin(self) -> dict[str, Any]:
        """Where the pairs come from, for a data set's own records."""
        environment = self.plan.get("environment")
        adiff = environment.get("adiff") if isinstance(environment, dict) else None
        known = {name: self.plan[name] for name in ORIGIN if self.plan.get(name) is not None}
        about = {"name": self.name, "categories": list(self.categories), "synthetic": True, **known}
        return about if adiff is None else {**about, "adiff": adiff}

    def digest(self, ids: Sequence[str] = ()) -> str:
        """A fingerprint of the run's settings, and of pairs of it."""
        return hashlib.sha256(json.dumps([self.plan, ids], sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True, eq=False)
class Sample:
    """One image of a data set, opened.

    stem: its name there. defect: None for a normal image. mask: (H, W) bool. instances: (category, (H, W) bool) of each
    defect. about: where it comes from, as JSON.
    """

    stem: str
    product: str
    defect: str | None
    split: str
    photo: Photo
    mask: np.ndarray
    instances: tuple[tuple[str, np.ndarray], ...]
    about: Mapping[str, Any]


def read_runs(folders: Sequence[Path]) -> list[Run]:
    """Find the finished pairs of runs; no pair is opened.

    A folder that `ADiffSavePairs` wrote to becomes a run for each product and defect in it. Several runs get the names
    of their folders, numbered from the second of a name on. Raises FileNotFoundError for no folder, InputError for one
    that is no run, is damaged, has no pairs or is given twice.
    """
    check_once(folders)
    taken: set[str] = set()
    runs = []
    for folder in folders:
        runs += _named(read_saved(folder) or [_read_run(folder, folder.resolve().name)], taken)
    return runs


def read_saved(folder: Path) -> list[Run]:
    """Find what `ADiffSavePairs` wrote to a folder, a run for each PRODUCT/test/DEFECT, by name; none in a run's."""
    if (folder / "run.json").exists():
        return []
    runs = []
    for images in sorted(folder.glob("*/test/*")):
        product, defect = images.parents[1], images.name
        masks, records = (product / kind / defect for kind in ("ground_truth", "pairs"))
        told = {path.stem for path in records.glob("*.json")}
        found = (path.stem for path in images.glob("*.png") if SAVED_NAME.fullmatch(path.name))
        if ids := tuple(sorted(name for name in found if name in told)):
            for name in (product.name, defect):
                check_name(name, f"a folder's name in {folder},")
            runs.append(Run(product, f"{product.name}-{defect}", product.name, (defect,), ids, {}, images, masks,
                            records, "remove its image to leave it out"))  # fmt: skip
    return _named(runs, set())


def _named(runs: Sequence[Run], taken: set[str]) -> list[Run]:
    """Give runs names that images may begin with, numbered where they are taken; these are taken then."""
    named = []
    for run in runs:
        plain = name = UNFIT.sub("-", run.name)[:64] or "run"
        number = 1
        while name.casefold() in taken:
            number += 1
            name = f"{plain}-{number}"
        taken.add(name.casefold())
        named.append(replace(run, name=name))
    return named


def _read_run(folder: Path, name: str) -> Run:
    plan, path = read_plan(folder), folder / "run.json"
    defects = plan.get("defects", [plan.get("defect")])
    names = [plan.get("product"), *(defects if isinstance(defects, list) else [defects])]
    if len(names) < 2 or not all(isinstance(one, str) for one in names):
        raise InputError(f"{path} is damaged: it names no product and defect")
    for one in names:
        check_name(one, f"the name in {path},")
    if not isinstance(plan.get("normals") or [], list):
        raise InputError(f"{path} is damaged: its normals are no list")
    ids = tuple(path.stem for path in record_paths(folder))
    if not ids and (lost := len(given_up(folder, tries_of(plan)))):
        every = "all " if lost == plan.get("count") else ""
        raise InputError(
            f"{folder} holds no pair: {every}{lost} were rejected and are in {folder / REJECTS}; `adiff run report "
            f"{folder}` shows them, `adiff run restore {folder} ID` puts one back"
        )
    if not ids:
        raise InputError(f"{folder} holds no finished pair yet; `adiff generate` makes them, `adiff run status` "
                         "says if none can be made")  # fmt: skip
    parts = (folder / part for part in ("image", "mask", "pairs"))
    return Run(folder, name, names[0], tuple(names[1:]), ids, plan, *parts)


def again_among(runs: Sequence[Run]) -> Iterator[tuple[Run, Run, str]]:
    """Pairs of runs whose first common pair is one image, and its id: made with one seed, their pairs are the same."""
    for one, other in combinations(runs, 2):
        if (one.categories, one.plan.get("seed")) != (other.categories, other.plan.get("seed")):
            continue
        there = set(one.ids)
        shared = next((name for name in other.ids if name in there), None)
        files = [run.images / f"{shared}.png" for run in (one, other)]
        if shared and all(path.is_file() for path in files) and filecmp.cmp(*files, shallow=False):
            yield one, other, shared


def photos_of(
    runs: Sequence[Run], normals: Mapping[str, Sequence[Path]]
) -> tuple[set[tuple[str, str]], set[tuple[str, str | None]]]:
    """(product, name) of every normal photo that pairs of these runs are painted into, or that is added.

    Those that a run's plan names, and those added, by their files; then those of what a graph saved, where each pair
    tells its photo by the pixels, or None stands for it.
    """
    named = {(run.product, str(name)) for run in runs for name in run.plan.get("normals") or ()}
    named |= {(product, path.name) for product, paths in normals.items() for path in paths}
    return named, {(run.product, name) for run in runs if run.is_saved for name in _saved_photos(run)}


def _saved_photos(run: Run) -> Iterator[str | None]:
    for name in run.ids:
        with _damage_told(run, name):
            normal = _record(run, name).get("normal")
        yield normal if isinstance(normal, str) else None


def parts_of(run: Run, splits: Splits) -> dict[str, list[int]]:
    """The numbers of a run's pairs in each split; their records are read if any validates."""
    parts: dict[str, list[int]] = {TRAIN: [], VALIDATION: []}
    for name in run.ids:
        with _damage_told(run, name):
            split = _split_of(run, name, _record(run, name), splits) if splits.share else TRAIN
        parts[split].append(int(name))
    return parts


def _split_of(run: Run, name: str, record: Mapping[str, Any], splits: Splits) -> str:
    return splits.of_pair(run.product, record.get("normal"), int(name))


@contextmanager
def _damage_told(run: Run, name: str) -> Iterator[None]:
    """Name the pair in whose files something is amiss, or which was taken out since the run was looked at."""
    try:
        yield
    except (InputError, FileNotFoundError) as error:
        if not (run.records / f"{name}.json").exists():
            told = f"pair {name} of {run.folder} was taken out meanwhile; export again, to a new folder"
            raise InputError(told) from error
        raise InputError(f"pair {name} of {run.folder} is damaged: {error}; {run.again}") from error


def pairs_of(runs: Sequence[Run], splits: Splits) -> Iterator[Sample]:
    """Open the pairs of runs one by one; InputError, naming the pair, for one that is damaged."""
    for run in runs:
        for name in run.ids:
            with _damage_told(run, name):
                record = _record(run, name)
                photo, mask, instances = _pictures(run, name)
            about = {"synthetic": True, "run": run.name, "pair": name}
            about |= {key: record[key] for key in TOLD if key in record}
            stem = f"{run.name}-{name}" if len(runs) > 1 else name
            split = _split_of(run, name, record, splits)
            yield Sample(stem, run.product, run.defect, split, photo, mask, instances, about)


def check_normals(normals: Mapping[str, Sequence[Path]], progress: Progress) -> dict[tuple[str, str], str]:
    """Open normal images; (product, name by its pixels, as a graph's pairs tell it) -> file name of each.

    normals: product -> files. Raises InputError with how many do not open, and the first.
    """
    paths = [(product, path) for product, of_product in normals.items() for path in of_product]
    broken, names = [], {}
    progress.start(len(paths), "checking normal images")
    for number, (product, path) in enumerate(paths, 1):
        try:
            names[product, name_of(read_photo(path).rgb)] = path.name
        except InputError as error:
            broken.append(str(error))
        progress.update(number)
    progress.finish()
    if broken:
        raise InputError(f"normal images that do not open: {len(broken)}, as {all_reasons(broken)}; put them right or "
                         "take them out of their folder, then give the same command again")  # fmt: skip
    return names


def normals_of_products(normals: Mapping[str, Sequence[Path]], splits: Splits) -> Iterator[Sample]:
    """Open normal images one by one. normals: product -> files."""
    numbered = ((product, path) for product, paths in normals.items() for path in paths)
    for number, (product, path) in enumerate(numbered):
        photo = read_photo(path)
        about = {"synthetic": False, "file": path.name}
        split = splits.of_photo(product, path.name)
        # no pair is called that: an underscore stands before the digits
        yield Sample(f"normal_{number:06d}", product, None, split, photo, np.zeros(photo.size, bool), (), about)


def _record(run: Run, name: str) -> dict[str, Any]:
    record = read_json_object(run.records / f"{name}.json")
    due = {"id": name, "product": run.product, "defect": run.defect}
    for key, value in ({} if run.is_saved else due).items():
        if record.get(key) != value:
            raise InputError(f"its record's {key} is {str(record.get(key))[:40]!r}, expected {value!r}")
    return record


def _pictures(run: Run, name: str) -> tuple[Photo, np.ndarray, tuple[tuple[str, np.ndarray], ...]]:
    photo = read_photo(run.images / f"{name}.png")
    mask = read_mask(run.masks / f"{name}_mask.png", photo.size).mask
    if len(run.defects) == 1:
        return photo, mask, ((run.categories[0], mask),)
    labels = read_photo(run.masks / f"{name}_labels.png").pixels
    there = np.unique(labels)
    if labels.shape != mask.shape or not np.array_equal(labels > 0, mask):
        raise InputError(f"{name}_labels.png does not mark what {name}_mask.png marks")
    if not np.array_equal(there[there > 0], np.arange(1, len(run.defects) + 1)):
        raise InputError(f"{name}_labels.png has the labels {there.tolist()}; expected 1 to {len(run.defects)}")
    return photo, mask, tuple((category, labels == label) for label, category in enumerate(run.categories, 1))
