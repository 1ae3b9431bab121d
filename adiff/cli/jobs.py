"""What `adiff generate` is to make: each run's defects, masks and normal images, opened and checked before anything."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ..errors import InputError
from ..storage import composed, read_json_object
from .begun import encoder_beside
from .destination import Destination
from .masks import RECORD, check_has_masks, shot_masks_of
from .normals import normals_of
from .objects import OnObject

if TYPE_CHECKING:
    from ..generation import MaskSource
    from ..library import Defect, Key, Library
    from ..spatial_encoder import SpatialEncoder

SourceOf = Callable[..., "MaskSource"]
"""`mask_source` of a defect, the files of its masks or None, and the normal images."""


class Job(NamedTuple):
    """One run: the defects that each of its images shows, their masks, the normal images, the folder."""

    entries: list[Defect]
    masks: list[MaskSource]
    normals: list[Path]
    out: Path

    @property
    def name(self) -> str:
        return " and ".join(entry.name for entry in self.entries)

    @property
    def keys(self) -> list[Key]:
        return [entry.key for entry in self.entries]

    @property
    def wanted(self) -> list[tuple[Key, MaskSource]]:
        return [(entry.key, masks) for entry, masks in zip(self.entries, self.masks, strict=True)]


class Given(NamedTuple):
    """The command's input, opened. lost: name -> reason of runs that cannot be made, with --all."""

    library: Library
    jobs: list[Job]
    encoder: SpatialEncoder | None
    lost: dict[str, str]

    @property
    def runs(self) -> int:
        return len(self.jobs) + len(self.lost)

    @property
    def keys(self) -> list[Key]:
        return [key for job in self.jobs for key in job.keys]

    def checked(self, check: Callable[[Job], None]) -> Given:
        """The same with those jobs alone that pass; InputError, of the first that does not, if none does.

        With --all each of the others costs itself alone, and is told before the work on the rest begins.
        """
        kept, lost = [], dict(self.lost)
        for job in self.jobs:
            try:
                check(job)
                kept.append(job)
            except InputError as error:
                if self.runs == 1:
                    raise
                lost[job.name] = str(error)
        return self._replace(jobs=kept, lost=lost).with_some()

    def with_some(self) -> Given:
        """Itself; InputError, of the first that is lost, if there is no job."""
        if not self.jobs:
            raise InputError(": ".join(next(iter(self.lost.items()))))
        return self


def read_jobs(
    path: Path, defects: Sequence[str], normals: Path, masks: Sequence[Path], source: SourceOf, on: OnObject,
    encoder: Path | None, place: Destination,
) -> Given:  # fmt: skip
    """Open and check everything but the base model; raises InputError or FileNotFoundError. No defects: all.

    source: `mask_source`, with what was chosen of it. on: whether and how they are placed.
    """
    from ..datasets.readers import list_images
    from ..library import load_library

    library, lost = load_library(path), {}
    if defects:
        entries = [library.get(name) for name in defects]
        files = [list_images(folder) for folder in masks] or [None] * len(entries)
        jobs = [_job(entries, files, source, on, normals, place.folder)]
    else:
        jobs = []
        for entry, folder in _folders(library, place):
            try:
                jobs.append(_job([entry], [None], source, on, normals, folder))
            except InputError as error:
                lost[entry.name] = str(error)
    given = Given(library, jobs, None, lost).with_some()
    return given._replace(encoder=read_encoder(path, library, jobs[0].name, encoder))


def _folders(library: Library, place: Destination) -> list[tuple[Defect, Path]]:
    """Each defect of a library with the folder of its run, out/<product>-<defect>."""
    if not library.defects:
        raise InputError("the library holds no defects; `adiff train` adds some")
    if place.folder.is_file() or place.holds_run:
        what = "a file" if place.folder.is_file() else "the folder of one run"
        raise InputError(f"{place.told} is {what}; --all makes a run for each defect, give a folder for them")
    folders: dict[Path, Defect] = {}
    for entry in library.defects.values():
        other = folders.setdefault(place.folder / "-".join(entry.key), entry)
        if other is not entry:
            raise InputError(
                f"the runs of {other.name} and {entry.name} would share the folder {'-'.join(entry.key)}; "
                "rename one with `adiff library rename`"
            )
    return [(entry, folder) for folder, entry in folders.items()]


def _job(
    entries: list[Defect], files: Sequence[Sequence[Path] | None], source: SourceOf, on: OnObject, normals: Path,
    out: Path,
) -> Job:  # fmt: skip
    """One run; files: the masks of each defect, None for learned ones."""
    for entry in entries:
        if entry.anomaly is None:
            raise InputError(f"the appearance of {entry.name} was not learned; `adiff train --what defects` adds it")
    paths = normals_of(entries[0].product, normals)
    sources = [
        on.source(source(entry, of_entry, paths), entry, paths)
        for entry, of_entry in zip(entries, files, strict=True)
    ]
    return Job(entries, sources, paths, out)


def read_encoder(path: Path, library: Library, name: str, given: Path | None) -> SpatialEncoder | None:
    """The spatial encoder that a defect was learned with: the one given, beside the library, or the demo's own.

    Beside it also those of other libraries are looked through: a merged library, or a part of one, has theirs.
    """
    from ..backbone import demo_encoder_path
    from ..library import check_encoder
    from ..spatial_encoder import load_encoder

    if given is not None:
        network, about = load_encoder(given)
        check_encoder(library, about["fingerprint"])
        return network
    wanted = library.encoder_fingerprint
    if wanted is None:
        return None
    own = encoder_beside(path)
    others = sorted(path.parent.glob(encoder_beside(path.with_stem("*")).name))
    for place in dict.fromkeys([own, path.with_name("encoder.safetensors"), demo_encoder_path(), *others]):
        try:
            network, about = load_encoder(place)
        except FileNotFoundError:
            continue
        except InputError:
            if place == own:
                raise
            continue  # what is not this library's does not stop it
        if about["fingerprint"] == wanted:
            return network
    raise InputError(
        f"{name} was learned with encoder {wanted[:8]}, which is not beside the library, as {own.name} or another "
        "library's; give it with --encoder"
    )


def mask_source(
    entry: Defect, files: Sequence[Path] | None = None, normals: Sequence[Path] = (), vary: bool = False,
    by_name: bool = False, **sampling: Any,
) -> MaskSource:  # fmt: skip
    """Masks from the files of a folder, the shots' own, varied, or sampled from the learned ones within their range.

    by_name: files belong on the normal images of their names. sampling: of `generation.MaskSampling`.
    """
    from ..generation import FolderMasks, LearnedMasks, MaskSampling, ShotMasks
    from ..masks import MaskRules

    if files is not None:
        about = recorded(files[0].parent)
        named = of_their_names(files, normals) if by_name else placed_on(files, normals, about)
        return FolderMasks(files, named, square=are_models_own(files, about))
    if vary:
        return ShotMasks(shot_masks_of(entry))
    check_has_masks(entry)
    shots = list(entry.shot_masks)
    return LearnedMasks(entry.mask, MaskRules.from_shots(shots), shots, MaskSampling(**sampling))


def of_their_names(files: Sequence[Path], normals: Sequence[Path]) -> list[str]:
    """The name of the normal image that each mask is called after, S or S_mask; InputError for a mask that is not."""
    from ..datasets.readers import MASK_ENDING

    own = {composed(path.stem): path.name for path in normals}
    if len(own) < len(normals):
        twins = [path.name for path in normals if own[composed(path.stem)] != path.name]
        raise InputError(f"{normals[0].parent} holds {twins[0]} and another image of that name; --by-name needs one")
    names = []
    for path in files:
        stem = composed(path.stem)
        bare = stem[: -len(MASK_ENDING)] if stem.lower().endswith(MASK_ENDING) else stem
        names.append(own.get(stem, own.get(bare)))
    if None in names:
        raise InputError(
            f"mask {files[names.index(None)]} has the name of no normal image in {normals[0].parent}; call it as its "
            f"image, or that and {MASK_ENDING}, or leave --by-name out to use the masks on any of them"
        )
    return names


def placed_on(
    files: Sequence[Path], normals: Sequence[Path], about: Mapping[str, dict[str, Any]]
) -> list[str | None]:  # fmt: skip
    """The name of the normal image that each mask of a folder was placed on, [] for none; about: as `recorded`.

    One that was placed on a foreground of the user's belongs on the normal image of the same stem, unless none of them
    has one.
    """
    named, grounds = (
        [name if isinstance(name := about.get(path.name, {}).get(key), str) else None for path in files]
        for key in ("normal", "foreground")
    )
    if any(named):
        return named
    own = {path.stem: path.name for path in normals}
    if not any(ground and Path(ground).stem in own for ground in grounds):
        return []
    return [ground and own.get(Path(ground).stem, ground) for ground in grounds]


def are_models_own(files: Sequence[Path], about: Mapping[str, dict[str, Any]]) -> bool:
    """Whether all masks of a folder are such as `adiff masks` made, and placed on nothing; about: as `recorded`."""
    return all(path.name in about and "foreground" not in about[path.name] for path in files)


def recorded(folder: Path) -> dict[str, dict[str, Any]]:
    """What `adiff masks` recorded of each mask of a folder, by file.

    Raises InputError for a damaged record, and for one of masks that are not all there.
    """
    record = folder / RECORD
    if not record.is_file():
        return {}
    content = read_json_object(record, "remove it to use the masks beside it on any normal image")
    if content.get("finished") is False:
        raise InputError(f"{folder} lacks masks: `adiff masks` was interrupted there; give that command again")
    told = content.get("masks")
    return {str(one.get("file")): one for one in told if isinstance(one, dict)} if isinstance(told, list) else {}
