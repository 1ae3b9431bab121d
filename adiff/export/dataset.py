"""Runs become one data set in a format that training programs read."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from .. import __version__
from ..errors import InputError
from ..progress import NullProgress, Progress
from ..storage import LOCK, read_json_object, remove_leftovers, run_lock, write_json
from .coco import CocoWriter
from .folders import FolderWriter, MvtecWriter
from .layout import Target, Writer
from .runs import Run, Sample, normals_of_products, pairs_of, photos_of, splits_of_pairs
from .splits import TRAIN, VALIDATION, Splits
from .voc import VocWriter
from .yolo import SEEN, YoloWriter

FORMATS: dict[str, Callable[[Target], Writer]] = {
    "mvtec": MvtecWriter, "coco": CocoWriter, "yolo": YoloWriter, "voc": VocWriter, "folder": FolderWriter,
}  # fmt: skip
RECORD, KIND = "export.json", "export"
"""The file that says what a folder was exported from, and by which settings."""

logger = logging.getLogger("adiff")


class TakenError(InputError):
    """The folder holds something else than the export that was asked for."""


@dataclass(frozen=True)
class Exported:
    """pairs, normals: images of each split; categories: product/defect, in the order of their numbers."""

    out: Path
    format: str
    pairs: dict[str, int]
    normals: dict[str, int]
    categories: tuple[str, ...]

    def told(self, where: Path | str | None = None) -> str:
        """Say what was exported, and what a reader has to know. where: what to call the folder."""
        good = f" and {_number(self.normals, 'normal images')}" if any(self.normals.values()) else ""
        pairs = f"{_number(self.pairs, 'pairs')} of {', '.join(self.categories)}"
        text = f"{pairs}{good} in {where or self.out}, as {self.format}"
        if self.format == "yolo" and not self.pairs[VALIDATION]:
            text += f"; in data.yaml, {SEEN}"
        return text


def export_runs(
    runs: Sequence[Run],
    out: Path,
    format: str,
    *,
    normals: Mapping[str, Sequence[Path]] | None = None,
    validation: float = 0.0,
    polygons: bool = False,
    seed: int = 0,
    extend: bool = False,
    progress: Progress | None = None,
) -> Exported:
    """Write the finished pairs of runs (`read_runs`) to `out` as one data set; the runs are only read.

    normals: product -> normal images to add. validation: share of the normal photos that are for validation, with all
    pairs painted into them (`Splits`); which ones follows from the seed. polygons: COCO with polygons instead of run
    lengths. Images keep their names if there is one run, else the run's stands before them. Files are written whole,
    what lists them last; the same export again completes what is missing, and, with `extend`, adds the pairs that the
    runs have got since: none moves to another split. Raises InputError, nothing written, for a folder that lies in a
    run and for options that do not fit, TakenError for one that holds something else; InputError, naming the pair, for
    a damaged one.
    """
    normals, progress = normals or {}, progress or NullProgress()
    _check_options(runs, out, format, polygons, validation, normals)
    splits = Splits(photos_of(() if format == "mvtec" else runs, normals), validation, seed)
    of_pairs = Splits((), 0.0, seed) if format == "mvtec" else splits  # MVTec's defects are all for testing
    pairs = _count(splits_of_pairs(runs, of_pairs))
    good = _count(splits.of_photo(product, path.name) for product, paths in normals.items() for path in paths)
    _check_splits(good if format == "mvtec" else pairs, validation)
    categories = tuple(dict.fromkeys(category for run in runs for category in run.categories))
    origin = {"synthetic": True, "runs": [run.origin() for run in runs]}
    target = Target(out, categories, (TRAIN, VALIDATION)[: 1 + bool(validation)], origin, polygons)
    writer = FORMATS[format](target)
    settings = {
        "format": format, "polygons": polygons, "validation": validation, "seed": seed,
        "split": _split_told(runs) if validation else None,
        "pairs": {run.name: [len(run.ids), run.digest()] for run in runs},
        "normals": {product: [path.name for path in paths] for product, paths in normals.items()},
    }  # fmt: skip
    with run_lock(out):
        _claim(out, settings, origin, runs if extend else ())
        samples = chain(pairs_of(runs, of_pairs), normals_of_products(normals, splits))
        _write_all(writer, samples, sum(pairs.values()) + sum(good.values()), progress)
    return Exported(out, format, pairs, good, categories)


def _split_told(runs: Sequence[Run]) -> str:
    """What pairs are split by, for the record; warns of those of which no photo is told."""
    saved = [run for run in runs if run.is_saved]
    if saved:
        logger.warning("what Save Pairs wrote tells no normal image: the pairs of %s are split by their numbers, and "
                       "one photo may be behind pairs of both parts", saved[0].folder)  # fmt: skip
    return "by number" if len(saved) == len(runs) else "by normal image, else by number" if saved else "by normal image"


def _write_all(writer: Writer, samples: chain[Sample], total: int, progress: Progress) -> None:
    progress.start(total, "exporting images")
    for done, sample in enumerate(samples, 1):
        writer.add(sample)
        progress.update(done)
    writer.finish()
    progress.finish()


def _number(counts: dict[str, int], what: str) -> str:
    """How many of what, in the plural, and how many of them in each split."""
    parts = ", ".join(f"{count} {split}" for split, count in counts.items())
    total = sum(counts.values())
    return f"{total} {what if total > 1 else what[:-1]}" + (f" ({parts})" if all(counts.values()) else "")


def _count(splits: Iterable[str]) -> dict[str, int]:
    """Images of each split."""
    counted = Counter(splits)
    return {split: counted[split] for split in (TRAIN, VALIDATION)}


def _check_options(
    runs: Sequence[Run], out: Path, format: str, polygons: bool, share: float, normals: Mapping[str, Sequence[Path]]
) -> None:
    if format not in FORMATS:
        raise InputError(f"there is no format {format!r}; choose from {', '.join(FORMATS)}")
    if not runs:
        raise InputError("no run to export; give the folder that `adiff generate --out` wrote")
    if polygons and format != "coco":
        what = "always polygons" if format == "yolo" else "always pixels"
        raise InputError(f"polygons were asked for, but {format} holds {what}; leave --polygons out, or take coco")
    if not 0 <= share < 1:
        raise InputError(f"a validation share of {share}; expected 0 or more, below 1")
    if share and format == "mvtec" and not any(normals.values()):
        raise InputError("MVTec's layout has all defects in test/: a validation share picks normal images for "
                         "test/good; give --normals too, or leave --validation out")  # fmt: skip
    places = [run.folder for run in runs] + [path.parent for paths in normals.values() for path in paths[:1]]
    for place in places:
        if out.resolve().is_relative_to(place.resolve()):
            raise InputError(f"{out} lies in {place}, which is exported; give a folder outside it")


def _check_splits(counts: Mapping[str, int], share: float) -> None:
    empty = [split for split, count in counts.items() if not count]
    if share and empty:
        total = sum(counts.values())
        raise InputError(f"a validation share of {share} of {total} images leaves none for {empty[0]}; "
                         "give another share or seed; a pair goes where its normal image goes")  # fmt: skip


def _claim(out: Path, settings: Mapping[str, Any], origin: Mapping[str, Any], growing: Sequence[Run]) -> None:
    """Mark the folder as this export's, or find that mark; raises TakenError for any other content.

    growing: the runs, if an export of their first pairs is taken over.
    """
    path = out / RECORD
    record = {"kind": KIND, "adiff": __version__, "settings": settings, "origin": origin}
    if not path.is_file():
        if any(entry.name != LOCK for entry in out.iterdir()):
            raise TakenError(f"{out} is not empty and holds no {RECORD}; give a new or an empty folder")
        write_json(path, record)
        return
    remedy = "remove the folder or give another one"
    old = read_json_object(path, remedy).get("settings")
    if not isinstance(old, dict):
        raise InputError(f"{path} is damaged (no settings); {remedy}")
    different = [name for name, value in settings.items() if old.get(name) != value]
    if different == ["pairs"] and growing and _has_grown(growing, old.get("pairs")):
        write_json(path, record)
    elif different:
        extend = "takes the same runs, with pairs that have come since" if growing else "adds what has come since"
        more = f" (--extend {extend})" if different == ["pairs"] else ""
        raise TakenError(f"{out} holds another export (it differs in {', '.join(different)}){more}; "
                         "remove it or give a new folder")  # fmt: skip
    remove_leftovers(*(folder for folder in out.rglob("*") if folder.is_dir()))  # of a process killed there


def _has_grown(runs: Sequence[Run], old: Any) -> bool:
    """Whether an export was of the same runs when they had only their first pairs: then no image of it is amiss."""
    if not isinstance(old, dict) or set(old) != {run.name for run in runs}:
        return False
    for run in runs:
        count = old[run.name][0] if isinstance(old[run.name], list) and old[run.name] else None
        if not isinstance(count, int) or old[run.name] != [count, run.digest(count)]:
            return False
    return True
