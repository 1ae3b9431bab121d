"""Which images validate: those that show one normal photo go together, and none moves when pairs are added.

A photo has a place in [0, 1) by its product, its name and the seed. Of each product's photos those with the lowest
places validate. A pair of which no normal photo is told, as a whole image, goes by its number.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping

SPLITS = TRAIN, VALIDATION = "train", "val"
GOLDEN, WORD = 2654435769, 2**32
"""The golden ratio's part after the point, in 32 bits: its multiples fill [0, 1) evenly, however many there are."""


class Splits:
    """photos: (product, file name) of all that pairs may show, made yet or not, and of those that are added.

    share: of the photos, and of the pairs without one, that validate. Of two photos or more of a product at least one
    is in each split, whatever the share. limits: product -> place below which photos validate, where that is settled;
    photos that come later move none then. files: (product, another name of a photo) -> its file's, which counts.
    """

    def __init__(
        self, photos: Iterable[tuple[str, str]], share: float, seed: int, limits: Mapping[str, float] | None = None,
        files: Mapping[tuple[str, str], str] | None = None,
    ):  # fmt: skip
        self.share, self._seed, self._files = share, seed, files or {}
        places: dict[str, list[float]] = {}
        for product, name in {(product, self._file(product, name)) for product, name in photos}:
            places.setdefault(product, []).append(self._place(product, name))
        found = {product: _limit(sorted(of_one), share) for product, of_one in places.items()} if share else {}
        self.limits = {**found, **(limits or {})}

    def of_photo(self, product: str, name: str) -> str:
        """Where a normal photo goes, and every pair that shows it."""
        return VALIDATION if self._place(product, name) < self.limits.get(product, self.share) else TRAIN

    def of_number(self, number: int) -> str:
        """Where a pair without a normal photo goes; neighbours are spread evenly."""
        return VALIDATION if (number + self._seed + 1) * GOLDEN % WORD < self.share * WORD else TRAIN

    def of_pair(self, product: str, normal: object, number: int) -> str:
        """Where a pair goes. normal: its photo's name, if its record tells one."""
        return self.of_photo(product, normal) if isinstance(normal, str) else self.of_number(number)

    def _file(self, product: str, name: str) -> str:
        return self._files.get((product, name), name)

    def _place(self, product: str, name: str) -> float:
        text = f"{self._seed}/{product}/{self._file(product, name)}"
        digest = hashlib.sha256(text.encode("utf-8", "backslashreplace")).digest()
        return int.from_bytes(digest[:4], "big") / WORD


def _limit(places: list[float], share: float) -> float:
    """The place below which as near to the share of the places lie as can be; places: in order."""
    count = min(max(round(share * len(places)), 1), len(places) - 1)
    return places[count]
