"""`adiff train`: from a folder of photos and masks to a library of learned defects."""

from __future__ import annotations

import io
import logging
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, redirect_stderr, redirect_stdout
from dataclasses import replace
from enum import Enum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from ..errors import InputError
from ..storage import clear_folder, remove_leftovers, run_lock, write_whole
from . import options
from .app import keeping
from .options import Base, Data, Loras, Precision, PrecisionName, Resume, Seed, What, of_model, of_training, parse_loras
from .progress import CliProgress

if TYPE_CHECKING:
    from ..backbone import Backbone
    from ..learning import Shots
    from ..library import Defect, Key, Library
    from ..spatial_encoder import SpatialEncoder


ANOMALIES, MASKS = "anomalies.safetensors", "masks.safetensors"
STATES = {ANOMALIES: "anomaly", MASKS: "mask"}
"""Files of a state's folder, and what each learns of a defect."""
ANEW = "restarted"
"""File in a state's folder that says that the training began anew, and that the library there is still the old one."""
ASIDE = "previous"
"""File there that says that the library was put aside as it was before this training."""


class Timesteps(str, Enum):
    """How noise levels are drawn and weighted (`training.LAWS`)."""

    uniform = "uniform"
    min_snr = "min-snr"
    shifted = "shifted"


class Normalisation(str, Enum):
    """What a sample's masked loss is divided by (`training.NORMALISATIONS`)."""

    area = "area"
    release = "release"


def train(
    data: Data,
    out: Annotated[Path, typer.Option("--out", metavar="LIB", help="Library to write, or to add to.")],
    product: Annotated[
        list[str] | None,
        typer.Option("--product", metavar="P", help="Product, once for each.  [dim]default: all[/dim]"),
    ] = None,
    defect: Annotated[
        list[str] | None,
        typer.Option("--defect", metavar="D", help="Defect, once for each.  [dim]default: all[/dim]"),
    ] = None,
    what: Annotated[What, typer.Option("--what", help="Appearances, masks, or both.")] = What.both,
    shots: options.Shots = None,
    base: Base = "demo",
    lora: Loras = None,
    precision: PrecisionName = Precision.auto,
    compiled: Annotated[
        bool,
        of_training("--compile", help="Compile the training steps with torch.compile: minutes at first, for long "
                    "trainings."),
    ] = False,
    encoder: Annotated[
        Path | None,
        of_model("--encoder", metavar="ENC", help="Spatial encoder to write; to read with --freeze-encoder.  "
                 "[dim]default: the demo's, frozen; for other bases LIB.encoder.safetensors[/dim]"),
    ] = None,
    freeze_encoder: Annotated[bool, of_model("--freeze-encoder", help="Read ENC and leave it as it is.")] = False,
    steps: Annotated[
        int | None,
        of_training("--steps", min=1, help="Training steps of each kind.  [dim]default: the method's; more of them "
                    "for more than 4 defects together[/dim]"),
    ] = None,
    batch: Annotated[
        int | None,
        of_training("--batch", min=1, help="Samples a step, over all defects.  [dim]default: the method's[/dim]"),
    ] = None,
    timesteps: Annotated[
        Timesteps, of_training("--timesteps", help="How noise levels are drawn and weighted.")
    ] = Timesteps.uniform,
    normalisation: Annotated[
        Normalisation, of_training("--normalisation", help="Loss over the mask's area, or over all cells.")
    ] = Normalisation.area,
    early_stop: Annotated[
        bool,
        of_training("--early-stop/--no-early-stop", help="Where every defect has 4 or more shots, learn nothing from "
                    "the last of each and stop when its loss falls no more; keep the best state."),
    ] = True,
    seed: Seed = 0,
    resume: Resume = True,
) -> None:
    """Learn defects from a few photos of them with their masks.

    Each shot is drawn and encoded in 16 augmented views, once, before the first step.
    """
    from ..datasets.readers import read_dataset
    from ..learning import check_finite, open_shots
    from ..library import KIND
    from ..tensor_files import check_replaced

    _check_paths(out, encoder, freeze_encoder, resume, base)
    if not resume:
        check_replaced(out, KIND, "library")
    given = {"steps": steps, "batch": batch, "timesteps": timesteps.value, "early_stop": early_stop}
    chosen = {name: value for name, value in given.items() if value is not None}
    from ..training.processes import is_first, joined

    with joined() as device, nullcontext() if is_first() else _silence():
        opened = open_shots(read_dataset(data, product or (), defect or ()), shots)
        from ..backbone import load_backbone  # after the input is known to be sound: this takes seconds

        backbone = load_backbone(base, device, precision.value, parse_loras(lora), compiled)
        with run_lock(state_folder(out)) if is_first() else nullcontext():
            with CliProgress() as progress:
                task = _Task(out, backbone, opened, chosen, normalisation.value, seed, progress)
                library, todo = _work(task, what, encoder, freeze_encoder, resume)
            if is_first() and any(todo):
                _discard_learned(state_folder(out), library, todo)
        if any(todo):
            _say_what_was_learned(out, library, todo)
    check_finite({key: library.defects[key] for key in todo.anomalies + todo.masks})


class _Todo(NamedTuple):
    """Entries that still want an anomaly embedding, and those that want a mask embedding."""

    anomalies: list[Key]
    masks: list[Key]


class _Task(NamedTuple):
    out: Path
    backbone: Backbone
    shots: dict[Key, Shots]
    chosen: dict[str, Any]  # settings of both kinds of training
    normalisation: str
    seed: int
    progress: CliProgress


def state_folder(out: Path) -> Path:
    """Where an interrupted training's state lies: beside the library."""
    return out.with_name(f"{out.name}.state")


def begin_anew(folder: Path) -> None:
    """Empty a state's folder for a training that begins anew, and note that it does: the old file is still there."""
    clear_folder(folder, ASIDE)
    (folder / ANEW).touch()


def is_anew(folder: Path) -> bool:
    """Whether the training whose state lies in a folder began anew, whatever its old file holds."""
    return (folder / ANEW).exists()


def _previous(out: Path) -> Path:
    """Where a library is kept as it was before the training that changes it."""
    return out.with_suffix(f".previous{out.suffix}")


def _put_aside(out: Path, encoder: Path | None) -> None:
    """Copy a library, and the encoder that is to be learned anew with it, to where they are kept as they were, once."""
    mark = state_folder(out) / ASIDE
    if mark.exists() or not out.exists():
        return
    for file, copy in ((out, _previous(out)), (encoder, encoder_beside(_previous(out)))):
        if file is not None and file.exists():
            write_whole(copy, partial(shutil.copy2, file))
    mark.touch()
    typer.echo(f"{out} as it was before is kept in {_previous(out)}")


def encoder_beside(library: Path) -> Path:
    """Where a library's own spatial encoder lies unless told otherwise."""
    return library.with_suffix(f".encoder{library.suffix}")


def _work(task: _Task, what: What, encoder: Path | None, freeze: bool, resume: bool) -> tuple[Library, _Todo]:
    """Learn and write what is not there yet; of several processes the first one writes."""
    from ..training.processes import is_first, wait_for_all

    out, folder = task.out, state_folder(task.out)
    own = encoder or encoder_beside(out)
    if is_first():
        remove_leftovers(out, _previous(out), own)  # of the same command, killed
    library = _begin(task, resume)
    wait_for_all()  # until --restart has cleared the state that the others would go on from
    todo = _missing(library, task.shots, what, task.backbone)
    if not any(todo):
        if is_first():
            _discard_learned(folder, library, todo)
        typer.echo(f"{out} holds all of it already; --restart learns it again")
        return library, todo
    _say_what_is_learned({key: task.shots[key] for key in dict.fromkeys(todo.anomalies + todo.masks)})
    if is_first():
        _put_aside(out, own if todo.anomalies and not freeze else None)
    with keeping(partial(_left, out)):
        return _learn(task, library, todo, encoder, freeze), todo


def _left(out: Path) -> str:
    """What an interrupted training has left to go on from; a library that it was to replace is not of it."""
    folder = state_folder(out)
    learned = [out] if out.exists() and not is_anew(folder) else []
    learned += [folder] if any((folder / state).exists() for state in STATES) else []
    return what_is_left(learned)


def what_is_left(learned: Sequence[Path]) -> str:
    """What an interrupted training says of the files that hold what it has learned."""
    if not learned:
        return "nothing is learned yet; the same command begins again"
    return f"what is learned is in {' and '.join(map(str, learned))}; the same command without --restart goes on"


def _discard_learned(folder: Path, library: Library, todo: _Todo) -> None:
    """Remove the states of what was learned now and of what the library holds; with the last one goes all else there.

    Those of other defects, or of the other part, wait for the command that left them.
    """
    from ..training.loop import discard_state
    from ..training.state import names_in

    for (state, part), now in zip(STATES.items(), todo, strict=True):
        learned = names_in(folder / state)
        stored = {e.name for e in library.defects.values() if getattr(e, part) is not None}
        if now or (learned and learned <= stored):
            discard_state(folder / state)
    if not any((folder / state).exists() for state in STATES):
        clear_folder(folder)


@contextmanager
def _silence() -> Iterator[None]:
    """Say nothing for a while, on the terminal or in the log; errors are said when it is over."""
    log = logging.getLogger("adiff")
    before = log.level
    log.setLevel(logging.CRITICAL + 1)
    try:
        with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            yield
    finally:
        log.setLevel(before)


def _check_paths(out: Path, encoder: Path | None, freeze_encoder: bool, resume: bool, base: str) -> None:
    from ..spatial_encoder import KIND
    from ..tensor_files import check_replaced

    if out.suffix != ".safetensors":
        raise InputError(f"--out {out} has to end in .safetensors")
    if freeze_encoder and encoder is not None and not encoder.is_file():
        raise InputError(f"--freeze-encoder reads an encoder, but there is none at {encoder}")
    interrupted = resume and state_folder(out).exists()
    if encoder is not None and not freeze_encoder and encoder.exists() and resume and not interrupted:
        raise InputError(f"{encoder} exists; --freeze-encoder uses it, --restart learns a new one in its place")
    own = encoder or encoder_beside(out)
    if own.resolve() == out.resolve():
        raise InputError(f"--encoder and --out are both {out}; give each a file of its own")
    if freeze_encoder or (encoder is None and base == "demo") or not own.exists():
        return
    if not resume:
        check_replaced(own, KIND, "spatial encoder")
    elif not interrupted and not out.exists():
        raise InputError(
            f"{own} is the encoder of a library that is not at {out} any more, and would be lost; give another --out, "
            f"--encoder {own} --freeze-encoder to learn with it, or --restart to replace it"
        )


def _begin(task: _Task, resume: bool) -> Library:
    """The library to add to; with --restart, and until that has ended, an empty one: the old file is put aside."""
    from ..learning import open_library
    from ..training.processes import is_first
    from ..training.state import names_in

    out, folder = task.out, state_folder(task.out)
    if not resume and is_first():
        begin_anew(folder)
    asked = {"/".join(key) for key in task.shots}
    anew = not resume or (is_anew(folder) and any(asked & names_in(folder / state) for state in STATES))
    return open_library(out.with_name(f".{out.name}.none") if anew else out, task.backbone)


def _missing(library: Library, opened: dict[Key, Shots], what: What, backbone: Backbone) -> _Todo:
    """What the library does not hold yet; says what it does. InputError if an entry came from other shots."""
    from ..learning import changed_shots
    from ..library_edit import record_of

    for key, shots in opened.items():
        entry = library.defects.get(key)
        if entry is not None and record_of(entry).get("shots", list(shots.files)) != list(shots.files):
            raise InputError(
                f"the library's {entry.name} was learned from {', '.join(entry.info['shots'])}; "
                "ask for the same shots, another --out, or --restart"
            )
        changed = [] if entry is None else changed_shots(entry, shots)
        if changed:
            raise InputError(
                f"{', '.join(changed)} changed since the library's {entry.name} was learned from it; put back what was "
                "there, or give another --out, or --restart"
            )
    known = {key: library.defects.get(key) for key in opened}
    anomalies = [key for key, entry in known.items() if entry is None or entry.anomaly is None]
    masks = [key for key, entry in known.items() if entry is None or entry.mask is None]
    todo = _Todo([] if what is What.masks else anomalies, [] if what is What.defects else masks)
    kept = [entry.name for key, entry in known.items() if entry is not None and key not in todo.anomalies + todo.masks]
    if kept and any(todo):
        typer.echo(f"kept as they are: {', '.join(kept)} (--restart learns them again)", err=True)
    return todo


def _learn(task: _Task, library: Library, todo: _Todo, encoder: Path | None, freeze: bool) -> Library:
    """Learn what is missing; each kind is written as soon as it is learned."""
    from ..learning import learn_masks, with_shots
    from ..training import MaskSettings

    entries = {
        key: with_shots(library.defects.get(key), key, task.shots[key], task.backbone)
        for key in dict.fromkeys(todo.anomalies + todo.masks)
    }
    if todo.anomalies:
        library = _learn_anomalies(task, library, {key: entries[key] for key in todo.anomalies}, encoder, freeze)
    if todo.masks:
        entries |= {key: library.defects[key] for key in todo.anomalies}
        learned = learn_masks(
            task.backbone, {key: entries[key] for key in todo.masks}, task.shots,
            settings=MaskSettings.for_types(len(todo.masks), **task.chosen),
            seed=task.seed, progress=task.progress, state=state_folder(task.out) / MASKS,
        )  # fmt: skip
        library = _saved(task.out, library, learned, "mask")
    return library


def _learn_anomalies(
    task: _Task, library: Library, entries: dict[Key, Defect], encoder: Path | None, freeze: bool
) -> Library:
    """Learn appearances and write them: the encoder first, so that no library waits for its encoder."""
    from ..learning import learn_anomalies
    from ..spatial_encoder import fingerprint, save_encoder
    from ..training import AnomalySettings
    from ..training.processes import is_first

    network, path, freeze = _encoder(task, library, encoder, freeze)
    learned, network = learn_anomalies(
        task.backbone, entries, task.shots, network, freeze_encoder=freeze,
        settings=AnomalySettings.for_types(len(entries), **task.chosen, normalisation=task.normalisation),
        seed=task.seed, progress=task.progress, state=state_folder(task.out) / ANOMALIES,
    )  # fmt: skip
    if not freeze and is_first():
        save_encoder(path, network, {"shots": {entry.name: entry.info["shots"] for entry in learned.values()}})
    return _saved(task.out, replace(library, encoder_fingerprint=fingerprint(network)), learned, "anomaly")


def _saved(out: Path, library: Library, learned: dict[Key, Defect], kind: str) -> Library:
    """Write what was learned; of a library that it is added to, what others have edited meanwhile stays."""
    from ..curation import edit_library
    from ..library import save_library
    from ..library_edit import add_learned
    from ..training.processes import is_first

    def added(to: Library) -> Library:
        return replace(add_learned(to, learned, kind), encoder_fingerprint=library.encoder_fingerprint)

    if not is_first():
        return added(library)
    if library.defects and out.exists():
        library = edit_library(out, added)
    else:
        library = added(library)
        save_library(out, library)
    (state_folder(out) / ANEW).unlink(missing_ok=True)
    return library


def _encoder(task: _Task, library: Library, path: Path | None, freeze: bool) -> tuple[SpatialEncoder, Path, bool]:
    """The encoder to learn with, its file, and whether it stays as it is."""
    from ..backbone import demo_encoder_path
    from ..spatial_encoder import SpatialEncoder, fingerprint, load_encoder

    is_demo = task.backbone.name == "demo"
    if path is None and is_demo:
        path, freeze = demo_encoder_path(), True
        typer.echo("spatial encoder: the demo's own, frozen (--encoder ENC learns one)", err=True)
    path = path or encoder_beside(task.out)
    if freeze:
        network, _ = load_encoder(path)
    else:
        network = SpatialEncoder("small" if is_demo else "base", dim=task.backbone.context_dim, seed=task.seed)
    belongs = library.encoder_fingerprint
    if belongs is not None and (not freeze or fingerprint(network) != belongs):
        raise InputError(
            f"the defects in {task.out} belong to spatial encoder {belongs[:8]}; add to them with that encoder and "
            "--freeze-encoder, or give another --out, or --restart"
        )
    return network, path, freeze


def _say_what_is_learned(shots: dict[Key, Shots]) -> None:
    """Say it before the work, which a wrong folder would spend."""
    taken = sum(len(one.files) for one in shots.values())
    there = taken + sum(len(one.held_out) for one in shots.values())
    named = ", ".join("/".join(key) for key in list(shots)[:4])
    what = named if len(shots) <= 4 else f"{len(shots)} defects ({named} and others)"
    typer.echo(f"learning {what} from {taken} of {there} shots", err=True)


def _say_what_was_learned(out: Path, library: Library, todo: _Todo) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table("defect", "shots", "appearance", "masks", box=None, pad_edge=False, header_style="dim")
    for key in dict.fromkeys(todo.anomalies + todo.masks):
        entry = library.defects[key]
        table.add_row(Text(entry.name), str(len(entry.info["shots"])), _told(entry, "anomaly"), _told(entry, "mask"))
    Console().print(table)
    for kind, name, keys in (("anomaly", "appearances", todo.anomalies), ("mask", "masks", todo.masks)):
        if keys and (line := _why_stopped(library.defects[keys[0]].info[kind])):
            typer.echo(f"{name}: {line}")
    typer.echo(f"{out}: {len(library.defects)} {'defect' if len(library.defects) == 1 else 'defects'}")


def _told(entry: Defect, kind: str) -> str:
    about = entry.info.get(kind)
    if not about:
        return "–"
    loss = "never drawn: take more steps" if about["loss"] is None else f"loss {about['loss']:.3f}"
    return f"{about['steps']} steps, {loss}"


def _why_stopped(about: dict[str, Any]) -> str:
    """Where a training by held-out shots ended and which step is kept; nothing of one without."""
    if about["validation"] is None or about["stopped"] == "not finite":
        return ""
    best = f"step {about['best']}, the lowest loss of the held-out shots, is kept"
    return f"stopped early at step {about['steps']}, as nothing got better; {best}" if about["stopped"] else best
