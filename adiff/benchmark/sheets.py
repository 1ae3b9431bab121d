"""Example sheets: what each variant of a suite made of the same normal images, a line for each."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from ..contact_sheet import (
    FAINT,
    INK,
    LINE,
    PAPER,
    SHOT_OUTLINE,
    StoredPairs,
    draw_outline,
    tiles_of,
    view_box,
)
from ..datasets.images import write_png
from ..datasets.readers import list_images
from ..errors import InputError
from ..evaluation.material import read_run
from ..fonts import Font, font_for
from ..storage import read_json_object
from .bench import RUNS
from .matrix import GENERATED
from .summary import Row

TILE, SHOWN = 112, 8
"""Pixels of a picture, and pairs of a line."""
LABEL, GAP, EDGE, HEAD = 210, 4, 24, 52


def draw_sheet(out: Path, folder: Path, rows: Sequence[Row], root: Path | None) -> Path | None:
    """Draw the pairs of the lines of one suite, unit and seed; returns `out`, a PNG, or None if there are none.

    folder: the benchmark's. root: its data set, for the normal images above them, left out if it is not at hand. The
    first run of each line is shown; generated pairs of one number are painted into the same normal image, in the same
    mask, and these stand above.
    """
    shown = [(row, folder / RUNS / row["runs"][0]) for row in rows if row.get("runs")]
    shown = [(row, run) for row, run in shown if (run / "run.json").exists()]
    if not shown:
        return None
    lines = [(row["variant"], run) for row, run in shown]
    above = next((run for row, run in shown if row["recipe"].get("source") == GENERATED), shown[0][1])
    height = 2 * EDGE + HEAD + (len(lines) + 1) * (TILE + GAP)
    page = Image.new("RGB", (2 * EDGE + LABEL + SHOWN * (TILE + GAP), height), PAPER)
    draw, first = ImageDraw.Draw(page), rows[0]
    title = f"{first['suite']}: {first['unit']}"
    draw.text((EDGE, EDGE), title, INK, font_for(title, 20), anchor="lt")
    told = f"seed {first['seed']}; each column is one normal image in one mask; baselines, dual and varied masks have "
    told += "their own"
    draw.text((EDGE, EDGE + 26), told, FAINT, font_for(told, 13), anchor="lt")
    top = EDGE + HEAD
    for number, (name, run) in enumerate([("normal, mask outlined", above), *lines]):
        tiles = _normals(run, root) if number == 0 else _generated(run)
        if tiles is not None:
            _draw_line(page, draw, top, name, tiles)
            top += TILE + GAP
    write_png(out, np.asarray(page.crop((0, 0, page.width, top + EDGE))))
    return out


def _draw_line(page: Image.Image, draw: ImageDraw.ImageDraw, top: int, name: str, tiles: Sequence[Image.Image]) -> None:
    font = font_for(name, 14)
    for number, words in enumerate(_wrapped(name, font)):
        draw.text((EDGE, top + TILE // 2 - 18 + 18 * number), words, INK, font, anchor="lt")
    for place, tile in enumerate(tiles):
        left = EDGE + LABEL + place * (TILE + GAP)
        page.paste(LINE, (left, top, left + TILE, top + TILE))
        page.paste(tile, (left + (TILE - tile.width) // 2, top + (TILE - tile.height) // 2))


def _wrapped(name: str, font: Font) -> list[str]:
    lines = [""]
    for word in name.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and font.getlength(longer) > LABEL - 12:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines


def _generated(run: Path) -> list[Image.Image]:
    records = read_run(run).records[:SHOWN]
    return [tiles_of(pair, TILE)["generated"] for pair in StoredPairs(run, records)]


def _normals(run: Path, root: Path | None) -> list[Image.Image] | None:
    """The normal images of a run's first pairs, each mask outlined; None if they are not there any more."""
    plan = read_json_object(run / "run.json")
    places = [] if root is None else [root / str(plan["product"]) / "train" / "good", root / "train" / "good",
                                      root / "normal", root / "good", root / str(plan["product"]) / "test" / "good"]
    for place in places:
        try:
            names = {path.name for path in list_images(place)}
        except InputError:
            continue
        records = read_run(run).records[:SHOWN]
        if all(record["normal"] in names for record in records):
            tiles = []
            for pair in StoredPairs(run, records, place):
                seen = pair.mask[view_box(pair.mask, TILE).slices]
                tiles.append(draw_outline(tiles_of(pair, TILE)["normal"], seen, SHOT_OUTLINE))
            return tiles
    return None
