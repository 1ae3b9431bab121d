"""Which files teach and which test: disjoint by file, and by group where groups are known.

Files of one group show the same object or come from the same photo: near copies. groups.json in the data folder, in a
product's folder or around it, says which: {"test/scratch/000.png": "tile050", ...}, paths relative to the file's own
folder. In its place a regular expression may take a group out of each path, for instance "(tile\\d+)_". A file without
a group is one of its own.
"""

from __future__ import annotations

import contextlib
import logging
import re
from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np

from ..datasets.images import SUFFIXES, name_of, read_photo
from ..datasets.readers import GROUPS, Dataset, Shot, few_shot_split, list_images, read_dataset
from ..errors import InputError
from ..storage import read_json_object
from ..tensor_files import digest_of_files

logger = logging.getLogger("adiff")

TEST_SHARE = 3
"""Where there are no normal images for testing, one of this many is set aside."""

IN_GRAPH = re.compile(r"[0-9a-f]{16}\.png")
"""Name of a graph's photo (`name_of`)."""

Item = TypeVar("Item")


@dataclass(frozen=True)
class Split:
    """The files of a product's defects and of its normal images, by what they are for.

    dropped: normal images for training that share a group with a test image, and what would test, shots or normal
    images, but shares one with a shot that teaches.
    """

    root: Path
    train: tuple[Shot, ...]
    test: tuple[Shot, ...]
    train_normals: tuple[Path, ...]
    test_normals: tuple[Path, ...]
    dropped: tuple[Path, ...] = ()

    def record(self) -> dict[str, list[str]]:
        """The files of each part, relative to the data folder."""
        parts = {
            "train": [shot.image for shot in self.train], "test": [shot.image for shot in self.test],
            "train_normals": self.train_normals, "test_normals": self.test_normals, "dropped": self.dropped,
        }  # fmt: skip
        return {name: [path.relative_to(self.root).as_posix() for path in paths] for name, paths in parts.items()}

    def digest(self) -> str:
        """Digest of the shots' and masks' contents; normal images, of which there may be many, count by name."""
        return digest_of_files(path for shot in (*self.train, *self.test) for path in (shot.image, shot.mask))


def read_split(
    root: Path, product: str, wanted: Mapping[str, int | Sequence[str] | None], rule: str | None = None
) -> Split:
    """Split what a data set holds of a product's defects.

    wanted: defect -> how many of its shots teach, those with the lowest ids (None: the paper's third), or their paths
    as a library records them, relative to the root, the folder around it, or the product's in it. The others test,
    unless they share a group with one that teaches.
    Normal images test from test/good, with the same exception, and teach from train/good; where there is one folder
    only, every TEST_SHARE-th of it tests. rule: a regular expression in place of groups.json.
    Warns of a rule that no path has. Raises InputError if a part that is needed is left empty.
    """
    dataset = read_dataset(root, [product], list(wanted))
    group_of = read_groups(root, product, rule)
    teaching, resting = {}, {}
    for defect, shots in wanted.items():
        teaching[defect], resting[defect] = split_shots(dataset, (product, defect), shots)
    if rule is not None and all(group_of(shot.image) == shot.image for of in dataset.shots.values() for shot in of):
        logger.warning("the group rule %r is found in no path of a shot of %s: each photo counts as a group of its own",
                       rule, product)  # fmt: skip
    known = {group_of(shot.image) for shots in teaching.values() for shot in shots}
    testing = {d: tuple(shot for shot in rest if group_of(shot.image) not in known) for d, rest in resting.items()}
    for defect, test in testing.items():
        if not test:
            files = ([shot.image for shot in shots] for shots in (teaching[defect], resting[defect]))
            raise InputError(_untested((product, defect), *files, group_of))
    normals, good = _normals(root, product, dataset.normals.get(product, ()), group_of, known)
    test_normals = tuple(path for path in good if group_of(path) not in known)
    seen = {group_of(shot.image) for test in testing.values() for shot in test} | {group_of(p) for p in test_normals}
    train_normals = tuple(path for path in normals if group_of(path) not in seen)
    if not train_normals:
        why = f"all {len(normals)} share a group with a test image" if normals else "there are none"
        raise InputError(f"no normal images of {product} to learn from: {why}; expected them in train/good or normal")
    train, test, rest = (tuple(shot for of in parts.values() for shot in of) for parts in (teaching, testing, resting))
    dropped = {shot.image for shot in rest} - {shot.image for shot in test}
    untested = len(rest) - len(test), len(good) - len(test_normals)
    if any(untested):
        logger.warning("%s/%s: %d of %d photos and %d of %d normal images are not tested on, they share a group with a "
                       "shot that teaches", product, ", ".join(wanted), untested[0], len(rest), untested[1], len(good))
    dropped |= set(normals) - set(train_normals) | set(good) - set(test_normals)
    return Split(root, train, test, train_normals, test_normals, tuple(sorted(dropped)))


def _untested(
    key: tuple[str, str], taught: Sequence[Path], rest: Sequence[Path], group_of: Callable[[Path], Hashable]
) -> str:
    """That nothing of a defect is left to test on, and from how many of its shots it could be learned instead."""
    if not rest:
        return f"no shot of {'/'.join(key)} is left to test on: {len(taught)} teach, there are no others"
    groups, remedy = list(map(group_of, (*taught, *rest))), "add photos of other objects"
    for fewer in range(len(taught) - 1, 0, -1):
        if left := sum(group not in groups[:fewer] for group in groups):
            remedy = f"`adiff train --shots {fewer}` would leave {left}"
            break
    return (f"no shot of {'/'.join(key)} is left to test on: {len(taught)} teach, the other {len(rest)} share a group "
            f"with shots that do; {remedy}")  # fmt: skip


def tell_untested(root: Path, key: tuple[str, str], taught: Sequence[Path], rest: Sequence[Path]) -> None:
    """Warn if a defect that is learned from some of its photos cannot be tested on the rest, because of groups.json.

    A file of that name that is none of ours says nothing.
    """
    with contextlib.suppress(InputError):
        group_of = read_groups(root, key[0])
        if rest and {*map(group_of, rest)} <= {*map(group_of, taught)}:
            logger.warning("%s", _untested(key, taught, rest, group_of))


def split_shots(
    dataset: Dataset, key: tuple[str, str], shots: int | Sequence[str] | None
) -> tuple[tuple[Shot, ...], tuple[Shot, ...]]:
    """The shots of a defect that teach, and the others; shots: as for `read_split`."""
    found = dataset.shots.get(key, ())
    if shots is None or isinstance(shots, int):
        return few_shot_split(found, shots)
    return _named(found, list(dict.fromkeys(path_in(dataset.root, key[0], name) for name in shots)), dataset.root)


def path_in(root: Path, product: str, name: str) -> str:
    """A recorded path of a shot in a data folder, where it may be that in the product's own folder, or around it."""
    paths = name, f"{product}/{name}", name.removeprefix(f"{product}/")
    return next((path for path in paths if (root / path).is_file()), name)


def read_groups(root: Path, product: str, rule: str | None = None) -> Callable[[Path], Hashable]:
    """Return what tells a file's group, itself where it has none.

    Raises InputError for a bad rule or groups.json, and for one whose paths lead to no file.
    """
    groups: dict[Path, str] = {}
    if rule is not None:
        try:
            pattern = re.compile(rule)
        except re.error as error:
            raise InputError(f"the group rule {rule!r} is no regular expression ({error})") from None
        if pattern.groups != 1:
            raise InputError(f"the group rule {rule!r} has {pattern.groups} pairs of parentheses; expected one")

        def by_rule(path: Path) -> Hashable:
            match = pattern.search(path.relative_to(root).as_posix())
            return match[1] if match and match[1] is not None else path

        return by_rule
    for folder in (root, root / product):
        record = folder / GROUPS
        if record.is_file():
            table = {folder / name: group for name, group in _read_table(record).items()}
            if table and not any(path.is_file() for path in table):
                raise InputError(f"{record} names no file that is there, as {next(iter(table))}; its paths have to be "
                                 "relative to its own folder")  # fmt: skip
            groups |= table
    own = root.resolve()
    if own.name == product and (around := own.parent / GROUPS).is_file():  # of several products, of which root is one
        groups |= {root / name[len(product) + 1:]: group for name, group in _read_table(around).items()
                   if name.startswith(f"{product}/")}  # fmt: skip
    return lambda path: groups.get(path, path)


def split_by_group(
    items: Sequence[Item], group_of: Callable[[Item], Hashable], share: float, rng: np.random.Generator
) -> tuple[list[Item], list[Item]]:
    """Set aside at least `share` of the items, whole groups at random; returns the rest and those, order kept.

    A single group cannot be split: nothing is set aside then.
    """
    sizes = Counter(group_of(item) for item in items)  # in the order in which they come
    groups, aside, taken = list(sizes), set[Hashable](), 0
    if len(groups) < 2 or share <= 0:
        return list(items), []
    for index in rng.permutation(len(groups))[:-1]:
        aside.add(groups[index])
        taken += sizes[groups[index]]
        if taken >= share * len(items):
            break
    return ([item for item in items if group_of(item) not in aside], [i for i in items if group_of(i) in aside])


def _read_table(record: Path) -> dict[str, str]:
    table = read_json_object(record)
    if not all(isinstance(group, str) for group in table.values()):
        raise InputError(f"{record} is no table of file -> group, both text")
    return {name.replace("\\", "/"): group for name, group in table.items()}  # as a script on Windows writes paths


def _named(found: Sequence[Shot], names: Sequence[str], root: Path) -> tuple[tuple[Shot, ...], tuple[Shot, ...]]:
    """The shots of these paths, or names by their pixels, as a graph gives them to photos of no folder; the others."""
    by_name = {shot.image.relative_to(root).as_posix(): shot for shot in found}
    if not by_name.keys() >= set(names):
        by_name |= {name_of(read_photo(shot.image).rgb): shot for shot in found}
    missing = [name for name in names if name not in by_name]
    if missing or not names:
        told = f"{missing[0]} is not among the {len(found)} shots of {root}" if names else "none is recorded"
        if names and IN_GRAPH.fullmatch(missing[0]):
            told += " (a graph names photos by their pixels; newer versions of ComfyUI read others from a JPEG)"
        raise InputError(f"the shots that taught: {told}; give the data folder that they are of, or --shots")
    taught = tuple(by_name[name] for name in names)
    return taught, tuple(shot for shot in found if shot not in taught)


def _normals(
    root: Path, product: str, normals: Sequence[Path], group_of: Callable[[Path], Hashable], known: set[Hashable]
) -> tuple[tuple[Path, ...], tuple[Path, ...]]:
    """Normal images to learn from and to test on; of a single folder whole groups are set aside for testing.

    known: groups of the shots that teach, of which none is set aside.
    """
    for folder in (root / product, root):
        if all(_holds_images(folder / part / "good") for part in ("train", "test")):
            return tuple(normals), list_images(folder / "test" / "good")
    groups = list(dict.fromkeys(group for path in normals if (group := group_of(path)) not in known))
    aside = set(groups[TEST_SHARE - 1 :: TEST_SHARE])
    return (tuple(p for p in normals if group_of(p) not in aside), tuple(p for p in normals if group_of(p) in aside))


def _holds_images(folder: Path) -> bool:
    if not folder.is_dir():
        return False
    return any(path.suffix.lower() in SUFFIXES and not path.name.startswith(".") for path in folder.iterdir())
