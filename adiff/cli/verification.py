"""What `adiff run verify` finds: every pair of a run is opened, and compared with its record and its normal image."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InputError
from ..run_record import ENDINGS, record_paths
from ..storage import read_json_object, short_digest
from .progress import CliProgress

if TYPE_CHECKING:
    import numpy as np

    from .runs import Plan

FOLDERS = ("image", "mask", "pairs")


@dataclass
class Findings:
    """pairs: records that were looked at; wrong: what must not be; notes: what is worth knowing."""

    pairs: int = 0
    wrong: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def check_run(folder: Path, plan: Plan, normals: dict[str, Path] | None, progress: CliProgress) -> Findings:
    """Open every pair that a record stands for. normals: name -> file, or None to leave the leak unchecked."""
    found, records = Findings(), record_paths(folder)
    normals = None if plan.is_dual else normals
    progress.start(len(records), "checking pairs")
    for done, path in enumerate(records):
        faults = _faults(folder, path, plan, normals)
        if os.path.lexists(path):  # else it was taken out meanwhile, and its pictures with it
            found.wrong += [f"{path.stem}: {fault}" for fault in faults]
            found.pairs += 1
        progress.update(done + 1)
    progress.finish()
    found.notes = _leftovers(folder, {path.stem for path in records})
    if plan.is_dual:
        found.notes.append("its images are a dual model's, whole ones: there is nothing to compare them with")
    elif normals is None and records:
        found.notes.append("what lies outside the masks was not compared; --normals DIR does")
    return found


def _faults(folder: Path, path: Path, plan: Plan, normals: dict[str, Path] | None) -> list[str]:
    """What is wrong with one pair."""
    try:
        record = read_json_object(path)
    except OSError as error:
        return [f"its record cannot be read: {error.strerror}"]
    except InputError as error:
        return [str(error)]
    faults = []
    if int(path.stem) >= plan.count:
        faults.append(f"the run wants {plan.count} pairs only")
    told = {name: record.get(name) for name in ("id", "product", "defect")}
    due = {"id": path.stem, "product": plan.product, "defect": plan.defect}
    faults += [f"its record's {n} is {str(told[n])[:40]!r}, expected {due[n]!r}" for n in due if told[n] != due[n]]
    image = _picture(folder, f"image/{path.stem}.png", faults)
    mask = _picture(folder, f"mask/{path.stem}_mask.png", faults)
    of_mask = [] if mask is None else _mask_faults(mask)
    faults += of_mask
    several = record.get("defects")
    if isinstance(several, list):
        labels = _picture(folder, f"mask/{path.stem}_labels.png", faults)
        if labels is not None and mask is not None and not of_mask:
            faults += _label_faults(labels, mask, len(several))
    if image is None or mask is None:
        return faults
    if image.shape[:2] != mask.shape[:2]:
        return [*faults, f"its image is {_size(image)} pixels, its mask {_size(mask)}"]
    if normals is None or of_mask:
        return faults
    if (folder / "mask" / f"{path.stem}_asked.png").exists():  # a refined mask is part of the one that was painted
        asked = _picture(folder, f"mask/{path.stem}_asked.png", faults)
        if asked is None or asked.shape != mask.shape or ((mask > 0) & (asked == 0)).any():
            return [*faults, "its mask is no part of the one that was painted"]
        mask = asked
    return faults + _leak_faults(image, mask > 0, record, normals)


def _picture(folder: Path, name: str, faults: list[str]) -> np.ndarray | None:
    """The pixels of a run's file, or None, and why is among the faults."""
    from ..datasets.images import read_photo

    if not (folder / name).is_file():
        faults.append(f"{name} is missing")
        return None
    try:
        return read_photo(folder / name).pixels
    except InputError as error:
        faults.append(str(error))
        return None


def _label_faults(labels: np.ndarray, mask: np.ndarray, count: int) -> list[str]:
    """Several defects in one image: every pixel of the mask, and no other, has one of their numbers."""
    if labels.shape != mask.shape or ((labels > 0) != (mask > 0)).any():
        return ["its labels mark other pixels than its mask"]
    missing = sorted(set(range(1, count + 1)) ^ set(labels[labels > 0].tolist()))
    return [f"its labels are not those of {count} defects: {missing[0]} is too many or missing"] if missing else []


def _mask_faults(mask: np.ndarray) -> list[str]:
    if mask.ndim != 2 or mask.dtype != "uint8":
        return [f"its mask has pixels {mask.shape[2:]} of {mask.dtype}, expected 8-bit grey"]
    if not mask.any():
        return ["its mask is empty"]
    between = (mask != 0) & (mask != 255)
    return [f"its mask has {int(between.sum())} pixels that are neither 0 nor 255"] if between.any() else []


def _leak_faults(image: np.ndarray, mask: np.ndarray, record: dict[str, Any], normals: dict[str, Path]) -> list[str]:
    """Compare with the normal image outside the mask, in the files' own pixels."""
    from ..datasets.images import read_photo
    from ..scoring import leak

    name = record.get("normal")
    if not isinstance(name, str) or name not in normals:
        return [f"its normal image {str(name)[:80]!r} is not among those given"]
    try:
        normal = read_photo(normals[name]).pixels
    except InputError as error:
        return [str(error)]
    told = record.get("files")
    changed = isinstance(told, list) and told and told[0] not in (None, short_digest(normals[name]))
    why = "; the file has changed since it was painted" if changed else ""
    if normal.shape != image.shape or normal.dtype != image.dtype:
        return [f"it is {image.shape} {image.dtype}, its normal image {name} {normal.shape} {normal.dtype}{why}"]
    levels = leak(image, normal, mask)
    return [f"it differs from {name} by up to {levels} levels outside its mask{why}"] if levels else []


def _leftovers(folder: Path, known: set[str]) -> list[str]:
    """Temporary files, and pictures that no record stands for: a killed run leaves them, the next one replaces them."""
    places = [folder, *(folder / name for name in FOLDERS)]
    files = [path for place in places if place.is_dir() for path in sorted(place.iterdir())]
    notes = [f"{p.relative_to(folder).as_posix()} is a temporary file of an interrupted write; it may be removed"
             for p in files if p.name.endswith(".tmp")]  # fmt: skip
    pictures = [p for p in files if p.suffix == ".png" and p.parent != folder]
    notes += [f"{p.relative_to(folder).as_posix()} belongs to no finished pair" for p in pictures
              if not any(p.stem.removesuffix(ending) in known for ending in ENDINGS)]  # fmt: skip
    return notes


def _size(pixels: np.ndarray) -> str:
    return f"{pixels.shape[1]} x {pixels.shape[0]}"
