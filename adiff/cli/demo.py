"""`adiff demo`: the whole method on the embedded model, from drawn surfaces to a report."""

from __future__ import annotations

import shlex
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import InputError
from ..storage import write_json
from .app import keeping
from .jobs import mask_source
from .options import Seed
from .progress import CliProgress, duration
from .surfaces import RECORD, write_surfaces

if TYPE_CHECKING:
    from ..backbone import Backbone
    from ..contact_sheet import Block
    from ..generation import RunResult
    from ..learning import Shots
    from ..library import Key, Library

DEFECTS = (("metal", "scratch"), ("tile", "stain"), ("wood", "hole"))
"""Withheld from the demo model: it has never seen one of these on this product."""
SHOTS, IMAGES, SIZE = 5, 12, 128
SHAPES = 0.6
"""How far real masks are made anew: a demo is looked at, and this keeps to the real shapes."""
ANOMALY: dict[str, Any] = {"steps": 60, "batch": 9, "early_stop": False}
MASK: dict[str, Any] = {"steps": 70, "batch": 9, "early_stop": False}
"""What the demo, to take one or two minutes, learns with otherwise than `AnomalySettings` and `MaskSettings` say."""
TITLE = "Defects from five photos each"
LEAD = (
    "Three kinds of defect that the embedded model has never seen on these products, each learned from {shots} photos "
    "with masks. New masks come out of the diffusion sampler; the defects are painted into normal images, which stay "
    "as they were, bit for bit, outside the masks."
)
NOTE = (
    "The photos are drawn by a program (adiff surfaces) and the model is a small one trained on such drawings. "
    "For real photos the same commands take a Stable Diffusion 1.x checkpoint with --base."
)


def demo(
    out: Annotated[
        Path, typer.Option("--out", metavar="DIR", help="Folder to write; new, empty or of an unfinished demo.")
    ] = Path("adiff-demo"),
    pairs: Annotated[int, typer.Option("--pairs", min=1, help="Pairs to make, over three defects.")] = 24,
    seed: Seed = 0,
) -> None:
    """Show the whole method in one to two minutes: data, learning, masks, pairs, report."""
    claim(out)
    run = _Demo(out, pairs, seed)
    with CliProgress() as progress, keeping(lambda: _kept(out)):
        results = run.work(progress)
    run.summarise(results)


def _kept(out: Path) -> str:
    """What Ctrl-C leaves: nothing while the model is loaded."""
    return f"what is done is in {out}; the same command goes on from there" if out.exists() else "nothing was written"


def claim(out: Path) -> None:
    """Raise InputError unless the folder is new, empty or an unfinished demo's."""
    if out.exists() and not out.is_dir():
        raise InputError(f"{out} is a file; give a folder")
    if (out / "report.json").exists():
        raise InputError(f"{out} holds a finished demo; look at {out / 'report.html'}, or give another --out")
    if out.exists() and any(out.iterdir()) and not (out / "data" / RECORD).exists():
        raise InputError(f"{out} is not empty and holds no demo; give a new or an empty folder")


@dataclass
class _Demo:
    """One demo: its folder, its settings, and the seconds its phases took."""

    out: Path
    pairs: int
    seed: int
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        began = time.perf_counter()
        yield
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - began

    def work(self, progress: CliProgress) -> dict[Key, RunResult]:
        """Do all of it, phase by phase."""
        with self.phase("load"):
            from ..backbone import demo_encoder_path, load_backbone
            from ..backbone.precision import AUTO
            from ..datasets.readers import read_dataset
            from ..learning import open_shots
            from ..spatial_encoder import load_encoder

            backbone = load_backbone("demo", precision=AUTO)
            encoder, _ = load_encoder(demo_encoder_path())
        with self.phase("surfaces"):
            products = {product: (defect,) for product, defect in DEFECTS}
            write_surfaces(self.out / "data", products, IMAGES, SIZE, self.seed, progress)
            shots = open_shots(read_dataset(self.out / "data"), SHOTS)
        library = self._learn(backbone, encoder, shots, progress)
        results = {}
        for key, count in self._shares().items():
            with self.phase("generate"):
                results[key] = self._generate(backbone, library, key, encoder, count, progress)
        with self.phase("data set and sheet"):
            blocks = self._write_dataset(results, shots)
        self._write_report(backbone, results, blocks)
        return results

    def _shares(self) -> dict[Key, int]:
        """Pairs of each defect: equal shares, the first ones take the rest."""
        each, rest = divmod(self.pairs, len(DEFECTS))
        shares = {key: each + (index < rest) for index, key in enumerate(DEFECTS)}
        return {key: count for key, count in shares.items() if count}

    def _learn(self, backbone: Backbone, encoder: Any, shots: dict[Key, Shots], progress: CliProgress) -> Library:
        """Learn the defects and their masks, or take them from the unfinished demo's library."""
        from ..learning import learn_anomalies, learn_masks, new_defect, open_library
        from ..library import Library, save_library
        from ..spatial_encoder import fingerprint
        from ..training import AnomalySettings, MaskSettings

        path = self.out / "library.safetensors"
        library = open_library(path, backbone)
        if set(DEFECTS) <= set(library.defects):
            return library
        states = [self.out / f".{name}.state" for name in ("defects", "masks")]
        entries = {key: new_defect(key, shots[key], backbone) for key in DEFECTS}
        with self.phase("learn defects"):
            entries, _ = learn_anomalies(
                backbone, entries, shots, encoder, freeze_encoder=True, settings=AnomalySettings(**ANOMALY),
                seed=self.seed, progress=progress, state=states[0],
            )  # fmt: skip
        with self.phase("learn masks"):
            entries = learn_masks(
                backbone, entries, shots, settings=MaskSettings(**MASK),
                seed=self.seed, progress=progress, state=states[1],
            )  # fmt: skip
        from ..backbone import demo_encoder_path

        shutil.copyfile(demo_encoder_path(), self.out / "encoder.safetensors")
        library = Library(entries, backbone.fingerprint, backbone.name, backbone.context_dim, fingerprint(encoder))
        save_library(path, library)
        for state in states:
            state.unlink(missing_ok=True)
        return library

    def _generate(
        self, backbone: Backbone, library: Library, key: Key, encoder: Any, count: int, progress: CliProgress
    ) -> RunResult:
        from ..datasets.readers import list_images
        from ..generation import GenerationSettings, generate_run

        normals, entry = list(list_images(self._normals(key))), library.defects[key]
        result = generate_run(
            backbone, library, key, encoder, normals, mask_source(entry, denoise=SHAPES), count=count,
            out=self._run_of(key), settings=GenerationSettings(), seed=self.seed, progress=progress,
        )  # fmt: skip
        if result.cancelled:
            raise KeyboardInterrupt
        return result

    def _normals(self, key: Key) -> Path:
        return self.out / "data" / key[0] / "train" / "good"

    def _run_of(self, key: Key) -> Path:
        return self.out / "runs" / "-".join(key)

    def _write_dataset(self, results: dict[Key, RunResult], shots: dict[Key, Shots]) -> list[Block]:
        """Write the data set and the contact sheet; returns what the report shows."""
        from ..contact_sheet import Block, contact_sheet, read_pair
        from ..datasets.images import read_photo
        from ..datasets.readers import list_images
        from ..datasets.writers import write_mvtec_good, write_mvtec_pair

        blocks: list[Block] = []
        for (product, defect), result in results.items():
            key = product, defect
            normals = self._normals(key)
            opened = [read_pair(self._run_of(key), record, normals) for record in result.pairs]
            blocks.append(Block(product, defect, shots[key].pairs, opened))
            for pair in opened:
                write_mvtec_pair(self.out / "dataset", *key, pair.record["id"], pair.generated, pair.mask)
            for path in list_images(normals):
                write_mvtec_good(self.out / "dataset", product, "train", path.stem, read_photo(path).pixels)
        contact_sheet(blocks, self.out / "contact_sheet.png", title=TITLE)
        return blocks

    def _write_report(self, backbone: Backbone, results: dict[Key, RunResult], blocks: list[Block]) -> None:
        """Write report.html and, last, as it marks the demo finished, report.json."""
        from ..report import Report, write_report

        settings, seconds = self._settings(backbone), dict(self.seconds)
        lead = LEAD.format(shots=SHOTS)
        write_report(self.out / "report.html", Report(TITLE, lead, blocks, self.command, settings, seconds, (NOTE,)))
        records = [record for result in results.values() for record in result.pairs]
        content = {"settings": settings, "command": self.command, "seconds": seconds, "pairs": records}
        write_json(self.out / "report.json", content)

    @property
    def command(self) -> str:
        words = ["--out", self.out, "--pairs", self.pairs, "--seed", self.seed]
        return shlex.join(["adiff", "demo", *map(str, words)])

    def _settings(self, backbone: Backbone) -> dict[str, dict[str, Any]]:
        from ..generation import GenerationSettings
        from ..training import AnomalySettings, MaskSettings
        from ..versions import versions

        demo = {"pairs": self.pairs, "seed": self.seed, "shots": SHOTS, "image size": SIZE, "base": backbone.name}
        return {
            "demo": demo,
            "learning defects": asdict(AnomalySettings(**ANOMALY)),
            "learning masks": asdict(MaskSettings(**MASK)),
            "generation": asdict(GenerationSettings()),
            "versions": versions(),
        }

    def summarise(self, results: dict[Key, RunResult]) -> None:
        """Say what came out, how long it took and where to look."""
        from rich.console import Console
        from rich.table import Table

        from ..report import summarise

        table = Table(box=None, pad_edge=False, header_style="dim")
        table.add_column("defect")
        for name in ("pairs", "median fill", "leak, levels", "median mask overlap"):
            table.add_column(name, justify="right")
        for key, result in results.items():
            numbers = summarise(result.pairs)
            shown = [_shown(numbers[name], digits) for name, digits in (("fill", 2), ("leak", 0), ("iou", 2))]
            table.add_row("/".join(key), str(numbers["pairs"]), *shown)
        console = Console()
        console.print(table)
        phases = ", ".join(f"{name} {duration(spent)}" for name, spent in self.seconds.items())
        console.print(f"\n{duration(sum(self.seconds.values()))}: {phases}", highlight=False, soft_wrap=True)
        for name in ("report.html", "contact_sheet.png", "dataset"):
            console.print(f"  {self.out / name}", highlight=False, soft_wrap=True)


def _shown(value: float | None, digits: int) -> str:
    return "–" if value is None else f"{value:.{digits}f}"
