"""What an evaluation learns from and tests on, opened: a run's pairs, real shots, normal images."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..contact_sheet import Pair, read_pair
from ..datasets.images import read_mask, read_photo
from ..datasets.readers import Shot, read_shots
from ..embedding import embedding_fingerprint
from ..errors import InputError
from ..library import Library, taught_by
from ..run_record import made_ids, read_plan, read_records, settled_ids, tries_of, undisturbed
from ..workers import workers_of
from .localizer import Example
from .splits import Split, path_in

logger = logging.getLogger("adiff")

RECORDED = ("product", "defect", "count", "seed", "base", "embedding", "encoder", "settings")
"""What an evaluation's record repeats of a run's; of the rest, masks and limits among it, it has a digest."""


@dataclass(frozen=True, eq=False)
class Run:
    """A finished run: its folder, its run.json and the records of its pairs."""

    folder: Path
    plan: dict[str, Any]
    records: list[dict[str, Any]]

    @property
    def key(self) -> tuple[str, str]:
        """(product, defect)."""
        return str(self.plan.get("product")), str(self.plan.get("defect"))

    @property
    def is_dual(self) -> bool:
        """Whether DualAnoDiff made it: whole images, with no normal image behind them."""
        return self.plan.get("method") == "dual"

    @property
    def taught(self) -> list[str] | None:
        """The shots that taught what made it, as paths in their data folder; None if its run.json does not say."""
        shots = self.plan.get("shots")
        return [str(name) for name in shots] if isinstance(shots, list) and shots else None

    def record(self) -> dict[str, Any]:
        """What says which pairs these are."""
        told = {name: value for name, value in self.plan.items() if name not in ("command", "environment")}
        told["files"] = [one.get("files") for one in self.records]
        digest = hashlib.sha256(json.dumps(told, sort_keys=True).encode("utf-8", "backslashreplace")).hexdigest()
        return {name: self.plan.get(name) for name in RECORDED} | {"plan": digest}


def read_run(folder: Path) -> Run:
    """Read a run's records. Raises InputError for a folder that is no run, one that is not finished or has no pair.

    Pairs whose tries are spent, or whose normal image does not open, are not waited for.
    """
    plan = read_plan(folder)
    if not isinstance(plan.get("count"), int):
        raise InputError(f"{folder / 'run.json'} is damaged: it does not say how many pairs the run wants")
    if "defects" in plan:
        raise InputError(f"{folder} shows several defects in one image; give a run of one defect")
    undisturbed([folder], lambda: _check_finished(folder, plan))
    records = read_records(folder)  # after the count: a pair may have come since
    if not records:
        raise InputError(f"{folder} has none of {plan['count']} pairs: all were rejected or could not be made; "
                         "`adiff run status` says why")  # fmt: skip
    return Run(folder, plan, records)


def _check_finished(folder: Path, plan: dict[str, Any]) -> None:
    if len(settled_ids(folder, tries_of(plan))) < plan["count"]:
        raise InputError(f"{folder} has {len(made_ids(folder))} of {plan['count']} pairs: {_unfinished(folder)}")


def _unfinished(folder: Path) -> str:
    """Why a run is not finished, and what to do."""
    if writers := workers_of(folder):
        told = " and ".join(f"process {one['pid']} on {one['host']}" for one in writers)
        return f"{told} {'is' if len(writers) == 1 else 'are'} writing it; wait until it is done"
    return "it was interrupted, or is between two batches; `adiff generate` with the same options completes it"


def shots_of(run: Run, library: Library | None) -> list[str] | None:
    """The shots that taught what made a run, as paths in the data folder; None if nothing says which.

    The run's own record tells them, of older runs the library. Raises InputError if its embedding is not the run's.
    """
    if library is not None and not run.is_dual:
        entry = library.get("/".join(run.key))
        if entry.anomaly is None or embedding_fingerprint(entry.anomaly) != run.plan.get("embedding"):
            raise InputError(f"{run.folder} was not made with this library's {entry.name}; give the one that made it")
        return taught_by(entry) or run.taught or []
    return run.taught


def check_untaught(run: Run, split: Split) -> None:
    """Raise InputError if a shot that taught what made a run is among those that test, as far as its record says.

    Warns where the record names shots of another data folder, so that this cannot be told.
    """
    taught, parts = [path_in(split.root, run.key[0], name) for name in run.taught or ()], split.record()
    if leaked := [name for name in taught if name in parts["test"]]:
        raise InputError(
            f"{run.folder} was learned from {len(taught)} shots, and {leaked[0]}, one of them, would test; leave "
            "--shots out, or give more"
        )
    if unknown := [name for name in taught if name not in {*parts["train"], *parts["dropped"]}]:
        logger.warning("%s was learned from %s, which is not in %s: whether others like it test cannot be told",
                       run.folder, unknown[0], split.root)  # fmt: skip


def open_pairs(run: Run, split: Split, size: int) -> tuple[list[Example], list[str]]:
    """Open a run's pairs that may teach, resized to size x size pixels, with the name of each one's normal image.

    Left out are pairs painted into a normal image that is not among those to learn from, or into one that tests: a
    normal image for testing of the same name whose pixels outside the mask are the pair's. A dual run's pairs have no
    normal image, and a name each instead. Raises InputError if none is left.
    """
    allowed = {path.name for path in split.train_normals}
    testing = {path.name: path for path in split.test_normals}
    pairs, names = [], []
    for record in run.records:
        name = f"{run.folder.name}/{record.get('id')}" if run.is_dual else str(record.get("normal"))
        if name not in allowed and not run.is_dual:
            continue
        pair = read_pair(run.folder, record, None)
        if name in testing and _is_of(run, record, pair, read_photo(testing[name]).rgb):
            continue
        pairs.append(Example(pair.generated, pair.mask).resized(size))
        names.append(name)
    if 0 < len(pairs) < len(run.records):
        logger.warning("%d of %d pairs of %s are left out: the normal images that they were painted into are not among "
                       "those to learn from", len(run.records) - len(pairs), len(run.records), run.folder)  # fmt: skip
    if not pairs:
        raise InputError(
            f"none of the {len(run.records)} pairs of {run.folder} was painted into one of the {len(allowed)} normal "
            "images to learn from (train/good); generate them from those"
        )
    return pairs, names


def _is_of(run: Run, record: dict[str, Any], pair: Pair, normal: np.ndarray) -> bool:
    """Whether a pair was painted into a normal image; a refined mask is smaller than the one that was painted."""
    asked = run.folder / "mask" / f"{record.get('id')}_asked.png"
    outside = ~(read_mask(asked).mask | pair.mask if asked.is_file() else pair.mask)
    return normal.shape == pair.generated.shape and np.array_equal(normal[outside], pair.generated[outside])


def open_examples(shots: Sequence[Shot]) -> list[Example]:
    """Open real shots."""
    return [Example(photo.rgb, mask.mask) for photo, mask in read_shots(shots)]
