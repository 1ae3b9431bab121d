"""What NVIDIA's cards get of a newer ComfyUI by default ("dynamic VRAM"), on a CPU: layers take their weights as the
file has them, keep them there, and cast them at each call. A part of such a server's custom nodes.

Not so here: on a card the cast weights lie in memory of comfy-aimdo's, and a layer's may be taken back after its call.
"""

import comfy.memory_management
import comfy.model_base
import comfy.model_patcher
import comfy.utils
import comfy_aimdo.host_buffer
import comfy_aimdo.model_vbar
import torch
from safetensors import safe_open
from safetensors.torch import load_file

NODE_CLASS_MAPPINGS = {}
apply_model = comfy.model_base.BaseModel.apply_model


class HostBuffer:
    """No pinned memory."""

    size = 0

    def __init__(self, *_):
        pass

    def truncate(self, *_, **__):
        """Nothing to free."""


def load(path):
    """A file's tensors and metadata, without comfy-aimdo's own mapping of files."""
    with safe_open(path, "pt") as file:
        return load_file(path), file.metadata()


def without_gradients(model, *args, **kwargs):
    """As on a card, where a layer's weights are gone by the way back."""
    if torch.is_grad_enabled() and not torch.is_inference_mode_enabled() and getattr(model, "dynamic_patchers", ()):
        raise RuntimeError("learned on weights that are taken back")
    return apply_model(model, *args, **kwargs)


comfy.model_base.BaseModel.apply_model = without_gradients
Dynamic = comfy.model_patcher.ModelPatcherDynamic
Dynamic.__new__ = lambda kind, *_, **__: object.__new__(kind)  # its own gives up on a CPU
comfy.model_patcher.CoreModelPatcher = Dynamic
comfy.memory_management.aimdo_enabled = True
comfy.utils.load_safetensors = load
comfy_aimdo.host_buffer.HostBuffer = HostBuffer
comfy_aimdo.model_vbar.vbar_unpin = lambda *_: None
comfy_aimdo.model_vbar.vbars_analyze = lambda *_: 0
comfy_aimdo.model_vbar.vbars_reset_watermark_limits = lambda *_: None
