"""What a graph says of how a pair was made: the defect's library, the seed it was painted with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .upstream import nodes_before

LEARNED = {"ADiffLoadDefect": "defect", "ADiffLoadDual": "dual"}
"""Nodes that load what was learned, and their widget that names it."""
SAMPLERS = ("sampler_name", "noise_seed", "method")
"""Inputs that only nodes have whose seed decides how a defect looks: samplers, sources of noise, paste baselines."""
SEEDS = ("seed", "noise_seed")
BROUGHT = "adiff_seed"
"""What a LATENT of Anomaly KSampler calls its seed: no graph tells one that a node computed."""


def made_from(pairs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return records of pairs with {"library", "seed"} of what comes into the running node, as an export tells them.

    One that the graph does not tell, or tells twice over, is left out: two samplers in a row have two seeds. The seed
    that a pair brings along counts where a node computed that of its one sampler.
    """
    nodes = list(nodes_before())
    named = [inputs.get(LEARNED[kind]) for kind, inputs in nodes if kind in LEARNED]
    libraries = {name for name in named if isinstance(name, str)}
    painters = [inputs for _, inputs in nodes if any(name in inputs for name in SAMPLERS)]
    seeds = [inputs[name] for inputs in painters for name in SEEDS if name in inputs]
    told = all(isinstance(seed, int) for seed in seeds)
    known = {"library": libraries, "seed": set(seeds) if told else ()}
    found = {name: next(iter(values)) for name, values in known.items() if len(values) == 1}
    brought = len(seeds) == 1 and not told
    return [{name: value for name, value in one.items() if name != "seed" or brought} | found for one in pairs]
