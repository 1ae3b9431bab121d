"""torchvision's ResNet-34 (He et al., CVPR 2016) from a user's file, or random: nothing is downloaded."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from einops import rearrange
from torch import Tensor, nn

from ..errors import InputError
from ..features import DEVIATION, MEAN
from ..generation.seeds import derived_seed
from ..tensor_files import read_weights

LAST = "fc."


def build_network(classes: int, weights: Path | None, seed: int) -> nn.Module:
    """A ResNet-34 for so many classes: random, or with a file's weights but for the last layer.

    Raises InputError for a file that is no such network's.
    """
    from torchvision.models import resnet34

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derived_seed(seed, "classifier"))
        network = resnet34(weights=None, num_classes=classes)
    if weights is not None:
        state = _read(weights)
        network.load_state_dict({n: t for n, t in state.items() if not n.startswith(LAST)}, strict=False)
    return network


def load_network(weights: Path) -> nn.Module:
    """The ResNet-34 of a file with the classes it has, for looking only; InputError as `build_network`."""
    from torchvision.models import resnet34

    state = _read(weights)
    if f"{LAST}weight" not in state or f"{LAST}bias" not in state:
        raise InputError(f"{weights} has no last layer, which tells the classes; give a whole resnet34")
    with torch.device("meta"):
        network = resnet34(weights=None, num_classes=len(state[f"{LAST}bias"]))
    network.load_state_dict(state, assign=True)
    return network.eval().requires_grad_(False)


def _read(weights: Path) -> dict[str, Tensor]:
    """A file's weights, checked against the network's names and shapes, the last layer's aside."""
    from torchvision.models import resnet34

    state = read_weights(weights)
    with torch.device("meta"):
        own = resnet34(weights=None).state_dict()
    shapes, due = ({n: t.shape for n, t in table.items() if not n.startswith(LAST)} for table in (state, own))
    if shapes != due:
        raise InputError(f"{weights} holds no ResNet-34 as torchvision names its weights; give resnet34's file")
    return state


def as_input(images: np.ndarray, device: torch.device) -> Tensor:
    """(n, S, S, 3) uint8 -> (n, 3, S, S) on the device, normalised as torchvision's."""
    x = rearrange(torch.from_numpy(np.ascontiguousarray(images)).to(device), "n h w c -> n c h w").float() / 255
    mean, deviation = (torch.tensor(values, device=device)[:, None, None] for values in (MEAN, DEVIATION))
    return (x - mean) / deviation
