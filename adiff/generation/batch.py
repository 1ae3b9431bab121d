"""One batch of a run: a task that depends on the run's settings and the batch's number alone, whoever works on it.

The k-th try of a pair, k from 0, paints the pair's normal image with a mask and noise of its own; they are functions of
(run seed, pair id, k). Masks of first tries are sampled for the batch as a whole, which is a function of the batch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from ..backbone import Backbone
from ..datasets.images import Photo, read_photo
from ..errors import InputError
from ..memory import Parts
from ..pair_filter import PairFilter
from ..progress import Progress
from ..scoring import ShotReference
from ..spatial_encoder import SpatialEncoder
from ..storage import short_digest
from .guidance import PAIRS, STEPS, GuidanceFit, fit_guidance
from .layers import Layer, Region, masks_apart, paint_masks
from .pairs import make_pairs
from .seeds import derived_seed, generator_for, rng_for
from .settings import GenerationSettings
from .sources import Batch, FolderMasks, NoMask


@dataclass(frozen=True)
class Broken:
    """A pair that cannot be made: its number, its normal image, and what is wrong.

    has_no_mask: its normal image opens, but no mask was found for it.
    """

    number: int
    normal: Path
    reason: str
    has_no_mask: bool = False


@dataclass(frozen=True, eq=False)
class Try:
    """One painting of a pair, the attempt-th from 0; reasons: the limits it breaks, () for a pair that is kept."""

    number: int
    attempt: int
    photo: Photo
    regions: list[Region]
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Made:
    """What came out of a batch: every try, kept or not, in the order of numbers and attempts, and broken pairs."""

    number: int
    tries: list[Try]
    broken: list[Broken]


@dataclass(frozen=True, eq=False)
class Task:
    """What all batches of a run are made from.

    count: pairs of the run. filters: one for each layer, or none; tries: paintings of a pair before it is given up.
    """

    backbone: Backbone
    layers: Sequence[Layer]
    encoder: SpatialEncoder | None
    normals: Sequence[Path]
    settings: GenerationSettings
    seed: int
    count: int
    filters: Sequence[PairFilter] = ()
    tries: int = 1
    parts: Parts = field(default_factory=Parts)

    @property
    def batches(self) -> int:
        """Number of batches."""
        return -(-self.count // self.settings.batch)

    def ids(self, batch: int) -> range:
        """Numbers of a batch's pairs."""
        first = batch * self.settings.batch
        return range(first, min(first + self.settings.batch, self.count))

    def normal_of(self, number: int) -> Path:
        """The normal image that a pair is painted into: the one that its mask was placed on, else any."""
        for layer in self.layers:
            name = layer.masks.normal_of(number) if isinstance(layer.masks, FolderMasks) else None
            if name is not None:
                return self._named[name]
        return self.normals[int(rng_for(self.seed, "normal", number).integers(len(self.normals)))]

    def files_of(self, number: int) -> list[Path]:
        """The files that a pair is made from: its normal image, then those of its masks."""
        normal = self.normal_of(number)
        return [normal, *(path for layer in self.layers for path in layer.masks.files(number, normal))]

    def digests_of(self, number: int) -> list[str | None]:
        """What these files hold now, for records."""
        return [short_digest(path) for path in self.files_of(number)]

    @cached_property
    def _named(self) -> dict[str, Path]:
        """The normal images by their names."""
        return {path.name: path for path in self.normals}

    def read(self, batch: int) -> list[Photo | Broken]:
        """Read the normal images of a batch; one that does not open is told, not raised."""
        return self._open(self.ids(batch))

    def _open(self, numbers: Sequence[int]) -> list[Photo | Broken]:
        found: list[Photo | Broken] = []
        for number in numbers:
            path = self.normal_of(number)
            try:
                found.append(read_photo(path))
            except InputError as error:
                found.append(Broken(number, path, str(error)))
        return found

    def make(self, batch: int, photos: Sequence[Photo | Broken] | None = None) -> Made:
        """Paint a batch; photos: what `read` has read of it."""
        read, ids = self.read(batch) if photos is None else photos, self.ids(batch)
        broken = [photo for photo in read if isinstance(photo, Broken)]
        stand_in = next((photo for photo in read if isinstance(photo, Photo)), None)
        if stand_in is None:
            return Made(batch, [], broken)
        # painted in the place of what does not open, so that the other pairs are what they are without it
        painted = [stand_in if isinstance(photo, Broken) else photo for photo in read]
        photos, lost = dict(zip(ids, painted, strict=True)), {one.number for one in broken}
        made = [one for one in self._paint(batch, ids, painted, 0) if one.number not in lost]
        tries: list[Try] = []
        for attempt in range(1, self.tries + 1):
            tries += [one for one in made if isinstance(one, Try)]
            failing = [one.number for one in made if isinstance(one, Broken) or one.reasons]
            if not failing or attempt == self.tries:
                break
            made = self._paint(batch, failing, [photos[number] for number in failing], attempt)
        broken += [one for one in made if isinstance(one, Broken)]
        return Made(batch, sorted(tries, key=lambda one: (one.number, one.attempt)), broken)

    def fits(self, progress: Progress) -> list[GuidanceFit]:
        """The guidance that suits each layer's shots, by the run's first PAIRS pairs (`guidance.fit_guidance`).

        They are painted as strong as the shots are, whatever the run's severity: the guidance would make up for it.
        Raises InputError where none of these has a normal image that opens, and a mask.
        """
        return [self._fit(layer, progress) for layer in self.layers]

    def _fit(self, layer: Layer, progress: Progress) -> GuidanceFit:
        name, given = "/".join(layer.key), list(self._masked(layer, progress))
        if not given:
            raise InputError(
                f"no guidance can be fitted to {name}: none of the run's first {PAIRS} pairs has a normal image that "
                "opens, and a mask; put these right, or give a number"
            )
        normals, masks = zip(*given, strict=True)
        painting = replace(self.settings, steps=min(self.settings.steps, STEPS), severity=1.0, refine=False)

        def paint(guidance: float) -> Iterator[np.ndarray]:
            settings = replace(painting, guidance=guidance)
            for start in range(0, len(normals), settings.batch):
                part = slice(start, start + settings.batch)
                photos = [read_photo(path) for path in normals[part]]
                generators = [generator_for(self.seed, "guidance", i) for i in range(len(normals))[part]]
                pairs = make_pairs(
                    self.backbone, photos, masks[part], layer.embedding, self.encoder, settings, generators,
                    parts=self.parts,
                )  # fmt: skip
                yield from (Photo(pair.image, photo.path).rgb for pair, photo in zip(pairs, photos, strict=True))

        shots, start = layer.shots or ShotReference(), self.settings.guidance
        return fit_guidance(paint, masks, shots, self.backbone, start=start, name=name, progress=progress)

    def _masked(self, layer: Layer, progress: Progress) -> Iterator[tuple[Path, np.ndarray]]:
        """The normal image and a layer's mask of each of the first PAIRS pairs that has both.

        Photos are read anew for each guidance: as large ones as a batch of the run holds must do. Of files of masks
        none behind the run's own is looked at, as no run does (`FolderMasks.check`).
        """
        of_files = any(isinstance(one.masks, FolderMasks) for one in self.layers)
        count, size = min(PAIRS, self.count) if of_files else PAIRS, self.settings.batch
        progress.start(count, f"masks {'/'.join(layer.key)}")
        progress.update(0)
        for start in range(0, count, size):
            ids = range(start, min(start + size, count))
            read = zip(ids, self._open(ids), strict=True)
            sound = {number: photo for number, photo in read if isinstance(photo, Photo)}
            if sound:
                photos, batch = list(sound.values()), Batch(self.seed, start // size, list(sound))
                drawn = layer.masks.masks(self.backbone, photos, batch)
                both = zip(photos, drawn, strict=True)
                yield from ((photo.path, one[0]) for photo, one in both if not isinstance(one, NoMask))
            progress.update(ids.stop)
        progress.finish()

    def _paint(self, batch: int, ids: Sequence[int], photos: Sequence[Photo], attempt: int) -> list[Try | Broken]:
        sources = [layer.masks for layer in self.layers]
        if attempt == 0:
            seed = self.seed
            chosen = masks_apart(self.backbone, sources, photos, Batch(seed, batch, ids))
        else:  # each pair alone: which others failed must not matter
            seed = derived_seed(self.seed, "try", attempt)
            chosen = [
                masks_apart(self.backbone, sources, [photo], Batch(seed, number, [number]))[0]
                for number, photo in zip(ids, photos, strict=True)
            ]
        given = list(zip(ids, photos, chosen, strict=True))
        lacking = [
            Broken(number, photo.path, one.reason, True) for number, photo, one in given if isinstance(one, NoMask)
        ]
        given = [one for one in given if not isinstance(one[2], NoMask)]
        ids, photos, chosen = ([one[part] for one in given] for part in range(3))
        regions = paint_masks(
            self.backbone, self.layers, self.encoder, photos, chosen, Batch(seed, batch, ids), self.settings, self.parts
        )
        tries = [
            Try(number, attempt, photo, of_photo, self._reasons(of_photo))
            for number, photo, of_photo in zip(ids, photos, regions, strict=True)
        ]
        return tries + lacking

    def _reasons(self, regions: Sequence[Region]) -> tuple[str, ...]:
        """The limits that a painting breaks; of several defects each with its name."""
        found = []
        for layer, region, limits in zip(self.layers, regions, self.filters, strict=False):
            name = f"{layer.key[1]}: " if len(regions) > 1 else ""
            found += [f"{name}{reason}" for reason in limits.reasons(region.pair.measures)]
        return tuple(found)
