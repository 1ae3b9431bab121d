"""Band-limited noise and shape functions that are independent of the image's resolution.

All coordinates are in image sides: 0..1 from the left (u) or from the top (v) edge. Random numbers are drawn on
lattices of a fixed number of cells, never per pixel, so that a scene is the same at every size.
"""

from functools import lru_cache

import numpy as np
from scipy import ndimage

# Mean over a cell of the sum of squared cubic B-spline weights: the variance that interpolation leaves, per axis.
SPLINE_VARIANCE = 151 / 315


def pixel_grid(size: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the pixel centres' coordinates u and v, each (size, size) float32 in 0..1."""
    axis = ((np.arange(size) + 0.5) / size).astype(np.float32)
    u, v = np.meshgrid(axis, axis)
    return u, v


def rotate(u: np.ndarray, v: np.ndarray, angle: float, centre: tuple[float, float] = (0.5, 0.5)):
    """Return coordinates u, v in a frame turned by `angle` (radians) about `centre`, which becomes the origin."""
    cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    du, dv = u - np.float32(centre[0]), v - np.float32(centre[1])
    return cos * du + sin * dv, cos * dv - sin * du


def smoothstep(low: float, high: float, x: np.ndarray) -> np.ndarray:
    """Return the cubic ramp from 0 at `low` to 1 at `high`; `low` above `high` gives a falling ramp."""
    t = np.clip((x - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)


@lru_cache(maxsize=256)
def _spline_weights(size: int, cells: int) -> np.ndarray:
    """Return the (size, cells + 3) float32 matrix that evaluates a cubic B-spline at the pixel centres."""
    position = (np.arange(size) + 0.5) / size * cells
    first = np.minimum(position.astype(int), cells - 1)
    t = position - first
    basis = ((1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3)
    weights = np.zeros((size, cells + 3), np.float32)
    for offset, value in enumerate(basis):
        weights[np.arange(size), first + offset] = value / 6
    return weights


def lattice_noise(rng: np.random.Generator, size: int, rows: int, columns: int) -> np.ndarray:
    """Return spline noise on rows x columns cells: (size, size) float32, mean 0, standard deviation 1."""
    values = rng.standard_normal((rows + 3, columns + 3), dtype=np.float32)
    noise = _spline_weights(size, rows) @ values @ _spline_weights(size, columns).T
    return noise / np.float32(SPLINE_VARIANCE)


def fractal_noise(rng: np.random.Generator, size: int, cells: int, octaves: int, gain: float = 0.5) -> np.ndarray:
    """Return a sum of octaves of lattice noise, each `gain` times the one before: (size, size) float32, deviation 1."""
    total = np.zeros((size, size), np.float32)
    for octave in range(octaves):
        total += np.float32(gain**octave) * lattice_noise(rng, size, cells << octave, cells << octave)
    return total / np.float32(np.sqrt(sum(gain ** (2 * k) for k in range(octaves))))


def noise_at(rng: np.random.Generator, u: np.ndarray, v: np.ndarray, per_u: float, per_v: float) -> np.ndarray:
    """Return spline noise with per_u x per_v cells per image side at any coordinates: u's shape, float32, deviation 1.

    The lattice repeats after 64 cells, more than a frame holds, so that turned coordinates may leave 0..1.
    """
    values = rng.standard_normal((64, 64), dtype=np.float32)
    # The spline is evaluated four times per cell and looked up linearly: four times faster, and no visible difference.
    weights = _spline_weights(256, 64)
    table = weights @ np.pad(values, ((0, 3), (0, 3)), mode="wrap") @ weights.T
    at = np.stack([v * np.float32(4 * per_v), u * np.float32(4 * per_u)])
    noise = ndimage.map_coordinates(table, at, output=np.float32, order=1, mode="grid-wrap", prefilter=False)
    return noise / np.float32(SPLINE_VARIANCE)


def voronoi(rng: np.random.Generator, u: np.ndarray, v: np.ndarray, cells: float, jitter: float = 0.8):
    """Return distances to the nearest and second nearest site (in cells) and the nearest cell's value in 0..1.

    One site lies in each square cell, moved by up to half of `jitter` cells; three arrays of u's shape, float32.
    """
    site_u, site_v, values = rng.random((3, 32 * 32), dtype=np.float32)
    site_u, site_v = np.float32(jitter) * (site_u - 0.5) + 0.5, np.float32(jitter) * (site_v - 0.5) + 0.5
    x, y = u * np.float32(cells), v * np.float32(cells)
    column, row = np.floor(x).astype(np.int32), np.floor(y).astype(np.int32)
    x, y = x - column.astype(np.float32), y - row.astype(np.float32)
    first, second = np.full_like(x, 9.0), np.full_like(x, 9.0)
    value = np.zeros_like(x)
    for down in (-1, 0, 1):
        for right in (-1, 0, 1):
            index = ((row + down) & 31) * 32 + ((column + right) & 31)
            distance = (site_u[index] + right - x) ** 2 + (site_v[index] + down - y) ** 2
            nearer = distance < first
            second = np.where(nearer, first, np.minimum(second, distance))
            first = np.where(nearer, distance, first)
            value = np.where(nearer, values[index], value)
    return np.sqrt(first), np.sqrt(second), value
