"""`adiff evaluate`: what a detector learns from generated pairs, measured on real images that nothing learned from."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import InputError
from ..run_record import check_once
from ..storage import LOCK, clear_folder, run_lock, write_json, write_text
from .app import keeping
from .command import check_idle
from .options import Base, Precision, PrecisionName, Seed
from .progress import CliProgress

if TYPE_CHECKING:
    from ..datasets.readers import Shot
    from ..evaluation.material import Run
    from ..evaluation.splits import Split

logger = logging.getLogger("adiff")
evaluate = typer.Typer(rich_markup_mode="rich")


class Network(str, Enum):
    """Networks of a localizer (`evaluation.networks.NETWORKS`)."""

    small = "small"
    draem = "draem"
    smp = "smp"


Data = Annotated[
    Path, typer.Argument(metavar="DATA", help="Real images of the defects, in a layout that `adiff train` reads.")
]
Runs = Annotated[list[Path], typer.Argument(metavar="RUN...", help="Finished runs of one product.")]
Shots = Annotated[
    int | None,
    typer.Option("--shots", min=1, help="Shots that taught, those with the lowest ids.  [dim]default: what the "
                 "run's record names[/dim]"),
]  # fmt: skip
LibraryOption = Annotated[
    Path | None,
    typer.Option("--library", metavar="LIB", help="Library of the run: its record says which shots taught, where that "
                 "of the run, made by an older version, does not."),
]  # fmt: skip
GroupRule = Annotated[
    str | None,
    typer.Option("--group", metavar="REGEX", help="Its parenthesis takes a file's group out of its path.  "
                 "[dim]default: groups.json in DATA, if there is one[/dim]"),
]  # fmt: skip
Size = Annotated[int, typer.Option("--size", min=16, help="Side of the network's images, pixels, of 16 or 32.")]
NetworkOption = Annotated[
    Network,
    typer.Option("--network", help="[b]small[/b]: ours; [b]draem[/b]: the papers', large and slow; [b]smp[/b]: "
                 "segmentation-models-pytorch's U-Net, if that is installed."),
]  # fmt: skip
Steps = Annotated[int, typer.Option("--steps", min=1, help="Training steps.")]
Out = Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder to write; new or empty.")]


@evaluate.callback(invoke_without_command=True, epilog="Example:  adiff evaluate uplift surfaces run --out up")
def root(ctx: typer.Context) -> None:
    """Measure what generated pairs are worth, on real images that nothing learned from."""
    if ctx.invoked_subcommand is None:
        typer.echo(ctx.get_help())


@evaluate.command(epilog="Example:  adiff evaluate localization surfaces run --shots 3 --out found")
def localization(
    data: Data, runs: Runs, out: Out, shots: Shots = None, library: LibraryOption = None, group: GroupRule = None,
    network: NetworkOption = Network.small, size: Size = 128, steps: Steps = 400, seed: Seed = 0,
) -> None:  # fmt: skip
    """Train a detector on generated pairs and normal images; find real defects: AUROC, AP, F1-max, PRO."""
    from ..evaluation.localization import measure_localization
    from ..evaluation.localizer import LocalizerSettings
    from ..evaluation.localizer_file import save_localizer
    from ..evaluation.table import SHOWN, UNDEFINED

    _check_new(out)
    settings = LocalizerSettings(network.value, size, steps=steps)
    opened, split = _open(data, runs, shots, library, group)
    with _all_or_none(out):
        with CliProgress() as progress, keeping("nothing is written"):
            trained, record = measure_localization(opened, split, settings=settings, seed=seed, progress=progress)
        lines = [f"| defect | {' | '.join(SHOWN.values())} |", f"|---|{'---:|' * len(SHOWN)}"]
        for name, metrics in {**record["by_defect"], "all": record["metrics"]}.items():
            values = [UNDEFINED if metrics[m] is None else f"{100 * metrics[m]:.1f}" for m in SHOWN]
            lines.append(f"| {name} | {' | '.join(values)} |")
        save_localizer(out / "localizer.safetensors", trained)
        _write(out, "localization", record, opened, split, settings, "\n".join(lines))
    typer.echo("\n".join(lines))


@evaluate.command(epilog="Example:  adiff evaluate uplift surfaces run --shots 3 --seeds 3 --out up")
def uplift(
    ctx: typer.Context,
    data: Data,
    runs: Annotated[
        list[Path], typer.Argument(metavar="RUN...", help="Finished runs of one product; their pairs are mixed.")
    ],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder to write; given again, it goes on.")],
    shots: Shots = None,
    library: LibraryOption = None,
    group: GroupRule = None,
    rows: Annotated[
        list[str] | None,
        typer.Option("--row", metavar="ROW", help="What to learn from, once for each: real, real + crop-paste, "
                     "real + cutpaste, real + draem, real + generated, generated; or, painted with --base: real + "
                     "textual-inversion, real + prompt-to-prompt.  [dim]default: all that are not painted[/dim]"),
    ] = None,
    seeds: Annotated[int, typer.Option("--seeds", min=1, help="Times that each row is learned anew.")] = 3,
    count: Annotated[
        int | None, typer.Option("-n", min=1, help="Synthetic pairs of a row.  [dim]default: all that may teach[/dim]")
    ] = None,
    textures: Annotated[
        Path | None,
        typer.Option("--textures", metavar="DIR", help="Textures for DRAEM.  [dim]default: the normal image's own "
                     "tiles, shuffled[/dim]"),
    ] = None,
    base: Base = "demo",
    precision: PrecisionName = Precision.auto,
    network: NetworkOption = Network.small,
    size: Size = 128,
    steps: Steps = 400,
) -> None:  # fmt: skip
    """Train detectors with and without synthetic pairs, at the same budget, and compare them on real images."""
    from ..datasets.readers import list_images
    from ..evaluation.localizer import LocalizerSettings
    from ..evaluation.table import markdown, summarise_rows
    from ..evaluation.uplift import PAINTED, REAL, ROWS, Painter, measure_uplift

    settings, rows = LocalizerSettings(network.value, size, steps=steps), tuple(rows or ROWS)
    if not any(row.endswith("draem") for row in rows):
        check_idle(ctx, "without a row of DRAEM's", "textures")
    if not set(rows) & set(PAINTED):
        check_idle(ctx, "without a row that is painted", "base", "precision")
    files = () if textures is None else list_images(textures)
    opened, split = _open(data, runs, shots, library, group)
    painter = None
    if set(rows) & set(PAINTED):
        from ..backbone import load_backbone

        painter = Painter(load_backbone(base, precision=precision.value))
    with CliProgress() as progress, keeping(f"finished rows are in {out}; the same command makes the rest"):
        found = measure_uplift(
            opened, split, out, rows=rows, seeds=seeds, count=count, settings=settings, textures=files,
            painter=painter, progress=progress,
        )  # fmt: skip
    rows = summarise_rows(found, REAL)
    record = {"rows": rows, "seconds": sum(row["seconds"] for row in found)}
    _write(out, "report", record, opened, split, settings, markdown(rows, REAL))
    typer.echo(markdown(rows, REAL))


@evaluate.command(epilog="Example:  adiff evaluate classification surfaces run-hole run-stain --shots 3 --out kinds")
def classification(
    data: Data, runs: Runs, out: Out, shots: Shots = None, library: LibraryOption = None, group: GroupRule = None,
    weights: Annotated[
        Path | None,
        typer.Option("--weights", metavar="FILE", help="torchvision's resnet34.  [dim]default: random weights[/dim]"),
    ] = None,
    size: Size = 128, steps: Steps = 300, seed: Seed = 0,
) -> None:  # fmt: skip
    """Train a ResNet-34 on generated images of two or more defects and tell real ones apart."""
    from ..evaluation.classification import ClassifierSettings, measure_classification

    _check_new(out)
    settings = ClassifierSettings(size=size, steps=steps)
    opened, split = _open(data, runs, shots, library, group)
    with _all_or_none(out):
        with CliProgress() as progress, keeping("nothing is written"):
            record = measure_classification(
                opened, split, settings=settings, weights=weights, seed=seed, progress=progress
            )  # fmt: skip
        names = record["classes"]
        lines = [f"| true \\ told | {' | '.join(names)} | accuracy |", f"|---|{'---:|' * (len(names) + 1)}"]
        for name, row in zip(names, record["confusion"], strict=True):
            lines.append(f"| {name} | {' | '.join(map(str, row))} | {100 * record['by_class'][name]:.1f} |")
        lines.append(f"\nAccuracy over all images: {100 * record['accuracy']:.1f}")
        _write(out, "classification", record, opened, split, settings, "\n".join(lines))
    typer.echo("\n".join(lines))


@evaluate.command(epilog="Example:  adiff evaluate quality surfaces run --features resnet34.pth --out quality")
def quality(
    data: Data,
    runs: Annotated[
        list[Path], typer.Argument(metavar="RUN...", help="Finished runs of one defect; their images are mixed.")
    ],
    out: Out,
    features: Annotated[
        Path | None,
        typer.Option("--features", metavar="FILE", help="torchvision's resnet34: the same formulas on it, with no "
                     "package and no download; comparable among each other only."),
    ] = None,
    inception: Annotated[
        Path | None,
        typer.Option("--inception", metavar="FILE", help="torch-fidelity's Inception-v3.  [dim]default: downloaded, "
                     "once[/dim]"),
    ] = None,
    lpips: Annotated[
        Path | None,
        typer.Option("--lpips", metavar="FILE", help="torchvision's vgg16, for LPIPS.  [dim]default: downloaded, "
                     "once[/dim]"),
    ] = None,
    shots: Shots = None,
    library: LibraryOption = None,
    size: Annotated[
        int | None,
        typer.Option("--size", min=16, help="Side that images are compared at, pixels.  [dim]default: 256, with "
                     "--features 224[/dim]"),
    ] = None,
) -> None:  # fmt: skip
    """Measure how clear and varied generated images are: Inception Score and IC-LPIPS.

    They need the packages torch-fidelity and lpips (pip install 'anomaly-diffusion\\[quality]') and two files of
    weights. Without them give --features: the formulas are the same, the values are not, and go by other names.
    """
    from ..datasets.readers import read_dataset
    from ..evaluation.material import read_run
    from ..evaluation.splits import split_shots

    _check_new(out)
    if features is not None and (inception or lpips):
        raise InputError("--features takes the place of --inception and --lpips; give one or the others")
    if features is None:
        from ..evaluation.published import check_packages

        check_packages()  # before the files are read
    check_once(runs)
    opened = [read_run(folder) for folder in runs]
    key = opened[0].key
    if others := [run for run in opened if run.key != key]:
        raise InputError(
            f"{runs[0]} is of {'/'.join(key)}, {others[0].folder} of {'/'.join(others[0].key)}; images are compared "
            "with their own defect's shots: measure each defect by itself"
        )
    dataset = read_dataset(data, [key[0]], [key[1]])
    taught, _ = split_shots(dataset, key, _wanted(opened, shots, library)[key[1]])
    names = [shot.image.relative_to(dataset.root).as_posix() for shot in taught]
    with _all_or_none(out):
        with CliProgress() as progress, keeping("nothing is written"):
            if features is None:
                record, table = _published(opened, taught, inception, lpips, size or 256, progress)
            else:
                record, table = _on_features(opened, taught, features, size or 224, progress)
        record |= {"runs": [run.record() for run in opened], "shots": names}
        _save(out, "quality", record, table)
    typer.echo(table)


def _published(
    runs: Sequence[Run], taught: Sequence[Shot], inception: Path | None, vgg: Path | None, size: int,
    progress: CliProgress,
) -> tuple[dict[str, Any], str]:  # fmt: skip
    from ..evaluation.published import measure_published

    record = measure_published(runs, taught, inception=inception, vgg=vgg, size=size, progress=progress)
    rows = {"Inception Score": f"{record['inception_score']:.3f}", "IC-LPIPS": _distance(record["ic_lpips"])}
    return record, _two_columns("measure", rows)


def _on_features(
    runs: Sequence[Run], taught: Sequence[Shot], features: Path, size: int, progress: CliProgress
) -> tuple[dict[str, Any], str]:
    from ..evaluation.quality import measure_quality

    record = measure_quality(runs, taught, features, size=size, progress=progress)
    rows = {
        "class score (IS's formula)": f"{record['class_score']:.3f}",
        "cluster distance (IC-LPIPS' formula)": _distance(record["cluster_distance"]),
    }
    return record, _two_columns(f"on {record['network']['kind']} {record['network']['file']}", rows)


def _distance(value: float | None) -> str:
    from ..evaluation.table import UNDEFINED

    return UNDEFINED if value is None else f"{value:.4f}"


def _two_columns(head: str, rows: dict[str, str]) -> str:
    return "\n".join([f"| {head} | value |", "|---|---:|", *(f"| {name} | {value} |" for name, value in rows.items())])


def _check_new(out: Path) -> None:
    if out.exists() and (not out.is_dir() or any(path.name != LOCK for path in out.iterdir())):
        raise InputError(f"{out} is not empty; give a new or an empty folder")


@contextmanager
def _all_or_none(out: Path) -> Iterator[None]:
    """Be alone in a folder that holds nothing; what ends early, as on a full disk, leaves nothing for the next try."""
    with run_lock(out):
        _check_new(out)
        try:
            yield
        except BaseException:
            clear_folder(out)
            raise


def _open(
    data: Path, runs: Sequence[Path], shots: int | None, library: Path | None, group: str | None
) -> tuple[list[Run], Split]:
    """Open runs of one product and split the data; InputError for what does not go together."""
    from ..evaluation.material import check_untaught, read_run
    from ..evaluation.splits import read_split

    check_once(runs)
    opened = [read_run(folder) for folder in runs]
    products = sorted({run.key[0] for run in opened})
    if len(products) > 1:
        raise InputError(f"the runs are of {', '.join(products)}; give runs of one product")
    split = read_split(data, products[0], _wanted(opened, shots, library), group)
    for run in opened:
        check_untaught(run, split)
    return opened, split


def _wanted(
    runs: Sequence[Run], shots: int | None, library: Path | None
) -> dict[str, int | Sequence[str] | None]:  # fmt: skip
    """Defect -> the shots that taught it, of several runs those of each, as `read_split` takes them."""
    from ..evaluation.material import shots_of
    from ..library import load_library

    if shots is not None and library is not None:
        raise InputError("both --shots and --library given; the library's record already says which shots taught")
    if shots is not None:
        return {run.key[1]: shots for run in runs}
    learned, wanted = None if library is None else load_library(library), {}
    for run in runs:
        names = shots_of(run, learned)
        if names is None:
            logger.warning("%s does not say which shots taught: the third with the lowest ids is taken for them. If "
                           "others did, tests on them say too much: give --library or --shots", run.folder)  # fmt: skip
        known = wanted.setdefault(run.key[1], names)
        wanted[run.key[1]] = None if names is None or known is None else list(dict.fromkeys((*known, *names)))
    return wanted


def _write(
    out: Path, name: str, record: dict[str, Any], runs: Sequence[Run], split: Split, settings: Any, table: str
) -> None:
    """Write the record with what it was made from, and its table."""
    from dataclasses import asdict

    about = {"runs": [run.record() for run in runs], "split": split.record(), "settings": asdict(settings)}
    _save(out, name, {**record, **about}, table)


def _save(out: Path, name: str, record: dict[str, Any], table: str) -> None:
    from ..versions import versions

    write_json(out / f"{name}.json", {**record, "versions": versions()})
    write_text(out / f"{name}.md", table + "\n")
