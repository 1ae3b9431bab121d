"""A server with an attention for sampling alone, as --use-sage-attention has: no gradient comes through it.

A part of such a server's custom nodes.
"""

import comfy.ldm.modules.attention
import torch
from comfy.ldm.modules.attention import attention_pytorch, wrap_attn


@wrap_attn
@torch.no_grad()
def attention_sage(*args, **kwargs):
    return attention_pytorch(*args, **kwargs)


class Sage:
    """A MODEL whose attention another pack has replaced by such a one."""

    CATEGORY, FUNCTION, RETURN_TYPES = "probe", "run", ("MODEL",)

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"model": ("MODEL",)}}

    def run(self, model):
        model = model.clone()
        model.model_options["transformer_options"]["optimized_attention_override"] = self.attend
        return (model,)

    @torch.no_grad()
    def attend(self, attention, *args, **kwargs):
        return attention(*args, **kwargs)


comfy.ldm.modules.attention.optimized_attention = attention_sage
NODE_CLASS_MAPPINGS = {"ProbeSage": Sage}
