"""What a graph says of where a node's inputs come from: the same graph again means the same MODEL."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePath
from typing import Any

from comfy_execution.progress import get_progress_state
from comfy_execution.utils import get_executing_context

FILES = ("ckpt_name", "unet_name", "model_path")
"""Widgets that name the file of a model."""
PRIMITIVE = "PrimitiveInt"
"""Node that gives what its widget "value" says."""


def identity_of(names: Sequence[str]) -> list[str | None]:
    """Return a digest of all nodes, values and links that lead to each of the running node's inputs; None for no input.

    Two runs agree in it exactly if the graph before these inputs is the same, LoRAs, patches and strengths included:
    a MODEL itself does not tell what was done to it. Names and places of nodes do not count.
    """
    prompt, own = _graph()
    inputs, seen = prompt[own]["inputs"], {}
    return [_digest(prompt, inputs[name], seen) if name in inputs else None for name in names]


def running_node() -> tuple[str, set[str]]:
    """Return a digest of the node that is run, or asked for its fingerprint, with all that leads to it.

    Beside it those of all nodes of its kind in the graph. Only within a run.
    """
    (prompt, own), seen = _graph(), {}
    alike = [name for name, node in prompt.items() if node["class_type"] == prompt[own]["class_type"]]
    digests = {name: _digest(prompt, [name, 0], seen) for name in alike}
    return digests[own], set(digests.values())


def model_name(model) -> str:
    """Return what to call the MODEL that goes into the running node: its file's name, as far as the graph tells."""
    if hasattr(model.model, "adiff_native_size"):
        return "demo"
    prompt, own = _graph()
    todo, seen = [prompt[own]["inputs"].get("model")], set()
    while todo:
        link = todo.pop()
        if not _is_link(prompt, link) or link[0] in seen:
            continue
        seen.add(link[0])
        inputs = prompt[link[0]]["inputs"]
        for name in FILES:
            if isinstance(inputs.get(name), str):
                return PurePath(inputs[name]).stem
        todo += [inputs["model"]] if "model" in inputs else list(inputs.values())
    return "the MODEL in the graph"


def nodes_before() -> Iterator[tuple[str, dict[str, Any]]]:
    """Kinds and inputs of all nodes that lead to the running one; a core primitive's value in the place of its link."""
    prompt, own = _graph()
    todo, seen = [own], {own}
    while todo:
        for link in prompt[todo.pop()]["inputs"].values():
            if _is_link(prompt, link) and link[0] not in seen:
                seen.add(link[0])
                todo.append(link[0])
                node = prompt[link[0]]
                yield node["class_type"], {name: _told(prompt, value) for name, value in node["inputs"].items()}


def _graph() -> tuple[dict[str, Mapping[str, Any]], str]:
    """Return all nodes of the graph in progress, those of loops too, and the running one's name."""
    graph = get_progress_state().dynprompt
    return {name: graph.get_node(name) for name in graph.all_node_ids()}, get_executing_context().node_id


def _digest(prompt: Mapping[str, Any], value: Any, seen: dict[str, str]) -> str:
    """Digest of a widget's value, or of the node that a link comes from with all that leads to it.

    What a loop puts in itself instead of a link to it is told from others by being itself.
    """
    if not _is_link(prompt, value):
        return hashlib.sha256(json.dumps(value, sort_keys=True, default=id).encode()).hexdigest()
    source, slot = value
    if source not in seen:
        node = prompt[source]
        inputs = {name: _digest(prompt, one, seen) for name, one in sorted(node["inputs"].items())}
        seen[source] = hashlib.sha256(json.dumps([node["class_type"], inputs]).encode()).hexdigest()
    return f"{seen[source]} {slot}"


def _told(prompt: Mapping[str, Any], value: Any) -> Any:
    if _is_link(prompt, value) and prompt[value[0]]["class_type"] == PRIMITIVE:
        return _told(prompt, prompt[value[0]]["inputs"]["value"])
    return value


def _is_link(prompt: Mapping[str, Any], value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and isinstance(value[0], str) and value[0] in prompt
