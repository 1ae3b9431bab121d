"""Contact sheets: what was generated beside what it was made from, for the eye (normal | mask | generated | change)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw
from scipy import ndimage

from .datasets.images import read_mask, read_photo, write_png
from .errors import InputError
from .fonts import font_for
from .geometry import Box, context_box

COLUMNS = ("normal", "mask", "generated", "change")
GAIN = 3.0
"""Amplification of the change: 85 levels of 255 show at full strength."""
ZOOM_BELOW = 0.3
"""Masks whose longest side is below this share of the image are shown in their surroundings."""

PAPER, INK, FAINT, LINE = (252, 252, 250), (24, 28, 36), (112, 118, 128), (224, 226, 230)
SHOT_OUTLINE, CHANGE_OUTLINE = (236, 38, 96), (52, 96, 214)
MASK_OFF, MASK_ON = (40, 45, 57), (245, 245, 240)
CHANGE_STOPS = ((0.0, (238, 238, 233)), (0.3, (255, 205, 120)), (0.6, (232, 93, 50)), (1.0, (92, 8, 40)))

LONGEST = 255
"""Characters of a file's name."""
LARGEST = 1e12
"""Beyond it a measure is none: a record may be a stranger's."""

EDGE = 40  # pixels round the sheet
GAP = 4  # between the pictures of a pair
GUTTER = 36  # between pairs
CAPTION = 28  # below a line of pairs
BLOCK = 36  # between blocks


@dataclass(frozen=True)
class Pair:
    """The pictures of one pair and what is known of it.

    normal: (H, W, 3) uint8, or None where the normal images are not at hand. mask: (H, W) bool. generated: as normal.
    record: its pair record (id, seed, measures, ...).
    """

    normal: np.ndarray | None
    mask: np.ndarray
    generated: np.ndarray
    record: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class StoredPairs(Sequence[Pair]):
    """Pairs of a run, opened one by one when they are asked for: a run may hold thousands, and large ones.

    run: its folder. records: the pairs' records. normals: folder of its normal images, or None.
    """

    run: Path
    records: Sequence[Mapping[str, Any]]
    normals: Path | None = None

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> Pair:
        return read_pair(self.run, self.records[index], self.normals)


@dataclass(frozen=True)
class Block:
    """One defect type: its real shots, each (image (H, W, 3) uint8, mask (H, W) bool), and its generated pairs."""

    product: str
    defect: str
    shots: Sequence[tuple[np.ndarray, np.ndarray]]
    pairs: Sequence[Pair]

    @property
    def records(self) -> Sequence[Mapping[str, Any]]:
        """The record of each pair; none of them is opened for it."""
        return self.pairs.records if isinstance(self.pairs, StoredPairs) else [pair.record for pair in self.pairs]


def read_pair(run: Path, record: Mapping[str, Any], normals: Path | None) -> Pair:
    """Open a pair of a run: its image and mask there, its normal image in the folder `normals`, if both are given.

    Raises InputError for files that are missing or damaged, and for a normal image of another size than the pair's.
    """
    name = name_in(record, "id")
    generated = read_photo(run / "image" / f"{name}.png")
    mask = read_mask(run / "mask" / f"{name}_mask.png", generated.size).mask
    if normals is None or record.get("normal", "") is None:
        return Pair(None, mask, generated.rgb, record)
    normal = read_photo(normals / name_in(record, "normal"))
    if normal.size != generated.size:
        raise InputError(
            f"the normal image {normal.path} is {_size(normal.size)}, pair {name} of {run} {_size(generated.size)}; "
            "give the folder of normal images that the run was made from"
        )
    return Pair(normal.rgb, mask, generated.rgb, record)


def name_in(record: Mapping[str, Any], field: str) -> str:
    """The name of a file right in a folder; a record may be a stranger's, which must not lead out nor be endless."""
    return Path(str(record.get(field))).name[:LONGEST]


def _size(size: tuple[int, int]) -> str:
    return f"{size[1]}x{size[0]}"


def change_picture(normal: np.ndarray, generated: np.ndarray) -> np.ndarray:
    """Return the absolute difference of two images (H, W, 3) uint8, amplified, in colours; light where none is."""
    change = (np.maximum(generated, normal) - np.minimum(generated, normal)).max(-1)
    shares, colours = zip(*CHANGE_STOPS, strict=True)
    level = np.clip(GAIN * np.arange(256, dtype=np.float32) / 255, 0, 1)
    of_level = np.stack([np.interp(level, shares, [colour[c] for colour in colours]) for c in range(3)], -1)
    return of_level.round().astype(np.uint8)[change]


def mask_picture(mask: np.ndarray) -> np.ndarray:
    """Return a mask (H, W) bool as a picture (H, W, 3) uint8."""
    return np.where(mask[..., None], np.uint8(MASK_ON), np.uint8(MASK_OFF))


def outline(mask: np.ndarray, width: int, height: int) -> np.ndarray:
    """Return the border of a mask (H, W) bool in a picture of another size, (height, width) bool.

    It is one pixel wide and lies just outside the mask.
    """
    shown = np.asarray(Image.fromarray(mask.astype(np.uint8) * 255).resize((width, height), Image.Resampling.BOX)) > 0
    return ndimage.binary_dilation(shown, np.ones((3, 3))) & ~shown


def draw_outline(picture: Image.Image, mask: np.ndarray, colour: tuple[int, int, int]) -> Image.Image:
    """Draw the `outline` of a mask (H, W) bool on a picture of whatever size."""
    pixels = np.array(picture)
    pixels[outline(mask, *picture.size)] = colour
    return Image.fromarray(pixels)


def view_box(mask: np.ndarray, tile: int) -> Box:
    """Return the part of an image to show: all of it, or the surroundings of a mask too small to be seen in it."""
    height, width = mask.shape
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    whole = Box(0, 0, width, height)
    if not len(rows):
        return whole
    longest = max(rows[-1] - rows[0], columns[-1] - columns[0]) + 1
    if longest >= ZOOM_BELOW * max(height, width) or max(height, width) <= tile:
        return whole
    return context_box(mask, tile)


def tiles_of(pair: Pair, tile: int, enlarge: bool = True) -> dict[str, Image.Image]:
    """Return the pictures of a pair by name, in the order of COLUMNS, tile pixels long (at most, unless `enlarge`).

    Without the normal image there is neither it nor the change.
    """
    box = view_box(pair.mask, tile)
    mask, generated = _cut(pair.mask, box), _cut(pair.generated, box)  # first, as of a large photo they are little
    seen = {"mask": mask_picture(mask), "generated": generated}
    if pair.normal is not None:
        normal = _cut(pair.normal, box)
        seen |= {"normal": normal, "change": change_picture(normal, generated)}
    tiles = {name: _fit(seen[name], tile, enlarge) for name in COLUMNS if name in seen}
    if "change" in tiles:
        tiles["change"] = draw_outline(tiles["change"], mask, CHANGE_OUTLINE)
    return tiles


def outline_tile(pair: Pair, tile: int) -> Image.Image:
    """Return a mask's outline on nothing, to be laid over the pictures of `tiles_of` that are not enlarged."""
    seen = _cut(pair.mask, view_box(pair.mask, tile))
    width, height = _fit(mask_picture(seen), tile, enlarge=False).size
    pixels = np.zeros((height, width, 4), np.uint8)
    pixels[outline(seen, width, height)] = (*SHOT_OUTLINE, 255)
    return Image.fromarray(pixels)


def shot_tile(image: np.ndarray, mask: np.ndarray, tile: int, enlarge: bool = True) -> Image.Image:
    """Return a real shot, its mask outlined, tile pixels long (at most, unless `enlarge`)."""
    box = view_box(mask, tile)
    return draw_outline(_fit(_cut(image, box), tile, enlarge), _cut(mask, box), SHOT_OUTLINE)


def measure_of(record: Mapping[str, Any], name: str) -> float | None:
    """Return a measure of a pair record (METHOD, 6), or of its mask (iou), None if it was not taken or is no number."""
    value, mask = record.get(name), record.get("mask")
    if value is None and isinstance(mask, Mapping):
        value = mask.get(name)
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < LARGEST
    return float(value) if is_number else None


def caption_of(pair: Pair) -> str:
    """Return what stands below a pair: its id, its fill, its mask's novelty, its seed."""
    record = pair.record
    measures = {name: measure_of(record, name) for name in ("fill", "novelty")}
    parts = [str(record["id"])] if "id" in record else []
    parts += [f"{name} {value:.2f}" for name, value in measures.items() if value is not None]
    parts += [f"seed {record['seed']}"] if "seed" in record else []
    return "   ".join(parts)


def contact_sheet(
    blocks: Sequence[Block], out: Path, *, title: str = "", tile: int = 128, columns: int = 2, limit: int = 16
) -> Path:
    """Draw a sheet, one block a defect type: its shots, then its pairs as normal | mask | generated | change.

    tile: pixels a picture. columns: pairs a line. limit: pairs a block, evenly picked from more. Returns `out`, a PNG.
    """
    sheet = _Sheet(tile, columns)
    heights = [sheet.height_of(block, limit) for block in blocks]
    top = EDGE + (64 if title else 0)
    page = Image.new("RGB", (sheet.width, top + sum(heights) + BLOCK * max(len(blocks) - 1, 0) + EDGE), PAPER)
    draw = ImageDraw.Draw(page)
    if title:
        draw.text((EDGE, EDGE), title, INK, font_for(title, 28), anchor="lt")
    for block, height in zip(blocks, heights, strict=True):
        sheet.draw_block(page, top, block, limit)
        top += height + BLOCK
    write_png(out, np.asarray(page))
    return out


def pick_evenly(items: Sequence[Any], limit: int) -> list[Any]:
    """Return at most `limit` items, evenly spaced, in order."""
    if len(items) <= limit:
        return list(items)
    return [items[i * len(items) // limit] for i in range(limit)]


class _Sheet:
    """The layout: where a block's header, shots, column titles, pairs and captions go. All lengths in pixels."""

    HEADER, SHOT_LABEL, TITLES = 44, 24, 24

    def __init__(self, tile: int, columns: int):
        self.tile, self.columns = tile, columns
        self.pair_width = 4 * tile + 3 * GAP
        self.width = 2 * EDGE + columns * self.pair_width + (columns - 1) * GUTTER
        self.shots_per_line = max(1, (self.width - 2 * EDGE + GAP) // (tile + GAP))

    def height_of(self, block: Block, limit: int) -> int:
        shot_lines = bool(block.shots)
        pair_lines = -(-min(len(block.pairs), limit) // self.columns)
        shots_height = (self.SHOT_LABEL + self.tile + 20) * shot_lines
        return self.HEADER + shots_height + self.TITLES * bool(pair_lines) + pair_lines * (self.tile + CAPTION)

    def draw_block(self, page: Image.Image, top: int, block: Block, limit: int) -> None:
        draw = ImageDraw.Draw(page)
        draw.line((EDGE, top, self.width - EDGE, top), LINE, 1)
        name, summary = f"{block.product} / {block.defect}", _summary(block)
        draw.text((EDGE, top + 12), name, INK, font_for(name, 22), anchor="lt")
        draw.text((self.width - EDGE, top + 17), summary, FAINT, font_for(summary, 14), anchor="rt")
        top += self.HEADER
        if block.shots:
            draw.text((EDGE, top + 4), "learned from these real shots", FAINT, font_for("", 13), anchor="lt")
            top += self.SHOT_LABEL
            for index, (image, mask) in enumerate(block.shots[: self.shots_per_line]):
                left = EDGE + index * (self.tile + GAP)
                self._paste(page, shot_tile(image, mask, self.tile), left, top)
            top += self.tile + 20
        shown = pick_evenly(block.pairs, limit)
        for column in range(min(self.columns, len(shown))):
            for index, name in enumerate(COLUMNS):
                left = self._left(column) + index * (self.tile + GAP)
                draw.text((left, top + 4), name, FAINT, font_for(name, 13), anchor="lt")
        for index, pair in enumerate(shown):
            line, column = divmod(index, self.columns)
            self._draw_pair(page, self._left(column), top + self.TITLES + line * (self.tile + CAPTION), pair)

    def _left(self, column: int) -> int:
        return EDGE + column * (self.pair_width + GUTTER)

    def _draw_pair(self, page: Image.Image, left: int, top: int, pair: Pair) -> None:
        for name, picture in tiles_of(pair, self.tile).items():
            self._paste(page, picture, left + COLUMNS.index(name) * (self.tile + GAP), top)
        told = caption_of(pair)
        ImageDraw.Draw(page).text((left, top + self.tile + 5), told, FAINT, font_for(told, 12), anchor="lt")

    def _paste(self, page: Image.Image, picture: Image.Image, left: int, top: int) -> None:
        across, down = (self.tile - picture.width) // 2, (self.tile - picture.height) // 2
        page.paste(LINE, (left, top, left + self.tile, top + self.tile))
        page.paste(picture, (left + across, top + down))


def _summary(block: Block) -> str:
    fills = [measure_of(record, "fill") for record in block.records]
    known = [fill for fill in fills if fill is not None]
    count = f"{len(block.pairs)} {'pair' if len(block.pairs) == 1 else 'pairs'}"
    return f"{count}, median fill {np.median(known):.2f}" if known else count


def _cut(picture: np.ndarray, box: Box) -> np.ndarray:
    return picture[box.slices]


def _fit(picture: np.ndarray, tile: int, enlarge: bool = True) -> Image.Image:
    """Scale a picture to `tile` pixels; small ones without smoothing, so that their pixels stay true."""
    height, width = picture.shape[:2]
    scale = tile / max(height, width)
    image = Image.fromarray(picture)
    if scale == 1 or (scale > 1 and not enlarge):
        return image
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return image.resize(size, Image.Resampling.NEAREST if scale >= 2 else Image.Resampling.LANCZOS)
