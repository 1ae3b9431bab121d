"""Baselines that paint with tokens of textual inversion: one interface, normals, masks or none and shots -> pairs.

| name | what keeps the defect in the mask |
|---|---|
| textual-inversion | blending alone (Eq. 1) |
| prompt-to-prompt | blending, and cross-attention maps replaced by the mask |
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial

import numpy as np
import torch
from torch import Tensor

from ..backbone import Backbone
from ..errors import InputError
from ..generation import GenerationSettings
from ..generation.pairs import paint_box
from ..generation.sampler import sample_blended
from ..generation.seeds import generator_for, rng_for
from ..geometry import crop_mask, crop_resize, feather, paste_back, resize_mask, stitch
from ..latent_grid import latent_mask
from ..pixels import as_images, as_pixels
from .crop_paste import crop_paste
from .pasting import Pasted, Sources, on_object
from .prompt_to_prompt import prompt_to_prompt
from .textual_inversion import textual_inversion

METHODS = {"textual-inversion": textual_inversion, "prompt-to-prompt": prompt_to_prompt}


def paint_pairs(
    method: str,
    normals: Sequence[np.ndarray],
    count: int,
    *,
    backbone: Backbone,
    embedding: Tensor,
    shots: Sequence[tuple[np.ndarray, np.ndarray]] = (),
    masks: Sequence[np.ndarray] = (),
    settings: GenerationSettings | None = None,
    objects: Callable[[int], np.ndarray] | None = None,
    seed: int = 0,
) -> Iterator[Pasted]:
    """Make `count` pairs out of normal images (H, W, 3) uint8, a batch at a time.

    embedding: e_a (k, D) of `textual_inversion.learn_tokens`. masks: (H, W) bool, taken in turn and resized to their
    normal image; none: a shot's, flipped, turned and scaled, as crop-paste has it, anywhere or, where `objects` tells
    of it as for `paste_pairs`, on the object. settings: the method's own sampling, whose re-weighting is left aside.
    Raises InputError for a method that is not there, no normal image, and neither masks nor shots.
    """
    if method not in METHODS:
        raise InputError(f"there is no baseline {method!r}; choose from {', '.join(METHODS)}")
    if not len(normals) or not (len(masks) or len(shots)):
        what = "masks or shots" if len(normals) else "normal images"
        raise InputError(f"no {what} for {method}; give at least one")
    settings = settings or GenerationSettings()
    for start in range(0, count, settings.batch):
        numbers = range(start, min(start + settings.batch, count))
        chosen = [_choose(method, number, normals, masks, Sources(shots), objects, seed) for number in numbers]
        generators = [generator_for(seed, method, number) for number in numbers]
        images = [normals[index] for index, _ in chosen]
        on = [mask for _, mask in chosen]
        painted = _paint(method, backbone, embedding, images, on, settings, generators)
        for (index, mask), image in zip(chosen, painted, strict=True):
            yield Pasted(image, mask, index)


def _choose(
    method: str, number: int, normals: Sequence[np.ndarray], masks: Sequence[np.ndarray], sources: Sources,
    objects: Callable[[int], np.ndarray] | None, seed: int,
) -> tuple[int, np.ndarray]:  # fmt: skip
    """The number of a pair's normal image, and its mask."""
    rng = rng_for(seed, method, number)
    index = int(rng.integers(len(normals)))
    normal = normals[index]
    if len(masks):
        return index, resize_mask(masks[number % len(masks)], *normal.shape[:2])
    draw = partial(crop_paste, normal, None, sources, rng)
    return index, (on_object(draw, normal, objects(index)) if objects else draw())[1]


@torch.no_grad()
def _paint(
    method: str, backbone: Backbone, embedding: Tensor, images: Sequence[np.ndarray], masks: Sequence[np.ndarray],
    settings: GenerationSettings, generators: Sequence[torch.Generator],
) -> list[np.ndarray]:  # fmt: skip
    """Paint one batch, as `generation.make_pairs` does but for the condition and the edit."""
    size = backbone.native_size
    boxes = [paint_box(mask, backbone, settings) for mask in masks]
    views = np.stack([crop_resize(image, box, size) for image, box in zip(images, boxes, strict=True)])
    on = np.stack([crop_mask(mask, box, size) for mask, box in zip(masks, boxes, strict=True)])
    y = backbone.encode(as_images(views))
    cells = latent_mask(torch.from_numpy(on)[:, None].float(), backbone.latent_downscale).to(y.device)
    condition, edit = METHODS[method](backbone, embedding, cells)
    painted = as_pixels(backbone.decode(sample_blended(backbone, y, cells, condition, settings, generators, edit)))
    finished = []
    for image, mask, box, view in zip(images, masks, boxes, painted, strict=True):
        alpha = feather(mask, settings.feather * max(box.width, box.height) / size)
        finished.append(paste_back(image, stitch(image, view, box), alpha))
    return finished
