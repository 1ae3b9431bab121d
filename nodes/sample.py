"""Sample: re-weighting for any sampler node, and a KSampler that does all of Eq. 1, 7 and 8."""

from __future__ import annotations

import logging

import comfy.samplers
import comfy.utils
import torch
from comfy_api.latest import io
from einops import repeat

import nodes

from ..adiff.blending import KINDS, blend
from ..adiff.errors import InputError
from ..adiff.reweighting import DISTANCES, LEVEL, MODES, dilated_mask
from .host import cells_of, check_choice, check_context, check_sampling, check_sd1, mask_batch, to_batch
from .provenance import BROUGHT
from .reweight import ReweightingRun, fresh_outside, patch_reweighting
from .search import found_by
from .sockets import CATEGORY, seed_input

log = logging.getLogger("adiff")
GUIDANCE = 2.0
"""Guidance, unless told otherwise."""
BLENDING = tuple(f"{kind} noise" for kind in KINDS)


def sampler_inputs(scheduler: str) -> list[io.Input]:
    """The sampling method and its schedule, by default this one."""
    return [
        io.Combo.Input(
            "sampler_name", options=list(comfy.samplers.KSampler.SAMPLERS), default="euler",
            tooltip="The sampling method",
        ),
        io.Combo.Input(
            "scheduler", options=list(comfy.samplers.KSampler.SCHEDULERS), default=scheduler,
            tooltip="How the noise goes down over the steps",
        ),
    ]  # fmt: skip


def _reweighting_inputs() -> list[io.Input]:
    return [
        io.Combo.Input(
            "reweighting", options=list(MODES), default="balanced",
            tooltip="balanced: bounded weights, more where the defect is not there yet. uniform: the same weight "
            "everywhere in the mask. paper, release: as published and as in the authors' code. off: none",
        ),
        io.Float.Input(
            "reweighting_strength", default=1.0, min=0.0, max=4.0, step=0.05,
            tooltip="s of w' = 1 + s (w - 1): 0 is no re-weighting, 1 the mode's own",
        ),
        io.Combo.Input(
            "distance", options=list(DISTANCES), default="latent",
            tooltip="Where the change from the normal image is measured. latent and rgb cost nothing; vae decodes at "
            "each step; preview needs a TAESD decoder in models/vae_approx",
        ),
    ]  # fmt: skip


def _last_inputs() -> list[io.Input]:
    return [
        io.Vae.Input("vae", optional=True, tooltip="For the distance vae; on a small card it may swap with the model"),
        io.Int.Input(
            "every", default=1, min=1, max=100, optional=True,
            tooltip="Measure anew at every n-th step; 5 makes the distance vae affordable",
        ),
        io.Float.Input(
            "reweighting_level", default=LEVEL, min=0.0, max=4.0, step=0.05, optional=True,
            tooltip="Mean weight inside the mask, with balanced and uniform; 1 is a plain model's",
        ),
    ]  # fmt: skip


class ApplyReweighting(io.ComfyNode):
    """MODEL -> MODEL, for KSampler, KSamplerAdvanced, SamplerCustom and others."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Declare inputs and outputs."""
        return io.Schema(
            node_id="ADiffApplyReweighting",
            display_name="Apply Attention Re-weighting",
            category=f"{CATEGORY}/sample",
            **found_by("AnomalyDiffusion", "AAR"),
            description="Lets the positive conditioning count for more inside the mask, where the defect is not there "
            "yet (AAR). The MODEL goes into any sampler node.",
            inputs=[
                io.Model.Input("model", tooltip="An SD 1.x model"),
                io.Mask.Input("mask", tooltip="Where the defect goes: one mask, or one for each image"),
                io.Latent.Input("normal", tooltip="The normal image, encoded: what the change is measured from"),
                *_reweighting_inputs(),
                *_last_inputs(),
            ],
            outputs=[io.Model.Output("MODEL", display_name="model", tooltip="The model, re-weighted")],
        )

    @classmethod
    def execute(
        cls, model, mask, normal, reweighting, reweighting_strength, distance, vae=None, every=1,
        reweighting_level=LEVEL,
    ) -> io.NodeOutput:  # fmt: skip
        """Patch a clone of the model."""
        weights = (reweighting, reweighting_strength, reweighting_level)
        run = _run(model, mask_batch(mask), normal, weights, distance, every, vae)
        return io.NodeOutput(model if run is None else patch_reweighting(model, run))


class AnomalyKSampler(io.ComfyNode):
    """The stock sampler's inputs, and the mask."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Declare inputs and outputs."""
        return io.Schema(
            node_id="ADiffKSampler",
            display_name="Anomaly KSampler",
            category=f"{CATEGORY}/sample",
            **found_by("AnomalyDiffusion", "inpaint"),
            description="Paints the positive conditioning into the normal image, inside the mask, with adaptive "
            "attention re-weighting. With re-weighting off and fixed noise it equals KSampler behind Set Latent Noise "
            "Mask.",
            inputs=[
                io.Model.Input("model", tooltip="An SD 1.x model"),
                io.Conditioning.Input("positive", tooltip="From Anomaly Conditioning"),
                io.Conditioning.Input("negative", tooltip="The empty prompt, or what to stay away from"),
                io.Latent.Input("normal", tooltip="The normal image, encoded; one for each mask, or one for all"),
                io.Mask.Input("mask", tooltip="Where to paint: one mask, or one for each image"),
                seed_input("The same seed and inputs give the same image"),
                io.Int.Input("steps", default=20, min=1, max=1000, tooltip="Sampling steps"),
                io.Float.Input(
                    "cfg", default=GUIDANCE, min=0.0, max=30.0, step=0.1, round=0.01,
                    tooltip="Guidance against the negative; 1 is none, and twice as fast",
                ),
                *sampler_inputs("normal"),
                io.Float.Input(
                    "denoise", default=1.0, min=0.0, max=1.0, step=0.01,
                    tooltip="Less than 1 starts from the noised normal image: a weaker defect",
                ),
                *_reweighting_inputs(),
                io.Combo.Input(
                    "blending", options=list(BLENDING), default="fresh noise",
                    tooltip="The normal image around the mask gets new noise at each step (fresh, as published), or "
                    "one noise for all steps (fixed, as ComfyUI does)",
                ),
                *_last_inputs(),
            ],
            outputs=[
                io.Latent.Output("LATENT", display_name="latent", tooltip="For Finish Pair or VAE Decode"),
                io.Image.Output(
                    "WEIGHTS", display_name="weight maps",
                    tooltip="The mean weight of each place over the steps: grey is 1, lighter more, darker less",
                ),
            ],
        )  # fmt: skip

    @classmethod
    def execute(
        cls, model, positive, negative, normal, mask, seed, steps, cfg, sampler_name, scheduler, denoise, reweighting,
        reweighting_strength, distance, blending, vae=None, every=1, reweighting_level=LEVEL,
    ) -> io.NodeOutput:  # fmt: skip
        """Sample with the stock function on a patched clone."""
        check_sd1(model)
        check_sampling(sampler_name, scheduler)
        check_choice("blending", blending, BLENDING)
        mask = mask_batch(mask)
        samples = normal["samples"]
        batch = max(len(samples), len(mask))
        if len(samples) != batch:
            samples = to_batch(samples, batch, "normal latents").contiguous()
        cells = to_batch(cells_of(mask, tuple(samples.shape[-2:])), batch, "masks")
        check_context(positive, batch, "the positive conditioning")
        check_context(negative, batch, "the negative conditioning")
        latent = {**normal, "samples": samples, "noise_mask": cells}
        indices = latent.get("batch_index", range(batch))
        if len(indices) != batch:
            del latent["batch_index"]
            indices = range(batch)
        weights = (reweighting, reweighting_strength, reweighting_level)
        run = _run(model, mask, {"samples": samples}, weights, distance, every, vae)
        patched = model if run is None else patch_reweighting(model, run)
        if reweighting == "release":
            patched.set_model_denoise_mask_function(_dilation(steps))
        if blending == BLENDING[1]:
            patched = fresh_outside(patched, seed, list(indices))
        (out,) = nodes.common_ksampler(
            patched, seed, steps, cfg, sampler_name, scheduler, positive, negative, latent, denoise=denoise
        )
        out.pop("noise_mask")
        if reweighting == "release":  # dpm_fast ends between two of the steps, with what is dilated there
            out["samples"] = blend(out["samples"], samples, cells)
        return io.NodeOutput({**out, BROUGHT: seed}, _shown(run, cells))


def _run(model, mask, normal, weights, distance, every, vae) -> ReweightingRun | None:
    """Return the state of a re-weighting, None for `off`; raises InputError for what cannot work.

    weights: mode, strength, level.
    """
    check_sd1(model)
    mode, strength, level = weights
    if mode == "off":
        return None
    if distance == "vae" and vae is None:
        raise InputError("distance 'vae' needs the vae input; connect the VAE, or choose 'latent'")
    if distance == "vae":
        log.warning("distance 'vae' decodes while sampling; on a card without room for both it swaps model and VAE")
    return ReweightingRun(
        mask, normal["samples"], mode=mode, strength=strength, level=level, distance=distance, interval=every, vae=vae
    )


def _dilation(steps: int):
    """The release's mask of Eq. 1, as ComfyUI asks for it at each step; at the last one the mask itself."""

    def dilated(sigma: torch.Tensor, mask: torch.Tensor, extra_options: dict) -> torch.Tensor:
        if sigma.flatten()[0] <= extra_options["sigmas"][-2]:  # what is dilated early must be back to m at the end
            return mask
        timestep = extra_options["model"].inner_model.model_sampling.timestep(sigma.flatten()[:1])
        return dilated_mask(mask, round(float(timestep[0])), steps)

    return dilated


def _shown(run: ReweightingRun | None, cells: torch.Tensor) -> torch.Tensor:
    """Return weights as pictures (B, 8 h, 8 w, 3) in [0, 1]: w / (1 + w), so that 1 is middle grey."""
    weights = None if run is None else run.mean_map
    weights = torch.ones_like(cells) if weights is None else weights.float().cpu()
    large = torch.nn.functional.interpolate(weights / (1 + weights), scale_factor=8, mode="nearest-exact")
    return repeat(large, "b 1 h w -> b h w rgb", rgb=3)
