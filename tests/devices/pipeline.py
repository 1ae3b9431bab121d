"""Everything that computes, on the simulated GPU: `python -m tests.devices.pipeline FOLDER`. Prints a line a command:
its name, how often the host waited for the device, and how often it sent something there.

The commands are those of the README with few steps; the library is the shipped one.
"""

from __future__ import annotations

import importlib
import os
import pkgutil
import sys
from pathlib import Path

import adiff
from adiff import devices
from adiff.backbone import demo_library_path

from . import simulated_gpu

PAINT = ("generate", str(demo_library_path()), "metal/scratch", "--normals", "data", "-n", "2", "--vary-shots")
SURFACES = ("surfaces", "--product", "metal", "--images", "8", "--out", "data")
COMMANDS = {
    "learn": (
        "train", "data/metal", "--defect", "scratch", "--defect", "hole", "--shots", "4", "--steps", "3", "--out",
        "lib.safetensors",
    ),
    "masks": ("masks", str(demo_library_path()), "metal/scratch", "-n", "1", "--out", "masks"),
    "3 steps": (*PAINT, "--steps", "3", "--out", "three", "--severity", "1.4"),
    "5 steps": (*PAINT, "--steps", "5", "--out", "five", "--severity", "1.4"),
    "release": (*PAINT, "--steps", "3", "--out", "release", "--reweighting", "release", "--distance", "rgb"),
    "release, 5 steps": (*PAINT, "--steps", "5", "--out", "re5", "--reweighting", "release", "--distance", "rgb"),
    "paper": (*PAINT, "--steps", "2", "--out", "paper", "--reweighting", "paper", "--distance", "vae", "--refine"),
    "uniform": (*PAINT, "--steps", "2", "--out", "uniform", "--reweighting", "uniform", "--crop"),
    "off": (*PAINT, "--steps", "2", "--out", "off", "--reweighting", "off", "--blending", "fixed", "--guidance", "1"),
    "fitted": (*PAINT, "--steps", "2", "--out", "fitted", "--guidance", "auto"),
    "all": (
        "generate", "lib.safetensors", "--all", "--per-defect", "2", "--normals", "data", "--vary-shots", "--steps",
        "2", "--out", "all",
    ),
    "learn dual": (
        "train-dual", "data/metal", "--defect", "scratch", "--shots", "4", "--steps", "2", "--batch", "2", "--saim",
        "low", "--bcm", "--early-stop", "--out", "dual.safetensors",
    ),
    "dual": ("generate-dual", "dual.safetensors", "-n", "2", "--steps", "2", "--out", "dual"),
    "localize": (
        "evaluate", "localization", "data/metal", "all/metal-scratch", "--library", "lib.safetensors", "--steps", "3",
        "--size", "64", "--out", "found",
    ),
    "classify": (
        "evaluate", "classification", "data/metal", "all/metal-scratch", "all/metal-hole", "--library",
        "lib.safetensors", "--steps", "2", "--size", "64", "--out", "kinds",
    ),
}  # fmt: skip


def main(folder: Path) -> None:
    """Run all commands in a folder; raises what the first one that fails raises."""
    from adiff.cli import app

    device = simulated_gpu.switch_on()
    devices.best_device = lambda: device
    for module in pkgutil.walk_packages(adiff.__path__, "adiff."):
        if not module.name.endswith("__main__"):
            loaded = importlib.import_module(module.name)
            if hasattr(loaded, "best_device"):
                loaded.best_device = devices.best_device
    os.chdir(folder)
    for name, command in {"draw": SURFACES, **COMMANDS}.items():
        simulated_gpu.WAITS.clear()
        simulated_gpu.SENT.clear()
        app(command, standalone_mode=False)
        print(f"done: {name}: {simulated_gpu.WAITS.total()} {simulated_gpu.SENT.total()}", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
