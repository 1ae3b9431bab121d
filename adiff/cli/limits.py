"""Options of `adiff generate` that say which pairs are good enough, and what becomes of the others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, NamedTuple

from ..errors import InputError
from .options import of_filter

if TYPE_CHECKING:
    from ..backbone import Backbone
    from ..generation.run import References
    from ..library import Key, Library
    from ..pair_filter import PairFilter

TRIES = 4
"""Paintings of a pair that breaks a limit, unless told otherwise (`generation.run.TRIES`)."""

MinFill = Annotated[
    str | None,
    of_filter("--min-fill", metavar="SHARE|auto", help="Paint again pairs with a lower fill: share of the mask "
              "that changed."),
]  # fmt: skip
MaxSeam = Annotated[
    float | None, of_filter("--max-seam", metavar="RATIO", help="Paint again pairs with a steeper seam.")
]
MaxLikeness = Annotated[
    str | None,
    of_filter("--max-likeness", metavar="DISTANCE|auto", help="Paint again pairs that are farther from every shot."),
]
MinNovelty = Annotated[
    str | None,
    of_filter("--min-novelty", metavar="SHARE|auto", help="Paint again pairs whose mask is nearer to a shot's."),
]
AutoFilter = Annotated[
    bool, of_filter("--auto-filter", help="All limits that the shots set; those given by a number hold.")
]
Tries = Annotated[
    int | None,
    of_filter("--tries", metavar="K", min=1, help="Paintings of a pair that breaks a limit, before it is given up; "
              f"each is kept under RUN/rejects.  [dim]default: {TRIES}[/dim]"),
]  # fmt: skip
Refine = Annotated[
    bool, of_filter("--refine", help="Write masks of what really changed in place of those painted.")
]


class Limits(NamedTuple):
    """The limits as asked for; auto: also those that the shots set."""

    given: PairFilter
    auto: bool
    tries: int

    def of(
        self, library: Library, keys: Sequence[Key], backbone: Backbone, references: References | None
    ) -> PairFilter | None:
        """The limits of a run of the library's defects `keys`, None for none; references: as for `generate_run`."""
        from ..generation.run import references_of
        from ..pair_filter import auto_filter

        if not self.auto:
            return self.given or None
        return auto_filter(references_of(library, keys, backbone, references), self.given) or None


def parse_limits(
    min_fill: str | None, max_seam: float | None, max_likeness: str | None, min_novelty: str | None, auto: bool,
    tries: int | None,
) -> Limits:  # fmt: skip
    """Read the options; InputError for what is neither a number in range nor `auto`, and for --tries alone."""
    from ..pair_filter import PairFilter

    given = PairFilter(_limit(min_fill), max_seam, _limit(max_likeness), _limit(min_novelty))
    if tries is not None and not auto and not given:
        raise InputError("--tries goes with a limit, for instance --min-fill 0.5, or with --auto-filter")
    return Limits(given, auto, tries or TRIES)


def _limit(text: str | None) -> float | str | None:
    try:
        return None if text is None else float(text)
    except ValueError:
        return text
