"""Several runs side by side: one page with the measures, pairs and rejects of each, and the settings that differ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..run_record import check_once, undisturbed
from .page import Report, write_report
from .run import LIMIT, Told, settings_of, told_of

NAME = "comparison.html"
"""The page's name, beside the first run's folder."""


def report_of_runs(
    runs: Sequence[Path], *, normals: Sequence[Path] = (), out: Path | None = None, limit: int = LIMIT
) -> Path:
    """Write a page that shows several runs, comparison.html beside the first unless `out` says otherwise; its path.

    normals: folder of each run's normal images; none for no comparison with them. limit: pairs shown of each run.
    Raises InputError as `report_of_run` does, and for a run given twice.
    """
    check_once(runs)
    page = out or runs[0].resolve().parent / NAME
    return undisturbed(runs, lambda: _written(runs, normals, page, limit))


def _written(runs: Sequence[Path], normals: Sequence[Path], out: Path, limit: int) -> Path:
    names = _names(runs)
    told = [told_of(run, folder) for run, folder in zip(runs, normals or [None] * len(runs), strict=True)]
    blocks = [
        replace(block, defect=f"{block.defect} ({name})")
        for name, one in zip(names, told, strict=True)
        for block in one.blocks
    ]
    rejects = [
        replace(of_run, name=f"{of_run.name} ({name})")
        for name, one in zip(names, told, strict=True)
        for of_run in one.rejects
    ]
    report = Report(
        title=" and ".join(names),
        lead=f"{len(runs)} runs side by side; their settings stand below as far as they differ.",
        blocks=blocks,
        command="\n".join(one.command for one in told),
        settings=differing(names, told),
        seconds={},
        notes=tuple(dict.fromkeys(note for one in told for note in one.notes)),
        rejects=rejects,
    )
    return write_report(out, report, limit=limit)


def differing(names: Sequence[str], told: Sequence[Told]) -> dict[str, dict[str, Any]]:
    """Return what all runs are made by, under `all runs`, and under each one's name what others do not share."""
    flat = [
        {(section, name): value for section, values in settings_of(one.plan).items() for name, value in values.items()}
        for one in told
    ]
    keys = dict.fromkeys(key for one in flat for key in one)
    alike = {key: flat[0][key] for key in keys if all(key in one and one[key] == flat[0].get(key) for one in flat)}
    sections = {
        name: _told({key: one[key] for key in keys if key in one and key not in alike})
        for name, one in zip(names, flat, strict=True)
    }
    return {title: values for title, values in {**sections, "all runs": _told(alike)}.items() if values}


def _told(values: Mapping[tuple[str, str], Any]) -> dict[str, Any]:
    """Settings by their names; where two sections have the same, with the section's."""
    names = [name for _, name in values]
    return {f"{part} {name}" if names.count(name) > 1 else name: value for (part, name), value in values.items()}


def _names(runs: Sequence[Path]) -> list[str]:
    """The runs' folders by as much of their paths as tells them apart."""
    paths = [run.resolve().parts for run in runs]
    for length in range(1, max(map(len, paths)) + 1):
        names = ["/".join(parts[-length:]) for parts in paths]
        if len(set(names)) == len(names):
            return names
    return ["/".join(parts) for parts in paths]
