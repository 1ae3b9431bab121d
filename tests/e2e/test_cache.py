"""On a ComfyUI that keeps earlier graphs' results, as a newer one does by default, files are of the graph run last."""

import pytest
import torch
from safetensors.torch import load_file

from adiff.library import load_library, save_library
from tests.e2e import test_dual
from tests.e2e.checkpoints import running
from tests.e2e.comfyui import Graph
from tests.e2e.libraries import make_many
from tests.e2e.scenes import masks
from tests.e2e.test_training import demo, drawn, save

FOLDERS = {"library": "models/adiff_libraries", "dual": "models/adiff_dual", "localizer": "default"}


@pytest.fixture(scope="module")
def keeping(comfyui):
    """A server that keeps the results of a hundred nodes."""
    with running(comfyui, options=("--cache-lru", "100")) as server:
        save_library(server.base / "models" / "adiff_libraries" / "many.safetensors", make_many(3))
        yield server


def library(graph, author, overwrite=True):
    """Library "kept" of three defects, the first one's author changed."""
    loaded = graph("ADiffLoadLibrary", library="many.safetensors")
    fields = {name: "" for name in ("defect", "new_name", "tags", "licence", "notes")} | {"remove": False}
    return save(graph, graph("ADiffEditLibrary", library=loaded, author=author, **fields), "kept", overwrite)


def dual(graph, steps):
    """Dual model "kept", learned in so many steps."""
    return test_dual.train(graph, demo(graph), drawn(graph), "kept", steps=steps, overwrite=True)


def localizer(graph, steps):
    """Localizer "kept", learned in so many steps."""
    photos = [graph("ADiffDrawSurface", product="metal", count=4, size=64, seed=seed) for seed in (1, 2)]
    given = {"images": photos[0], "masks": masks(graph, [[1, 1, 4, 4]]), "normals": photos[1]}
    given |= {"network": "small", "size": 32, "batch": 2, "seed": 0, "name": "kept", "overwrite": True}
    learned = graph("ADiffTrainLocalizer", steps=steps, **given)
    graph("PreviewAny", source=learned[2])
    return learned


def run(server, build, *given):
    """Run one graph of its own. Returns whether its node wrote."""
    graph = Graph()
    node = build(graph, *given)
    return node.node not in server.run(graph).cached


def kept(server, kind):
    """The file."""
    return server.base / FOLDERS[kind] / "kept.safetensors"


def test_a_library_is_that_of_the_graph_run_last(keeping):
    for name in ("Ada", "Bo", "Ada", "Bo"):
        run(keeping, library, name)
        assert load_library(kept(keeping, "library")).get("metal/scratch 1").info["author"] == name


@pytest.mark.parametrize(("build", "kind"), [(dual, "dual"), (localizer, "localizer")])
def test_a_model_is_that_of_the_graph_run_last(keeping, build, kind):
    found = []
    for steps in (1, 2, 1):
        run(keeping, build, steps)
        found.append(load_file(kept(keeping, kind)))
    assert [all(torch.equal(found[2][name], one[name]) for name in one) for one in found[:2]] == [True, False]
    assert not run(keeping, build, 1)


def test_what_was_edited_elsewhere_stays_while_the_same_graph_is_run(keeping):
    run(keeping, library, "Cy")
    save_library(kept(keeping, "library"), make_many(1))
    assert not run(keeping, library, "Cy")
    assert len(load_library(kept(keeping, "library")).defects) == 1


def test_nodes_of_one_graph_may_write_one_file(keeping):
    for again in (False, True):
        graph = Graph()
        nodes = {library(graph, name).node for name in ("Di", "Ed")}
        assert nodes.isdisjoint(keeping.run(graph).cached) is not again
