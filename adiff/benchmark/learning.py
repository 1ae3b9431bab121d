"""What a cell is painted with: embeddings, encoder and masks, each learned once and kept for all cells that share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..backbone import Backbone
from ..datasets.images import Photo, read_mask, write_png
from ..datasets.readers import read_shots
from ..errors import InputError
from ..generation import GenerationSettings, LearnedMasks, MaskSource, ShotMasks
from ..generation.batch import Task
from ..generation.placing import Objects, PlacedMasks, find_objects, given_objects
from ..generation.sources import Batch, Chosen, NoMask
from ..learning import Shots, check_finite, learn_anomalies, learn_masks, new_defect, new_encoder
from ..library import Defect, Key, Library, load_library, save_library
from ..masks import MaskRules
from ..progress import Progress
from ..spatial_encoder import SpatialEncoder, fingerprint, load_encoder, save_encoder
from ..storage import read_json_object, remove_leftovers, write_json
from ..training import AnomalySettings, MaskSettings
from ..training.loop import discard_state
from ..training.settings import TYPES
from .matrix import Budget, Recipe, digest_of
from .target import Unit
from .turns import Turns

LIBRARY, ENCODER = "library.safetensors", "encoder.safetensors"


@dataclass(frozen=True)
class Learned:
    """library: e_a of a unit's defects. encoder: the E they belong to, None without."""

    library: Library
    encoder: SpatialEncoder | None


@dataclass(frozen=True)
class Workshop:
    """Where cells get what they are painted with.

    encoder: file of a trained E that is used as it is; None: E is learned with each unit's embeddings. out: folder of
    what was learned. turns: with other processes; what one of them is making raises Busy. foreground: folder of masks
    of the object (`given_objects`), None where it is found; for masks that are placed.
    """

    backbone: Backbone
    encoder: Path | None
    budget: Budget
    out: Path
    turns: Turns
    foreground: Path | None = None

    def shots(self, unit: Unit, recipe: Recipe) -> dict[Key, Shots]:
        """Open the shots that a recipe learns from."""
        opened = {}
        for defect in unit.defects:
            shots = unit.teaching(defect, self.budget.shots if recipe.shots is None else recipe.shots)
            files = read_shots(shots)
            opened[unit.product, defect] = Shots(
                pairs=[(photo.rgb, mask.mask) for photo, mask in files],
                files=tuple(shot.image.relative_to(unit.split.root).as_posix() for shot in shots),
                held_out=(),
                grey_masks=tuple(shot.mask.name for shot, (_, mask) in zip(shots, files, strict=True) if mask.grey),
            )
        return opened

    def learn(self, unit: Unit, recipe: Recipe, seed: int, progress: Progress) -> Learned:
        """Learn e_a of a unit's defects together, or read what was learned before."""
        folder = self.out / f"{unit.product}-{seed}-{digest_of(unit.record(), recipe.learning())}"
        if not (folder / LIBRARY).exists():
            with self.turns.alone(folder.name):
                if not (folder / LIBRARY).exists():  # since it was looked at
                    remove_leftovers(folder)
                    self._learn(folder, unit, recipe, seed, progress)
        encoder = self._fixed_encoder(recipe)
        if recipe.spatial and encoder is None:
            encoder, _ = load_encoder(folder / ENCODER)
        return Learned(load_library(folder / LIBRARY), encoder)

    def masks(self, unit: Unit, recipe: Recipe, seed: int, progress: Progress) -> dict[Key, MaskSource]:
        """Where the masks of each defect come from: e_m learned once, each mask sampled once for all cells."""
        digest = digest_of(unit.record(), recipe.masks(), self.budget.pairs, *self.budget.places())
        folder = self.out / f"{unit.product}-{seed}-masks-{digest}"
        there = self._kept(folder, unit, recipe.varied, seed) if (folder / LIBRARY).exists() else {}
        if there and all(kept.has(range(self.budget.pairs)) for kept in there.values()):
            return there
        with self.turns.alone(folder.name):
            remove_leftovers(folder, *(folder / defect for defect in unit.defects))
            if not (folder / LIBRARY).exists():
                self._learn_masks(folder, unit, recipe, seed, progress)
            sources = self._kept(folder, unit, recipe.varied, seed)
            for key, kept in sources.items():
                self._draw(kept, key, unit, recipe.generation, seed, progress)
        return sources

    def _kept(self, folder: Path, unit: Unit, varied: bool, seed: int) -> dict[Key, KeptMasks]:
        sources = {}
        objects = self.objects(unit) if self.budget.places() else None
        for key, entry in load_library(folder / LIBRARY).defects.items():
            shots = list(entry.shot_masks)
            source = ShotMasks(shots) if varied else LearnedMasks(entry.mask, MaskRules.from_shots(shots), shots)
            if objects is not None:
                source = PlacedMasks.of(source, objects, self.budget.place, shots)
            sources[key] = KeptMasks(source, folder / key[1], seed)
        return sources

    def objects(self, unit: Unit) -> Objects:
        """Where the object is in a unit's normal images: marked, else found."""
        normals = unit.split.train_normals
        if self.foreground is None:
            return find_objects(normals)
        return given_objects(self.foreground, unit.product, normals)

    def _draw(
        self, kept: KeptMasks, key: Key, unit: Unit, settings: GenerationSettings, seed: int, progress: Progress
    ) -> None:
        """Draw all masks of a defect as runs will ask for them, so that no two processes draw the same ones."""
        task = Task(self.backbone, (), None, unit.split.train_normals, settings, seed, self.budget.pairs)
        progress.start(task.count, f"masks {'/'.join(key)}")
        for number in range(task.batches):
            photos = task.read(number)
            if all(isinstance(photo, Photo) for photo in photos):  # else the run itself finds a stand-in
                kept.masks(self.backbone, photos, Batch(seed, number, task.ids(number)))
            progress.update(min((number + 1) * settings.batch, task.count))
        progress.finish()

    def _fixed_encoder(self, recipe: Recipe) -> SpatialEncoder | None:
        if not recipe.spatial or recipe.spatial_tokens is not None or self.encoder is None:
            return None
        return load_encoder(self.encoder)[0]

    def _learn(self, folder: Path, unit: Unit, recipe: Recipe, seed: int, progress: Progress) -> None:
        """Learn e_a, and E where none is given, and write both, the library last."""
        shots, encoder = self.shots(unit, recipe), self._fixed_encoder(recipe)
        fixed, state = encoder is not None, folder / ".state.safetensors"
        if recipe.spatial and encoder is None:
            tokens = {} if recipe.spatial_tokens is None else {"tokens": recipe.spatial_tokens}
            encoder = new_encoder(self.backbone, seed, **tokens)
        entries = {key: new_defect(key, of_key, self.backbone) for key, of_key in shots.items()}
        settings = AnomalySettings.for_base(
            self.backbone, [len(of_key.pairs) for of_key in shots.values()], tokens=recipe.tokens,
            steps=_steps(self.budget.learn_steps, len(entries)), early_stop=False, masked=recipe.masked,
        )  # fmt: skip
        entries, encoder = learn_anomalies(
            self.backbone, entries, shots, encoder, freeze_encoder=fixed, settings=settings, seed=seed,
            progress=progress, state=state,
        )  # fmt: skip
        check_finite(entries)
        if encoder is not None and not fixed:
            save_encoder(folder / ENCODER, encoder, {})
        self._save(folder, entries, None if encoder is None else fingerprint(encoder))
        discard_state(state)

    def _learn_masks(self, folder: Path, unit: Unit, recipe: Recipe, seed: int, progress: Progress) -> None:
        shots, state = self.shots(unit, recipe), folder / ".state.safetensors"
        entries = {key: new_defect(key, of_key, self.backbone) for key, of_key in shots.items()}
        if recipe.varied:  # there is nothing to learn
            self._save(folder, entries, None)
            return
        settings = MaskSettings.for_base(
            self.backbone, [len(of_key.pairs) for of_key in shots.values()], tokens=recipe.mask_tokens,
            steps=_steps(self.budget.mask_steps, len(entries)), early_stop=False,
        )  # fmt: skip
        entries = learn_masks(
            self.backbone, entries, shots, settings=settings, seed=seed, progress=progress, state=state
        )  # fmt: skip
        check_finite(entries)
        self._save(folder, entries, None)
        discard_state(state)

    def _save(self, folder: Path, entries: Mapping[Key, Defect], encoder: str | None) -> None:
        base = self.backbone
        library = Library(dict(entries), base.fingerprint, base.name, base.context_dim, encoder)
        save_library(folder / LIBRARY, library)


def _steps(steps: int, defects: int) -> int:
    """Steps of an inversion of that many defects together, as `InversionSettings.for_base` has them by default."""
    return round(steps * max(1, defects / TYPES))


@dataclass(frozen=True, eq=False)
class KeptMasks:
    """Masks of a source, each drawn once and kept as a file, so that runs of one seed are painted in the same masks.

    A batch is drawn whole, as its masks depend on its number. Runs that share the folder must share the normal images.
    seed: of the runs. What a run asks for by another one, a further try at a pair, is drawn for it alone.
    """

    source: MaskSource
    folder: Path
    seed: int

    def masks(self, backbone: Backbone, photos: Sequence[Photo], batch: Batch) -> list[Chosen | NoMask]:
        """Read a batch's masks, or draw and write them, each record after its mask."""
        if batch.seed != self.seed:
            return self.source.masks(backbone, photos, batch)
        if not self.has(batch.ids):
            for number, chosen in zip(batch.ids, self.source.masks(backbone, photos, batch), strict=True):
                if isinstance(chosen, NoMask):  # a cell of fewer pairs would not compare
                    raise InputError(f"pair {number}: {chosen.reason}")
                write_png(self._mask(number), chosen[0])
                write_json(self._record(number), chosen[1])
        return [self._read(number, photo) for number, photo in zip(batch.ids, photos, strict=True)]

    def has(self, numbers: Sequence[int]) -> bool:
        """Whether the masks of these pairs were drawn."""
        return all(self._record(number).exists() for number in numbers)

    def files(self, number: int, normal: Path) -> list[Path]:
        """Return those of the source."""
        return self.source.files(number, normal)

    def record(self, base: Backbone) -> dict[str, Any]:
        """Return what run.json keeps of the source."""
        return self.source.record(base)

    def _read(self, number: int, photo: Photo) -> tuple[np.ndarray, dict[str, Any]]:
        record = read_json_object(self._record(number), "remove it, and the mask is drawn again")
        return read_mask(self._mask(number), photo.size).mask, record

    def _mask(self, number: int) -> Path:
        return self.folder / f"{number:06d}.png"

    def _record(self, number: int) -> Path:
        return self.folder / f"{number:06d}.json"
