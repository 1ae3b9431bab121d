"""The report of a benchmark: tables, plots and sheets as one HTML page, and the tables as Markdown and JSON."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined

from .. import report as run_report
from ..errors import InputError
from ..evaluation.table import p_value
from ..storage import read_json_object, write_json, write_text
from .plots import LINE, WIDTH, Plot, plot
from .published import PAPER, PUBLISHED, QUOTED
from .run import RECORD, REPORT, SHEETS, read_rows
from .sheets import draw_sheet
from .suites import SUITES
from .summary import COLUMNS, EVERY, Entry, Row, best_of, summarise_suite, varies

MVTEC = "mvtec"
"""The target whose numbers stand beside published ones."""
PLOTTED = 4
"""Measures of a suite that are plotted and compared with the control, its main one first."""
NOTES = (
    "Mean ± standard deviation over cells: over seeds in the table of one defect or product, over seeds and these in "
    "the table of all. A seed sets what is learned, the masks, the noise and the detector's training; the files that "
    "teach and those that test are the same for every seed, so the spread says nothing of other shots.",
    "n counts the cells that a mean is over. A difference is taken cell by cell against the control that stands beside "
    "it. Image by image: mean difference of the defective test images' own AP, averaged over the seeds; it may have "
    "the other sign than that over all pixels, as normal images do not count. p: its paired Wilcoxon signed-rank test, "
    "two-sided and not corrected for the number of comparisons. Undefined measures are left out, and told as undefined "
    "where no cell has one. Bold is the best mean of a column, whether or not the spread tells it from the next.",
)
NOT_SHOWN = {
    "surfaces": "Surfaces are drawn by a program and the demo model was trained on such drawings: nothing here says "
    "how the method does with Stable Diffusion, or on photos.",
    MVTEC: "Published numbers are averages over all 15 categories and come from the authors' own code, training "
    "budget, detectors and splits; a difference to ours has many causes. Blank: not known here.",
}


@dataclass(frozen=True)
class Part:
    """A suite in the report. tables: unit -> entries. sheets: file and unit. by_unit: of a single variant, one table
    has a line for each unit.
    """

    name: str
    question: str
    shown: tuple[str, ...]
    main: str
    tables: Mapping[str, Sequence[Entry]]
    sheets: Sequence[tuple[Path, str]]
    published: Mapping[str, Mapping[str, float]]
    by_unit: bool

    @property
    def first(self) -> Sequence[Entry]:
        """The entries of the first table, which is of all units."""
        return next(iter(self.tables.values()))

    @property
    def telling(self) -> list[str]:
        """The main measure, and those of the others in which the variants differ."""
        return [self.main, *(name for name in self.shown if name != self.main and varies(self.first, name))]

    @property
    def plots(self) -> list[Plot]:
        """Plots of the first of them."""
        return [one for one in (plot(self.first, name) for name in self.telling) if one is not None][:PLOTTED]

    @property
    def compared(self) -> list[str]:
        """Measures whose difference to the control is shown."""
        return [name for name in self.telling if COLUMNS[name].better is not None][:PLOTTED]

    @property
    def controlled(self) -> bool:
        """Whether variants have a control that they are compared with."""
        return any(entry.control for entries in self.tables.values() for entry in entries)


def write_report(out: Path, root: Path | None = None, left: int = 0) -> Path:
    """Write report.html, report.md, summary.json and sheets/ from a benchmark's lines; returns the page.

    root: the data set, for the normal images in the sheets. left: cells that are not measured yet. Raises InputError
    for a folder without lines.
    """
    plan, rows = read_json_object(out / RECORD), read_rows(out)
    if not rows:
        raise InputError(f"{out} holds no finished cell yet")
    commands = plan.get("commands", [])
    parts = [_part(name, [row for row in rows if row["suite"] == name], out, plan, root)
             for name in dict.fromkeys(row["suite"] for row in rows)]  # fmt: skip
    content = {
        "title": f"Benchmark: {plan['target']}", "plan": plan, "parts": parts, "columns": COLUMNS, "commands": commands,
        "failures": [row for row in rows if "error" in row], "rows": rows, "left": left, "every": EVERY,
        "notes": [*NOTES, *([NOT_SHOWN[plan["target"]]] if plan["target"] in NOT_SHOWN else [])],
        "quoted": QUOTED if plan["target"] == MVTEC else (), "paper": PAPER,
        "quoted_names": list(dict.fromkeys(name for _, numbers in QUOTED for name in numbers)), "quote": _quote,
        "seconds": sum(row.get("spent", 0.0) for row in rows), "width": WIDTH, "line": LINE, "difference": _difference,
        "better": _better, "best_of": best_of, "p_value": p_value, "published": _published,
        "published_names": _published_names, "dual": any(part.name == "dual" for part in parts),
        "meanings": [name for name in COLUMNS if any(name in part.shown for part in parts)],
    }  # fmt: skip
    write_json(out / REPORT[2], {
        "target": plan["target"], "budget": plan["budget"], "versions": plan.get("versions"), "commands": commands,
        "suites": {part.name: {unit: [entry.record() for entry in entries] for unit, entries in part.tables.items()}
                   for part in parts},
    })  # fmt: skip
    write_text(out / REPORT[1], _render("report.md.j2", content, page=False))
    write_text(out / REPORT[0], _render("report.html.j2", content, page=True))
    return out / REPORT[0]


def _part(name: str, rows: Sequence[Row], out: Path, plan: Mapping[str, Any], root: Path | None) -> Part:
    suite = SUITES[name]
    order = {variant.name: place for place, variant in enumerate(suite.variants)}
    rows = sorted(rows, key=lambda row: order.get(row["variant"], len(order)))
    tables = summarise_suite(rows, suite.main)
    sheets = []
    for unit in dict.fromkeys(row["unit"] for row in rows):
        seed = min(row["seed"] for row in rows if row["unit"] == unit)
        own = [row for row in rows if (row["unit"], row["seed"]) == (unit, seed)]
        path = draw_sheet(out / SHEETS / f"{name}-{unit.replace('/', '-')}.png", out, own, root)
        sheets += [(path, unit)] if path is not None else []
    published = PUBLISHED.get(name, {}) if plan["target"] == MVTEC else {}
    by_unit = len(suite.variants) == 1
    shown = suite.shown
    if by_unit:  # many measures: those that nobody took need no column
        known = {*_names_of(published), *(measure for entry in next(iter(tables.values())) for measure in entry.taken)}
        shown = tuple(measure for measure in shown if measure in known)
    return Part(name, suite.question, shown or suite.shown, suite.main, tables, sheets, published, by_unit)


def _render(template: str, content: Mapping[str, Any], page: bool) -> str:
    loaders = [PackageLoader(__package__, ""), PackageLoader(run_report.__name__, "")]
    environment = Environment(
        loader=ChoiceLoader(loaders), autoescape=page, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"picture": _picture, "duration": _duration, "cell": _cell}
    return environment.get_template(f"benchmark_{template}").render(content)


def _difference(entry: Entry, name: str) -> str:
    return entry.difference[name].text(COLUMNS[name], "+") if name in entry.difference else ""


def _better(entry: Entry, name: str) -> str:
    return f"{entry.better[name]}/{entry.difference[name].n}" if name in entry.better else ""


def _published_names(part: Part) -> set[str]:
    return _names_of(part.published)


def _names_of(published: Mapping[str, Mapping[str, float]]) -> set[str]:
    return {name for numbers in published.values() for name in numbers}


def _published(part: Part, unit: str, entry: Entry, name: str) -> str:
    """A published average over all categories: it stands in the table of all alone."""
    value = part.published.get(entry.variant, {}).get(name) if unit == next(iter(part.tables)) else None
    return "" if value is None else COLUMNS[name].text(value)


def _quote(numbers: Mapping[str, float], name: str) -> str:
    if name not in numbers:
        return ""
    return COLUMNS[name].text(numbers[name])


def _picture(path: Path) -> str:
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode("ascii")


def _cell(text: Any) -> str:
    """Text that keeps to its cell of a Markdown table."""
    return " ".join(str(text).split()).replace("|", "\\|")


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    if minutes < 1:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"
