"""The pack as ComfyUI loads it: a bare copy in custom_nodes, quick, documented, with a schema that stays."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.comfyui import NAME, ROOT
from tests.e2e.scenes import make_scene, masks
from tests.e2e.test_training import drawn

SNAPSHOT = Path(__file__).with_name("object_info.json")
NODES = tuple(json.loads(SNAPSHOT.read_text()))
OF_THE_MACHINE = {"data", "defect", "dual", "encoder", "library", "localizer", "sampler_name", "scheduler"}
"""Combos whose options depend on what is installed."""


def test_the_schema_has_not_changed(server):
    """Ids, names, order, types and defaults are for ever; ADIFF_WRITE_SNAPSHOT=1 writes what has been added."""
    ours = f"custom_nodes.{NAME}"
    now = {name: _schema(about) for name, about in server.object_info().items() if about["python_module"] == ours}
    if os.environ.get("ADIFF_WRITE_SNAPSHOT") == "1":
        SNAPSHOT.write_text(json.dumps(now, indent=1) + "\n")
    assert now == json.loads(SNAPSHOT.read_text())


def _schema(about: dict) -> dict:
    """What saved graphs depend on."""
    inputs = []
    for kind in ("required", "optional"):
        for name in about["input_order"].get(kind, []):
            type_, more = about["input"][kind][name]
            kept = {k: more[k] for k in ("default", "min", "max", "control_after_generate", "options") if k in more}
            if name in OF_THE_MACHINE:
                kept.pop("options", None)
            inputs.append({"name": name, "type": type_, "optional": kind == "optional", **kept})
    outputs = [{"type": t, "name": n} for t, n in zip(about["output"], about["output_name"], strict=True)]
    return {"inputs": inputs, "outputs": outputs, "output_node": about["output_node"]}


@pytest.mark.parametrize("name", NODES)
def test_everything_is_explained(server, name):
    about = server.object_info()[name]
    assert about["description"]
    for kind in ("required", "optional"):
        for given, (_, more) in about["input"].get(kind, {}).items():
            assert more.get("tooltip"), given
    assert all(about["output_tooltips"])
    assert f"# {about['display_name']}" in server.page(f"/extensions/{NAME}/docs/{name}.md")


def test_every_node_is_found_by_what_it_is_for(server):
    words = {name: about.get("search_aliases") for name, about in server.object_info().items()}
    if not any(words.values()):
        pytest.skip("this ComfyUI knows no other words for a node")
    assert all({"anomaly", "defect", "inspection"} < set(words[name]) for name in NODES)
    assert "MVTec" in words["ADiffSavePairs"] and "DualAnoDiff" in words["ADiffDualSampler"]


@pytest.mark.parametrize("language", ["zh", "ja", "ko"])
def test_everything_is_translated(server, language):
    translated = json.loads(server.page("/i18n"))[language]["nodeDefs"]
    for name in NODES:
        about, ours = server.object_info()[name], translated[name]
        assert ours["display_name"] and ours["description"]
        for kind in ("required", "optional"):
            for given in about["input"].get(kind, {}):
                assert ours["inputs"][given]["tooltip"], (name, given)


def test_a_library_list_says_where_files_go(server):
    assert "models/adiff_libraries" in server.object_info()["ADiffLoadDefect"]["description"]
    assert "models/adiff_encoders" in server.object_info()["ADiffLoadSpatialEncoder"]["description"]
    assert (server.base / "models" / "adiff_libraries").is_dir()


def test_libraries_of_extra_model_paths_are_listed_and_other_files_are_not(server):
    listed = {option.partition(" / ")[0] for option in server.options("ADiffLoadDefect", "defect")}
    assert {"demo (built in)", "things.safetensors", "plain.safetensors"} <= listed  # other tests save theirs
    assert not listed & {"damaged.safetensors", "foreign.pt"}
    encoders = server.options("ADiffLoadSpatialEncoder", "encoder")
    assert {"demo (built in)", "other.safetensors", "small.safetensors"} <= set(encoders)
    assert not set(encoders) & {"damaged.safetensors", "things.safetensors"}


def test_the_host_tells_that_it_imported_the_pack(server):
    line = re.search(rf"[\d.]+ seconds( \(IMPORT FAILED\))?: \S*{NAME}$", server.log, re.MULTILINE)
    assert line and not line[1]


def test_the_import_brings_no_module_that_comfyui_has_not(server):
    """The engine's samplers, diffusers and the command line come when a node runs them, if at all."""
    ours = [place for place, name in enumerate(server.modules) if name.startswith(str(server.pack).replace(".", "_x_"))]
    between = server.modules[ours[0] : ours[-1] + 1]  # also what they import: a module is listed before its imports
    assert len(ours) > 20
    others = {name.partition(".")[0] for name in between if NAME not in name} - set(sys.stdlib_module_names)
    assert others == set()


def test_the_pack_is_not_installed_and_finds_itself(server):
    assert not [name for name in server.modules if name.partition(".")[0] == "adiff"]


def test_nothing_runs_again_that_has_not_changed(server, graph):
    scene = make_scene(server, graph)
    scene.save(scene.ours())
    server.run(graph)
    assert set(server.run(graph).cached) == set(graph.nodes)


def test_preview_any_tells_what_a_socket_carries_without_its_numbers(server, graph):
    """ComfyUI sends the same to the page with every error: it was 5 MB for a library of a thousand defects."""
    photos = graph("ADiffDrawSurface", product="metal", count=2, size=64, seed=1)
    mask, normals = masks(graph, [[1, 1, 4, 4]]), graph("ADiffDrawSurface", product="metal", count=2, size=64, seed=2)
    settings = {"network": "small", "size": 32, "steps": 1, "batch": 2, "seed": 0, "name": "", "overwrite": False}
    carried = {
        "metal/scratch of demo (built in)": graph("ADiffLoadDefect", defect="demo (built in) / metal / scratch"),
        "demo (built in): metal/scratch, tile/stain": graph("ADiffLoadLibrary", library="demo (built in)"),
        "demo (built in) @": graph("ADiffLoadSpatialEncoder", encoder="demo (built in)"),
        "built in: metal/scratch: metal/scratch": drawn(graph, shots=2),
        "2 crops of 64 pixels, of 2 photos": graph(
            "ADiffCropToMask", image=photos, mask=mask, size=64, context=2.0, parts="near together"
        )[2],
        "this graph, small at 32 pixels": graph(
            "ADiffTrainLocalizer", images=photos, masks=mask, normals=normals, **settings
        ),
    }
    shown = {start: graph("PreviewAny", source=link) for start, link in carried.items()}
    result = server.run(graph)
    texts = {start: result.text(link) for start, link in shown.items()}
    assert all(text.startswith(start) and len(text) < 100 for start, text in texts.items()), texts


def test_requirements_change_no_installed_package(comfyui):
    _, python = comfyui
    pip = [python, "-m", "pip", "--disable-pip-version-check"]
    there = subprocess.run([*pip, "list", "--format", "json"], capture_output=True, text=True)
    if there.returncode:
        pytest.skip(f"{python} has no pip")
    command = [*pip, "install", "--dry-run", "--quiet", "--report", "-", "-r", str(ROOT / "requirements.txt")]
    asked = subprocess.run(command, capture_output=True, text=True)
    if asked.returncode:
        pytest.skip(f"pip could not look: {asked.stderr.strip().splitlines()[-1]}")
    installed = {_canonical(one["name"]) for one in json.loads(there.stdout)}
    wanted = {_canonical(one["metadata"]["name"]) for one in json.loads(asked.stdout)["install"]}
    assert not wanted & installed


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
