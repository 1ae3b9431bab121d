"""What commands that make pairs say at their end: what came out, and what is missing, and why."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from ..errors import all_reasons
from ..run_record import BROKEN, NO_MASK, read_plan
from .cluster import Incomplete

if TYPE_CHECKING:
    from ..generation import RunResult

logger = logging.getLogger("adiff")


def tell_made(
    names: Sequence[str], results: Sequence[RunResult], reports: Sequence[Path], out: str, every: bool, fit: bool
) -> None:  # fmt: skip
    """Say what came out, and where to look at it: of one run in a line, of --all in a table.

    names: of the runs. fit: whether the guidance was found, which is told then.
    """
    from ..report import summarise

    numbers = [summarise(result.pairs) for result in results]
    fitted = [_fitted(result) for result in results] if fit else []
    if not every:
        (found,) = numbers
        measures = "median fill {fill:.2f}, leak at most {leak:.0f} levels".format(**found) if found["pairs"] else ""
        pairs = f"{counted(found['pairs'], 'pair')} of {names[0]} in {out}"
        told = [pairs, *(f"guidance {one}" for one in fitted), measures]
        typer.echo(", ".join(filter(None, told)) + "".join(f"; report: {path}" for path in reports))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("defect")
    for column in ("pairs", "median fill", *(["guidance"] if fit else [])):
        table.add_column(column, justify="right")
    for run, of_run, *guidance in zip(names, numbers, *([fitted] if fit else []), strict=True):
        fill = f"{of_run['fill']:.2f}" if of_run["pairs"] else "-"
        table.add_row(run, str(of_run["pairs"]), fill, *guidance)
    Console().print(table)
    pairs = counted(sum(of_run["pairs"] for of_run in numbers), "pair")
    where = f"; reports: {reports[0]}{' and so on' * (len(reports) > 1)}" if reports else ""
    typer.echo(f"{pairs} in {counted(len(names), 'run')} in {out}{where}")


def _fitted(result: RunResult) -> str:
    """The guidance that a run has found, of several defects in their order."""
    found = read_plan(result.out)["settings"]["guidance"]
    return " and ".join(f"{one:g}" for one in (found if isinstance(found, list) else [found]))


def counted(count: int, what: str) -> str:
    """That many of something, in words."""
    return f"{count} {what}{'s' * (count != 1)}"


def tell_missing(results: Sequence[RunResult], count: int, name: Callable[[Path], str] = str) -> None:
    """Say which pairs are missing, and why. Raises InputError for those whose normal image does not open.

    count: pairs of each run. name: what to call a run's folder.
    """
    for result in results:
        run = name(result.out)
        if result.rejected:
            logger.warning(
                "%d of %d pairs were rejected, in all their tries or by hand, and are missing; they are in %s/rejects, "
                "`adiff run status %s` says why", len(result.rejected), count, run, run,
            )  # fmt: skip
        lacking = [one for one in result.broken if one.get(NO_MASK)]
        if lacking:
            logger.warning(
                "%d of %d pairs have no mask and are missing, the first as %s; %s/%s lists them",
                len(lacking), count, lacking[0].get("reason"), run, BROKEN,
            )  # fmt: skip
    broken = [one for result in results for one in result.broken if not one.get(NO_MASK)]
    if broken:
        why = all_reasons(one.get("reason") for one in broken)
        raise Incomplete(f"pairs that were not made: {len(broken)}, as {why}; put these normal images right, then give "
                         "the same command again")  # fmt: skip
