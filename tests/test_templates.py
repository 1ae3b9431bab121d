"""The template browser's graphs: what ComfyUI will make of them, told from the schema alone."""

import copy
import json
import re
from itertools import combinations

import pytest

from adiff.datasets.surfaces import WITHHELD
from tests.e2e.convert import NOTES, to_prompt
from tools.templates.graph import PREVIEW, TITLE
from tools.templates.graphs import GRAPHS, file_name
from tools.templates.painting import SIZE
from tools.templates.schema import CONTROL, LINK_ONLY, ROOT, load_schema

WORKFLOWS = sorted((ROOT / "workflows").glob("*.json"))


@pytest.fixture(scope="module")
def schema():
    return load_schema()


@pytest.fixture(params=WORKFLOWS, ids=lambda path: path.stem)
def graph(request):
    return json.loads(request.param.read_text("utf-8"))


def nodes_of(graph, *types):
    return [node for node in graph["nodes"] if node["type"] in types or not types]


def box(node):
    """Left, top, right, bottom, the title included."""
    (x, y), (width, height) = node["pos"], node["size"]
    return x, y - TITLE, x + width, y + height


def apart(a, b):
    return a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1]


def test_files_are_what_the_code_writes(schema):
    assert [path.stem for path in WORKFLOWS] == sorted(file_name(graph) for graph in GRAPHS)
    for graph in GRAPHS:
        written = (ROOT / "workflows" / f"{file_name(graph)}.json").read_text("utf-8")
        assert json.loads(written) == graph(schema).to_json(), f"run python -m tools.templates: {file_name(graph)}"


def test_names_are_files_everywhere():
    for path in WORKFLOWS:
        assert re.fullmatch(r"[A-Za-z][A-Za-z -]*\.json", path.name)
        assert len(path.stem) <= 30  # the template browser's cards cut longer ones


def test_links_agree_with_both_ends(graph):
    nodes = {node["id"]: node for node in graph["nodes"]}
    links = {link[0]: link for link in graph["links"]}
    assert len(nodes) == len(graph["nodes"]) == graph["last_node_id"]
    assert len(links) == len(graph["links"]) == graph["last_link_id"]
    for number, origin, output, target, slot, kind in graph["links"]:
        assert number in nodes[origin]["outputs"][output]["links"]
        assert nodes[origin]["outputs"][output]["type"] == kind
        assert nodes[target]["inputs"][slot]["link"] == number
        assert nodes[target]["inputs"][slot]["type"] in (kind, "*")
        assert nodes[origin]["order"] < nodes[target]["order"]
    leaving = [number for node in nodes.values() for one in node["outputs"] for number in one["links"]]
    arriving = [one["link"] for node in nodes.values() for one in node["inputs"] if one["link"] is not None]
    assert sorted(leaving) == sorted(arriving) == sorted(links)


def test_nodes_have_the_slots_of_the_schema(graph, schema):
    for node in nodes_of(graph):
        if node["type"] in NOTES:
            continue
        definition = schema[node["type"]]
        sockets = [one["name"] for one in node["inputs"] if "widget" not in one]
        assert sockets == [one.name for one in definition.sockets]
        assert {one["name"]: one["type"] for one in node["inputs"]}.items() <= {
            one.name: one.type for one in definition.inputs
        }.items()
        assert tuple((one["name"], one["type"]) for one in node["outputs"]) == definition.outputs


def test_values_are_allowed(graph, schema):
    prompt = to_prompt(graph, schema)
    for node in prompt.values():
        for widget in schema[node["class_type"]].widgets:
            value, options = node["inputs"][widget.name], widget.options
            if isinstance(value, list):
                continue
            if widget.type == "COMBO":
                assert isinstance(value, str) and value in (options.get("options") or [value])
                continue
            expected = {"INT": int, "FLOAT": (int, float), "STRING": str, "BOOLEAN": bool}[widget.type]
            assert isinstance(value, expected) and isinstance(value, bool) == (widget.type == "BOOLEAN")
            if widget.type in ("INT", "FLOAT"):
                assert options.get("min", value) <= value <= options.get("max", value)


def test_defects_come_from_what_is_shipped(graph):
    if nodes_of(graph, "ADiffLoadDual") and not nodes_of(graph, "ADiffLoadDefect"):
        return  # a dual model is what the user has learned
    loader, *others = nodes_of(graph, "ADiffLoadDefect", "ADiffLoadDefectDataset")
    assert {other["widgets_values"][0] for other in others} <= {loader["widgets_values"][0]}
    if loader["type"] == "ADiffLoadDefect":
        library, product, defect = loader["widgets_values"][0].split(" / ")
        assert library == "demo (built in)"
    else:
        product, defect = loader["widgets_values"][0].removeprefix("built in: ").split("/")
    assert (product, defect) in WITHHELD
    assert "@" not in defect  # a fingerprint would warn after each training of the demo model
    assert {surface["widgets_values"][0] for surface in nodes_of(graph, "ADiffDrawSurface")} <= {product}
    for saved in nodes_of(graph, "ADiffSavePairs"):
        assert saved["widgets_values"] == ["adiff", product, defect]


def test_drawn_masks_lie_inside_the_picture(graph):
    links = {link[0]: link[1] for link in graph["links"]}
    for composite, grow in zip(nodes_of(graph, "MaskComposite"), nodes_of(graph, "GrowMask"), strict=True):
        (_, *ground), (value, width, height) = (
            next(node for node in graph["nodes"] if node["id"] == links[one["link"]])["widgets_values"]
            for one in composite["inputs"]
        )
        (surface,) = nodes_of(graph, "ADiffDrawSurface")
        x, y, operation = composite["widgets_values"]
        edge = grow["widgets_values"][0]
        assert (value, operation) == (1.0, "add")
        assert ground == 2 * [surface["widgets_values"][2]]
        assert ground[0] in (SIZE, 512)
        assert 0 < x - edge < x + width + edge < ground[0]
        assert 0 < y - edge < y + height + edge < ground[1]


def test_layout(graph):
    boxes = {node["id"]: box(node) for node in graph["nodes"]}
    assert all(apart(a, b) for a, b in combinations(boxes.values(), 2))
    groups = [(x, y, x + width, y + height) for x, y, width, height in (g["bounding"] for g in graph["groups"])]
    assert all(apart(a, b) for a, b in combinations(groups, 2))
    for node in graph["nodes"]:
        left, top, right, bottom = boxes[node["id"]]
        inside = [g[0] < left and g[1] < top and right < g[2] and bottom < g[3] for g in groups]
        assert sum(inside) == (0 if node["type"] in NOTES else 1)
    for _, origin, _, target, _, _ in graph["links"]:
        assert boxes[origin][2] < boxes[target][0]


def test_what_shows_pictures_has_the_room_that_the_front_end_gives_them():
    """Else the node grows as it shows them, out of its stage or over its neighbour; 220 is the front end's least."""
    texts = {"PreviewAny", "CLIPTextEncode", "ADiffEditLibrary", "ADiffLoadDual"}
    without = {"ADiffLoadDefect", *texts}  # the first has a widget of ours
    assert {type: room for type, room in PREVIEW.items() if room < 220}.keys() <= without


def test_one_note_says_what_to_change(graph):
    (note,) = nodes_of(graph, *NOTES)
    (text,) = note["widgets_values"]
    assert note["title"] == "What to change" and 200 < len(text) < 1200
    assert "http" not in text
    assert bool(nodes_of(graph, "ADiffSavePairs")) == ("*Save Pairs*" in text)  # which names the folders


def test_seed_control_stands_behind_the_seed(graph, schema):
    for node in nodes_of(graph, "ADiffKSampler", "KSampler"):
        names = [widget.name for widget in schema[node["type"]].widgets]
        assert node["widgets_values"][names.index("seed") + 1] in CONTROL
        assert len(node["widgets_values"]) == len(names) + 1


def test_a_guidance_is_found_once(schema):
    """Nothing in front of Fit Guidance changes by itself: queued again, the graph paints without finding it anew."""
    (path,) = [path for path in WORKFLOWS if path.stem.startswith("Find")]
    graph = json.loads(path.read_text("utf-8"))
    origins = {link[0]: link[1] for link in graph["links"]}
    nodes, (fit,) = {node["id"]: node for node in graph["nodes"]}, nodes_of(graph, "ADiffFitGuidance")
    todo, before = [fit], {}
    while todo:
        node = todo.pop()
        before[node["id"]] = node
        todo += [nodes[origins[one["link"]]] for one in node["inputs"] if one["link"] is not None]
    values = [value for node in before.values() for value in node["widgets_values"]]
    assert "fixed" in values and not {"increment", "decrement", "randomize"} & set(values)


def test_the_stock_sampler_gets_each_value_in_its_place(schema):
    (path,) = [path for path in WORKFLOWS if path.stem.startswith("Stock")]
    prompt = to_prompt(json.loads(path.read_text("utf-8")), schema)
    (sampler,) = [node["inputs"] for node in prompt.values() if node["class_type"] == "KSampler"]
    values = {name: value for name, value in sampler.items() if not isinstance(value, list)}
    assert values == {
        "seed": 2, "steps": 20, "cfg": 2.0, "sampler_name": "euler", "scheduler": "normal", "denoise": 1.0,
    }  # fmt: skip
    origins = {name: prompt[value[0]]["class_type"] for name, value in sampler.items() if isinstance(value, list)}
    assert origins == {
        "model": "ADiffApplyReweighting",
        "positive": "ADiffAnomalyConditioning",
        "negative": "ADiffLoadDemoModel",
        "latent_image": "SetLatentNoiseMask",
    }


def test_the_comparison_differs_in_the_mode_alone(schema):
    (path,) = [path for path in WORKFLOWS if path.stem.startswith("Compare")]
    prompt = to_prompt(json.loads(path.read_text("utf-8")), schema)
    samplers = [node["inputs"] for node in prompt.values() if node["class_type"] == "ADiffKSampler"]
    assert [inputs.pop("reweighting") for inputs in samplers] == ["off", "uniform", "balanced", "release"]
    assert all(inputs == samplers[0] for inputs in samplers)
    assert prompt[samplers[0]["seed"][0]]["class_type"] == "PrimitiveInt"


def test_inputs_without_a_widget_are_known(schema):
    source = "".join(path.read_text("utf-8") for path in (ROOT / "nodes").glob("*.py"))
    assert source.count("force_input=True") == len(LINK_ONLY)
    for node, name in LINK_ONLY:
        assert name in [one.name for one in schema[node].sockets]


def drawn(schema):
    return copy.deepcopy(GRAPHS[0](schema).to_json())


def test_conversion_refuses_what_the_front_end_would_misread(schema):
    graph = drawn(schema)
    nodes_of(graph, "ADiffKSampler")[0]["widgets_values"].pop(1)
    with pytest.raises(ValueError, match="12 values for 13 widgets"):
        to_prompt(graph, schema)
    graph = drawn(schema)
    nodes_of(graph, "ADiffKSampler")[0]["type"] = "ADiffSampler"
    with pytest.raises(ValueError, match="no such node"):
        to_prompt(graph, schema)
    graph = drawn(schema)
    nodes_of(graph, "VAEEncode")[0]["inputs"][0]["link"] = None
    with pytest.raises(ValueError, match="nothing goes into pixels"):
        to_prompt(graph, schema)
    graph = drawn(schema)
    nodes_of(graph, "VAEEncode")[0]["inputs"][0]["name"] = "image"
    with pytest.raises(ValueError, match="no input 'image'"):
        to_prompt(graph, schema)
    graph = drawn(schema)
    nodes_of(graph, "VAEEncode")[0]["mode"] = 4
    with pytest.raises(ValueError, match="mode 4"):
        to_prompt(graph, schema)


def test_a_graph_refuses_inputs_that_a_node_has_not(schema):
    from tools.templates.graph import Graph

    graph = Graph(schema, "note")
    graph.stage("only")
    with pytest.raises(ValueError, match="no input width"):
        graph.node("ADiffDrawSurface", width=128)
