"""Training measured: speed, time to quality, one new defect, whether the mask says where, many types at once.

    python -m benchmarks.training --out FOLDER [--only quality defect disentangling ...] [--seeds 2]
    python -m benchmarks.training --out FOLDER --only speed --reference PATH/textual_inversion.py
    python -m benchmarks.training --out FOLDER --only types type-masks --data FOLDER

| part | what | in |
|---|---|---|
| speed | seconds a step beside diffusers' textual-inversion example as published (`--reference`) | textual_inversion |
| quality | held-out masked loss against steps and time: the release's settings, ours, one change | time_to_quality |
| length | held-out loss, gap and fill of what is painted, by training steps (`--photos`) | training_length |
| defect | seconds to the early stop of one new defect from 5 shots with the demo's frozen encoder | time_to_quality |
| disentangling | share of the generated change inside masks where no shot had its defect | disentangling |
| types | joint training of every type of `--data` (MVTec layout): time and memory against few types | many_types |
| type-masks | area, aspect and parts of masks drawn from embeddings of every type of `--data`; a sheet | many_types |

Prints Markdown tables; every row goes into training.json as soon as it is measured, and what is there is not measured
again: a run that was broken off goes on. CPU seconds are those of the process: with one thread (OMP_NUM_THREADS=1) they
are the wall time of a quiet core.
"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

from . import disentangling, many_types, textual_inversion, time_to_quality, training_length
from .record import Record

PARTS = ("speed", "quality", "length", "defect", "disentangling", "types", "type-masks")


def parse() -> argparse.Namespace:
    """Read the options; ends with a message for a part that lacks its input."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--out", type=Path, required=True)
    options.add_argument("--only", nargs="+", choices=PARTS, default=["quality", "defect", "disentangling"])
    options.add_argument("--seeds", type=int, default=2)
    speed = options.add_argument_group("speed")
    speed.add_argument("--reference", type=Path, help="textual_inversion.py of diffusers' examples")
    speed.add_argument("--shape", choices=textual_inversion.SHAPES, default="sd15")
    speed.add_argument("--size", type=int, default=256, help="pixels")
    speed.add_argument("--batch", type=int, default=1)
    speed.add_argument("--dtype", choices=textual_inversion.PRECISIONS, default="float32")
    speed.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    speed.add_argument("--timed-steps", type=int, default=8, help="of which the first two are not counted")
    speed.add_argument("--rounds", type=int, default=2)
    quality = options.add_argument_group("quality")
    quality.add_argument("--release-steps", type=int, default=2000)
    quality.add_argument("--steps", type=int, default=100, help="of ours, and of the runs with one change")
    quality.add_argument("--every", type=int, default=20, help="steps between two measures of the held-out loss")
    quality.add_argument("--photos", type=Path, help="folder of photos, instead of drawn surfaces; also of `length`")
    quality.add_argument("--defects", nargs="+", metavar="PRODUCT/DEFECT", default=[], help="of the photos")
    quality.add_argument("--learn-encoder", action="store_true", help="from a random start, instead of the demo's")
    changes = [name for name in time_to_quality.CHANGES if name != time_to_quality.OURS]
    quality.add_argument("--runs", nargs="*", metavar="CHANGE", choices=changes, default=changes,
                         help=f"changes in our settings, of: {', '.join(changes)}  (default: all)")  # fmt: skip
    length = options.add_argument_group("length")
    length.add_argument("--lengths", nargs="+", type=int, default=[100, 300, 1000], help="training steps")
    length.add_argument("--early-stop", action="store_true", help="by a shot of each defect that is held out")
    parts = options.add_argument_group("disentangling and types")
    parts.add_argument("--inversion-steps", type=int, default=100, help="of each run of `disentangling`")
    parts.add_argument("--masks", type=int, default=6, help="of `disentangling`, for each combination and seed")
    parts.add_argument("--data", type=Path)
    parts.add_argument("--joint-steps", type=int, default=8)
    parts.add_argument("--draws", type=int, default=4, help="views of each shot in `types`")
    parts.add_argument("--mask-types", type=int, help="learn masks of the first N types  (default: of all)")
    parts.add_argument("--mask-steps", type=int, help="of all types together  (default: the method's)")
    parts.add_argument("--drawn", type=int, default=6, help="masks drawn of each type in `type-masks`")
    chosen = options.parse_args()
    for part, name in (("speed", "reference"), ("length", "photos"), ("types", "data"), ("type-masks", "data")):
        given = getattr(chosen, name)
        if part in chosen.only and (given is None or not given.exists()):
            options.error(f"{part} needs --{name}, and it has to be there")
    if (chosen.photos is None) == bool(chosen.defects):
        options.error("--photos and --defects go together")
    if "quality" in chosen.only and chosen.every > min(chosen.release_steps, chosen.steps):
        options.error("--every is more than --release-steps or --steps, so a run would have no measure")
    return chosen


def measure(part: str, chosen: argparse.Namespace, record: Record) -> str:
    """Measure one part; returns its tables."""
    if part == "speed":
        trial = textual_inversion.Trial(
            chosen.out / "speed", chosen.shape, chosen.size, chosen.batch, chosen.timed_steps, chosen.dtype,
            chosen.device,
        )  # fmt: skip
        return textual_inversion.measure(record, chosen.reference, trial, chosen.rounds)
    if part == "quality":
        return time_to_quality.measure(
            record, chosen.runs, chosen.seeds, chosen.release_steps, chosen.steps, chosen.every, chosen.learn_encoder,
            chosen.photos, chosen.defects,
        )  # fmt: skip
    if part == "length":
        return training_length.measure(
            record, chosen.photos, chosen.defects, chosen.lengths, chosen.seeds, chosen.early_stop
        )
    if part == "defect":
        return time_to_quality.measure_defect(record, chosen.seeds)
    if part == "disentangling":
        return disentangling.measure(record, chosen.seeds, chosen.inversion_steps, chosen.masks)
    if part == "types":
        return many_types.measure_time(record, chosen.data, chosen.joint_steps, chosen.draws)
    return many_types.measure_masks(chosen.data, chosen.out, chosen.mask_types, chosen.mask_steps, chosen.drawn)


def main() -> None:
    """Measure what is asked for."""
    chosen = parse()
    chosen.out.mkdir(parents=True, exist_ok=True)
    logging.getLogger("adiff").setLevel(logging.ERROR)
    record = Record(chosen.out / "training.json")
    for part in chosen.only:
        print(f"\n{measure(part, chosen, record)}", flush=True)


if __name__ == "__main__":
    main()
