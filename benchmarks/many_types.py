"""All defect types of a data set at once: time and memory of a step against few types, and what the masks look like.

Joint training is what the paper does: one e_a for each type, one encoder for all, learned from its random start. The
masks are compared by what is drawn from their embeddings before any rule has chosen among them, specks aside, so that
area, aspect (longest extent over the one across it) and parts are the sampler's own; how many of them keep the rules is
told beside. Embeddings and drawn masks are kept in the folder, type by type: a run that was broken off goes on.
"""

from __future__ import annotations

import logging
import statistics
import time
from collections.abc import Sequence
from itertools import permutations
from pathlib import Path

import numpy as np

from .full_size import Steps, peak_memory
from .record import Record

COLUMNS = ("area", "aspect", "parts")
FACTOR = 2.0
"""A type's median is near when it is within this factor of its shots' median."""
TILE, GAP, LABEL = 72, 4, 230
"""Pixels of the sheet: a mask's side, between masks, and of the column of names."""

Statistics = dict[str, tuple[list[list[float]], list[list[float]]]]
"""By type: COLUMNS of each real mask and of each drawn one that is not empty."""


def read_types(data: Path, most: int | None) -> dict:
    """Open all shots of the data set, or of its first types: {(product, defect): [(image, mask)]}."""
    from adiff.datasets.readers import read_dataset, read_shots

    shots = read_dataset(data).shots
    return {key: [(photo.rgb, mask.mask) for photo, mask in read_shots(shots[key])] for key in sorted(shots)[:most]}


def time_joint(data: Path, most: int | None, steps: int, draws: int) -> dict:
    """Train so many types together in this process, e_a and a small encoder; seconds a step and peak memory."""
    from adiff.backbone import load_backbone
    from adiff.spatial_encoder import SpatialEncoder
    from adiff.training import AnomalySettings, train_anomalies

    from .textual_inversion import per_step

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


def measure_time(record: Record, data: Path, steps: int, draws: int) -> str:
    """Time few and all types, each in a process of its own; returns the table."""
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
    return "\n".join(lines)


def measure_masks(data: Path, out: Path, most: int | None, steps: int | None, count: int) -> str:
    """Learn the mask embeddings of all types together and draw `count` masks of each; returns the tables, writes
    masks.png. steps: None for as many as the method takes for so many types.
    """
    from adiff.backbone import load_backbone
    from adiff.masks import MaskRules, check_mask, clean_mask

    backbone = load_backbone("demo", precision="auto")
    types = read_types(data, most)
    folder = out / f"masks of {len(types)} types, {steps or 'all'} steps"
    learned = learn(backbone, types, folder, steps)
    found, pictures, kept = {}, {}, {}
    for defect in learned.defects.values():
        rules, real = MaskRules.from_shots(defect.shot_masks), list(defect.shot_masks)
        drawn = [clean_mask(mask, rules.min_component) for mask in draw(backbone, defect, folder, count)]
        pictures[defect.name] = real, drawn
        found[defect.name] = [shape_of(m) for m in real], [shape_of(m) for m in drawn if m.any()]
        kept[defect.name] = f"{sum(not check_mask(mask, rules) for mask in drawn)} of {count}"
    write_sheet(out / "masks.png", pictures)
    return f"{type_table(found, kept)}\n\n{agreement(found)}"


def learn(backbone, types: dict, folder: Path, steps: int | None):
    """Return a library of the types' mask embeddings, learned unless it is there; a run broken off goes on."""
    from adiff.geometry import resize_mask
    from adiff.library import Defect, Library, load_library, save_library
    from adiff.training import MaskSettings, train_masks
    from adiff.training.loop import discard_state

    path, state, size = folder / "library.safetensors", folder / "state.safetensors", backbone.native_size
    if not path.exists():
        masks = {key: [resize_mask(mask, size, size) for _, mask in shots] for key, shots in types.items()}
        given = {} if steps is None else {"steps": steps}
        settings = MaskSettings.for_base(backbone, list(map(len, masks.values())), early_stop=False, **given)
        learned = train_masks(backbone, masks, settings=settings, state=state)
        if learned.outcome.stopped:
            raise SystemExit(f"{learned.outcome.stopped} at step {learned.outcome.steps}")
        defects = {key: Defect(*key, mask=e_m, shot_masks=np.stack(masks[key]))
                   for key, e_m in learned.embeddings.items()}  # fmt: skip
        save_library(path, Library(defects, backbone.fingerprint, backbone.name, backbone.context_dim))
        discard_state(state)
    return load_library(path)


def draw(backbone, defect, folder: Path, count: int) -> np.ndarray:
    """Return `count` candidates (count, S, S) bool of a type's e_m, drawn unless they are there: one above the other
    in a picture."""
    from adiff.datasets.images import read_mask, write_png
    from adiff.generation import MaskSampling
    from adiff.generation.mask import draw_candidates

    path, size = folder / defect.product / f"{defect.defect}, {count} masks.png", backbone.native_size
    if not path.exists():
        drawn = draw_candidates(backbone, defect.mask, count, MaskSampling(), 0, 0, list(defect.shot_masks))
        write_png(path, drawn.reshape(-1, size).astype(np.uint8) * 255)
    return read_mask(path).mask.reshape(count, size, size)


def shape_of(mask: np.ndarray) -> list[float]:
    """COLUMNS of a mask (H, W) bool that is not empty: area as a share of the image, aspect, and parts."""
    from adiff.masks import count_components

    rows, columns = np.nonzero(mask)
    least, most = np.linalg.eigvalsh(np.cov(np.stack([rows, columns]), bias=True) + np.eye(2) / 12)
    return [float(mask.mean()), float(np.sqrt(most / least)), count_components(mask)]


def medians(rows: Sequence[Sequence[float]]) -> list[float]:
    """The median of each column, NaN where there are no rows."""
    return [statistics.median(column) for column in zip(*rows, strict=True)] or [float("nan")] * len(COLUMNS)


def type_table(found: Statistics, kept: dict[str, str]) -> str:
    """Medians of real and of drawn masks, a line for each type; in brackets the range of the real ones."""
    lines = ["| type | area, real | drawn | aspect, real | drawn | parts, real | drawn | drawn keep the rules |",
             "|---" * 8 + "|"]  # fmt: skip
    for name, (real, drawn) in found.items():
        cells = []
        columns = zip(("{:.3f}", "{:.1f}", "{:g}"), zip(*real, strict=True), medians(drawn), strict=True)
        for digits, of_real, of_drawn in columns:
            middle, least, most, other = (
                digits.format(value) for value in (statistics.median(of_real), min(of_real), max(of_real), of_drawn)
            )
            cells += [f"{middle} ({least}-{most})", other]
        lines.append(f"| {name} | {' | '.join(cells)} | {kept[name]} |")
    return "\n".join(lines)


def agreement(found: Statistics) -> str:
    """How many types' drawn median is near their shots, how many it would be were the types mixed up, and the rank
    correlation over the types."""
    from scipy.stats import spearmanr

    whole = [(real, medians(drawn)) for real, drawn in found.values() if drawn]
    lines = [f"| {len(whole)} types | in the shots' range | within a factor {FACTOR:g} of their median "
             "| so were another type's | rank correlation |", "|---" * 5 + "|"]  # fmt: skip
    for place, what in enumerate(COLUMNS):
        middles = [medians(real)[place] for real, _ in whole]
        drawn = [of_drawn[place] for _, of_drawn in whole]
        inside = sum(
            min(row[place] for row in real) <= one <= max(row[place] for row in real)
            for (real, _), one in zip(whole, drawn, strict=True)
        )
        near = sum(is_near(one, middle) for one, middle in zip(drawn, middles, strict=True))
        others = [is_near(drawn[i], middles[j]) for i, j in permutations(range(len(whole)), 2)]
        mixed = len(whole) * statistics.mean(others) if others else float("nan")
        rank = spearmanr(middles, drawn).statistic if len(whole) > 2 else float("nan")
        lines.append(f"| {what} | {inside} | {near} | {mixed:.0f} | {rank:.2f} |")
    return "\n".join(lines)


def is_near(value: float, other: float) -> bool:
    """Whether two positive numbers are within FACTOR of each other."""
    return 1 / FACTOR <= value / other <= FACTOR


def write_sheet(path: Path, pictures: dict[str, tuple[list[np.ndarray], list[np.ndarray]]]) -> None:
    """Real masks, then drawn ones, a line for each type."""
    from PIL import Image, ImageDraw

    from adiff.contact_sheet import mask_picture
    from adiff.datasets.images import write_png

    most, count = (max(len(of_type[kind]) for of_type in pictures.values()) for kind in (0, 1))
    sheet = Image.new("RGB", (LABEL + (most + count + 1) * (TILE + GAP), len(pictures) * (TILE + GAP)), "white")
    pen = ImageDraw.Draw(sheet)
    for line, (name, (real, drawn)) in enumerate(pictures.items()):
        top = line * (TILE + GAP)
        pen.text((GAP, top + TILE // 2), name, fill="black")
        for place, mask in [*enumerate(real), *enumerate(drawn, most + 1)]:
            tile = Image.fromarray(mask_picture(mask)).resize((TILE, TILE), Image.Resampling.BOX)
            sheet.paste(tile, (LABEL + place * (TILE + GAP), top))
    write_png(path, np.asarray(sheet))
