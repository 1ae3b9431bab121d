"""`adiff run`: how far a run is, whether what it has written is whole, and a page that shows it."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any

import typer

from .. import run_record
from ..errors import InputError, all_reasons
from ..run_record import PASTING, record_paths
from ..workers import workers_of
from .app import keeping, printable
from .destination import Destination
from .normals import PLACES, normals_of
from .progress import CliProgress, duration
from .verification import Findings, check_run

WRONG = 1
"""Exit code of `verify` where something is wrong, and of `status` where pairs are broken: a photo or a mask fails."""
RECENT = 600.0
"""Seconds of work that a run's rate is taken from."""

run = typer.Typer(rich_markup_mode="rich")
RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a run, as `adiff generate` writes it.")]
PairIds = Annotated[list[str], typer.Argument(metavar="ID...", help="Numbers of pairs, as their images are called.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@run.callback(invoke_without_command=True, epilog="Example:  adiff run status run")
def root(ctx: typer.Context) -> None:
    """Ask how far a run is, check what it has written, show it, and take out what does not look right."""
    if ctx.invoked_subcommand is None:
        typer.echo(ctx.get_help())


@run.command(epilog="Example:  adiff run status run")
def status(
    ctx: typer.Context,
    folders: Annotated[
        list[str], typer.Argument(metavar="RUN...", help="Folder of a run, or its URL in object storage, as `adiff "
                                  "generate` writes it; of several there is a line each, and their sum.")
    ],
    as_json: AsJson = False,
) -> None:  # fmt: skip
    """Say how far a run is, how fast, and who works on it; exit code 1 if pairs are broken, 0 for pairs given up."""
    run_record.check_once(list(map(Path, folders)))
    looks = [_look(Destination(ctx, folder)) for folder in folders]
    told = [about for _, about in looks]
    if as_json:
        typer.echo(json.dumps(_one_or_all(told), indent=1))
    elif len(looks) == 1:
        for name, line in told_of(*looks[0]).items():
            typer.echo(f"{name:<10} {printable(line)}")
    else:
        for plan, about in looks:
            typer.echo(printable(f"{about['run']}: {plan.name}, {_counted([about])}{_rated(about)}"))
        typer.echo(f"{len(looks)} runs: {_counted(told)}")
    if any(about["broken"] for about in told):
        raise typer.Exit(WRONG)


def _look(place: Destination) -> tuple[Plan, dict[str, Any]]:
    """What a run asks for, and how far it is."""
    place.look()
    plan = plan_of(place.folder)
    about = run_record.undisturbed([place.folder], lambda: progress_of(place.folder, plan))
    return plan, {"run": place.told, **about}


def _one_or_all(found: Sequence[dict[str, Any]]) -> dict[str, Any] | Sequence[dict[str, Any]]:
    """What --json prints: the object of one run, a list of several."""
    return found[0] if len(found) == 1 else found


@run.command(epilog="Example:  adiff run fetch s3://BUCKET/run run")
def fetch(
    url: Annotated[str, typer.Argument(metavar="URL", help="A run in object storage.")],
    out: Annotated[Path, typer.Argument(metavar="DIR", help="Folder to copy it to; new, empty, or of the same run.")],
) -> None:
    """Copy a run from object storage to a disk, where the other commands take it; given again, what is new."""
    from ..object_storage import ObjectFolder, fetch_run, is_url

    if not is_url(url):
        raise InputError(f"{url} is no URL; give for instance s3://BUCKET/RUN")
    with CliProgress() as progress, keeping(f"what was copied is in {out}; the same command copies the rest"):
        pairs = fetch_run(ObjectFolder(url, out), progress)
    typer.echo(f"{pairs} pairs of {url} in {out}")


@run.command(epilog="Example:  adiff run verify run --normals surfaces/wood/train/good")
def verify(
    folders: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Folder of a run; several are checked each.")],
    normals: Annotated[
        list[Path] | None,
        typer.Option("--normals", metavar="DIR", help=f"The runs' normal images, {PLACES}: nothing outside a mask may "
                     "differ; once for all runs, or once for each."),
    ] = None,
    as_json: AsJson = False,
) -> None:  # fmt: skip
    """Open every pair of a run and check it; exit code 1 if anything is wrong."""
    run_record.check_once(folders)
    plans = [plan_of(folder) for folder in folders]
    checked = []
    with CliProgress() as progress, keeping("nothing was changed"):
        for folder, plan, files in zip(folders, plans, _normals_of_each(plans, normals), strict=True):
            photos = None if files is None else {path.name: path for path in files}
            checked.append(check_run(folder, plan, photos, progress))
    if as_json:
        found = [{"run": str(folder), **asdict(of_run)} for folder, of_run in zip(folders, checked, strict=True)]
        typer.echo(json.dumps(_one_or_all(found), indent=1))
    else:
        for of_run in zip(folders, plans, checked, strict=True):
            _tell_checked(*of_run, several=len(folders) > 1)
    if any(found.wrong for found in checked):
        raise typer.Exit(WRONG)


def _tell_checked(folder: Path, plan: Plan, found: Findings, several: bool) -> None:
    """Print what was found of a run; of several each line names its own."""
    name = f"{folder}: " if several else ""
    for line in (*found.wrong, *(f"note: {line}" for line in found.notes)):
        typer.echo(printable(f"{name}{line}"))
    verdict = "all of them are whole"
    if found.wrong:
        remedy = "where a pair's record in pairs/ is removed, the run's command makes it again"
        verdict = f"things wrong: {len(found.wrong)}; {remedy}"
    typer.echo(printable(f"{folder}: {found.pairs} of {plan.count} pairs, {verdict}"))


def _normals_of_each(plans: Sequence[Plan], given: Sequence[Path] | None) -> list[list[Path] | None]:
    """The normal images of each run, None where --normals was not given; InputError for some runs' alone."""
    places = list(given or [None])
    if len(places) not in (1, len(plans)):
        raise InputError(f"--normals given {len(places)} times, RUN {len(plans)} times; give one for all, or for each")
    places *= len(plans) // len(places)
    return [place and normals_of(plan.product, place) for plan, place in zip(plans, places, strict=True)]


@run.command(epilog="Example:  adiff run report run --normals surfaces/wood/train/good")
def report(
    folders: Annotated[
        list[Path], typer.Argument(metavar="RUN...", help="Folder of a run; several are shown side by side.")
    ],
    normals: Annotated[
        list[Path] | None,
        typer.Option("--normals", metavar="DIR", help=f"The runs' normal images, {PLACES}, to compare before and "
                     "after; once for all runs, or once for each."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="FILE", help="The page.  [dim]default: report.html in RUN; of several "
                     "comparison.html beside the first[/dim]"),
    ] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, help="Pairs shown of each run, evenly picked.")] = 48,
) -> None:  # fmt: skip
    """Write a page with a run's pairs, rejects, measures and settings; it needs nothing beside it."""
    plans = [plan_of(folder) for folder in folders]
    if out is not None and out.is_dir():
        raise InputError(f"--out {out} is a folder; give the name of a page, for instance {out / 'report.html'}")
    from ..report import report_of_run, report_of_runs

    places = [files[0].parent for files in _normals_of_each(plans, normals) if files]
    with keeping("nothing was written"):
        if len(folders) > 1:
            page = report_of_runs(folders, normals=places, out=out, limit=limit)
        else:
            page = report_of_run(folders[0], normals=places[0] if places else None, out=out, limit=limit)
        typer.echo(page)


@run.command(epilog="Example:  adiff run reject run 000003 000017")
def reject(folder: RunFolder, ids: PairIds) -> None:
    """Take pairs out that do not look right: kept in RUN/rejects, in no export, not made again."""
    from ..rejection import reject_pairs

    numbers = _numbers(ids)
    reject_pairs(folder, numbers)
    kept = len(run_record.made_ids(folder))
    typer.echo(f"{_pairs(numbers)} rejected, in {folder / run_record.REJECTS}; {_pairs(range(kept))} left in {folder}")


@run.command(epilog="Example:  adiff run restore run 000003")
def restore(folder: RunFolder, ids: PairIds) -> None:
    """Put rejected pairs back, also those that broke a limit."""
    from ..rejection import put_back

    numbers = _numbers(ids)
    put_back(folder, numbers)
    typer.echo(f"{_pairs(numbers)} put back; {_pairs(run_record.made_ids(folder))} in {folder}")


def _numbers(ids: Sequence[str]) -> list[int]:
    """The numbers of pairs, each once; InputError for what is no number."""
    for name in ids:
        if not name.isascii() or not name.isdigit() or len(name) > 18:
            raise InputError(f"{name[:40]!r} is no pair's number; give it as its image is called, for instance 000003")
    return list(dict.fromkeys(map(int, ids)))


def _pairs(numbers: Collection[int]) -> str:
    return f"{len(numbers)} pair{'s' * (len(numbers) != 1)}"


@dataclass(frozen=True)
class Plan:
    """What run.json asks for.

    base: None for pasted pairs, of which `method` tells how. guidance: of each defect, where the run has found it.
    is_dual: whether they are whole images of a dual model, with no normal image behind them.
    """

    product: str
    defect: str
    count: int
    batch: int
    seed: int
    base: str | None
    settings: dict[str, Any]
    tries: int = 1
    method: str | None = None
    guidance: dict[str, float] = field(default_factory=dict)
    is_dual: bool = False

    @property
    def name(self) -> str:
        return f"{self.product}/{self.defect}"


def plan_of(folder: Path) -> Plan:
    """Read run.json. Raises FileNotFoundError for no folder, InputError for one that is no run, damaged or newer."""
    content, record = run_record.read_plan(folder), folder / "run.json"
    settings, base, method = content.get("settings"), content.get("base"), content.get("method")
    values = {name: content.get(name) for name in ("product", "defect", "count", "seed")}
    if not isinstance(settings, dict):
        raise InputError(f"{record} is damaged: it has no settings")
    values |= {"batch": settings.get("batch"), "base": base.get("name") if isinstance(base, dict) else None}
    kinds = {"product": str, "defect": str, "base": str, "count": int, "batch": int, "seed": int}
    if pasted := base is None and method in PASTING:
        del kinds["base"]
    for name, kind in kinds.items():
        value = values[name]
        if not isinstance(value, kind) or isinstance(value, bool) or (name in ("count", "batch") and value < 1):
            raise InputError(f"{record} is damaged: {name} is {str(value)[:40]!r}")
    fits = zip(run_record.defects_of(content), run_record.fits_of(content), strict=False)
    guidance = {str(defect): fit["value"] for defect, fit in fits}
    return Plan(settings=settings, tries=run_record.tries_of(content), method=method if pasted else None,
                guidance=guidance, is_dual=method == "dual", **values)  # fmt: skip


def progress_of(folder: Path, plan: Plan) -> dict[str, Any]:
    """Count what is settled of a run; of the records only those of rejects and broken pairs are opened."""
    written = {int(path.stem): path.stat().st_mtime for path in record_paths(folder) if int(path.stem) < plan.count}
    batches = -(-plan.count // plan.batch)
    lost = run_record.given_up(folder, plan.tries) - set(written)
    names = {f"{number:06d}" for number in written}
    broken = [one for one in run_record.read_broken(folder) if one.get("id") not in names]
    left = max(plan.count - len(written) - len(lost) - len(broken), 0)
    settled = {*written, *lost, *run_record.broken_ids(folder)}
    in_batch = Counter(number // plan.batch for number in settled if number < plan.count)
    done = sum(there == min(plan.batch, plan.count - batch * plan.batch) for batch, there in in_batch.items())
    rejects, rate = run_record.read_rejects(folder), rate_of(list(written.values()))
    return {
        "product": plan.product, "defect": plan.defect, "base": plan.base, "seed": plan.seed, "count": plan.count,
        "done": len(written), "rejected": len(lost), "left": left,
        "batches": {"done": done, "begun": len(in_batch) - done, "of": batches, "size": plan.batch},
        "seconds_since_last": round(max(time.time() - max(written.values()), 0), 1) if written else None,
        "pairs_per_second": rate, "seconds_left": None if not rate else round(left / rate, 1),
        "workers": workers_of(folder), "rejects": {"tries": len(rejects), "reasons": reasons_of(rejects)},
        "broken": [{name: str(one.get(name)) for name in ("id", "normal", "reason")} for one in broken],
        "settings": plan.settings, "guidance": plan.guidance or None,
    }  # fmt: skip


def rate_of(times: Sequence[float]) -> float | None:
    """Pairs a second of the last RECENT seconds of work, by the times at which records were written; None for too few.

    Those written first are left out: when they were begun is not known.
    """
    last = max(times, default=0.0)
    recent = [when for when in times if when > last - RECENT]
    first = min(recent, default=last)
    return round(sum(when > first for when in recent) / (last - first), 4) if last > first else None


def reasons_of(rejects: Iterable[dict[str, Any]]) -> dict[str, int]:
    """How many tries broke the limit on each measure, or were rejected by hand, the most frequent first."""
    reasons = [str(reason) for one in rejects if isinstance(one.get("reasons"), list) for reason in one["reasons"]]
    of_measures = [one if one == run_record.BY_HAND else one.rpartition(": ")[2].partition(" ")[0] for one in reasons]
    return dict(Counter(of_measures).most_common())


def told_of(plan: Plan, about: dict[str, Any]) -> dict[str, str]:
    """What `status` says of a run, line by line."""
    folder, batches, last, workers = about["run"], about["batches"], about["seconds_since_last"], about["workers"]
    begun = f", {batches['begun']} begun" if batches["begun"] else ""
    lines = {
        "run": f"{folder}: {plan.name} {f'on {plan.base}' if plan.base else f'by {plan.method}'}, seed {plan.seed}",
        "pairs": _counted([about]),
        "batches": f"{batches['done']} of {batches['of']} of {plan.batch} each{begun}",
        "last pair": "none yet" if last is None else f"{duration(last)} ago",
    }
    if rate := _rated(about):
        lines["rate"] = rate.removeprefix(", ")
    if workers or about["left"]:
        named = ", ".join(f"process {one['pid']} on {one['host']}" for one in workers)
        lines["workers"] = named or "none; the command that began the run makes the rest"
    if tries := about["rejects"]["tries"]:
        reasons = ", ".join(f"{name} {number}" for name, number in about["rejects"]["reasons"].items())
        lines["rejects"] = f"{tries} ({reasons}), in {folder}/{run_record.REJECTS}"
    if about["broken"]:
        first, why = about["broken"][0], all_reasons(one["reason"] for one in about["broken"])
        lines["broken"] = f"{len(about['broken'])}, the first is {first['id']}: {why}"
    if plan.guidance:
        found = ", ".join(f"{value:g} for {defect}" for defect, value in plan.guidance.items())
        lines["guidance"] = f"found: {found}"
    settings = ", ".join(f"{name} {value}" for name, value in about["settings"].items() if value is not None)
    return lines | {"settings": settings}


def _counted(told: Sequence[dict[str, Any]]) -> str:
    """The pairs of runs, together."""
    done, of, rejected, left = (sum(about[name] for about in told) for name in ("done", "count", "rejected", "left"))
    broken = sum(len(about["broken"]) for about in told)
    lost = (f", {rejected} given up" if rejected else "") + (f", {broken} broken" if broken else "")
    return f"{done} of {of}{lost}, {left} left"


def _rated(about: dict[str, Any]) -> str:
    """The rate of a run that goes on."""
    if not about["pairs_per_second"] or not about["left"]:
        return ""
    return f", {about['pairs_per_second']:.3g} pairs/s, {duration(about['seconds_left'])} left at that"
