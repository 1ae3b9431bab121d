"""Where the object is, for masks that are placed on it: options, and what they say, opened."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from ..errors import InputError
from .options import of_masks

if TYPE_CHECKING:
    from ..generation import MaskSource
    from ..generation.placing import FoundObjects, Objects
    from ..library import Defect


class Place(str, Enum):
    """How a mask comes onto the object (`generation.placing.PLACES`)."""

    stay = "stay"
    move = "move"
    learned = "learned"


class Find(str, Enum):
    """How the object is found in normal images (`foreground.WAYS`, a hyphen for a space)."""

    automatic = "automatic"
    alpha = "alpha"
    border_colour = "border-colour"
    constant_part = "constant-part"
    whole_picture = "whole-picture"

    @property
    def way(self) -> str:
        """Its name in `foreground.WAYS`."""
        return self.value.replace("-", " ")


Placed = Annotated[
    Place,
    of_masks("--place", help="Masks that are not given with --masks come onto the object in their normal image: "
             "moved, or turned and scaled too, as the shots show. More ways: [b]adiff masks[/b]."),
]  # fmt: skip
Foreground = Annotated[
    Path | None,
    of_masks("--foreground", metavar="DIR", help="With --place: masks of the object in DIR or DIR/PRODUCT, named "
             "as the normal images; a single one is for all.  [dim]default: it is found[/dim]"),
]  # fmt: skip
Found = Annotated[
    Find | None,
    of_masks("--find", help="With --place: how the object is found.  [dim]default: automatic[/dim]"),
]


class OnObject:
    """What a command was told of placing masks; the objects of the same normal images are looked for once.

    Raises InputError for options that do not go together. masks: whether masks are given as files.
    """

    def __init__(self, place: Place, foreground: Path | None, find: Find | None = None, masks: bool = False):
        asked = {"--foreground": foreground is not None, "--find": find is not None}
        if place is Place.stay and any(asked.values()):
            option = next(option for option, given in asked.items() if given)
            raise InputError(f"{option} goes with --place move, or --place learned")
        if place is not Place.stay and masks:
            raise InputError("--place is for learned or varied masks; `adiff masks --normals` places such for --masks")
        if all(asked.values()):
            raise InputError("both --foreground and --find given; give masks of the object, or how to find it")
        self.place, self.foreground, self.find = place, foreground, find or Find.automatic
        self._objects: dict[tuple[Path, ...], Objects] = {}

    def source(self, source: MaskSource, entry: Defect, normals: Sequence[Path]) -> MaskSource:
        """The source of a defect's masks, placed if that was asked for."""
        if self.place is Place.stay:
            return source
        from ..generation.placing import PlacedMasks

        return PlacedMasks.of(
            source, self.objects(entry.product, normals), self.place.value, list(entry.shot_masks)
        )  # fmt: skip

    def objects(self, product: str, normals: Sequence[Path]) -> Objects:
        """Where the object is in a product's normal images."""
        from ..generation.placing import given_objects

        if self.foreground is not None:
            return given_objects(self.foreground, product, normals)
        known = tuple(normals)
        if known not in self._objects:
            self._objects[known] = objects_in(normals, self.find)
        return self._objects[known]


def objects_in(normals: Sequence[Path], find: Find) -> FoundObjects:
    """`generation.placing.find_objects`; raises InputError that says which options help."""
    from ..foreground import HINT
    from ..generation.placing import find_objects

    try:
        return find_objects(normals, find.way)
    except InputError as error:
        options = f"mark it with --foreground DIR, or give --find {Find.whole_picture.value} if the surface fills them"
        raise InputError(str(error).replace(HINT, options)) from None
