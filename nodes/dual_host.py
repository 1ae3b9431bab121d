"""What ComfyUI's samplers and previews need to make pairs: rows of both branches found in the batch that comes.

A batch of the model holds the latents once for each condition: P wholes and then P parts, as often as `cond_or_uncond`
has entries. So the rows of a branch are those of its half of each entry.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import comfy.model_management
import comfy.sample
import comfy.utils
import latent_preview
import torch
from comfy.patcher_extension import WrappersMP
from PIL import Image
from torch import Tensor

from .attentions import EditableComfyBackbone, EditableTrainableBackbone
from .gradients import LearningProgress
from .live import SEED, STEPS, TILE
from .pictures import side_by_side

if TYPE_CHECKING:
    from ..adiff.dual import DualModel, DualPair, DualSampling, DualSettings
    from ..adiff.dual.background import Background
    from ..adiff.dual.layers import DualEdit

KEY = "adiff dual"
POSITIVE = 0
"""What `cond_or_uncond` calls rows of the positive conditioning."""


class PairSampler:
    """Samples pairs of a dual model with one of ComfyUI's samplers; see `adiff.dual.run.draw_pairs`."""

    def __init__(
        self, backbone: EditableComfyBackbone, model: DualModel, settings: DualSampling, empty: list,
        behind: Tensor | None, how: tuple[str, str, int],
    ):  # fmt: skip
        """behind: z_bg of BCM, (n, 4, h, w), taken in turn. how: sampler, scheduler, seed of the noise it may add."""
        from ..adiff.dual.sampling import placed

        stored = sum(weight.numel() for weight in model.weights.values()) * backbone.edited_dtype.itemsize
        comfy.model_management.free_memory(stored, backbone.device)
        self._backbone, self._settings, self._empty, self._behind = backbone, settings, empty, behind
        self._model, (self._sampler, self._scheduler, self._seed) = placed(model, backbone), how

    def __call__(self, ids: Sequence[int], generators: Sequence[torch.Generator]) -> list[DualPair]:
        """Return one pair for each id and generator."""
        from ..adiff.dual.sampling import first_noise, shown_pairs

        behind = None if self._behind is None else self._behind[[i % len(self._behind) for i in ids]]
        x, background = first_noise(self._backbone, self._model, generators, behind)
        return shown_pairs(self._backbone, self._sampled(x, background))

    def _sampled(self, x: Tensor, background: Background | None) -> Tensor:
        """x_T -> x_0, (2, P, 4, h, w) both."""
        from ..adiff.dual.file import nested_contexts
        from ..adiff.dual.layers import batch_of, branches_of

        backbone, pairs = self._backbone, x.shape[1]
        model = self._model
        positive = nested_contexts(model.object_tokens, model.defect_tokens, pairs, model.prompts)
        noise = batch_of(x).cpu()
        run = _Run(backbone, model, pairs, background, self._settings.guidance != 1)
        routed, steps = backbone.routed, self._settings.steps
        routed.remove_wrappers_with_key(WrappersMP.PREDICT_NOISE, KEY)
        routed.add_wrapper_with_key(WrappersMP.PREDICT_NOISE, KEY, run.predict)
        with backbone.editing(run.edit):
            samples = comfy.sample.sample(
                routed, noise, steps, self._settings.guidance, self._sampler, self._scheduler, [[positive, {}]],
                self._empty, torch.zeros_like(noise), callback=latent_preview.prepare_callback(routed, steps),
                disable_pbar=not comfy.utils.PROGRESS_BAR_ENABLED, seed=self._seed,
            )  # fmt: skip
        return branches_of(routed.model.process_latent_in(samples).to(x))


class _Run:
    """The edits of one run: they depend on what a batch holds and, with a background, on the noise level."""

    def __init__(
        self, backbone: EditableComfyBackbone, model: DualModel, pairs: int, background: Background | None, guided: bool
    ):
        self._backbone, self._model, self._pairs, self._background = backbone, model, pairs, background
        self._guided, self._t = guided, None
        self._edits: dict[tuple[int, ...], DualEdit] = {}

    def predict(self, executor, x: Tensor, timestep: Tensor, *args, **kwargs) -> Tensor:
        """Around each call of the model: at a new noise level the background passes through it first."""
        from ..adiff.dual.sampling import step_edits

        t = round(float(executor.class_obj.inner_model.model_sampling.timestep(timestep.flatten()[:1])[0]))
        if self._background is not None and t != self._t:
            self._t, self._edits = t, {}
            self._seen = step_edits(self._backbone, self._model, self._pairs, t, self._background, self._guided)
        return executor(x, timestep, *args, **kwargs)

    def edit(self, extra: dict[str, Any]) -> DualEdit:
        """The edit of a batch, told by what its entries are."""
        kinds = tuple(extra["cond_or_uncond"])
        if kinds not in self._edits:
            self._edits[kinds] = self._made(kinds)
        return self._edits[kinds]

    def _made(self, kinds: tuple[int, ...]) -> DualEdit:
        from ..adiff.dual.layers import DualEdit

        own = torch.arange(2 * self._pairs).view(2, self._pairs)
        rows = torch.cat([own + 2 * self._pairs * place for place in range(len(kinds))], dim=1)
        if self._background is None:
            return DualEdit(self._model.weights, rows)
        positive, negative = (edit and edit.background for edit in self._seen)
        seen = [positive if kind == POSITIVE else negative for kind in kinds]
        return DualEdit(self._model.weights, rows, {name: torch.cat([one[name] for one in seen]) for name in seen[0]})


def dual_preview(backbone: EditableTrainableBackbone, settings: DualSettings, progress: LearningProgress):
    """Show an image beside its part, sampled with few steps from what is learned by now."""
    from ..adiff.dual import DualSampling
    from ..adiff.dual.background import Background, encode_black
    from ..adiff.dual.sampling import sample_latents, shown_pairs

    size = settings.size or backbone.native_size
    side = size // backbone.latent_downscale
    rng = torch.Generator().manual_seed(SEED)
    noise = torch.randn(3, 1, 4, side, side, generator=rng).to(backbone.device)
    black = encode_black(backbone, size) if settings.bcm == "release" else None

    def show(step: int, learned) -> None:
        behind = learned.backgrounds
        background = None if behind is None else Background(behind[:1].to(noise), noise[2], black)
        x = sample_latents(backbone, learned, noise[:2], DualSampling(STEPS), background)
        (pair,) = shown_pairs(backbone, x)
        tiles = [Image.fromarray(picture).resize((TILE, TILE)) for picture in (pair.image, pair.part)]
        progress.show(step, side_by_side(tiles))

    return show
