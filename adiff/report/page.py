"""The page: what it says, and how its pictures travel in it."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from PIL import Image

from ..contact_sheet import (
    COLUMNS,
    Block,
    Pair,
    measure_of,
    outline_tile,
    pick_evenly,
    shot_tile,
    tiles_of,
)
from ..storage import write_text
from .measures import HEIGHT, MEASURES, NOTHING, WIDTH, Taken, histogram
from .places import places_of

TILE = 384
"""Pixels of a picture in the page, at most."""
SHOT = 208
"""Pixels of a real shot's or a reject's picture, at most."""
REJECTS = 24
"""Rejects of a run that are shown."""
EXACT = 160
"""Pictures up to this length travel as they are; larger photos lose a little, or a page would be too heavy."""
QUALITY = 90
"""JPEG quality of those, without reduction of colours: small defects live in them."""
ORDERS = (("fill", "asc"), ("seam", "desc"), ("likeness", "desc"), ("novelty", "asc"))
"""Measures that pairs can be put in order by, the doubtful ones first."""


@dataclass(frozen=True)
class Rejects:
    """The rejected tries of a run: how many, the pairs given up for them, reason -> how often, pictures."""

    name: str
    tries: int
    given_up: int
    reasons: Mapping[str, int]
    pairs: Sequence[Pair]


@dataclass(frozen=True)
class Report:
    """What a report says.

    command: what makes it again. settings: sections of name -> value. seconds: phase -> seconds, in order; none if they
    were not taken. lead: a paragraph on what was done. notes: further paragraphs. rejects: of each run that has some.
    run: what the run's folder is called, where the page shows one whose pairs can be rejected; None elsewhere.
    """

    title: str
    lead: str
    blocks: Sequence[Block]
    command: str
    settings: Mapping[str, Mapping[str, Any]]
    seconds: Mapping[str, float]
    notes: Sequence[str] = field(default_factory=tuple)
    rejects: Sequence[Rejects] = field(default_factory=tuple)
    run: str | None = None


def write_report(out: Path, report: Report, *, limit: int = 24) -> Path:
    """Write the page, atomically. limit: pairs shown of each defect type, evenly picked. Returns `out`."""
    write_text(out, _template().render(report=report, **_content(report, limit)))
    return out


@cache
def _template():
    loader = PackageLoader(__package__, "")
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    texts = {measure.name: measure.text for measure in MEASURES}
    environment.filters |= {
        "duration": _duration, "setting": _setting, "measured": lambda value, name: texts[name](value),
    }  # fmt: skip
    return environment.get_template("report.html.j2")


def _content(report: Report, limit: int) -> dict[str, Any]:
    """Return everything the template shows that has to be worked out."""
    of_blocks = [Taken.of(block.records) for block in report.blocks]
    sections = [_section(block, of_block, limit) for block, of_block in zip(report.blocks, of_blocks, strict=True)]
    rejects = [_rejected(one) for one in report.rejects]
    overall = Taken.together(of_blocks).summary()
    taken = [measure for measure in MEASURES if overall[measure.name] is not None]
    total = sum(report.seconds.values())
    shown = [pair for section in sections for pair in section["pairs"]]
    return {
        "sections": sections,
        "rejects": rejects,
        "shown": len(shown),
        "overall": overall,
        "measures": taken,
        "histograms": [histogram(m, [of_block.values[m.name] for of_block in of_blocks]) for m in taken],
        "drawing": (WIDTH, HEIGHT),
        "facts": _facts(overall, total),
        "comparable": any("normal" in pair["pictures"] for pair in shown),
        "whole": all(pair["is_whole"] for pair in shown),
        "columns": COLUMNS,
        "filled": overall["fill"] is not None,
        "orders": [(name, way) for name, way in ORDERS if overall[name] is not None],
        "total_seconds": total,
        "phases": [
            {"name": name, "seconds": spent, "share": 100 * spent / total if total else 0.0}
            for name, spent in report.seconds.items()
        ],
    }


def _facts(overall: Mapping[str, Any], seconds: float) -> list[tuple[str, str]]:
    """The numbers at the head of the page, each with what it is; what was not measured is left out."""
    text = {measure.name: measure.text(overall[measure.name]) for measure in MEASURES}
    facts = [(str(overall["pairs"]), "image-mask pair" if overall["pairs"] == 1 else "image-mask pairs")]
    if overall["fill"] is not None:
        facts.append((text["fill"], "median fill of the masks"))
    if overall["leak"] is not None:
        facts.append((text["leak"], "levels changed outside, at most"))
    if overall["seam"] is not None:
        facts.append((text["seam"], "median seam, 1 as in the normal image"))
    if overall["likeness"] is not None:
        among = overall["likeness_shots"]
        beside = "" if among is None else f", {among:.2f} among the shots"
        facts.append((text["likeness"], f"median distance to a shot{beside}"))
    if overall["novelty"] is not None:
        facts.append((text["novelty"], "median novelty of the masks"))
    return [*facts, (_duration(seconds), "in all")] if seconds else facts


def _section(block: Block, taken: Taken, limit: int) -> dict[str, Any]:
    """What the page shows of one defect type; each pair is opened, drawn and let go before the next."""
    numbers = pick_evenly(range(len(block.pairs)), limit)
    return {
        "product": block.product,
        "defect": block.defect,
        "name": f"{block.product}/{block.defect}",
        "summary": taken.summary(),
        "places": _places(block.pairs),
        "shots": [_as_it_is(shot_tile(image, mask, SHOT, enlarge=False)) for image, mask in block.shots],
        "pairs": [_shown(block.pairs[number]) for number in numbers],
        "hidden": len(block.pairs) - len(numbers),
    }


def _places(pairs: Sequence[Pair]) -> dict[str, Any] | None:
    """The heat map of the masks, and what it shows in words."""
    found = places_of(pairs)
    if found is None:
        return None
    told = f"most often covered: {100 * found.most:.0f} % of the masks; never: {100 * found.empty:.0f} % of the image"
    of_masks = "" if found.masks == len(pairs) else f" (of {found.masks} masks, evenly picked)"
    return {"picture": _as_it_is(found.picture), "told": told + of_masks}


def _rejected(rejects: Rejects) -> dict[str, Any]:
    """What the page shows of a run's rejects; each is opened, drawn and let go before the next."""
    numbers = pick_evenly(range(len(rejects.pairs)), REJECTS)
    return {
        "name": rejects.name, "tries": rejects.tries, "given_up": rejects.given_up, "reasons": rejects.reasons,
        "pairs": [_reject(rejects.pairs[number]) for number in numbers],
        "hidden": len(rejects.pairs) - len(numbers),
    }  # fmt: skip


def _reject(pair: Pair) -> dict[str, Any]:
    reasons = pair.record.get("reasons")
    return {
        "id": str(pair.record.get("id", "")),
        "reasons": [str(reason) for reason in reasons] if isinstance(reasons, list) else [],
        "picture": _photo(tiles_of(pair, SHOT, enlarge=False)["generated"]),
        "outline": _as_it_is(outline_tile(pair, SHOT)),
    }


def _shown(pair: Pair) -> dict[str, Any]:
    record = pair.record
    measures = {measure.name: measure_of(record, measure.name) for measure in MEASURES}
    told = {measure.name: measure.text(measures[measure.name]) for measure in MEASURES}
    if (among := measure_of(record, "likeness_shots")) is not None:
        told["likeness"] += f" (shots {among:.2f})"
    facts = [(name, str(record[name])) for name in ("normal", "seed") if record.get(name) is not None]
    return {
        "id": str(record.get("id", "")),
        "facts": [text for _, text in facts],
        "pictures": {
            name: _as_it_is(picture) if name == "mask" else _photo(picture)
            for name, picture in tiles_of(pair, TILE, enlarge=False).items()
        },
        "outline": _as_it_is(outline_tile(pair, TILE)),
        "fill": measures["fill"],
        "told": [(name, text) for name, text in told.items() if text != NOTHING] + facts,
        "is_whole": record.get("normal", "") is None,
        "order": {name: "" if measures[name] is None else repr(measures[name]) for name, _ in ORDERS},
    }


def _as_it_is(picture: Image.Image) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def _photo(picture: Image.Image) -> str:
    if max(picture.size) <= EXACT:
        return _as_it_is(picture)
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=QUALITY, subsampling=0, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s"


def _setting(value: Any) -> str:
    """A setting's value for people."""
    if value is None:
        return NOTHING
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_setting, value))
    return f"{value:g}" if isinstance(value, float) else str(value)
