"""Data sets found on disk: MVTec's layout or plain folders of images and masks, and the few-shot split.

| layout | images | masks | normals |
|---|---|---|---|
| MVTec, many products | ROOT/P/test/D/S.png | ROOT/P/ground_truth/D/S_mask.png | ROOT/P/train/good |
| MVTec, one product | ROOT/test/D/S.png | ROOT/ground_truth/D/S_mask.png | ROOT/train/good |
| plain | ROOT/images/S.png | ROOT/masks/S.png or S_mask.png | ROOT/normal |
| plain, several defects | ROOT/D/images/S.png | ROOT/D/masks/S.png or S_mask.png | ROOT/normal |
| plain, masks beside photos | ROOT/S.png or ROOT/D/S.png | ROOT/S_mask.png or ROOT/D/S_mask.png | ROOT/normal |

P is a product, D a defect, S a stem; any suffix of `images.SUFFIXES` will do, in either case, and masks may go by S or
S_mask everywhere. Hidden and junk files are passed over.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import InputError, listed
from ..storage import check_finished, composed
from .images import SUFFIXES, MaskFile, Photo, read_mask, read_photo

logger = logging.getLogger("adiff")

JUNK = frozenset(("thumbs.db", "desktop.ini", "__macosx", "ehthumbs.db"))
"""What systems leave behind, in lower case; names that start with a dot are junk too."""
NOTES = frozenset((".txt", ".json", ".csv", ".md", ".xml", ".yaml", ".yml", ".html", ".py"))
"""Suffixes of files that may lie among images and are passed over without a word."""
MVTEC_FOLDERS = ("test", "ground_truth", "train")
PLAIN_FOLDERS = ("images", "masks")
NORMAL_FOLDERS = ("normal", "good")
MASK_ENDING = "_mask"
GROUPS = "groups.json"
"""The file that says which photos belong together (`evaluation.splits`)."""
MOST = 0.75
"""Share of an image above which a mask is rather the other way round than a large defect's."""
IMPORT = (
    "`adiff import` makes a data set of annotations (COCO, labelme, Supervisely, YOLO, CVAT, Pascal VOC), and of masks "
    "that lie otherwise"
)
"""Where masks come from that are told by other means."""
DEFECT = "defect"
"""Name of the defect of a plain folder that was given none."""


@dataclass(frozen=True)
class Shot:
    """One real photo of a defect, with its mask."""

    product: str
    defect: str
    image: Path
    mask: Path


@dataclass(frozen=True)
class Dataset:
    """The files of a data set: shots of each (product, defect) in natural order, normals of each product."""

    root: Path
    shots: dict[tuple[str, str], tuple[Shot, ...]]
    normals: dict[str, tuple[Path, ...]]


def natural_key(name: str) -> tuple:
    """Sort key that reads digits as numbers: 2 before 10; ties by the text itself."""
    parts = re.split(r"(\d+)", name, flags=re.ASCII)
    return tuple(int(part) if i % 2 else part.casefold() for i, part in enumerate(parts)), name


def read_dataset(root: Path | str, products: Sequence[str] = (), defects: Sequence[str] = ()) -> Dataset:
    """Find the shots and normals of a folder (layouts above); the files are matched by name, not opened.

    products, defects: the ones wanted, () for all; the rest is not looked at. A plain folder is the product and holds
    one defect, which takes the name in `defects` if there is exactly one. Normals are train/good, else test/good.

    Raises InputError if there are no images, an image lacks its mask or a mask its image, a product or defect is not
    there, a link leads out of the folder, or the command that fills it was stopped.
    """
    root = Path(root)
    if not root.is_dir():
        told = f"is a file; {IMPORT}" if root.exists() else "does not exist"
        raise InputError(f"the data folder {root} {told}")
    check_finished(root)
    here = set(_folders(root, root))
    if here & set(MVTEC_FOLDERS):
        return _read_mvtec(root, {_name_of(root): root}, products, defects)
    if here & {*PLAIN_FOLDERS}:
        return _read_plain(root, _plain_parts(root, root), products, defects)
    inner = {name: set(_folders(root / name, root)) for name in sorted(here, key=natural_key)}
    found = {name: root / name for name, folders in inner.items() if folders & set(MVTEC_FOLDERS)}
    if found:
        return _read_mvtec(root, found, products, defects)
    plain = {name: parts for name in inner if (parts := _plain_parts(root / name, root))}
    if all(images == masks for images, masks in plain.values()) and (parts := _plain_parts(root, root)):
        if plain:
            raise InputError(f"{root} holds photos with their masks, and so do folders in it ({_listed(plain)}); move "
                             "those into a folder of their own")  # fmt: skip
        return _read_plain(root, parts, products, defects)
    if plain:
        others = [root / name for name in inner if name not in plain and name.lower() not in NORMAL_FOLDERS]
        if bare := [one.name for one in others if any(e.suffix.lower() in SUFFIXES for e in _entries(one, root))]:
            logger.warning("%s: passed over, as no photo there has a mask: %s", root, _listed(bare))
        return _read_plain_defects(root, plain, products, defects)
    loose = _image_files(root, root)
    got = f"{len(loose)} image files directly in it" if loose else f"folders {_listed(here)}" if here else "nothing"
    raise InputError(
        f"no images found in {root} ({got}); expected S.png with S_mask.png, images/ and masks/, or test/DEFECT/ and "
        f"ground_truth/DEFECT/ as in MVTec AD, for one product or in one folder for each; {IMPORT}"
    )


def few_shot_split(shots: Sequence[Shot], n: int | None = None) -> tuple[tuple[Shot, ...], tuple[Shot, ...]]:
    """Split one defect's shots by id: the n lowest train, the rest test (METHOD 2, "Split"); the two are disjoint.

    n: shots to train on; None for the third with the lowest ids, at least 1, as in the paper. (The release's test set
    repeats one training image.) Raises InputError if there are fewer than n; one shot alone works, with a warning.
    """
    ordered = tuple(sorted(shots, key=lambda shot: natural_key(shot.image.stem)))
    if not ordered:
        raise InputError("no shots to split; expected at least one image with its mask")
    name = f"{ordered[0].product}/{ordered[0].defect}"
    if n is None:
        n = max(1, len(ordered) // 3)
    if n < 1:
        raise InputError(f"{n} shots of {name} asked for; expected 1 or more")
    if n > len(ordered):
        raise InputError(f"{n} shots of {name} asked for, but there are {len(ordered)}; ask for at most that many")
    if n == 1:
        more = f" ({len(ordered)} are there: --shots N learns from more)" if len(ordered) > 1 else ""
        logger.warning("%s: one shot only%s; what is learned from it is little more than that one defect", name, more)
    return ordered[:n], ordered[n:]


def read_shot(shot: Shot) -> tuple[Photo, MaskFile]:
    """Open a shot's photo and its mask; InputError as from `read_photo` and `read_mask`, sizes compared."""
    photo = read_photo(shot.image)
    return photo, read_mask(shot.mask, photo.size)


def read_shots(shots: Sequence[Shot]) -> list[tuple[Photo, MaskFile]]:
    """Open shots (`read_shot`); says once how many masks were grey and have been cut at half of full scale.

    Says too how many mark more than MOST of their image.
    """
    opened = [read_shot(shot) for shot in shots]
    grey = [shot.mask.name for shot, (_, mask) in zip(shots, opened, strict=True) if mask.grey]
    if grey:
        logger.warning("%d of %d masks hold greys, cut at half of full scale: %s", len(grey), len(shots), _listed(grey))
    large = [shot.mask.name for shot, (_, mask) in zip(shots, opened, strict=True) if mask.mask.mean() > MOST]
    if large:
        logger.warning("%d of %d masks mark more than %d %% of their image; white marks the defect, so invert them if "
                       "it is black: %s", len(large), len(shots), 100 * MOST, _listed(large))  # fmt: skip
    turned = [shot.image.name for shot, (photo, mask) in zip(shots, opened, strict=True) if photo.turned != mask.turned]
    if turned:
        logger.warning("%d of %d photos are turned by an EXIF tag and their masks are not, or the other way round; see "
                       "that the masks lie on them as viewers show them: %s", len(turned), len(shots), _listed(turned))
    return opened


def list_images(folder: Path | str) -> tuple[Path, ...]:
    """Image files of one folder in natural order.

    Raises InputError if it is missing, empty, or a link leads out of it, or the command that fills it was stopped.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"the folder {folder} {'is a file' if folder.exists() else 'does not exist'}")
    check_finished(folder)
    files = _image_files(folder, folder)
    if not files:
        raise InputError(f"no images in {folder}; expected {_listed(SUFFIXES, len(SUFFIXES))} files in it")
    return tuple(files)


def _read_mvtec(root: Path, found: dict[str, Path], products: Sequence[str], defects: Sequence[str]) -> Dataset:
    """Shots and normals of product folders in MVTec's layout; found: product -> folder."""
    products = _check_wanted(products, found, "product", root)
    chosen = {product: folder for product, folder in found.items() if not products or product in products}
    kinds = {product: _mvtec_defects(folder, root) for product, folder in chosen.items()}
    defects = _check_wanted(defects, {name for names in kinds.values() for name in names}, "defect", root)
    shots, normals = {}, {}
    for product, folder in chosen.items():
        normals[product] = (_optional_images(folder, ("train", "good"), root)
                            or _optional_images(folder, ("test", "good"), root))  # fmt: skip
        for defect in kinds[product]:
            if defects and defect not in defects:
                continue
            images, masks = folder / "test" / defect, folder / "ground_truth" / defect
            if (files := _paired(product, defect, images, masks, root)):
                shots[product, defect] = files
    return _checked(Dataset(root, shots, normals), "test/DEFECT/ and their masks in ground_truth/DEFECT/")


def _mvtec_defects(folder: Path, root: Path) -> list[str]:
    """Defects that have a folder of images or of masks."""
    names = set()
    for part in ("test", "ground_truth"):
        if part in _folders(folder, root):
            names |= set(_folders(folder / part, root))
    return sorted(names - {"good"}, key=natural_key)


def _plain_parts(folder: Path, root: Path) -> tuple[Path, Path] | None:
    """The folders of images and of masks in a folder: itself twice where masks lie beside photos; None for others."""
    images, masks = (folder / name for name in PLAIN_FOLDERS)
    if {*PLAIN_FOLDERS} & set(_folders(folder, root)):
        return images, masks
    files = [entry for entry in _entries(folder, root) if entry.suffix.lower() in SUFFIXES]
    return (folder, folder) if _beside(files) else None


def _beside(files: Sequence[Path]) -> list[Path]:
    """The masks among files that lie beside photos: S_mask of the photo S."""
    stems, ends = set(map(_stem, files)), len(MASK_ENDING)
    return [file for file in files if (s := _stem(file)).lower().endswith(MASK_ENDING) and s[:-ends] in stems]


def _read_plain(root: Path, parts: tuple[Path, Path], products: Sequence[str], defects: Sequence[str]) -> Dataset:
    """Shots and normals of a folder with images and masks (`_plain_parts`): one product, one defect."""
    product = _name_of(root)
    _check_wanted(products, (product,), "product", root)
    if len(defects) > 1:
        raise InputError(f"{len(defects)} defects asked for ({_listed(defects)}), but {root} holds one; "
                         "name one, or give each defect a folder with images/ and masks/")  # fmt: skip
    defect = defects[0] if defects else DEFECT
    files = _paired(product, defect, *parts, root)
    shots = {(product, defect): files} if files else {}
    return _checked(Dataset(root, shots, {product: _normals(root)}), "images/ and their masks in masks/")


def _read_plain_defects(
    root: Path, found: dict[str, tuple[Path, Path]], products: Sequence[str], defects: Sequence[str]
) -> Dataset:
    """Shots and normals of a folder with one for each defect: one product; found: defect -> its `_plain_parts`."""
    product = _name_of(root)
    _check_wanted(products, (product,), "product", root)
    found = {name: parts for name, parts in found.items() if name.lower() not in NORMAL_FOLDERS}
    defects = _check_wanted(defects, found, "defect", root)
    shots = {}
    for defect, parts in found.items():
        if defects and defect not in defects:
            continue
        if (files := _paired(product, defect, *parts, root)):
            shots[product, defect] = files
    return _checked(Dataset(root, shots, {product: _normals(root)}), "DEFECT/images/ and their masks in DEFECT/masks/")


def _normals(root: Path) -> tuple[Path, ...]:
    """Normals of a plain folder, from the first of NORMAL_FOLDERS that holds any."""
    for name in NORMAL_FOLDERS:
        if (files := _optional_images(root, (name,), root)):
            return files
    return ()


def _paired(product: str, defect: str, images: Path, masks: Path, root: Path) -> tuple[Shot, ...]:
    """Match the images of one folder with the masks of another by stem, in natural order."""
    files = _image_files(images, root) if images.is_dir() else []
    if images == masks:
        mask_files = _beside(files)
        of_masks = set(mask_files)
        files = [file for file in files if file not in of_masks]
    elif masks.is_dir():
        mask_files = _image_files(masks, root)
    else:
        if not files:
            return ()
        raise InputError(f"no masks for the {len(files)} images in {images}: expected the folder {masks} with a mask "
                         f"for each, {files[0].stem}.png or {files[0].stem}{MASK_ENDING}.png")  # fmt: skip
    if not images.is_dir() and mask_files:
        raise InputError(f"no images for the {len(mask_files)} masks in {masks}: expected the folder {images}")
    by_stem = _by_stem(files)
    of_stem: dict[str, Path] = {}
    orphans = []
    for mask in mask_files:
        stem = _stem(mask)
        if stem not in by_stem and stem.lower().endswith(MASK_ENDING):
            stem = stem[: -len(MASK_ENDING)]
        if stem in of_stem:
            both = f"{of_stem[stem].name} and {mask.name}"
            raise InputError(f"two masks for the image {stem} in {masks}: {both}; keep one")
        if stem in by_stem:
            of_stem[stem] = mask
        else:
            orphans.append(mask.name)
    bare = [image.name for stem, image in by_stem.items() if stem not in of_stem]
    if bare:
        raise InputError(f"{len(bare)} of {len(files)} images in {images} have no mask in {masks}: {_listed(bare)}; "
                         f"expected one for each, of its name, or that and {MASK_ENDING}, of any suffix")  # fmt: skip
    if orphans:
        raise InputError(f"{len(orphans)} of {len(mask_files)} masks in {masks} have no image in {images}: "
                         f"{_listed(orphans)}; add the images or remove the masks")  # fmt: skip
    return tuple(Shot(product, defect, image, of_stem[stem]) for stem, image in by_stem.items())


def _by_stem(files: Iterable[Path]) -> dict[str, Path]:
    """Files by stem, order kept; InputError if two share one."""
    by_stem: dict[str, Path] = {}
    for file in files:
        stem = _stem(file)
        if stem in by_stem:
            other = by_stem[stem].name
            raise InputError(f"two images named {stem} in {file.parent}: {other} and {file.name}; rename one")
        by_stem[stem] = file
    return by_stem


def _stem(file: Path) -> str:
    """A file's stem, `composed`."""
    return composed(file.stem)


def _entries(folder: Path, root: Path) -> list[Path]:
    """What lies in a folder, junk left out, in natural order; InputError for links that leave the root or dangle."""
    try:
        listing = list(folder.iterdir())
    except OSError as error:
        raise InputError(f"the folder {folder} cannot be read: {error.strerror}") from error
    entries = []
    for entry in listing:
        if entry.name.startswith(".") or entry.name.lower() in JUNK:
            continue
        _check_link(entry, root)
        entries.append(entry)
    return sorted(entries, key=lambda entry: natural_key(entry.name))


def _check_link(entry: Path, root: Path) -> None:
    """Raise InputError if an entry is a link out of the root, or to nothing."""
    if not entry.is_symlink():
        return
    try:
        target = entry.resolve(strict=True)
    except (OSError, RuntimeError) as error:  # RuntimeError: a loop, before Python 3.13
        raise InputError(f"the link {entry} leads nowhere; restore what it points to or remove it") from error
    if not target.is_relative_to(root.resolve()):
        raise InputError(f"the link {entry} leads out of the data folder, to {target}; copy what it points to into "
                         f"{root}, or give the folder itself")  # fmt: skip


def _folders(folder: Path, root: Path) -> list[str]:
    """Names of the folders in a folder."""
    return [entry.name for entry in _entries(folder, root) if entry.is_dir()]


def _image_files(folder: Path, root: Path) -> list[Path]:
    """Image files in a folder; other files are named in a warning, notes aside."""
    files = [entry for entry in _entries(folder, root) if entry.is_file()]
    other = [file.name for file in files if file.suffix.lower() not in SUFFIXES | NOTES]
    if other:
        logger.warning("%s: passed over, no kind of image this reads: %s", folder, _listed(other))
    return [file for file in files if file.suffix.lower() in SUFFIXES]


def _optional_images(folder: Path, parts: Sequence[str], root: Path) -> tuple[Path, ...]:
    """Image files of folder/part/..., () if there is no such folder."""
    for part in parts:
        if part not in _folders(folder, root):
            return ()
        folder = folder / part
    return tuple(_image_files(folder, root))


def _name_of(root: Path) -> str:
    """A folder's own name, also of "." and of links."""
    return root.absolute().name if root.name not in ("", ".", "..") else root.resolve().name


def _check_wanted(wanted: Sequence[str], there: Iterable[str], what: str, root: Path) -> list[str]:
    """Return wanted names as folders spell them; raises InputError for one that is not there, saying what is."""
    names = sorted(there, key=natural_key)
    spelt = {composed(name): name for name in names}
    for name in wanted:
        if composed(name) not in spelt:
            raise InputError(f"no {what} {name!r} in {root}; there: {', '.join(names) or 'none'}")
    return [spelt[composed(name)] for name in wanted]


def _checked(dataset: Dataset, expected: str) -> Dataset:
    """The data set, if it holds any shot."""
    if not dataset.shots:
        raise InputError(f"no images of defects in {dataset.root}; expected image files in {expected}")
    return dataset


def _listed(names: Iterable[str], most: int = 5) -> str:
    return listed(sorted(names, key=natural_key), most)
