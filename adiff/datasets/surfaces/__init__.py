"""Procedural pictures of inspected surfaces with pixel-exact defect masks and caption words.

A picture is made of a normal scene and of a defect laid into it; each has its own random stream, so that the same
generator gives the same normal surface with and without a defect.
"""

import hashlib
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from .defects import COLOURS, KINDS, Draw
from .scene import Scene, add_sensor_noise, shade
from .textures import MATERIALS, TINTS, draw_scene

PRODUCTS = ("wood", "metal", "carpet", "tile", "leather", "gasket")
DEFECTS = ("scratch", "crack", "hole", "stain", "dent", "contamination")
# Combinations that the demo model never sees in training.
WITHHELD = (("metal", "scratch"), ("tile", "stain"), ("wood", "hole"), ("leather", "contamination"))

SIZE_WORDS = ("small", "medium", "large")
ORIENTATION_WORDS = ("horizontal", "vertical", "diagonal", "round")
PLACE_WORDS = ("top-left", "top-right", "bottom-left", "bottom-right", "centre")
VOCABULARY = tuple(
    dict.fromkeys((*PRODUCTS, *TINTS, *DEFECTS, *COLOURS, "shaded", *SIZE_WORDS, *ORIENTATION_WORDS, *PLACE_WORDS))
)

MIN_SIZE = 32  # pixels
AREA = (0.008, 0.12)  # allowed share of the picture under the mask
SIZE_BOUNDS = (0.022, 0.045)  # shares of the picture where "small" and "medium" end
CENTRE_HALF_SIDE = 0.16  # half side of the square called "centre", in image sides
NOTICEABLE = 12.0  # levels of 255
CONTRAST = 35.0  # least mean change over the mask, levels of 255, averaged over channels
DENT_CONTRAST = 25.0
FEATHER = 3 / 128  # image sides over which the unnoticeable rest of a defect fades out beside its mask
SPECK = 4 / 128**2  # share of the picture below which a part of the mask is dropped
GAP = 1.5 / 128  # image sides between parts of a mask that are closed
DENT_GAP = 7 / 128
MARGIN = 0.02  # image sides between a defect's outline and the frame; more where that is less than 1.8 pixels
MAX_TRIES = 64

__all__ = ["DEFECTS", "PRODUCTS", "VOCABULARY", "WITHHELD", "Surface", "render", "sample_seed"]


@dataclass(frozen=True)
class Surface:
    """One picture.

    image: (size, size, 3) uint8; mask: (size, size) bool, the pixels that the defect changed noticeably, empty without
    one; foreground: (size, size) bool, the product; words: its caption, words of VOCABULARY.
    """

    image: np.ndarray
    mask: np.ndarray
    foreground: np.ndarray
    product: str
    defect: str | None
    words: tuple[str, ...]


def sample_seed(seed: int, *path) -> np.random.Generator:
    """Return the generator of one sample, by seed and path such as (product, defect or "good", split, index).

    It depends on nothing but the values, so samples can be drawn in any order and by any process.
    """
    text = "\x1f".join("good" if part is None else str(part) for part in (seed, *path))
    return np.random.default_rng(int.from_bytes(hashlib.sha256(text.encode()).digest()[:16], "big"))


def _check(product: str, defect: str | None, size: int) -> None:
    """Raise ValueError for an unknown product or defect or a size below MIN_SIZE."""
    if product not in MATERIALS:
        raise ValueError(f"unknown product {product!r}; expected one of {', '.join(PRODUCTS)}")
    if defect is not None and defect not in KINDS:
        raise ValueError(f"unknown defect {defect!r}; expected None or one of {', '.join(DEFECTS)}")
    if size < MIN_SIZE:
        raise ValueError(f"size {size} pixels is too small; expected at least {MIN_SIZE}")


def _draw_centre(scene: Scene, rng: np.random.Generator, place: tuple[float, float] | None) -> tuple[float, float]:
    """Return a defect's centre (u, v): `place` or a random one, moved onto the inner part of the foreground."""
    drawn = rng.uniform(0.06, 0.94, 2)
    target = drawn if place is None else np.clip(np.asarray(place, float), 0, 1)
    if scene.foreground.all():
        return float(target[0]), float(target[1])
    pick = rng.random()
    depth = ndimage.distance_transform_edt(scene.foreground)
    rows, columns = np.nonzero(depth > 0.6 * depth.max())
    if place is None:
        index = int(pick * len(rows))
    else:
        u, v = (columns + 0.5) / scene.size, (rows + 0.5) / scene.size
        index = int(np.argmin((u - target[0]) ** 2 + (v - target[1]) ** 2))
    return (columns[index] + 0.5) / scene.size, (rows[index] + 0.5) / scene.size


def _window(mask: np.ndarray, border: int) -> tuple[slice, slice]:
    """Return the rows and columns that hold a non-empty mask (size, size) bool and `border` pixels around it."""
    spans = (np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0)))
    rows, columns = (slice(max(0, span[0] - border), span[-1] + 1 + border) for span in spans)
    return rows, columns


def _close(mask: np.ndarray, radius: float) -> np.ndarray:
    """Return the mask (rows, columns) bool closed by a disc of `radius` pixels; its cost does not grow with it."""
    border = int(radius) + 2
    grown = ndimage.distance_transform_edt(~np.pad(mask, border)) <= radius
    return (ndimage.distance_transform_edt(grown) > radius)[border:-border, border:-border] | mask


def _noticeable(change: np.ndarray, scene: Scene, defect: str) -> np.ndarray:
    """Return the mask (size, size) bool of a change (size, size, 3) in levels, without specks and pinholes."""
    size = scene.size
    levels = np.abs(change)
    mask = (np.maximum(np.maximum(levels[..., 0], levels[..., 1]), levels[..., 2]) > NOTICEABLE) & scene.foreground
    if not mask.any():
        return mask
    window = _window(mask, 2 + int(DENT_GAP * size))
    mask[window] = _without_gaps(mask[window], defect, size) & scene.foreground[window]
    return mask


def _without_gaps(mask: np.ndarray, defect: str, size: int) -> np.ndarray:
    """Return a non-empty mask (rows, columns) bool, part of a picture of `size` pixels, without gaps and specks."""
    # The neutral line between a dent's lobes and the crossing between a groove and its lip belong to the defect.
    mask = _close(mask, (DENT_GAP if defect == "dent" else GAP) * size)
    if defect in ("hole", "stain", "dent"):
        mask = ndimage.binary_fill_holes(mask)
    labels, count = ndimage.label(mask, np.ones((3, 3)))
    areas = np.bincount(labels.ravel(), minlength=count + 1)
    keep = areas >= max(2, SPECK * size * size)
    keep[0] = False
    return keep[labels]


def _is_valid(mask: np.ndarray, change: np.ndarray, defect: str) -> bool:
    """Return whether a mask's area, distance from the frame and mean change are as promised."""
    if not AREA[0] <= mask.mean() <= AREA[1]:
        return False
    if mask[0].any() or mask[-1].any() or mask[:, 0].any() or mask[:, -1].any():
        return False
    return np.abs(change[mask]).mean() >= (DENT_CONTRAST if defect == "dent" else CONTRAST)


def _fade_out(mask: np.ndarray, change: np.ndarray, scene: Scene) -> np.ndarray:
    """Return the change (size, size, 3), levels in, 0..1 out, kept in the mask and faded to none within FEATHER of it.

    What is too weak to be in the mask must not reach far beyond it, so that the mask tells the whole truth.
    """
    feather = FEATHER * scene.size  # pixels
    window = _window(mask, int(feather) + 1)
    distance = ndimage.distance_transform_edt(~mask[window])
    weight = np.clip(1 - (distance - 0.5) / feather, 0, 1) * (distance <= feather) * scene.foreground[window]
    kept = np.zeros_like(change)
    kept[window] = change[window] * (weight[..., None] / 255)
    return kept


def _lay_in(scene: Scene, clean: np.ndarray, defect: str, rng: np.random.Generator, place) -> tuple:
    """Return the picture (size, size, 3) float32, mask and colour word of `defect`, redrawn until it is valid."""
    for attempt in range(MAX_TRIES):
        strength = min(1.0 + 0.03 * attempt, 1.8)
        scale = 1.0 if scene.foreground.all() else 0.82
        draw = Draw(rng, _draw_centre(scene, rng, place), strength, scale, max(MARGIN, 1.8 / scene.size))
        spoiled, colour = KINDS[defect](scene, draw)
        change = (shade(spoiled) - clean) * 255
        mask = _noticeable(change, scene, defect)
        if _is_valid(mask, change, defect):
            return clean + _fade_out(mask, change, scene), mask, colour
    raise RuntimeError(f"no valid {defect} on {scene.product} in {MAX_TRIES} tries at size {scene.size}, place {place}")


def _mask_words(mask: np.ndarray) -> tuple[str, str, str]:
    """Return the size, orientation and place words of a mask (size, size) bool."""
    size = mask.shape[0]
    rows, columns = np.nonzero(mask)
    u, v = (columns + 0.5) / size, (rows + 0.5) / size
    extent = SIZE_WORDS[int(np.searchsorted(SIZE_BOUNDS, mask.mean(), side="right"))]
    cu, cv = u.mean(), v.mean()
    uu, vv, uv = ((u - cu) ** 2).mean(), ((v - cv) ** 2).mean(), ((u - cu) * (v - cv)).mean()
    spread = np.hypot((uu - vv) / 2, uv)
    major, minor = (uu + vv) / 2 + spread, (uu + vv) / 2 - spread
    tilt = abs(np.degrees(0.5 * np.arctan2(2 * uv, uu - vv)))  # 0 horizontal, 90 vertical
    if major < 1.5**2 * minor:
        orientation = "round"
    else:
        orientation = "horizontal" if tilt < 22.5 else "vertical" if tilt > 67.5 else "diagonal"
    if max(abs(cu - 0.5), abs(cv - 0.5)) < CENTRE_HALF_SIDE:
        place = "centre"
    else:
        place = f"{'top' if cv < 0.5 else 'bottom'}-{'left' if cu < 0.5 else 'right'}"
    return extent, orientation, place


def render(
    product: str,
    defect: str | None,
    size: int,
    rng: np.random.Generator,
    *,
    place: tuple[float, float] | None = None,
) -> Surface:
    """Draw one picture of `product`, normal (None) or with a `defect`, size x size pixels.

    place: the defect's wanted centre (u, v), each 0..1 from the left and the top; kept as closely as the frame and the
    foreground allow. Raises ValueError for unknown names and for sizes below 32.
    """
    _check(product, defect, size)
    # Three streams: the per-pixel noise is apart because only its length depends on the size.
    scene_rng, defect_rng, noise_rng = (np.random.default_rng(int(s)) for s in rng.integers(0, 2**63, 3))
    scene = draw_scene(product, size, scene_rng)
    picture = shade(scene)
    mask = np.zeros((size, size), bool)
    words: tuple[str, ...] = (product, scene.tint)
    if defect is not None:
        picture, mask, colour = _lay_in(scene, picture, defect, defect_rng, place)
        words = (*words, defect, colour, *_mask_words(mask))
    return Surface(add_sensor_noise(picture, noise_rng), mask, scene.foreground, product, defect, words)
