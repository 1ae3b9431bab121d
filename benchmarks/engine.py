"""Speed and memory of the engine, in ratios, each measured alternating in one process: what else runs cancels.

    python -m benchmarks.engine --out FOLDER [--only reweighting batch training precision memory help] [--rounds 5]

| name | what is compared | target |
|---|---|---|
| reweighting | a sampling step with `balanced` re-weighting by the latent distance to one without | 1.03 |
| batch | pairs a second of 16 pairs in one batch to one by one | 1.5 |
| training | a step with gradients to e_a and E alone to one with all U-Net weights and their optimiser state | 0.75 |
| precision | a sampling step, a training step and a decode of 8 in bfloat16 to those in float32 | |
| memory | peak memory of a run of 200 pairs to one of 20 | 1 |
| help | `adiff --help` | 0.5 s |

`reweighting` and `training` run on a random U-Net of one level with SD 1.5's width there (320 channels, 8 heads,
context 768 wide) and an autoencoder of SD 1.5's size, random too; the others on the demo model. Wall time, and, as a
check on what else the machine does, the CPU time of the process. Prints Markdown tables: medians with (least - most)
over the rounds; writes engine.json, in which a later run replaces the parts it measures.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel

from adiff.backbone import Backbone, demo_encoder_path, load_backbone
from adiff.backbone.diffusers_host import DiffusersBackbone
from adiff.backbone.loading import Parts
from adiff.datasets.images import Photo, write_png
from adiff.datasets.surfaces import render, sample_seed
from adiff.embedding import Condition, join_condition, random_embedding
from adiff.generation import GenerationSettings, make_pairs
from adiff.generation.sampler import make_reweighter, sample_blended
from adiff.generation.seeds import generator_for
from adiff.library import Defect, Library, save_library
from adiff.spatial_encoder import SpatialEncoder, load_encoder
from adiff.training.anomaly import masked_loss
from adiff.versions import versions

Seconds = tuple[float, float]
"""Wall time and CPU time of the process."""
SIDE, CONTEXT, OURS = 32, 768, 12
"""Latent cells of the wide U-Net's image, width of its context, tokens of e = {e_a, e_s}."""
TEXT = 77
"""Tokens of a text encoder's output."""
STEPS = 6
"""Sampling steps of one measurement."""
PAIRS = 16
FEW, MANY = 20, 200
PEAK = """
import resource, subprocess, sys
subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""
"""Prints the largest memory that a command held; a small process between, as ru_maxrss begins with the parent's."""
KEY = ("wood", "hole")


def timed(work: Callable[[], object]) -> Seconds:
    """Run `work` once; returns its seconds."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - cpu


def alternate(works: dict[str, Callable[[], object]], rounds: int) -> dict[str, list[Seconds]]:
    """Time each work once a round, in turning order, after one round that does not count."""
    taken: dict[str, list[Seconds]] = {name: [] for name in works}
    for number in range(-1, rounds):
        names = list(works) if number % 2 else list(works)[::-1]
        for name in names:
            seconds = timed(works[name])
            if number >= 0:
                taken[name].append(seconds)
    return taken


def ratios(taken: dict[str, list[Seconds]], base: str) -> dict[str, dict]:
    """Return for each work its median seconds and its ratios to `base` round by round, by wall and by CPU time."""
    rows = {}
    for name, seconds in taken.items():
        row: dict = {"seconds": statistics.median(wall for wall, _ in seconds)}
        for kind, index in (("wall", 0), ("cpu", 1)):
            each = [one[index] / other[index] for one, other in zip(seconds, taken[base], strict=True)]
            row[kind] = {"median": statistics.median(each), "least": min(each), "most": max(each)}
        rows[name] = row
    return rows


def show(rows: dict[str, dict], what: str) -> str:
    """Return the rows as Markdown."""
    lines = [f"| {what} | seconds | ratio, wall | ratio, CPU |", "|---|---|---|---|"]
    for name, row in rows.items():
        cells = [f"{r['median']:.3f} ({r['least']:.2f} - {r['most']:.2f})" for r in (row["wall"], row["cpu"])]
        lines.append(f"| {name} | {row['seconds']:.2f} | {' | '.join(cells)} |")
    return "\n".join(lines)


def wide_parts() -> Parts:
    """Return a random U-Net of SD 1.5's width at its first level, and SD 1.5's autoencoder, random."""
    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        sample_size=SIDE, block_out_channels=(320,), down_block_types=("CrossAttnDownBlock2D",),
        up_block_types=("CrossAttnUpBlock2D",), attention_head_dim=8, cross_attention_dim=CONTEXT,
    )  # fmt: skip
    vae = AutoencoderKL(
        block_out_channels=(128, 256, 512, 512), layers_per_block=2, latent_channels=4, sample_size=8 * SIDE,
        down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
    )  # fmt: skip
    return Parts(unet, vae, torch.randn(1, TEXT, CONTEXT))


def square_cells(batch: int) -> torch.Tensor:
    """Return masks on the latent grid: the middle quarter, (B, 1, h, w)."""
    cells = torch.zeros(batch, 1, SIDE, SIDE)
    cells[:, :, SIDE // 4 : 3 * SIDE // 4, SIDE // 4 : 3 * SIDE // 4] = 1
    return cells


def reweighting(rounds: int) -> dict:
    """Compare sampling with and without re-weighting, guidance off: every row of the model's batch is re-weighted."""
    backbone = DiffusersBackbone("wide", wide_parts(), torch.device("cpu"), torch.float32)
    y, images = 0.5 * torch.randn(1, 4, SIDE, SIDE), torch.zeros(1, 3, 8 * SIDE, 8 * SIDE)
    cells = square_cells(1)
    off = GenerationSettings(steps=STEPS, guidance=1.0, reweighting="off")
    latent = replace(off, reweighting="balanced")
    every = replace(latent, distance="vae")
    modes = {"off": off, "balanced, latent": latent, "vae": every, "vae, every fifth": replace(every, interval=5)}

    def sample(tokens: int, settings: GenerationSettings) -> Callable[[], object]:
        condition = Condition(torch.randn(1, tokens, CONTEXT), (tokens - OURS, tokens))

        def work() -> None:
            weights = make_reweighter(backbone, y, images, cells, settings)
            sample_blended(backbone, y, cells, condition, settings, [torch.Generator().manual_seed(0)], weights)

        return work

    found = {}
    for tokens in (OURS, TEXT):
        chosen = modes if tokens == OURS else {name: modes[name] for name in ("off", "balanced, latent")}
        taken = alternate({name: sample(tokens, settings) for name, settings in chosen.items()}, rounds)
        found[f"context of {tokens} tokens"] = ratios(taken, "off")
        print(f"\n{show(found[f'context of {tokens} tokens'], f'{STEPS} steps, context of {tokens} tokens')}")
    return found


@contextmanager
def parts_timed(backbone: DiffusersBackbone):
    """Sum up the wall time spent in each of the backbone's three networks."""
    spent = dict.fromkeys(("encode", "decode", "predict_noise"), 0.0)

    def watched(name: str) -> Callable:
        inner = getattr(backbone, name)

        def call(*given, **named):
            began = time.perf_counter()
            result = inner(*given, **named)
            spent[name] += time.perf_counter() - began
            return result

        return call

    for name in spent:
        setattr(backbone, name, watched(name))
    try:
        yield spent
    finally:
        for name in spent:
            delattr(backbone, name)


def batching(rounds: int) -> dict:
    """Compare 16 pairs, each with its own mask and normal image, in one batch and one by one."""
    backbone, (encoder, _) = load_backbone("demo"), load_encoder(demo_encoder_path())
    drawn = [render(*KEY, 128, sample_seed(0, *KEY, "engine", i)) for i in range(PAIRS)]
    good = [render(KEY[0], None, 128, sample_seed(0, *KEY, "good", i)).image for i in range(PAIRS)]
    photos = [Photo(image, Path(f"normal-{i}")) for i, image in enumerate(good)]
    e_a = random_embedding(8, backbone.context_dim, torch.Generator().manual_seed(0))

    def paint(size: int) -> Callable[[], object]:
        def work() -> None:
            for i in range(0, PAIRS, size):
                part, generators = slice(i, i + size), [generator_for(0, "pair", n) for n in range(i, i + size)]
                masks = [one.mask for one in drawn[part]]
                make_pairs(backbone, photos[part], masks, e_a, encoder, GenerationSettings(batch=size), generators)

        return work

    works = {"one by one": paint(1), "one batch": paint(PAIRS)}
    found = ratios(alternate(works, rounds), "one by one")
    for name, work in works.items():
        with parts_timed(backbone) as spent:
            whole, _ = timed(work)
        found[name]["parts"] = {**spent, "rest": whole - sum(spent.values())}
    print(f"\n{show(found, f'{PAIRS} pairs')}\n\n| part | one by one, s | one batch, s |\n|---|---|---|")
    for part, alone in found["one by one"]["parts"].items():
        print(f"| {part} | {alone:.2f} | {found['one batch']['parts'][part]:.2f} |")
    print(f"\nspeed-up: {1 / found['one batch']['wall']['median']:.2f}")
    return found


def training(rounds: int, size: int = 2) -> dict:
    """Compare a training step on cached latents that learns e_a and E with one that learns the U-Net beside them."""
    parts = wide_parts()
    backbone = DiffusersBackbone("wide", parts, torch.device("cpu"), torch.float32)
    encoder = SpatialEncoder("small")
    e_a = random_embedding(8, CONTEXT, torch.Generator().manual_seed(0)).requires_grad_(True)
    z, noise, t = torch.randn(size, 4, SIDE, SIDE), torch.randn(size, 4, SIDE, SIDE), torch.tensor([500] * size)
    cells = square_cells(size)
    pixels = torch.nn.functional.interpolate(cells, scale_factor=8)

    def learning(weights: Sequence[torch.Tensor], all_of_it: bool) -> Callable[[], object]:
        optimiser = torch.optim.AdamW(weights, lr=1e-6)

        def work() -> None:
            parts.unet.requires_grad_(all_of_it)
            context = join_condition(e_a[None].expand(size, -1, -1), encoder(pixels)).context
            masked_loss(backbone.predict_noise(z, t, context) - noise, cells).mean().backward()
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)

        return work

    ours = [e_a, *encoder.parameters()]
    works = {"all U-Net weights": learning([*ours, *parts.unet.parameters()], True), "e_a and E": learning(ours, False)}
    found = ratios(alternate(works, rounds), "all U-Net weights")
    print(f"\n{show(found, f'training step of {size}')}")
    return found


def precision(rounds: int, size: int = 8) -> dict:
    """Compare the demo model in bfloat16 with itself in float32: what `--precision auto` gains where it chooses so."""
    noise = torch.Generator().manual_seed(0)
    z, t = torch.randn(size, 4, SIDE, SIDE, generator=noise), torch.tensor([500] * size)
    e = random_embedding(OURS, CONTEXT, noise).requires_grad_(True)
    works: dict[str, dict[str, Callable[[], object]]] = {"sampling step": {}, "training step": {}, "decode": {}}
    for name in ("float32", "bfloat16"):
        backbone = load_backbone("demo", precision=name)

        def predict(base: Backbone = backbone) -> torch.Tensor:
            return base.predict_noise(z, t, e.expand(size, -1, -1))

        works["sampling step"][name] = torch.no_grad()(predict)
        works["training step"][name] = lambda ahead=predict: ahead().square().mean().backward()
        works["decode"][name] = torch.no_grad()(lambda base=backbone: base.decode(z))
    found = {what: ratios(alternate(of_one, rounds), "float32") for what, of_one in works.items()}
    for what, rows in found.items():
        print(f"\n{show(rows, f'{what} of {size}')}")
    return found


def memory(rounds: int) -> dict:
    """Compare the peak memory of whole `adiff generate` processes; `rounds` is not used, memory repeats."""
    backbone = load_backbone("demo")
    found = {}
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        e_a = random_embedding(8, backbone.context_dim, torch.Generator().manual_seed(0))
        library = Library({KEY: Defect(*KEY, anomaly=e_a)}, backbone.fingerprint, backbone.name, backbone.context_dim)
        save_library(folder / "library.safetensors", library)
        for i in range(PAIRS):
            bad = render(*KEY, 128, sample_seed(0, *KEY, "engine", i))
            write_png(folder / "good" / f"{i}.png", render(KEY[0], None, 128, sample_seed(0, *KEY, "good", i)).image)
            write_png(folder / "masks" / f"{i}.png", bad.mask.astype(np.uint8) * 255)
        for count in (FEW, MANY):
            command = [
                sys.executable, "-m", "adiff", "generate", folder / "library.safetensors", "/".join(KEY),
                "--normals", folder / "good", "-n", count, "--masks", folder / "masks",
                "--steps", 2, "--out", folder / f"run-{count}",
            ]  # fmt: skip
            peak = subprocess.check_output([sys.executable, "-c", PEAK, *map(str, command)])
            found[str(count)] = int(peak) / (2**20 if sys.platform == "darwin" else 2**10)
    rows = "\n".join(f"| {count} | {mib:.0f} |" for count, mib in found.items())
    found["ratio"] = found[str(MANY)] / found[str(FEW)]
    print(f"\n| pairs | peak memory, MiB |\n|---|---|\n{rows}\n\nratio: {found['ratio']:.3f}")
    return found


def run_process(command: list[str]) -> resource.struct_rusage:
    """Run a process to its end; returns what it used (ru_utime: CPU seconds)."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {process.returncode}")
    return usage


def help_time(rounds: int) -> dict:
    """Time `adiff --help` in processes of its own, and see whether torch came along."""
    command = [sys.executable, "-m", "adiff", "--help"]
    imports = subprocess.run([command[0], "-X", "importtime", *command[1:]], capture_output=True, text=True).stderr
    taken: dict[str, list[float]] = {"wall": [], "cpu": []}
    for _ in range(rounds):
        began = time.perf_counter()
        usage = run_process(command)
        taken["wall"].append(time.perf_counter() - began)
        taken["cpu"].append(usage.ru_utime + usage.ru_stime)
    print("\n| `adiff --help` | seconds |\n|---|---|")
    for kind, seconds in taken.items():
        print(f"| {kind} | {statistics.median(seconds):.2f} ({min(seconds):.2f} - {max(seconds):.2f}) |")
    torch_came = any(line.endswith("| torch") for line in imports.splitlines())
    print(f"\ntorch {'is' if torch_came else 'is not'} imported")
    return {**taken, "torch": torch_came}


PARTS = {"reweighting": reweighting, "batch": batching, "training": training, "precision": precision,
         "memory": memory, "help": help_time}


def main() -> None:
    """Measure what is asked for."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--out", type=Path, required=True)
    options.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    options.add_argument("--rounds", type=int, default=5)
    chosen = options.parse_args()
    chosen.out.mkdir(parents=True, exist_ok=True)
    record = chosen.out / "engine.json"
    found = json.loads(record.read_text()) if record.exists() else {}
    found["machine"] = {**versions(), "platform": platform.platform(), "cores": os.cpu_count(),
                        "threads": torch.get_num_threads()}  # fmt: skip
    for name in chosen.only:
        found[name] = {**PARTS[name](chosen.rounds), "load": os.getloadavg()}
        record.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
