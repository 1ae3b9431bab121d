"""A graph in ComfyUI's UI format (version 0.4): nodes in titled stages, laid out from left to right."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from .schema import Definition, Input

TITLE, SLOT, WIDGET, BORDER = 30, 20, 28, 38
"""Pixels of a node's title, of a row of slots, of a widget, and of what is around the widgets: those of Nodes 2.0 (with
the pack's name below them); LiteGraph's nodes need less.
"""
WIDTH, GAP, PADDING, HEADER = 300, 60, 20, 60
"""Pixels of a node, between columns and between nodes, around a stage's nodes, and of a stage's title."""
WIDE = {"ADiffLoadDefect": 380, "CLIPTextEncode": 380, "ADiffSavePairs": 440, "PreviewImage": 440, "PreviewAny": 380,
        "ADiffLoadDefectDataset": 440, "ADiffTrainDefects": 400, "ADiffTrainMasks": 400,
        "ADiffTrainLocalizer": 400, "ADiffScoreDataset": 440, "ADiffTrainDual": 400}  # fmt: skip
PREVIEW = {
    "ADiffLoadDefect": 152, "ADiffGenerateMasks": 240, "ADiffFilterMasks": 240, "ADiffPlaceMasks": 240,
    "ADiffVaryShotMasks": 240,
    "ADiffSavePairs": 260, "PreviewImage": 230, "PreviewAny": 180, "CLIPTextEncode": 80, "ADiffLoadDefectDataset": 230,
    "ADiffTrainDefects": 250, "ADiffTrainMasks": 250, "ADiffTrainLocalizer": 250, "ADiffPasteBaseline": 240,
    "ADiffLocalize": 240, "ADiffScoreDataset": 230, "ADiffTrainDual": 250, "ADiffKSampler": 230, "KSampler": 230,
    "ADiffDualSampler": 230, "ADiffEditLibrary": 48, "ADiffLoadDual": 24, "ADiffFitGuidance": 320,
}  # fmt: skip
"""Pixels that a node needs below its widgets for pictures or text."""
NOTE_WIDTH, NOTE_LINE, NOTE_CHARACTERS = 960, 20, 120
"""Pixels of the note and of its lines, and what stands in one."""
NAMES = "**Another product or defect:** name it in *Save Pairs* too; those names are the folders of the pairs."
"""The note's end where a graph saves pairs."""
OWN_SHOTS = """
**Your own photos:** put a folder into ComfyUI's `input` folder, with the photos in `images/` and a mask of the same
name for each in `masks/` (white where the defect is), press R, and choose it in *Load Defect Dataset*. Or paint the
masks here: for each photo *Load Image*, its mask editor, and an *Add Shots*, one behind the other, in its place."""
"""Where shots come from, in the notes of the graphs that learn from them."""


@dataclass(frozen=True)
class Output:
    """One output of a node, to be given to another node's input."""

    node: Node
    index: int
    type: str


@dataclass(eq=False)
class Node:
    """A node: links and values by the names of its inputs."""

    number: int
    type: str
    title: str | None
    definition: Definition
    links: dict[str, Output]
    values: dict[str, Any]
    place: tuple[int, int] = (0, 0)
    width: int = WIDTH

    def __getitem__(self, name: str) -> Output:
        """Return the output of a name."""
        index = [known for known, _ in self.definition.outputs].index(name)
        return Output(self, index, self.definition.outputs[index][1])

    @property
    def height(self) -> int:
        """Pixels below the title."""
        rows = max(1, len(self.definition.sockets), len(self.definition.outputs))
        values = sum(1 + widget.has_control for widget in self.definition.widgets)
        return rows * SLOT + values * WIDGET + BORDER + PREVIEW.get(self.type, 0)


@dataclass(eq=False)
class Stage:
    """Nodes that do one thing, in columns under one title."""

    title: str
    below: bool
    width: int
    columns: list[list[Node]] = field(default_factory=lambda: [[]])
    box: tuple[int, int, int, int] = (0, 0, 0, 0)


class Graph:
    """A graph in the making: `stage` and `column` say where the next `node` goes."""

    def __init__(self, schema: dict[str, Definition], note: str):
        self._schema = schema
        self._note = "\n\n".join(" ".join(paragraph.split()) for paragraph in note.strip().split("\n\n"))
        self._stages: list[Stage] = []
        self._nodes: list[Node] = []

    def stage(self, title: str, below: bool = False, width: int = 0) -> None:
        """Begin a stage, to the right of the others or below the latest; width: pixels of its nodes, at least."""
        self._stages.append(Stage(title, below, width))

    def column(self) -> None:
        """Begin another column of the stage."""
        self._stages[-1].columns.append([])

    def node(self, type: str, title: str | None = None, **inputs: Any) -> Node:
        """Add a node; what is not said keeps the definition's default. Raises ValueError for unknown inputs."""
        definition = self._schema[type]
        widgets = definition.widgets
        links = {name: value for name, value in inputs.items() if isinstance(value, Output)}
        values = {widget.name: inputs.get(widget.name, widget.default) for widget in widgets}
        values |= {widget.name: widget.default for widget in widgets if widget.name in links}
        unknown = set(inputs) - {one.name for one in definition.inputs} - {"control"}
        if unknown:
            raise ValueError(f"{type} has no input {', '.join(sorted(unknown))}")
        values["control"] = inputs.get("control", "randomize")
        node = Node(len(self._nodes) + 2, type, title, definition, links, values)  # 1 is the note
        self._stages[-1].columns[-1].append(node)
        self._nodes.append(node)
        return node

    def to_json(self) -> dict[str, Any]:
        """Return the graph as the front end saves it."""
        self._lay_out()
        links: list[list] = []
        nodes = [self._note_json(), *(_node_json(node, links) for node in self._nodes)]
        by_number = {node["id"]: node for node in nodes}
        for number, origin, output, *_ in links:
            by_number[origin]["outputs"][output]["links"].append(number)
        return {
            "revision": 0, "last_node_id": len(nodes), "last_link_id": len(links), "nodes": nodes, "links": links,
            "groups": [
                {"id": number, "title": stage.title, "bounding": list(stage.box), "color": "#3f789e", "font_size": 24,
                 "flags": {}}
                for number, stage in enumerate(self._stages, 1)
            ],
            "config": {}, "extra": {}, "version": 0.4,
        }  # fmt: skip

    def _lay_out(self) -> None:
        start = self._note_height + 2 * TITLE + GAP
        left, top, right = 0, start, -GAP
        for stage in self._stages:
            if stage.below:
                top = top + GAP
            else:
                left, top = right + GAP, start
            x, bottom = left + PADDING, top
            for column in stage.columns:
                width = max(stage.width, *(WIDE.get(node.type, WIDTH) for node in column))
                y = top + HEADER
                for node in column:
                    node.place, node.width = (x, y + TITLE), width
                    y += TITLE + node.height + GAP
                x, bottom = x + width + GAP, max(bottom, y - GAP + PADDING)
            end = x - GAP + PADDING
            stage.box = (left, top, end - left, bottom - top)
            top, right = bottom, max(right, end)

    @property
    def _text(self) -> str:
        saves = any(node.type == "ADiffSavePairs" for node in self._nodes)
        return f"{self._note}\n\n{NAMES}" if saves else self._note

    @property
    def _note_height(self) -> int:
        lines = sum(1 + len(line) // NOTE_CHARACTERS for line in self._text.splitlines())
        return 2 * TITLE + NOTE_LINE * lines

    def _note_json(self) -> dict[str, Any]:
        return {
            "id": 1, "type": "MarkdownNote", "pos": [0, TITLE], "size": [NOTE_WIDTH, self._note_height], "flags": {},
            "order": 0, "mode": 0, "inputs": [], "outputs": [], "title": "What to change", "properties": {},
            "widgets_values": [self._text], "color": "#432", "bgcolor": "#653",
        }  # fmt: skip


def _node_json(node: Node, links: list[list]) -> dict[str, Any]:
    """Return a node as saved; its incoming links are added to `links`."""
    inputs = []
    linked = [one for one in node.definition.widgets if one.name in node.links]
    for slot, one in enumerate([*node.definition.sockets, *linked]):
        inputs.append(_input_json(node, slot, one, links))
    values: list[Any] = []
    for widget in node.definition.widgets:
        values += [node.values[widget.name], node.values["control"]][: 1 + widget.has_control]
    saved = {
        "id": node.number, "type": node.type, "pos": list(node.place), "size": [node.width, node.height], "flags": {},
        "order": node.number - 1, "mode": 0, "inputs": inputs,
        "outputs": [{"name": name, "type": kind, "links": []} for name, kind in node.definition.outputs],
        "properties": {"Node name for S&R": node.type}, "widgets_values": values,
    }  # fmt: skip
    return saved if node.title is None else {**saved, "title": node.title}


def _input_json(node: Node, slot: int, one: Input, links: list[list]) -> dict[str, Any]:
    saved: dict[str, Any] = {"name": one.name, "type": one.type, "link": None}
    if one.optional:
        saved["shape"] = 7  # a hollow circle
    if one.is_widget:
        saved["widget"] = {"name": one.name}
    source = node.links.get(one.name)
    if source is not None:
        saved["link"] = len(links) + 1
        links.append([saved["link"], source.node.number, source.index, node.number, slot, source.type])
    return saved
