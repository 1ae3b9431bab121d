"""The pack in a browser: every template opens whole and queues what the tests run; other languages name the nodes."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.e2e.comfyui import NAME, ROOT
from tests.e2e.convert import ui_to_api

TEMPLATES = sorted(path.stem for path in (ROOT / "workflows").glob("*.json"))
RUN = "Generate from a drawn mask"
OWN = {"Defect in a prompt with a LoRA", "Generate with a dual model", "The two methods side by side"}
"""Templates that want a file of the user's own: there is none to choose."""
LIMIT = 600
"""Seconds."""


def browser() -> tuple[str, str]:
    """Return Node and a Chromium that playwright-core can drive; skips without them."""
    node = shutil.which("node")
    chromium = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    if node is None or chromium is None:
        pytest.skip("no browser to test with: node and chromium are needed")
    asked = [node, "-e", "require('module').createRequire(process.argv[1])('playwright-core')"]
    modules = Path(os.environ.get("NODE_PATH") or Path.cwd())
    if subprocess.run([*asked, str(modules / "_")], capture_output=True).returncode:
        pytest.skip("no browser to test with: npm install playwright-core, and set NODE_PATH to its node_modules")
    return node, chromium


@pytest.fixture(scope="module")
def seen(server, tmp_path_factory):
    """What the browser saw; ADIFF_PICTURES=folder keeps its pictures."""
    node, chromium = browser()
    pictures = Path(os.environ.get("ADIFF_PICTURES") or tmp_path_factory.mktemp("pictures"))
    command = [node, str(Path(__file__).with_name("browser.mjs")), server.url, NAME, str(pictures)]
    environment = {**os.environ, "CHROMIUM": chromium}
    told = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=LIMIT)
    assert told.returncode == 0, told.stderr
    assert len(list(pictures.glob("*.png"))) >= len(TEMPLATES)
    return json.loads(told.stdout)


def test_the_template_browser_offers_every_template(seen):
    assert sorted(seen["templates"]) == TEMPLATES


def as_the_server_reads(server, node: dict) -> dict:
    """A queued node without what is no input of it: the front end's own widgets, such as the text of Preview Any."""
    kinds = server.object_info()[node["class_type"]]["input"]
    known = {name for kind in ("required", "optional") for name in kinds.get(kind, {})}
    return {"class_type": node["class_type"], "inputs": {n: v for n, v in node["inputs"].items() if n in known}}


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_template_opens_whole_and_queues_what_the_tests_run(server, seen, name):
    opened, saved = seen["templates"][name], json.loads((ROOT / "workflows" / f"{name}.json").read_text())
    assert opened["missing"] == []
    queued = {key: as_the_server_reads(server, node) for key, node in opened["prompt"].items()}
    assert queued == ui_to_api(saved, server.object_info())
    kept = {node["id"]: (node["type"], node.get("widgets_values") or []) for node in opened["workflow"]["nodes"]}
    for node in saved["nodes"]:
        assert kept[node["id"]] == (node["type"], node["widgets_values"])
    links = ({tuple(link[:6]) for link in graph["links"]} for graph in (opened["workflow"], saved))
    assert next(links) == next(links)


def test_load_defect_shows_the_library_s_picture(seen):
    """A browser asks once for each defect, and may take it from its cache later."""
    graphs = [json.loads((ROOT / "workflows" / f"{name}.json").read_text()) for name in TEMPLATES]
    nodes = [node for graph in graphs for node in graph["nodes"] if node["type"] == "ADiffLoadDefect"]
    chosen = {node["widgets_values"][0] for node in nodes}
    assert chosen <= {defect for defect, *_ in seen["pictures"]} and chosen
    fresh, unchanged = [200, "image/png"], [304, None]
    assert [one for one in seen["pictures"] if one[1:] not in (fresh, unchanged)] == []
    assert any(one[1:] == fresh for one in seen["pictures"])


def test_nodes_that_are_elements_of_the_page_fit_and_show_the_picture(seen):
    if not seen["modern"]:
        pytest.skip("this front end has no Nodes 2.0")
    assert sorted(seen["modern"]) == TEMPLATES
    assert {name: one["grown"] for name, one in seen["modern"].items() if one["grown"]} == {}
    assert all(one["missing"] == [] for one in seen["modern"].values())
    assert {name for name, one in seen["modern"].items() if one["invalid"]} <= OWN
    pictures = [picture for one in seen["modern"].values() for picture in one["pictures"]]
    assert pictures and all(there and height >= 128 for there, height in pictures)


def test_the_picture_follows_a_choice_that_is_taken_back(seen):
    if not seen["modern"]:
        pytest.skip("this front end has no Nodes 2.0")
    before, chosen, after = seen["undone"]
    assert before["values"] != chosen["values"] == ["demo (built in) / tile / stain"]
    assert all(step["pictures"] == step["values"] for step in (before, chosen, after)), seen["undone"]


def test_the_wheel_zooms_over_the_picture(seen):
    assert len(seen["zoom"]) == (2 if seen["modern"] else 1)
    assert all(after > before for before, after in seen["zoom"])


def test_a_run_shows_its_progress_and_its_pairs(seen):
    told = seen["run"]
    assert told["progress"] >= 20 and told["previews"] >= 5
    assert told["shown"]["ADiffSavePairs"] == [[3 * 128, 128]]
    assert told["shown"]["PreviewImage"] == [[128, 128]]


def test_what_a_node_gives_is_shown_once(seen):
    """And not its last live picture beside it."""
    assert [len(shown) for shown in seen["given"]] == [1] * (2 if seen["modern"] else 1), seen["given"]


@pytest.mark.parametrize("language", ["ko", "ja"])
def test_another_language_names_nodes_inputs_and_outputs(seen, language):
    translated = json.loads((ROOT / "locales" / language / "nodeDefs.json").read_text("utf-8"))
    ours = [node for node in seen["languages"][language] if node["type"] in translated]
    assert len(ours) >= 8
    for node in ours:
        wanted = translated[node["type"]]
        assert node["title"] == wanted["display_name"]
        inputs = {one["name"] for one in wanted.get("inputs", {}).values()}
        shown = {*node["inputs"], *node["widgets"]} - {"control_after_generate", "adiff_picture"}
        assert inputs <= shown, (node, inputs - shown)
        assert [one["name"] for one in wanted.get("outputs", {}).values()] == node["outputs"]
