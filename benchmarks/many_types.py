"""All defect types of a data set at once: time and memory of a step against few types, and what the masks look like.

Joint training is what the paper does: one e_a for each type, one encoder for all, learned from its random start. The
masks are compared by what is drawn from their embeddings before any rule has chosen among them, specks aside, so that
area, aspect (longest extent over the one across it) and parts are the sampler's own.
"""

from __future__ import annotations

import logging
import statistics
import time
from pathlib import Path

import numpy as np

from .full_size import peak_memory
from .record import Record
from .time_to_quality import Watch

GENERATED = 4
"""Masks drawn of each type."""
TILE, GAP, LABEL = 72, 4, 230
"""Pixels of the sheet: a mask's side, between masks, and of the column of names."""


def read_types(data: Path, most: int | None) -> dict:
    """Open all shots of the data set, or of its first types: {(product, defect): [(image, mask)]}."""
    from adiff.datasets.readers import read_dataset, read_shots

    shots = read_dataset(data).shots
    return {
        key: [(photo.rgb, mask.mask) for photo, mask in read_shots(shots[key])] for key in sorted(shots)[:most]
    }


def time_joint(data: Path, most: int | None, steps: int, draws: int) -> dict:
    """Train so many types together in this process, e_a and a small encoder; seconds a step and peak memory."""
    from adiff.backbone import load_backbone
    from adiff.spatial_encoder import SpatialEncoder
    from adiff.training import AnomalySettings, train_anomalies

    from .textual_inversion import Steps, per_step

    logging.getLogger("adiff").setLevel(logging.ERROR)
    backbone, shots, told = load_backbone("demo"), read_types(data, most), Steps()
    settings = AnomalySettings(steps=steps, draws=draws, early_stop=False)
    began, before = time.process_time(), peak_memory()
    result = train_anomalies(
        backbone, shots, SpatialEncoder("small", dim=backbone.context_dim), freeze_encoder=False, settings=settings,
        progress=told,
    )  # fmt: skip
    return {
        "types": len(shots), "views": draws * sum(map(len, shots.values())), **per_step(dict(enumerate(told.ended))),
        "encoding": told.ended[0][1] - began, "loaded_gib": before, "peak_gib": peak_memory(),
        "loss": result.outcome.loss,
    }  # fmt: skip


def measure(record: Record, data: Path, out: Path, types: int | None, steps: int, mask_steps: int, draws: int) -> str:
    """Time few and all types; learn and draw masks of `types` types; returns the tables, writes the sheet."""
    from .process import in_new_process

    lines = ["| types | views | encoding, CPU s | s a step, wall | CPU | memory before, GiB | peak GiB |",
             "|---" * 7 + "|"]  # fmt: skip
    for most in (4, None):
        row = record.row(
            f"types, {steps} steps, {draws} draws", str(most or "all"),
            lambda given=most: in_new_process(time_joint, data, given, steps, draws),
        )  # fmt: skip
        lines.append(
            f"| {row['types']} | {row['views']} | {row['encoding']:.0f} | {row['wall']:.2f} | {row['cpu']:.2f} "
            f"| {row['loaded_gib']:.2f} | {row['peak_gib']:.2f} |"
        )
    rows = record.row(
        "masks", f"{types or 'all'} types, {mask_steps} steps", lambda: draw_masks(data, out, types, mask_steps)
    )  # fmt: skip
    return "\n".join([*lines, "", mask_table(rows)])


def draw_masks(data: Path, out: Path, most: int | None, steps: int) -> dict:
    """Learn the mask embeddings together and draw GENERATED masks of each; returns the statistics, writes a sheet."""
    from adiff.backbone import load_backbone
    from adiff.generation import MaskSampling
    from adiff.generation.mask import draw_candidates
    from adiff.geometry import resize_mask
    from adiff.masks import MaskRules, clean_mask
    from adiff.training import MaskSettings, train_masks

    backbone = load_backbone("demo")
    size = backbone.native_size
    masks = {key: [resize_mask(mask, size, size) for _, mask in shots]
             for key, shots in read_types(data, most).items()}  # fmt: skip
    watch = Watch(lambda _: 0.0)
    learned = train_masks(
        backbone, masks, settings=MaskSettings(steps=steps, early_stop=False), preview=watch, preview_every=steps
    )
    rows, pictures = {}, {}
    for key, real in masks.items():
        drawn = draw_candidates(backbone, learned.embeddings[key], GENERATED, MaskSampling(), 0, 0)
        speck = MaskRules.from_shots(real).min_component
        drawn = [clean_mask(mask, speck) for mask in drawn]
        pictures["/".join(key)] = (real, drawn)
        rows["/".join(key)] = {"real": [shape_of(m) for m in real], "drawn": [shape_of(m) for m in drawn if m.any()],
                               "empty": sum(not m.any() for m in drawn)}  # fmt: skip
    write_sheet(out / "masks.png", pictures)
    return {"types": rows, "cpu": watch.curve[-1][2]}


def shape_of(mask: np.ndarray) -> list[float]:
    """Area as a share of the image, aspect, and parts of a mask (H, W) bool that is not empty."""
    from adiff.masks import count_components

    rows, columns = np.nonzero(mask)
    least, most = np.linalg.eigvalsh(np.cov(np.stack([rows, columns]), bias=True) + np.eye(2) / 12)
    return [float(mask.mean()), float(np.sqrt(most / least)), count_components(mask)]


def mask_table(found: dict) -> str:
    """Medians of real and of drawn masks, a line for each type, and the rank correlation over types."""
    from scipy.stats import spearmanr

    lines = ["| type | area, real | drawn | aspect, real | drawn | parts, real | drawn | empty |", "|---" * 8 + "|"]
    medians = []
    for name, row in found["types"].items():
        real, drawn = ([statistics.median(column) for column in zip(*row[kind], strict=True)] or [float("nan")] * 3
                       for kind in ("real", "drawn"))  # fmt: skip
        medians.append((real, drawn))
        pairs = zip(("{:.3f}", "{:.1f}", "{:.1f}"), real, drawn, strict=True)
        cells = [digits.format(value) for digits, *values in pairs for value in values]
        lines.append(f"| {name} | {' | '.join(cells)} | {row['empty']} of {GENERATED} |")
    whole = [(real, drawn) for real, drawn in medians if drawn[0] == drawn[0]]
    if len(whole) > 2:
        for place, what in enumerate(("area", "aspect", "parts")):
            rank = spearmanr([real[place] for real, _ in whole], [drawn[place] for _, drawn in whole]).statistic
            lines.append(f"\nrank correlation of {what} over {len(whole)} types: {rank:.2f}")
    return "\n".join([*lines, "", f"CPU seconds of the mask training: {found['cpu']:.0f}"])


def write_sheet(path: Path, pictures: dict[str, tuple[list[np.ndarray], list[np.ndarray]]]) -> None:
    """Real masks, then drawn ones, a line for each type."""
    from PIL import Image, ImageDraw

    from adiff.contact_sheet import mask_picture
    from adiff.datasets.images import write_png

    most = max(len(real) for real, _ in pictures.values())
    sheet = Image.new("RGB", (LABEL + (most + GENERATED + 1) * (TILE + GAP), len(pictures) * (TILE + GAP)), "white")
    pen = ImageDraw.Draw(sheet)
    for line, (name, (real, drawn)) in enumerate(pictures.items()):
        top = line * (TILE + GAP)
        pen.text((GAP, top + TILE // 2), name, fill="black")
        for place, mask in [*enumerate(real), *enumerate(drawn, most + 1)]:
            tile = Image.fromarray(mask_picture(mask)).resize((TILE, TILE), Image.Resampling.BOX)
            sheet.paste(tile, (LABEL + place * (TILE + GAP), top))
    write_png(path, np.asarray(sheet))
