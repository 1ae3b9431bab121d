"""DRAEM's anomalies: a texture laid into an image where Perlin noise is high (Zavrtanik et al., ICCV 2021, sec. 3.3).

| symbol | meaning | shape |
|---|---|---|
| I | normal image | (H, W, 3) |
| P | Perlin noise | (H, W), about [-1, 1] |
| M | P above THRESHOLD | (H, W) bool |
| A | texture, changed in colour | (H, W, 3) |
| beta | opacity, drawn for each image | |

I_a = (1 - M) I + M ((1 - beta) A + beta I) (arXiv 2108.07610, Eq. 4, with beta as in the release).
"""

from __future__ import annotations

import math

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

from ..geometry import resize_image
from .pasting import Sources

THRESHOLD = 0.5
MAX_OCTAVE = 6
"""Cells of the noise along each axis are 1, 2, 4, ... up to 2^(MAX_OCTAVE - 1) (the release)."""
ANGLE = 90.0
"""Largest turn of the noise, degrees either way."""
MAX_BETA = 0.8
CHANGES = 3
"""Colour changes that each texture goes through, of the release's nine."""
TILES = (4, 8)
"""Rows and columns of tiles that stand in for a texture (MemSeg, arXiv 2205.00908, sec. 3.2)."""
TRIES = 100


def draem(
    normal: np.ndarray, mask: np.ndarray | None, sources: Sources, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Lay a random texture over the image in the shape of thresholded Perlin noise, or of the mask.

    The paper takes its textures from DTD. Without textures the normal image's own tiles, shuffled, are the texture
    (MemSeg's structural anomalies). sources: its textures are used. Returns image (H, W, 3) uint8 and mask (H, W) bool.
    """
    frame = normal.shape[:2]
    on = perlin_mask(frame, rng) if mask is None else mask.astype(bool)
    if len(sources.textures):
        texture = resize_image(sources.textures[int(rng.integers(len(sources.textures)))], *frame)
    else:
        texture = _shuffled(normal, rng)
    beta = rng.random() * MAX_BETA
    texture = recolour(texture, rng).astype(np.float64)
    laid = np.rint((1 - beta) * texture + beta * normal).astype(np.uint8)
    return np.where(on[..., None], laid, normal), on


def perlin_mask(frame: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """Where turned Perlin noise of random cells exceeds the threshold, (H, W) bool; never empty, never all."""
    for _ in range(TRIES):
        cells = 2 ** rng.integers(MAX_OCTAVE, size=2)
        on = perlin(frame, tuple(cells), math.radians(rng.uniform(-ANGLE, ANGLE)), rng) > THRESHOLD
        if on.any() and not on.all():
            return on
    raise ValueError(f"{TRIES} noises without a part above {THRESHOLD} in a frame of {frame}")


def perlin(frame: tuple[int, int], cells: tuple[int, int], angle: float, rng: np.random.Generator) -> np.ndarray:
    """Perlin noise (SIGGRAPH 2002) of cells (down, across) to a frame (H, W), turned by an angle in radians.

    (H, W) float64 of about [-1, 1], scaled as the release's.
    """
    y, x = np.meshgrid(*((np.arange(side) + 0.5) / side - 0.5 for side in frame), indexing="ij")
    cos, sin = math.cos(angle), math.sin(angle)
    y, x = (cos * y + sin * x) * cells[0], (cos * x - sin * y) * cells[1]
    corners = 2 * max(cells) + 2  # a turned frame reaches beyond its cells
    slopes = rng.uniform(0, 2 * math.pi, (corners, corners))
    row, column = np.floor(y).astype(int), np.floor(x).astype(int)
    y, x = y - row, x - column

    def slope(down: int, right: int) -> np.ndarray:
        a = slopes[(row + down) % corners, (column + right) % corners]
        return np.cos(a) * (y - down) + np.sin(a) * (x - right)

    fade_y, fade_x = (t**3 * (t * (6 * t - 15) + 10) for t in (y, x))
    above = slope(0, 0) + fade_x * (slope(0, 1) - slope(0, 0))
    below = slope(1, 0) + fade_x * (slope(1, 1) - slope(1, 0))
    return math.sqrt(2) * (above + fade_y * (below - above))


def _shuffled(normal: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The image's tiles in another order; each is resized to the place it comes to."""
    rows, columns = (np.linspace(0, normal.shape[axis], TILES[axis] + 1).astype(int) for axis in (0, 1))
    places = [(slice(rows[i], rows[i + 1]), slice(columns[j], columns[j + 1]))
              for i in range(TILES[0]) for j in range(TILES[1])]  # fmt: skip
    out = normal.copy()
    for place, source in zip(places, rng.permutation(len(places)), strict=True):
        there, tile = out[place], normal[places[source]]
        if there.size and tile.size:
            out[place] = resize_image(tile, *there.shape[:2])
    return out


def recolour(texture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Put (H, W, 3) uint8 through CHANGES different ones of the release's changes of colour."""
    image = Image.fromarray(np.ascontiguousarray(texture))
    for index in rng.choice(len(_CHANGES), CHANGES, replace=False):
        image = _CHANGES[index](image, rng)
    return np.array(image)


def _hue(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    hue, saturation, value = (np.array(channel).astype(int) for channel in image.convert("HSV").split())
    hue = (hue + rng.integers(-50, 51)) % 256
    saturation = np.clip(saturation + rng.integers(-50, 51), 0, 255)
    return Image.fromarray(np.stack([hue, saturation, value], -1).astype(np.uint8), mode="HSV").convert("RGB")


def _levels(image: Image.Image, table: np.ndarray) -> Image.Image:
    return Image.fromarray(np.clip(np.rint(table), 0, 255).astype(np.uint8)[np.array(image)])


_LEVELS = np.arange(256.0)
_CHANGES = (
    lambda image, rng: _levels(image, 255 * (_LEVELS / 255) ** rng.uniform(0.5, 2)),
    lambda image, rng: _levels(image, _LEVELS * rng.uniform(0.8, 1.2) + rng.uniform(-30, 30)),
    lambda image, rng: ImageEnhance.Sharpness(image).enhance(rng.uniform(0, 3)),
    _hue,
    lambda image, rng: ImageOps.solarize(image, int(rng.integers(32, 129))),
    lambda image, rng: ImageOps.posterize(image, int(rng.integers(2, 6))),
    lambda image, rng: ImageOps.invert(image),
    lambda image, rng: ImageOps.autocontrast(image),
    lambda image, rng: ImageOps.equalize(image),
)
