"""Memory and time of learning a dual model, with and without gradient checkpointing, and of making one pair.

    python -m benchmarks.dual_memory --out FOLDER [--shape wide|full] [--variants full full+ low low+] [--steps 2]
        [--size 512] [--batch 1] [--precision bfloat16] [--device cpu] [--count]

A variant is a form of SAIM, with checkpointing where it ends in +; each is measured in a process of its own. The base
model is a random U-Net of one level of SD 1.5's width (wide), or a random checkpoint of SD 1.5's full size (full, made
once in --out, 2.1 GB). Of each phase the seconds, the process's own CPU seconds and the largest resident memory while
it ran, of a GPU its own: load; training, with the quickest step after the first; one guided sampling step of one pair,
decoded. With --count, what is kept for the way back is counted too: bytes of the tensors that autograd holds after one
more forward pass. Prints a Markdown table; writes dual_memory.json, where a later run replaces what it measures.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch

from benchmarks.full_size import Steps, make_checkpoint, peak_memory

SEED, CHECKPOINTED = 0, "+"
KEY = ("metal", "dent")
RESET = Path("/proc/self/clear_refs")
CHECKPOINT = "random-sd15.safetensors"


class Phases:
    """Seconds and largest memory of each phase alone, GiB."""

    def __init__(self, device: torch.device):
        self.device, self.rows = device, {}

    @contextmanager
    def measured(self, name: str) -> Iterator[dict]:
        """Measure what runs inside; what is put into the dict goes with it."""
        if RESET.exists():
            RESET.write_text("5")  # the peak begins anew
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        began, cpu, row = time.perf_counter(), time.process_time(), {}
        yield row
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
            row["device_gib"] = torch.cuda.max_memory_allocated(self.device) / 2**30
        spent = {"seconds": time.perf_counter() - began, "cpu_seconds": time.process_time() - cpu}
        self.rows[name] = {**spent, "peak_gib": peak_memory(), **row}


def load(chosen: argparse.Namespace):
    """Return the base model as an editable backbone."""
    from adiff.backbone import load_backbone
    from adiff.backbone.diffusers_host import DiffusersBackbone
    from benchmarks.engine import wide_parts

    if chosen.shape == "full":
        return load_backbone(str(chosen.out / CHECKPOINT), chosen.device, chosen.precision)
    dtype = getattr(torch, chosen.precision)
    return DiffusersBackbone("wide", wide_parts(), torch.device(chosen.device), dtype)


def shots(size: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return one noisy photo with a rectangle for its defect."""
    image = np.random.default_rng(SEED).integers(0, 256, (size, size, 3), np.uint8)
    mask = np.zeros((size, size), bool)
    mask[size // 3 : size // 2, size // 3 : size // 2] = True
    return [(image, mask)]


def kept_bytes(task) -> int:
    """Bytes that a step's forward pass keeps for the way back, the weights' own aside."""
    own = {one.untyped_storage().data_ptr() for one in [*task.parameters.values(), *task.backbone._unet.parameters()]}
    held: dict[int, int] = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            held[storage.data_ptr()] = storage.nbytes()
        return tensor

    for parameter in task.parameters.values():
        parameter.requires_grad_(True)
    batch = task.batch(0, torch.Generator().manual_seed(SEED))
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        batch.losses(slice(0, batch.size))
    return sum(held.values())


def measure(chosen: argparse.Namespace, variant: str) -> dict:
    """Measure every phase of a variant in this process."""
    import diffusers.models  # noqa: F401  # so that no import counts as a load

    from adiff.dual.sampling import DualSampling, sample_latents, shown_pairs
    from adiff.dual.training import DualSettings, Learned, _Pairs, train_pair

    phases, told = Phases(torch.device(chosen.device)), Steps()
    with phases.measured("load"):
        backbone = load(chosen)
    saim, checkpoint = variant.removesuffix(CHECKPOINTED), variant.endswith(CHECKPOINTED)
    settings = DualSettings(
        steps=chosen.steps + 1, batch=chosen.batch, saim=saim, flips="none", size=chosen.size, lr=1e-4
    )
    given = shots(chosen.size)
    with phases.measured("training") as row:
        result = train_pair(backbone, KEY, given, settings=settings, progress=told, checkpoint=checkpoint)
        row |= {**told.least(), "loss": result.outcome.loss, "stopped": result.outcome.stopped}
    learned = Learned(result.weights, result.object_tokens, result.defect_tokens, None, None)
    side = chosen.size // backbone.latent_downscale
    x = torch.randn(2, 1, 4, side, side, generator=torch.Generator().manual_seed(SEED)).to(backbone.device)
    with phases.measured("one pair of one step") as row:
        (pair,) = shown_pairs(backbone, sample_latents(backbone, learned, x, DualSampling(1)))
        row["deviation"] = float(pair.image.std())
    if chosen.count:
        kept = kept_bytes(_Pairs(backbone, [(given[0], None)], settings, SEED, {}, checkpoint))
        phases.rows["training"]["kept_gib"] = kept / 2**30
    return phases.rows


def table(found: dict[str, dict]) -> str:
    """Seconds and memory of each variant as Markdown."""
    lines = ["| variant | s a step | CPU s | training, peak GiB | kept for the way back, GiB | a pair, s | peak GiB |",
             "|---|---|---|---|---|---|---|"]  # fmt: skip
    for name, rows in found.items():
        training, pair = rows["training"], rows["one pair of one step"]
        peaks = [row.get("device_gib", row["peak_gib"]) for row in (training, pair)]
        kept = f"{training['kept_gib']:.2f}" if "kept_gib" in training else ""
        spent = f"{training['step']:.1f} | {training['cpu_step']:.1f}"
        told = f"{spent} | {peaks[0]:.1f} | {kept} | {pair['seconds']:.1f} | {peaks[1]:.1f}"
        said = "with" if name.endswith(CHECKPOINTED) else "without"
        lines.append(f"| SAIM {name.removesuffix(CHECKPOINTED)}, {said} checkpointing | {told} |")
    return "\n".join(lines)


def main() -> None:
    """Make the checkpoint if it is needed and not there, and measure each variant in a process of its own."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--out", type=Path, required=True)
    options.add_argument("--shape", choices=("wide", "full"), default="wide")
    options.add_argument("--variants", nargs="+", default=["full", "full+", "low", "low+"])
    options.add_argument("--steps", type=int, default=2, help="steps timed, after one that is not")
    options.add_argument("--size", type=int, default=512)
    options.add_argument("--batch", type=int, default=1)
    options.add_argument("--precision", choices=("float32", "bfloat16", "float16"), default="bfloat16")
    options.add_argument("--device", default="cpu")
    options.add_argument("--count", action="store_true", help="count what is kept too, in one more forward pass")
    options.add_argument("--only", help=argparse.SUPPRESS)
    chosen = options.parse_args()
    if chosen.only:
        print(json.dumps(measure(chosen, chosen.only)))
        return
    chosen.out.mkdir(parents=True, exist_ok=True)
    if chosen.shape == "full" and not (chosen.out / CHECKPOINT).exists():
        make_checkpoint(chosen.out / CHECKPOINT)
    file = chosen.out / "dual_memory.json"
    record = json.loads(file.read_text()) if file.exists() else {}
    found = record.setdefault(f"{chosen.shape}, {chosen.batch} x {chosen.size} px, {chosen.precision}", {})
    for name in chosen.variants:
        command = [sys.executable, "-m", "benchmarks.dual_memory", *sys.argv[1:], "--only", name]
        told = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
        found[name] = json.loads(told.splitlines()[-1])
        file.write_text(json.dumps(record, indent=1))
    print(table(found))


if __name__ == "__main__":
    main()
