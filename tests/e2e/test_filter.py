"""Pairs sorted by their measures in the graph."""

import json

import numpy as np
import pytest
from PIL import Image

from tests.e2e.comfyui import GraphError

FILLS = (0.9, 0.1, 0.6)


@pytest.fixture(scope="module")
def photos(server):
    """Grey pictures in ComfyUI's input folder, of a level each."""
    for level in range(len(FILLS)):
        Image.fromarray(np.full((64, 64, 3), 50 * (level + 1), np.uint8)).save(server.base / "input" / f"l{level}.png")


def filtered(graph, fills=FILLS, **given):
    """A batch of grey pictures, filtered by made-up measures. Returns (kept, rejected, report), to be shown."""
    images = graph("LoadImage", image="l0.png")
    for level in range(1, len(fills)):
        images = graph("ImageBatch", image1=images, image2=graph("LoadImage", image=f"l{level}.png"))
    boxes = [[10 * i, 8, 10 * i + 8, 16] for i in range(len(fills))]
    masks = graph("ProbeMasks", width=64, height=64, boxes=json.dumps(boxes))
    told = graph("PrimitiveStringMultiline", value=json.dumps([{"fill": f, "seam": 2.0} for f in fills]))
    limits = {"min_fill": 0.5, "max_seam": 0.0, "max_likeness": 0.0, "min_novelty": 0.0} | given
    pairs = graph("ADiffFilterPairs", images=images, masks=masks, measures=told, **limits)
    return (
        graph("PreviewImage", images=pairs), graph("PreviewImage", images=pairs[4]),
        graph("PreviewAny", source=pairs[6]), graph("PreviewAny", source=pairs[2]),
    )  # fmt: skip


def test_pairs_go_both_ways_in_their_order(server, photos, graph):
    kept, rejected, report, measures = filtered(graph)
    result = server.run(graph)
    assert result.images(kept)[:, 0, 0, 0].tolist() == [50, 150]
    assert result.images(rejected)[:, 0, 0, 0].tolist() == [100]
    assert result.text(report) == "pair 1: kept\npair 2: fill 0.1 below 0.5\npair 3: kept"
    assert [one["fill"] for one in json.loads(result.text(measures))] == [0.9, 0.6]


def test_what_an_empty_side_feeds_does_not_run(server, photos, graph):
    kept, rejected, *_ = filtered(graph, min_fill=0.0)
    result = server.run(graph)
    assert len(result.images(kept)) == 3 and rejected.node not in result.outputs


def test_where_none_passes_nothing_is_saved_and_all_are_shown(server, photos, graph):
    kept, rejected, report, measures = filtered(graph, max_seam=0.01)
    result = server.run(graph)
    assert not {kept.node, measures.node} & set(result.outputs) and len(result.images(rejected)) == 3
    assert result.text(report).startswith("pair 1: seam 2 above 0.01")


def test_what_cannot_be_measured_is_said(server, photos, graph):
    filtered(graph, max_likeness=1.0)
    with pytest.raises(GraphError, match="a pair has no likeness to hold against max-likeness 1"):
        server.run(graph)


def test_changes_of_other_pairs_are_refused(server, photos, graph):
    two = graph("ImageBatch", image1=graph("LoadImage", image="l0.png"), image2=graph("LoadImage", image="l1.png"))
    filtered(graph, change=two)
    with pytest.raises(GraphError, match="2 changes for a batch of 3"):
        server.run(graph)
