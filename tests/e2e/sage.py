"""A server with an attention for sampling alone, as --use-sage-attention has: no gradient comes through it.

A part of such a server's custom nodes.
"""

import comfy.ldm.modules.attention
import torch
from comfy.ldm.modules.attention import attention_pytorch, wrap_attn

NODE_CLASS_MAPPINGS = {}


@wrap_attn
@torch.no_grad()
def attention_sage(*args, **kwargs):
    return attention_pytorch(*args, **kwargs)


comfy.ldm.modules.attention.optimized_attention = attention_sage
