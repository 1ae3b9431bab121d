"""Which guidance paints a defect as its shots show it (METHOD 6)."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from comfy.patcher_extension import WrappersMP
from comfy_api.latest import io, ui

from ..adiff.contact_sheet import shot_tile
from ..adiff.embedding import embedding_fingerprint
from ..adiff.errors import InputError
from .compare import Comparison
from .finish import in_place
from .host import GraphProgress, levels_of, mask_batch, masks_at, to_batch
from .pictures import COLUMNS, TILE, as_image, titled
from .sample import GUIDANCE, AnomalyKSampler, sampler_inputs
from .search import found_by
from .sockets import CATEGORY, DefectSocket, LearnedDefect, seed_input
from .spans import defects_in

KEY = "adiff bar"
"""Name of the wrapper that takes the sampler's bar."""


class FitGuidance(io.ComfyNode):
    """DEFECT + what Anomaly KSampler takes -> cfg."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Declare inputs and outputs."""
        return io.Schema(
            node_id="ADiffFitGuidance",
            display_name="Fit Guidance",
            category=f"{CATEGORY}/sample",
            **found_by("AnomalyDiffusion", "cfg", "tune"),
            description="Finds the cfg with which a defect looks most like its real shots: paints the images with one "
            "value after another and compares their mean look with that of the shots.",
            inputs=[
                DefectSocket.Input("defect", tooltip="The defect that the positive conditioning paints"),
                io.Model.Input("model", tooltip="The SD 1.x model that the defect was learned on"),
                io.Conditioning.Input("positive", tooltip="From Anomaly Conditioning"),
                io.Conditioning.Input("negative", tooltip="The empty prompt, or what to stay away from"),
                io.Vae.Input("vae", tooltip="The model's VAE"),
                io.Image.Input("images", tooltip="Normal images to paint into; 16 tell well, 4 hardly"),
                io.Mask.Input("mask", tooltip="Where to paint: one mask, or one for each image"),
                seed_input("The same seed and inputs find the same cfg", renewed=False),
                io.Int.Input("steps", default=10, min=1, max=1000, tooltip="Sampling steps of each image"),
                *sampler_inputs("normal"),
            ],
            outputs=[
                io.Float.Output("CFG", display_name="cfg", tooltip="For the cfg of Anomaly KSampler or KSampler"),
                io.Image.Output("SHEET", display_name="sheet", tooltip="What was painted with each value"),
                io.String.Output("REPORT", display_name="report", tooltip="How far each value is from the shots"),
            ],
        )  # fmt: skip

    @classmethod
    def execute(
        cls, defect: LearnedDefect, model, positive, negative, vae, images, mask, seed, steps, sampler_name, scheduler
    ) -> io.NodeOutput:
        """Sample with Anomaly KSampler, value by value."""
        from ..adiff.generation.guidance import fit_guidance  # takes seconds to import

        _check_painted(positive, defect)
        comparison, images, mask = Comparison(defect, model, vae), images[..., :3], mask_batch(mask)
        batch, normal = max(len(images), len(mask)), {"samples": vae.encode(images)}  # before one becomes many alike
        images = to_batch(images, batch, "normal images")
        masks = to_batch(masks_at(mask, images.shape[1:3]), batch, "masks")
        shown, tiles, progress = masks.cpu().numpy(), {}, _Bar(steps)
        model = progress.over(model)

        def paint(cfg: float) -> Iterator[np.ndarray]:
            latent, _ = AnomalyKSampler.execute(
                model, positive, negative, normal, mask, seed, steps, cfg, sampler_name, scheduler, denoise=1.0,
                reweighting="balanced", reweighting_strength=1.0, distance="latent", blending="fresh noise",
            ).result  # fmt: skip
            inside = masks[..., None].to(images.device)
            painted = levels_of(torch.where(inside, in_place(vae.decode(latent["samples"]), images), images))
            tiles[cfg] = [shot_tile(image, one, TILE) for image, one in zip(painted[:COLUMNS], shown, strict=False)]
            progress.show(titled([(f"cfg {cfg:g}", tiles[cfg])]))
            yield from painted

        fit = fit_guidance(
            paint, shown, comparison.shots, comparison.eye, start=GUIDANCE, name=defect.entry.name, progress=progress
        )
        lines = {
            cfg: f"cfg {cfg:g}: {gap:.3g} from the shots{', chosen' * (cfg == fit.guidance)}"
            for cfg, gap in sorted(fit.gaps.items())
        }
        picture = titled([(line, tiles[cfg]) for cfg, line in lines.items()])
        progress.show(picture)  # in the place of the last value's
        sheet = as_image(picture)
        report = "\n".join([f"{defect.entry.name}: cfg {fit.guidance:g}", *lines.values()])
        return io.NodeOutput(fit.guidance, sheet, report, ui=ui.PreviewImage(sheet, cls=cls))


class _Bar(GraphProgress):
    """One bar for all values that are tried, which moves with each of their sampling steps. steps: of each value."""

    def __init__(self, steps: int):
        self._steps, self._before, self._now = steps, 0, 0

    def start(self, total: int, what: str) -> None:
        """Begin a bar for so many values."""
        super().start(total * self._steps, what)

    def update(self, done: int, **info: float) -> None:
        """So many values are done."""
        self._before = self._now = done * self._steps
        super().update(self._now, **info)

    def show(self, picture) -> None:
        """Show a PIL picture beside the bar."""
        self.put(self._now, picture)

    def over(self, model):
        """Return a clone of a MODEL whose samplers move this bar in the place of one of their own."""

        def step(number: int, x0, x, total: int) -> None:
            self._now = self._before + min(number + 1, self._steps)
            super(_Bar, self).update(self._now)

        def outer(executor, noise, latent_image, sampler, sigmas, denoise_mask=None, callback=None, *args, **kwargs):
            return executor(noise, latent_image, sampler, sigmas, denoise_mask, step, *args, **kwargs)

        moved = model.clone()
        moved.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, KEY, outer)
        return moved


def _check_painted(positive: list, defect: LearnedDefect) -> None:
    """Raise InputError if the conditioning paints defects, and none is the one whose shots are compared with."""
    painted = {one: name for context, _ in positive for one, name in defects_in(context).items()}
    own = None if defect.entry.anomaly is None else embedding_fingerprint(defect.entry.anomaly)
    if painted and own not in painted:
        raise InputError(
            f"the positive conditioning paints {' and '.join(painted.values())}, not {defect.entry.name} as in "
            f"{defect.source}, whose shots it would be compared with; give both nodes the same defect"
        )
