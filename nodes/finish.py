"""Finish: paste back, measure, and write image-mask pairs."""

from __future__ import annotations

import json
import re
from pathlib import Path

import folder_paths
import numpy as np
import torch
from comfy.cli_args import args
from comfy_api.latest import io, ui

from ..adiff.datasets.images import name_of
from ..adiff.datasets.writers import write_mvtec_pair
from ..adiff.errors import InputError
from ..adiff.geometry import feather
from ..adiff.library import check_name
from ..adiff.refinement import refined
from ..adiff.versions import versions
from .compare import Comparison
from .host import DOWNSCALE, levels_of, mask_batch, masks_at, masks_of, to_batch
from .provenance import BROUGHT, made_from
from .search import found_by
from .sockets import CATEGORY, DefectSocket, LearnedDefect
from .written import Written

CHANGE_GAIN = 3
"""By how much the change is brightened for the eye."""


class FinishPair(io.ComfyNode):
    """LATENT + normal + MASK -> IMAGE, MASK, change, measures."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Declare inputs and outputs."""
        return io.Schema(
            node_id="ADiffFinishPair",
            display_name="Finish Pair",
            category=f"{CATEGORY}/finish",
            **found_by("composite", "paste", "VAE decode"),
            description="Decodes what was sampled and lays it over the normal image inside the mask. Outside the mask "
            "the image stays as it was, bit for bit.",
            inputs=[
                io.Image.Input("normal", tooltip="The normal image; one for each pair, or one for all"),
                io.Latent.Input("samples", tooltip="From Anomaly KSampler or KSampler"),
                io.Mask.Input("mask", tooltip="The mask that was painted"),
                io.Vae.Input("vae", tooltip="The model's VAE"),
                io.Float.Input(
                    "feather_radius", default=1.5, min=0.0, max=64.0, step=0.5,
                    tooltip="Pixels over which the defect fades in, inside the mask",
                ),
                io.Boolean.Input(
                    "refine", default=False,
                    tooltip="Shrink the mask to where the image really changed",
                ),
                DefectSocket.Input(
                    "defect", optional=True, tooltip="The defect that was painted: measures how new the mask is"
                ),
                io.Model.Input(
                    "model", optional=True, tooltip="The model that painted: with the defect, measures the likeness"
                ),
            ],
            outputs=[
                io.Image.Output("IMAGE", display_name="image", tooltip="The finished images"),
                io.Mask.Output("MASK", display_name="mask", tooltip="Their masks"),
                io.Image.Output("CHANGE", display_name="change", tooltip="What changed, brightened"),
                io.String.Output("MEASURES", display_name="measures", tooltip="Measures of each pair, as JSON"),
            ],
        )  # fmt: skip

    @classmethod
    def execute(
        cls, normal, samples, mask, vae, feather_radius, refine, defect: LearnedDefect | None = None, model=None
    ) -> io.NodeOutput:
        """Decode, paste, measure."""
        comparison = Comparison(defect, model, vae)
        mask = mask_batch(mask)
        latents = samples["samples"]
        batch = max(len(latents), len(mask), len(normal))
        rebuilt = in_place(vae.decode(vae.encode(normal[..., :3])), normal[..., :3])  # before one becomes many alike
        normal, rebuilt = (to_batch(views, batch, "normal images") for views in (normal[..., :3], rebuilt))
        mask = to_batch(mask, batch, "masks")
        mask = masks_at(mask, normal.shape[1:3])
        painted = in_place(vae.decode(to_batch(latents, batch, "latents")), normal)
        seed = {"seed": samples[BROUGHT]} if BROUGHT in samples else {}
        images, masks, measures = [], [], []
        for new, old, base, m in zip(painted, rebuilt, normal, mask.cpu().numpy(), strict=True):
            alpha = torch.from_numpy(feather(m, feather_radius))[..., None].to(base)
            image, unchanged = (base.lerp(view, alpha).where(alpha > 0, base) for view in (new, old))
            levels = [levels_of(view) for view in (image, base, unchanged)]
            written = refined(levels[0], levels[2], m) if refine and m.any() else m
            images.append(image)
            masks.append(torch.from_numpy(written))
            told = comparison.measures(*levels, written, asked=m)
            measures.append({**told, "normal": name_of(levels[1]), **seed})
        image = torch.stack(images)
        change = ((image - normal).abs() * CHANGE_GAIN).clamp(0, 1)
        return io.NodeOutput(image, torch.stack(masks).float(), change, json.dumps(measures, indent=1))


def in_place(view: torch.Tensor, normal: torch.Tensor) -> torch.Tensor:
    """Put what the VAE sees of an image, cut to a multiple of 8, back into the image's size."""
    if view.shape == normal.shape:
        return view.to(normal)
    height, width = view.shape[1:3]
    if (height, width) != tuple(side // DOWNSCALE * DOWNSCALE for side in normal.shape[1:3]):
        raise InputError(
            f"the samples decode to {width} x {height}, the normal image is {normal.shape[2]} x {normal.shape[1]}; "
            "encode the same image"
        )
    top, left = ((side % DOWNSCALE) // 2 for side in normal.shape[1:3])
    whole = normal.clone()
    whole[:, top : top + height, left : left + width] = view.to(normal)
    return whole


_saved = Written()


class SavePairs(io.ComfyNode):
    """IMAGE + MASK -> files in MVTec AD's layout."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Declare inputs and outputs."""
        return io.Schema(
            node_id="ADiffSavePairs",
            display_name="Save Pairs",
            category=f"{CATEGORY}/finish",
            **found_by("MVTec", "dataset", "save image"),
            description="Writes pairs as PNG in the layout of MVTec AD under ComfyUI's output folder, the graph "
            "embedded; nothing is ever overwritten.",
            is_output_node=True,
            inputs=[
                io.Image.Input("images", tooltip="From Finish Pair"),
                io.Mask.Input("masks", tooltip="From Finish Pair"),
                io.String.Input("folder", default="adiff", tooltip="Folder under ComfyUI's output folder"),
                io.String.Input("product", default="product", tooltip="Name of the product: a folder"),
                io.String.Input("defect", default="defect", tooltip="Name of the defect: a folder"),
                io.Image.Input("change", optional=True, tooltip="From Finish Pair, for the preview"),
                io.String.Input(
                    "measures", optional=True, force_input=True, tooltip="From Finish Pair, kept beside the images"
                ),
            ],
            outputs=[
                io.String.Output("FOLDER", display_name="folder", tooltip="The folder, all written: for Export Pairs")
            ],
        )

    @classmethod
    def fingerprint_inputs(
        cls, folder: str | None = None, product: str | None = None, defect: str | None = None, **_
    ) -> int:
        """Run again when what was written has been deleted."""
        return _saved.losses((folder, product, defect))

    @classmethod
    def execute(
        cls, images, masks, folder: str, product: str, defect: str, change=None, measures: str | None = None
    ) -> io.NodeOutput:
        """Write every pair whole, then show them."""
        check_name(product, "product")
        root = output_folder(folder)
        masks = masks_of(images, masks)
        strip = _strip(images, masks, change)  # before anything is written: it refuses what does not belong together
        records = _records(measures, len(images))
        text = _graph(cls.hidden)
        number, written = _next_number(root / product, defect), []
        for offset, (image, mask, record) in enumerate(zip(images, masks, records, strict=True)):
            stem = f"{number + offset:06d}"
            pair = write_mvtec_pair(root, product, defect, stem, levels_of(image), mask, text=text, record=record)
            written += [_saved_result(path) for path in pair]
        _saved.add((folder, product, defect), root / product / "test" / defect)
        # under a name of their own: the node would show all its `images`, the strips and the files
        return io.NodeOutput(folder, ui={**ui.PreviewImage(strip, cls=cls).as_dict(), "pairs": written})


def output_folder(name: str) -> Path:
    """Return a folder under ComfyUI's output folder; raises InputError for a name that leads out of it."""
    out = Path(folder_paths.get_output_directory()).resolve()
    try:
        folder = (out / name).resolve()
    except (ValueError, RuntimeError):  # no file can have such a name, or links lead in a circle
        raise InputError(f"folder {name[:80]!r} is no folder's name; give one of letters, digits and slashes") from None
    if not folder.is_relative_to(out) or ".." in Path(name).parts:
        raise InputError(f"folder {name[:80]!r} leads out of ComfyUI's output folder; give a name inside it")
    for part in folder.relative_to(out).parts:
        check_name(part, "folder")
    return folder


def _saved_result(path: Path) -> ui.SavedResult:
    """A file under ComfyUI's output folder as history and the page's assets name it."""
    folder = path.parent.relative_to(output_folder("")).as_posix()
    return ui.SavedResult(path.name, folder, io.FolderType.output)


def _next_number(product: Path, defect: str) -> int:
    """Return the first number that no image or mask of this defect has."""
    check_name(defect, "defect")
    taken = [*(product / "test" / defect).glob("*.png"), *(product / "ground_truth" / defect).glob("*.png")]
    numbers = [int(match[1]) for path in taken if (match := re.match(r"(\d+)(_mask)?\.png$", path.name))]
    return max(numbers, default=-1) + 1


def _records(measures: str | None, count: int) -> list[dict]:
    """Return a record for each pair: its measures, what it was made from, and the versions of what made it."""
    given = measures_of(measures, count) if measures else [{}] * count
    return [{**one, "versions": versions()} for one in made_from(given)]


def measures_of(text: str, count: int) -> list[dict]:
    """Read what Finish Pair says of each of `count` images; InputError for other text."""
    try:
        given = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"the measures are no JSON ({error}); connect Finish Pair's output") from None
    if not isinstance(given, list) or len(given) != count or not all(isinstance(one, dict) for one in given):
        raise InputError(f"the measures do not belong to these {count} images; connect the same Finish Pair")
    return given


def _graph(hidden) -> dict[str, str]:
    """Return the graph as PNG text, as ComfyUI's own Save Image embeds it."""
    if args.disable_metadata or hidden is None:
        return {}
    text = {"prompt": json.dumps(hidden.prompt)} if hidden.prompt else {}
    return text | {key: json.dumps(value) for key, value in (hidden.extra_pnginfo or {}).items()}


def _strip(images: torch.Tensor, masks: np.ndarray, change: torch.Tensor | None) -> torch.Tensor:
    """Return image, mask and change of each pair side by side, (B, H, 2 or 3 W, 3); InputError for another change."""
    shown = torch.from_numpy(masks)[..., None].to(images).expand(-1, -1, -1, 3)
    views = [images[..., :3], shown]
    if change is not None:
        if change.shape[:3] != images.shape[:3]:
            own, other = (f"{len(one)} of {one.shape[2]} x {one.shape[1]}" for one in (images, change))
            raise InputError(f"the images are {own}, their change {other}; connect both outputs of the same node")
        views.append(change[..., :3].to(images))
    return torch.cat(views, dim=2)
