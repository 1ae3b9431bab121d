"""What torch.compile brings to a training step: its time with and without, and what the compilation takes first.

    python -m benchmarks.compilation [--base demo] [--precision auto] [--rounds 3] [--steps 5]

A step is the loss of a batch of 8 and its gradient for a context of 12 tokens, as `adiff train` takes it. Both kinds
take turns in one process. CPU seconds are those of the process, without the compilers that it starts. What was compiled
before is found again in torch's cache: TORCHINDUCTOR_CACHE_DIR chooses an empty one.
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch

from adiff.backbone import load_backbone

BATCH, TOKENS = 8, 12


class Step:
    """One training step of a base model on random latents, the same each time."""

    def __init__(self, base: str, precision: str, compiled: bool):
        self.backbone = load_backbone(base, precision=precision, compiled=compiled)
        side = self.backbone.native_size // self.backbone.latent_downscale
        generator = torch.Generator().manual_seed(0)
        self.z, self.noise = (torch.randn(BATCH, 4, side, side, generator=generator) for _ in range(2))
        self.t = torch.randint(0, 1000, (BATCH,), generator=generator)
        self.context = 0.1 * torch.randn(BATCH, TOKENS, self.backbone.context_dim, generator=generator)

    def gradient(self) -> torch.Tensor:
        """Take the step; returns the gradient (B, T, D)."""
        context = self.context.clone().requires_grad_()
        error = self.backbone.predict_noise(self.z, self.t, context).cpu() - self.noise
        error.square().mean().backward()
        return context.grad

    def seconds(self, steps: int) -> tuple[float, float]:
        """Wall and CPU seconds of a step."""
        wall, cpu = time.perf_counter(), time.process_time()
        for _ in range(steps):
            self.gradient()
        return (time.perf_counter() - wall) / steps, (time.process_time() - cpu) / steps


def main() -> None:
    """Measure and print the table."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--base", default="demo")
    options.add_argument("--precision", default="auto")
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--steps", type=int, default=5, help="of each kind in each round")
    chosen = options.parse_args()
    kinds = {name: Step(chosen.base, chosen.precision, name == "compiled") for name in ("as it is", "compiled")}
    first = {name: step.seconds(1) for name, step in kinds.items()}
    plain, compiled = (step.gradient() for step in kinds.values())
    found = {name: [] for name in kinds}
    for _ in range(chosen.rounds):
        for name, step in kinds.items():
            found[name].append(step.seconds(chosen.steps))
    about = f"{chosen.base}, {kinds['compiled'].backbone.dtype}, {torch.get_num_threads()} threads"
    print(f"{about}; relative difference of the gradients {(compiled - plain).norm() / plain.norm():.1e}\n")
    print("| step | first, wall s | CPU s | then, wall s | CPU s |\n|---|---|---|---|---|")
    for name, rows in found.items():
        wall, cpu = (statistics.median(column) for column in zip(*rows, strict=True))
        print(f"| {name} | {first[name][0]:.1f} | {first[name][1]:.1f} | {wall:.3f} | {cpu:.3f} |")


if __name__ == "__main__":
    main()
