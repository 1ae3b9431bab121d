"""A run of a dual model: the folder of `generation.run`, where images are made whole and no normal image exists.

Beside image/<id>.png and mask/<id>_mask.png there is part/<id>.png, from which the mask was read. The measures that
compare with a normal image (fill, leak, seam) are null in the records. Draw a of pair i depends on (seed, i, a) alone.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..backbone.attentions import EditableBackbone
from ..datasets.images import write_png
from ..errors import InputError
from ..generation.run import RunResult, open_run
from ..generation.seeds import generator_for
from ..memory import Parts
from ..progress import Cancelled, NullProgress, Progress
from ..run_record import FORMAT, NO_MASK, Records, broken_path, is_settled, is_taken_out, read_broken, record_path
from ..scoring import ShotReference, area, border, components, describe, likeness, novelty
from ..storage import run_lock, write_json
from ..training.shots import digest_of
from .file import DualModel, check_base, fingerprint
from .sampling import DualPair, DualSampling, placed, sample_pairs

Drawn = dict[int, tuple[DualPair, int]]
"""Pairs of a batch by their numbers, each with its draw."""
NEEDS_NORMAL = ("fill", "leak", "seam")
"""Measures that a pair without a normal image does not have."""


def generate_dual_run(
    backbone: EditableBackbone,
    model: DualModel,
    *,
    count: int,
    out: Path,
    settings: DualSampling | None = None,
    seed: int = 0,
    progress: Progress | None = None,
    backgrounds: tuple[Tensor, Sequence[str]] | None = None,
    clear: Callable[[], object] | None = None,
) -> RunResult:
    """Fill `out` with `count` pairs; what exists of the run is kept.

    backgrounds: for a model with BCM, latents (n, 4, h, w) and their photos' names, taken in turn; the shots' without.
    clear: removes what is there, to begin anew; it is called once the first batch is drawn.
    Ctrl-C or Cancelled ends the run with the pairs done so far. Raises InputError when `out` holds something else or
    a run of other settings (saying which), and for a batch of which no pair shows a part; in other batches such a pair
    is listed as broken.
    """
    settings, progress = settings or DualSampling.of(model), progress or NullProgress()
    check_base(model, backbone)
    behind, photos = backgrounds_for(model, backgrounds)
    if count < 1:
        raise InputError(f"{count} pairs were asked for; ask for at least 1")
    identity = {
        "format": FORMAT, "method": "dual", "product": model.product, "defect": model.defect, "count": count,
        "seed": seed, "settings": asdict(settings), "masks": {"kind": "part"}, "normals": [],
        "base": {"name": backbone.name, "fingerprint": backbone.fingerprint}, "dual": fingerprint(model),
        "shots": list(model.info.get("shots", ())),
    }  # fmt: skip
    if behind is not None:
        kind, digest = "shots" if backgrounds is None else "photos", digest_of(behind.cpu().numpy())
        identity["backgrounds"] = {"kind": kind, "files": list(photos), "digest": digest}
    shots, ready = shot_reference(model, backbone), placed(model, backbone)

    def sample(ids: Sequence[int], generators: Sequence[torch.Generator]) -> list[DualPair]:
        chosen = None if behind is None else behind[[i % len(behind) for i in ids]]
        return sample_pairs(backbone, ready, settings, generators, chosen)

    drawn = partial(draw_pairs, sample, model.name, settings, seed=seed, parts=Parts())
    ahead = {} if clear is None else {0: _drawn_ahead(drawn, range(min(settings.batch, count)), progress, clear)}
    with run_lock(out):
        open_run(out, identity, backbone, {})
        began, cancelled = time.monotonic(), False
        progress.start(count, f"pairs {model.name}")
        try:
            for first in range(0, count, settings.batch):
                ids = range(first, min(first + settings.batch, count))
                if not all(is_settled(out, i, 1) for i in ids):
                    made = ahead.pop(first, None) or drawn(ids)
                    for i in ids:
                        if is_taken_out(out, i, 1):
                            continue
                        if i not in made:
                            _write_broken(out, i, model, settings)
                            continue
                        pair, draw = made[i]
                        told = {} if behind is None else {"background": photos[i % len(photos)]}
                        told |= {"seed": seed, "draw": draw, **measure(backbone, pair, shots)}
                        _write(out, i, model, pair, told)
                progress.update(ids.stop)
        except (Cancelled, KeyboardInterrupt):
            cancelled = True
        progress.finish()
        return RunResult(out, Records(out), time.monotonic() - began, cancelled, broken=read_broken(out))


def _drawn_ahead(
    drawn: Callable[[Sequence[int]], Drawn], ids: Sequence[int], progress: Progress, clear: Callable[[], object]
) -> Drawn:
    """Draw the first batch of a run, then clear the place for it."""
    progress.start(len(ids), "first pairs")
    progress.update(0)
    pairs = drawn(ids)
    progress.update(len(ids))
    progress.finish()
    clear()
    return pairs


def shot_reference(model: DualModel, backbone: EditableBackbone) -> ShotReference:
    """What a model's pairs are measured against; without descriptors on another base than it was learned on."""
    comparable = model.base_fingerprint == backbone.fingerprint
    return ShotReference(model.shot_masks, model.likeness.numpy() if comparable else None)


def measure(backbone: EditableBackbone, pair: DualPair, shots: ShotReference) -> dict[str, float | None]:
    """The measures of a pair by the names of `scoring.measure_pair`; those that need a normal image are None."""
    alike = None
    if shots.descriptors is not None:
        alike = likeness(describe(backbone, [pair.image], [pair.mask])[0], shots.descriptors)
    return {
        **dict.fromkeys(NEEDS_NORMAL), "area": area(pair.mask), "components": float(components(pair.mask)),
        "border": border(pair.mask), "likeness": alike, "likeness_shots": shots.spread,
        "novelty": novelty(pair.mask, shots.masks),
    }  # fmt: skip


def backgrounds_for(
    model: DualModel, given: tuple[Tensor, Sequence[str]] | None
) -> tuple[Tensor | None, Sequence[str]]:
    """What BCM is to see: the backgrounds given, else the shots', with their names; none for a model without BCM."""
    if model.bcm == "off":
        if given is not None:
            raise InputError(f"{model.name} was learned without BCM and takes no background; leave it out")
        return None, ()
    if given is not None:
        return given
    told = model.info.get("shots", ())
    names = told if len(told) >= len(model.backgrounds) else [f"shot {i + 1}" for i in range(len(model.backgrounds))]
    return model.backgrounds, tuple(names[: len(model.backgrounds)])


def draw_pairs(
    sample: Callable[[Sequence[int], Sequence[torch.Generator]], list[DualPair]], name: str, settings: DualSampling,
    ids: Sequence[int], seed: int, parts: Parts | None = None,
) -> Drawn:  # fmt: skip
    """Sample the pairs of a batch; those whose part shows nothing are drawn again, `tries` times, and then left out.

    sample(ids, generators): one pair for each. parts: what is known of the device's memory. Returns id -> pair and its
    draw. Raises InputError if none is left.
    """
    found, parts = Drawn(), parts or Parts()
    for draw in range(settings.tries):
        left = [i for i in ids if i not in found]
        if not left:
            break

        def drawn(part: slice, ids: Sequence[int] = left, draw: int = draw) -> list[DualPair]:
            return sample(ids[part], [generator_for(seed, "dual", i, draw) for i in ids[part]])

        pairs = parts.of(len(left), drawn)
        found |= {i: (pair, draw) for i, pair in zip(left, pairs, strict=True) if pair.mask.any()}
    if not found:
        raise InputError(f"pair {ids[0]:06d} of {name} {lacking_part(settings)}")
    return found


def lacking_part(settings: DualSampling) -> str:
    """What is said of a pair that `draw_pairs` leaves out."""
    return (
        f"showed no part in {settings.tries} draws and has no mask; train the dual model longer, or take another seed"
    )


def _write_broken(out: Path, number: int, model: DualModel, settings: DualSampling) -> None:
    about = {"product": model.product, "defect": model.defect, "normal": None, "reason": lacking_part(settings)}
    write_json(broken_path(out, number), {"id": f"{number:06d}", **about, NO_MASK: True})


def _write(out: Path, number: int, model: DualModel, pair: DualPair, told: dict[str, Any]) -> None:
    name = f"{number:06d}"
    write_png(out / "image" / f"{name}.png", pair.image)
    write_png(out / "part" / f"{name}.png", pair.part)
    write_png(out / "mask" / f"{name}_mask.png", np.asarray(pair.mask))
    box = [0, 0, pair.mask.shape[1], pair.mask.shape[0]]
    record = {"id": name, "product": model.product, "defect": model.defect, "normal": None, "mask": {"kind": "part"}}
    write_json(record_path(out, number), {**record, "box": box, **told})
