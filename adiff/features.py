"""A network of the user's that describes defects in the place of the base model's VAE encoder (METHOD 6): likeness as
DINOv2, or any of torchvision's networks, sees it.

| symbol | meaning | shape |
|---|---|---|
| x | images in [-1, 1] | (B, 3, SIDE, SIDE) |
| z | the last map of the network with LEAST cells on a side or more | (B, C, h, w) |

torchvision's weights come in a file that is named after its network, as torchvision names them (resnet50-11ad3fa6.pth);
others as a folder of Hugging Face's with config.json and weights in safetensors. Nothing is downloaded or unpickled.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn

from .errors import InputError
from .storage import read_json_object
from .tensor_files import open_safetensors, read_weights, reason, sha256_of, shown

SIDE = 224
LEAST = 14
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of the inputs that torchvision's networks and DINOv2 were trained on."""
EXTRA = 8
"""Tokens, at most, that stand before those of an image's cells: class and registers."""
HEADS = ("fc.", "classifier.", "head.", "heads.", "AuxLogits.", "aux1.", "aux2.")
"""Layers of torchvision's networks behind the maps; they may be of other classes, or not there."""
CONFIG = "config.json"
LARGEST, MOST_LAYERS, LAYERS = 1 << 18, 256, ("num_hidden_layers", "num_layers", "n_layer", "depth")
"""Bounds of what a folder's config.json may tell, and where it tells the number of layers."""
MOST_MISSING = 1.5
"""Weights of a network to those in its file, at most; its pooling may be missing."""


class FeatureNetwork:
    """A frozen network that describes views of `native_size` pixels (`scoring.describe`).

    name: torchvision's, or the architecture's of a folder. sha256: of the weights' file. layer: whose map is taken.
    Raises InputError for a network that takes more than images, has no map that is fine enough, or gives no numbers.
    """

    native_size = SIDE

    def __init__(self, network: nn.Module, name: str, sha256: str, scale: tuple = (MEAN, DEVIATION)):
        self.name, self.sha256 = name, sha256
        self._network = network.eval().requires_grad_(False)
        self._mean, self._deviation = (torch.tensor(values)[:, None, None] for values in scale)
        self.layer = self._find_layer()
        network.get_submodule(self.layer).register_forward_hook(self._keep)
        if not self.encode(torch.zeros(1, 3, SIDE, SIDE)).isfinite().all():
            raise InputError(f"{self.name} gives numbers that are not finite; its weights are damaged")

    def to(self, device: torch.device) -> FeatureNetwork:
        """Move it to a device."""
        self._network.to(device)
        self._mean, self._deviation = self._mean.to(device), self._deviation.to(device)
        return self

    @torch.no_grad()
    def encode(self, images: Tensor) -> Tensor:
        """x -> z, float32."""
        self._network(((images.to(self._mean) + 1) / 2 - self._mean) / self._deviation)
        return self._z

    def record(self) -> dict[str, str]:
        """What tells the network, for a run's record."""
        return {"network": self.name, "layer": self.layer, "sha256": self.sha256}

    def _keep(self, module: nn.Module, given: Any, output: Any) -> None:
        self._z = as_map(output).float().clone()

    @torch.no_grad()
    def _find_layer(self) -> str:
        """The last layer to give a map that is fine enough, but for those inside a block that gives a coarser one."""
        layers = {name: layer for name, layer in self._network.named_modules() if name}
        fine, coarse = [], set[str]()

        def look(name: str, output: Any) -> None:
            z = as_map(output)
            if z is not None and LEAST <= z.shape[2] <= SIDE:
                fine.append(name)
            elif z is not None and isinstance(output, Tensor) and type(layers[name]) is not nn.Sequential:
                coarse.add(name)

        hooks = [layer.register_forward_hook(lambda _, given, output, name=name: look(name, output))
                 for name, layer in layers.items()]  # fmt: skip
        try:
            self._network(torch.zeros(1, 3, SIDE, SIDE))
        except Exception as error:  # whatever an architecture raises that was made for something else
            raise InputError(f"{self.name} cannot look at an image of {SIDE} pixels: {reason(error)}") from None
        finally:
            for hook in hooks:
                hook.remove()
        once = [name for name in fine if fine.count(name) == 1 and not _around(name) & coarse]
        if not once:
            raise InputError(f"{self.name} has no layer of {LEAST} x {LEAST} cells or more; give another network")
        return once[-1]


def _around(name: str) -> set[str]:
    """The names of the layers that a layer is in."""
    parts = name.split(".")
    return {".".join(parts[:depth]) for depth in range(1, len(parts))}


def as_map(output: Any) -> Tensor | None:
    """A layer's output as a map (B, C, h, w), h = w: channels first or last, or tokens; None for anything else."""
    if isinstance(output, (tuple, list)) and output:
        output = output[0]
    if not isinstance(output, Tensor) or not output.is_floating_point():
        return None
    if output.ndim == 4 and output.shape[2] == output.shape[3]:
        return output
    if output.ndim == 4 and output.shape[1] == output.shape[2]:
        return rearrange(output, "b h w c -> b c h w")
    if output.ndim == 3 and (side := math.isqrt(output.shape[1])) and (before := output.shape[1] - side**2) <= EXTRA:
        return rearrange(output[:, before:], "b (h w) c -> b c h w", h=side)
    return None


def load_features(path: Path) -> FeatureNetwork:
    """Load a network from torchvision's file of weights, or a folder of Hugging Face's.

    Raises FileNotFoundError, and InputError for a name that is no network's and for weights that are not its own.
    """
    if path.is_dir():
        return _from_folder(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no file or folder of a network at {path}")
    from torchvision import models

    named = [name for name in models.list_models(module=models) if path.name.lower().startswith(name)]
    if not named:
        raise InputError(
            f"{path.name} does not begin with the name of one of torchvision's networks, as in resnet50-11ad3fa6.pth; "
            "rename it so, or give a folder of Hugging Face's, for instance of facebook/dinov2-small"
        )
    name = max(named, key=len)
    with torch.random.fork_rng(devices=[]):
        network = models.get_model(name, weights=None)
    _fill(network, read_weights(path), f"{path} holds other weights than {name}'s, as its name says")
    return FeatureNetwork(network, name, sha256_of(path))


def _fill(network: nn.Module, state: dict[str, Tensor], fault: str) -> None:
    """Load weights, those of the heads aside; InputError for a layer that lacks its own."""
    own = {name: value for name, value in network.state_dict().items() if not name.startswith(HEADS)}
    for name, value in own.items():
        if name not in state and name.endswith("num_batches_tracked"):  # older files do without
            continue
        if name not in state or state[name].shape != value.shape:
            given = f"of the shape {tuple(state[name].shape)}" if name in state else "missing"
            raise InputError(f"{fault}: {name} is {given}, expected {tuple(value.shape)}")
    whole = network.state_dict()  # with the versions of its layers' formats
    whole.update({name: state[name] for name in own if name in state})
    network.load_state_dict(whole)


def _from_folder(path: Path) -> FeatureNetwork:
    """A network as Hugging Face's libraries save it; every weight but its pooling's has to be in the file."""
    from transformers import AutoConfig, AutoModel
    from transformers.utils import logging

    weights = path / "model.safetensors"
    if not (path / CONFIG).is_file() or not weights.is_file():
        raise InputError(f"{path} lacks {CONFIG} or {weights.name}; expected a network as Hugging Face's hub has it")
    _check_sizes(read_json_object(path / CONFIG), path)
    with open_safetensors(weights, "file of weights") as file:
        stored = sum(math.prod(file.get_slice(name).get_shape()) for name in file.keys())
    said, has_bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    logging.set_verbosity(logging.CRITICAL)  # what it warns of is refused here
    own = {"local_files_only": True, "trust_remote_code": False}
    try:
        with torch.device("meta"):
            wanted = AutoModel.from_config(AutoConfig.from_pretrained(path, **own), trust_remote_code=False)
        if sum(value.numel() for value in wanted.parameters()) > MOST_MISSING * stored:
            raise InputError(f"{weights.name} holds {stored:,} numbers, far fewer than {CONFIG} tells of")
        network, told = AutoModel.from_pretrained(path, use_safetensors=True, output_loading_info=True, **own)
    except Exception as error:  # whatever an architecture raises at a stranger's file
        raise InputError(f"{path} cannot be loaded: {reason(error)}") from None
    finally:
        logging.set_verbosity(said)
        if has_bars:  # others in this process may load models too
            logging.enable_progress_bar()
    if lacking := sorted(name for name in told["missing_keys"] if not name.startswith("pooler")):
        raise InputError(f"{weights} lacks {len(lacking)} of the network's weights, the first is {lacking[0]}")
    return FeatureNetwork(network.float(), type(network).__name__, sha256_of(weights), _scale_of(path))


def _check_sizes(told: Any, path: Path) -> None:
    """Raise InputError for a number that no network has, and that would take all time or memory to build."""
    for value in told.values() if isinstance(told, dict) else told if isinstance(told, list) else ():
        if isinstance(value, (dict, list)):
            _check_sizes(value, path)
        elif isinstance(value, int) and abs(value) > LARGEST:
            raise InputError(f"{path / CONFIG} has a number of {shown(str(value), 20)}; no network is that large")
    if isinstance(told, dict):
        layers = [told.get(name) for name in LAYERS] + (told["depths"] if isinstance(told.get("depths"), list) else [])
        if any(isinstance(value, int) and value > MOST_LAYERS for value in layers):
            raise InputError(f"{path / CONFIG} tells of more than {MOST_LAYERS} layers; no network has as many")


def _scale_of(path: Path) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and deviation of a folder's inputs; those of most, where it does not tell."""
    try:
        told = json.loads((path / "preprocessor_config.json").read_bytes())
        scale = tuple(tuple(map(float, told[name])) for name in ("image_mean", "image_std"))
    except (OSError, ValueError, LookupError, TypeError):
        return MEAN, DEVIATION
    return scale if all(len(values) == 3 for values in scale) and all(scale[1]) else (MEAN, DEVIATION)
