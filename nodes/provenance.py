"""What a graph says of how a pair was made: the defect's library, the seed it was painted with."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

LEARNED = {"ADiffLoadDefect": "defect", "ADiffLoadDual": "dual"}
"""Nodes that load what was learned, and their widget that names it."""
SAMPLERS = ("sampler_name", "noise_seed", "method")
"""Inputs that only nodes have whose seed decides how a defect looks: samplers, sources of noise, paste baselines."""
SEEDS = ("seed", "noise_seed")


def made_from(hidden) -> dict[str, Any]:
    """Return {"library", "seed"} of what comes into a node, as an exported data set tells them.

    One that the graph does not tell, or tells twice over, is left out: two samplers in a row have two seeds.
    """
    nodes = list(_before(hidden.prompt or {}, hidden.unique_id))
    libraries = {node["inputs"].get(LEARNED[kind]) for node in nodes if (kind := node["class_type"]) in LEARNED}
    painters = (node["inputs"] for node in nodes if any(name in node["inputs"] for name in SAMPLERS))
    seeds = {inputs[name] for inputs in painters for name in SEEDS if isinstance(inputs.get(name), int)}
    found = {"library": libraries, "seed": seeds}
    return {name: values.pop() for name, values in found.items() if len(values) == 1}


def _before(prompt: Mapping[str, Any], node: str) -> Iterator[Mapping[str, Any]]:
    """All nodes of a graph that lead to one."""
    todo, seen = [node], {node}
    while todo:
        for value in prompt.get(todo.pop(), {}).get("inputs", {}).values():
            source = value[0] if isinstance(value, list) and len(value) == 2 else None
            if isinstance(source, str) and source in prompt and source not in seen:
                seen.add(source)
                todo.append(source)
                yield prompt[source]
