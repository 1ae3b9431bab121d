"""`adiff train`: from a folder of photos and masks to a library of learned defects."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from ..errors import InputError
from ..storage import clear_folder, remove_leftovers, run_lock, write_whole
from .app import keeping
from .options import Base, Loras, Resume, Seed, What, parse_loras
from .progress import CliProgress

if TYPE_CHECKING:
    from ..backbone import Backbone
    from ..learning import Shots
    from ..library import Defect, Key, Library
    from ..spatial_encoder import SpatialEncoder


def train(
    data: Annotated[Path, typer.Argument(metavar="DATA", help="MVTec layout, or a folder with images/ and masks/.")],
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
    shots: Annotated[
        int | None,
        typer.Option("--shots", min=1, help="Learn from the N lowest ids.  [dim]default: the lowest third[/dim]"),
    ] = None,
    base: Base = "demo",
    lora: Loras = None,
    encoder: Annotated[
        Path | None,
        typer.Option("--encoder", metavar="ENC", help="Spatial encoder to write; to read with --freeze-encoder.  "
                     "[dim]default: the demo's, frozen; for other bases LIB.encoder.safetensors[/dim]"),
    ] = None,
    freeze_encoder: Annotated[bool, typer.Option("--freeze-encoder", help="Read ENC and leave it as it is.")] = False,
    steps: Annotated[
        int | None,
        typer.Option("--steps", min=1, help="Training steps of each kind.  [dim]default: the method's[/dim]"),
    ] = None,
    seed: Seed = 0,
    resume: Resume = True,
) -> None:
    """Learn defects from a few photos of them with their masks."""
    from ..datasets.readers import read_dataset
    from ..learning import check_finite, open_shots

    _check_paths(out, encoder, freeze_encoder, resume)
    opened = open_shots(read_dataset(data, product or (), defect or ()), shots)
    from ..backbone import load_backbone  # after the input is known to be sound: this takes seconds

    backbone = load_backbone(base, loras=parse_loras(lora))
    with run_lock(state_folder(out)):
        remove_leftovers(out, encoder or encoder_beside(out))  # of the same command, killed
        library = _begin(out, backbone, resume)
        todo = _missing(library, opened, what, backbone)
        if not any(todo):
            typer.echo(f"{out} holds all of it already; --restart learns it again")
            return
        kept = f"what is learned is in {out} and {state_folder(out)}; the same command without --restart goes on"
        with CliProgress() as progress, keeping(kept):
            task = _Task(out, backbone, opened, steps, seed, progress)
            library = _learn(task, library, todo, encoder, freeze_encoder)
        clear_folder(state_folder(out))
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
    steps: int | None
    seed: int
    progress: CliProgress

    @property
    def chosen(self) -> dict[str, int]:
        """Settings that differ from the method's."""
        return {} if self.steps is None else {"steps": self.steps}


def state_folder(out: Path) -> Path:
    """Where an interrupted training's state lies: beside the library."""
    return out.with_name(f"{out.name}.state")


def encoder_beside(library: Path) -> Path:
    """Where a library's own spatial encoder lies unless told otherwise."""
    return library.with_suffix(f".encoder{library.suffix}")


def _check_paths(out: Path, encoder: Path | None, freeze_encoder: bool, resume: bool) -> None:
    if out.suffix != ".safetensors":
        raise InputError(f"--out {out} has to end in .safetensors")
    if freeze_encoder and encoder is not None and not encoder.is_file():
        raise InputError(f"--freeze-encoder reads an encoder, but there is none at {encoder}")
    interrupted = resume and state_folder(out).exists()
    if encoder is not None and not freeze_encoder and encoder.exists() and resume and not interrupted:
        raise InputError(f"{encoder} exists; --freeze-encoder uses it, --restart learns a new one in its place")


def _begin(out: Path, backbone: Backbone, resume: bool) -> Library:
    """The library to add to; with --restart an empty one, the old file and state being put aside."""
    from ..learning import open_library

    if not resume:
        clear_folder(state_folder(out))
        return open_library(out.with_name(f".{out.name}.none"), backbone)
    return open_library(out, backbone)


def _missing(library: Library, opened: dict[Key, Shots], what: What, backbone: Backbone) -> _Todo:
    """What the library does not hold yet; says what it does. InputError if an entry came from other shots."""
    for key, shots in opened.items():
        entry = library.defects.get(key)
        if entry is not None and entry.info.get("shots", list(shots.files)) != list(shots.files):
            raise InputError(
                f"the library's {entry.name} was learned from {', '.join(entry.info['shots'])}; "
                "ask for the same shots, another --out, or --restart"
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
    from ..learning import learn_masks, new_defect
    from ..training import MaskSettings

    entries = {
        key: library.defects.get(key) or new_defect(key, task.shots[key], task.backbone)
        for key in dict.fromkeys(todo.anomalies + todo.masks)
    }
    if task.out.exists():
        write_whole(task.out.with_suffix(f".previous{task.out.suffix}"), lambda path: shutil.copy2(task.out, path))
    if todo.anomalies:
        library = _learn_anomalies(task, library, {key: entries[key] for key in todo.anomalies}, encoder, freeze)
    if todo.masks:
        entries |= library.defects
        learned = learn_masks(
            task.backbone, {key: entries[key] for key in todo.masks}, task.shots, settings=MaskSettings(**task.chosen),
            seed=task.seed, progress=task.progress, state=state_folder(task.out) / "masks.safetensors",
        )  # fmt: skip
        library = _saved(task.out, library, learned)
    return library


def _learn_anomalies(
    task: _Task, library: Library, entries: dict[Key, Defect], encoder: Path | None, freeze: bool
) -> Library:
    """Learn appearances and write them: the encoder first, so that no library waits for its encoder."""
    from ..learning import learn_anomalies
    from ..spatial_encoder import fingerprint, save_encoder
    from ..training import AnomalySettings

    network, path, freeze = _encoder(task, library, encoder, freeze)
    learned, network = learn_anomalies(
        task.backbone, entries, task.shots, network, freeze_encoder=freeze, settings=AnomalySettings(**task.chosen),
        seed=task.seed, progress=task.progress, state=state_folder(task.out) / "anomalies.safetensors",
    )  # fmt: skip
    if not freeze:
        save_encoder(path, network, {"shots": {entry.name: entry.info["shots"] for entry in learned.values()}})
    return _saved(task.out, replace(library, encoder_fingerprint=fingerprint(network)), learned)


def _saved(out: Path, library: Library, learned: dict[Key, Defect]) -> Library:
    from ..library import save_library

    library = replace(library, defects={**library.defects, **learned})
    save_library(out, library)
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


def _say_what_was_learned(out: Path, library: Library, todo: _Todo) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("defect", "shots", "appearance", "masks", box=None, pad_edge=False, header_style="dim")
    for key in dict.fromkeys(todo.anomalies + todo.masks):
        entry = library.defects[key]
        table.add_row(entry.name, str(len(entry.info["shots"])), _told(entry, "anomaly"), _told(entry, "mask"))
    Console().print(table)
    typer.echo(f"{out}: {len(library.defects)} {'defect' if len(library.defects) == 1 else 'defects'}")


def _told(entry: Defect, kind: str) -> str:
    about = entry.info.get(kind)
    return f"{about['steps']} steps, loss {about['loss']:.3f}" if about else "–"
