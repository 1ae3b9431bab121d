"""Words that the front end's search finds a node by, beside its names."""

from __future__ import annotations

from dataclasses import fields

from comfy_api.latest import io

EVERY = ("anomaly", "defect", "inspection")
"""For all nodes of the pack."""


def found_by(*words: str) -> dict[str, list[str]]:
    """Return words as a part of an `io.Schema`: nothing for an older ComfyUI, whose schemas have no place for them."""
    known = "search_aliases" in {field.name for field in fields(io.Schema)}
    return {"search_aliases": [*EVERY, *words]} if known else {}
