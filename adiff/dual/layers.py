"""The two branches of DualAnoDiff inside the U-Net's attentions: their own LoRAs, SAIM between them, BCM (METHOD 4).

| symbol | meaning | shape |
|---|---|---|
| x, h | hidden states of both branches, what an attention returns for them | (2, P, N, C) |
| P, N | pairs, positions; branch 0 is the whole image, branch 1 the defect part | |
| A, B | LoRA of a projection, one of each branch | (2, r, C_in), (2, C_out, r) |
| W_i, W_o | SAIM's way in and out | (w, C), (C, w) |
| W_q, W_k, W_v | SAIM's query, key and value | (w, w) |
| h_bg | hidden states of the background's own pass, where h is the whole image's | (P, N, C) |
| gamma, a | BCM's share of the background: the paper's, the release's | (1,) |

Weights are called "<attention>/<layer>.<part>": `middle_block.1.transformer_blocks.0.attn1/to_q.down`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from ..backbone.attentions import AttentionShape
from ..errors import InputError

RANK = 32
"""r of the branches' LoRAs (DualAnoDiff, sec. 4.1)."""
SAIM_RANK = 64
"""Inner width w of SAIM's low-rank form; the full form has w = C (the release)."""
SAIM_EPS = 1e-6
"""epsilon of SAIM's LayerNorm (the release)."""
SAIM = ("full", "low", "off")
INSIDE = ("query", "key", "value")
BCM = ("off", "paper", "release")
BCM_WIDTH = 320
"""Inner width of BCM's MLP, which has no activation between its two layers (the release; the paper does not say)."""
BCM_SHARE = {"paper": ("gamma", 0.1), "release": ("alpha", 0.0)}
"""What BCM's share of the background is called in the weights, and what it begins with."""
SELF = "attn1"
"""End of the names of the self-attentions, whose keys and values BCM changes."""


def batch_of(x: Tensor) -> Tensor:
    """Both branches of each pair as one batch, wholes first: (2, P, ...) -> (2 P, ...)."""
    return rearrange(x, "branch pair ... -> (branch pair) ...")


def branches_of(x: Tensor) -> Tensor:
    """A batch of wholes, then parts, by branch: (2 P, ...) -> (2, P, ...)."""
    return rearrange(x, "(branch pair) ... -> branch pair ...", branch=2)


def branch_lora(x: Tensor, down: Tensor, up: Tensor) -> Tensor:
    """B A x, each branch with its own A and B.

    x: (2, P, N, C_in). down: A, (2, r, C_in). up: B, (2, C_out, r). Returns (2, P, N, C_out), what is added to W x.
    """
    added = rearrange(x, "branch p n c -> branch (p n) c") @ down.to(x).mT @ up.to(x).mT
    return rearrange(added, "branch (p n) c -> branch p n c", p=x.shape[1])


def share(h: Tensor, weights: Mapping[str, Tensor]) -> Tensor:
    """SAIM: h + W_o attention(W_i LayerNorm(h)), where a position attends to itself and to the other branch's.

    Over two elements a, b the softmax is a sigmoid: p_a = sigmoid(q_a (k_a - k_b) / sqrt(w)), p_a v_a + (1 - p_a) v_b.
    h: (2, P, N, C). weights: of the layers norm, in, query, key, value, out. Returns (2, P, N, C).
    """

    def linear(name: str, x: Tensor) -> Tensor:
        return F.linear(x, weights[f"{name}.weight"].to(x), weights[f"{name}.bias"].to(x))

    x = F.layer_norm(h, h.shape[-1:], weights["norm.weight"].to(h), weights["norm.bias"].to(h), SAIM_EPS)
    x = linear("in", x)
    query, key, value = (linear(name, x) for name in INSIDE)
    # the product of a float16 query and key may leave that format's range
    logit = (query.float() * (key - key.flip(0)).float()).sum(-1, keepdim=True) * x.shape[-1] ** -0.5
    own = logit.sigmoid().to(x)
    return h + linear("out", own * value + (1 - own) * value.flip(0))


def with_background(h: Tensor, background: Tensor, weights: Mapping[str, Tensor]) -> Tensor:
    """BCM: h + gamma MLP(h_bg) (the paper), or (1 - a) h + a MLP(h_bg) (the release), for keys and values.

    h, background: (P, N, C), of the whole images. weights: of the layers bcm.in and bcm.out, and bcm.gamma or
    bcm.alpha, which says which of the two it is. Returns (P, N, C).
    """
    x = background.to(h)
    for layer in ("bcm.in", "bcm.out"):
        x = F.linear(x, weights[f"{layer}.weight"].to(h), weights[f"{layer}.bias"].to(h))
    if "bcm.gamma" in weights:
        return h + weights["bcm.gamma"].to(h) * x
    share = weights["bcm.alpha"].to(h)
    return (1 - share) * h + share * x


class DualEdit:
    """An attention edit (`backbone.attentions.LayerEdit`) for a batch that holds pairs at known rows."""

    def __init__(
        self, weights: Mapping[str, Tensor], rows: Tensor | Sequence[Sequence[int]],
        background: Mapping[str, Tensor] | None = None,
    ):  # fmt: skip
        """weights: of all attentions. rows: (2, P), the batch's rows of the whole images and, in order, of their parts.

        background: of BCM, what `BackgroundPass` saw in each self-attention, (P, N, C) in the order of the rows.
        Rows that are not named stay as they would be without the edit. Raises InputError for one that is named twice,
        and for BCM without a background.
        """
        self.rows = torch.as_tensor(rows, dtype=torch.long)
        if self.rows.ndim != 2 or len(self.rows) != 2:
            raise InputError(f"rows of pairs are (2, pairs): whole images, then parts; got {tuple(self.rows.shape)}")
        if self.rows.unique().numel() != self.rows.numel() or int(self.rows.min()) < 0:
            raise InputError("a row belongs to two branches or pairs; give every row of a pair its own number")
        if background is None and bcm_of(weights) != "off":
            raise InputError("the dual model was learned with BCM and got no background; give one for each pair")
        self.background = background or {}
        self.last, count = int(self.rows.max()), self.rows.numel()
        self._in_order = self.rows.flatten().tolist() == list(range(count))
        self._layers: dict[str, dict[str, Tensor]] = {}
        for name, tensor in weights.items():
            layer, part = name.split("/")
            self._layers.setdefault(layer, {})[part] = tensor

    def sources(self, name: str, hidden: Tensor, context: Tensor) -> Tensor:
        """Keys and values of the whole images see their background, in self-attention (BCM)."""
        own = self._own(name, len(hidden))
        if "bcm.in.weight" not in own:
            return context
        rows = self.rows[0]
        return context.index_copy(0, rows, with_background(context[rows], self.background[name], own))

    def project(self, name: str, layer: str, x: Tensor, plain: Tensor) -> Tensor:
        """Each branch adds its own LoRA."""
        own = self._own(name, len(x))
        added = batch_of(branch_lora(self._pairs(x), own[f"{layer}.down"], own[f"{layer}.up"]))
        if len(added) == len(plain) and self._in_order:
            return plain + added
        return plain.index_add(0, self.rows.flatten(), added)

    def result(self, name: str, hidden: Tensor) -> Tensor:
        """The branches exchange what they have (SAIM)."""
        own = self._own(name, len(hidden))
        if "norm.weight" not in own:
            return hidden
        shared = batch_of(share(self._pairs(hidden), own))
        if len(shared) == len(hidden) and self._in_order:
            return shared
        return hidden.index_copy(0, self.rows.flatten(), shared)

    def _pairs(self, x: Tensor) -> Tensor:
        """The pairs' rows of (B, ...) as (2, P, ...)."""
        if self._in_order and len(x) == self.rows.numel():
            return branches_of(x)
        return x[self.rows]

    def _own(self, name: str, batch: int) -> dict[str, Tensor]:
        """The weights of one attention."""
        if name not in self._layers:
            raise InputError(f"the dual model has no weights for the attention {name}; use the base it was learned on")
        if self.last >= batch:
            raise InputError(f"pairs at rows up to {self.last} of a batch of {batch}; give all rows")
        own = self._layers[name]
        device = next(iter(own.values())).device
        if self.rows.device != device:  # once: the rows come along with the weights
            self.rows = self.rows.to(device)
        return own


class BackgroundPass:
    """An edit that changes nothing and keeps what goes into each self-attention, (B, N, C) by name: h_bg of BCM."""

    def __init__(self) -> None:
        self.seen: dict[str, Tensor] = {}

    def sources(self, name: str, hidden: Tensor, context: Tensor) -> Tensor:
        """Keep it."""
        if name.endswith(SELF):
            self.seen[name] = hidden
        return context

    def project(self, name: str, layer: str, x: Tensor, plain: Tensor) -> Tensor:
        """As the model gives it."""
        return plain

    def result(self, name: str, hidden: Tensor) -> Tensor:
        """As it is."""
        return hidden


def new_weights(
    shapes: Mapping[str, AttentionShape], generator: torch.Generator, rank: int = RANK, saim: str = "full",
    saim_rank: int = SAIM_RANK, bcm: str = "off",
) -> dict[str, Tensor]:  # fmt: skip
    """Weights to begin with: random ways in, zero ways out, so that both branches are the unedited model's.

    saim: `full` (C x C matrices, the release), `low` (through `saim_rank` channels) or `off`. bcm: `paper`, `release`
    or `off`. float32 on the CPU; the same whatever the order in which a host lists its attentions.
    """
    weights: dict[str, Tensor] = {}
    shapes = dict(sorted(shapes.items()))
    for name, shape in shapes.items():
        inner = {"full": shape.width, "low": min(saim_rank, shape.width), "off": 0}[saim]
        for part, size in _sizes(shape, rank, inner).items():
            weights[f"{name}/{part}"] = _start(part, size, inner if part.startswith(INSIDE) else shape.width, generator)
    for name, shape in shapes.items() if bcm != "off" else ():
        if name.endswith(SELF):
            for part, size in _bcm_sizes(shape, BCM_WIDTH, bcm).items():
                weights[f"{name}/{part}"] = _start_bcm(part, size, bcm, shape.width, generator)
    return weights


def _sizes(shape: AttentionShape, rank: int, inner: int) -> dict[str, tuple[int, ...]]:
    """The shape of each weight of one attention; inner: SAIM's width, 0 without it."""
    within = shape.context, shape.inner
    ends = {"to_q": (shape.width, shape.inner), "to_k": within, "to_v": within, "to_out": (shape.inner, shape.width)}
    sizes: dict[str, tuple[int, ...]] = {}
    for layer, (inside, outside) in ends.items():
        sizes |= {f"{layer}.down": (2, rank, inside), f"{layer}.up": (2, outside, rank)}
    if not inner:
        return sizes
    sizes |= {"norm.weight": (shape.width,), "norm.bias": (shape.width,)}
    layers = {"in": (inner, shape.width), **dict.fromkeys(INSIDE, (inner, inner)), "out": (shape.width, inner)}
    for layer, size in layers.items():
        sizes |= {f"{layer}.weight": size, f"{layer}.bias": size[:1]}
    return sizes


def _bcm_sizes(shape: AttentionShape, width: int, bcm: str) -> dict[str, tuple[int, ...]]:
    """The shape of each weight of one self-attention's BCM."""
    inside, outside = (width, shape.width), (shape.width, width)
    return {
        "bcm.in.weight": inside, "bcm.in.bias": inside[:1], "bcm.out.weight": outside, "bcm.out.bias": outside[:1],
        f"bcm.{BCM_SHARE[bcm][0]}": (1,),
    }  # fmt: skip


def _start(part: str, size: tuple[int, ...], inside: int, generator: torch.Generator) -> Tensor:
    """What a weight begins with; inside: channels that go into its layer."""
    if part == "norm.weight":
        return torch.ones(size)
    if part.endswith(".up") or part.startswith(("norm", "out")):
        return torch.zeros(size)
    if part.endswith(".down"):
        return torch.randn(size, generator=generator) / size[1]  # as diffusers' own LoRA layers
    return _linear(size, inside, generator)


def _start_bcm(part: str, size: tuple[int, ...], bcm: str, width: int, generator: torch.Generator) -> Tensor:
    """What a weight of BCM begins with; width: C. The paper's share is not 0, so there the MLP ends in zeros."""
    if size == (1,):
        return torch.full(size, BCM_SHARE[bcm][1])
    if bcm == "paper" and part.startswith("bcm.out"):
        return torch.zeros(size)
    return _linear(size, width if part.startswith("bcm.in") else BCM_WIDTH, generator)


def _linear(size: tuple[int, ...], inside: int, generator: torch.Generator) -> Tensor:
    return (2 * torch.rand(size, generator=generator) - 1) * inside**-0.5  # torch's own linear layers


def bcm_of(weights: Mapping[str, Tensor]) -> str:
    """Return which BCM the weights have: `paper`, `release` or `off`."""
    parts = {name.partition("/")[2] for name in weights}
    return next((kind for kind, (share, _) in BCM_SHARE.items() if f"bcm.{share}" in parts), "off")


def check_weights(weights: Mapping[str, Tensor], shapes: Mapping[str, AttentionShape]) -> None:
    """Raise InputError unless the weights are those of a model with these attentions."""
    found: dict[str, dict[str, tuple[int, ...]]] = {}
    for full, tensor in weights.items():
        name, _, part = full.partition("/")
        found.setdefault(name, {})[part] = tuple(tensor.shape)
    if found.keys() != shapes.keys():
        lacking, more = sorted(shapes.keys() - found.keys()), sorted(found.keys() - shapes.keys())
        what = f"has none for {lacking[0]}" if lacking else f"has some for {more[0]}, which is not there"
        raise InputError(f"the dual model was learned on another base model: it {what}; use that base model")
    bcm = bcm_of(weights)
    for name, own in found.items():
        rank, inner = (*own.get("to_q.down", ()), 0, 0)[1], (*own.get("in.weight", ()), 0)[0]
        due = _sizes(shapes[name], rank, inner)
        if bcm != "off" and name.endswith(SELF):
            due |= _bcm_sizes(shapes[name], (*own.get("bcm.in.weight", ()), 0)[0], bcm)
        wrong = sorted(part for part in due.keys() | own.keys() if due.get(part) != own.get(part))
        if wrong:
            raise InputError(
                f"the dual model's {name}/{wrong[0]} is {own.get(wrong[0])}, the base model asks for "
                f"{due.get(wrong[0])}; use the base model it was learned on"
            )


def count_weights(weights: Mapping[str, Tensor]) -> dict[str, int]:
    """Numbers of parameters: of the LoRAs, of SAIM and of BCM."""
    lora = sum(tensor.numel() for name, tensor in weights.items() if name.endswith((".down", ".up")))
    bcm = sum(tensor.numel() for name, tensor in weights.items() if "/bcm." in name)
    return {"lora": lora, "saim": sum(tensor.numel() for tensor in weights.values()) - lora - bcm, "bcm": bcm}
