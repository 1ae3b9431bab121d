"""`adiff benchmark`: what the method is worth, as a matrix of measurements that an interruption leaves whole."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from ..errors import InputError
from ..storage import LOCK, clear_folder, is_unfinished, run_lock
from ..workers import join_run
from .app import keeping
from .command import given_command, was_given
from .evaluate import Network, NetworkOption
from .objects import Foreground, OnObject, Place
from .options import Base, Precision, PrecisionName, Resume, of_masks
from .progress import CliProgress, duration
from .surfaces import CAPTIONS, write_surfaces

if TYPE_CHECKING:
    from ..benchmark import Budget, Cell, Unit, Weights

logger = logging.getLogger("adiff")

SURFACES, MVTEC = "surfaces", "mvtec"
IMAGES, QUICK_IMAGES, SIZE = 40, 12, 128
"""Images of a drawn set (`adiff surfaces`), and their side in pixels."""
TEACHING, SHOTS = {IMAGES: 10, QUICK_IMAGES: 5}, 5
"""Of a drawn set: shots that may teach, by its images, and that do unless a suite says otherwise."""


class Suites(str, Enum):
    """Suites of measurements (`benchmark.SUITES`)."""

    ablation = "ablation"
    reweighting = "reweighting"
    adaptivity = "adaptivity"
    steps = "steps"
    guidance = "guidance"
    uplift = "uplift"
    curation = "curation"
    shots = "shots"
    shares = "shares"
    tokens = "tokens"
    grid = "grid"
    dual = "dual"
    paper = "paper"


DEFAULTS = {
    SURFACES: (Suites.ablation, Suites.uplift),
    MVTEC: (Suites.paper, Suites.ablation, Suites.shares, Suites.tokens, Suites.grid),
}
"""Suites of a target, unless told otherwise; of a folder `uplift`."""

Target = Annotated[
    str,
    typer.Argument(metavar="TARGET", help="[b]surfaces[/b] (drawn for it), [b]mvtec[/b] (with --data and --base), or a "
                   "folder of images with masks."),
]  # fmt: skip
Out = Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder to write; given again, it goes on.")]
Data = Annotated[
    Path | None, typer.Option("--data", metavar="DIR", help="With [b]mvtec[/b]: your copy of MVTec AD.")
]
Chosen = Annotated[
    list[Suites] | None,
    typer.Option("--suite", help="What to measure, once for each.  [dim]default: surfaces: ablation, uplift; mvtec: "
                 "paper, ablation, shares, tokens, grid; else uplift[/dim]"),
]  # fmt: skip
Products = Annotated[
    list[str] | None,
    typer.Option("--product", metavar="P", help="Product, once for each.  [dim]default: all[/dim]"),
]
Defects = Annotated[
    list[str] | None,
    typer.Option("--defect", metavar="D", help="Defect, once for each.  [dim]default: all[/dim]"),
]
Variants = Annotated[
    list[str] | None,
    typer.Option("--variant", metavar="V", help="Row of a table, by its name, once for each; * for any letters. "
                 "The rows that it is compared with come along.  [dim]default: all[/dim]"),
]  # fmt: skip
Shots = Annotated[
    int | None,
    typer.Option("--shots", min=1, help="Shots of each defect to learn from.  [dim]default: surfaces 5, else a "
                 "third[/dim]"),
]  # fmt: skip
GroupRule = Annotated[
    str | None,
    typer.Option("--group", metavar="REGEX", help="Its parenthesis takes a file's group out of its path.  "
                 "[dim]default: groups.json in the data, if there is one[/dim]"),
]  # fmt: skip
Quick = Annotated[bool, typer.Option("--quick", help="A small run, to see that it works: 8 pairs, 1 seed.")]
Pairs = Annotated[
    int | None, typer.Option("--pairs", min=1, help="Pairs of each defect.  [dim]default: 48[/dim]")
]
Seeds = Annotated[
    int | None, typer.Option("--seeds", min=1, help="Times that each cell is measured anew.  [dim]default: 3[/dim]")
]
Placed = Annotated[
    Place,
    of_masks("--place", help="For products that do not fill the picture: masks come onto the object, which is "
             "found in the normal images; moved, or turned and scaled too, as the shots show. What baselines paste "
             "lies on it too."),
]  # fmt: skip
DualSteps = Annotated[
    int | None,
    typer.Option("--dual-steps", min=1, help="Suite [b]dual[/b]: training steps of a dual model.  "
                 "[dim]default: 150, of the paper 5000[/dim]"),
]  # fmt: skip
DualRate = Annotated[
    float | None,
    typer.Option("--dual-lr", help="Suite [b]dual[/b]: peak learning rate.  [dim]default: 1e-3, from 5000 steps on "
                 "the paper's 2e-5[/dim]"),
]  # fmt: skip
Features = Annotated[
    Path | None,
    typer.Option("--features", metavar="FILE", help="Suite [b]paper[/b]: torchvision's resnet34, from which the "
                 "classifier starts; formulas of quality on it. Given newly, finished cells are measured again."),
]  # fmt: skip
Inception = Annotated[
    Path | None,
    typer.Option("--inception", metavar="FILE", help="Suite [b]paper[/b]: torch-fidelity's Inception-v3; with --lpips, "
                 "IS and IC-LPIPS."),
]  # fmt: skip
Lpips = Annotated[
    Path | None, typer.Option("--lpips", metavar="FILE", help="Suite [b]paper[/b]: torchvision's vgg16, for LPIPS.")
]


def benchmark(
    ctx: typer.Context,
    target: Target,
    out: Out,
    data: Data = None,
    suite: Chosen = None,
    variant: Variants = None,
    product: Products = None,
    defect: Defects = None,
    base: Base = "demo",
    precision: PrecisionName = Precision.auto,
    shots: Shots = None,
    group: GroupRule = None,
    quick: Quick = False,
    pairs: Pairs = None,
    seeds: Seeds = None,
    place: Placed = Place.stay,
    foreground: Foreground = None,
    features: Features = None,
    inception: Inception = None,
    lpips: Lpips = None,
    network: NetworkOption = Network.small,
    dual_steps: DualSteps = None,
    dual_lr: DualRate = None,
    resume: Resume = True,
) -> None:
    """Measure methods against each other over defects and seeds: tables with spreads, plots, example sheets.

    The same command in further processes divides the cells among them; on a CPU give each its share of the cores, as in
    OMP_NUM_THREADS=1.
    """
    _check_asked(target, data, base, ctx)
    OnObject(place, foreground)  # refuses one without the other
    from ..benchmark import Bench, cells_of, run_matrix, variants_of

    names = tuple(one.value for one in dict.fromkeys(suite or DEFAULTS.get(target, (Suites.uplift,))))
    wanted = tuple(dict.fromkeys(variant or ()))
    variants_of(names, wanted)
    weights = _weights(names, features, inception, lpips)
    given = _Given(target, out, data, tuple(product or ()), tuple(defect or ()), shots, group, quick)
    budget = _of_dual(_budget(given, pairs, network.value, place.value), names, dual_steps, dual_lr)
    if drawn := target == SURFACES:  # into the folder, which --restart empties only when all else is sound
        _withheld(given)
    from ..backbone import demo_encoder_path, load_backbone

    with CliProgress() as progress:
        there = None if drawn else _open(given, names, progress)
        backbone = load_backbone(base, precision=precision.value)
        if not resume:
            _clear(out)
        units, left_out = there or _open(given, names, progress)
    for name, why in left_out.items():
        logger.warning("%s is left out: %s", name, why)
    encoder = demo_encoder_path() if base == "demo" else None
    cells = cells_of(units, seeds or (1 if quick else 3), wanted)
    budget = budget if quick else budget.on(backbone)
    bench = Bench(backbone, encoder, budget, out, weights, foreground)
    root, told = cells[0].unit.split.root, given_command(ctx, out=out.resolve().name or out, resume=None)
    places = dict.fromkeys(cell.unit.name for cell in cells)
    typer.echo(f"{len(cells)} cells: {', '.join(names)} on {', '.join(places)}", err=True)
    try:
        with CliProgress() as progress, keeping(f"finished cells are in {out}; the same command measures the rest"):
            counts = run_matrix(
                bench, _name_of(target), cells, command=told, left_out=left_out, progress=progress, tell=_tell
            )  # fmt: skip
    except KeyboardInterrupt:
        _report(out, root, cells)
        raise
    _report(out, root, cells)
    typer.echo(f"{counts.done} of {len(cells)} cells measured, {counts.failed} failed: {out / 'report.html'}")
    if not counts.done:
        raise typer.Exit(1)


class _Given(NamedTuple):
    """What the command was told of its data."""

    target: str
    out: Path
    data: Path | None
    products: tuple[str, ...]
    defects: tuple[str, ...]
    shots: int | None
    rule: str | None
    quick: bool

    @property
    def images(self) -> int:
        return QUICK_IMAGES if self.quick else IMAGES


def _check_asked(target: str, data: Path | None, base: str, ctx: typer.Context) -> None:
    """Raise InputError for options that do not go together."""
    if target == MVTEC:
        if data is None or not was_given(ctx, "base"):
            raise InputError("mvtec needs --data, your copy of MVTec AD, and --base, a Stable Diffusion 1.x checkpoint")
    elif data is not None:
        raise InputError("--data goes with mvtec; give the folder itself as TARGET")
    if target == SURFACES and Path(target).is_dir():
        typer.echo(f"surfaces are drawn; ./{SURFACES} is the folder", err=True)


def _name_of(target: str) -> str:
    return target if target in (SURFACES, MVTEC) else Path(target).resolve().name


def _open(
    given: _Given, names: tuple[str, ...], progress: CliProgress
) -> tuple[dict[str, list[Unit]], dict[str, str]]:
    """Draw or find the data and split it: suite -> what it is measured on; name -> reason of what cannot be."""
    from ..benchmark import open_units
    from ..benchmark.run import check_folder

    check_folder(given.out)
    root, teach = _data(given, progress)
    asked: dict[str, Any] = {"whole": given.target == MVTEC, "rule": given.rule}
    units, left_out = open_units(root, given.products, given.defects, teach=teach, **asked)
    found = dict.fromkeys(names, units)
    if Suites.shares.value in names:  # it goes up to half of the images
        half, more = open_units(root, given.products, given.defects, one_in=2, note="half", **asked)
        found, left_out = {**found, Suites.shares.value: half}, {**left_out, **more}
    return found, left_out


def _data(given: _Given, progress: CliProgress) -> tuple[Path, int | None]:
    """The data set, drawn if need be, and how many shots of each defect may teach, None for a third."""
    from ..benchmark.run import DATA
    from ..benchmark.turns import Turns

    if given.target != SURFACES:
        root = given.data if given.target == MVTEC else Path(given.target)
        return root, _most_teaching(root, given)
    keys = _withheld(given)
    products = {p: tuple(d for of, d in keys if of == p) for p, _ in keys}
    data, teach = given.out / DATA, max(TEACHING[given.images], given.shots or 0)
    with Turns(given.out) as turns, turns.in_turn(DATA):
        if not (data / CAPTIONS).exists() or is_unfinished(data):  # written last, but for what says so
            write_surfaces(data, products, given.images, SIZE, 0, progress)
    return data, teach


def _withheld(given: _Given) -> list[tuple[str, str]]:
    """The combinations that the demo model has never seen, which are drawn; InputError for others, too many shots."""
    from ..datasets.surfaces import WITHHELD

    for asked, there, what in ((given.products, {p for p, _ in WITHHELD}, "product"),
                               (given.defects, {d for _, d in WITHHELD}, "defect")):  # fmt: skip
        if unknown := [name for name in asked if name not in there]:
            known = ", ".join("/".join(key) for key in WITHHELD)
            raise InputError(f"there is no withheld {what} {unknown[0]!r}; choose from {known}")
    if given.shots is not None and given.shots >= given.images:
        raise InputError(f"{given.shots} shots of {given.images} drawn images asked for; ask for fewer")
    return list(WITHHELD)


def _most_teaching(root: Path, given: _Given) -> int | None:
    """--shots where that is more than a third of each defect's, else None: the third."""
    from ..benchmark.target import TEACHING as THIRD
    from ..datasets.readers import read_dataset

    fewest = min(len(shots) for shots in read_dataset(root, given.products, given.defects).shots.values())
    return given.shots if given.shots is not None and given.shots > max(1, fewest // THIRD) else None


def _weights(names: tuple[str, ...], features: Path | None, inception: Path | None, lpips: Path | None) -> Weights:
    """Files of weights; InputError for those that are not there, are others or of no use, and for one of a pair."""
    from ..benchmark import Weights

    given = {"--features": features, "--inception": inception, "--lpips": lpips}
    if used := [option for option, path in given.items() if path is not None and Suites.paper.value not in names]:
        raise InputError(f"{used[0]} goes with --suite {Suites.paper.value}")
    if (inception is None) != (lpips is None):
        raise InputError("IS and IC-LPIPS go together; give both --inception and --lpips, or neither")
    for path in given.values():
        if path is not None and not path.is_file():
            raise InputError(f"there are no weights at {path}")
    weights = Weights(features, inception, lpips)
    weights.check()
    return weights


def _budget(given: _Given, pairs: int | None, network: str, place: str) -> Budget:
    from ..benchmark import FULL, QUICK
    from ..evaluation.localizer import LocalizerSettings

    budget = QUICK if given.quick else FULL
    shots = given.shots if given.shots is not None or given.target != SURFACES else SHOTS
    small = budget.detector
    detector = LocalizerSettings(network, small.size, steps=small.steps)
    return replace(budget, pairs=pairs or budget.pairs, shots=shots, detector=detector, place=place)


def _of_dual(budget: Budget, names: tuple[str, ...], steps: int | None, lr: float | None) -> Budget:
    """The budget with what was asked of dual models; InputError if none is learned, or not so."""
    if (steps, lr) == (None, None):
        return budget
    if Suites.dual.value not in names:
        option = "--dual-lr" if steps is None else "--dual-steps"
        raise InputError(f"{option} goes with --suite {Suites.dual.value}")
    from ..dual.training import PAPER_LR, PAPER_STEPS, DualSettings

    steps = budget.dual_steps if steps is None else steps
    if lr is None:
        lr = PAPER_LR if steps >= PAPER_STEPS else budget.dual_lr
    DualSettings(steps, lr=lr)  # refuses what is not possible
    return replace(budget, dual_steps=steps, dual_lr=lr)


def _clear(out: Path) -> None:
    """Remove a benchmark to begin it anew; raises InputError, and removes nothing, if there is something else."""
    from ..benchmark.run import PARTS, RECORD

    if not (out / RECORD).exists():
        return
    if foreign := sorted({path.name for path in out.iterdir()} - PARTS - {LOCK}):
        raise InputError(f"{out} holds {foreign[0]} beside its benchmark; move that away or choose another folder")
    with run_lock(out):
        clear_folder(out)


def _tell(line: str, left: float) -> None:
    typer.echo(f"{line}; {duration(left)} left" if left else line, err=True)


def _report(out: Path, root: Path, cells: Sequence[Cell]) -> None:
    """Write the report of what there is, also of a benchmark that was stopped."""
    from ..benchmark import write_report
    from ..benchmark.run import ROWS, place_of, read_rows

    if (out / ROWS).exists():
        with join_run(out):
            there = {place_of(row) for row in read_rows(out)}
            write_report(out, root, left=sum(cell.place not in there for cell in cells))
