"""Models with random weights in the shape of the real ones: what ComfyUI recognises, as small as it lets them be."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from diffusers import AutoencoderTiny, UNet2DConditionModel
from safetensors.torch import save_file
from torch import Tensor

from adiff.backbone.layout import TEXT, UNET, VAE, unet_names
from adiff.embedding import random_embedding
from adiff.library import Defect, Library, save_library
from adiff.spatial_encoder import SpatialEncoder, fingerprint, save_encoder
from tests.e2e.comfyui import Server

SD15_SCALE = 0.18215
HINT = (3, 16, 16, 32, 32, 96, 96, 256, 320)
"""Channels of a ControlNet's layers between the hint and the U-Net."""
RANK = 4
SHARPER = 4
"""Factor on the cross-attention's queries and keys: as drawn, all tokens would get nearly the same share."""
LOUDER = 10
"""Factor on its values and its output: as drawn, a weight of 2 would hardly show in the result."""


@contextmanager
def running(comfyui: tuple[Path, str], *more: str, **options) -> Iterator[Server]:
    """A server in a folder of its own, with all these models, for a while. comfyui and more: as `Server` takes them."""
    with tempfile.TemporaryDirectory(prefix="adiff-e2e-") as base:
        server = Server(*comfyui, Path(base), *more, **options)
        write_models(server.base / "models", server.elsewhere)
        server.start()
        try:
            yield server
        finally:
            server.stop()


def write_models(folder: Path, elsewhere: Path) -> None:
    """Write everything that the tests load into ComfyUI's models folder; elsewhere: a library that lies outside it."""
    for name in ("checkpoints", "loras", "controlnet", "vae_approx", "adiff_libraries", "adiff_encoders"):
        (folder / name).mkdir(parents=True)
    unet, vae = random_unet(1), random_vae(2)
    _save(folder / "checkpoints" / "sd15.safetensors", unet | vae)
    _save(folder / "checkpoints" / "sd15_text.safetensors", unet | vae | random_text_encoder(3))
    _save(folder / "checkpoints" / "sd20.safetensors", random_unet(4, width=1024, levels=(320,)) | vae)
    _save(folder / "checkpoints" / "sd15_inpainting.safetensors", random_unet(5, channels=9, levels=(320,)) | vae)
    _save(folder / "loras" / "random.safetensors", random_lora(unet, 6))
    _save(folder / "controlnet" / "random.safetensors", random_controlnet(unet, 7))
    decoder = f"{VAE}taesd_decoder."
    taesd = {k.removeprefix(decoder): v for k, v in vae.items() if k.startswith(decoder)}
    _save(folder / "vae_approx" / "taesd_decoder.safetensors", taesd)
    write_libraries(folder, elsewhere)


def random_unet(seed: int, width: int = 768, channels: int = 4, levels: tuple[int, ...] = (320, 320)) -> dict:
    """A U-Net with cross-attention on every level; 320 channels first and the width tell ComfyUI the family."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        unet = UNet2DConditionModel(
            in_channels=channels,
            block_out_channels=levels,
            layers_per_block=1,
            down_block_types=("CrossAttnDownBlock2D",) * len(levels),
            up_block_types=("CrossAttnUpBlock2D",) * len(levels),
            attention_head_dim=8,
            cross_attention_dim=width,
            use_linear_projection=width != 768,
        )
        for name, weight in unet.named_parameters():
            if name.endswith(("attn2.to_q.weight", "attn2.to_k.weight")):
                weight.data *= SHARPER
            if name.endswith(("attn2.to_v.weight", "attn2.to_out.0.weight")):
                weight.data *= LOUDER
    names = unet_names(unet.state_dict(), 1)
    return {names[name]: tensor for name, tensor in unet.state_dict().items()}


def random_vae(seed: int) -> dict[str, Tensor]:
    """An autoencoder of TAESD's kind, with latents of deviation 1 and images of 0.5 +- 0.2."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = AutoencoderTiny()
        seen = (torch.rand(1, 3, 64, 64), torch.tanh(torch.randn(1, 4, 16, 16) / 3) * 3)
    for layers, x, deviation, mean in (
        (net.encoder.layers, seen[0], 1.0, 0.0),
        (net.decoder.layers, seen[1], 0.2, 0.5),
    ):
        with torch.no_grad():
            out, last = layers(x), layers[-1]
            middle = out.mean((0, 2, 3))
            gain = deviation / (out - middle[:, None, None]).std()
            last.weight *= gain
            last.bias.copy_((last.bias - middle) * gain + mean)
    tiny = net.state_dict()
    weights = {f"{VAE}vae_scale": torch.tensor(SD15_SCALE), f"{VAE}vae_shift": torch.tensor(0.0)}
    for name, tensor in tiny.items():
        coder, _, number, rest = name.split(".", 3)
        shift = coder == "decoder"  # the original counts a clamp as the decoder's first layer
        weights[f"{VAE}taesd_{coder}.{int(number) + shift}.{rest}"] = tensor
    return weights


def random_text_encoder(seed: int) -> dict[str, Tensor]:
    """CLIP's text encoder at its full size, which is the only one that ComfyUI knows."""
    from transformers import CLIPTextConfig, CLIPTextModel

    config = CLIPTextConfig(
        vocab_size=49408, hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12,
        max_position_embeddings=77, hidden_act="quick_gelu", projection_dim=768,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        weights = CLIPTextModel(config).state_dict()
    # transformers has left the "text_model." level out of the names from version 5 on
    return {f"{TEXT}text_model.{name.removeprefix('text_model.')}": tensor for name, tensor in weights.items()}


def random_lora(unet: dict[str, Tensor], seed: int) -> dict[str, Tensor]:
    """A LoRA on every cross-attention's keys and values."""
    generator, weights = torch.Generator().manual_seed(seed), {}
    for name, tensor in unet.items():
        if name.endswith(("attn2.to_k.weight", "attn2.to_v.weight")):
            stem = f"diffusion_model.{name.removeprefix(UNET).removesuffix('.weight')}"
            rows, columns = tensor.shape
            weights[f"{stem}.lora_down.weight"] = torch.randn(RANK, columns, generator=generator) / columns**0.5
            weights[f"{stem}.lora_up.weight"] = torch.randn(rows, RANK, generator=generator)
    return weights


def random_controlnet(unet: dict[str, Tensor], seed: int) -> dict[str, Tensor]:
    """A ControlNet: the U-Net's first half, the hint's layers, and outputs that are not zero."""
    generator = torch.Generator().manual_seed(seed)

    def convolution(name: str, inputs: int, outputs: int, side: int) -> dict[str, Tensor]:
        weight = torch.randn(outputs, inputs, side, side, generator=generator) / (inputs * side * side) ** 0.5
        return {f"{name}.weight": weight, f"{name}.bias": torch.zeros(outputs)}

    kept = ("time_embed.", "input_blocks.", "middle_block.")
    weights = {k.removeprefix(UNET): v for k, v in unet.items() if k.removeprefix(UNET).startswith(kept)}
    for number, (inputs, outputs) in enumerate(zip(HINT, HINT[1:], strict=False)):
        weights |= convolution(f"input_hint_block.{2 * number}", inputs, outputs, 3)
    blocks = 1 + max(int(k.split(".")[1]) for k in weights if k.startswith("input_blocks."))
    for number in range(blocks):
        weights |= convolution(f"zero_convs.{number}.0", 320, 320, 1)
    return weights | convolution("middle_block_out.0", 320, 320, 1)


def write_libraries(folder: Path, elsewhere: Path) -> None:
    """Write two encoders, a library of the first, a damaged one; and elsewhere one without encoder and a pickle."""
    encoders, libraries = folder / "adiff_encoders", folder / "adiff_libraries"
    small, other = SpatialEncoder("small", seed=1), SpatialEncoder("small", seed=2)
    save_encoder(encoders / "small.safetensors", small, {})
    save_encoder(encoders / "other.safetensors", other, {})
    generator = torch.Generator().manual_seed(0)
    shots = (torch.zeros(2, 64, 64) > 0).numpy()
    shots[0, 20:40, 16:40] = shots[1, 30:50, 10:30] = True

    def defect(product: str, name: str, tokens: int) -> Defect:
        anomaly = random_embedding(tokens, 768, generator) if tokens else None
        return Defect(product, name, anomaly, mask=random_embedding(4, 768, generator), shot_masks=shots)

    def library(*defects: Defect, encoder: SpatialEncoder | None) -> Library:
        return Library(
            {one.key: one for one in defects}, base_fingerprint="0" * 64, base_name="random", context_dim=768,
            encoder_fingerprint=fingerprint(encoder) if encoder else None,
        )  # fmt: skip

    things = library(defect("metal", "scratch", 8), defect("wood", "hole", 0), encoder=small)
    save_library(libraries / "things.safetensors", things)
    whole = (libraries / "things.safetensors").read_bytes()
    (libraries / "damaged.safetensors").write_bytes(whole[: len(whole) // 2])
    elsewhere.mkdir()
    save_library(elsewhere / "plain.safetensors", library(defect("metal", "scratch", 8), encoder=None))
    torch.save({}, elsewhere / "foreign.pt")


def _save(path: Path, weights: dict[str, Tensor]) -> None:
    save_file({name: tensor.detach().half().contiguous() for name, tensor in weights.items()}, path)
