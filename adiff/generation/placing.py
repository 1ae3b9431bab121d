"""Masks of any source, placed onto the object of each photo as a run goes on (`placement`)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ..backbone import Backbone
from ..datasets.images import Photo, opens, read_photo
from ..datasets.readers import list_images
from ..errors import InputError
from ..foreground import AUTOMATIC, ForegroundFinder
from ..placement import Ground, Placing, ShotSpread, place_mask
from .seeds import derived_seed, rng_for
from .sources import Batch, Chosen, MaskSource, NoMask, fitted

STAY, MOVE, LEARNED = PLACES = ("stay", "move", "learned")
"""How a mask comes onto the object: as it is, moved, or turned and scaled too, as the shots show."""
DRAWS = 8
"""Masks that are drawn for a photo before it has none: a large one may not fit its object."""
SEEN = 16
"""Normal images that are looked at, at least, for how the object is found."""
KEPT = 2**27
"""Bytes of objects that are remembered, one for 8 pixels: to find one in twelve megapixels takes seconds."""


def read_foreground(path: Path) -> np.ndarray:
    """Read a mask of the object, (H, W) bool; InputError for an empty one, or a file that cannot be read."""
    mask = read_photo(path).rgb.max(-1) >= 128
    if not mask.any():
        raise InputError(f"the foreground {path} is empty; mark the object in white on black")
    return mask


class Objects(Protocol):
    """Where the object is in a run's photos."""

    def find(self, photo: Photo) -> np.ndarray:
        """Return the object, (H, W) bool; InputError where it is not known."""

    def files(self, normal: Path) -> list[Path]:
        """Return the files that tell where the object is in a normal image."""

    def record(self) -> dict[str, Any]:
        """Return what run.json keeps of them."""


class FoundObjects:
    """Objects found in the photos themselves, the last ones remembered."""

    def __init__(self, finder: ForegroundFinder):
        self.finder = finder
        self._found: dict[Path, np.ndarray] = {}
        self._bytes = 0

    def find(self, photo: Photo) -> np.ndarray:
        """Find the object; InputError as `ForegroundFinder.find`."""
        if photo.path not in self._found:
            self._found[photo.path] = found = np.packbits(self.finder.find(photo.rgba))
            self._bytes += found.nbytes
            while self._bytes > KEPT and len(self._found) > 1:
                self._bytes -= self._found.pop(next(iter(self._found))).nbytes
        height, width = photo.size
        return np.unpackbits(self._found[photo.path], count=height * width).reshape(height, width).astype(bool)

    def files(self, normal: Path) -> list[Path]:
        """Return none: the image itself does."""
        return []

    def record(self) -> dict[str, Any]:
        """Return how they are found."""
        return {"kind": "found", "way": self.finder.way}


def find_objects(normals: Sequence[Path], way: str = AUTOMATIC) -> FoundObjects:
    """Objects that are found in each normal image, in a way (`foreground.WAYS`) that the first of them decide.

    Raises InputError where they are found in none. Images that do not open do not count: a run lists them.
    """
    return FoundObjects(ForegroundFinder.of(Pictures([path for path in normals[:SEEN] if opens(path)]), way))


class Pictures(Sequence):
    """Images (H, W, 3) or, with transparency, (H, W, 4) uint8, each read when it is looked at."""

    def __init__(self, paths: Sequence[Path]):
        self._paths = paths

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: int) -> np.ndarray:
        return read_photo(self._paths[index]).rgba


@dataclass(frozen=True)
class GivenObjects:
    """Objects marked in files, each for the photo of the same stem; a single file is for all photos.

    Raises InputError for none.
    """

    paths: Sequence[Path]

    def __post_init__(self) -> None:
        if not self.paths:
            raise InputError("no masks of the object were given; give at least one")

    def check(self, normals: Sequence[Path]) -> None:
        """Raise InputError for a normal image without a mask, or with one that cannot be used."""
        for path in {self._of(normal) for normal in normals}:
            read_foreground(path)

    @cached_property
    def _by_stem(self) -> dict[str, Path]:
        return {path.stem: path for path in reversed(self.paths)}  # of several the first counts

    def _of(self, normal: Path) -> Path:
        path = self.paths[0] if len(self.paths) == 1 else self._by_stem.get(normal.stem)
        if path is None:
            raise InputError(
                f"none of {len(self.paths)} masks of the object in {self.paths[0].parent} is named {normal.stem}; name "
                "them as the normal images, or give a single one for all"
            )
        return path

    def find(self, photo: Photo) -> np.ndarray:
        """Read the photo's object, resized to it; InputError where there is none, or one of another aspect."""
        path = self._of(photo.path)
        mask = fitted(read_foreground(path), photo, path)
        if isinstance(mask, NoMask):
            raise InputError(mask.reason)
        return mask

    def files(self, normal: Path) -> list[Path]:
        """Return the mask of the object, if there is one."""
        try:
            return [self._of(normal)]
        except InputError:  # told where it is looked for
            return []

    def record(self) -> dict[str, Any]:
        """Return the files' names."""
        return {"kind": "files", "files": [path.name for path in self.paths]}


def given_objects(folder: Path, product: str, normals: Sequence[Path]) -> GivenObjects:
    """Objects marked in the files of folder/product if there is one, else of the folder; raises as `check`."""
    own = folder / product
    given = GivenObjects(list_images(own if own.is_dir() else folder))
    given.check(normals)
    return given


@dataclass(frozen=True, eq=False)
class PlacedMasks:
    """The masks of another source, each placed onto the object of its photo.

    spread: turn and scale follow the shots instead of `placing`.
    """

    source: MaskSource
    objects: Objects
    placing: Placing = Placing()
    spread: ShotSpread | None = None

    @classmethod
    def of(cls, source: MaskSource, objects: Objects, how: str, shots: Sequence[np.ndarray]) -> PlacedMasks:
        """Place as `how`, MOVE or LEARNED, says; shots: the real masks, (h, w) bool each."""
        return cls(source, objects, spread=ShotSpread.of(shots) if how == LEARNED else None)

    def masks(self, backbone: Backbone, photos: Sequence[Photo], batch: Batch) -> list[Chosen | NoMask]:
        """Draw the pairs' masks and place them; where none of DRAWS fits, or there is no object, the pair has none."""
        drawn = self.source.masks(backbone, photos, batch)
        return [
            one if isinstance(one, NoMask) else self._placed(backbone, photo, one, batch.seed, number)
            for number, photo, one in zip(batch.ids, photos, drawn, strict=True)
        ]

    def _placed(self, backbone: Backbone, photo: Photo, chosen: Chosen, seed: int, number: int) -> Chosen | NoMask:
        """Place a pair's mask, or others drawn for it alone."""
        try:
            ground = Ground.of(self.objects.find(photo), self.placing)
        except InputError as error:
            return NoMask(f"no object to place a mask on in {photo.path.name}: {error}")
        rng, refused = rng_for(seed, "mask on the object", number), Counter()
        for draw in range(DRAWS):
            if draw:
                again = Batch(derived_seed(seed, "mask drawn again", draw), number, [number])
                (chosen,) = self.source.masks(backbone, [photo], again)
                if isinstance(chosen, NoMask):
                    return chosen
            placed = place_mask(chosen[0], ground, self.placing, rng, self.spread)
            if not isinstance(placed, str):
                mask, turn, scale = placed
                return mask, {**chosen[1], "placed": {"turn": round(turn, 2), "scale": round(scale, 4)}}
            refused[placed] += 1
        reasons = ", ".join(f"{reason} ({n})" for reason, n in refused.most_common())
        return NoMask(f"none of {DRAWS} masks fits on the object in {photo.path.name}: {reasons}")

    def files(self, number: int, normal: Path) -> list[Path]:
        """Return those of the other source, and of the object."""
        return self.source.files(number, normal) + self.objects.files(normal)

    def record(self, base: Backbone) -> dict[str, Any]:
        """Return the record of the other source, of the objects, and how masks are placed."""
        learned = {} if self.spread is None else {"spread": asdict(self.spread)}
        return {"kind": "placed", "source": self.source.record(base), "on": self.objects.record(),
                "placing": asdict(self.placing), **learned}  # fmt: skip
