"""Damages files of every kind that is read, and looks for anything but the documented errors.

    python -m benchmarks.fuzz --out FOLDER [--cases 100000] [--only "photo" "library" ...] [--seed 0]
    python -m benchmarks.fuzz --out FOLDER --atheris [--cases 100000] [--only ...]

A case is a whole file with damage that follows from (seed, reader, number) alone (`mutations`); it is opened
(`readers`). Found are: any error but InputError and FileNotFoundError, a case of more than 10 s of CPU time, one that
needs more than 4 GiB of addresses beyond what was there at the start, and a file made outside the folder. What found
something is kept in FOLDER/found. With --atheris (pip install atheris) the damage is led by the lines of adiff that it
reaches. Prints a Markdown table, writes fuzz.json; exit code 1 if anything was found.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import json
import logging
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import FunctionType

from adiff.errors import InputError

from .mutations import mutate
from .readers import Reader, all_readers
from .workflow import PACK

SECONDS, ADDRESSES = 10, 4 * 2**30
ALLOWED = (InputError, FileNotFoundError)
LED = ("adiff.", f"{PACK}.", "PIL.")
"""Whose lines lead the damage with --atheris."""


class Hang(Exception):
    """A case took too long."""


def _late(_signal, _frame) -> None:
    raise Hang


class Trial:
    """One reader in a folder of its own below `folder`, which is looked at for strangers."""

    def __init__(self, reader: Reader, folder: Path, found: Path):
        self.reader, self.found, self.outcomes = reader, found, Counter()
        self.folder = folder / "inner"
        self.folder.mkdir(parents=True)
        reader.make(self.folder)
        self.path = self.folder / reader.file
        self.whole = self.path.read_bytes()
        with contextlib.suppress(InputError):  # the base model is too small to be one
            reader.read(self.path)
        self.around = self._listing()

    def case(self, data: bytes, name: str) -> str | None:
        """Read one damaged file; returns what was found, if anything."""
        self.path.write_bytes(data)
        signal.signal(signal.SIGPROF, _late)
        signal.setitimer(signal.ITIMER_PROF, SECONDS)
        fault = None
        try:
            self.reader.read(self.path)
            self.outcomes["read"] += 1
        except ALLOWED as error:
            if len(str(error)) > 2000 or "\n" in str(error):
                fault = f"a message of {len(str(error))} characters: {str(error)[:80]!r}"
            self.outcomes["refused"] += 1
        except Hang:
            fault = f"more than {SECONDS} s"
        except Exception as error:
            fault = f"{type(error).__name__}: {' '.join(str(error).split())[:160]}"
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
        if fault is not None:
            self._keep(data, name, fault)
        return fault

    def strangers(self) -> list[str]:
        """Files outside the reader's folder, or in it, that were not there at the start."""
        return sorted(self._listing() - self.around - {"inner/report.html"})

    def _listing(self) -> set[str]:
        return {p.relative_to(self.folder.parent).as_posix() for p in self.folder.parent.rglob("*")}

    def _keep(self, data: bytes, name: str, fault: str) -> None:
        self.found.mkdir(parents=True, exist_ok=True)
        (self.found / f"{name}{self.path.suffix}").write_bytes(data)
        print(f"{name}: {fault}", file=sys.stderr)


def fuzz(reader: Reader, cases: int, seed: int, found: Path) -> dict:
    """Run cases 0 .. cases-1 of a reader; returns the row of the table."""
    folder = Path(tempfile.mkdtemp(prefix="fuzz-"))
    try:
        trial = Trial(reader, folder, found)
        began, faults = time.monotonic(), []
        for number in range(cases):
            data = mutate(trial.whole, random.Random(f"{seed} {reader.name} {number}"))
            fault = trial.case(data, f"{reader.name.replace(' ', '-').replace('/', '-')}-{number}")
            if fault is not None:
                faults.append((number, fault))
        return {
            "reader": reader.name, "cases": cases, "read": trial.outcomes["read"],
            "refused": trial.outcomes["refused"], "found": faults, "strangers": trial.strangers(),
            "seconds": round(time.monotonic() - began, 1),
        }  # fmt: skip
    finally:
        shutil.rmtree(folder)


def guard() -> None:
    """Make a blow-up of memory an error; silence what is said of strange files."""
    now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (now + ADDRESSES, resource.getrlimit(resource.RLIMIT_AS)[1]))
    warnings.simplefilter("ignore")
    logging.getLogger("adiff").setLevel(logging.CRITICAL)
    logging.getLogger("PIL").setLevel(logging.CRITICAL)


def led_by_coverage(reader: Reader, cases: int, seed: int, found: Path) -> None:
    """Run one reader under atheris, which ends the process; the first thing found ends it with exit code 77."""
    import atheris

    trial = Trial(reader, Path(tempfile.mkdtemp(prefix="fuzz-")), found)  # has read once: all is imported
    for function in gc.get_objects():
        if isinstance(function, FunctionType) and f"{function.__module__}.".startswith(LED):
            atheris.instrument_func(function)
    corpus = Path(tempfile.mkdtemp(prefix="corpus-"))
    (corpus / "whole").write_bytes(trial.whole)

    def one(data: bytes) -> None:
        if fault := trial.case(data, f"{reader.name.replace(' ', '-').replace('/', '-')}-atheris"):
            raise AssertionError(fault)

    def change(data: bytes, largest: int, number: int) -> bytes:
        return mutate(data, random.Random(number))[:largest]

    arguments = [
        sys.argv[0], f"-runs={cases}", f"-seed={seed + 1}", f"-max_len={4 * len(trial.whole)}",
        "-rss_limit_mb=0",  # `guard` sets ours
        str(corpus),
    ]  # fmt: skip
    atheris.Setup(arguments, one, custom_mutator=change)
    atheris.Fuzz()


def in_a_fork(work: Callable[..., None], reader: Reader, chosen: argparse.Namespace) -> int:
    """Do what ends its process; returns that one's exit code."""
    child = os.fork()
    if child == 0:
        work(reader, chosen.cases, chosen.seed, chosen.out / "found")
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def table(rows: list[dict]) -> str:
    """A line for each reader."""
    lines = ["| file | cases | read | refused | found | cases/s |", "|---|---|---|---|---|---|"]
    for row in rows:
        found = len(row["found"]) + len(row["strangers"])
        lines.append(f"| {row['reader']} | {row['cases']:,} | {row['read']:,} | {row['refused']:,} | {found} | "
                     f"{row['cases'] / max(row['seconds'], 0.1):,.0f} |")  # fmt: skip
    return "\n".join(lines)


def main() -> None:
    """Fuzz every reader."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--out", type=Path, required=True)
    options.add_argument("--cases", type=int, default=100_000)
    options.add_argument("--only", nargs="+", default=None)
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--atheris", action="store_true")
    chosen = options.parse_args()
    readers = [reader for reader in all_readers() if chosen.only is None or reader.name in chosen.only]
    if not readers:
        options.error(f"--only: choose from {', '.join(reader.name for reader in all_readers())}")
    guard()
    if chosen.atheris:
        codes = {reader.name: in_a_fork(led_by_coverage, reader, chosen) for reader in readers}
        print("\n".join(f"{name}: {'nothing' if code == 0 else f'exit code {code}'}" for name, code in codes.items()))
        sys.exit(any(codes.values()))
    chosen.out.mkdir(parents=True, exist_ok=True)
    record, rows = chosen.out / "fuzz.json", []
    for reader in readers:
        rows.append(fuzz(reader, chosen.cases, chosen.seed, chosen.out / "found"))
        record.write_text(json.dumps({"seed": chosen.seed, "rows": rows}, indent=1))
        print(table(rows[-1:]).splitlines()[-1], file=sys.stderr, flush=True)
    print(table(rows))
    if any(row["found"] or row["strangers"] for row in rows):
        sys.exit(f"something was found; see {chosen.out / 'found'}")


if __name__ == "__main__":
    main()
