"""Seconds per step of ours beside those of diffusers' textual-inversion example, as published, on the same weights.

The example is run as a process of its own, from the file that the user gives; nothing of it is part of this project.
Both learn from the same images on the same random U-Net, at the same batch, resolution, precision and device. What
differs is the method: the example encodes the batch's images and runs the text encoder (77 tokens) in every step, ours
takes encoded views and a context of 12 tokens. A step's time is taken between the ends of steps, as either side tells
them, without the first two: wall time, and the CPU time of the process, which other work on the machine changes less.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from adiff.datasets.images import write_png
from adiff.datasets.surfaces import render, sample_seed

from .full_size import TEXT, UNET, VAE, Steps, peak_memory
from .process import in_new_process
from .record import Record

KEY, IMAGES = ("wood", "hole"), 5
WARM = 2
"""Steps that are not counted: the first ones allocate and choose kernels."""
SHAPES = {
    "sd15": (UNET, VAE),
    "half": ({**UNET, "block_out_channels": (160, 320, 640, 640)}, {**VAE, "block_out_channels": (64, 128, 256, 256)}),
}
"""U-Net and autoencoder; the text encoder is SD 1.5's in both."""
PRECISIONS = {"float32": "no", "float16": "fp16", "bfloat16": "bf16"}
"""A dtype of torch's and the example's name for it."""


@dataclass(frozen=True)
class Trial:
    """What both sides are given. folder: of the weights and of images/. size: pixels. shape: of SHAPES."""

    folder: Path
    shape: str = "sd15"
    size: int = 256
    batch: int = 1
    steps: int = 8
    dtype: str = "float32"
    device: str = "cpu"

    @property
    def images(self) -> Path:
        return self.folder / "images"

    @property
    def model(self) -> Path:
        return self.folder / f"{self.shape}-{self.size}"


def make_inputs(trial: Trial) -> None:
    """Draw the images and write the random model as a diffusers folder, unless they are there."""
    for i in range(IMAGES):
        drawn = render(*KEY, trial.size, sample_seed(0, *KEY, "speed", i))
        write_png(trial.images / f"{i}.png", drawn.image)
        write_png(trial.folder / "masks" / f"{i}.png", drawn.mask.astype(np.uint8) * 255)
    if not (trial.model / "scheduler").exists():  # written last
        _make_model(trial)


def _make_model(trial: Trial) -> None:
    from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    of_unet, of_vae = SHAPES[trial.shape]
    torch.manual_seed(0)
    UNet2DConditionModel(**{**of_unet, "sample_size": trial.size // 8}).save_pretrained(trial.model / "unet")
    AutoencoderKL(**of_vae).save_pretrained(trial.model / "vae")
    CLIPTextModel(CLIPTextConfig(**TEXT, max_position_embeddings=77)).save_pretrained(trial.model / "text_encoder")
    _write_tokenizer(trial.model / "tokenizer")
    schedule = DDPMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False)
    schedule.save_pretrained(trial.model / "scheduler")


def _write_tokenizer(folder: Path) -> None:
    """Write a tokenizer of CLIP's form and size that knows single letters: a prompt is spelled, the length is fixed."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]  # GPT-2's byte alphabet (Radford et al. 2019)
    letters = [chr(byte) for byte in printable] + [chr(256 + i) for i in range(256 - len(printable))]
    symbols = [*letters, *(letter + "</w>" for letter in letters)]
    symbols += [f"unused-{i}</w>" for i in range(TEXT["vocab_size"] - 2 - len(symbols))]
    start, end = "<|startoftext|>", "<|endoftext|>"
    folder.mkdir(parents=True)
    (folder / "vocab.json").write_text(json.dumps({s: i for i, s in enumerate([*symbols, start, end])}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    config = {"tokenizer_class": "CLIPTokenizer", "model_max_length": 77, "bos_token": start, "eos_token": end,
              "unk_token": end, "pad_token": end}  # fmt: skip
    (folder / "tokenizer_config.json").write_text(json.dumps(config))


def time_example(script: Path, trial: Trial) -> dict:
    """Run the example; its progress bar tells when each step ended."""
    command = [
        sys.executable, script, "--pretrained_model_name_or_path", trial.model, "--train_data_dir", trial.images,
        "--placeholder_token", "<defect>", "--initializer_token", "a", "--resolution", trial.size,
        "--train_batch_size", trial.batch, "--max_train_steps", trial.steps, "--learning_rate", "5e-3",
        "--mixed_precision", PRECISIONS[trial.dtype], "--output_dir", trial.folder / "example", "--seed", "0",
    ]  # fmt: skip
    alone = {"HF_HUB_OFFLINE": "1"} | ({"ACCELERATE_USE_CPU": "true"} if trial.device == "cpu" else {})
    process = subprocess.Popen(
        [str(c) for c in command], env=os.environ | alone, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    ended, told, line = {}, b"", b""
    while piece := process.stderr.read1():
        now = time.perf_counter(), cpu_seconds(process.pid)
        told, line = (told + piece)[-4000:], line + piece
        *whole, line = line.replace(b"\r", b"\n").split(b"\n")
        for text in (*whole, line):
            count = _steps_done(text, trial.steps)
            if count is not None:
                ended.setdefault(count, now)
    if process.wait():
        raise RuntimeError(f"{script.name} ended with {process.returncode}:\n{told.decode(errors='replace')}")
    return per_step(ended)


def _steps_done(text: bytes, steps: int) -> int | None:
    """The count in a progress bar's line, `Steps: 12%|...| 6/50 [...`."""
    if not text.startswith(b"Steps:") or f"/{steps} [".encode() not in text:
        return None
    return int(text.split(f"/{steps} [".encode())[0].split()[-1].split(b"|")[-1])


def cpu_seconds(process: int) -> float:
    """CPU time of a process so far, NaN where the system does not tell it."""
    status = Path(f"/proc/{process}/stat")
    if not status.exists():
        return math.nan
    user, system = status.read_text().rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def per_step(ended: dict[int, tuple[float, float]]) -> dict[str, float]:
    """Mean time of the steps after the WARM first ones; ended: steps done -> wall and CPU time then."""
    first, last = min((count for count in ended if count >= WARM), default=0), max(ended, default=0)
    if last <= first:
        raise RuntimeError(f"only {last} steps were seen to end; ask for more than {WARM}")
    wall, cpu = ((end - begin) / (last - first) for begin, end in zip(ended[first], ended[last], strict=True))
    return {"wall": wall, "cpu": cpu}


def time_ours(trial: Trial, learn_encoder: bool) -> dict:
    """Train e_a, with or without E beside it, in this process; the views are encoded before the first step."""
    from adiff.backbone import load_backbone
    from adiff.datasets.images import read_mask, read_photo
    from adiff.spatial_encoder import SpatialEncoder
    from adiff.training import AnomalySettings, train_anomalies

    backbone = load_backbone(str(trial.model), trial.device, trial.dtype)
    shots = [(read_photo(p).rgb, read_mask(trial.folder / "masks" / p.name).mask)
             for p in sorted(trial.images.iterdir())]  # fmt: skip
    encoder = SpatialEncoder("base", dim=backbone.context_dim)
    settings = AnomalySettings(steps=trial.steps, batch=trial.batch, draws=1, crop=False, early_stop=False)
    told = Steps()
    began = time.perf_counter()
    train_anomalies(backbone, {KEY: shots}, encoder, freeze_encoder=not learn_encoder, settings=settings, progress=told)
    return {**per_step(dict(enumerate(told.ended))), "encoding": told.ended[0][0] - began, "peak_gib": peak_memory()}


SIDES = {"e_a, E frozen": False, "e_a and E": True}


def measure(record: Record, script: Path, trial: Trial, rounds: int) -> str:
    """Time every side in turn, `rounds` times; returns the table."""
    make_inputs(trial)
    about = f"{trial.shape}, {trial.size} px, batch {trial.batch}, {trial.dtype}, {trial.device}"
    part, theirs = f"speed: {about}", "diffusers' example"
    found: dict[str, list[dict]] = {}
    for number in range(rounds):
        row = record.row(part, f"example, round {number}", lambda: time_example(script, trial))
        found.setdefault(theirs, []).append(row)
        for side, learn_encoder in SIDES.items():
            row = record.row(
                part, f"{side}, round {number}", lambda given=learn_encoder: in_new_process(time_ours, trial, given)
            )  # fmt: skip
            found.setdefault(f"ours, {side}", []).append(row)
    lines = [f"| {about} | s a step, wall | CPU | speed-up by round, wall | CPU |", "|---|---|---|---|---|"]
    for side, rows in found.items():
        cells = [" ".join(f"{row[kind]:.2f}" for row in rows) for kind in ("wall", "cpu")]
        for kind in ("wall", "cpu"):
            pairs = zip(found[theirs], rows, strict=True)
            cells.append(" ".join(f"{other[kind] / row[kind]:.2f}" for other, row in pairs))
        lines.append(f"| {side} | {' | '.join(cells)} |")
    return "\n".join(lines)
