"""The two branches of DualAnoDiff inside the U-Net's attentions: their own LoRAs, and SAIM between them (METHOD 4).

| symbol | meaning | shape |
|---|---|---|
| x, h | hidden states of both branches, what an attention returns for them | (2, P, N, C) |
| P, N | pairs, positions; branch 0 is the whole image, branch 1 the defect part | |
| A, B | LoRA of a projection, one of each branch | (2, r, C_in), (2, C_out, r) |
| W_i, W_o | SAIM's way in and out | (w, C), (C, w) |
| W_q, W_k, W_v | SAIM's query, key and value | (w, w) |

Weights are called "<attention>/<layer>.<part>": `middle_block.1.transformer_blocks.0.attn1/to_q.down`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ..backbone.attentions import AttentionShape, Projections
from ..errors import InputError

RANK = 32
"""r of the branches' LoRAs (DualAnoDiff, sec. 4.1)."""
SAIM_RANK = 64
"""Inner width w of SAIM's low-rank form; the full form has w = C (the release)."""
SAIM_EPS = 1e-6
"""epsilon of SAIM's LayerNorm (the release)."""
SAIM = ("full", "low", "off")
INSIDE = ("query", "key", "value")


def branch_lora(x: Tensor, down: Tensor, up: Tensor) -> Tensor:
    """B A x, each branch with its own A and B.

    x: (2, P, N, C_in). down: A, (2, r, C_in). up: B, (2, C_out, r). Returns (2, P, N, C_out), what is added to W x.
    """
    flat = x.flatten(1, 2) @ down.to(x).mT @ up.to(x).mT
    return flat.unflatten(1, x.shape[1:3])


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


class DualEdit:
    """An attention edit (`backbone.attentions.LayerEdit`) for a batch that holds pairs at known rows."""

    def __init__(self, weights: Mapping[str, Tensor], rows: Tensor | Sequence[Sequence[int]]):
        """weights: of all attentions. rows: (2, P), the batch's rows of the whole images and, in order, of their parts.

        Rows that are not named stay as they would be without the edit. Raises InputError for one that is named twice.
        """
        self.rows = torch.as_tensor(rows, dtype=torch.long)
        if self.rows.ndim != 2 or len(self.rows) != 2:
            raise InputError(f"rows of pairs are (2, pairs): whole images, then parts; got {tuple(self.rows.shape)}")
        if self.rows.unique().numel() != self.rows.numel() or int(self.rows.min()) < 0:
            raise InputError("a row belongs to two branches or pairs; give every row of a pair its own number")
        self.last = int(self.rows.max())
        self.layers: dict[str, dict[str, Tensor]] = {}
        for name, tensor in weights.items():
            layer, part = name.split("/")
            self.layers.setdefault(layer, {})[part] = tensor

    def __call__(self, name: str, parts: Projections, hidden: Tensor, context: Tensor) -> Tensor:
        """Do one attention of the whole batch: hidden (B, N, C), context (B, T, D) -> (B, N, C)."""
        if name not in self.layers:
            raise InputError(f"the dual model has no weights for the attention {name}; use the base it was learned on")
        own, rows = self.layers[name], self.rows.to(hidden.device)
        if self.last >= len(hidden):
            raise InputError(f"pairs at rows up to {self.last} of a batch of {len(hidden)}; give all rows")
        flat = rows.flatten()

        def project(layer: str, x: Tensor, of_pairs: Tensor) -> Tensor:
            added = branch_lora(of_pairs, own[f"{layer}.down"], own[f"{layer}.up"])
            return getattr(parts, layer)(x).index_add(0, flat, added.flatten(0, 1))

        x = hidden[rows]
        c = x if context is hidden else context[rows]
        out = parts.attend(project("to_q", hidden, x), project("to_k", context, c), project("to_v", context, c))
        h = project("to_out", out, out[rows])
        if "norm.weight" not in own:
            return h
        return h.index_copy(0, flat, share(h[rows], own).flatten(0, 1))


def new_weights(
    shapes: Mapping[str, AttentionShape], generator: torch.Generator, rank: int = RANK, saim: str = "full",
    saim_rank: int = SAIM_RANK,
) -> dict[str, Tensor]:  # fmt: skip
    """Weights to begin with: random ways in, zero ways out, so that both branches are the unedited model's.

    saim: `full` (C x C matrices, the release), `low` (through `saim_rank` channels) or `off`. float32 on the CPU.
    """
    weights: dict[str, Tensor] = {}
    for name, shape in shapes.items():
        inner = {"full": shape.width, "low": min(saim_rank, shape.width), "off": 0}[saim]
        for part, size in _sizes(shape, rank, inner).items():
            weights[f"{name}/{part}"] = _start(part, size, inner if part.startswith(INSIDE) else shape.width, generator)
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


def _start(part: str, size: tuple[int, ...], inside: int, generator: torch.Generator) -> Tensor:
    """What a weight begins with; inside: channels that go into its layer."""
    if part == "norm.weight":
        return torch.ones(size)
    if part.endswith(".up") or part.startswith(("norm", "out")):
        return torch.zeros(size)
    if part.endswith(".down"):
        return torch.randn(size, generator=generator) / size[1]  # as diffusers' own LoRA layers
    return (2 * torch.rand(size, generator=generator) - 1) * inside**-0.5  # torch's own linear layers


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
    for name, own in found.items():
        rank, inner = (*own.get("to_q.down", ()), 0, 0)[1], (*own.get("in.weight", ()), 0)[0]
        due = _sizes(shapes[name], rank, inner)
        wrong = sorted(part for part in due.keys() | own.keys() if due.get(part) != own.get(part))
        if wrong:
            raise InputError(
                f"the dual model's {name}/{wrong[0]} is {own.get(wrong[0])}, the base model asks for "
                f"{due.get(wrong[0])}; use the base model it was learned on"
            )


def count_weights(weights: Mapping[str, Tensor]) -> dict[str, int]:
    """Numbers of parameters: of the LoRAs and of SAIM."""
    lora = sum(tensor.numel() for name, tensor in weights.items() if name.endswith((".down", ".up")))
    return {"lora": lora, "saim": sum(tensor.numel() for tensor in weights.values()) - lora}
