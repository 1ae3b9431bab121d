"""What a benchmark is made on: the units of a data set, each with the files that teach and those that test."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

from ..datasets.readers import Dataset, Shot, natural_key, read_dataset
from ..errors import InputError
from ..evaluation.splits import Split, read_groups, read_split

TEACHING = 3
"""One of this many shots teaches, those with the lowest ids (METHOD 2, "Split")."""


@dataclass(frozen=True)
class Unit:
    """What a cell is measured on: defects of one product, with their split; note: what tells it from another split."""

    product: str
    defects: tuple[str, ...]
    split: Split
    whole: bool = False
    note: str = ""

    @property
    def name(self) -> str:
        """The product, or the product and its only defect."""
        return name_of(self.product, self.defects, self.whole, self.note)

    @property
    def keys(self) -> list[tuple[str, str]]:
        """(product, defect) of each defect."""
        return [(self.product, defect) for defect in self.defects]

    def teaching(self, defect: str, shots: int | float | None) -> tuple[Shot, ...]:
        """Shots of a defect that teach: the first `shots`, as a share of all the defect's images, or all.

        Raises InputError where there are not so many.
        """
        found = tuple(shot for shot in self.split.train if shot.defect == defect)
        if shots is None:
            return found
        every = len(found) + sum(shot.defect == defect for shot in self.split.test)
        number = max(1, int(shots * every + 1e-9)) if isinstance(shots, float) else shots
        if number > len(found):
            raise InputError(
                f"{number} shots of {self.product}/{defect} asked for; {len(found)} of {every} may teach, the others "
                "test; --shots sets more aside"
            )
        return found[:number]

    def record(self) -> dict[str, Any]:
        """The files of each part."""
        return {"product": self.product, "defects": list(self.defects), **self.split.record()}


def name_of(product: str, defects: Sequence[str], whole: bool, note: str) -> str:
    """The name of a unit."""
    name = product if whole else "/".join((product, *defects))
    return f"{name}, {note}" if note else name


def open_units(
    root: Path,
    products: Sequence[str],
    defects: Sequence[str],
    *,
    whole: bool = False,
    teach: int | None = None,
    one_in: int = TEACHING,
    rule: str | None = None,
    note: str = "",
) -> tuple[list[Unit], dict[str, str]]:
    """Split a data set into units: one for each defect, or with `whole` one for each product with all its defects.

    products, defects: the ones wanted, () for all. teach: shots of each defect that may teach, those with the lowest
    ids; None: one in `one_in`, by whole groups where groups are known (`groups.json`, or rule, a regular expression).
    Returns them, and name -> reason of those that cannot be split, as where nothing is left to test on. Raises
    InputError if none can.
    """
    dataset = read_dataset(root, products, defects)
    of_product: dict[str, list[str]] = {}
    for product, defect in dataset.shots:
        of_product.setdefault(product, []).append(defect)
    units, left_out = [], {}
    for product, found in of_product.items():
        group_of = read_groups(dataset.root, product, rule)
        for part in ([found] if whole else [[defect] for defect in found]):
            try:
                chosen = {defect: _teaching(dataset, (product, defect), group_of, teach, one_in) for defect in part}
                split = read_split(dataset.root, product, chosen, rule)
                check_disjoint(split)
            except InputError as error:
                left_out[name_of(product, part, whole, note)] = str(error)
                continue
            units.append(Unit(product, tuple(part), split, whole, note))
    if not units:
        raise InputError(next(iter(left_out.values())))
    return units, left_out


def _teaching(
    dataset: Dataset, key: tuple[str, str], group_of: Callable[[Path], Hashable], teach: int | None, one_in: int
) -> list[str]:
    """Names of the shots that may teach: by id, a group that is begun is taken whole before the next.

    With a number given that may break a group; the rest of it is then used for nothing (`read_split`).
    """
    shots = sorted(dataset.shots[key], key=lambda shot: natural_key(shot.image.stem))
    groups: dict[Hashable, list[Shot]] = {}
    for shot in shots:
        groups.setdefault(group_of(shot.image), []).append(shot)
    wanted, taken = max(1, len(shots) // one_in) if teach is None else teach, []
    for members in groups.values():
        if len(taken) >= wanted:
            break
        taken += members
    if len(taken) < wanted:
        raise InputError(f"{wanted} shots of {'/'.join(key)} asked for, but there are {len(shots)}; ask for fewer")
    taken = taken if teach is None else taken[:wanted]
    return [shot.image.relative_to(dataset.root).as_posix() for shot in taken]


def check_disjoint(split: Split) -> None:
    """Raise InputError if a file of a split is in two of its parts, also by another path to it."""
    parts = {
        "shots that teach": {shot.image.resolve() for shot in split.train},
        "shots that test": {shot.image.resolve() for shot in split.test},
        "normal images that teach": {path.resolve() for path in split.train_normals},
        "normal images that test": {path.resolve() for path in split.test_normals},
    }
    for (one, files), (other, others) in combinations(parts.items(), 2):
        if both := files & others:
            raise InputError(f"{min(both)} is among the {one} and among the {other}; keep it in one of them")

