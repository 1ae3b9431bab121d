"""Learning on ComfyUI's own MODEL: gradients reach the context, and the MODEL stays as it is.

ComfyUI runs nodes, and loads weights, under inference mode: every weight of the U-Net is an inference tensor, which
autograd refuses to keep for the way back. A normal tensor over the same storage is all that is missing. It costs no
memory, is taken for one call, and leaves the module with the very parameters that it had; a copy of the U-Net costs its
size again (1.7 GB for SD 1.5 in half precision), weight functions a copy of each layer a call, and normal parameters
put in the place of its own would stay in a model that other nodes share.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import comfy.model_management
import torch
from comfy.ldm.modules.attention import attention_pytorch
from torch import Tensor, nn

from ..adiff.errors import InputError
from ..adiff.progress import Cancelled
from .host import ComfyBackbone, GraphProgress

ACTIVATIONS = 2**20
"""Bytes that the way back keeps of one latent cell of one sample, in float32 (SD 1.5, measured); half in float16."""

LEAST = 2
"""Rows of the least part of a step that is taken at once: a dual model's pair."""

DIFFERENTIABLE = frozenset(f"attention_{kind}" for kind in ("basic", "pytorch", "split", "sub_quad", "xformers"))
"""ComfyUI's attentions that have a gradient; those for sampling alone (Sage, Flash) lose it, or stop with an error."""

LIFT = 2**10
"""Factor on gradients within the U-Net, which in float16 would vanish; a power of two changes no other digit."""


@contextmanager
def normal_tensors() -> Iterator[None]:
    """Leave inference mode, with gradients on; ComfyUI's own exception takes the place of Cancelled."""
    try:
        with torch.inference_mode(False), torch.enable_grad():
            yield
    except Cancelled:
        raise comfy.model_management.InterruptProcessingException from None


class TrainableBackbone(ComfyBackbone):
    """A `ComfyBackbone` whose noise prediction has a gradient with respect to the context, and to nothing else.

    The VAE comes first and the U-Net when it is asked for, so that on a small card each has its turn.
    Raises Cancelled where ComfyUI raises its own exception: what is learned so far is kept then.
    """

    def __init__(self, model, vae, empty: list, batch: int, name: str):
        """batch: samples of a training step, for which memory is made free. name: of the model, for records."""
        super().__init__(_held(model), vae, empty)
        self.name, self._batch = name, batch
        self._applied = _Applied(self._model.model)
        self._alphas_cumprod, self.null_context = self.alphas_cumprod.clone(), self.null_context.clone()

    def encode(self, images: Tensor) -> Tensor:
        """See `ComfyBackbone`; returns a normal tensor."""
        with torch.inference_mode(), _translated():
            comfy.model_management.throw_exception_if_processing_interrupted()
            latents = super().encode(images)
        return latents.clone()

    def decode(self, latents: Tensor) -> Tensor:
        """See `ComfyBackbone`; returns a normal tensor."""
        with torch.inference_mode(), _translated():
            pixels = super().decode(latents)
        return pixels.clone()

    def predict_noise(self, z_t: Tensor, t: Tensor, context: Tensor, attention_edit=None) -> Tensor:
        """See `ComfyBackbone`; differentiable with respect to the context."""
        with _translated():
            return super().predict_noise(z_t, t, context, attention_edit)

    def _apply(self, x: Tensor, sigma: Tensor, context: Tensor, options: dict) -> Tensor:
        if not (torch.is_grad_enabled() and context.requires_grad):
            return super()._apply(x, sigma, context, options)
        context = context.view_as(context)
        context.register_hook(lambda gradient: gradient / LIFT)
        clean = self._differentiable(x, sigma, context, options)
        clean.register_hook(lambda gradient: gradient * LIFT)
        return clean

    def _differentiable(self, x: Tensor, sigma: Tensor, context: Tensor, options: dict) -> Tensor:
        """As `_apply`, through normal tensors."""
        options = {**options, "optimized_attention_override": _with_gradient}  # which may be Sage's, from another pack
        given = {"c_crossattn": context, "transformer_options": options}
        return torch.func.functional_call(self._applied, _normal_weights(self._applied), (x, sigma), given)

    def _load(self, z_t: Tensor) -> None:
        """Have the U-Net where it computes, whole if beside it there is room for the least that a step is split into.

        Where room for the whole batch was asked for without fail, ComfyUI would leave the U-Net itself outside.
        """
        whole = self._needed(z_t)
        least = whole * min(LEAST, self._batch) // self._batch
        with torch.inference_mode():  # patching a weight writes into an inference tensor
            comfy.model_management.load_models_gpu(
                [self._model], memory_required=whole, minimum_memory_required=least
            )

    def _needed(self, z_t: Tensor) -> int:
        """Bytes that the way back of a step keeps."""
        half = self._model.model.get_dtype().itemsize == 2
        return ACTIVATIONS * self._batch * z_t.shape[-2] * z_t.shape[-1] // (2 if half else 1)


class LearningProgress(GraphProgress):
    """The bar of a training, with a picture of what is being learned; Cancelled if the user stops it."""

    _live = False  # whether a picture is beside the bar
    _steps = 0  # that were taken here; those before a cancel are not among them

    def start(self, total: int, what: str) -> None:
        """Begin a bar."""
        super().start(total, what)
        self._steps = 0

    def update(self, done: int, **info: float) -> None:
        """Move the bar."""
        self._steps += 1
        with _translated():
            super().update(done, **info)

    def took(self, steps: int, began: float) -> str:
        """Say how many steps a training has, and how long those took that were taken here, since `began`."""
        if not self._steps:
            return f"{steps} steps, learned before"
        these = "" if self._steps >= steps else f", the last {self._steps}"
        return f"{steps} steps{these} in {time.monotonic() - began:.0f} s"

    def show(self, done: int, picture) -> None:
        """Show a PIL picture beside the bar."""
        self._live = True
        with _translated():
            self.put(done, picture)

    def close(self, picture) -> None:
        """Let a PIL picture be the last one: a browser shows it in the place of what the node gives in the end."""
        if self._live:
            self.put(self._total, picture)


def normal_forward(block: nn.Module) -> Callable[..., Tensor]:
    """Return what a block does at present, through normal tensors: for when it runs again outside its model."""
    called = _Block(block)
    return lambda *args, **kwargs: torch.func.functional_call(called, _normal_weights(called), args, kwargs)


def _with_gradient(attention: Callable[..., Tensor], *args, **kwargs) -> Tensor:
    """An attention as the server would do it, or PyTorch's in the place of one that has no gradient."""
    return (attention if attention.__name__ in DIFFERENTIABLE else attention_pytorch)(*args, **kwargs)


@torch.inference_mode()  # as loaders do: weights that are packed (fp8, int8) do not go with tensors made outside
def _held(model):
    """Return a MODEL whose weights stay where they are from a step's way there to its way back.

    Those of a newer ComfyUI do not ("dynamic VRAM", the default on NVIDIA's cards): a layer's are taken back after its
    call, and autograd would read what lies there by then. For such a MODEL its checkpoint is read again, as long as it
    is learned on; patches, as of LoRAs, come along. Raises InputError for one whose loader does not tell its file.
    """
    if not (hasattr(model, "is_dynamic") and model.is_dynamic()):
        return model
    try:
        held = model.clone(disable_dynamic=True)
    except RuntimeError as error:
        raise InputError(
            "the MODEL's weights are lent to the card layer by layer (dynamic VRAM), which cannot be trained on, and "
            "its loader does not say where to read it again; use Load Checkpoint, or start ComfyUI with "
            "--disable-dynamic-vram"
        ) from error
    for module in held.model.modules():
        for name, weight in module.named_parameters(recurse=False):
            meant = getattr(module, f"{name}_comfy_model_dtype", weight.dtype)  # where the file's kind was kept
            weight.data = weight.data.to(meant)
    return held


class _Block(nn.Module):
    """A block called through `forward`, whatever takes the place of its own meanwhile."""

    def __init__(self, block: nn.Module):
        super().__init__()
        self.block, self._does = block, block.forward

    def forward(self, *args, **kwargs) -> Tensor:
        return self._does(*args, **kwargs)


class _Applied(nn.Module):
    """ComfyUI's model called through `forward`, as `functional_call` does."""

    def __init__(self, inner: nn.Module):
        super().__init__()
        self.inner = inner

    def forward(self, *args, **kwargs) -> Tensor:
        return self.inner.apply_model(*args, **kwargs)


def _normal_weights(module: nn.Module) -> dict[str, Tensor]:
    """Return a normal tensor over the storage of every parameter that is an inference tensor, by name."""
    return {
        name: torch.empty(0, dtype=weight.dtype, device=weight.device).set_(
            weight.untyped_storage(), weight.storage_offset(), weight.size(), weight.stride()
        )
        for name, weight in module.named_parameters()
        if weight.is_inference() and type(weight) is nn.Parameter  # a packed kind makes normal tensors at each call
    }


@contextmanager
def _translated() -> Iterator[None]:
    """Raise Cancelled in the place of ComfyUI's exception, which the training loop does not know."""
    try:
        yield
    except comfy.model_management.InterruptProcessingException:
        raise Cancelled("cancelled in ComfyUI") from None
