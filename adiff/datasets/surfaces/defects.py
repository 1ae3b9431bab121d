"""The defects: one function per kind, each of which changes a scene's albedo, height or gloss in a small area.

Lengths are in image sides. `t` is a distance divided by the shape's local radius: below 1 inside, above 1 outside.
"""

from dataclasses import dataclass, replace

import numpy as np

from .noise import fractal_noise, lattice_noise, pixel_grid, smoothstep
from .scene import Scene

DARK_SURFACE = 0.36  # below this luminance a dark mark hardly shows, so that marks become light
FAR = np.float32(9.0)  # t where no shape is near
LUMA = np.array((0.299, 0.587, 0.114), np.float32)

PIGMENTS = {
    "red": (0.80, 0.10, 0.10), "blue": (0.10, 0.25, 0.80), "green": (0.10, 0.60, 0.20),
    "yellow": (0.95, 0.82, 0.10), "orange": (0.96, 0.50, 0.06), "white": (0.97, 0.97, 0.95),
}
# What a translucent liquid leaves of each channel.
LIQUIDS = {
    "brown": (0.60, 0.43, 0.27), "dark": (0.38, 0.37, 0.37),
    "red": (0.76, 0.30, 0.32), "yellow": (0.95, 0.74, 0.20),
}
COLOURS = tuple(dict.fromkeys(("dark", "light", *LIQUIDS, *PIGMENTS)))


@dataclass(frozen=True)
class Draw:
    """What a defect is drawn with: generator, centre (u, v), factors on contrast and size, the frame's margin."""

    rng: np.random.Generator
    centre: tuple[float, float]
    strength: float
    scale: float
    margin: float


def _fit(draw: Draw, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Return the centre nearest to the drawn one for which the box low..high around it lies within the margin."""
    least = draw.margin - low
    return np.clip(np.asarray(draw.centre), least, np.maximum(1 - draw.margin - high, least))


def _stroke_field(size: int, points: np.ndarray, radii: np.ndarray, field: np.ndarray | None = None) -> np.ndarray:
    """Return t (size, size) float32 about a polyline, points (n, 2) as (u, v), radii (n,), joined with `field`.

    Each segment is computed in its own small window, so that the cost follows the stroke and not the image.
    """
    field = np.full((size, size), FAR) if field is None else field
    axis = ((np.arange(size) + 0.5) / size).astype(np.float32)
    for a, b, ra, rb in zip(points[:-1], points[1:], radii[:-1], radii[1:], strict=True):
        reach = 2.6 * max(ra, rb)
        left, top = (np.maximum(np.minimum(a, b) - reach, 0) * size).astype(int)
        right, bottom = np.ceil(np.minimum(np.maximum(a, b) + reach, 1) * size).astype(int)
        du, dv = axis[None, left:right] - a[0], axis[top:bottom, None] - a[1]
        along = b - a
        s = np.clip((du * along[0] + dv * along[1]) / max(along @ along, 1e-12), 0, 1)
        t = np.hypot(du - s * along[0], dv - s * along[1]) / (ra + s * (rb - ra))
        window = field[top:bottom, left:right]
        np.minimum(window, t, out=window, casting="unsafe")
    return field


def _blob_field(size: int, draw: Draw, radius: float, aspect: float, rough: float, cells: int = 9) -> np.ndarray:
    """Return t (size, size) float32 of a turned ellipse of area pi * radius**2 with an outline roughened by noise."""
    angle = draw.rng.uniform(0, np.pi)
    a, b = radius * np.sqrt(aspect), radius / np.sqrt(aspect)
    cos, sin = np.cos(angle), np.sin(angle)
    extent = 1.18 * (1 + rough) * np.array([np.hypot(a * cos, b * sin), np.hypot(a * sin, b * cos)])
    centre = _fit(draw, -extent, extent)
    u, v = pixel_grid(size)
    du, dv = u - np.float32(centre[0]), v - np.float32(centre[1])
    x, y = (cos * du + sin * dv) / a, (cos * dv - sin * du) / b
    edge = 0.6 * lattice_noise(draw.rng, size, cells, cells) + 0.4 * lattice_noise(draw.rng, size, 2 * cells, 2 * cells)
    # The noise is bounded so that the outline stays within its extent.
    return (np.hypot(x, y) * (1 + rough * np.tanh(edge))).astype(np.float32)


def _walk(rng: np.random.Generator, length: float, angle: float, steps: int, wander: float) -> np.ndarray:
    """Return a path from the origin whose direction (radians) wanders but is drawn back to `angle`: (steps + 1, 2)."""
    turn = rng.normal(0, wander, steps)
    for k in range(1, steps):
        turn[k] += 0.45 * turn[k - 1]
    heading = angle + turn
    step = length / steps * np.stack([np.cos(heading), np.sin(heading)], 1)
    return np.concatenate([np.zeros((1, 2)), np.cumsum(step, 0)])


def _luminance(scene: Scene, alpha: np.ndarray) -> float:
    """Return the lit luminance in 0..1 of the scene where `alpha` (size, size) is."""
    weight = alpha * scene.foreground
    return float((scene.albedo @ LUMA * scene.illumination * weight).sum() / (weight.sum() + 1e-6))


def _mean_albedo(scene: Scene, alpha: np.ndarray) -> np.ndarray:
    """Return the product's mean albedo (3,) where `alpha` (size, size) is."""
    weight = (alpha * scene.foreground).astype(np.float32)
    return weight.ravel() @ scene.albedo.reshape(-1, 3) / (weight.sum() + 1e-6)


def _blend(albedo: np.ndarray, colour, alpha: np.ndarray) -> np.ndarray:
    """Return `albedo` covered by `colour`, broadcastable to (size, size, 3), with opacity `alpha` (size, size)."""
    return albedo + np.clip(alpha, 0, 1)[..., None].astype(np.float32) * (np.asarray(colour, np.float32) - albedo)


def _shadow(alpha: np.ndarray, scene: Scene, length: float) -> np.ndarray:
    """Return `alpha` (size, size) moved away from the lamp by `length` image sides, less what alpha itself covers."""
    step = -scene.light[:2] / np.hypot(*scene.light[:2]) * length * scene.size
    moved = np.roll(alpha, (int(round(step[1])), int(round(step[0]))), (0, 1))
    return moved * (1 - alpha)


def scratch(scene: Scene, draw: Draw) -> tuple[Scene, str]:
    """Cut one to three nearly parallel grooves that lay bare brighter material, or soil a bright surface."""
    rng = draw.rng
    length, angle = rng.uniform(0.24, 0.68) * draw.scale, rng.uniform(0, np.pi)
    width = rng.uniform(0.0145, 0.022)
    normal = np.array([-np.sin(angle), np.cos(angle)])
    paths = []
    for k in range(rng.choice((1, 1, 1, 2, 3))):
        part = length * (1 if k == 0 else rng.uniform(0.4, 0.8))
        path = _walk(rng, part, angle + rng.normal(0, 0.05), 10, 0.03)
        path = path + np.linspace(0, 1, 11)[:, None] ** 2 * normal * rng.normal(0, 0.04)
        paths.append(path - path.mean(0) + normal * (k * rng.choice((-1, 1)) * rng.uniform(0.05, 0.07)))
    every = np.concatenate(paths)
    paths = [path + _fit(draw, every.min(0) - 1.6 * width, every.max(0) + 1.6 * width) for path in paths]
    taper = 0.55 + 0.45 * np.sin(np.pi * np.linspace(0.06, 0.94, 11))
    field = None
    for path in paths:
        field = _stroke_field(scene.size, path, width * taper * rng.uniform(0.85, 1.1, 11), field)
    core = smoothstep(1.0, 0.45, field)
    luminance = _luminance(scene, core)
    light = luminance < 0.6
    bare = np.array((0.93, 0.93, 0.92)) if light else np.array((0.26, 0.25, 0.25))
    if scene.product in ("wood", "leather") and light:
        bare = np.array((0.96, 0.86, 0.70))
    rub = np.clip(0.86 + 0.10 * lattice_noise(rng, scene.size, 14, 14), 0.6, 1) * min(1.0, 0.9 * draw.strength)
    albedo = _blend(scene.albedo, bare, core * rub)
    # Material pushed up beside the groove gives the bright and dark lips.
    groove = -0.006 * np.exp(-(field**2) * 1.6) + 0.0022 * np.exp(-(((field - 1.15) / 0.4) ** 2))
    return replace(scene, albedo=albedo, height=scene.height + groove.astype(np.float32)), "light" if light else "dark"


def crack(scene: Scene, draw: Draw) -> tuple[Scene, str]:
    """Split the surface along a jagged, tapering, branching line."""
    rng = draw.rng
    length, angle = rng.uniform(0.34, 0.72) * draw.scale, rng.uniform(0, 2 * np.pi)
    width = rng.uniform(0.015, 0.022)
    main = _walk(rng, length, angle, 14, 0.5)
    lines = [(main, width * np.linspace(1.15, 0.75, 15))]
    for _ in range(rng.integers(1, 4)):
        at = int(rng.integers(3, 12))
        side = rng.choice((-1, 1)) * rng.uniform(0.55, 1.1)
        branch = main[at] + _walk(rng, length * rng.uniform(0.2, 0.42), angle + side, 6, 0.45)
        lines.append((branch, width * np.linspace(0.9, 0.65, 7)))
    every = np.concatenate([line for line, _ in lines])
    middle = every.mean(0)
    shift = _fit(draw, every.min(0) - middle - 1.6 * width, every.max(0) - middle + 1.6 * width) - middle
    field = None
    for line, radii in lines:
        field = _stroke_field(scene.size, line + shift, radii * rng.uniform(0.8, 1.15, len(radii)), field)
    core = smoothstep(1.05, 0.4, field)
    light = _luminance(scene, core) < DARK_SURFACE
    inside = np.array((0.86, 0.82, 0.76)) if light else 0.16 * scene.albedo
    albedo = _blend(scene.albedo, inside, core * min(1.0, 0.92 * draw.strength))
    # One lip stands up, as on a split plate; it catches the light beside the dark gap.
    lip = 0.0024 * np.exp(-(((field - 1.15) / 0.45) ** 2)) - 0.004 * core
    return replace(scene, albedo=albedo, height=scene.height + lip.astype(np.float32)), "light" if light else "dark"


def hole(scene: Scene, draw: Draw) -> tuple[Scene, str]:
    """Punch a hole: a dark inside whose far wall is lit, within a raised, lit rim."""
    rng = draw.rng
    radius = rng.uniform(0.052, 0.13) * draw.scale
    ragged = {"wood": 0.10, "metal": 0.05, "carpet": 0.20, "tile": 0.18, "leather": 0.13, "gasket": 0.06}[scene.product]
    field = _blob_field(scene.size, draw, radius, rng.uniform(1.0, 1.45), ragged)
    inside = smoothstep(1.02, 0.84, field)
    # The wall away from the lamp sees the light: the inside moved towards the lamp leaves it uncovered.
    toward = tuple(int(round(c * scene.size * 0.5 * radius)) for c in scene.light[1::-1])
    depth = 0.10 + 0.5 * inside * (1 - np.roll(inside, toward, (0, 1)))
    albedo = _blend(scene.albedo, scene.albedo * depth[..., None], inside * min(1.0, 0.95 * draw.strength))
    rim = (0.05 - 0.055 * scene.gloss.max()) * radius * np.exp(-(((field - 1.12) / 0.13) ** 2))
    albedo = _blend(albedo, (0.95, 0.93, 0.90), 0.16 * np.exp(-(((field - 1.10) / 0.08) ** 2)))
    height = scene.height * (1 - inside) + rim  # lower on glossy material, where a steep rim burns out
    gloss = scene.gloss * (1 - 0.25 * inside)
    return replace(scene, albedo=albedo, height=height.astype(np.float32), gloss=gloss.astype(np.float32)), "dark"


def stain(scene: Scene, draw: Draw) -> tuple[Scene, str]:
    """Soak a translucent, irregular patch with a darker dried edge; dark surfaces get a pale bloom instead."""
    rng = draw.rng
    radius = rng.uniform(0.062, 0.165) * draw.scale
    field = _blob_field(scene.size, draw, radius, rng.uniform(1.0, 1.9), rng.uniform(0.28, 0.5), 9)
    for _ in range(rng.integers(0, 3)):
        # Splashes beside the main patch.
        where = np.array(draw.centre) + rng.normal(0, 1, 2) * radius
        beside = replace(draw, centre=tuple(where))
        drop = _blob_field(scene.size, beside, radius * rng.uniform(0.25, 0.5), 1.2, 0.2, 10)
        field = np.minimum(field, drop)
    soft = rng.uniform(0.12, 0.36)
    alpha = smoothstep(1.0, 1.0 - soft, field)
    edge = np.exp(-(((field - 0.90) / 0.11) ** 2)) * alpha
    mottle = 0.14 * fractal_noise(rng, scene.size, 6, 2)
    amount = alpha * np.clip(0.80 + mottle + 0.3 * edge, 0.4, 1.25) * min(draw.strength, 1.3)
    if _luminance(scene, alpha) < DARK_SURFACE + 0.04:
        albedo = _blend(scene.albedo, (0.80, 0.78, 0.72), 0.62 * amount)
        return replace(scene, albedo=albedo), "light"
    local = _mean_albedo(scene, alpha)
    seen = [word for word, left in LIQUIDS.items() if (local * (1 - np.array(left))).mean() > 0.19] or ["dark"]
    word = seen[rng.integers(len(seen))]
    left = np.array(LIQUIDS[word], np.float32) ** 1.1
    albedo = scene.albedo * left ** np.clip(amount, 0, 1.4)[..., None]
    # Wetted pores lie flatter and shine a little.
    return replace(scene, albedo=albedo.astype(np.float32), height=scene.height * (1 - 0.3 * alpha)), word


def dent(scene: Scene, draw: Draw) -> tuple[Scene, str]:
    """Press a bowl into the surface: only the shading changes, dark towards the lamp and lit away from it."""
    rng = draw.rng
    radius = rng.uniform(0.085, 0.17) * draw.scale
    field = _blob_field(scene.size, draw, radius, rng.uniform(1.0, 1.7), 0.10, 5)
    bowl = np.maximum(0, 1 - field**2) ** 1.9
    luminance = _luminance(scene, (field < 1).astype(np.float32))
    # On dark material diffuse shading is weak in levels: the bowl is deeper and more polished there.
    soft = 0.22 if scene.product == "carpet" else 0.0  # no gloss helps there
    depth = radius * draw.strength * (0.42 + soft + 0.5 * max(0.0, 0.55 - luminance))
    raised = rng.random() < 0.25
    polish = max(0.0, 0.5 - luminance) * 0.9 * draw.strength
    height = scene.height + np.float32(depth if raised else -depth) * bowl
    gloss = scene.gloss + np.float32(polish) * smoothstep(1.0, 0.4, field)
    return replace(scene, height=height.astype(np.float32), gloss=gloss.astype(np.float32)), "shaded"


def contamination(scene: Scene, draw: Draw) -> tuple[Scene, str]:
    """Lay foreign matter on the surface: a glossy drop, a fibre or a cluster of particles, with its shadow."""
    rng = draw.rng
    form = ("drop", "fibre", "particles")[rng.integers(3)]
    if form == "drop":
        field = _blob_field(scene.size, draw, rng.uniform(0.052, 0.12) * draw.scale, rng.uniform(1, 1.8), 0.35, 8)
    elif form == "fibre":
        path = _walk(rng, rng.uniform(0.35, 0.6) * draw.scale, rng.uniform(0, 2 * np.pi), 16, 0.25)
        bend = np.linspace(-1, 1, 17)[:, None] ** 2 * rng.normal(0, 0.08, 2)
        path = path + bend - (path + bend).mean(0)
        path = path + _fit(draw, path.min(0) - 0.03, path.max(0) + 0.03)
        field = _stroke_field(scene.size, path, np.full(17, rng.uniform(0.0135, 0.02)))
    else:
        spread = rng.uniform(0.06, 0.10) * draw.scale
        centres = np.clip(rng.normal(0, spread, (rng.integers(5, 12), 2)), -2 * spread, 2 * spread)
        centres = centres + _fit(draw, centres.min(0) - 0.04, centres.max(0) + 0.04)
        field = None
        for middle in centres:
            half = rng.normal(0, 0.010, 2)
            ends = np.stack([middle - half, middle + half])
            field = _stroke_field(scene.size, ends, rng.uniform(0.018, 0.034, 2), field)
    alpha = smoothstep(1.05, 0.8, field)
    local = _mean_albedo(scene, alpha)
    # Only pigments that stand out here, by the mean over channels, which is also how contrast is checked.
    seen = [word for word, colour in PIGMENTS.items() if np.abs(np.array(colour) - local).mean() > 0.24]
    word = seen[rng.integers(len(seen))]
    colour = np.array(PIGMENTS[word], np.float32) * (1 + 0.05 * lattice_noise(rng, scene.size, 12, 12))[..., None]
    under = scene.albedo * (1 - 0.45 * _shadow(alpha, scene, 0.022))[..., None]
    bump = 0.016 * np.maximum(0, 1 - np.minimum(field, 1) ** 2) ** 0.8
    gloss = scene.gloss * (1 - alpha) + 0.3 * alpha
    return replace(
        scene, albedo=_blend(under, colour, alpha).astype(np.float32), gloss=gloss.astype(np.float32),
        height=(scene.height * (1 - 0.7 * alpha) + bump).astype(np.float32),
    ), word


KINDS = {"scratch": scratch, "crack": crack, "hole": hole, "stain": stain, "dent": dent, "contamination": contamination}
