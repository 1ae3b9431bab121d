"""Placement: masks moved, turned and scaled onto an object, never off it, near its edge or away from it if asked.

| symbol | meaning | shape |
|---|---|---|
| m | mask to be placed; only its shape counts, and with `move` its place | (h, w) bool |
| s | m within its bounding box, turned and scaled | (r, c) bool |
| f | foreground: where the object is | (H, W) bool |

A mask of another size than f is first scaled as a learned mask is brought to a photo: short side to short side, with a
smooth outline where it is enlarged. The image's border is no edge of the object. Angles are degrees, counterclockwise.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from einops import reduce
from scipy import fft, ndimage

from .errors import InputError
from .geometry import Box, mask_box, resize_mask
from .outline import SMOOTH_FROM, Outline, fill_outline, smooth_outline

ANYWHERE, NEAR, AWAY = EDGES = ("anywhere", "near", "away")
"""Where on the object: all of it; some of the mask within `margin` of its edge; all of it further away."""
DRAWS = 64
"""Random places looked at before all of them are; the same chance for every place either way."""
LARGEST = 2**21
"""Pixels of a foreground beyond which all its places are looked at in blocks: a tight one may then be missed."""
FINE = 4
"""Cells to a pixel of the source in which a turned mask is drawn, at least, so that a scratch does not fall to dots."""
SLACK = 6
"""Pixels, its own if they are larger, that a turned mask may lack of what its corners tell: ends are cut or rounded."""
ELONGATED = 1.5
"""Length over width from which a mask has a direction."""
LEAST_TURN = 5.0
"""Degrees that directions vary, whatever few shots say."""


@dataclass(frozen=True)
class Placing:
    """How masks are placed.

    turn: largest turn to either side, degrees; 180 is any. scale: least and largest factor of the mask's sides. move:
    how far its centre may go from where it was, share of the image's sides; 1 is anywhere. edge: one of EDGES, margin
    in pixels along rows and columns. tries: turns and scales drawn for each mask before it is given up. Raises
    InputError for what cannot be.
    """

    turn: float = 0.0
    scale: tuple[float, float] = (1.0, 1.0)
    move: float = 1.0
    edge: str = ANYWHERE
    margin: int = 8
    tries: int = 32

    def __post_init__(self) -> None:
        low, high = self.scale
        if self.edge not in EDGES:
            raise InputError(f"edge {self.edge!r} is unknown; choose one of {', '.join(EDGES)}")
        if not (0 < low <= high and math.isfinite(high)):
            raise InputError(f"scale is {low} to {high}; it must be above 0, the least first")
        for name, least, most in (("turn", 0, 180), ("move", 0, 1), ("margin", 1, 10_000), ("tries", 1, 10_000)):
            if not least <= getattr(self, name) <= most:
                raise InputError(f"{name} is {getattr(self, name)}; it must lie between {least} and {most}")


@dataclass(frozen=True)
class ShotSpread:
    """How real masks vary: least and largest area (share of a square image); mean and spread of their direction.

    direction: degrees in [0, 180) and to either side of it, or None if they have no common one: any turn will do.
    """

    area: tuple[float, float]
    direction: tuple[float, float] | None

    @classmethod
    def of(cls, shots: Sequence[np.ndarray]) -> ShotSpread:
        """Measure the shots' masks; raises InputError for none, or an empty one."""
        if not len(shots):
            raise InputError("no masks to learn sizes and directions from; expected at least one shot")
        for shot in shots:
            mask_box(shot)
        areas = [float(shot.sum()) / min(shot.shape) ** 2 for shot in shots]
        angles = [angle for shot in shots if (angle := direction(shot)) is not None]
        common = None
        if len(angles) >= 2 and len(angles) * 3 >= len(shots) * 2:
            doubled = np.exp(2j * np.radians(angles))  # a direction and its opposite are the same
            mean = math.degrees(np.angle(doubled.mean())) / 2 % 180
            common = (mean, max(LEAST_TURN, *(abs(_turned(angle - mean)) for angle in angles)))
        return cls((min(areas), max(areas)), common)

    def draw(self, shape: np.ndarray, short: int, rng: np.random.Generator) -> tuple[float, float]:
        """A turn and a factor that give a shape, (r, c) bool, a direction and an area within the shots' range.

        short: short side of the image, pixels.
        """
        low, high = self.area
        wanted = math.exp(rng.uniform(math.log(low), math.log(high))) * short**2
        own = direction(shape)
        if own is None or self.direction is None:
            turn = rng.uniform(-180, 180)
        else:
            mean, spread = self.direction
            turn = mean + rng.uniform(-spread, spread) - own + 180 * rng.integers(2)
        return _turned(turn, 360), math.sqrt(wanted / float(shape.sum()))


def direction(mask: np.ndarray) -> float | None:
    """Direction of a mask's long axis by its second moments, degrees in [0, 180) counterclockwise from the row.

    None for a mask that is not elongated (ELONGATED). mask: (H, W) bool, not empty.
    """
    rows, columns = np.nonzero(mask)
    x, y = columns - columns.mean(), rows.mean() - rows  # up is positive
    # a pixel's own extent, 1/12, keeps a line's width above zero
    xx, yy, xy = (x * x).mean() + 1 / 12, (y * y).mean() + 1 / 12, (x * y).mean()
    root = math.hypot(xx - yy, 2 * xy)
    if math.sqrt((xx + yy + root) / (xx + yy - root)) < ELONGATED:
        return None
    return math.degrees(math.atan2(2 * xy, xx - yy)) / 2 % 180


def _turned(angle: float, full: float = 180.0) -> float:
    """An angle between -full / 2 and full / 2, degrees."""
    return (angle + full / 2) % full - full / 2


def transform_mask(mask: np.ndarray, turn: float, scale: float) -> np.ndarray:
    """Turn and scale a mask, cut to its bounding box; no part is ever lost.

    Quarter turns are exact, unless it is enlarged by SMOOTH_FROM or more and gets a smooth outline (`outline`).
    mask: (H, W) bool, not empty (InputError). turn: degrees counterclockwise. Returns (r, c) bool.
    """
    shape = mask[mask_box(mask).slices]
    if scale >= SMOOTH_FROM:
        return _enlarged(shape, turn, scale)
    if turn % 90 == 0:
        quarter = np.rot90(shape, round(turn / 90) % 4)
        return resize_mask(quarter, *(max(1, round(side * scale)) for side in quarter.shape)).copy()
    if scale * max(shape.shape) < 1:  # a grid that is finer yet would only grow
        return np.ones((1, 1), dtype=bool)
    fine = max(2, math.ceil(FINE / scale))
    cosine, sine = math.cos(math.radians(turn)), math.sin(math.radians(turn))
    height, width = shape.shape
    rows = math.ceil((abs(cosine) * height + abs(sine) * width) * scale + 1)
    columns = math.ceil((abs(sine) * height + abs(cosine) * width) * scale + 1)
    back = np.array([[cosine, sine], [-sine, cosine]]) / (fine * scale)  # from a cell of the target to the source
    centre = (np.array([height, width]) + 1) / 2 - back @ ((np.array([rows, columns]) * fine - 1) / 2)
    cells = ndimage.affine_transform(
        np.pad(shape, 1).astype(np.uint8), back, centre, (rows * fine, columns * fine), order=0, mode="constant"
    )
    placed = resize_mask(cells > 0, rows, columns)
    return placed[mask_box(placed).slices] if placed.any() else np.ones((1, 1), dtype=bool)


def _enlarged(shape: np.ndarray, turn: float, scale: float) -> np.ndarray:
    """The shape, (r, c) bool, turned and scaled by its outline, cut to its bounding box."""
    points, after = smooth_outline(shape)
    cosine, sine = math.cos(math.radians(turn)), math.sin(math.radians(turn))
    points = points @ (scale * np.array([[cosine, -sine], [sine, cosine]]))
    points -= np.floor(points.min(0))
    columns, rows = np.ceil(points.max(0)).astype(int)
    placed = fill_outline(Outline(points, after), rows, columns)
    return placed[mask_box(placed).slices]


@dataclass(frozen=True, eq=False)
class Ground:
    """A foreground to place masks on. allowed: where all of a mask must lie; touch: some of it must, or None.

    Both (H, W) bool; where: what they are, in words, for a mask that was not placed.
    """

    allowed: np.ndarray
    touch: np.ndarray | None
    where: str
    _spectra: dict = field(default_factory=dict, repr=False)

    @classmethod
    def of(cls, foreground: np.ndarray, placing: Placing) -> Ground:
        """Prepare f for many masks; raises InputError for one that is empty, or where no place is left."""
        if not foreground.any():
            height, width = foreground.shape
            raise InputError(f"the foreground ({width}x{height}) is empty; mark the object in white on black")
        if placing.edge == ANYWHERE:
            return cls(foreground, None, "on the object")
        if foreground.all():
            if placing.edge == AWAY:
                return cls(foreground, None, "on the object")
            raise InputError("the foreground fills the image and has no edge to be near to; choose 'anywhere'")
        inner = ndimage.minimum_filter(foreground, 2 * placing.margin + 1, mode="nearest")
        if placing.edge == NEAR:
            return cls(foreground, foreground & ~inner, "near the object's edge")
        if not inner.any():
            raise InputError(
                f"no pixel of the object is {placing.margin} pixels away from its edge; give a smaller margin"
            )
        return cls(inner, None, "away from the object's edge")

    @cached_property
    def bounds(self) -> Box:
        """Bounding box of what is allowed."""
        return mask_box(self.allowed)

    def place(self, shape: np.ndarray, limits: Box, rng: np.random.Generator) -> tuple[int, int] | None:
        """A random place of a shape (r, c): (top, left), or None if it fits nowhere.

        limits: where its upper left pixel may come to lie. All places that fit have the same chance.
        """
        bounds, (rows, columns) = self.bounds, shape.shape
        top, bottom = max(bounds.top, limits.top), min(bounds.bottom - rows + 1, limits.bottom)
        left, right = max(bounds.left, limits.left), min(bounds.right - columns + 1, limits.right)
        if top >= bottom or left >= right:
            return None
        for _ in range(DRAWS):
            place = int(rng.integers(top, bottom)), int(rng.integers(left, right))
            if self.fits(shape, place):
                return place
        return self._any_place(shape, Box(left, top, right, bottom), rng)

    def fits(self, shape: np.ndarray, place: tuple[int, int]) -> bool:
        """Whether a shape (r, c) with its upper left pixel at (top, left) lies where it must."""
        there = (slice(place[0], place[0] + shape.shape[0]), slice(place[1], place[1] + shape.shape[1]))
        if (shape & ~self.allowed[there]).any():
            return False
        return self.touch is None or bool((shape & self.touch[there]).any())

    def _any_place(self, shape: np.ndarray, limits: Box, rng: np.random.Generator) -> tuple[int, int] | None:
        """One of all places that fit, found by correlation: no forbidden pixel under the shape, some to touch."""
        block = max(1, math.ceil(math.sqrt(self.bounds.width * self.bounds.height / LARGEST)))
        small = _blocks(shape, block)
        hits = self._correlate("forbidden", small, block) < 0.5
        if self.touch is not None:
            hits &= self._correlate("touch", small, block) > 0.5
        rows, columns = np.nonzero(hits)
        rows, columns = rows * block + self.bounds.top, columns * block + self.bounds.left
        inside = (rows >= limits.top) & (rows < limits.bottom) & (columns >= limits.left) & (columns < limits.right)
        for index in rng.permutation(np.flatnonzero(inside))[:DRAWS]:
            place = int(rows[index]), int(columns[index])
            if self.fits(shape, place):  # in blocks a touch may be missed
                return place
        return None

    def _correlate(self, name: str, shape: np.ndarray, block: int) -> np.ndarray:
        """Pixels of a map under a shape at each place, (H - r + 1, W - c + 1) float64, in blocks."""
        if (name, block) not in self._spectra:
            there = self.bounds.slices
            view = ~self.allowed[there] if name == "forbidden" else self.touch[there]
            cells = _blocks(view, block)
            grid = tuple(fft.next_fast_len(side, real=True) for side in cells.shape)
            self._spectra[name, block] = cells.shape, grid, fft.rfft2(cells.astype(np.float64), grid)
        (rows, columns), grid, spectrum = self._spectra[name, block]
        if shape.shape[0] > rows or shape.shape[1] > columns:
            return np.full((0, 0), np.inf)
        found = fft.irfft2(spectrum * np.conj(fft.rfft2(shape.astype(np.float64), grid)), grid)
        return found[: rows - shape.shape[0] + 1, : columns - shape.shape[1] + 1]


def _blocks(mask: np.ndarray, block: int) -> np.ndarray:
    """Whether any pixel of each block of a mask is on; (H, W) bool -> (ceil(H / block), ceil(W / block)) bool."""
    if block == 1:
        return mask
    padded = np.pad(mask, [(0, -side % block) for side in mask.shape])
    return reduce(padded, "(h rows) (w columns) -> h w", "any", rows=block, columns=block)


@dataclass(frozen=True, eq=False)
class Placed:
    """A mask on a foreground: (H, W) bool; numbers of the mask and the foreground; what was done to it.

    turn: degrees counterclockwise. scale: factor of its sides. refused: masks tried before it, with the reason.
    """

    mask: np.ndarray
    number: int
    foreground: int
    turn: float
    scale: float
    refused: tuple[tuple[int, str], ...] = ()


def place_masks(
    masks: Sequence[np.ndarray],
    foregrounds: Sequence[np.ndarray],
    placing: Placing | None = None,
    *,
    count: int | None = None,
    seed: int | Sequence[int] = 0,
    spread: ShotSpread | None = None,
) -> list[Placed]:
    """Place a mask on each foreground, or `count` masks on the foregrounds in turn.

    The i-th place is offered to the masks in their order from the i-th on, and the first that can be placed is taken;
    it depends on (seed, i) and the inputs alone. spread: turn and scale follow the shots instead of `placing`.
    Raises InputError for an empty mask or foreground, and for a place that none of the masks fits, saying why.
    """
    placing = placing or Placing()
    if not len(masks) or not len(foregrounds):
        raise InputError(f"{len(masks)} masks for {len(foregrounds)} foregrounds; give at least one of each")
    for mask in masks:
        mask_box(mask)
    grounds: dict[int, Ground] = {}
    own = (int(seed),) if isinstance(seed, int) else tuple(int(part) for part in seed)
    found = []
    for place in range(len(foregrounds) if count is None else count):
        number = place % len(foregrounds)
        if number not in grounds:
            grounds = {number: Ground.of(foregrounds[number], placing)}  # one at a time: spectra of photos are large
        rng, refused = np.random.default_rng((*own, place)), []
        for turn in range(len(masks)):
            chosen = (place + turn) % len(masks)
            placed = place_mask(masks[chosen], grounds[number], placing, rng, spread)
            if not isinstance(placed, str):
                found.append(Placed(placed[0], chosen, number, placed[1], placed[2], tuple(refused)))
                break
            refused.append((chosen, placed))
        else:
            reasons = ", ".join(f"{reason} ({n})" for reason, n in Counter(r for _, r in refused).most_common())
            raise InputError(
                f"none of {len(masks)} masks fits on foreground {number + 1} of {len(foregrounds)}: {reasons}; allow "
                "smaller scales or more turns, give smaller masks or a larger foreground"
            )
    return found


def place_mask(
    mask: np.ndarray, ground: Ground, placing: Placing, rng: np.random.Generator, spread: ShotSpread | None = None
) -> tuple[np.ndarray, float, float] | str:
    """Place one mask: (the mask (H, W) bool, turn in degrees, scale), or why it could not be.

    mask: (h, w) bool, not empty. Every turn and scale is drawn anew until a place is found or the tries are spent.
    """
    size = ground.allowed.shape
    fitted = 1.0 if mask.shape == size else min(size) / min(mask.shape)
    shape = transform_mask(mask, 0, fitted)
    outer = _outermost(shape)
    fixed = spread is None and placing.turn == 0 and placing.scale[0] == placing.scale[1]
    reasons: Counter[str] = Counter()
    for _ in range(1 if fixed else placing.tries):
        if spread is not None:
            turn, scale = spread.draw(shape, min(size), rng)
        else:
            turn = float(rng.uniform(-placing.turn, placing.turn))
            scale = math.exp(rng.uniform(*(math.log(side) for side in placing.scale)))
        bounds = ground.bounds
        height, width = scale * _extent(outer, turn) - SLACK * max(1, scale)
        if height > bounds.height or width > bounds.width:  # spare the work
            reasons["larger than the object"] += 1
            continue
        new = shape if (turn, scale) == (0, 1) else transform_mask(mask, turn, fitted * scale)
        if new.shape[0] > bounds.height or new.shape[1] > bounds.width:
            reasons["larger than the object"] += 1
            continue
        place = ground.place(new, _limits(mask, new, size, placing.move), rng)
        if place is not None:
            whole = np.zeros(size, dtype=bool)
            whole[place[0] : place[0] + new.shape[0], place[1] : place[1] + new.shape[1]] = new
            return whole, turn, scale
        reasons[f"no place {ground.where}"] += 1
    return reasons.most_common(1)[0][0]


def _outermost(shape: np.ndarray) -> np.ndarray:
    """Corners (y, x) of the first and the last pixel of each row that has any, (N, 2): the others lie between."""
    rows = np.flatnonzero(shape.any(1))
    left, right = shape[rows].argmax(1), shape.shape[1] - shape[rows, ::-1].argmax(1)
    return np.array([(y, x) for y in (rows, rows + 1) for x in (left, right)]).transpose(0, 2, 1).reshape(-1, 2)


def _extent(points: np.ndarray, turn: float) -> np.ndarray:
    """Height and width of points (y, x) that are turned, degrees counterclockwise."""
    cosine, sine = math.cos(math.radians(turn)), math.sin(math.radians(turn))
    return np.ptp(points @ np.array([[cosine, sine], [-sine, cosine]]), axis=0)


def _limits(mask: np.ndarray, shape: np.ndarray, size: tuple[int, int], move: float) -> Box:
    """Where the upper left pixel of a shape may lie so that its centre moves by at most `move` of the sides."""
    if move >= 1:
        return Box(0, 0, size[1], size[0])
    box = mask_box(mask)
    spans = []
    for start, stop, side, whole, length in (
        (box.left, box.right, mask.shape[1], size[1], shape.shape[1]),
        (box.top, box.bottom, mask.shape[0], size[0], shape.shape[0]),
    ):
        home = (start + stop) / 2 / side * whole - length / 2
        spans.append((max(math.ceil(home - move * whole - 1e-9), 0), math.floor(home + move * whole + 1e-9) + 1))
    (left, right), (top, bottom) = spans
    return Box(left, top, right, bottom)
