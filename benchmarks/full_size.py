"""Time and memory of a model of SD 1.5's full size: load, null context, a training step, a generation step at 512 px.

    python -m benchmarks.full_size --work FOLDER --out FILE.json [--precisions float32 bfloat16] [--steps 2]

Makes a checkpoint of random weights in float16 with SD 1.5's architecture (U-Net of 860 M parameters, VAE, text
encoder; 2.1 GB in --work, made once). Each precision is measured in a process of its own: seconds, and the largest
resident memory up to the end of each phase (on a GPU, `--device cuda`, also that of the device). A training step learns
e_a and a full-size spatial encoder from one view; a generation step is one of guidance 2 with balanced re-weighting for
one image. Prints a Markdown table and writes JSON.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import resource
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch

SIZE, SEED = 512, 0
UNET = {"sample_size": 64, "cross_attention_dim": 768, "attention_head_dim": 8,
        "block_out_channels": (320, 640, 1280, 1280)}  # fmt: skip
VAE = {"block_out_channels": (128, 256, 512, 512), "latent_channels": 4, "layers_per_block": 2,
       "down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4}  # fmt: skip
TEXT = {"vocab_size": 49408, "hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12,
        "num_attention_heads": 12, "hidden_act": "quick_gelu", "projection_dim": 768}  # fmt: skip


def make_checkpoint(path: Path) -> int:
    """Write random weights under SD 1.5's single-file names; returns the number of the U-Net's parameters."""
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from safetensors.torch import save_file
    from transformers import CLIPTextConfig, CLIPTextModel

    from adiff.backbone.layout import TEXT as TEXT_PREFIX
    from adiff.backbone.layout import unet_names, vae_names

    with torch.device("meta"):
        unet, vae, text = UNet2DConditionModel(**UNET), AutoencoderKL(**VAE), CLIPTextModel(CLIPTextConfig(**TEXT))
    of_text = {n: f"{TEXT_PREFIX}text_model.{n.removeprefix('text_model.')}" for n in text.state_dict()}
    tables = ((unet, unet_names(unet.state_dict(), 2)), (vae, vae_names(vae.state_dict(), 4)), (text, of_text))
    generator, tensors = torch.Generator().manual_seed(SEED), {}
    for network, names in tables:
        for name, tensor in network.state_dict().items():
            tensors[names[name]] = _random(name, tuple(tensor.shape), generator)
    save_file(tensors, path)
    return sum(parameter.numel() for parameter in unet.parameters())


def _random(name: str, shape: tuple[int, ...], generator: torch.Generator) -> torch.Tensor:
    """Weights of variance 1 / fan in, scales of 1, offsets of 0: signals of every depth stay within float16."""
    if len(shape) == 1:
        return torch.full(shape, 1.0 if name.endswith("weight") else 0.0, dtype=torch.float16)
    deviation = 1 / math.sqrt(math.prod(shape[1:]))
    return (torch.randn(shape, generator=generator) * deviation).half()


class Phases:
    """Seconds of each phase and the largest memory up to its end, GiB."""

    def __init__(self, device: torch.device):
        self.device, self.rows, self.began = device, {}, time.perf_counter()

    def end(self, name: str, **more: object) -> None:
        """End the phase that began with the last one's end."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
            more["device_gib"] = torch.cuda.max_memory_allocated(self.device) / 2**30
        self.rows[name] = {"seconds": time.perf_counter() - self.began, "peak_gib": peak_memory(), **more}
        self.began = time.perf_counter()


def peak_memory() -> float:
    """The largest resident memory of this process so far, GiB."""
    status = Path("/proc/self/status")
    if status.exists():  # where ru_maxrss begins with the memory of the process that started this one
        (line,) = (line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) / 2**20
    kilo = 1 if sys.platform == "darwin" else 1024  # the unit of ru_maxrss
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * kilo / 2**30


class Steps:
    """A listener that notes when a training began and each of its steps ended: wall and CPU seconds of the process."""

    def __init__(self):
        self.ended: list[tuple[float, float]] = []

    def start(self, total: int, what: str) -> None:
        """Begin anew: before its steps a training encodes views."""
        self.ended = [(time.perf_counter(), time.process_time())]

    def update(self, done: int, **info: float) -> None:
        """Note it."""
        self.ended.append((time.perf_counter(), time.process_time()))

    def finish(self) -> None:
        """Nothing is left to do."""

    def least(self) -> dict[str, float]:
        """Seconds of the quickest step after the first, which warms up."""
        taken = [np.subtract(after, before) for before, after in pairwise(self.ended[1:])]
        return dict(zip(("step", "cpu_step"), np.min(taken, axis=0).tolist(), strict=True))


def measure(checkpoint: Path, precision: str, device: str, steps: int) -> dict:
    """Measure every phase in this process."""
    import diffusers.models  # noqa: F401
    import transformers  # noqa: F401  # so that no import counts as a load

    from adiff.backbone import diffusers_host, load_backbone  # noqa: F401
    from adiff.backbone.loading import load_text_encoder
    from adiff.backbone.text import context_of
    from adiff.pixels import as_images
    from adiff.spatial_encoder import SpatialEncoder

    phases = Phases(torch.device(device))
    null = context_of(load_text_encoder(checkpoint))
    phases.end("null context alone", shape=list(null.shape), finite=bool(null.isfinite().all()))
    backbone = load_backbone(str(checkpoint), device, precision)
    phases.end("load", same_null_context=torch.equal(null.to(backbone.null_context), backbone.null_context))
    rng = np.random.default_rng(SEED)
    image, mask = rng.integers(0, 256, (SIZE, SIZE, 3), np.uint8), np.zeros((SIZE, SIZE), bool)
    mask[200:300, 200:320] = True
    latents = backbone.encode(as_images(image)[None])
    phases.end("encode 512 px", finite=bool(latents.isfinite().all()))
    _train(backbone, SpatialEncoder("base"), image, mask, steps, phases)
    _generate(backbone, image, mask, steps, phases)
    return phases.rows


def _train(backbone, encoder, image: np.ndarray, mask: np.ndarray, steps: int, phases: Phases) -> None:
    from adiff.training import AnomalySettings, train_anomalies

    told, settings = Steps(), AnomalySettings(steps=steps + 1, batch=1, draws=1, crop=False)
    shots = {("metal", "hole"): [(image, mask)]}
    result = train_anomalies(backbone, shots, encoder, freeze_encoder=False, settings=settings, progress=told)
    phases.end("training", **told.least(), finite=not result.outcome.stopped, loss=result.outcome.loss)


def _generate(backbone, image: np.ndarray, mask: np.ndarray, steps: int, phases: Phases) -> None:
    from adiff.datasets.images import Photo
    from adiff.generation import GenerationSettings, make_pairs
    from adiff.generation.seeds import generator_for

    ended, embedding = [], torch.randn(8, 768, generator=torch.Generator().manual_seed(SEED))
    settings = GenerationSettings(steps=steps + 1, batch=1, crop=False)
    given = ([Photo(image, Path("normal.png"))], [mask], embedding, None, settings, [generator_for(SEED, "pair", 0)])
    (pair,) = make_pairs(backbone, *given, on_step=lambda _: ended.append(time.perf_counter()))
    taken = [after - before for before, after in zip(ended, ended[1:], strict=False)]
    outside = bool(np.array_equal(pair.image[~mask], image[~mask]))
    phases.end(
        "generation", step=min(taken), changed=float((pair.image != image).any(-1)[mask].mean()), outside=outside
    )


def table(found: dict[str, dict]) -> str:
    """Seconds and memory of each phase, a column pair for each precision."""
    lines = [
        f"| phase | {' | '.join(f'{name}, s | peak GiB' for name in found)} |",
        "|---" * (1 + 2 * len(found)) + "|",
    ]
    names = list(next(iter(found.values())))
    for name in names:
        cells = [
            f"{rows[name].get('step', rows[name]['seconds']):.2f} | {rows[name]['peak_gib']:.1f}"
            for rows in found.values()
        ]
        label = f"{name}, one step" if "step" in found[next(iter(found))][name] else name
        lines.append(f"| {label} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Make the checkpoint if it is not there, and measure each precision in a process of its own."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--work", type=Path, required=True)
    options.add_argument("--out", type=Path, required=True)
    options.add_argument(
        "--precisions", nargs="+", choices=("float32", "bfloat16", "float16"), default=["float32", "bfloat16"]
    )
    options.add_argument("--steps", type=int, default=2, help="steps timed, after one that is not")
    options.add_argument("--device", default="cpu")
    options.add_argument("--only", help=argparse.SUPPRESS)
    chosen = options.parse_args()
    checkpoint = chosen.work / "random-sd15.safetensors"
    if chosen.only == "make":
        print(make_checkpoint(checkpoint))
        return
    if chosen.only:
        print(json.dumps(measure(checkpoint, chosen.only, chosen.device, chosen.steps)))
        return
    chosen.work.mkdir(parents=True, exist_ok=True)
    found = {}
    for name in [*([] if checkpoint.exists() else ["make"]), *chosen.precisions]:
        command = [sys.executable, "-m", "benchmarks.full_size", *sys.argv[1:], "--only", name]
        told = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
        found[name] = json.loads(told.splitlines()[-1])
    about = {"processor": platform.processor() or platform.machine(), "threads": torch.get_num_threads(),
             "torch": torch.__version__, "device": chosen.device, "checkpoint_gb": checkpoint.stat().st_size / 1e9,
             "unet_parameters": found.pop("make", None)}  # fmt: skip
    chosen.out.write_text(json.dumps({**about, "found": found}, indent=1))
    print(table(found))


if __name__ == "__main__":
    main()
