"""`adiff train-dual` and `adiff generate-dual`: image and defect part generated together."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import InputError
from ..storage import clear_folder, remove_leftovers, run_lock
from . import options
from .app import keeping
from .begun import state_folder, what_is_left
from .destination import clearing
from .generate import PAIRS
from .generated import counted
from .learned import shots_to_learn
from .normals import PLACES, normals_of
from .options import (
    Base,
    Data,
    Loras,
    Precision,
    PrecisionName,
    Resume,
    Seed,
    of_dual,
    of_painting,
    of_training,
    parse_loras,
)
from .progress import CliProgress

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    from torch import Tensor

    from ..backbone.attentions import EditableBackbone
    from ..dual import DualModel, DualSettings
    from ..learning import Shots
    from ..library import Key


class Saim(str, Enum):
    """Forms of the exchange between the branches (`dual.layers.SAIM`)."""

    full = "full"
    low = "low"
    off = "off"


class Bcm(str, Enum):
    """Forms of the background's branch (`dual.layers.BCM` without its `off`)."""

    paper = "paper"
    release = "release"


class Flips(str, Enum):
    """Mirrored views of the shots (`dual.training.FLIPS`)."""

    none = "none"
    horizontal = "horizontal"
    both = "both"


ANEW = "restarted"
"""File in a state's folder that says that the training began anew, and that the file there is still the old one."""

DualFile = Annotated[Path, typer.Argument(metavar="DUAL", help="Dual model, as `adiff train-dual` writes it.")]
Product = Annotated[str | None, typer.Option("--product", metavar="P", help="Product, if there are several.")]
DefectType = Annotated[str | None, typer.Option("--defect", metavar="D", help="Defect, if there are several.")]


def train_dual(
    data: Data,
    out: Annotated[Path, typer.Option("--out", metavar="DUAL", help="File to write.")],
    product: Product = None,
    defect: DefectType = None,
    shots: options.Shots = None,
    base: Base = "demo",
    lora: Loras = None,
    precision: PrecisionName = Precision.auto,
    steps: Annotated[int, of_training("--steps", min=1, help="Training steps.")] = 5000,
    batch: Annotated[int, of_training("--batch", min=1, help="Pairs a step.")] = 4,
    rate: Annotated[float, of_training("--lr", help="Peak learning rate of LoRAs and SAIM.")] = 2e-5,
    rank: Annotated[int, of_dual("--rank", min=1, help="Of the LoRAs.")] = 32,
    saim: Annotated[
        Saim, of_dual("--saim", help="Exchange between image and part: full matrices, low rank, or none.")
    ] = Saim.full,
    flips: Annotated[Flips, of_training("--flips", help="Mirrored views of the shots.")] = Flips.horizontal,
    bcm: Annotated[
        bool, of_dual("--bcm/--no-bcm", help="Let the image see its background: for objects that do not fill it.")
    ] = False,
    bcm_form: Annotated[
        Bcm | None,
        of_dual("--bcm-form", help="As in the paper, or as in the authors' code.  [dim]default: paper[/dim]"),
    ] = None,
    foreground: Annotated[
        Path | None,
        of_dual(
            "--foreground", metavar="DIR",
            help="For BCM: a mask of the object for each shot, of its name.  [dim]default: told by its colour[/dim]",
        ),
    ] = None,
    start: Annotated[
        Path | None,
        of_training(
            "--start", metavar="FOLDER",
            help="Begin with a checkpoint of the authors' code; its prompts do not come along, tokens are learned.",
        ),
    ] = None,
    size: Annotated[
        int | None,
        of_training("--size", help="Side of the images learned on and made, pixels.  [dim]default: the base's[/dim]"),
    ] = None,
    early_stop: Annotated[
        bool, of_training("--early-stop/--all-steps", help="With 4 shots or more: end by the loss of one held out.")
    ] = False,
    checkpointing: Annotated[
        bool | None,
        of_training(
            "--checkpointing/--no-checkpointing",
            help="Compute the model's blocks twice, for less memory; the result is the same.  "
            "[dim]default: where a GPU's does not suffice[/dim]",
        ),
    ] = None,
    resume: Resume = True,
    seed: Seed = 0,
) -> None:
    """Learn to make a defect's images together with its part, from a few photos; one model for one defect."""
    if out.suffix != ".safetensors":
        raise InputError(f"--out {out} has to end in .safetensors")
    if foreground is not None and not bcm:
        raise InputError("--foreground is for BCM; give --bcm with it, or leave it out")
    if bcm_form is not None and not bcm:
        raise InputError("--bcm-form is for BCM; give --bcm with it, or leave it out")
    key, found = one_defect(data, product, defect, shots, "a dual model is of one defect")
    from ..dual.file import KIND
    from ..tensor_files import check_replaced
    from ..training.validation import check_held_out

    if not resume:
        check_replaced(out, KIND, "dual model")
    if early_stop:
        check_held_out({"/".join(key): len(found.files)})
    from ..backbone import load_backbone  # after the input is known to be sound: this takes seconds
    from ..dual import DualSettings, read_foregrounds, read_release

    settings = DualSettings(
        steps=steps, batch=batch, lr=rate, rank=rank, saim=saim.value, flips=flips.value,
        bcm=(bcm_form or Bcm.paper).value if bcm else "off", early_stop=early_stop, size=size,
    )  # fmt: skip
    shapes = [mask.shape for mask in found.masks]
    objects = None if foreground is None else read_foregrounds(foreground, found.files, shapes)
    backbone = load_backbone(base, precision=precision.value, loras=parse_loras(lora))
    begin = None if start is None else read_release(start, backbone.attentions)
    given = {"shots": found, "foregrounds": objects, "start": begin, "settings": settings, "seed": seed}
    folder = state_folder(out)
    if resume and out.exists() and not (folder / ANEW).exists():
        _check_same(out, backbone, key, **given)
        if folder.exists():
            with run_lock(folder):
                clear_folder(folder)  # the command that wrote it was killed before it could
        typer.echo(f"{out} holds it already; --restart learns it again")
        return
    model = _learn(out, resume, backbone, key, checkpoint=checkpointing, **given)
    _say_what_was_learned(out, model)
    if model.info["stopped"] == "not finite":
        raise InputError(
            f"the loss of {model.name} was not finite; what is kept is the state of step {model.info['best']}; "
            "--restart with a lower --lr learns it again"
        )


def generate_dual(
    dual: DualFile,
    out: Annotated[Path, typer.Option("--out", metavar="RUN", help="Folder of the run.")],
    count: Annotated[int, typer.Option("-n", min=1, help="Pairs to make.")] = PAIRS,
    base: Base = "demo",
    lora: Loras = None,
    precision: PrecisionName = Precision.auto,
    guidance: Annotated[
        float | None,
        of_painting(
            "--guidance", help="Classifier-free, 1 or more; 1 is none.  [dim]default: 2.5, with BCM 2[/dim]"
        ),
    ] = None,
    steps: Annotated[
        int | None,
        of_painting("--steps", min=1, max=1000, help="Sampling steps.  [dim]default: 100, with BCM 50[/dim]"),
    ] = None,
    batch: Annotated[int, of_painting("--batch", min=1, help="Pairs at a time.")] = 4,
    normals: Annotated[
        Path | None,
        typer.Option(
            "--normals", metavar="DIR",
            help=f"For BCM: photos to take the background of, {PLACES}.  [dim]default: the shots' backgrounds[/dim]",
        ),
    ] = None,
    foreground: Annotated[
        Path | None,
        typer.Option(
            "--foreground", metavar="DIR",
            help="Masks of the object in the photos of --normals, of the same names.  "
            "[dim]default: told by its colour[/dim]",
        ),
    ] = None,
    resume: Resume = True,
    seed: Seed = 0,
) -> None:
    """Make whole images with a defect, each with its part and its mask; no normal images are needed."""
    from ..dual import DualSampling, check_base, load_dual, read_backgrounds

    model = load_dual(dual)
    settings = DualSampling.of(model, steps, guidance, batch)
    _check_background(model, normals, foreground)
    clear = clearing(out, resume)
    from ..backbone import load_backbone  # after the input is known to be sound: this takes seconds
    from ..dual.run import generate_dual_run

    backbone = load_backbone(base, precision=precision.value, loras=parse_loras(lora))
    check_base(model, backbone)
    photos = None if normals is None else normals_of(model.product, normals)
    behind = None if photos is None else read_backgrounds(backbone, model.size, photos[:count], foreground)
    with CliProgress() as progress, keeping(f"finished pairs are in {out}; the same command makes the rest"):
        result = generate_dual_run(
            backbone, model, count=count, out=out, settings=settings, seed=seed, progress=progress, backgrounds=behind,
            clear=clear,
        )  # fmt: skip
        if result.cancelled:
            raise KeyboardInterrupt
    if result.broken:
        typer.echo(f"pairs that were not made: {len(result.broken)}, each {result.broken[0].get('reason')}", err=True)
    pairs = counted(len(result.pairs), "pair")
    typer.echo(f"{pairs} of {model.name} in {out}; no fill, leak and seam: they need a normal image")


def one_defect(
    data: Path, product: str | None, defect: str | None, shots: int | None, why: str
) -> tuple[Key, Shots]:  # fmt: skip
    """The one defect that is meant, and its shots; InputError, which begins with `why`, if there are several."""
    opened = shots_to_learn(data, [product] if product else (), [defect] if defect else (), shots)
    if len(opened) > 1:
        names = ", ".join("/".join(key) for key in sorted(opened)[:5])
        raise InputError(f"{why}, and there are {len(opened)} ({names}); give --product and --defect")
    ((key, found),) = opened.items()
    return key, found


def _learn(out: Path, resume: bool, backbone: EditableBackbone, key: Key, **given: Any) -> DualModel:
    """Learn, or go on learning, and write the file; given: what `learn_dual` takes besides."""
    from ..dual import save_dual
    from ..dual.learning import learn_dual

    folder = state_folder(out)
    with run_lock(folder):
        remove_leftovers(out)  # of the same command, killed
        if not resume:
            clear_folder(folder)
            (folder / ANEW).touch()
        state = folder / "dual.safetensors"
        with CliProgress() as progress, keeping(lambda: what_is_left([folder] if state.exists() else [])):
            model = learn_dual(backbone, key, progress=progress, state=state, **given)
        save_dual(out, model)
        clear_folder(folder)
    return model


def _check_background(model: DualModel, normals: Path | None, foreground: Path | None) -> None:
    """Raise InputError for photos or foregrounds that the model has no use for."""
    if normals is not None and model.bcm == "off":
        raise InputError(
            f"{model.name} was learned without BCM and takes no background; leave --normals and --foreground out, or "
            "learn it with --bcm"
        )
    if foreground is not None and normals is None:
        raise InputError("--foreground marks the object in photos; give the photos with --normals DIR")


def _check_same(
    out: Path, backbone: EditableBackbone, key: Key, *, shots: Shots, foregrounds: Sequence[np.ndarray] | None,
    start: Mapping[str, Tensor] | None, settings: DualSettings, seed: int,
) -> None:  # fmt: skip
    """Raise InputError unless the file that is there is what the command would make."""
    from dataclasses import asdict

    from ..dual import load_dual
    from ..dual.learning import shots_record
    from ..dual.training import digests_of_given

    there = load_dual(out)
    asked = {"settings": asdict(settings), "seed": seed, "start": None, "foreground": None, "prompts": None}
    asked |= shots_record(shots) | digests_of_given(foregrounds, start, None)
    other = [name for name, value in asked.items() if there.info.get(name) != value]
    if there.base_fingerprint != backbone.fingerprint:
        other.insert(0, "base")
    if (there.product, there.defect) != key:
        other.insert(0, "defect")
    if other:
        raise InputError(
            f"{out} holds a dual model of {there.name} with another {other[0]}; give another --out, or --restart"
        )


def _say_what_was_learned(out: Path, model: DualModel) -> None:
    info, parameters = model.info, model.info["parameters"]
    counts = {"LoRA": parameters["lora"], "SAIM": parameters["saim"], "BCM": parameters["bcm"]}
    sizes = ", ".join(f"{count / 1e6:.1f} M of {what}" for what, count in counts.items() if count)
    typer.echo(
        f"{out}: {model.name} from {len(info['shots'])} shots, {info['steps']} steps, loss {info['loss']:.3f}, "
        f"parameters {sizes}, {out.stat().st_size / 1e6:.1f} MB"
    )
