"""The products' materials: one function per product, drawn from a generator at any size."""

import numpy as np
from scipy import ndimage

from .noise import fractal_noise, lattice_noise, noise_at, pixel_grid, rotate, smoothstep, voronoi
from .scene import Material, Scene, draw_light, light_up

# Tint word -> albedo. Blacks stay above 0.25 so that dark defects still show on them.
WOOD = {"tan": (0.80, 0.63, 0.43), "brown": (0.60, 0.42, 0.27), "red": (0.62, 0.35, 0.24)}
METAL = {"grey": (0.52, 0.53, 0.54), "silver": (0.68, 0.69, 0.70), "blue": (0.46, 0.52, 0.60)}
CARPET = {
    "beige": (0.70, 0.63, 0.52), "grey": (0.52, 0.52, 0.53), "blue": (0.36, 0.44, 0.60),
    "green": (0.40, 0.53, 0.40), "red": (0.60, 0.34, 0.33),
}
TILE = {
    "white": (0.83, 0.83, 0.81), "beige": (0.76, 0.70, 0.60),
    "grey": (0.60, 0.62, 0.63), "blue": (0.50, 0.62, 0.72),
}
LEATHER = {"brown": (0.50, 0.33, 0.22), "black": (0.30, 0.29, 0.29), "tan": (0.70, 0.52, 0.34)}
GASKET = {"black": (0.31, 0.31, 0.32), "grey": (0.62, 0.63, 0.64), "red": (0.64, 0.29, 0.22)}
CONVEYOR = ((0.62, 0.66, 0.63), (0.74, 0.73, 0.70), (0.47, 0.56, 0.55), (0.52, 0.56, 0.62))


def _draw_tint(rng: np.random.Generator, tints: dict) -> tuple[str, np.ndarray]:
    """Return a tint's word and its albedo (3,) float32, slightly varied."""
    word = tuple(tints)[rng.integers(len(tints))]
    colour = np.array(tints[word]) * rng.uniform(0.94, 1.06) + rng.normal(0, 0.008, 3)
    return word, colour.astype(np.float32)


def _tone(colour: np.ndarray, factor: np.ndarray) -> np.ndarray:
    """Return `colour` (3,) scaled by `factor` (size, size); dark parts gain saturation as real pigments do."""
    return np.power(colour, 1 + 0.35 * (1 - factor[..., None])).astype(np.float32) * factor[..., None]


def wood(size: int, rng: np.random.Generator, light: np.ndarray) -> Material:
    """Draw planed boards: growth rings about an axis outside of the frame, fibres and at times a seam."""
    tint, colour = _draw_tint(rng, WOOD)
    turn = rng.normal(0, 0.1) + (np.pi / 2 if rng.random() < 0.5 else 0)
    u, v = rotate(*pixel_grid(size), turn)
    seam = rng.uniform(-0.35, 0.35) if rng.random() < 0.5 else 9.0
    board = (v > seam).astype(np.float32)
    # Each board is cut elsewhere from the log: another shift along and across the grain.
    along, across = u + 7.3 * board, v + np.float32(0.37) * board
    bend = noise_at(rng, along, across, 1.6, 2.2)
    axis = rng.uniform(0.3, 0.9) * rng.choice((-1, 1))
    squeeze = np.float32(rng.uniform(0.12, 0.4))
    radius = np.sqrt((v - axis) ** 2 + (squeeze * (u - rng.uniform(-0.4, 0.4))) ** 2 + 0.004)
    phase = radius * np.float32(rng.uniform(6.0, 9.5)) + np.float32(0.28) * bend + 0.43 * board
    phase = phase + np.float32(0.16) * np.sin(2.3 * phase + 6.3 * rng.random())  # years differ in width
    cycle = phase - np.floor(phase)
    # Late wood darkens slowly and ends sharply, the mark of a growth ring.
    ring = smoothstep(0.1, 0.8, cycle) * smoothstep(1.0, 0.78, cycle)
    fibre = noise_at(rng, along, across, 2.5, 36)
    broad = noise_at(rng, along, across, 1.2, 7)
    pores = smoothstep(0.9, 2.0, noise_at(rng, along, across, 8, 38))
    tone = 1 - np.float32(rng.uniform(0.15, 0.3)) * ring + 0.045 * fibre + 0.055 * broad - 0.11 * pores - 0.035 * board
    gap = np.exp(-(((v - seam) / 0.011) ** 2)).astype(np.float32)
    albedo = _tone(colour, tone * (1 - 0.6 * gap))
    height = 0.0004 * fibre - 0.0008 * pores - 0.006 * gap
    return Material(albedo, height.astype(np.float32), 0.10, 14.0, tint)


def metal(size: int, rng: np.random.Generator, light: np.ndarray) -> Material:
    """Draw brushed sheet metal: streaks along one direction and a soft specular band across them."""
    tint, colour = _draw_tint(rng, METAL)
    turn = rng.normal(0, 0.12) + (np.pi / 2 if rng.random() < 0.35 else 0)
    u, v = rotate(*pixel_grid(size), turn)
    streak = 0.6 * noise_at(rng, u, v, 1.6, 40) + 0.55 * noise_at(rng, u, v, 0.8, 18)
    streak = streak + 0.4 * noise_at(rng, u, v, 3.5, 30)
    centre, width = rng.uniform(-0.4, 0.4), rng.uniform(0.16, 0.34)
    band = np.exp(-(((u - centre + 0.02 * streak + 0.15 * v) / width) ** 2))
    cloud = lattice_noise(rng, size, 3, 3)
    tone = 0.9 + 0.042 * streak + 0.02 * cloud + np.float32(rng.uniform(0.14, 0.26)) * band * (1 + 0.12 * streak)
    albedo = colour * tone[..., None].astype(np.float32)
    return Material(albedo, (0.00025 * streak).astype(np.float32), 0.5, 22.0, tint)


def carpet(size: int, rng: np.random.Generator, light: np.ndarray) -> Material:
    """Draw a plain weave of thick yarns, a cell about 9 of 128 pixels, with loose fibres and worn areas."""
    tint, colour = _draw_tint(rng, CARPET)
    u, v = rotate(*pixel_grid(size), rng.normal(0, 0.09))
    cells = np.float32(rng.uniform(12.5, 15.5))
    x = u * cells + np.float32(0.22) * lattice_noise(rng, size, 5, 5) + rng.random()
    y = v * cells + np.float32(0.22) * lattice_noise(rng, size, 5, 5) + rng.random()
    odd = (np.floor(x) + np.floor(y)).astype(np.int32) & 1
    fx, fy = x - np.floor(x) - 0.5, y - np.floor(y) - 0.5
    across, along = np.where(odd, fx, fy), np.where(odd, fy, fx)
    # A yarn lying on top is round across and dives at both ends below its neighbours.
    yarn = np.sqrt(np.maximum(0, 1 - (across / 0.56) ** 2)) * (1 - 1.6 * along**2)
    fuzz = fractal_noise(rng, size, 20, 2, 0.7)
    wear = lattice_noise(rng, size, 4, 4)
    shift = np.float32(rng.uniform(0.03, 0.16)) * (odd - np.float32(0.5))
    tone = 0.68 + 0.36 * yarn + shift + 0.05 * fuzz + 0.03 * wear
    albedo = _tone(colour, tone.astype(np.float32))
    return Material(albedo, (0.010 * yarn + 0.0012 * fuzz).astype(np.float32), 0.0, 8.0, tint)


def tile(size: int, rng: np.random.Generator, light: np.ndarray) -> Material:
    """Draw glazed wall tiles with recessed grout, either mottled or with terrazzo chips."""
    tint, colour = _draw_tint(rng, TILE)
    u, v = pixel_grid(size)
    x, y = rotate(u, v, rng.normal(0, 0.035))
    pitch, phase = rng.uniform(0.5, 0.85), rng.random(2)
    # Distance in image sides to the nearest grout line's middle, over both directions.
    near = [abs((c / pitch + p) - np.round(c / pitch + p)) * pitch for c, p in ((x, phase[0]), (y, phase[1]))]
    grout = smoothstep(0.021, 0.012, np.minimum(*near))
    bevel = smoothstep(0.012, 0.042, near[0]) * smoothstep(0.012, 0.042, near[1])
    which = np.round(x / pitch + phase[0]) * 3 + np.round(y / pitch + phase[1]) * 5
    cloud = fractal_noise(rng, size, 4, 3, 0.55)
    tone = 0.95 + 0.032 * cloud + 0.02 * np.sin(which * 2.4)
    albedo = colour * tone[..., None]
    if rng.random() < 0.5:
        warp = np.float32(0.012) * lattice_noise(rng, size, 12, 12)
        first, _, value = voronoi(rng, u + warp, v - warp, rng.uniform(9, 12), 0.9)
        chip = smoothstep(0.40, 0.25, first + 0.25 * (value - 0.3)) * (value < 0.6)
        shade_of = np.where(value < 0.25, 0.74, np.where(value < 0.45, 0.86, 1.1))
        warm = np.array((1.04, 1.0, 0.93)) ** np.where(value < 0.12, 3.0, 1.0)[..., None]
        albedo = albedo * (1 + chip[..., None] * (shade_of[..., None] * warm - 1))
    cement = np.array((0.56, 0.54, 0.51)) * rng.uniform(0.8, 1.12)
    cement = cement * (1 + 0.05 * fractal_noise(rng, size, 16, 2))[..., None]
    albedo = albedo + grout[..., None] * (cement - albedo)
    glare = np.exp(-(((u - rng.random()) / 0.3) ** 2 + ((v - rng.random() * 0.6) / 0.22) ** 2))
    albedo = albedo + (0.07 * glare * (1 - grout))[..., None]
    height = 0.009 * bevel + 0.0016 * lattice_noise(rng, size, 6, 6)
    return Material(albedo.astype(np.float32), height.astype(np.float32), 0.28, 30.0, tint)


def leather(size: int, rng: np.random.Generator, light: np.ndarray) -> Material:
    """Draw pebbled leather: rounded Voronoi cells with creases, wrinkles and a worn sheen."""
    tint, colour = _draw_tint(rng, LEATHER)
    u, v = rotate(*pixel_grid(size), rng.uniform(-0.5, 0.5))
    warp_u, warp_v = lattice_noise(rng, size, 7, 7), lattice_noise(rng, size, 7, 7)
    stretch = rng.uniform(1.0, 1.35)
    first, second, value = voronoi(
        rng, u + np.float32(0.010) * warp_u, (v + np.float32(0.010) * warp_v) * stretch, rng.uniform(10.5, 13.5)
    )
    pebble = np.sqrt(smoothstep(-0.06, 0.62, second - first))
    dome = pebble - 0.55 * first**2
    fold = noise_at(rng, u, v, 3.0, 6.0)
    crease = np.exp(-((noise_at(rng, u, v, 2.0, 4.0) / 0.10) ** 2))
    cloud = fractal_noise(rng, size, 3, 3, 0.6)
    tone = 0.80 + 0.16 * pebble + 0.05 * (value - 0.5) + 0.045 * cloud - 0.05 * crease
    albedo = _tone(colour, tone.astype(np.float32))
    height = 0.0074 * dome + 0.003 * fold - 0.002 * crease
    return Material(albedo, height.astype(np.float32), rng.uniform(0.16, 0.26), 16.0, tint)


def _ring_distance(u: np.ndarray, v: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return a gasket's signed distance in image sides (negative inside) and the distance from its centre."""
    outer = rng.uniform(0.36, 0.43)
    centre = (0.5 + rng.uniform(-1, 1) * (0.46 - outer), 0.5 + rng.uniform(-1, 1) * (0.46 - outer))
    x, y = rotate(u, v, rng.uniform(0, 2 * np.pi), centre)
    radius = np.hypot(x, y)
    if rng.random() < 0.6:
        body, bolts = radius - outer, int(rng.integers(3, 7))
    else:
        # A square plate with rounded corners; its half side keeps the corners in the frame.
        side, corner = outer * 0.80, outer * 0.3
        qx, qy = np.maximum(abs(x) - side + corner, 0), np.maximum(abs(y) - side + corner, 0)
        body, bolts = np.hypot(qx, qy) - corner, 4
    bore = outer * rng.uniform(0.34, 0.44)
    distance = np.maximum(body, bore - radius)
    bolt, at = outer * rng.uniform(0.065, 0.085), outer * rng.uniform(0.72, 0.78)
    for k in range(bolts):
        angle = 2 * np.pi * (k + 0.5) / bolts
        distance = np.maximum(distance, bolt - np.hypot(x - at * np.cos(angle), y - at * np.sin(angle)))
    return distance.astype(np.float32), radius


def gasket(size: int, rng: np.random.Generator, light: np.ndarray) -> Material:
    """Draw a ring or plate with bolt holes, turned metal or moulded rubber, on a conveyor belt with its shadow."""
    tint, colour = _draw_tint(rng, GASKET)
    u, v = pixel_grid(size)
    distance, radius = _ring_distance(u, v, rng)
    cover = np.clip(0.5 - distance * size / 1.5, 0, 1)
    if tint == "grey":
        turned = noise_at(rng, radius, radius * 0, 45, 1) + 0.5 * noise_at(rng, radius, radius * 0, 18, 1)
        tone, gloss = 0.95 + 0.035 * turned + 0.03 * lattice_noise(rng, size, 3, 3), 0.4
    else:
        tone, gloss = 0.97 + 0.03 * fractal_noise(rng, size, 6, 3, 0.7), 0.22
    belt = np.array(CONVEYOR[rng.integers(len(CONVEYOR))]) * rng.uniform(0.93, 1.05)
    bx, by = rotate(u, v, rng.uniform(0, np.pi))
    weave = 0.018 * np.sin(2 * np.pi * 13 * bx) + 0.02 * noise_at(rng, bx, by, 30, 3)
    weave = weave + 0.025 * lattice_noise(rng, size, 4, 4)
    ground = belt * (1 + weave)[..., None]
    albedo = ground + cover[..., None] * (colour * tone[..., None] - ground)
    # The shadow is the body's outline moved away from the lamp by its thickness; the body itself lies in the light.
    offset = -light[:2] / light[2] * 0.022 * size
    dropped = ndimage.shift(distance, (offset[1], offset[0]), order=1, mode="nearest")
    contact = 0.25 * smoothstep(0.02, 0.0, distance)
    shadow = 1 - (1 - cover) * np.maximum(0.5 * smoothstep(0.016, -0.010, dropped), contact)
    bevel = smoothstep(0.0, -0.03, distance)
    height = cover * (0.011 * bevel + 0.0008 * fractal_noise(rng, size, 8, 2))
    return Material(
        albedo.astype(np.float32), height.astype(np.float32), gloss, 18.0, tint, shadow.astype(np.float32), distance < 0
    )


MATERIALS = {"wood": wood, "metal": metal, "carpet": carpet, "tile": tile, "leather": leather, "gasket": gasket}
TINTS = tuple(dict.fromkeys(word for table in (WOOD, METAL, CARPET, TILE, LEATHER, GASKET) for word in table))


def draw_scene(product: str, size: int, rng: np.random.Generator) -> Scene:
    """Return a normal scene of `product`, size x size pixels."""
    light = draw_light(rng)
    return light_up(product, MATERIALS[product](size, rng, light), light, rng)
