"""What a node has, as far as a saved graph depends on it, and the order in which the front end lays it out.

Sockets come first, widgets behind them, each in the order of the definition, required before optional. A seed is
followed by a widget of the front end's own, "control after generate", that has a value in a saved graph but none in a
prompt.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
OURS = ROOT / "tests" / "e2e" / "object_info.json"
"""The pack's own nodes; a test on a real ComfyUI keeps it true."""
CORE = Path(__file__).with_name("core_nodes.json")
"""The nodes of ComfyUI 0.3.64 that the graphs use, in the same form."""
WIDGET_TYPES = ("INT", "FLOAT", "STRING", "BOOLEAN", "COMBO")
CONTROL = ("fixed", "increment", "decrement", "randomize")
SEEDS = ("seed", "noise_seed")
LINK_ONLY = {("ADiffSavePairs", "measures"), ("ADiffStitch", "measures"), ("ADiffFilterPairs", "measures")}
"""Inputs of ours with force_input, which the snapshot does not tell: sockets in spite of their type."""


@dataclass(frozen=True)
class Input:
    """One input of a node. options: what its definition says of it (default, min, max, options, forceInput, ...)."""

    name: str
    type: str
    optional: bool
    options: dict[str, Any]

    @property
    def is_widget(self) -> bool:
        """Whether it has a value of its own in the node."""
        return self.type in WIDGET_TYPES and not self.options.get("forceInput")

    @property
    def has_control(self) -> bool:
        """Whether the front end puts a "control after generate" behind it."""
        control = self.options.get("control_after_generate")
        return bool(control) or (control is None and self.type == "INT" and self.name in SEEDS)

    @property
    def default(self) -> Any:
        """The value that the front end starts with."""
        if self.type == "COMBO":
            return self.options.get("default", next(iter(self.options.get("options", ())), ""))
        return self.options.get("default", {"INT": 0, "FLOAT": 0.0, "STRING": "", "BOOLEAN": False}[self.type])


@dataclass(frozen=True)
class Definition:
    """A node. inputs: required ones first; outputs: (name, type)."""

    inputs: tuple[Input, ...]
    outputs: tuple[tuple[str, str], ...]

    @property
    def sockets(self) -> list[Input]:
        """The inputs that take a link only, in the front end's order."""
        return [one for one in self.inputs if not one.is_widget]

    @property
    def widgets(self) -> list[Input]:
        """The inputs with a value of their own, in the order of a saved graph's `widgets_values`."""
        return [one for one in self.inputs if one.is_widget]


def load_schema() -> dict[str, Definition]:
    """Return the definitions of all nodes that the graphs may use, by id."""
    return read_snapshot(CORE) | read_snapshot(OURS)


def read_snapshot(path: Path) -> dict[str, Definition]:
    """Read {id: {"inputs": [{"name", "type", "optional", ...}], "outputs": [{"name", "type"}]}} from a JSON file."""
    definitions = {}
    for name, saved in json.loads(path.read_text("utf-8")).items():
        for one in saved["inputs"]:
            if (name, one["name"]) in LINK_ONLY:
                one["forceInput"] = True
        inputs = tuple(Input(o.pop("name"), o.pop("type"), o.pop("optional"), o) for o in saved["inputs"])
        definitions[name] = Definition(inputs, tuple((one["name"], one["type"]) for one in saved["outputs"]))
    return definitions


def from_object_info(about: dict[str, Any]) -> Definition:
    """Read one node of the server's /object_info."""
    inputs = []
    for kind in ("required", "optional"):
        for name in about["input_order"].get(kind, ()):
            what, *rest = about["input"][kind][name]
            options = dict(rest[0]) if rest else {}
            if isinstance(what, list):  # an older way to declare a combo
                what, options = "COMBO", {**options, "options": what}
            inputs.append(Input(name, what, kind == "optional", options))
    return Definition(tuple(inputs), tuple(zip(about["output_name"], about["output"], strict=True)))
