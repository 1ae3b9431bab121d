"""One measurement in a process of its own: memory that others took does not count."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any


def in_new_process(work: Callable[..., Any], *given: Any) -> Any:
    """Return work(*given), done in a fresh interpreter; its exceptions are raised here."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(work, *given).result()
