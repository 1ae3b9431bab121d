"""The report of a run: one HTML page that needs nothing beside it, pictures included."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from PIL import Image

from ..contact_sheet import COLUMNS, Block, caption_of, measure_of, pick_evenly, shot_tile, tiles_of
from ..storage import write_text

TILE = 192
"""Pixels of a picture in the page, at most."""


@dataclass(frozen=True)
class Report:
    """What a report says.

    command: what makes it again. settings: sections of name -> value. seconds: phase -> seconds, in order. lead: a
    paragraph on what was done. notes: further paragraphs.
    """

    title: str
    lead: str
    blocks: Sequence[Block]
    command: str
    settings: Mapping[str, Mapping[str, Any]]
    seconds: Mapping[str, float]
    notes: Sequence[str] = field(default_factory=tuple)


def summarise(records: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the measures of pairs in numbers (METHOD, 6), None where none was taken.

    Keys: pairs; fill, fill_low (median and lowest share of the mask that changed); leak (largest change outside the
    masks, levels of 255); area (median share of the image); iou (median best aligned overlap of masks with shots).
    """
    records = list(records)
    taken = {
        name: [value for record in records if (value := measure_of(record, name)) is not None]
        for name in ("fill", "leak", "area", "iou")
    }
    reduced = {name: median(values) if values else None for name, values in taken.items()}
    extremes = {
        "fill_low": min(taken["fill"], default=None),
        "leak": max(taken["leak"], default=None),
    }
    return {"pairs": len(records), **reduced, **extremes}


def write_report(out: Path, report: Report, *, limit: int = 24) -> Path:
    """Write the page, atomically. limit: pairs shown of each defect type, evenly picked. Returns `out`."""
    page = _template().render(report=report, columns=COLUMNS, **_content(report, limit))
    write_text(out, page)
    return out


def _template():
    loader = PackageLoader(__name__, "")
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["number"] = _number
    environment.filters["duration"] = _duration
    return environment.get_template("report.html.j2")


def _content(report: Report, limit: int) -> dict[str, Any]:
    """Return everything the template shows that has to be worked out."""
    sections = [_section(block, limit) for block in report.blocks]
    overall = summarise(pair.record for block in report.blocks for pair in block.pairs)
    total = sum(report.seconds.values())
    phases = [
        {"name": name, "seconds": spent, "share": 100 * spent / total if total else 0.0}
        for name, spent in report.seconds.items()
    ]
    return {"sections": sections, "overall": overall, "total_seconds": total, "phases": phases}


def _section(block: Block, limit: int) -> dict[str, Any]:
    shown = pick_evenly(block.pairs, limit)
    return {
        "product": block.product,
        "defect": block.defect,
        "summary": summarise(pair.record for pair in block.pairs),
        "fills": [measure_of(pair.record, "fill") or 0.0 for pair in block.pairs],
        "shots": [_data_uri(shot_tile(image, mask, TILE, enlarge=False)) for image, mask in block.shots],
        "pairs": [
            {
                "pictures": [_data_uri(picture) for picture in tiles_of(pair, TILE, enlarge=False)],
                "caption": caption_of(pair),
                "fill": measure_of(pair.record, "fill"),
            }
            for pair in shown
        ],
        "hidden": len(block.pairs) - len(shown),
    }


def _data_uri(picture: Image.Image) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def _number(value: float | None, digits: int = 2) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s"
