"""A dual model as one safetensors file: the branches' LoRAs, SAIM, the learned tokens and what they were learned from.

| tensor | holds | shape |
|---|---|---|
| <attention>/<layer>.<part> | weights of one attention (`dual.layers`) | float16 |
| tokens/object, tokens/defect | the learned token groups of the conditions (`nested_contexts`) | (k, D) float32 |
| shots | the shots' masks at the base model's size, 8 pixels a byte | (n, S, ceil(S / 8)) uint8 |
| likeness | the shots' descriptors (`scoring.describe`) | (n, F) float32 |
| backgrounds | of a model with BCM: latents of the shots' backgrounds | (n, 4, h, w) float16 |
| prompts | of a model learned with prompts: their contexts, of the whole and of the part | (2, T, D) float32 |

Everything else is JSON in the metadata: format, names, base model and the record of the training.

For SD 1.5 (32 attentions) the LoRAs of both branches have 12.8 M parameters, SAIM 124.1 M in full and 3.7 M through 64
channels, BCM 8.0 M; a file is twice that in bytes: 26 MB without SAIM, 33 MB with the low-rank one, 274 MB with the
full one, and 16 MB more with BCM.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor

from ..backbone.attentions import EditableBackbone
from ..errors import InputError
from ..library import check_name, pack_masks
from ..storage import write_whole
from ..tensor_files import open_safetensors, tensors_of
from .layers import bcm_of, check_weights

logger = logging.getLogger("adiff")

FORMAT = 1
KIND = "dual"
OBJECT, DEFECT = "tokens/object", "tokens/defect"
BACKGROUNDS, PROMPTS = "backgrounds", "prompts"


@dataclass(frozen=True)
class DualModel:
    """One defect type of one product, learned on one base model.

    weights: of all attentions (`dual.layers`), float32. object_tokens, defect_tokens: (k, D), the
    object's (2 k, D) where the conditions are not nested. shot_masks: (n, S, S) bool. likeness: (n, F) float32. info:
    anything JSON can hold (shots, settings, steps, loss, seed, versions). backgrounds: with BCM, what surrounds the
    object in each shot, latents (n, 4, h, w). prompts: contexts in front of the tokens, (2, T, D), or None.
    """

    product: str
    defect: str
    weights: dict[str, Tensor]
    object_tokens: Tensor
    defect_tokens: Tensor
    shot_masks: np.ndarray
    likeness: Tensor
    base_fingerprint: str
    base_name: str
    info: dict[str, Any] = field(default_factory=dict)
    backgrounds: Tensor | None = None
    prompts: Tensor | None = None

    @property
    def size(self) -> int:
        """Side of the square that was learned on and is sampled at, pixels."""
        return self.shot_masks.shape[-1]

    @property
    def bcm(self) -> str:
        """`paper`, `release` or `off`."""
        return bcm_of(self.weights)

    @property
    def name(self) -> str:
        return f"{self.product}/{self.defect}"

    @property
    def context_dim(self) -> int:
        return self.object_tokens.shape[1]


def nested_contexts(
    object_tokens: Tensor, defect_tokens: Tensor, pairs: int, prompts: Tensor | None = None
) -> Tensor:
    """The nested conditions: [object][defect] for the wholes, then [defect] for the parts, (2 P, 2 k, D).

    Both have to be of one length to stand in one batch. Attention does not see how often all tokens are repeated, so
    [defect][defect] is [defect] exactly, without any padding. Conditions that are not nested share no token: the wholes
    have the object's group alone, which is then twice as long. prompts: texts of the whole and of the part as contexts
    (2, T, D), which stand in front of the tokens: (2 P, T + 2 k, D).
    """
    nested = len(object_tokens) == len(defect_tokens)
    whole = torch.cat([object_tokens, defect_tokens]) if nested else object_tokens
    part = torch.cat([defect_tokens, defect_tokens])
    both = torch.stack([whole, part])
    if prompts is not None:
        both = torch.cat([prompts.to(both), both], dim=1)
    return both.repeat_interleave(pairs, dim=0)


def check_prompts(prompts: Tensor, width: int) -> None:
    """Raise InputError unless prompts are two contexts (2, T, width) of one length."""
    if prompts.ndim != 3 or len(prompts) != 2 or not prompts.shape[1] or prompts.shape[2] != width:
        raise InputError(f"the prompts are contexts of the shape {tuple(prompts.shape)}; give (2, tokens, {width})")


def fingerprint(model: DualModel) -> str:
    """sha256 over names and values of all but the shots: the same before saving and after loading."""
    digest = hashlib.sha256()
    for name, tensor in sorted(_stored(model).items()):
        digest.update(f"{name}{tuple(tensor.shape)}".encode())
        digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()


def check_base(model: DualModel, base: EditableBackbone) -> None:
    """Make sure that a dual model fits a base model: InputError for other widths, a warning for other weights."""
    if model.context_dim != base.context_dim:
        raise InputError(
            f"the dual model was learned on base {model.base_name!r} with context width {model.context_dim}, but base "
            f"{base.name!r} has width {base.context_dim}; use the base it was learned on"
        )
    check_weights(model.weights, base.attentions)
    if model.base_fingerprint != base.fingerprint:
        logger.warning(
            "the dual model was learned on base %r (%.8s), not on %r (%.8s): pairs may look different",
            model.base_name, model.base_fingerprint, base.name, base.fingerprint,
        )  # fmt: skip


def save_dual(path: str | Path, model: DualModel) -> None:
    """Write a dual model, its weights as float16, atomically.

    Raises InputError for names that check_name refuses and values that are not finite.
    """
    check_name(model.product, "product")
    check_name(model.defect, "defect")
    metadata = {
        "adiff_format": str(FORMAT), "kind": KIND, "product": model.product, "defect": model.defect,
        "base_name": model.base_name, "base_fingerprint": model.base_fingerprint,
        "shot_size": str(model.shot_masks.shape[-1]), "info": json.dumps(model.info, ensure_ascii=False),
    }  # fmt: skip
    tensors = _stored(model) | {
        "shots": pack_masks(model.shot_masks),
        "likeness": model.likeness.detach().to("cpu", torch.float32).contiguous(),
    }
    content = save(tensors, metadata)
    write_whole(path, lambda temporary: temporary.write_bytes(content))


def load_dual(path: str | Path) -> DualModel:
    """Read what save_dual wrote, float32 on the CPU.

    Raises FileNotFoundError, and InputError for a damaged file, another kind of file or a newer format.
    """
    path = Path(path)
    with open_safetensors(path, "dual model") as file:
        metadata = file.metadata() or {}
        if metadata.get("kind") != KIND:
            what = metadata.get("kind", "another program")[:40]
            raise InputError(f"{path} is a file of {what}, no dual model; give one that `adiff train-dual` wrote")
        if metadata.get("adiff_format") != str(FORMAT):
            version = metadata.get("adiff_format", "")[:40]
            raise InputError(f"{path} has format {version!r}, this version reads format {FORMAT}; update adiff")
        tensors = tensors_of(file)
    try:
        return _rebuild(metadata, tensors)
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        told = " ".join(str(error).split())[:200]
        raise InputError(f"{path} is a damaged dual model ({told}); copy or download it again") from error


def _rebuild(metadata: Mapping[str, str], tensors: dict[str, Tensor]) -> DualModel:
    size, packed = int(metadata["shot_size"]), tensors.pop("shots")
    if packed.ndim != 3 or packed.dtype != torch.uint8 or packed.shape[1:] != (size, -(-size // 8)):
        raise ValueError(f"shots of size {size} are stored in shape {tuple(packed.shape)}")
    likeness, ours, theirs = (tensors.pop(name).float() for name in ("likeness", OBJECT, DEFECT))
    if theirs.ndim != 2 or ours.shape not in (theirs.shape, (2 * len(theirs), theirs.shape[1])):
        raise ValueError(f"token groups of the shapes {tuple(ours.shape)} and {tuple(theirs.shape)}")
    prompts, backgrounds = tensors.pop(PROMPTS, None), tensors.pop(BACKGROUNDS, None)
    if prompts is not None:
        check_prompts(prompts, theirs.shape[1])
    if (backgrounds is None) != (bcm_of(tensors) == "off"):
        raise ValueError(f"BCM {bcm_of(tensors)} {'without' if backgrounds is None else 'with'} backgrounds")
    if backgrounds is not None and (backgrounds.ndim != 4 or not len(backgrounds)):
        raise ValueError(f"backgrounds of the shape {tuple(backgrounds.shape)}")
    return DualModel(
        product=check_name(metadata["product"], "product"), defect=check_name(metadata["defect"], "defect"),
        weights={name: tensor.float() for name, tensor in tensors.items()}, object_tokens=ours, defect_tokens=theirs,
        shot_masks=np.unpackbits(packed.numpy(), axis=-1, count=size).astype(bool), likeness=likeness,
        base_fingerprint=metadata["base_fingerprint"], base_name=metadata["base_name"],
        info=json.loads(metadata["info"]), backgrounds=None if backgrounds is None else backgrounds.float(),
        prompts=None if prompts is None else prompts.float(),
    )  # fmt: skip


def _stored(model: DualModel) -> dict[str, Tensor]:
    """All but the shots as it is stored, on the CPU; InputError if something is not finite there."""
    stored = {name: tensor.detach().to("cpu", torch.float16).contiguous() for name, tensor in model.weights.items()}
    for name, tokens in ((OBJECT, model.object_tokens), (DEFECT, model.defect_tokens), (PROMPTS, model.prompts)):
        if tokens is not None:
            stored[name] = tokens.detach().to("cpu", torch.float32).contiguous()
    if model.backgrounds is not None:
        stored[BACKGROUNDS] = model.backgrounds.detach().to("cpu", torch.float16).contiguous()
    lost = [name for name, tensor in stored.items() if not tensor.isfinite().all()]
    if lost:
        raise InputError(f"weights beyond float16 or not finite: {', '.join(lost[:3])}; the training diverged")
    return stored
