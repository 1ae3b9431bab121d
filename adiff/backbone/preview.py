"""A TAESD-style preview decoder: a small network that turns latents into pixels, for the `preview` distance."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import AutoencoderTiny
from torch import Tensor

from ..errors import InputError
from ..tensor_files import open_safetensors, tensors_of


class PreviewDecoder:
    """Latents (B, 4, h, w) -> images (B, 3, 8h, 8w), about [-1, 1]."""

    def __init__(self, path: Path | str):
        """path: a diffusers AutoencoderTiny folder or a `taesd_decoder.safetensors` file. InputError for others."""
        path = Path(path).expanduser()
        if not path.exists():
            raise FileNotFoundError(
                f"preview decoder {path} is not there; give taesd_decoder.safetensors or its folder"
            )
        if path.is_dir():
            tiny = AutoencoderTiny.from_pretrained(path, local_files_only=True, use_safetensors=True)
        else:
            tiny = AutoencoderTiny()
            tiny.decoder.load_state_dict(_decoder_weights(path, tiny.decoder.state_dict()))
        self._decoder = tiny.decoder.eval().requires_grad_(False)

    @torch.no_grad()
    def __call__(self, latents: Tensor) -> Tensor:
        """Decode; the network follows the latents' device, in float32."""
        return self._decoder.to(latents.device)(latents.float())


def _decoder_weights(path: Path, wanted: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename the original file's layers; its first layer is a clamp, which diffusers does outside the list."""
    with open_safetensors(path, "preview decoder") as file:
        stored = tensors_of(file)
    renamed = {}
    for key, tensor in stored.items():
        number, _, rest = key.removeprefix("taesd_decoder.").partition(".")
        renamed[f"layers.{int(number) - 1}.{rest}" if number.isdigit() else key] = tensor
    if {k: v.shape for k, v in renamed.items()} != {k: v.shape for k, v in wanted.items()}:
        raise InputError(f"{path.name} is no TAESD decoder for SD 1.x: its {len(stored)} weights do not fit")
    return renamed
