"""A trained localizer as a file: safetensors, float32, its sizes in the metadata."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import save

from ..errors import InputError
from ..storage import write_whole
from ..tensor_files import open_safetensors, tensors_of
from .localizer import Trained
from .networks import NETWORKS, new_network

FORMAT, KIND = "1", "localizer"
WIDEST = 1024
"""Largest width that is believed."""


def save_localizer(path: Path, trained: Trained) -> None:
    """Write the network with the size it sees, whole or not at all."""
    metadata = {"adiff_format": FORMAT, "kind": KIND, "size": str(trained.size), "step": str(trained.step)}
    metadata |= {"network": trained.kind, "width": str(trained.width)}
    content = save({n: t.cpu().contiguous() for n, t in trained.network.state_dict().items()}, metadata)
    write_whole(path, lambda temporary: temporary.write_bytes(content))


def load_localizer(path: Path) -> Trained:
    """Read what `save_localizer` wrote, without its curve. FileNotFoundError; InputError for any other file."""
    with open_safetensors(path, "localizer") as file:
        metadata = file.metadata() or {}
        tensors = tensors_of(file)
    if metadata.get("kind") != KIND or metadata.get("adiff_format") != FORMAT:
        raise InputError(f"{path} is no localizer of format {FORMAT}; `adiff evaluate localization` writes one")
    try:
        kind, width, size, step = metadata["network"], *(int(metadata[name]) for name in ("width", "size", "step"))
        if kind not in NETWORKS or not 0 < width <= WIDEST or size < 1 or size % NETWORKS[kind].multiple:
            raise ValueError(f"network {kind[:40]!r} of width {width}, size {size}")
        with torch.device("meta"):
            network = new_network(kind, width)
        network.load_state_dict(tensors, assign=True)
    except InputError:  # a network whose package is missing
        raise
    except (KeyError, RuntimeError, ValueError) as error:
        raise InputError(f"{path} is a damaged localizer: {' '.join(str(error).split())[:200]}") from None
    return Trained(network.eval().requires_grad_(False), size, step, (), kind, width)
