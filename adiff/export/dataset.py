"""Runs become one data set in a format that training programs read."""

from __future__ import annotations

import logging
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from .. import __version__
from ..errors import InputError
from ..progress import NullProgress, Progress
from ..storage import LOCK, filling, read_json_object, remove_leftovers, run_lock, write_json
from .coco import CocoWriter
from .folders import FolderWriter, MvtecWriter
from .layout import Target, Writer, is_deep
from .runs import Run, Sample, again_among, check_normals, normals_of_products, pairs_of, parts_of, photos_of
from .splits import SPLITS, VALIDATION, Splits
from .voc import VocWriter
from .yolo import SEEN, YoloWriter

FORMATS: dict[str, Callable[[Target], Writer]] = {
    "mvtec": MvtecWriter, "coco": CocoWriter, "yolo": YoloWriter, "voc": VocWriter, "folder": FolderWriter,
}  # fmt: skip
LAYOUTS = {"coco": 2}
"""Formats whose files lie otherwise than older versions put them; what these wrote does not grow, but is made anew."""
RECORD, KIND = "export.json", "export"
"""The file that says what a folder was exported from, and by which settings."""
REMEDY = "remove the folder or give another one"
"""What to do about such a file that is damaged."""

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
        if self.format == "mvtec" and not any(self.normals.values()):
            text += "; without normal images there is no train/good, which most readers of this layout ask for"
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
    what lists them last; until then the folder says that it is a part (`storage.filling`). The same export again
    completes what is missing, and, with `extend`, adds the pairs that the runs have got since: none moves to another
    split. Raises InputError, nothing written, for a folder that lies in a run, for options that do not fit and for
    normal images that do not open, TakenError for one that holds something else; InputError, naming the pair, for a
    damaged one.
    """
    normals, progress = normals or {}, progress or NullProgress()
    _check_options(runs, out, format, polygons, validation, normals)
    asked = {
        "format": format, "layout": LAYOUTS.get(format), "polygons": polygons, "validation": validation,
        **({"seed": seed} if validation else {}),  # without, nothing is drawn; older versions told one
        "normals": {product: [path.name for path in paths] for product, paths in normals.items()},
    }  # fmt: skip
    parted = runs if validation and format != "mvtec" else ()  # MVTec's defects are all for testing
    (named, saved), settled = photos_of(parted, normals), _limits_at(out, asked)
    # one that is taken out later makes another export, which goes elsewhere
    files = check_normals(normals, progress) if any(normals.values()) else {}
    told = {(product, name) for product, name in saved if name is not None}
    splits = Splits(named | told, validation, seed, settled, files)
    of_pairs = splits if parted else Splits((), 0.0, seed)
    parts = {run.name: parts_of(run, of_pairs) for run in runs}
    pairs = {name: sum(len(of_run[name]) for of_run in parts.values()) for name in SPLITS}
    good = _count(splits.of_photo(product, path.name) for product, paths in normals.items() for path in paths)
    _check_splits(good if format == "mvtec" else pairs, validation, out if settled else None)
    categories = tuple(dict.fromkeys(category for run in runs for category in run.categories))
    origin = {"synthetic": True, "runs": [run.origin() for run in runs]}
    target = Target(out, categories, SPLITS[: 1 + bool(validation)], origin, polygons)
    writer = FORMATS[format](target)
    settings = asked | {
        "split": {"by": "normal image, else number", "limits": splits.limits} if validation else None,
        "pairs": {
            run.name: {"plan": run.digest(), **{name: _spans(ids) for name, ids in parts[run.name].items()}}
            for run in runs
        },
    }
    _warn_of_photos(sorted(product for product, name in saved - told), bool(named and told - files.keys()))
    for one, other, pair in again_among(runs):
        logger.warning("%s holds the pairs of %s again (%s is one image in both), as of one seed: leave one out, or "
                       "make it anew with another --seed", other.folder, one.folder, pair)  # fmt: skip
    with run_lock(out):
        _claim(out, settings, origin, extend)
        samples = chain(pairs_of(runs, of_pairs), normals_of_products(normals, splits))
        with filling(out):
            _write_all(writer, samples, sum(pairs.values()) + sum(good.values()), progress)
    return Exported(out, format, pairs, good, categories)


def _warn_of_photos(untold: Sequence[str], unlike: bool) -> None:
    """Warn of pairs that are split while it is not known which of them show one photo.

    untold: products of those that tell none. unlike: whether some are known by their pixels alone, beside files.
    """
    if untold:
        logger.warning("pairs of %s tell no normal image, as Save Pairs got no measures of Finish Pair: they are split "
                       "by their numbers, and one photo may be behind pairs of both parts", untold[0])  # fmt: skip
    if unlike:
        logger.warning("Save Pairs tells normal images by their pixels, and some are none of those added: a photo "
                       "that is also among these in another size, as a JPEG, which newer versions of ComfyUI decode "
                       "otherwise, or in a run, may be in both parts")  # fmt: skip


def _write_all(writer: Writer, samples: chain[Sample], total: int, progress: Progress) -> None:
    progress.start(total, "exporting images")
    deep = 0
    for done, sample in enumerate(samples, 1):
        writer.add(sample)
        deep += is_deep(sample.photo)
        progress.update(done)
    writer.finish()
    progress.finish()
    if deep:
        logger.warning("%d image%s of 16 bits: written with 8, as most readers of data sets would show them white; the "
                       "originals stay where they are", deep, "s" * (deep > 1))  # fmt: skip


def _number(counts: dict[str, int], what: str) -> str:
    """How many of what, in the plural, and how many of them in each split."""
    parts = ", ".join(f"{count} {split}" for split, count in counts.items())
    total = sum(counts.values())
    return f"{total} {what if total > 1 else what[:-1]}" + (f" ({parts})" if all(counts.values()) else "")


def _count(splits: Iterable[str]) -> dict[str, int]:
    """Images of each split."""
    counted = Counter(splits)
    return {split: counted[split] for split in SPLITS}


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


def _check_splits(counts: Mapping[str, int], share: float, there: Path | None) -> None:
    """Raise InputError for a part without images. there: the folder of an export, whose parts are taken over."""
    empty = [split for split, count in counts.items() if not count]
    if share and empty and there:
        raise _taken(there, ["pairs"])
    if share and empty:
        total = sum(counts.values())
        raise InputError(f"a validation share of {share} of {total} images leaves none for {empty[0]}; "
                         "give another share or seed, or pairs of more normal images; a pair goes where its normal "
                         "image goes")  # fmt: skip


def _limits_at(out: Path, asked: Mapping[str, Any]) -> Mapping[str, float]:
    """Below which places the photos of an export validate that grows: of one that was asked for in the same way."""
    settings = read_json_object(out / RECORD, REMEDY).get("settings") if (out / RECORD).is_file() else None
    if not isinstance(settings, dict) or any(settings.get(name) != value for name, value in asked.items()):
        return {}
    split = settings.get("split")
    limits = split.get("limits") if isinstance(split, dict) else None
    known = limits.items() if isinstance(limits, dict) else ()
    return {product: place for product, place in known if isinstance(place, float)}


def _claim(out: Path, settings: Mapping[str, Any], origin: Mapping[str, Any], extend: bool) -> None:
    """Mark the folder as this export's, or find that mark; raises TakenError for any other content.

    extend: whether an export of some of these pairs is taken over.
    """
    path = out / RECORD
    record = {"kind": KIND, "adiff": __version__, "settings": settings, "origin": origin}
    if not path.is_file():
        if any(entry.name != LOCK for entry in out.iterdir()):
            raise TakenError(f"{out} is not empty and holds no {RECORD}; give a new or an empty folder")
        write_json(path, record)
        return
    old = read_json_object(path, REMEDY).get("settings")
    if not isinstance(old, dict):
        raise InputError(f"{path} is damaged (no settings); {REMEDY}")
    different = [name for name, value in settings.items() if old.get(name) != value]
    if different == ["pairs"] and extend and _has_grown(settings["pairs"], old.get("pairs")):
        write_json(path, record)
    elif different:
        adds = "takes the same runs, with pairs that have come since" if extend else "adds what has come since"
        raise _taken(out, different, f" (--extend {adds})" if different == ["pairs"] else "")
    remove_leftovers(*(folder for folder in out.rglob("*") if folder.is_dir()))  # of a process killed there


def _taken(out: Path, different: Sequence[str], more: str = "") -> TakenError:
    told = f"it differs in {', '.join(different)}"
    return TakenError(f"{out} holds another export ({told}){more}; remove it or give a new folder")


def _spans(numbers: Iterable[int]) -> list[list[int]]:
    """Numbers as the first and last of each row without a gap: pairs that cannot be made leave gaps."""
    spans: list[list[int]] = []
    for number in sorted(numbers):
        if spans and number == spans[-1][1] + 1:
            spans[-1][1] = number
        else:
            spans.append([number, number])
    return spans


def _has_grown(pairs: Mapping[str, Mapping[str, Any]], old: Any) -> bool:
    """Whether an export was of the same runs with some of these pairs, each in its split: no image of it is amiss."""
    try:
        return set(old) == set(pairs) and all(
            old[name]["plan"] == now["plan"] and all(_lie_in(old[name][split], now[split]) for split in SPLITS)
            for name, now in pairs.items()
        )
    except (TypeError, LookupError, ValueError):  # damaged, or of another version
        return False


def _lie_in(spans: Sequence[Sequence[int]], others: Sequence[Sequence[int]]) -> bool:
    """Whether each span lies within one of the others."""
    starts = [first for first, _ in others]
    return all((place := bisect_right(starts, first)) and last <= others[place - 1][1] for first, last in spans)
