"""Kills `adiff generate`, `train`, `export` and `import` with -9 again and again; compares with an unbroken run.

    python -m benchmarks.kill --out FOLDER [--rounds 20] [--kills 3] [--seed 0] [--pairs 10] [--what generate ...]

Each round starts the command and kills it `kills` times, then lets it end. A kill comes after a random time, or at a
random write: just before or just after its file gets its name. Everything the round has written must be, bit for bit,
what the unbroken run wrote, and nothing else may be there. Prints a Markdown table and writes kill.json; exit code 1 if
a round differs.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from pathlib import Path

import torch

from adiff.datasets.images import write_png
from adiff.datasets.surfaces import render, sample_seed
from adiff.library import Defect, Library, save_library
from adiff.storage import write_json

WHAT = ("generate", "train", "export", "import")
KEY, SIZE, WIDTH = ("metal", "scratch"), 128, 768
HEAVY = [
    "adiff.cli",
    "adiff.backbone.diffusers_host",
    "adiff.generation",
    "adiff.learning",
    "adiff.training",
    "scipy.fft",
]
"""What a command imports: once, in a server that every start is forked from; the import takes longer than the work."""


@dataclass(frozen=True)
class Kill:
    """at: number of the write, 0 for a kill by time; when: `before` or `after` the rename; seconds: until a kill."""

    at: int = 0
    when: str = "before"
    seconds: float | None = None


def make_inputs(folder: Path) -> None:
    """Draw 3 normals, 2 masks, a set with 2 shots, and a library whose embedding is random."""
    for index in range(3):
        normal = render(KEY[0], None, SIZE, sample_seed(0, *KEY, "normal", index))
        write_png(folder / "normals" / f"{index}.png", normal.image)
    for index in range(2):
        shot = render(*KEY, SIZE, sample_seed(0, *KEY, "shot", index))
        write_png(folder / "masks" / f"{index}.png", shot.mask)
        write_png(folder / "data" / KEY[0] / "test" / KEY[1] / f"{index}.png", shot.image)
        write_png(folder / "data" / KEY[0] / "ground_truth" / KEY[1] / f"{index}_mask.png", shot.mask)
    vectors = torch.randn(8, WIDTH, generator=torch.Generator().manual_seed(0))
    save_library(folder / "lib.safetensors", Library({KEY: Defect(*KEY, vectors)}, "0" * 64, "random", WIDTH))


def generate(inputs: Path, out: Path, pairs: int, batch: int = 2, steps: int = 2) -> list[str]:
    """Arguments of a run in out/run."""
    given = ["--normals", inputs / "normals", "--masks", inputs / "masks", "--out", out / "run"]
    given += ["-n", pairs, "--batch", batch, "--steps", steps]
    return [str(a) for a in ("generate", inputs / "lib.safetensors", "/".join(KEY), *given)]


def train(inputs: Path, out: Path, steps: int = 4) -> list[str]:
    """Arguments of a training of out/new.safetensors, both kinds of embeddings."""
    return [
        str(a) for a in ("train", inputs / "data", "--out", out / "new.safetensors", "--shots", 2, "--steps", steps)
    ]


def export(inputs: Path, out: Path) -> list[str]:
    """Arguments of an export of the run in inputs/run to out/coco."""
    return [str(a) for a in ("export", inputs / "run", "--format", "coco", "--out", out / "coco")]


def annotate(folder: Path) -> None:
    """Write three photos, of which two are annotated in COCO's way."""
    for index in range(3):
        photo = render(KEY[0], None, SIZE, sample_seed(0, *KEY, "photo", index))
        write_png(folder / f"{index}.png", photo.image)
    box = [10, 10, 20, 10, 20, 20]
    content = {
        "images": [{"id": index, "file_name": f"{index}.png"} for index in range(3)],
        "categories": [{"id": 1, "name": KEY[1]}],
        "annotations": [{"image_id": index, "category_id": 1, "segmentation": [box]} for index in (0, 2)],
    }
    write_json(folder / "instances.json", content)


def import_(inputs: Path, out: Path) -> list[str]:
    """Arguments of an import of the photos in inputs to out/set."""
    return [str(a) for a in ("import", inputs / "instances.json", "--out", out / "set")]


def start(arguments: list[str], folder: Path, kill: Kill | None = None) -> BaseProcess:
    """Start the command on one thread; `folder`: where it writes; kill: at which write it ends itself."""
    context = get_context("forkserver")
    context.set_forkserver_preload(HEAVY)
    threads = os.environ.get("OMP_NUM_THREADS")
    os.environ["OMP_NUM_THREADS"] = "1"  # as the server takes it over when it is started
    try:
        process = context.Process(target=_work, args=(arguments, str(folder), kill or Kill()), daemon=True)
        process.start()
    finally:
        os.environ.pop("OMP_NUM_THREADS")
        os.environ.update({} if threads is None else {"OMP_NUM_THREADS": threads})
    return process


def _work(arguments: list[str], folder: str, kill: Kill) -> None:
    """The command `adiff`, in a process that ends itself with -9 at a certain write below `folder`."""
    import adiff.training.loop as loop
    from adiff.cli import main

    with open(f"{folder.rstrip('/')}.log", "wb") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    written = 0

    def counted(name: Callable[[str, str], None]) -> Callable[[str, str], None]:
        def give(source: str, target: str) -> None:
            nonlocal written
            written += str(target).startswith(folder)
            if (written, kill.when) == (kill.at, "before"):
                os.kill(os.getpid(), signal.SIGKILL)
            name(source, target)
            if (written, kill.when) == (kill.at, "after"):
                os.kill(os.getpid(), signal.SIGKILL)

        return give

    os.replace, os.link = counted(os.replace), counted(os.link)
    loop.fit.__kwdefaults__["save_every"] = -1.0  # seconds: a training of a few steps has no state otherwise
    sys.argv = ["adiff", *arguments]
    main()


def finish(process: BaseProcess) -> bool:
    """Wait for the command: True if it is done, False if it was killed. RuntimeError for anything else."""
    process.join(600)
    if process.exitcode not in (0, -signal.SIGKILL):
        raise RuntimeError(f"the command ended with {process.exitcode}; see the log beside its folder")
    return process.exitcode == 0


def listing(folder: Path) -> dict[str, bytes]:
    """Every file below a folder. The library's previous state is left out: an unbroken training has none."""
    files = (path for path in folder.rglob("*") if path.is_file() and ".previous" not in path.name)
    return {path.relative_to(folder).as_posix(): content(path) for path in files}


def content(path: Path) -> bytes:
    """A file's bytes; safetensors' header, which comes in any order, is brought into one."""
    found = path.read_bytes()
    if path.suffix != ".safetensors":
        return found
    end = 8 + int.from_bytes(found[:8], "little")
    return json.dumps(json.loads(found[8:end]), sort_keys=True).encode() + found[end:]


def broken_run(arguments: list[str], folder: Path, kills: list[Kill]) -> int:
    """Run a command to its end through kills; returns how many of them came before the end."""
    happened = 0
    for kill in kills:
        process = start(arguments, folder, kill)
        if kill.seconds is not None:
            process.join(kill.seconds)
            process.kill()
        if finish(process):
            return happened
        happened += 1
    finish(start(arguments, folder))
    return happened


def choose(rng: random.Random, writes: int, seconds: float) -> Kill:
    """A random kill of a command that writes so many files in so many seconds."""
    if rng.random() < 0.5:
        return Kill(seconds=rng.uniform(0.1, 0.9) * seconds)
    return Kill(rng.randint(1, max(writes, 1)), rng.choice(("before", "after")))


def measure(what: str, inputs: Path, work: Path, options: argparse.Namespace) -> dict:
    """Run one command unbroken, then `rounds` times broken; returns the row of the table."""
    if what == "export" and not (inputs / "run").exists():
        finish(start(generate(inputs, inputs, options.pairs), inputs))
    made = {"generate": lambda out: generate(inputs, out, options.pairs), "train": lambda out: train(inputs, out),
            "export": lambda out: export(inputs, out),
            "import": lambda out: import_(inputs / "annotated", out)}  # fmt: skip
    make = made[what]
    whole = work / what / "unbroken"
    whole.mkdir(parents=True)
    began = time.monotonic()
    finish(start(make(whole), whole))
    seconds, expected = time.monotonic() - began, listing(whole)
    rng, rounds = random.Random(f"{what} {options.seed}"), []
    writes = 10 if what == "train" else len(expected)  # states of 4 steps and a library, twice
    for number in range(options.rounds):
        folder = work / what / f"round-{number}"
        folder.mkdir()
        kills = [choose(rng, writes, seconds) for _ in range(options.kills)]
        happened = broken_run(make(folder), folder, kills)
        found = listing(folder)
        differ = sorted(n for n in {*found, *expected} if found.get(n) != expected.get(n))
        rounds.append({"kills": [asdict(kill) for kill in kills], "happened": happened, "differ": differ})
        if not differ:  # else it is left to be looked at
            shutil.rmtree(folder)
        print(f"{what} {number}: {happened} kills, {len(differ)} files differ", file=sys.stderr)
    return {"command": what, "seconds": seconds, "files": len(expected), "rounds": rounds}


def table(rows: list[dict]) -> str:
    """A line for each command."""
    lines = [
        "| command | unbroken, s | files | rounds | kills | kills a round | rounds that differ |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        kills = [one["happened"] for one in row["rounds"]]
        wrong = sum(bool(one["differ"]) for one in row["rounds"])
        lines.append(f"| {row['command']} | {row['seconds']:.1f} | {row['files']} | {len(kills)} | {sum(kills)} | "
                     f"{statistics.mean(kills):.1f} | {wrong} |")  # fmt: skip
    return "\n".join(lines)


def main() -> None:
    """Measure every command."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--out", type=Path, required=True)
    options.add_argument("--rounds", type=int, default=20)
    options.add_argument("--kills", type=int, default=3)
    options.add_argument("--pairs", type=int, default=10)
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--what", nargs="+", choices=WHAT, default=WHAT)
    chosen = options.parse_args()
    work = chosen.out / "work"
    shutil.rmtree(work, ignore_errors=True)
    make_inputs(work / "inputs")
    annotate(work / "inputs" / "annotated")
    finish(start(["--version"], work / "server"))  # which others are forked from: its start is no part of their time
    rows = []
    for what in chosen.what:
        rows.append(measure(what, work / "inputs", work, chosen))
        (chosen.out / "kill.json").write_text(json.dumps({"seed": chosen.seed, "rows": rows}, indent=1))
    print(table(rows))
    if any(one["differ"] for row in rows for one in row["rounds"]):
        sys.exit(f"the rounds that differ are in {work}")
    shutil.rmtree(work)


if __name__ == "__main__":
    main()
