"""From a run's folder to its report."""

from __future__ import annotations

import json
import re
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..contact_sheet import Block, StoredPairs, measure_of
from ..errors import InputError, all_reasons
from ..generation import GenerationSettings
from ..generation.settings import idle
from ..run_record import (
    PASTING,
    REJECTS,
    Records,
    defects_of,
    given_up,
    made_ids,
    read_broken,
    read_plan,
    read_rejects,
    tries_of,
    undisturbed,
)
from .page import Rejects, Report, write_report

NAME = "report.html"
"""A report's name in its run's folder."""
LIMIT = 48
"""Pairs shown, unless told otherwise."""
OPTIONS = ("severity", "reweighting", "strength", "level", "distance", "blending", "steps", "guidance", "batch",
           "crop", "preview_decoder", "refine")  # fmt: skip
"""Settings that `adiff generate` has options for, by the same names."""
DUAL_OPTIONS = ("steps", "guidance", "batch")
"""Settings that `adiff generate-dual` has options for."""
APART = ("format", "command", "seconds", "environment", "settings", "base", "masks")
"""What run.json holds beside the plain facts of a run."""
LONG = 6
"""Names beyond which a list is told by its number and its ends."""
DIGEST = 64
"""Characters of a sha256, of which the first twelve are shown."""


def report_of_run(
    run: Path,
    *,
    normals: Path | None = None,
    out: Path | None = None,
    limit: int = LIMIT,
) -> Path:
    """Write the report of a run's finished pairs, RUN/report.html unless `out` says otherwise; returns its path.

    normals: folder of the run's normal images, for the comparison of before and after; without it that is left out.
    limit: pairs shown, evenly picked. Raises InputError for a folder that is no run, a run with neither a finished
    pair nor a reject, and files that are missing or damaged.
    """
    return undisturbed([run], lambda: _written(run, normals, out or run / NAME, limit))


def _written(run: Path, normals: Path | None, out: Path, limit: int) -> Path:
    told = told_of(run, normals)
    found = _table(told.plan.get("seconds"))
    report = Report(
        title=" and ".join(f"{block.product} / {block.defect}" for block in told.blocks),
        lead=_lead(told),
        blocks=told.blocks,
        command=told.command,
        settings=settings_of(told.plan),
        seconds={name: spent for name in found if (spent := measure_of(found, name)) is not None},
        notes=told.notes,
        rejects=told.rejects,
        run=run.absolute().name,
    )
    return write_report(out, report, limit=limit)


@dataclass(frozen=True)
class Told:
    """What a run has to tell: run.json, its pairs by defect, its rejects if there are any, its command, notes."""

    plan: Mapping[str, Any]
    blocks: Sequence[Block]
    rejects: Sequence[Rejects]
    command: str
    notes: Sequence[str]


def told_of(run: Path, normals: Path | None) -> Told:
    """Read what a run has to tell; raises as `report_of_run`.

    A run whose run.json has no command gets one that is put together from its settings.
    """
    plan, records = read_plan(run), Records(run)
    rejects = _rejects(run, plan)
    if not records and not rejects:
        raise InputError(f"{run} holds no finished pair yet; `adiff generate` makes them")
    blocks = [Block(*key, [], StoredPairs(run, of_kind, normals)) for key, of_kind in records.by_kind().items()]
    blocks = blocks or [Block(str(plan.get("product")), str(plan.get("defect")), [], [])]  # all broke the limits
    recorded = plan.get("command")
    command = recorded if isinstance(recorded, str) else None
    notes = (*_notes(plan, command is None), *_broken(run))
    return Told(plan, blocks, rejects, command or rebuilt_command(plan), notes)


def _rejects(run: Path, plan: Mapping[str, Any]) -> tuple[Rejects, ...]:
    """The rejected tries of a run, if there are any."""
    rejects = read_rejects(run)
    if not rejects:
        return ()
    lost = given_up(run, tries_of(plan)) - made_ids(run)
    listed = [one["reasons"] for one in rejects if isinstance(one.get("reasons"), list)]
    # fill 0.12 below 0.5 -> fill below 0.5
    reasons = Counter(re.sub(r" \S+ (below|above) ", r" \1 ", str(reason)) for of_one in listed for reason in of_one)
    name = f"{plan.get('product')} / {plan.get('defect')}"
    shown = StoredPairs(run / REJECTS, rejects)
    return (Rejects(name, len(rejects), len(lost), dict(reasons.most_common()), shown),)


def _broken(run: Path) -> tuple[str, ...]:
    """A note on pairs that cannot be made, if there are any."""
    broken = read_broken(run)
    if not broken:
        return ()
    return (f"Pairs that could not be made: {len(broken)}, as {all_reasons(one.get('reason') for one in broken)}.",)


def _table(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _lead(told: Told) -> str:
    """What was done, in a paragraph."""
    plan, done = told.plan, sum(len(block.pairs) for block in told.blocks)
    lost = sum(one.given_up for one in told.rejects)
    wanted, normals, base = plan.get("count"), plan.get("normals"), _table(plan.get("base")).get("name", "?")
    several = isinstance(normals, list) and len(normals) != 1
    pasted = plan.get("method") in PASTING
    what = f"into {len(normals)} normal images" if several else "into a normal image"
    what = f"Pasted {what} by {plan['method']}" if pasted else f"Painted {what}"
    what = "Whole images, made with their defects" if _is_dual(plan) else what
    is_short = isinstance(wanted, int) and wanted > done
    given_up = f", {lost} given up" if lost else ""
    unfinished = f" The run wants {wanted} pairs; {done} are finished{given_up}." if is_short else ""
    what += "" if pasted else f" by the base model {base}"
    return f"{what}, from seed {plan.get('seed')}.{unfinished}"


def settings_of(plan: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return what run.json says as sections of name -> value, the empty ones left out."""
    base = _table(plan.get("base"))
    facts = _flat({name: value for name, value in plan.items() if name not in APART}, defects_of(plan))
    sections = {
        "run": facts | {f"base {name}" if name != "name" else "base": _short(value) for name, value in base.items()},
        "generation": _flat(_table(plan.get("settings"))),
        **{
            "masks" if one is plan.get("masks") else f"masks of {defect}": _flat(_table(one))
            for defect, one in zip(defects_of(plan), _listed(plan.get("masks")), strict=False)
        },
        "environment": _flat(_table(plan.get("environment"))),
    }
    return {name: values for name, values in sections.items() if values}


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _flat(values: Mapping[str, Any], defects: Sequence[Any] = (), under: str = "") -> dict[str, Any]:
    """Return a table with the tables in it laid out flat, also those in a list that has one for each of `defects`."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, list) and len(value) == len(defects) and all(isinstance(one, dict) for one in value):
            value = dict(zip(map(str, defects), value, strict=True))
        if isinstance(value, dict):
            flat |= _flat(value, defects, f"{under}{name}.")
        else:
            flat[under + name] = _short(value)
    return flat


def _short(value: Any) -> Any:
    """Return a value as it is told: a digest's head, a long list's number and ends, a table as JSON."""
    if isinstance(value, list) and len(value) > LONG:
        return f"{len(value)}: {_short(value[0])} to {_short(value[-1])}"
    if isinstance(value, list):
        return [_short(one) for one in value]
    if isinstance(value, str) and len(value) == DIGEST:
        return value[:12]
    return json.dumps(value, ensure_ascii=False) if isinstance(value, dict) else value


def rebuilt_command(plan: Mapping[str, Any]) -> str:
    """Return the command of a run from its settings; what a run does not record stands in capitals."""
    base = "demo" if _table(plan.get("base")).get("name") == "demo" else "BASE"
    end = ["-n", str(plan.get("count")), "--seed", str(plan.get("seed")), "--out", "RUN"]
    if _is_dual(plan):
        told = [text for name, value in _table(plan.get("settings")).items() if name in DUAL_OPTIONS
                for text in (f"--{name}", str(value))]  # fmt: skip
        photos = ["--normals", "NORMALS"] if _table(plan.get("backgrounds")).get("kind") == "photos" else []
        return shlex.join(["adiff", "generate-dual", "DUAL", "--base", base, *photos, *told, *end])
    if plan.get("method") in PASTING:
        named = ["--product", str(plan.get("product")), "--defect", str(plan.get("defect"))]
        how = ["--method", str(plan["method"]), "--normals", "NORMALS"]
        return shlex.join(["adiff", "paste", "DATA", *named, *how, *end])
    names = [f"{plan.get('product')}/{defect}" for defect in defects_of(plan)]
    parts = ["adiff", "generate", "LIB", *names, "--base", base, "--normals", "NORMALS"]
    for masks in _listed(plan.get("masks")):
        placed = _table(masks) if _table(masks).get("kind") == "placed" else {}
        kind = _table(placed.get("source", masks)).get("kind")
        if placed:
            on, found = _table(placed.get("on")), str(_table(placed.get("on")).get("way")).replace(" ", "-")
            parts += ["--place", "learned" if "spread" in placed else "move"]
            parts += ["--foreground", "FOREGROUND"] if on.get("kind") == "files" else ["--find", found]
        parts += ["--masks", "MASKS"] if kind == "folder" else ["--vary-shots"] if kind == "shots" else []
    chosen = {"reweighting": GenerationSettings.reweighting, "distance": GenerationSettings.distance}
    unused = idle(*(str(_table(plan.get("settings")).get(name, default)) for name, default in chosen.items()))
    for option in (name for name in _changed(plan, OPTIONS) if name not in unused):
        value, word = plan["settings"][option], option.replace("_", "-")
        value = "auto" if option == "guidance" and plan.get(option) else value  # the run has found it itself
        parts += [f"--{'' if value else 'no-'}{word}"] if isinstance(value, bool) else [f"--{word}", str(value)]
    limits = _table(_table(plan.get("filter")).get("limits"))  # several defects may have limits of their own
    for name, bound in limits.items():
        parts += [f"--{str(name).replace('_', '-')}", str(bound)]
    parts += ["--tries", str(tries_of(plan))] if limits else []
    return shlex.join([*parts, *end])


def _is_dual(plan: Mapping[str, Any]) -> bool:
    return plan.get("method") == "dual"


def _changed(plan: Mapping[str, Any], names: Sequence[str]) -> list[str]:
    """Return the settings among `names` that are not the default."""
    settings, default = _table(plan.get("settings")), GenerationSettings()
    return [name for name in names if settings.get(name) is not None and settings[name] != getattr(default, name)]


def _notes(plan: Mapping[str, Any], rebuilt: bool) -> tuple[str, ...]:
    if not rebuilt:
        return ()
    notes = ["The run does not record the places in capitals: the library or dual model, the base model, "
             "folders of images."]  # fmt: skip
    known = set(vars(GenerationSettings()))
    if isinstance(_table(plan.get("filter")).get("limits"), list):
        notes.append("The limits of each defect stand under the settings, not in the command.")
    if others := _changed(plan, [name for name in _table(plan.get("settings")) if name in known - set(OPTIONS)]):
        notes.append(f"Set from Python, without an option of the command: {', '.join(others)}.")
    return tuple(notes)
