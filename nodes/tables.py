"""Pictures of an evaluation: a table of numbers, and what a localizer sees in photos."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from ..adiff.contact_sheet import shot_tile
from ..adiff.fonts import font_for
from .pictures import FAINT, GAP, INK, LINE, PAPER, side_by_side

ROW, CELL, TEXT = 34, 14, 16
"""Pixels of a table's row, around a cell's text, and of the text."""
HEAT = (236, 98, 38)
STRONGEST = 0.75
"""Share of the heat's colour where a localizer is sure."""
TILE = 160
"""Pixels of a picture's side."""


def table_picture(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Image.Image:
    """Draw a table: names to the left, numbers to the right of their columns."""
    font = font_for("".join(text for cells in (head, *rows) for text in cells), TEXT)
    columns = list(zip(head, *rows, strict=True))
    widths = [round(max(font.getlength(text) for text in column)) + 2 * CELL for column in columns]
    page = Image.new("RGB", (sum(widths) + 2 * GAP, ROW * (len(rows) + 1) + 2 * GAP), PAPER)
    draw = ImageDraw.Draw(page)
    for number, cells in enumerate((head, *rows)):
        left, middle = GAP, GAP + ROW * number + ROW // 2
        for place, (text, width) in enumerate(zip(cells, widths, strict=True)):
            x, anchor = (left + CELL, "lm") if place == 0 else (left + width - CELL, "rm")
            draw.text((x, middle), text, INK if number else FAINT, font, anchor=anchor)
            left += width
        draw.line([(GAP, middle + ROW // 2), (page.width - GAP, middle + ROW // 2)], LINE)
    return page


def overlaid(image: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """Colour an image (H, W, 3) uint8 where heat (H, W) in [0, 1] is high."""
    share = STRONGEST * heat[..., None].astype(np.float64)
    return np.rint((1 - share) * image + share * np.array(HEAT)).astype(np.uint8)


def sheet(photos: Sequence[tuple[np.ndarray, np.ndarray]], heats: Sequence[np.ndarray], columns: int) -> Image.Image:
    """Draw photos with their masks outlined and, below each where there is one, its heat; so many in a row.

    photos: (image (H, W, 3) uint8, mask (H, W) bool). heats: (H, W) in [0, 1] of each photo, or none.
    """
    lines = []
    for start in range(0, len(photos), columns):
        some = photos[start : start + columns]
        lines.append([shot_tile(image, mask, TILE) for image, mask in some])
        if heats:
            of_some = zip(some, heats[start : start + columns], strict=True)
            lines.append([shot_tile(overlaid(image, heat), mask, TILE) for (image, mask), heat in of_some])
    pictures = [side_by_side([_square(tile) for tile in line]) for line in lines]
    page = Image.new("RGB", (max(p.width for p in pictures), (TILE + GAP) * len(pictures) - GAP), PAPER)
    for number, picture in enumerate(pictures):
        page.paste(picture, (0, number * (TILE + GAP)))
    return page


def _square(tile: Image.Image) -> Image.Image:
    page = Image.new("RGB", (TILE, TILE), PAPER)
    page.paste(tile, ((TILE - tile.width) // 2, (TILE - tile.height) // 2))
    return page
