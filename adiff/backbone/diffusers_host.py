"""The backbone protocol fulfilled with diffusers' networks; the attention edit is routed to every cross-attention."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from diffusers.models.attention import BasicTransformerBlock
from diffusers.models.attention_processor import Attention, AttnProcessor2_0
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.transformers.transformer_2d import Transformer2DModel
from torch import Tensor

from ..errors import InputError
from ..reweighting import AttentionEdit
from .attentions import LayerEdit
from .checkpointing import checkpointed
from .compilation import compile_network
from .diffusers_attentions import RoutedAttentions
from .layout import unet_names
from .loading import Parts
from .precision import WideAttention
from .schedule import sd1_scheduler

SAMPLED = 16
"""Values of each tensor by which a training that goes on knows its model."""
BLOCKS = ResnetBlock2D, BasicTransformerBlock
"""What a U-Net is made of, as gradient checkpointing takes it."""


class DiffusersBackbone:
    """A frozen SD 1.x model on one device; see `Backbone` for what each member means.

    dtype: what its networks compute in (`precision`). compiled: the U-Net in training (`compilation`).
    """

    def __init__(self, name: str, parts: Parts, device: torch.device, dtype: torch.dtype, compiled: bool = False):
        self.name, self.device, self.dtype = name, device, dtype
        self.fingerprint, self.weights = _fingerprint(parts), _sampled(parts)  # before the dtype rounds the weights
        # torch's own `to`: that of diffusers 0.42 warns of modules to be kept in float32 where there are none
        self._unet, self._vae = (torch.nn.Module.to(part, device, dtype) for part in (parts.unet, parts.vae))
        for part in (self._unet, self._vae):
            part.eval().requires_grad_(False)
            if device.type == "cuda":  # on CPUs it is slower
                part.to(memory_format=torch.channels_last)
        self.context_dim: int = parts.unet.config.cross_attention_dim
        self.latent_downscale = 2 ** (len(parts.vae.config.block_out_channels) - 1)
        self.native_size: int = parts.unet.config.sample_size * self.latent_downscale
        self.null_context = parts.null_context.to(device)
        self.alphas_cumprod = sd1_scheduler().alphas_cumprod.to(device)
        self._route = _route_cross_attention(self._unet)
        self._in_training = compile_network(self._unet, device) if compiled else self._unet
        self._attentions = RoutedAttentions(self._unet)
        self.attentions, self.edited_dtype = self._attentions.shapes, dtype

    def encode(self, images: Tensor) -> Tensor:
        """Images (B, 3, H, W) in [-1, 1] -> scaled latents (B, 4, h, w), the posterior's mean."""
        images = images.to(self.device, self.dtype)
        latents = self._vae.encode(images).latent_dist.mean.float() * self._vae.config.scaling_factor
        return self._finite(latents)

    def decode(self, latents: Tensor) -> Tensor:
        """Scaled latents (B, 4, h, w) -> images (B, 3, H, W), about [-1, 1]."""
        latents = (latents / self._vae.config.scaling_factor).to(self.device, self.dtype)
        return self._finite(self._vae.decode(latents).sample.float())

    def _finite(self, made: Tensor) -> Tensor:
        """What the autoencoder made; InputError for NaN or infinity in it, of which black images would be written."""
        if made.isfinite().all():
            return made
        narrow = self.dtype != torch.float32
        remedy = "give --precision float32" if narrow else "check its weights, the LoRAs in it, and the guidance"
        raise InputError(
            f"the base model {self.name} gave numbers that are not finite, computing in "
            f"{str(self.dtype).removeprefix('torch.')}; {remedy}"
        )

    def predict_noise(
        self, z_t: Tensor, t: Tensor, context: Tensor, attention_edit: AttentionEdit | None = None
    ) -> Tensor:
        """eps_theta(z_t, t, context), every cross-attention done by `attention_edit` if given."""
        self._route.edit = attention_edit
        try:
            plain = attention_edit is None and torch.is_grad_enabled()
            return self._predict(self._in_training if plain else self._unet, z_t, t, context)
        finally:
            self._route.edit = None

    def _predict(self, unet: torch.nn.Module, z_t: Tensor, t: Tensor, context: Tensor) -> Tensor:
        z_t, context = z_t.to(self.device, self.dtype), context.to(self.device, self.dtype)
        with self._attention():
            return unet(z_t, t.to(self.device), encoder_hidden_states=context).sample.float()

    def _attention(self) -> AbstractContextManager:
        narrow = self.dtype != torch.float32 and self.device.type == "cpu" and torch.is_grad_enabled()
        return WideAttention() if narrow else nullcontext()

    def predict_noise_edited(
        self, z_t: Tensor, t: Tensor, context: Tensor, edit: LayerEdit, checkpoint: bool = False
    ) -> Tensor:
        """eps_theta(z_t, t, context), every attention, its projections included, changed by `edit`."""
        blocks = [module for module in self._unet.modules() if isinstance(module, BLOCKS)] if checkpoint else []
        with self._attentions.edited(edit), checkpointed(blocks, lambda: self._edited_again(edit)):
            return self._predict(self._unet, z_t, t, context)

    @contextmanager
    def _edited_again(self, edit: LayerEdit) -> Iterator[None]:
        with self._attentions.edited(edit), self._attention():
            yield

    @property
    def room(self) -> int | None:
        """Bytes that are free on a GPU, the model being there already; None on other devices."""
        return torch.cuda.mem_get_info(self.device)[0] if self.device.type == "cuda" else None


class _Route:
    """What the processors of one U-Net share: the edit in force and the grid of the transformer that is running."""

    edit: AttentionEdit | None = None
    grid: tuple[int, int] = (0, 0)


class _RoutedCrossAttention(AttnProcessor2_0):
    """diffusers' own cross-attention, whose middle part an edit may take over; without one it is untouched."""

    def __init__(self, route: _Route):
        super().__init__()
        self.route = route

    def __call__(
        self, attn: Attention, hidden_states: Tensor, encoder_hidden_states: Tensor | None = None, *args, **kwargs
    ):
        if self.route.edit is None:
            return super().__call__(attn, hidden_states, encoder_hidden_states, *args, **kwargs)
        context = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        q, k, v = attn.to_q(hidden_states), attn.to_k(context), attn.to_v(context)
        out = self.route.edit(q, k, v, heads=attn.heads, grid=self.route.grid)
        return attn.to_out[1](attn.to_out[0](out.to(q.dtype)))


def _route_cross_attention(unet: torch.nn.Module) -> _Route:
    route = _Route()

    def note_grid(_module, args, kwargs):
        hidden = args[0] if args else kwargs["hidden_states"]
        route.grid = (hidden.shape[-2], hidden.shape[-1])

    for name, module in unet.named_modules():
        if isinstance(module, Transformer2DModel):
            module.register_forward_pre_hook(note_grid, with_kwargs=True)
        elif isinstance(module, Attention) and name.endswith("attn2"):
            module.set_processor(_RoutedCrossAttention(route))
    return route


def _sampled(parts: Parts) -> str:
    """sha256 over SAMPLED values as fp16 of each tensor of U-Net and VAE: a LoRA, or another VAE, changes most."""
    digest = hashlib.sha256()
    for part in (parts.unet, parts.vae):
        for name, tensor in part.state_dict().items():
            values = tensor.flatten()[:: max(1, tensor.numel() // SAMPLED)].half().cpu().contiguous()
            digest.update(f"{name} {tuple(tensor.shape)} ".encode() + values.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _fingerprint(parts: Parts) -> str:
    """sha256 over the cross-attention's key and value weights as fp16, in the order of their single-file names."""
    weights = parts.unet.state_dict()
    names = unet_names(weights, parts.unet.config.layers_per_block)
    digest = hashlib.sha256()
    for name in sorted((n for n in weights if n.endswith(("attn2.to_k.weight", "attn2.to_v.weight"))), key=names.get):
        digest.update(weights[name].half().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
