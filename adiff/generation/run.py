"""A run: thousands of pairs in a folder that any interruption leaves whole, made by any number of processes at once.

`files` says what the folder holds. The unit of work is an aligned batch (ids b*B .. b*B+B-1), redone whole, its
randomness a function of (run seed, batch) alone (`batch`), so any number of workers, in any order, killed at any
moment, end with the same files (`workers`).
"""

from __future__ import annotations

import json
import logging
import platform
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from ..backbone import Backbone
from ..embedding import embedding_fingerprint
from ..errors import InputError
from ..library import Key, Library, taught_by
from ..object_storage import ObjectRun
from ..pair_filter import AUTO, PairFilter
from ..progress import Cancelled, NullProgress, Progress
from ..run_record import FORMAT, Records, fits_of, given_up, read_broken, read_plan
from ..scoring import ShotReference
from ..spatial_encoder import SpatialEncoder
from ..spatial_encoder import fingerprint as encoder_fingerprint
from ..storage import LOCK, TEMPORARY, create_json
from ..versions import versions
from ..workers import CLAIMS, Claims, join_run
from .batch import Task
from .files import check_files, check_hope, kind_of, reopen_broken, several
from .guidance import check_shots
from .layers import Layer, check_folders
from .settings import GenerationSettings, idle
from .sources import FolderMasks, MaskSource
from .worker import POLL, Worker

logger = logging.getLogger("adiff")

References = Mapping[Key, ShotReference]
BEFORE = {"denoise": 1.0}
"""Settings that run.json of older versions does not tell, as they were then."""
FIT = "guidance"
"""Name of the claim on finding a run's guidance."""
TRIES = 4
"""Paintings of a pair that breaks a limit, unless told otherwise."""


@dataclass(frozen=True)
class RunResult:
    """out: the run's folder; pairs: records of all that exist; seconds: of this call; cancelled: stopped early.

    The records of a run are read when they are looked at (`Records`), so that memory does not grow with it.
    rejected: numbers of pairs whose tries are spent. broken: records of those that cannot be made (`files`).
    """

    out: Path
    pairs: Sequence[dict[str, Any]]
    seconds: float
    cancelled: bool = False
    rejected: list[int] = field(default_factory=list)
    broken: list[dict[str, Any]] = field(default_factory=list)


def generate_run(
    backbone: Backbone,
    library: Library,
    key: Key,
    encoder: SpatialEncoder | None,
    normals: Sequence[Path],
    masks: MaskSource,
    *,
    count: int,
    out: Path,
    also: Sequence[tuple[Key, MaskSource]] = (),
    settings: GenerationSettings | None = None,
    references: References | None = None,
    limits: PairFilter | None = None,
    tries: int = TRIES,
    fit: bool = False,
    seed: int = 0,
    command: str | None = None,
    shared: ObjectRun | None = None,
    progress: Progress | None = None,
) -> RunResult:
    """Fill `out` with `count` pairs of the library's defect `key`, (product, defect); what exists of the run is kept.

    Other processes may do the same at the same time, here or on other machines: they share the work, and each returns
    when the run is whole. also: further defects of the product that every image shows beside the first, each with its
    masks. references: the shots that pairs are compared with, as another network than the base model sees them
    (`features`), in place of what the library says of them. limits: what a pair must keep, each of several defects by
    itself; one that does not is painted again, `tries` times in all, and kept apart as a reject. fit: whether each
    defect is painted with the guidance that suits its shots (`guidance`), found when the run begins. command: what
    makes the run again, for run.json; it may be another one when the run goes on. shared: the place in object storage
    where the run lies; `out`, its local stand-in, then gets the records alone. A normal image that does not open costs
    its pairs, which are listed as broken, until it does and the run goes on; a mask that cannot be had costs its pair
    until its files are others. Ctrl-C or Cancelled ends the run with the pairs done so far. Raises InputError when
    `out` holds something else or a run of other settings or files (saying which), and when no pair at all has a mask.
    """
    settings, progress = settings or GenerationSettings(), progress or NullProgress()
    wanted = [(key, masks), *also]
    check_run(backbone, library, wanted, encoder, normals, count, limits, tries, references, fit)
    layers = _layers(library, backbone, wanted, references)
    filters = [limits.settled(layer.shots, "/".join(layer.key)) for layer in layers] if limits else []
    task = Task(backbone, layers, encoder, normals, settings, seed, count, filters, tries if filters else 1)
    told = {"shots": _alone([taught_by(library.defects[layer.key]) for layer in layers])}
    told |= {} if command is None else {"command": command}
    began = time.monotonic()
    with join_run(out):
        if shared is not None:
            shared.open()
        name = out if shared is None else shared.folder.url
        try:
            task = _begin(task, fit, out, shared, told, progress, name)
        except (Cancelled, KeyboardInterrupt):
            progress.finish()
            return RunResult(out, Records(out), time.monotonic() - began, True)
        check_files(out, count, task.tries, task.files_of, name)
        reopen_broken(out, task)
        if shared is not None:
            shared.forget_broken()
        check_hope(out, task)
        cancelled = False
        progress.start(count, "pairs {product}/{defect}".format(**kind_of(layers)))
        try:
            with _claims(out, shared) as claims:
                Worker(out, task, claims, progress, shared).work()
        except (Cancelled, KeyboardInterrupt):
            cancelled = True
        if shared is not None:
            shared.pull()  # what others have made
        progress.finish()
        rejected = sorted(given_up(out, task.tries))
        return RunResult(out, Records(out), time.monotonic() - began, cancelled, rejected, read_broken(out))


def _identity(task: Task) -> dict[str, Any]:
    """What makes a run this run, for run.json."""
    layers, base = task.layers, task.backbone
    limits = {"limits": _alone([one.record() for one in task.filters]), "tries": task.tries} if task.filters else None
    return {
        "format": FORMAT, **kind_of(layers), "count": task.count, "seed": task.seed,
        "settings": {**task.settings.record(), **_guidance(task)}, "filter": limits,
        "masks": _alone([layer.masks.record(base) for layer in layers]),
        "normals": [path.name for path in task.normals],
        "base": {"name": base.name, "fingerprint": base.fingerprint},
        "embedding": _alone([embedding_fingerprint(layer.embedding) for layer in layers]),
        "encoder": None if task.encoder is None else encoder_fingerprint(task.encoder), **several(layers),
        "likeness": _alone(seen) if any(seen := [layer.shots.record() for layer in layers]) else None,
    }  # fmt: skip


def _guidance(task: Task) -> dict[str, Any]:
    """The guidance of each layer in the place of the settings', where they have their own."""
    own = [layer.guidance for layer in task.layers]
    return {} if None in own else {"guidance": _alone(own)}


def _claims(out: Path, shared: ObjectRun | None) -> Claims:
    """This process's claims on a run's work."""
    return Claims(out) if shared is None else shared.claims()


def _begin(
    task: Task, fit: bool, out: Path, shared: ObjectRun | None, told: dict[str, Any], progress: Progress,
    name: Path | str,
) -> Task:  # fmt: skip
    """Write run.json, or check that the one there is of this run; the task, with the guidance found if it is to `fit`.

    Raises InputError as `_fitted` and `open_run` do.
    """
    with _claims(out, shared) as claims:  # on the fit, until run.json tells what was found
        if fit:
            task, told["guidance"] = _fitted(task, out, shared, claims, progress, name)
        identity = _identity(task)
        open_run(out, identity, task.backbone, told, name)
        if shared is not None and shared.publish():
            open_run(out, identity, task.backbone, told, name)
    return task


def _fitted(
    task: Task, out: Path, shared: ObjectRun | None, claims: Claims, progress: Progress, name: Path | str
) -> tuple[Task, Any]:
    """The task with the guidance that suits each layer's shots, and what run.json keeps of it.

    A run that was begun with one goes on with it. Of the processes that begin it one finds it, the others wait. Raises
    InputError, before anything is fitted, for a folder that holds something else, or a run with a guidance that was
    given.
    """
    found = _fitted_before(out, task) or _fitted_by_another(task, out, shared, claims, progress)
    if not found:
        asked = _identity(task)
        _check_place(out, asked | {"settings": asked["settings"] | {"guidance": AUTO}}, name)
        found = [one.record() for one in task.fits(progress)]
        if shared is not None:
            shared.open()
        found = _fitted_before(out, task) or found  # its claim was taken over: the machine was asleep
    layers = [replace(layer, guidance=one["value"]) for layer, one in zip(task.layers, found, strict=True)]
    return replace(task, layers=layers), _alone(found)


def _fitted_by_another(
    task: Task, out: Path, shared: ObjectRun | None, claims: Claims, progress: Progress
) -> list[dict[str, Any]]:
    """Wait for the process that is fitting, if one is: what it has found, nothing if this one is to fit, by its claim.

    That one may have ended without a result, or been killed.
    """
    is_told = False
    while True:
        is_mine = claims.take(FIT)
        if shared is not None:
            shared.open()
        found = _fitted_before(out, task)
        if is_mine or found:
            break
        if not is_told:
            progress.start(1, "guidance {product}/{defect}, in another process".format(**kind_of(task.layers)))
            is_told = True
        progress.update(0)
        time.sleep(POLL)
    if is_told:
        progress.update(1 if found else 0)
        progress.finish()
    return found


def _fitted_before(out: Path, task: Task) -> list[dict[str, Any]]:
    """What run.json says of the fit; nothing before the run, and for one without, or with other defects."""
    found = fits_of(read_plan(out)) if (out / "run.json").exists() else []
    return found if len(found) == len(task.layers) else []


def check_run(
    backbone: Backbone,
    library: Library,
    wanted: Sequence[tuple[Key, MaskSource]],
    encoder: SpatialEncoder | None,
    normals: Sequence[Path],
    count: int,
    limits: PairFilter | None = None,
    tries: int = TRIES,
    references: References | None = None,
    fit: bool = False,
) -> None:
    """Raise InputError for what would stop `generate_run` later on, so that nothing old is removed for it.

    wanted: the defects that every image shows, each with its masks; files of masks are read, photos are not.
    """
    for (product, defect), _ in wanted:
        if library.get(f"{product}/{defect}").anomaly is None:
            raise InputError(
                f"{product}/{defect} has no anomaly embedding; train it with `--what defects` or `--what both`"
            )
    own = wanted[0][0][0]
    if others := [key for key, _ in wanted if key[0] != own]:
        raise InputError(f"{'/'.join(others[0])} is not a defect of {own}; one image shows defects of one product")
    if not normals or count < 1:
        raise InputError(f"{len(normals)} normal photos for {count} pairs; give at least one of each")
    if encoder is not None and encoder.dim != backbone.context_dim:
        raise InputError(
            f"the spatial encoder's tokens are {encoder.dim} wide, the context of base {backbone.name!r} "
            f"{backbone.context_dim}; give the encoder that was learned with the library"
        )
    sources = [masks for _, masks in wanted]
    check_folders(sources)
    for source in sources:
        if isinstance(source, FolderMasks):
            source.check(count, normals)
    if tries < 1:
        raise InputError(f"{tries} tries for each pair; give at least 1")
    for layer in _layers(library, backbone, wanted, references):
        name = "/".join(layer.key)
        if limits:
            limits.settled(layer.shots, name)
        if fit:
            check_shots(layer.shots, name)


def _layers(
    library: Library, backbone: Backbone, wanted: Sequence[tuple[Key, MaskSource]], references: References | None
) -> list[Layer]:
    """The run's defects, in the order in which they are painted."""
    shots = references_of(library, [key for key, _ in wanted], backbone, references)
    return [Layer(key, library.defects[key].anomaly, masks, of_key)
            for (key, masks), of_key in zip(wanted, shots, strict=True)]  # fmt: skip


def references_of(
    library: Library, keys: Sequence[Key], backbone: Backbone, references: References | None = None
) -> list[ShotReference]:
    """What the pairs of each defect are compared with; references: as for `generate_run`."""
    return [(references or {}).get(key) or ShotReference.of(library, key, backbone) for key in keys]


def _alone(values: list[Any]) -> Any:
    """The value of a single defect itself, of several the list."""
    return values[0] if len(values) == 1 else values


def open_run(
    out: Path, identity: dict[str, Any], backbone: Backbone | None, told: Mapping[str, Any],
    name: Path | str | None = None,
) -> None:  # fmt: skip
    """Make the run's folder, with what is `told` of the run besides, or check that the one there is this run.

    backbone: what paints it, None for a run that is pasted. name: what to call the folder, if it is the stand-in of
    another.
    """
    name = name or out
    environment = {**versions(), "python": platform.python_version()}
    if backbone is not None:
        environment |= {
            "device": backbone.device.type, "dtype": str(backbone.dtype), "threads": torch.get_num_threads()
        }  # fmt: skip
    there = _check_place(out, identity, name)
    if there is None:
        if create_json(out / "run.json", {**identity, **told, "environment": environment}):
            return
        there = _check_place(out, identity, name)
    begun = there.get("environment")
    if changed := _differences(environment, begun if isinstance(begun, dict) else {}):
        logger.warning(
            "%s was begun elsewhere (%s): pairs may differ from an unbroken run's by 2 grey levels, by more in another "
            "dtype", name, "; ".join(changed),
        )  # fmt: skip


def _check_place(out: Path, identity: dict[str, Any], name: Path | str) -> dict[str, Any] | None:
    """What run.json says of this run, None before it is begun; InputError for a folder that holds something else."""
    if not (out / "run.json").exists():
        if out.exists() and not out.is_dir():
            raise InputError(f"{out} is a file; choose a new or empty folder")
        if out.exists() and any(_is_foreign(path.name) for path in out.iterdir()):
            raise InputError(f"{out} is not empty and holds no run; choose a new or empty folder")
        return None
    there = read_plan(out)
    asked = json.loads(json.dumps(identity))  # as it is read: a pair of numbers is a list there
    settings = asked["settings"]
    for unused in idle(settings.get("reweighting"), settings.get("distance")):
        settings.pop(unused, None)  # no pair depends on it; older versions took any
    if other := _differences(asked, there):
        remedy = "choose another folder or --restart"
        if [one.split()[0] for one in other] == ["count"]:
            remedy = "choose another folder, and another seed for other pairs, or --restart"
        raise InputError(f"{name} holds another run ({'; '.join(other)}); {remedy}")
    return there


def _is_foreign(name: str) -> bool:
    """Whether a file in a folder without run.json is not of processes that are just beginning the run."""
    return name not in (LOCK, CLAIMS, "run.json") and TEMPORARY.fullmatch(name) is None


def _differences(asked: dict[str, Any], there: dict[str, Any], under: str = "") -> list[str]:
    """Name what differs from a run's record: settings one by one, with both values where they are short."""
    found = []
    for name, value in asked.items():
        value, other = _by_name(value), _by_name(there.get(name, BEFORE.get(name)))
        if isinstance(value, dict) and isinstance(other, dict):
            found += _differences(value, other, f"{under}{name}.")
        elif value != other:
            both = f" {other}, now {value}"
            found.append(f"{under}{name}{both if len(both) < 60 else ' differs'}")
    return found


def _by_name(value: Any) -> Any:
    """A list of tables, one for each of several defects, as a table by their places; anything else as it is."""
    if isinstance(value, list) and value and all(isinstance(one, dict) for one in value):
        return {str(place): one for place, one in enumerate(value)}
    return value
