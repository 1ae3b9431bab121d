"""A saved graph (UI format) as what the server runs (API format): what the front end's graphToPrompt does."""

from typing import Any

from tools.templates.schema import Definition, from_object_info

NOTES = ("Note", "MarkdownNote")
ALWAYS = 0
"""The mode of a node that is neither muted nor bypassed."""


def ui_to_api(graph: dict[str, Any], object_info: dict[str, Any]) -> dict[str, Any]:
    """Return {node id: {"class_type", "inputs"}} of a graph, by the server's own /object_info; see `to_prompt`."""
    used = {node["type"] for node in graph["nodes"]} & set(object_info)
    return to_prompt(graph, {name: from_object_info(object_info[name]) for name in used})


def to_prompt(graph: dict[str, Any], schema: dict[str, Definition]) -> dict[str, Any]:
    """Return {node id: {"class_type", "inputs"}} of a graph.

    Raises ValueError for what the front end would load otherwise than it was meant: unknown nodes, values too many or
    too few, links to inputs that are not there, required sockets left open.
    """
    links = {link[0]: link for link in graph["links"]}
    prompt = {}
    for node in graph["nodes"]:
        if node["type"] in NOTES:
            continue
        where = f"node {node['id']} ({node['type']})"
        if node["type"] not in schema:
            raise ValueError(f"{where}: there is no such node")
        if node["mode"] != ALWAYS:
            raise ValueError(f"{where}: mode {node['mode']}; muted and bypassed nodes are not converted")
        definition = schema[node["type"]]
        inputs = _values(node, definition, where) | _sources(node, definition, links, where)
        missing = [one.name for one in definition.inputs if not one.optional and one.name not in inputs]
        if missing:
            raise ValueError(f"{where}: nothing goes into {', '.join(missing)}")
        prompt[str(node["id"])] = {"class_type": node["type"], "inputs": inputs}
    return prompt


def _values(node: dict[str, Any], definition: Definition, where: str) -> dict[str, Any]:
    """The widgets' values by name; a control behind a seed is left out."""
    names: list[str | None] = []
    for widget in definition.widgets:
        names += [widget.name, None] if widget.has_control else [widget.name]
    values = node.get("widgets_values", [])
    if len(values) != len(names):
        raise ValueError(f"{where}: {len(values)} values for {len(names)} widgets ({names})")
    return {name: value for name, value in zip(names, values, strict=True) if name is not None}


def _sources(node: dict[str, Any], definition: Definition, links: dict[int, list], where: str) -> dict[str, Any]:
    """Where linked inputs come from, by name: [node id, output]."""
    known = {one.name for one in definition.inputs}
    sources = {}
    for one in node.get("inputs", []):
        if one["name"] not in known:
            raise ValueError(f"{where}: it has no input {one['name']!r}")
        if one.get("link") is not None:
            _, origin, output, *_ = links[one["link"]]
            sources[one["name"]] = [str(origin), output]
    return sources
