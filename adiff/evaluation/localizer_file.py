"""A trained localizer as a file: safetensors, float32, its sizes in the metadata."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from ..errors import InputError
from ..storage import write_whole
from .localizer import Localizer, Trained

FORMAT, KIND = "1", "localizer"


def save_localizer(path: Path, trained: Trained) -> None:
    """Write the network with the size it sees, atomically."""
    metadata = {"adiff_format": FORMAT, "kind": KIND, "size": str(trained.size), "step": str(trained.step)}
    content = save({n: t.contiguous() for n, t in trained.network.state_dict().items()}, metadata)
    write_whole(path, lambda temporary: temporary.write_bytes(content))


def load_localizer(path: Path) -> Trained:
    """Read what `save_localizer` wrote, without its curve. FileNotFoundError; InputError for any other file."""
    if not path.is_file():
        raise FileNotFoundError(f"there is no localizer at {path}")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}
    except SafetensorError as error:
        raise InputError(f"{path} is not a whole safetensors file ({error}); copy it again") from None
    if metadata.get("kind") != KIND or metadata.get("adiff_format") != FORMAT:
        raise InputError(f"{path} is no localizer of format {FORMAT}; `adiff evaluate localization` writes one")
    try:
        with torch.device("meta"):
            network = Localizer(tensors["head.weight"].shape[1])
        network.load_state_dict(tensors, assign=True)
        sizes = int(metadata["size"]), int(metadata["step"])
    except (KeyError, RuntimeError, ValueError) as error:
        raise InputError(f"{path} is a damaged localizer: {' '.join(str(error).split())[:200]}") from None
    return Trained(network.eval().requires_grad_(False), sizes[0], sizes[1], ())
