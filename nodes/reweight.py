"""Adaptive attention re-weighting (Eq. 7, 8) on a ComfyUI MODEL, through its patcher alone.

One run of a sampler, in the order in which ComfyUI calls us:

    OUTER_SAMPLE     forget the last run
    PREDICT_NOISE    x comes in, x0_hat goes out: a new map, used from the next model call on
    attn2 replace    of every block: rows of the positive conditioning weighted, found by their condition's uuid

`cond_or_uncond` would do for the usual guider; others count their conditions otherwise.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from uuid import uuid4

import comfy.model_management
import folder_paths
import torch
from comfy.ldm.modules.attention import SpatialTransformer, optimized_attention
from comfy.patcher_extension import WrappersMP
from comfy.taesd.taesd import TAESD
from torch import Tensor

from ..adiff.blending import KINDS
from ..adiff.errors import InputError
from ..adiff.reweighting import Reweighter, latent_rgb
from .host import cells_of, check_sd1, pixels_of, to_batch, uncompile
from .spans import find_span

log = logging.getLogger("adiff")
KEY = "adiff"


class ReweightingRun:
    """What one patched MODEL knows of the run in progress; a cached MODEL serves several runs, one after another.

    mask: (N, H, W) bool. normal: LATENT samples y, (M, 4, h, w); N and M are 1 or the run's batch.
    """

    def __init__(
        self, mask: Tensor, normal: Tensor, *, mode: str, strength: float, level: float, distance: str, interval: int,
        vae,
    ):  # fmt: skip
        self.mask, self.normal, self.vae = mask, normal, vae
        self.mode, self.strength, self.level = mode, strength, level
        self.distance, self.interval = distance, interval
        self.start()

    def start(self) -> None:
        """Forget the last run."""
        self.reweighter: Reweighter | None = None
        self.spans: dict = {}
        self._sigma: float | None = None
        self._sum: Tensor | None = None
        self._maps = 0

    def end(self) -> None:
        """Let go of the run's tensors, keeping its mean map."""
        self.reweighter, self.spans = None, {}

    @property
    def mean_map(self) -> Tensor | None:
        """Mean of the run's weight maps over its steps, (B, 1, h, w), or None if there was none."""
        return None if self._sum is None else self._sum / self._maps

    def prepare(self, model, x: Tensor, conds: dict) -> None:
        """Build the controller for a batch x (B, 4, h, w), once a run."""
        if self.reweighter is not None:
            return
        batch = x.shape[0]
        grid = (x.shape[-2], x.shape[-1])
        if tuple(self.normal.shape[-2:]) != grid:
            raise InputError(
                f"the normal latent is {tuple(self.normal.shape[-2:])}, the sampled one {grid}; encode the same image"
            )
        y = to_batch(model.process_latent_in(self.normal).to(x), batch, "normal latents")
        cells = to_batch(cells_of(self.mask, grid).to(x.device), batch, "masks")
        self.reweighter = Reweighter(
            cells, y, mode=self.mode, strength=self.strength, level=self.level, distance=self.distance,
            interval=self.interval, to_pixels=_pixels(self.distance, model, self.vae),
        )  # fmt: skip
        for cond in conds.get("positive") or []:
            # of one limited to an area ComfyUI puts a copy into the other list, uuid and "cross_attn" and all
            cond["uuid"] = uuid4()
            tokens = cond["model_conds"].get("c_crossattn")
            if tokens is not None:
                self.spans[cond["uuid"]] = (find_span(tokens.cond), tokens.cond.shape[1])
        if self.mode == "release" and not any(span for span, _ in self.spans.values()):
            log.warning("re-weighting 'release' weights our tokens only, and the positive conditioning holds none")

    def observe(self, model, clean: Tensor, x: Tensor, sigma: Tensor) -> None:
        """Take in a clean estimate; of a sampler's several calls at one sigma the first counts."""
        level = float(sigma.flatten()[0])
        if level == self._sigma:
            return
        self._sigma = level
        sampling = model.model_sampling
        x_t = sampling.calculate_input(sigma.flatten()[:1], x)
        self.reweighter.observe(clean.to(x), x_t, round(float(sampling.timestep(sigma.flatten()[:1])[0])))
        weights = self.reweighter.weight_map
        if weights is not None:
            self._sum = weights if self._sum is None else self._sum + weights
            self._maps += 1

    def attend(self, q: Tensor, k: Tensor, v: Tensor, extra: dict, plain: Callable) -> Tensor:
        """Return the attention of one block, q (rows, N, C): conditional rows weighted, the others as `plain` does."""

        def unedited(q: Tensor, k: Tensor, v: Tensor, heads: int) -> Tensor:
            return plain(q, k, v, extra)

        reweighter = self.reweighter
        if reweighter is None or reweighter.weight_map is None or not self._whole_view(extra):
            return unedited(q, k, v, extra["n_heads"])
        size, images = q.shape[0] // len(extra["uuids"]), len(reweighter.mask)
        if size % images:
            raise InputError(
                f"the model sees {size} of {images} images at a time; re-weighting needs them together: leave the node "
                "out that takes them apart (Context Windows), or turn re-weighting off"
            )
        told = {"heads": extra["n_heads"], "grid": tuple(extra["activations_shape"][-2:])}
        if self.mode != "release":
            rows = [size * i + j for i, uuid in enumerate(extra["uuids"]) if uuid in self.spans for j in range(size)]
            return reweighter.edit(rows, (0, 0), unedited)(q, k, v, **told)
        parts = []
        for place, (kind, uuid) in enumerate(zip(extra["cond_or_uncond"], extra["uuids"], strict=True)):
            rows = slice(size * place, size * (place + 1))
            span, length = self.spans.get(uuid, (None, 0))
            if span is None:
                about = {**extra, "cond_or_uncond": [kind], "uuids": [uuid]}
                parts.append(plain(q[rows], k[rows], v[rows], about))
            else:  # contexts of unequal length were repeated to a common one; once is the same
                edit = reweighter.edit(slice(0, size), span, unedited)
                parts.append(edit(q[rows], k[rows, :length], v[rows, :length], **told))
        return torch.cat(parts)

    def _whole_view(self, extra: dict) -> bool:
        """Whether the block sees the whole image: conditioning limited to an area is left plain."""
        return tuple(extra["original_shape"][-2:]) == tuple(self.reweighter.mask.shape[-2:])


def patch_reweighting(model, run: ReweightingRun):
    """Return a clone of a MODEL whose cross-attention `run` re-weights; the one given is left as it is.

    A re-weighting that the MODEL already has is replaced; another pack's attention is called by ours for the plain
    part, if that pack was applied before. One applied after ours takes ours out (the last writer of a block wins).
    """
    check_sd1(model)
    patched = model.clone()
    patched.remove_wrappers_with_key(WrappersMP.OUTER_SAMPLE, KEY)
    patched.remove_wrappers_with_key(WrappersMP.PREDICT_NOISE, KEY)

    def outer(executor, *args, **kwargs):
        uncompile(executor.class_obj.model_options["transformer_options"]["wrappers"])
        run.start()
        try:
            return executor(*args, **kwargs)
        finally:
            run.end()

    def predict(executor, x, timestep, *args, **kwargs):
        guider = executor.class_obj
        run.prepare(guider.inner_model, x, guider.conds)
        clean = executor(x, timestep, *args, **kwargs)
        run.observe(guider.inner_model, clean, x, timestep)
        return clean

    patched.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, KEY, outer)
    patched.add_wrapper_with_key(WrappersMP.PREDICT_NOISE, KEY, predict)
    there = patched.model_options["transformer_options"].get("patches_replace", {}).get("attn2", {})
    for block in _blocks(patched.model.diffusion_model):
        named_closer = [key for key in there if key[:2] == block and len(key) == 3]  # by transformer: goes first
        for key in (block, *named_closer):
            patched.set_model_attn2_replace(_replacement(run, there.get(key)), *key)
    return patched


def _replacement(run: ReweightingRun, before: Callable | None) -> Callable:
    before = getattr(before, "adiff_before", before)  # of our own earlier patch, what it called

    def plain(q: Tensor, k: Tensor, v: Tensor, extra: dict) -> Tensor:
        if before is not None:
            return before(q, k, v, extra)
        return optimized_attention(
            q, k, v, extra["n_heads"], attn_precision=extra.get("attn_precision"), transformer_options=extra
        )

    def replaced(q: Tensor, k: Tensor, v: Tensor, extra: dict) -> Tensor:
        return run.attend(q, k, v, extra, plain)

    replaced.adiff_before = before
    return replaced


def _blocks(unet) -> list[tuple[str, int]]:
    """Every place of a transformer in a U-Net, as the patcher names it."""
    named = {"input": unet.input_blocks, "middle": [unet.middle_block], "output": unet.output_blocks}
    return [
        (name, number if name != "middle" else 0)
        for name, blocks in named.items()
        for number, block in enumerate(blocks)
        if any(isinstance(module, SpatialTransformer) for module in block)
    ]


def _pixels(distance: str, model, vae) -> Callable[[Tensor], Tensor] | None:
    """Return what a distance looks at latents through: scaled latents (B, 4, h, w) -> (B, 3, H, W)."""
    if distance == "latent":
        return None
    if distance == "vae":
        return lambda z: _decoded(vae, model, z)
    if distance == "preview":
        return _preview_decoder()
    shown = model.latent_format
    weight = torch.tensor(shown.latent_rgb_factors).T
    bias = torch.tensor(shown.latent_rgb_factors_bias or [0.0, 0.0, 0.0])
    return lambda z: latent_rgb(z, weight, bias)


def _decoded(vae, model, z: Tensor) -> Tensor:
    pixels = pixels_of(vae, model.process_latent_out(z)).to(z)
    comfy.model_management.load_models_gpu([model.current_patcher])  # on a small card the VAE has taken its place
    return pixels


def _preview_decoder() -> Callable[[Tensor], Tensor]:
    names = [n for n in folder_paths.get_filename_list("vae_approx") if n.startswith("taesd_decoder")]
    if not names:
        raise InputError("distance 'preview' needs taesd_decoder.safetensors in models/vae_approx; or choose 'latent'")
    decoder = TAESD(None, folder_paths.get_full_path_or_raise("vae_approx", names[0]))
    return lambda z: decoder.to(z.device).decode(z.float())


def fresh_outside(model, seed: int, indices: list[int]):
    """Return a clone of a MODEL that noises the normal image anew at each step (Eq. 1), outside the noise mask.

    indices: which draw of the seed each image of the batch takes, so that a batch equals its images one by one.
    """
    from ..adiff.generation.seeds import generator_for  # the samplers behind it take seconds to import

    patched = model.clone()
    run: dict = {}

    def sample(executor, guider, sigmas, extra_args, callback, noise, latent_image, denoise_mask, *args, **kwargs):
        run.clear()
        draws = [generator_for(seed, KINDS[1], i) for i in indices]
        changed = extra_args["model_options"].get("denoise_mask_function")
        run.update(y=latent_image, m=denoise_mask, changed=changed, sigmas=sigmas, draws=draws, sigma=None)
        try:
            return executor(guider, sigmas, extra_args, callback, noise, latent_image, denoise_mask, *args, **kwargs)
        finally:
            run.clear()

    def predict(executor, x, timestep, *args, **kwargs):
        if run.get("m") is None:
            return executor(x, timestep, *args, **kwargs)
        level = float(timestep.flatten()[0])
        if level != run["sigma"]:  # one draw a step: a second-order sampler asks twice
            noise = [torch.randn(x.shape[1:], generator=g) for g in run["draws"]]
            run.update(sigma=level, noise=torch.stack(noise).to(x))
        guider, m = executor.class_obj, run["m"]
        if run["changed"] is not None:
            m = run["changed"](timestep, m, extra_options={"model": guider, "sigmas": run["sigmas"]})
        given = {"sigma": timestep, "noise": run["noise"], "latent_image": run["y"]}
        outside = guider.inner_model.scale_latent_inpaint(x=x, **given)
        return executor(x * m + outside * (1 - m), timestep, *args, **kwargs)

    patched.add_wrapper_with_key(WrappersMP.SAMPLER_SAMPLE, KEY, sample)
    patched.add_wrapper_with_key(WrappersMP.PREDICT_NOISE, f"{KEY} fresh", predict)
    return patched
