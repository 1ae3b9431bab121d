"""What Anomaly KSampler costs beside the stock KSampler behind Set Latent Noise Mask, in ComfyUI itself.

    PYTHON benchmarks/sampler_overhead.py --out FOLDER [--checkpoint FILE | --random slim|full] [--size 512] [--batch 1]
        [--steps 10] [--rounds 5] [--cfg 7] [--dtype fp32|fp16|bf16] [--gpu]

PYTHON is ComfyUI's interpreter; ComfyUI is found through COMFYUI_PATH (default ~/comfy/ComfyUI). One process, one
model, the same CONDITIONING, noise and steps; all variants in turn in each round, so that what else runs cancels; the
ratios, of wall time and of the process's CPU time, are medians over the rounds. A context of 12 tokens (ours alone)
cannot share a batch with a negative of 77: two model calls a step at cfg > 1, with any sampler; the lines marked 12
show that cost on its own. Prints a Markdown table with the share of the time spent outside the U-Net, and the process's
peak memory; writes sampler_overhead.json.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
COMFYUI = Path(os.environ.get("COMFYUI_PATH", "~/comfy/ComfyUI")).expanduser()
PROMPT, OURS = 77, 12
"""Tokens of a prompt's context, of ours alone."""
DTYPES = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}
SHAPES = {
    "slim": {"channel_mult": [1], "num_res_blocks": [1], "transformer_depth": [1], "transformer_depth_output": [1, 1]},
    "full": {
        "channel_mult": [1, 2, 4, 4], "num_res_blocks": [2] * 4, "transformer_depth": [1] * 6 + [0, 0],
        "transformer_depth_output": [1] * 9 + [0] * 3,
    },
}  # fmt: skip
"""U-Nets with random weights: one level of SD 1.5's width, and SD 1.5's own shape."""
BASE = "stock, 77 tokens"


def start_comfyui(gpu: bool) -> dict:
    """Load ComfyUI's nodes and the pack, as its server does; returns the nodes by id."""
    sys.argv = [sys.argv[0], *([] if gpu else ["--cpu"]), "--use-pytorch-cross-attention"]
    sys.path[0] = str(COMFYUI)  # this folder's place: ComfyUI's `nodes` must be the one found
    import comfy.options

    comfy.options.enable_args_parsing()
    import utils.extra_config  # noqa: F401, I001 - first, as its main.py does: `nodes` puts another `utils` on the path
    import nodes
    from server import PromptServer

    PromptServer(asyncio.new_event_loop())  # never started; the pack's route needs one to hang on
    if not asyncio.run(nodes.load_custom_node(str(ROOT))):
        raise SystemExit(f"ComfyUI did not load the pack from {ROOT}")
    return nodes.NODE_CLASS_MAPPINGS


def load_model(chosen: argparse.Namespace):
    """Return a MODEL: of a checkpoint, or of random weights."""
    import comfy.model_management
    import comfy.model_patcher
    import comfy.sd
    import comfy.supported_models
    import torch

    dtype = getattr(torch, DTYPES[chosen.dtype])
    if chosen.checkpoint:
        return comfy.sd.load_checkpoint_guess_config(
            chosen.checkpoint, output_vae=False, output_clip=False, model_options={"dtype": dtype}
        )[0]
    shape = {"in_channels": 4, "out_channels": 4, "model_channels": 320, "context_dim": 768, "adm_in_channels": None}
    shape |= {"image_size": 32, "use_checkpoint": False, "use_spatial_transformer": True, "legacy": False}
    shape |= {"transformer_depth_middle": 1, "use_linear_in_transformer": False, **SHAPES[chosen.random]}
    config = comfy.supported_models.SD15(shape)
    config.set_inference_dtype(dtype, None)
    offload = comfy.model_management.unet_offload_device()
    model = config.get_model({}, "", device=offload)
    generator = torch.Generator().manual_seed(0)
    for name, weight in model.diffusion_model.named_parameters():
        if weight.ndim > 1:
            drawn = torch.randn(weight.shape, generator=generator) / weight[0].numel() ** 0.5
            weight.data.copy_(drawn)
        else:
            weight.data.fill_(0.0 if name.endswith("bias") else 1.0)
    device = comfy.model_management.get_torch_device()
    return comfy.model_patcher.ModelPatcher(model, load_device=device, offload_device=offload)


class Timer:
    """Seconds inside the U-Net, by a wrapper on a clone of the model; switched on for a run of its own."""

    def __init__(self, model):
        from comfy.patcher_extension import WrappersMP

        self.seconds = 0.0
        self.model = model.clone()

        def timed(executor, *args, **kwargs):
            synchronize()
            start = time.perf_counter()
            out = executor(*args, **kwargs)
            synchronize()
            self.seconds += time.perf_counter() - start
            return out

        self.model.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, "benchmark", timed)


def synchronize() -> None:
    """Wait for the device."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.synchronize()


def variants(nodes: dict, chosen: argparse.Namespace) -> dict[str, Callable]:
    """Name -> a function of a MODEL that samples once."""
    import torch

    cells = chosen.size // 8
    generator = torch.Generator().manual_seed(1)
    normal = {"samples": torch.randn(chosen.batch, 4, cells, cells, generator=generator) * 5}
    mask = torch.zeros(1, chosen.size, chosen.size)
    mask[:, chosen.size // 4 : chosen.size // 2, chosen.size // 4 : chosen.size // 2] = 1
    masked = {**normal, "noise_mask": mask[:, None]}
    context = {n: [[torch.randn(1, n, 768, generator=generator), {}]] for n in (PROMPT, OURS)}
    negative = [[torch.randn(1, PROMPT, 768, generator=generator), {}]]
    common = {"seed": 1, "steps": chosen.steps, "cfg": chosen.cfg, "sampler_name": "euler", "scheduler": "normal"}
    common |= {"negative": negative, "denoise": 1.0}

    def stock(tokens: int) -> Callable:
        node = nodes["KSampler"]()
        return lambda model: node.sample(model=model, positive=context[tokens], latent_image=masked, **common)

    def ours(tokens: int, mode: str, blending: str) -> Callable:
        node = nodes["ADiffKSampler"]
        own = {"reweighting": mode, "reweighting_strength": 1.0, "distance": "latent", "blending": f"{blending} noise"}
        given = {"positive": context[tokens], "normal": normal, "mask": mask, **common, **own}
        return lambda model: node.execute(model=model, **given)

    return {
        BASE: stock(PROMPT),
        "ours: off, fixed noise": ours(PROMPT, "off", "fixed"),
        "ours: balanced, fixed noise": ours(PROMPT, "balanced", "fixed"),
        "ours: balanced, fresh noise": ours(PROMPT, "balanced", "fresh"),
        "stock, 12 tokens": stock(OURS),
        "ours: balanced, fresh noise, 12 tokens": ours(OURS, "balanced", "fresh"),
    }


def measure(chosen: argparse.Namespace) -> dict:
    """Time every variant in every round; returns rows by name."""
    nodes = start_comfyui(chosen.gpu)
    import comfy.utils
    import torch

    comfy.utils.PROGRESS_BAR_ENABLED = False
    with torch.inference_mode():
        model = load_model(chosen)
        runs = variants(nodes, chosen)

        def seconds(run: Callable, model) -> tuple[float, float]:
            synchronize()
            start = time.perf_counter(), time.process_time()
            run(model)
            synchronize()
            return time.perf_counter() - start[0], time.process_time() - start[1]

        for run in runs.values():
            run(model)
        taken = [{name: seconds(run, model) for name, run in runs.items()} for _ in range(chosen.rounds)]
        outside = {}
        for name, run in runs.items():
            timer = Timer(model)
            whole, _ = seconds(run, timer.model)
            outside[name] = 1 - timer.seconds / whole
    return {name: _row(name, taken, outside[name], chosen) for name in runs}


def _row(name: str, taken: list[dict], outside: float, chosen: argparse.Namespace) -> dict:
    wall, cpu = ([one[name][kind] / one[BASE][kind] for one in taken] for kind in (0, 1))
    middle = statistics.median(one[name][0] for one in taken)
    return {
        "seconds_per_step": middle / chosen.steps,
        "images_x_steps_per_second": chosen.batch * chosen.steps / middle,
        "ratio": statistics.median(wall),
        "ratio_least": min(wall),
        "ratio_most": max(wall),
        "ratio_of_cpu_time": statistics.median(cpu),
        "outside_unet": outside,
    }


def table(rows: dict) -> str:
    """Return the rows as Markdown."""
    head = "| variant | s / step | images x steps / s | ratio (least - most) | of CPU time | outside the U-Net |"
    lines = [head, "|---|---|---|---|---|---|"]
    for name, row in rows.items():
        speed = f"{row['seconds_per_step']:.4f} | {row['images_x_steps_per_second']:.2f}"
        ratio = f"{row['ratio']:.3f} ({row['ratio_least']:.3f} - {row['ratio_most']:.3f})"
        rest = f"{row['ratio_of_cpu_time']:.3f} | {100 * row['outside_unet']:.1f} %"
        lines.append(f"| {name} | {speed} | {ratio} | {rest} |")
    return "\n".join(lines)


def main() -> None:
    """Measure, print, write."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--out", type=Path, required=True)
    options.add_argument("--checkpoint")
    options.add_argument("--random", choices=SHAPES, default="slim")
    options.add_argument("--size", type=int, default=512)
    options.add_argument("--batch", type=int, default=1)
    options.add_argument("--steps", type=int, default=10)
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--cfg", type=float, default=7.0)
    options.add_argument("--dtype", choices=DTYPES, default="fp32")
    options.add_argument("--gpu", action="store_true")
    chosen = options.parse_args()
    rows = measure(chosen)
    chosen.out.mkdir(parents=True, exist_ok=True)
    settings = {name: str(value) for name, value in vars(chosen).items() if name != "out"}
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    record = {"settings": settings, "rows": rows, "peak_gib": peak}
    (chosen.out / "sampler_overhead.json").write_text(json.dumps(record, indent=1))
    print(f"{table(rows)}\n\npeak memory {peak:.1f} GiB")


if __name__ == "__main__":
    main()
