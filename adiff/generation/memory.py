"""A batch in as many parts as the device's memory asks for: the same pairs, from the same seeds."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from typing import TypeVar

from ..devices import free_cache, is_out_of_memory
from ..errors import InputError

logger = logging.getLogger("adiff")

Item = TypeVar("Item")


class Parts:
    """Takes batches whole, or in parts once one did not fit; what it has learned holds for the batches to come.

    most: items a part, None for whole batches.
    """

    def __init__(self) -> None:
        self.most: int | None = None

    def of(self, size: int, make: Callable[[slice], list[Item]]) -> list[Item]:
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
                "out of memory with a single image; free memory on the device, use a smaller base model, or generate "
                "on another device"
            )
        self.most = math.ceil(size / 2)
        logger.warning(
            "out of memory: batches are now painted in parts of %d; the pairs stay the same within 2 grey levels",
            self.most,
        )


def _unless_out_of_memory(make: Callable[[slice], list[Item]], part: slice) -> list[Item] | None:
    """What `make` makes of a part; None where memory did not suffice, with all that it held let go."""
    try:
        return make(part)
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        return None
