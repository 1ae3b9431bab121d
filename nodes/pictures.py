"""Pictures that nodes show: the shots of a data set, tiles under titles, and the loss over the steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from ..adiff.contact_sheet import shot_tile
from ..adiff.fonts import font_for
from ..adiff.learning import Shots
from ..adiff.library import Key

PAPER, INK, FAINT, LINE = (252, 252, 250), (24, 28, 36), (112, 118, 128), (224, 226, 230)
TRAINING, HELD_OUT = (150, 162, 184), (236, 98, 38)
GAP, HEADER, TILE, COLUMNS, SHOWN, DEFECTS = 8, 30, 160, 4, 8, 16
"""Pixels between tiles, of a defect's title and of a tile's side; tiles in a row and of a defect, and defects shown."""
SIZE, FRAME = (768, 432), (64, 44, 744, 384)
"""Pixels of the curve's picture; left, top, right and bottom of its axes."""
FINE = 2
"""The curve is drawn this many times as large and then made smaller: smooth lines."""

Point = tuple[int, float, float | None]
"""Step, training loss, loss of held-out shots or None."""


def shot_sheet(shots: Mapping[Key, Shots]) -> Image.Image:
    """Draw the shots of each defect, their masks outlined, the first SHOWN of the first DEFECTS defects."""
    blocks = []
    for key, one in list(shots.items())[:DEFECTS]:
        told = f"{'/'.join(key)}   {len(one.pairs)} shot" + ("" if len(one.pairs) == 1 else "s")
        blocks.append((told, [shot_tile(image, mask, TILE) for image, mask in one.pairs[:SHOWN]]))
    return titled(blocks)


def titled(blocks: Sequence[tuple[str, Sequence[Image.Image]]]) -> Image.Image:
    """Draw tiles of TILE pixels under their titles, COLUMNS in a row."""
    widest = max(min(len(tiles), COLUMNS) for _, tiles in blocks)
    height = sum(HEADER + (TILE + GAP) * -(-len(tiles) // COLUMNS) for _, tiles in blocks)
    page = Image.new("RGB", (GAP + max(2, widest) * (TILE + GAP), GAP + height), PAPER)
    draw, top = ImageDraw.Draw(page), GAP
    for told, tiles in blocks:
        draw.text((GAP, top + HEADER // 2), told, INK, font_for(told, 16), anchor="lm")
        top += HEADER
        for first in range(0, len(tiles), COLUMNS):
            for column, tile in enumerate(tiles[first : first + COLUMNS]):
                page.paste(tile, (GAP + column * (TILE + GAP), top))
            top += TILE + GAP
    return page


def side_by_side(tiles: Sequence[Image.Image]) -> Image.Image:
    """Put pictures of one height into a row."""
    row = Image.new("RGB", (sum(t.width for t in tiles) + GAP * (len(tiles) - 1), tiles[0].height), PAPER)
    left = 0
    for tile in tiles:
        row.paste(tile, (left, 0))
        left += tile.width + GAP
    return row


def loss_curve(points: Sequence[Point], best: int, title: str) -> Image.Image:
    """Draw the training loss, the held-out loss where there is one, and the step whose state was kept."""
    training = [(step, loss) for step, loss, _ in points if np.isfinite(loss)]
    held_out = [(step, held) for step, _, held in points if held is not None and np.isfinite(held)]
    page = Image.new("RGB", tuple(FINE * side for side in SIZE), PAPER)
    axes = _Axes(ImageDraw.Draw(page), [*training, *held_out])
    axes.draw_grid(title)
    axes.draw_line(training, TRAINING, 2)
    axes.draw_line(held_out, HELD_OUT, 3)
    axes.draw_best(best)
    axes.draw_legend([("training", TRAINING)] + ([("held-out shots", HELD_OUT)] if held_out else []))
    return page.resize(SIZE, Image.Resampling.LANCZOS)


def as_image(picture: Image.Image) -> torch.Tensor:
    """Return a picture as IMAGE, (1, H, W, 3) in [0, 1]."""
    return torch.from_numpy(np.array(picture.convert("RGB"))).float()[None] / 255


class _Axes:
    """A frame with steps to the right and losses upwards; lengths in pixels of the finished picture."""

    def __init__(self, draw: ImageDraw.ImageDraw, points: Sequence[tuple[int, float]]):
        self._draw = draw
        losses = [loss for _, loss in points] or [0.0, 1.0]
        self._last = max([step for step, _ in points] + [1])
        room = 0.06 * (max(losses) - min(losses)) or 0.1 * abs(losses[0]) or 1.0
        self._low, self._high = min(losses) - room, max(losses) + room

    def draw_grid(self, title: str) -> None:
        """Draw the frame, four levels of loss, up to five steps, and what is shown."""
        left, top, right, bottom = FRAME
        for level in np.linspace(self._low, self._high, 6)[1:-1]:
            y = self._place(0, level)[1] / FINE
            self._rule((left, y), (right, y))
            self._text((left - 8, y), f"{level:.3g}", FAINT, "rm")
        for step in sorted({round(share * self._last) for share in (0, 0.25, 0.5, 0.75, 1)}):
            x = self._place(step, self._low)[0] / FINE
            self._rule((x, top), (x, bottom))
            self._text((x, bottom + 8), str(step), FAINT, "mt")
        self._text((left, top - 14), title, INK, "lm")
        self._text(((left + right) / 2, SIZE[1] - 10), "step", FAINT, "mm")

    def draw_line(self, points: Sequence[tuple[int, float]], colour: tuple, width: int) -> None:
        """Draw one loss over the steps; a single measure is a dot."""
        places = [self._place(*point) for point in points]
        if len(places) > 1:
            self._draw.line(places, colour, FINE * width, joint="curve")
        for x, y in places if len(places) < 40 else ():
            self._draw.ellipse((x - 2 * FINE, y - 2 * FINE, x + 2 * FINE, y + 2 * FINE), colour)

    def draw_best(self, step: int) -> None:
        """Mark the step whose state was kept."""
        x, right = self._place(step, self._low)[0] / FINE, step > self._last / 2
        _, top, _, bottom = FRAME
        self._rule((x, top), (x, bottom), INK)
        self._text((x - 6 if right else x + 6, bottom - 10), f"kept: step {step}", INK, "rm" if right else "lm")

    def draw_legend(self, entries: Sequence[tuple[str, tuple]]) -> None:
        """Name the lines, from the right."""
        x, y = FRAME[2], FRAME[1] - 14
        for name, colour in reversed(entries):
            self._text((x, y), name, FAINT, "rm")
            x -= self._draw.textlength(name, self._font) / FINE + 8
            self._draw.line([(FINE * (x - 22), FINE * y), (FINE * x, FINE * y)], colour, FINE * 3)
            x -= 36

    @property
    def _font(self) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
        return ImageFont.load_default(FINE * 14)

    def _place(self, step: float, loss: float) -> tuple[float, float]:
        left, top, right, bottom = FRAME
        up = (loss - self._low) / (self._high - self._low)
        return FINE * (left + (right - left) * step / self._last), FINE * (bottom - (bottom - top) * up)

    def _rule(self, start: tuple, end: tuple, colour: tuple = LINE) -> None:
        self._draw.line([tuple(FINE * c for c in start), tuple(FINE * c for c in end)], colour, FINE)

    def _text(self, place: tuple, text: str, colour: tuple, anchor: str) -> None:
        self._draw.text(tuple(FINE * c for c in place), text, colour, self._font, anchor=anchor)
