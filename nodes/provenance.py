"""What a graph says of how a pair was made: the defect's library, the seed it was painted with."""

from __future__ import annotations

from typing import Any

from .upstream import nodes_before

LEARNED = {"ADiffLoadDefect": "defect", "ADiffLoadDual": "dual"}
"""Nodes that load what was learned, and their widget that names it."""
SAMPLERS = ("sampler_name", "noise_seed", "method")
"""Inputs that only nodes have whose seed decides how a defect looks: samplers, sources of noise, paste baselines."""
SEEDS = ("seed", "noise_seed")


def made_from() -> dict[str, Any]:
    """Return {"library", "seed"} of what comes into the running node, as an exported data set tells them.

    One that the graph does not tell, or tells twice over, is left out: two samplers in a row have two seeds.
    """
    nodes = list(nodes_before())
    named = [inputs.get(LEARNED[kind]) for kind, inputs in nodes if kind in LEARNED]
    libraries = {name for name in named if isinstance(name, str)}
    painters = [inputs for _, inputs in nodes if any(name in inputs for name in SAMPLERS)]
    seeds = {inputs[name] for inputs in painters for name in SEEDS if isinstance(inputs.get(name), int)}
    found = {"library": libraries, "seed": seeds}
    return {name: values.pop() for name, values in found.items() if len(values) == 1}
