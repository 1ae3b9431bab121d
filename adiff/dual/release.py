"""The authors' checkpoints: a diffusers LoRA folder with SAIM's weights, as what a training begins with.

| theirs, behind <attention>.processor. | ours, behind <attention>/ |
|---|---|
| to_q_lora.0.down.weight, to_q_lora.1.down.weight (and up, to_k, to_v, to_out) | to_q.down: branch 0, branch 1 |
| temporal_n, temporal_i, temporal_q, temporal_k, temporal_v, temporal_o | norm, in, query, key, value, out |

Their conditions are prompts, tuned with the text encoder; ours are learned tokens. So the tokens, and the text
encoder's own LoRA, do not come along: a short training learns the tokens anew.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from ..backbone.attentions import AttentionShape
from ..backbone.layout import UNET, unet_names
from ..backbone.weights import open_weights
from ..errors import InputError
from .layers import check_weights

log = logging.getLogger("adiff")
FILES = ("pytorch_lora_weights.safetensors", "pytorch_lora_weights.bin")
LORA = re.compile(r"(?:unet\.)?(.+)\.processor\.(to_q|to_k|to_v|to_out)_lora\.([01])\.(down|up)\.weight")
SAIM = re.compile(r"(?:unet\.)?(.+)\.processor\.temporal_([niqkvo])\.(weight|bias)")
NAMES = {"n": "norm", "i": "in", "q": "query", "k": "key", "v": "value", "o": "out"}
TEXT = "text_encoder."
QUERY = ".to_q.weight"
MOST_LAYERS = 4
"""Resnets of a level of any U-Net of the family, at most."""


def read_release(path: Path, shapes: Mapping[str, AttentionShape]) -> dict[str, Tensor]:
    """Return the weights of a release checkpoint, float32, for a model with these attentions.

    path: the folder, or the file in it. What has no place here is left out, with a word on what and why.
    Raises FileNotFoundError, and InputError for another kind of file and for one of another base model.
    """
    file = next((path / name for name in FILES if (path / name).is_file()), path)
    if not file.is_file():
        raise FileNotFoundError(f"there is no release checkpoint at {path}; give a folder with {FILES[0]}")
    halves: dict[tuple[str, str, str], dict[int, Tensor]] = {}
    found: dict[str, Tensor] = {}
    left: list[str] = []
    with open_weights(file) as weights:
        for key in weights.shapes:
            if match := LORA.fullmatch(key):
                halves.setdefault((match[1], match[2], match[4]), {})[int(match[3])] = weights.read(key).float()
            elif match := SAIM.fullmatch(key):
                found[f"{match[1]}/{NAMES[match[2]]}.{match[3]}"] = weights.read(key).float()
            else:
                left.append(key)
    if not halves:
        raise InputError(
            f"{file} holds no LoRA of two branches (<attention>.processor.to_q_lora.0...); give what the authors' "
            "training wrote"
        )
    for (place, layer, factor), pair in halves.items():
        if pair.keys() != {0, 1} or pair[0].shape != pair[1].shape:
            raise InputError(f"{file}: {place}.{layer}_lora.{factor} has not two branches of one shape; it is damaged")
        found[f"{place}/{layer}.{factor}"] = torch.stack([pair[0], pair[1]])
    _tell(file.name, left)
    ours = _renamed(found, shapes)
    check_weights(ours, shapes)
    return ours


def _tell(name: str, left: list[str]) -> None:
    """Say what is left out."""
    text = [key for key in left if key.startswith(TEXT)]
    other = sorted(set(left) - set(text))
    if text:
        log.warning("%s: its %d tensors for the text encoder are left out: tokens are learned here", name, len(text))
    if other:
        log.warning("%s: %d tensors have no place here and are left out: %s", name, len(other), ", ".join(other[:5]))


def _renamed(found: Mapping[str, Tensor], shapes: Mapping[str, AttentionShape]) -> dict[str, Tensor]:
    """The weights under the attentions' single-file names."""
    places = sorted({name.partition("/")[0] for name in found})
    for layers in range(1, MOST_LAYERS + 1):
        try:
            table = unet_names([place + QUERY for place in places], layers)
        except InputError:  # no name of a U-Net's
            break
        names = {place: table[place + QUERY].removeprefix(UNET).removesuffix(QUERY) for place in places}
        if set(names.values()) == set(shapes):
            return {f"{names[place]}/{part}": tensor for (place, _, part), tensor in
                    ((name.partition("/"), tensor) for name, tensor in found.items())}  # fmt: skip
    raise InputError(
        f"the release checkpoint has weights for {len(places)} attentions, the first {places[0]}, which are not the "
        f"{len(shapes)} of this base model; give the base model that it was trained on (SD 1.5)"
    )
