"""The model that comes with the pack, and photos for it: graphs run without any download."""

from __future__ import annotations

import comfy.latent_formats
import comfy.model_detection
import comfy.model_management
import comfy.model_patcher
import comfy.sd
import comfy.supported_models
import numpy as np
import torch
from comfy.ldm.models.autoencoder import AutoencoderKL
from comfy_api.latest import io
from einops import rearrange

from ..adiff.backbone import demo_folder
from ..adiff.backbone.autoencoder import SingleFile, read_single_file
from ..adiff.backbone.layout import UNET
from ..adiff.datasets.surfaces import PRODUCTS, render, sample_seed
from ..adiff.reweighting import fit_latent_rgb
from .search import found_by
from .sockets import CATEGORY, seed_input

PLACEHOLDER_VAE = {
    "embed_dim": 4,
    "ddconfig": {
        "double_z": True, "z_channels": 4, "resolution": 256, "in_channels": 3, "out_ch": 3, "ch": 32, "ch_mult": [1],
        "num_res_blocks": 1, "attn_resolutions": [], "dropout": 0.0,
    },
}  # fmt: skip


class LoadDemoModel(io.ComfyNode):
    """MODEL, VAE and the empty prompt."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Declare inputs and outputs."""
        return io.Schema(
            node_id="ADiffLoadDemoModel",
            display_name="Load Demo Model",
            category=f"{CATEGORY}/load",
            **found_by("example checkpoint"),
            description="The small SD 1.x model that comes with the pack. It knows drawn surfaces of 128 x 128 pixels "
            "only: for trying things out. For real photos load an SD 1.5 checkpoint instead.",
            inputs=[],
            outputs=[
                io.Model.Output("MODEL", display_name="model", tooltip="The U-Net"),
                io.Vae.Output("VAE", display_name="vae", tooltip="Its autoencoder"),
                io.Conditioning.Output("CONDITIONING", display_name="empty", tooltip="The empty prompt: for negative"),
            ],
        )

    @classmethod
    def execute(cls) -> io.NodeOutput:
        """Build both from the one file."""
        parts = read_single_file(demo_folder() / "demo.safetensors")
        vae = DemoVAE(parts.autoencoder)
        return io.NodeOutput(_model(parts, vae), vae, [[parts.null_context, {"pooled_output": None}]])


class DemoVAE(comfy.sd.VAE):
    """ComfyUI's VAE around a network that it has no configuration for (GroupNorm of 8 groups).

    What ComfyUI keeps beside the network comes from its own constructor, run on a tiny network that is then replaced.
    """

    def __init__(self, network: torch.nn.Module):
        tiny = AutoencoderKL(**PLACEHOLDER_VAE)
        super().__init__(sd=tiny.state_dict(), config={"params": PLACEHOLDER_VAE}, dtype=torch.float32)
        self.first_stage_model = network
        self.patcher = comfy.model_patcher.ModelPatcher(
            network, load_device=self.device, offload_device=self.patcher.offload_device
        )


def _model(parts: SingleFile, vae: DemoVAE):
    """Return a MODEL as ComfyUI builds one, under a configuration of ours: its detection knows SD 1.5's width only."""
    config = comfy.supported_models.SD15(comfy.model_detection.detect_unet_config(parts.tensors, UNET))
    config.unet_config["num_heads"] = parts.about["heads"]
    config.latent_format = comfy.latent_formats.SD15(parts.scaling_factor)
    config.latent_format.latent_rgb_factors, config.latent_format.latent_rgb_factors_bias = _rgb(vae, config)
    config.set_inference_dtype(torch.float32, None)
    offload = comfy.model_management.unet_offload_device()
    model = config.get_model(parts.tensors, UNET, device=offload)
    # a newer ComfyUI takes some layers' weights as they come, half precision, and computes in float32 all the same
    model.load_model_weights({name: tensor.float() for name, tensor in parts.tensors.items()}, UNET)
    model.adiff_native_size = parts.about["native_size"]
    device = comfy.model_management.get_torch_device()
    return comfy.model_patcher.ModelPatcher(model, load_device=device, offload_device=offload)


def _rgb(vae: DemoVAE, config) -> tuple[list, list]:
    """Fit the live preview's colours to the demo's latents."""
    images = _surfaces(PRODUCTS, 128, 0)
    latents = config.latent_format.process_in(vae.encode(images))
    weight, bias = fit_latent_rgb(latents, rearrange(images, "b h w c -> b c h w") * 2 - 1)
    return weight.T.tolist(), bias.tolist()


class DrawSurface(io.ComfyNode):
    """Normal photos for the demo model."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Declare inputs and outputs."""
        return io.Schema(
            node_id="ADiffDrawSurface",
            display_name="Draw Surface",
            category=f"{CATEGORY}/load",
            **found_by("example photo", "normal image", "texture"),
            description="Draws photos of an inspected surface without defects, to try the demo model on. For your own "
            "photos use Load Image.",
            inputs=[
                io.Combo.Input("product", options=list(PRODUCTS), default=PRODUCTS[0], tooltip="Which surface"),
                io.Int.Input("count", default=1, min=1, max=256, tooltip="Photos to draw"),
                io.Int.Input("size", default=128, min=32, max=2048, step=8, tooltip="Side in pixels"),
                seed_input("The same seed draws the same photos", renewed=False),
            ],
            outputs=[io.Image.Output("IMAGE", display_name="image", tooltip="The photos")],
        )  # fmt: skip

    @classmethod
    def execute(cls, product: str, count: int, size: int, seed: int) -> io.NodeOutput:
        """Draw them."""
        return io.NodeOutput(_surfaces([product] * count, size, seed))


def _surfaces(products, size: int, seed: int) -> torch.Tensor:
    """IMAGE (B, H, W, 3) of one surface of each product named."""
    drawn = [render(p, None, size, sample_seed(seed, p, None, "graph", i)).image for i, p in enumerate(products)]
    return torch.from_numpy(np.stack(drawn)).float() / 255
