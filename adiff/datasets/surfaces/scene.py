"""A surface as material and light, and its shading; defects change the material, so their shading follows the light."""

from dataclasses import dataclass

import numpy as np

from .noise import lattice_noise, pixel_grid

AMBIENT = 0.42  # share of the light that comes from everywhere
VIEW = np.array([0.0, 0.0, 1.0])


@dataclass(frozen=True)
class Material:
    """A surface without light.

    albedo: (size, size, 3) float32 in 0..1, display-referred; height: (size, size) float32 in image sides, up is
    towards the camera; gloss: specular strength in 0..1; shininess: Blinn-Phong exponent; shadow: (size, size) float32
    factor on the light; foreground: (size, size) bool; tint: the word for its colour.
    """

    albedo: np.ndarray
    height: np.ndarray
    gloss: float
    shininess: float
    tint: str
    shadow: np.ndarray | None = None
    foreground: np.ndarray | None = None


@dataclass(frozen=True)
class Scene:
    """A lit surface: Material's arrays and light, a unit vector to the lamp (x right, y down, z to the camera)."""

    product: str
    tint: str
    albedo: np.ndarray
    height: np.ndarray
    gloss: np.ndarray
    shininess: float
    veil: float  # the flat surface's specular term, taken off so that gloss adds contrast and not brightness
    light: np.ndarray
    illumination: np.ndarray
    foreground: np.ndarray

    @property
    def size(self) -> int:
        """Return the side of the image in pixels."""
        return self.height.shape[0]


def draw_light(rng: np.random.Generator) -> np.ndarray:
    """Return a light direction from above the frame's middle, 38 to 55 degrees over the surface: (3,) float64."""
    azimuth, elevation = rng.uniform(-2.7, -0.4), rng.uniform(0.66, 0.96)
    return np.array([np.cos(azimuth) * np.cos(elevation), np.sin(azimuth) * np.cos(elevation), np.sin(elevation)])


def _half_way(light: np.ndarray) -> np.ndarray:
    """Return the unit vector half way between the lamp and the camera: (3,) float64."""
    return (light + VIEW) / np.linalg.norm(light + VIEW)


def light_up(product: str, material: Material, light: np.ndarray, rng: np.random.Generator) -> Scene:
    """Return the scene of a material under `light` with a gradient, a vignette and slight unevenness."""
    size = material.height.shape[0]
    u, v = pixel_grid(size)
    du, dv = u - np.float32(0.5), v - np.float32(0.5)
    toward = (du * np.float32(light[0]) + dv * np.float32(light[1])) / np.float32(np.hypot(light[0], light[1]))
    illumination = 1 + np.float32(rng.uniform(0.08, 0.3)) * toward
    illumination -= np.float32(rng.uniform(0.15, 0.45)) * (du * du + dv * dv)
    illumination += np.float32(0.025) * lattice_noise(rng, size, 2, 2)
    illumination *= np.float32(rng.uniform(0.95, 1.06))
    if material.shadow is not None:
        illumination *= material.shadow
    foreground = np.ones((size, size), bool) if material.foreground is None else material.foreground
    gloss = np.full((size, size), material.gloss, np.float32)
    veil = material.gloss * _half_way(light)[2] ** material.shininess
    return Scene(
        product, material.tint, material.albedo, material.height, gloss, material.shininess, float(veil), light,
        illumination, foreground,
    )


def shade(scene: Scene) -> np.ndarray:
    """Return the noise-free picture (size, size, 3) float32 in 0..1, by Lambert and Blinn-Phong shading."""
    light = scene.light.astype(np.float32)
    half = _half_way(scene.light)
    slope_v, slope_u = np.gradient(scene.height)
    slope_u, slope_v = slope_u * np.float32(scene.size), slope_v * np.float32(scene.size)
    length = np.sqrt(1 + slope_u**2 + slope_v**2)
    # Divided by the flat surface's term, so that a light's height changes relief but not exposure.
    diffuse = np.maximum(0, light[2] - light[0] * slope_u - light[1] * slope_v) / (length * light[2])
    facing = np.maximum(0, half[2] - half[0] * slope_u - half[1] * slope_v).astype(np.float32) / length
    specular = scene.gloss * facing ** np.float32(scene.shininess) - np.float32(scene.veil)
    brightness = scene.illumination * (np.float32(AMBIENT) + np.float32(1 - AMBIENT) * diffuse)
    picture = scene.albedo * brightness[..., None] + (specular * scene.illumination)[..., None]
    return np.clip(picture, 0, 1)


def add_sensor_noise(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return the picture as (size, size, 3) uint8 with weak grey and weaker colour noise per pixel."""
    size = picture.shape[0]
    grain = 1.3 * rng.standard_normal((size, size, 1), dtype=np.float32)
    grain = grain + 0.6 * rng.standard_normal((size, size, 3), dtype=np.float32)
    return np.clip(picture * 255 + grain + 0.5, 0, 255).astype(np.uint8)
