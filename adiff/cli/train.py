"""`adiff train`: from a folder of photos and masks to a library of learned defects."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext, redirect_stderr, redirect_stdout
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from ..errors import InputError, listed
from ..storage import remove_leftovers, run_lock
from . import options
from .app import keeping
from .begun import (
    ANOMALIES,
    MASKS,
    STATES,
    Todo,
    begun,
    begun_anew,
    discard_learned,
    encoder_beside,
    note_begun,
    previous,
    put_aside,
    state_folder,
    what_is_left,
)
from .command import check_idle, was_given
from .learned import say_what_is_learned, say_what_was_learned, shots_to_learn
from .options import Base, Data, Loras, Precision, PrecisionName, Resume, Seed, What, of_model, of_training, parse_loras
from .progress import CliProgress

if TYPE_CHECKING:
    from ..backbone import Backbone
    from ..learning import Shots
    from ..library import Defect, Key, Library
    from ..spatial_encoder import SpatialEncoder


PARTS = {What.defects: ["anomaly"], What.masks: ["mask"], What.both: ["anomaly", "mask"]}
"""What is learned of a defect, by what is asked for."""


def train(
    ctx: typer.Context,
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
        of_training("--steps", min=1, help="Training steps of each kind, at most.  [dim]default: 1000, or 300 where "
                    "nothing is held out; on the demo's model 100, for masks 150; more for more than 4 defects "
                    "together[/dim]"),
    ] = None,
    batch: Annotated[
        int | None,
        of_training("--batch", min=1, help="Samples a step, over all defects.  [dim]default: the method's[/dim]"),
    ] = None,
    timesteps: Annotated[
        options.Timesteps, of_training("--timesteps", help="How noise levels are drawn and weighted.")
    ] = options.Timesteps.uniform,
    normalisation: Annotated[
        options.Normalisation, of_training("--normalisation", help="Loss over the mask's area, or over all cells.")
    ] = options.Normalisation.area,
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
    _check_paths(out, encoder, freeze_encoder)
    if what is What.masks:
        check_idle(ctx, "with --what masks", "normalisation", "encoder", "freeze_encoder")
    from ..learning import check_finite
    from ..library import KIND
    from ..tensor_files import check_replaced

    if not resume:
        check_replaced(out, KIND, "library")
    given = {"steps": steps, "batch": batch, "timesteps": timesteps.value, "early_stop": early_stop}
    chosen = {name: value for name, value in given.items() if value is not None}
    from ..training.processes import is_first, joined

    with joined() as device, nullcontext() if is_first() else _silence():
        opened = shots_to_learn(data, product or (), defect or (), shots)
        from ..backbone import load_backbone  # after the input is known to be sound: this takes seconds

        backbone = load_backbone(base, device, precision.value, parse_loras(lora), compiled)
        with run_lock(state_folder(out)) if is_first() else nullcontext():
            with CliProgress() as progress:
                names = ["/".join(key) for key in opened]
                anew = begun_anew(out, names) if resume else dict.fromkeys(PARTS[what], names)
                watched = early_stop and was_given(ctx, "early_stop")
                task = _Task(out, backbone, opened, chosen, normalisation.value, seed, progress, resume, anew, watched)
                library, todo = _work(task, what, encoder, freeze_encoder)
            if is_first() and any(todo):
                discard_learned(state_folder(out), library, todo)
        if any(todo):
            say_what_was_learned(out, library, todo)
    check_finite({key: library.defects[key] for key in todo.anomalies + todo.masks})


class _Encoder(NamedTuple):
    network: SpatialEncoder
    path: Path
    frozen: bool


class _Task(NamedTuple):
    out: Path
    backbone: Backbone
    shots: dict[Key, Shots]
    chosen: dict[str, Any]  # settings of both kinds of training
    normalisation: str
    seed: int
    progress: CliProgress
    resume: bool
    anew: dict[str, list[str]]  # part -> names of the defects of which the library's counts no more
    watched: bool  # whether it was asked for that a shot of each defect is held out


def _work(task: _Task, what: What, encoder: Path | None, freeze: bool) -> tuple[Library, Todo]:
    """Learn and write what is not there yet; of several processes the first one writes."""
    from ..training import AnomalySettings, MaskSettings
    from ..training.processes import is_first, wait_for_all
    from ..training.validation import check_held_out

    out, folder = task.out, state_folder(task.out)
    library = _begin(task)
    todo = _missing(library, task.shots, what)
    if not any(todo):
        if is_first():
            discard_learned(folder, library, todo)
        typer.echo(f"{out} holds all of it already; --restart learns it again")
        return library, todo
    of_encoder = _encoder(task, library, encoder, freeze) if todo.anomalies else None
    if task.watched:
        check_held_out({"/".join(key): len(task.shots[key].pairs) for key in todo.anomalies + todo.masks})
    for settings, keys in zip((AnomalySettings, MaskSettings), todo, strict=True):
        settings.for_base(task.backbone, _counts(task, keys), **task.chosen)  # refuses what is too few for so many
    wait_for_all()  # until all have read what the first one replaces now
    if is_first():
        _make_ready(task, of_encoder)
    wait_for_all()  # until a state that --restart clears is gone
    say_what_is_learned(task.shots, library, todo, of_encoder and of_encoder.path)
    with keeping(partial(_left, task, todo)):
        return _learn(task, library, todo, of_encoder), todo


def _make_ready(task: _Task, encoder: _Encoder | None) -> None:
    """Note what is replaced, and keep it as it was; nothing is refused from here on."""
    from ..training.loop import discard_state

    out, learned = task.out, encoder is not None and not encoder.frozen
    remove_leftovers(out, previous(out), *([encoder.path] if learned else []))  # of the same command, killed
    if not task.resume:
        for state, part in STATES.items():
            if part in task.anew:
                discard_state(state_folder(out) / state)
        note_begun(out, anew=begun(out).get("anew", {}) | task.anew)
    put_aside(out, encoder.path if learned else None)
    if learned:
        note_begun(out, encoder=str(encoder.path.resolve()))


def _left(task: _Task, todo: Todo) -> str:
    """What an interrupted training has left to go on from; a library that it was to replace is not of it."""
    folder = state_folder(task.out)
    new = any(keys and part not in task.anew for part, keys in zip(STATES.values(), todo, strict=True))
    learned = [task.out] if task.out.exists() and new else []
    learned += [folder] if any((folder / state).exists() for state in STATES) else []
    return what_is_left(learned)


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


def _check_paths(out: Path, encoder: Path | None, freeze_encoder: bool) -> None:
    if out.suffix != ".safetensors":
        raise InputError(f"--out {out} has to end in .safetensors")
    if freeze_encoder and encoder is not None and not encoder.is_file():
        raise InputError(f"--freeze-encoder reads an encoder, but there is none at {encoder}")
    if (encoder or encoder_beside(out)).resolve() == out.resolve():
        raise InputError(f"--encoder and --out are both {out}; give each a file of its own")


def _check_learned(out: Path, encoder: Path, named: bool, resume: bool) -> None:
    """Raise InputError if a spatial encoder that is to be learned would replace a file that may be needed."""
    from ..spatial_encoder import KIND
    from ..tensor_files import check_replaced

    if not encoder.exists() or (resume and begun(out).get("encoder") == str(encoder.resolve())):
        return
    if not resume:
        check_replaced(encoder, KIND, "spatial encoder")
    elif named or out.exists():
        raise InputError(f"{encoder} exists; --freeze-encoder uses it, --restart learns a new one in its place")
    else:
        raise InputError(
            f"{encoder} is the encoder of a library that is not at {out} any more, and would be lost; give another "
            f"--out, --encoder {encoder} --freeze-encoder to learn with it, or --restart to replace it"
        )


def _begin(task: _Task) -> Library:
    """The library to add to, without what is learned anew; one that --restart cannot read begins as an empty one."""
    from ..learning import open_library
    from ..library import load_library

    out = task.out
    if task.anew and out.exists():
        try:
            load_library(out)
        except InputError:
            out = out.with_name(f".{out.name}.none")
    return open_library(out, task.backbone, partial(_cleared, task))


def _cleared(task: _Task, library: Library) -> Library:
    """A library without what is learned anew; one of nothing else is of whatever base model it is learned on now."""
    from ..library import Library
    from ..library_edit import forget

    library, base = forget(library, task.anew), task.backbone
    if any(entry.anomaly is not None or entry.mask is not None for entry in library.defects.values()):
        return library
    return Library(library.defects, base.fingerprint, base.name, base.context_dim, info=library.info)


def _missing(library: Library, opened: dict[Key, Shots], what: What) -> Todo:
    """What the library does not hold yet. InputError if an entry came from other shots."""
    from ..learning import changed_shots
    from ..library_edit import check_apart, record_of

    there = [entry.name for entry in library.defects.values()]
    for key, shots in opened.items():
        check_apart("/".join(key), there)
        entry = library.defects.get(key)
        if entry is not None and record_of(entry).get("shots", list(shots.files)) != list(shots.files):
            raise InputError(
                f"the library's {entry.name} was learned from {', '.join(entry.info['shots'])}; "
                "ask for the same shots, another --out, or --restart with --what both"
            )
        changed = [] if entry is None else changed_shots(entry, shots)
        if changed:
            raise InputError(
                f"{', '.join(changed)} changed since the library's {entry.name} was learned from it; put back what was "
                "there, or give another --out, or --restart with --what both"
            )
    known = {key: library.defects.get(key) for key in opened}
    anomalies = [key for key, entry in known.items() if entry is None or entry.anomaly is None]
    masks = [key for key, entry in known.items() if entry is None or entry.mask is None]
    return Todo([] if what is What.masks else anomalies, [] if what is What.defects else masks)


def _counts(task: _Task, keys: Iterable[Key]) -> list[int]:
    """How many shots each of some defects has."""
    return [len(task.shots[key].pairs) for key in keys]


def _learn(task: _Task, library: Library, todo: Todo, encoder: _Encoder | None) -> Library:
    """Learn what is missing; each kind is written as soon as it is learned."""
    from ..learning import learn_masks, with_shots
    from ..training import MaskSettings

    entries = {
        key: with_shots(library.defects.get(key), key, task.shots[key], task.backbone)
        for key in dict.fromkeys(todo.anomalies + todo.masks)
    }
    if encoder is not None:
        library = _learn_anomalies(task, library, {key: entries[key] for key in todo.anomalies}, encoder)
    if todo.masks:
        entries |= {key: library.defects[key] for key in todo.anomalies}
        learned = learn_masks(
            task.backbone, {key: entries[key] for key in todo.masks}, task.shots,
            settings=MaskSettings.for_base(task.backbone, _counts(task, todo.masks), **task.chosen),
            seed=task.seed, progress=task.progress, state=state_folder(task.out) / MASKS,
        )  # fmt: skip
        library = _saved(task, library, learned, "mask")
    return library


def _learn_anomalies(task: _Task, library: Library, entries: dict[Key, Defect], encoder: _Encoder) -> Library:
    """Learn appearances and write them: the encoder first, so that no library waits for its encoder."""
    from ..learning import learn_anomalies
    from ..spatial_encoder import fingerprint, save_encoder
    from ..training import AnomalySettings
    from ..training.processes import is_first

    learned, network = learn_anomalies(
        task.backbone, entries, task.shots, encoder.network, freeze_encoder=encoder.frozen,
        settings=AnomalySettings.for_base(
            task.backbone, _counts(task, entries), **task.chosen, normalisation=task.normalisation
        ),
        seed=task.seed, progress=task.progress, state=state_folder(task.out) / ANOMALIES,
    )  # fmt: skip
    if not encoder.frozen and is_first():
        about = {"shots": {entry.name: entry.info["shots"] for entry in learned.values()}}
        save_encoder(encoder.path, network, about)
    return _saved(task, replace(library, encoder_fingerprint=fingerprint(network)), learned, "anomaly")


def _saved(task: _Task, library: Library, learned: dict[Key, Defect], part: str) -> Library:
    """Write what was learned; of a library that it is added to, what others have edited meanwhile stays."""
    from ..curation import edit_library
    from ..library import save_library
    from ..library_edit import add_learned
    from ..training.processes import is_first

    def added(to: Library) -> Library:
        return replace(
            add_learned(_cleared(task, to), learned, part), encoder_fingerprint=library.encoder_fingerprint
        )

    if not is_first():
        library = added(library)
    elif library.defects and task.out.exists():
        library = edit_library(task.out, added)
    else:
        library = added(library)
        save_library(task.out, library)
    if task.anew.pop(part, None) is not None and is_first():
        noted = {of: names for of, names in begun(task.out).get("anew", {}).items() if of != part}
        note_begun(task.out, anew=noted)
    return library


def _encoder(task: _Task, library: Library, path: Path | None, freeze: bool) -> _Encoder:
    """The encoder to learn with. InputError if what else the library holds needs another, or a file would be lost."""
    from ..backbone import DEMO, demo_encoder_path
    from ..learning import new_encoder
    from ..spatial_encoder import fingerprint, load_encoder

    named = path is not None
    if path is None and task.backbone.name == DEMO:
        path, freeze = demo_encoder_path(), True
    path = path or encoder_beside(task.out)
    if freeze:
        network, _ = load_encoder(path)
    else:
        network = new_encoder(task.backbone, task.seed)
    belongs = library.encoder_fingerprint
    if belongs is not None and (not freeze or fingerprint(network) != belongs):
        there = [entry.name for entry in library.defects.values() if entry.anomaly is not None]
        raise InputError(
            f"{listed(there, 4)} in {task.out} belong to spatial encoder {belongs[:8]}; learn with that encoder and "
            "--freeze-encoder, give another --out, or learn all of them anew with --restart"
        )
    if not freeze:
        _check_learned(task.out, path, named, task.resume)
    return _Encoder(network, path, freeze)
