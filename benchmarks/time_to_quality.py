"""Held-out masked loss against steps and time: the release's settings, ours, and ours with one ingredient changed.

The demo model's withheld combinations, or defects of a folder of photos, 5 shots each, learned together. The loss is
Eq. 5 divided by the mask's area, on shots that no run sees (of photos: of other groups), at fixed timesteps with fixed
noise, whatever a run itself minimises. Every run has our schedule (warm-up, cosine over its own steps); the release's
constant rate is not imitated. Seconds count from the call, the encoding of the views included, the measuring of the
held-out loss not.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import zip_longest
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from adiff.backbone import Backbone, demo_encoder_path, load_backbone
from adiff.backbone.precision import AUTO
from adiff.datasets.images import read_mask, read_photo
from adiff.datasets.readers import Shot, read_dataset
from adiff.datasets.surfaces import WITHHELD
from adiff.embedding import join_condition
from adiff.evaluation.splits import read_groups
from adiff.library import Key
from adiff.spatial_encoder import SpatialEncoder, load_encoder
from adiff.training import AnomalySettings, masked_loss, train_anomalies
from adiff.training.noising import add_noise, noise_like
from adiff.training.timesteps import fixed_timesteps
from adiff.training.views import draw_views

from .record import Record
from .reweighting import SHOTS, draw

HELD_OUT, LEVELS = 3, 4
"""Unseen shots of each defect, and timesteps at which each is measured."""
RELEASE = {"release, lr 0.005": 0.005, "release, lr 0.02": 0.02}
RELEASE_BATCH = 4
OURS = "ours"
CHANGES: dict[str, dict] = {
    OURS: {},
    "release's normalisation": {"normalisation": "release"},
    "min-snr": {"timesteps": "min-snr"},
    "shifted": {"timesteps": "shifted"},
    "average 0.98": {"average": 0.98},
    "lr 0.02": {"lr": 0.02},
    "lr 0.1": {"lr": 0.1},
    "batch 4": {"batch": 4},
    "batch 16": {"batch": 16},
    "encoder lr 0.003": {"encoder_lr": 3e-3},
    "encoder lr 0.01": {"encoder_lr": 1e-2},
}
"""What is changed in our defaults; of E's rates only where E is learned."""


@dataclass(frozen=True)
class Case:
    """A defect: (image, mask) of the shots that are learned from, and of others."""

    shots: list[tuple[np.ndarray, np.ndarray]]
    unseen: list[tuple[np.ndarray, np.ndarray]]


def drawn_case(key: Key, seed: int) -> Case:
    """Draw a combination of `adiff surfaces`."""
    parts = (draw(key, seed, split, count) for split, count in (("shots", SHOTS), ("held out", HELD_OUT)))
    return Case(*([(bad.image, bad.mask) for bad, _ in part] for part in parts))


def photo_cases(root: Path, names: Sequence[str], seed: int) -> dict[Key, Case]:
    """Choose photos of defects, PRODUCT/DEFECT each; no group (`groups.json`) is both learned from and measured on."""
    found = {}
    for product, defect in (name.split("/") for name in names):
        dataset, group_of = read_dataset(root, [product], [defect]), read_groups(root, product, None)
        groups: dict[Hashable, list[Shot]] = {}
        for shot in dataset.shots[product, defect]:
            groups.setdefault(group_of(shot.image), []).append(shot)
        order = np.random.default_rng(seed).permutation(len(groups))
        members = [list(groups.values())[index] for index in order]
        unseen, taught = [group[0] for group in members[:HELD_OUT]], members[HELD_OUT:]
        shots = [shot for turn in zip_longest(*taught) for shot in turn if shot is not None][:SHOTS]
        if len(unseen) < HELD_OUT or len(shots) < SHOTS:
            raise SystemExit(f"{product}/{defect} has {len(groups)} groups: too few for {SHOTS} + {HELD_OUT} shots")
        found[product, defect] = Case(*([read_shot(shot) for shot in part] for part in (shots, unseen)))
    return found


def read_shot(shot: Shot) -> tuple[np.ndarray, np.ndarray]:
    """The image (H, W, 3) uint8 and mask (H, W) bool."""
    image = read_photo(shot.image).rgb
    return image, read_mask(shot.mask, image.shape[:2]).mask


class HeldOut:
    """The loss of embeddings on unseen shots."""

    def __init__(self, backbone: Backbone, encoder: SpatialEncoder | None, seed: int, cases: Mapping[Key, Case]):
        self.backbone, self.encoder, self.keys = backbone, encoder, sorted(cases)
        self.views = draw_views(backbone, [cases[key].unseen for key in self.keys], draws=1, seed=seed)
        self.t = fixed_timesteps(len(self.views.owner), LEVELS, len(backbone.alphas_cumprod))
        self.index = torch.arange(len(self.views.owner)).repeat_interleave(LEVELS)
        self.noise = noise_like(self.views.latents[self.index], torch.Generator().manual_seed(seed))

    @torch.no_grad()
    def loss(self, embeddings: Mapping[tuple[str, str], Tensor]) -> float:
        """Eq. 5 by area, mean over shots and timesteps; embeddings: e_a (k, D) of each defect."""
        e_a = torch.stack([embeddings[key] for key in self.keys])
        e_s = None if self.encoder is None else self.encoder(self.views.masks.to(e_a))
        owner, found = torch.from_numpy(self.views.owner), []
        for part in torch.arange(len(self.index)).split(16):
            index = self.index[part]
            context = join_condition(e_a[owner[index]], None if e_s is None else e_s[index]).context
            noised = add_noise(self.backbone, self.views.latents[index], self.noise[part], self.t[part])
            error = self.backbone.predict_noise(noised, self.t[part], context) - self.noise[part]
            found.append(masked_loss(error.float(), self.views.cells[index]))
        return float(torch.cat(found).mean())


class Watch:
    """Notes the held-out loss against steps, wall and CPU time; its own time is left out of both."""

    def __init__(self, measure: Callable[[Mapping], float]):
        self.measure, self.curve = measure, []
        self.wall, self.cpu = time.perf_counter(), time.process_time()

    def __call__(self, done: int, embeddings: Mapping) -> None:
        wall, cpu = time.perf_counter(), time.process_time()
        self.curve.append([done, wall - self.wall, cpu - self.cpu, self.measure(embeddings)])
        self.wall += time.perf_counter() - wall
        self.cpu += time.process_time() - cpu


def run(
    backbone: Backbone, cases: Mapping[Key, Case], settings: AnomalySettings, seed: int, every: int, learn_encoder: bool
) -> dict:
    """Train once; returns the settings and the curve: [steps, wall seconds, CPU seconds, held-out loss]."""
    encoder, _ = load_encoder(demo_encoder_path())
    if learn_encoder:
        encoder = SpatialEncoder("small", dim=backbone.context_dim)
    watch = Watch(HeldOut(backbone, encoder, seed, cases).loss)
    shots = {key: case.shots for key, case in cases.items()}
    train_anomalies(
        backbone, shots, encoder, freeze_encoder=not learn_encoder, settings=settings, seed=seed, preview=watch,
        preview_every=every,
    )  # fmt: skip
    return {"settings": asdict(settings), "curve": watch.curve}


def measure(
    record: Record, names: Sequence[str], seeds: int, release_steps: int, steps: int, every: int, learn_encoder: bool,
    photos: Path | None = None, defects: Sequence[str] = (),
) -> str:  # fmt: skip
    """Run what is not on record yet, seed by seed; `names` of CHANGES, beside the release's. Returns the table."""
    backbone = load_backbone("demo", precision=AUTO)
    runs = {
        name: AnomalySettings(
            steps=release_steps, batch=RELEASE_BATCH, lr=lr, normalisation="release", early_stop=False
        ) for name, lr in RELEASE.items()
    }  # fmt: skip
    runs |= {name: AnomalySettings(**{"steps": steps, "early_stop": False, **more}) for name, more in CHANGES.items()
             if name in (OURS, *names) and (learn_encoder or "encoder_lr" not in more)}  # fmt: skip
    part = f"quality, E {'learned' if learn_encoder else 'frozen'}, {release_steps} and {steps} steps"
    part += f" on {', '.join(defects)}" * (photos is not None)
    found: dict[str, list[dict]] = {}
    for seed in range(seeds):
        cases = photo_cases(photos, defects, seed) if photos else {key: drawn_case(key, seed) for key in WITHHELD}
        for name, settings in runs.items():
            row = record.row(
                part, f"{name}, seed {seed}",
                lambda given=settings, on=cases, number=seed: run(backbone, on, given, number, every, learn_encoder),
            )  # fmt: skip
            found.setdefault(name, []).append(row)
    return f"{part}, {seeds} seeds\n\n{table(found)}"


def reached(curve: list[list[float]], loss: float) -> list[float] | None:
    """The first point of a curve at or below a loss."""
    return next((point for point in curve if point[3] <= loss), None)


def table(found: dict[str, list[dict]]) -> str:
    """Last held-out loss of each run, and where it reached the last loss of each of the release's, seed by seed."""
    at_loss = " | ".join(f"at the loss of {name}" for name in RELEASE)
    lines = [f"| run | steps | CPU s | last loss | less than ours | {at_loss} |",
             "|---" * (5 + len(RELEASE)) + "|"]  # fmt: skip
    for name, rows in found.items():
        lasts = [row["curve"][-1] for row in rows]
        gains = [ours["curve"][-1][3] - last[3] for last, ours in zip(lasts, found[OURS], strict=True)]
        cells = [str(lasts[0][0]), f"{statistics.mean(last[2] for last in lasts):.0f}", spread([p[3] for p in lasts]),
                 spread(gains)]  # fmt: skip
        for release in RELEASE:
            points = [reached(row["curve"], other["curve"][-1][3])
                      for row, other in zip(rows, found[release], strict=True)]  # fmt: skip
            cells.append(", ".join(f"{p[0]} steps ({p[2]:.0f} s)" if p else "never" for p in points))
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def spread(values: Sequence[float], digits: int = 4) -> str:
    """Mean and standard deviation, as text."""
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{statistics.mean(values):.{digits}f} ± {deviation:.{digits}f}"


def one_defect(backbone: Backbone, key: Key, seed: int) -> dict:
    """Learn one defect from SHOTS shots with the demo's frozen encoder and our defaults, until it stops by itself."""
    encoder, _ = load_encoder(demo_encoder_path())
    case = drawn_case(key, seed)
    wall, cpu = time.perf_counter(), time.process_time()
    result = train_anomalies(backbone, {key: case.shots}, encoder, freeze_encoder=True, seed=seed)
    seconds = time.perf_counter() - wall, time.process_time() - cpu
    outcome, loss = result.outcome, HeldOut(backbone, encoder, seed, {key: case}).loss(result.embeddings)
    return {"seconds": seconds, "steps": outcome.steps, "best": outcome.best, "stopped": outcome.stopped, "loss": loss,
            "curve": outcome.curve}  # fmt: skip


def measure_defect(record: Record, seeds: int) -> str:
    """One new defect at a time, every withheld combination; returns the table."""
    backbone, threads = load_backbone("demo", precision=AUTO), torch.get_num_threads()
    lines = [f"| one defect, {SHOTS} shots, {threads} threads | seed | wall s | CPU s | steps | best | end | loss |",
             "|---" * 8 + "|"]  # fmt: skip
    for seed in range(seeds):
        for key in WITHHELD:
            row = record.row(
                f"defect, {threads} threads", f"{'/'.join(key)}, seed {seed}",
                lambda given=key, number=seed: one_defect(backbone, given, number),
            )  # fmt: skip
            wall, cpu = row["seconds"]
            lines.append(
                f"| {'/'.join(key)} | {seed} | {wall:.0f} | {cpu:.0f} | {row['steps']} | {row['best']} "
                f"| {row['stopped'] or 'all'} | {row['loss']:.4f} |"
            )
    return "\n".join(lines)
