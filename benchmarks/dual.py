"""What a step of two branches costs beside a step of one, with both forms of SAIM, with and without BCM.

    python -m benchmarks.dual --out FOLDER [--shape wide|full] [--side 32] [--pairs 1] [--rounds 5] [--gpu]

| name | what runs | target |
|---|---|---|
| one branch | the plain model on P images | 1 |
| two branches, SAIM ... | the edited model on P images and their P parts | 2.5 full, 2.1 low |
| ... with BCM | and the plain model on their P backgrounds before | 3.6 full, 3.1 low |

Random U-Nets: one level of SD 1.5's width (wide), or SD 1.5's own shape (full), latents of `side` cells, float32, on a
GPU float16; a context of 16 tokens. All variants in turn in one process, so that what else runs cancels: medians with
(least - most) over the rounds, of wall time and of the process's own CPU time. Prints a Markdown table, with the
parameters that each has beside the model and the size of its file; writes dual.json. Memory: benchmarks.dual_memory.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import torch
from diffusers import UNet2DConditionModel

from adiff.backbone.diffusers_host import DiffusersBackbone
from adiff.backbone.loading import Parts
from adiff.dual.background import see_background
from adiff.dual.layers import DualEdit, count_weights, new_weights
from adiff.versions import versions
from benchmarks.engine import CONTEXT, alternate, ratios, show, wide_parts

TOKENS, BASE = 16, "one branch"
SAIMS, BCMS = ("full", "low", "off"), ("off", "paper")
HALF = 2
"""Bytes of a stored weight."""


def full_parts() -> Parts:
    """Return a random U-Net of SD 1.5's shape beside the autoencoder of `wide_parts`."""
    wide = wide_parts()
    unet = UNet2DConditionModel(
        sample_size=64, block_out_channels=(320, 640, 1280, 1280), layers_per_block=2, attention_head_dim=8,
        cross_attention_dim=CONTEXT,
    )  # fmt: skip
    return Parts(unet, wide.vae, wide.null_context)


def variants(backbone: DiffusersBackbone, side: int, pairs: int) -> tuple[dict[str, Callable], dict[str, dict]]:
    """Name -> one call of the model; name -> what it has beside the model."""
    rng = torch.Generator().manual_seed(0)
    z = torch.randn(2 * pairs, 4, side, side, generator=rng)
    context = torch.randn(2 * pairs, TOKENS, CONTEXT, generator=rng)
    t, rows = torch.full((2 * pairs,), 500), torch.arange(2 * pairs).view(2, pairs)

    def synchronised(work: Callable) -> Callable:
        def call() -> None:
            work()
            if backbone.device.type == "cuda":
                torch.cuda.synchronize()

        return call

    def two_branches(weights: dict, bcm: bool) -> Callable:
        def call() -> None:
            seen = see_background(backbone, z[:pairs], z[pairs:], t[:pairs]) if bcm else None
            backbone.predict_noise_edited(z, t, context, DualEdit(weights, rows, seen))

        return call

    works = {BASE: synchronised(lambda: backbone.predict_noise(z[:pairs], t[:pairs], context[:pairs]))}
    about: dict[str, dict] = {}
    for saim in SAIMS:
        for bcm in BCMS:
            weights = new_weights(backbone.attentions, rng, saim=saim, bcm=bcm)
            placed = {name: tensor.to(backbone.device, backbone.edited_dtype) for name, tensor in weights.items()}
            name = f"two branches, SAIM {saim}{'' if bcm == 'off' else ', with BCM'}"
            works[name], about[name] = synchronised(two_branches(placed, bcm != "off")), count_weights(weights)
    return works, about


def measure(chosen: argparse.Namespace) -> tuple[dict, dict]:
    """Time every variant in every round."""
    device, dtype = ("cuda", torch.float16) if chosen.gpu else ("cpu", torch.float32)
    parts = full_parts() if chosen.shape == "full" else wide_parts()
    backbone = DiffusersBackbone(chosen.shape, parts, torch.device(device), dtype)
    with torch.no_grad():
        works, about = variants(backbone, chosen.side, chosen.pairs)
        return ratios(alternate(works, chosen.rounds), BASE), about


def sizes(about: dict[str, dict]) -> str:
    """Return the numbers of parameters, in millions, and the files' sizes as Markdown."""
    lines = ["| variant | LoRA, M | SAIM, M | BCM, M | file, MB |", "|---|---|---|---|---|"]
    for name, counts in about.items():
        cells = [f"{counts[part] / 1e6:.1f}" for part in ("lora", "saim", "bcm")]
        lines.append(f"| {name} | {' | '.join(cells)} | {HALF * sum(counts.values()) / 1e6:.0f} |")
    return "\n".join(lines)


def main() -> None:
    """Measure, print, write."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--out", type=Path, required=True)
    options.add_argument("--shape", choices=("wide", "full"), default="wide")
    options.add_argument("--side", type=int, default=32)
    options.add_argument("--pairs", type=int, default=1)
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--gpu", action="store_true")
    chosen = options.parse_args()
    rows, about = measure(chosen)
    chosen.out.mkdir(parents=True, exist_ok=True)
    settings = {name: str(value) for name, value in vars(chosen).items() if name != "out"}
    record = {"settings": settings, "versions": versions(), "rows": rows, "parameters": about}
    (chosen.out / "dual.json").write_text(json.dumps(record, indent=1))
    what = f"{chosen.shape}, {chosen.pairs} pairs, {chosen.side} x {chosen.side} cells"
    print(f"{show(rows, what)}\n\n{sizes(about)}")


if __name__ == "__main__":
    main()
