"""Real photos through train -> masks -> generate with the commands a user types: fill, leak and time for each set.

    python -m benchmarks.real_photos --data FOLDER --out FOLDER [--base BASE] [--steps N]

FOLDER holds sets in MVTec layout, each optionally with a groups.json that says which files show the same object; shots
then come from different groups. Prints a Markdown table and writes real_photos.json; look at the contact sheets.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

from adiff.contact_sheet import Block, contact_sheet, read_pair
from adiff.datasets.images import read_mask, read_photo
from adiff.datasets.readers import natural_key, read_dataset

CHOSEN = {"ball_screw": "pitting", "magnetic_tile": "blowhole", "mvtec_leather": "color", "pcb": "copper"}
"""One defect of each set."""
SHOTS, PAIRS = 5, 8


def choose_shots(folder: Path, defect: str) -> list[Path]:
    """Return up to SHOTS images of different groups, lowest ids first."""
    record = folder / "groups.json"
    groups = json.loads(record.read_text()) if record.exists() else {}
    shots = read_dataset(folder, defects=[defect]).shots[folder.name, defect]
    chosen: dict[str, Path] = {}
    for shot in sorted(shots, key=lambda s: natural_key(s.image.stem)):
        name = shot.image.relative_to(folder).as_posix()
        chosen.setdefault(groups.get(name, name), shot.image)
    return list(chosen.values())[:SHOTS]


def copy_shots(folder: Path, defect: str, out: Path) -> int:
    """Lay a data set of the chosen shots and the set's normals under `out`; return the number of shots."""
    images = choose_shots(folder, defect)
    for image in images:
        target = out / folder.name / "test" / defect
        truth = out / folder.name / "ground_truth" / defect
        for where in (target, truth):
            where.mkdir(parents=True, exist_ok=True)
        shutil.copy(image, target / image.name)
        shutil.copy(folder / "ground_truth" / defect / f"{image.stem}_mask.png", truth / f"{image.stem}_mask.png")
    shutil.copytree(folder / "train" / "good", out / folder.name / "train" / "good", dirs_exist_ok=True)
    return len(images)


def run(*arguments: str | Path) -> float:
    """Run one `adiff` command and return its seconds; its output goes on the screen."""
    began = time.monotonic()
    subprocess.run([sys.executable, "-m", "adiff", *map(str, arguments)], check=True)
    return time.monotonic() - began


def measure(folder: Path, defect: str, out: Path, base: str, steps: int) -> dict:
    """Train, sample masks, generate with learned masks and with the shots' own; return one row of the table."""
    data, library = out / "data", out / f"{folder.name}.safetensors"
    shots = copy_shots(folder, defect, data)
    name, normals = f"{folder.name}/{defect}", data / folder.name / "train" / "good"
    common = ["--product", folder.name, "--shots", shots, "--base", base]
    seconds = {"train": run("train", data, *common, "--steps", steps, "--out", library)}
    seconds["masks"] = run("masks", library, name, "--base", base, "-n", PAIRS, "--out", out / f"{folder.name}-masks")
    rows, blocks = {}, []
    drawn = data / folder.name / "ground_truth" / defect
    kinds = {"learned": []}
    if len({read_photo(p).size for p in (*drawn.iterdir(), *normals.iterdir())}) == 1:  # else they fit no other photo
        kinds["shots"] = ["--masks", drawn]
    for kind, more in kinds.items():
        target = out / f"{folder.name}-{kind}"
        seconds[f"generate, {kind} masks"] = run(
            "generate", library, name, "--base", base, "--normals", normals, "-n", PAIRS, "--out", target, *more
        )
        records = [json.loads(p.read_text()) for p in sorted((target / "pairs").glob("*.json"))]
        rows[kind] = {key: [r[key] for r in records] for key in ("fill", "leak", "area")}
        title = f"{defect}, {kind} masks"
        blocks.append(_block(folder.name, title, target, normals, data / folder.name, defect, records))
    contact_sheet(blocks, out / f"{folder.name}.png")
    real = [float(read_mask(p).mask.mean()) for p in sorted(drawn.glob("*.png"))]
    return {"set": folder.name, "defect": defect, "shots": shots, "seconds": seconds, "pairs": rows, "real areas": real}


def _block(product: str, title: str, run: Path, normals: Path, shots: Path, defect: str, records: list[dict]) -> Block:
    truth = shots / "ground_truth" / defect
    pictures = [(read_photo(p).rgb, read_mask(truth / f"{p.stem}_mask.png").mask)
                for p in sorted((shots / "test" / defect).iterdir())]  # fmt: skip
    return Block(product, title, pictures, [read_pair(run, record, normals) for record in records])


def table(rows: list[dict]) -> str:
    """Return the rows as Markdown."""
    lines = ["| set / defect | shots | masks | fill, median (range) | leak, max | train s | masks s | pair s |",
             "|---|---|---|---|---|---|---|---|"]  # fmt: skip
    for row in rows:
        for kind, pairs in row["pairs"].items():
            fill = pairs["fill"]
            lines.append(
                f"| {row['set']} / {row['defect']} | {row['shots']} | {kind} "
                f"| {statistics.median(fill):.2f} ({min(fill):.2f}-{max(fill):.2f}) | {max(pairs['leak'])} "
                f"| {row['seconds']['train']:.0f} | {row['seconds']['masks']:.0f} "
                f"| {row['seconds'][f'generate, {kind} masks'] / len(fill):.1f} |"
            )
    return "\n".join(lines)


def main() -> None:
    """Measure every chosen set."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--data", type=Path, required=True)
    options.add_argument("--out", type=Path, required=True, help="new folder")
    options.add_argument("--base", default="demo")
    options.add_argument("--steps", type=int, default=200, help="of each inversion")
    options.add_argument("--sets", nargs="+", choices=CHOSEN, default=list(CHOSEN))
    chosen = options.parse_args()
    chosen.out.mkdir(parents=True, exist_ok=True)
    rows = []
    for name in chosen.sets:
        rows.append(measure(chosen.data / name, CHOSEN[name], chosen.out, chosen.base, chosen.steps))
        (chosen.out / "real_photos.json").write_text(json.dumps(rows, indent=1))
    print(table(rows))


if __name__ == "__main__":
    main()
