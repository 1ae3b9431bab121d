"""A batch in as many parts as the device's memory asks for: each item comes out the same, within rounding."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable
from typing import TypeVar

from .devices import free_cache, is_out_of_memory
from .errors import InputError

logger = logging.getLogger("adiff")

Item = TypeVar("Item")


class Parts:
    """Takes batches whole, or in parts once one did not fit; what it has learned holds for the batches to come.

    most: items a part, None for whole batches. doing: what is done to them, for the warning.
    """

    def __init__(self, most: int | None = None, doing: str = "painted"):
        self.most, self._doing = most, doing

    def of(self, size: int, make: Callable[[slice], Iterable[Item]]) -> list[Item]:
        """Return what `make` makes of all items, one part after another; it gives one thing for each item of a slice.

        Out of memory, the parts are halved from here on, with a warning. Raises InputError if a single item does not
        fit.
        """
        made: list[Item] = []
        while len(made) < size:
            part = slice(len(made), min(len(made) + (self.most or size), size))
            found = _unless_out_of_memory(make, part)
            if found is None:
                self._halve(part.stop - part.start)
            else:
                made += found
        return made

    def _halve(self, size: int) -> None:
        free_cache()
        if size == 1:
            raise InputError(
                "out of memory with a single image; free memory on the device, use a smaller base model, or another "
                "device"
            )
        self.most = math.ceil(size / 2)
        logger.warning(
            "out of memory: batches are now %s in parts of %d; what comes out stays the same, within rounding",
            self._doing, self.most,
        )  # fmt: skip


def _unless_out_of_memory(make: Callable[[slice], Iterable[Item]], part: slice) -> list[Item] | None:
    """What `make` makes of a part; None where memory did not suffice, with all that it held let go."""
    try:
        return list(make(part))
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        return None
