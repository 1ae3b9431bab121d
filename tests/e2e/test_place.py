"""Masks placed onto an object that is given, or found in normal images."""

import json

import numpy as np
import pytest
from PIL import Image

from tests.e2e.comfyui import GraphError

SIDE = 96
SETTINGS = {"count": 0, "seed": 4, "turn": 180.0, "min_scale": 0.8, "max_scale": 1.2, "edge": "anywhere", "margin": 4,
            "tries": 16, "find": "automatic"}  # fmt: skip


def place(graph, boxes, **given):
    """Place Masks of rectangles, and previews of masks, foreground and report."""
    masks = graph("ProbeMasks", width=SIDE, height=SIDE, boxes=json.dumps(boxes))
    node = graph("ADiffPlaceMasks", masks=masks, **SETTINGS | given)
    shown = [graph("PreviewImage", images=graph("MaskToImage", mask=node[slot])) for slot in (0, 1)]
    return *shown, graph("PreviewAny", source=node[2])


def test_masks_lie_on_the_objects_found_in_the_normals(server, graph):
    discs = []
    for number in range(2):
        disc = np.hypot(*(np.indices((SIDE, SIDE)) - 40 - 8 * number)) < 26
        Image.fromarray(np.where(disc[..., None], 200, 20).astype(np.uint8).repeat(3, 2)).save(
            server.base / "input" / f"disc-{number}.png"
        )
        discs.append(disc)
    normals = graph("ImageBatch", image1=graph("LoadImage", image="disc-0.png"),
                    image2=graph("LoadImage", image="disc-1.png"))  # fmt: skip
    masks, found, report = place(graph, [[0, 0, 20, 6]], normals=normals)
    result = server.run(graph)
    placed, there = (result.images(shown)[..., 0] > 0 for shown in (masks, found))
    assert placed.shape == (2, SIDE, SIDE)
    for mask, object_, disc in zip(placed, there, discs, strict=True):
        assert (object_ & disc).sum() / (object_ | disc).sum() > 0.95
        assert not (mask & ~object_).any() and 60 < mask.sum() < 200
    assert "object: border colour" in result.text(report) and "mask 2: from mask 1, turned by" in result.text(report)


def test_masks_that_do_not_fit_are_reported_and_a_foreground_is_for_all(server, graph):
    foreground = graph("ProbeMasks", width=SIDE, height=SIDE, boxes="[[30, 30, 60, 60]]")
    label = server.option("ADiffLoadDefect", "defect", "demo (built in) / metal / scratch")
    masks, _, report = place(graph, [[0, 0, 90, 90], [0, 0, 8, 8]], foreground=foreground, turn=0.0, edge="away",
                             min_scale=1.0, max_scale=1.0)  # fmt: skip
    large = graph("ProbeMasks", width=SIDE, height=SIDE, boxes="[[2, 2, 94, 94]]")
    learned, _, _ = place(graph, [[0, 0, 20, 3]], foreground=large, count=3, seed=1,
                          defect=graph("ADiffLoadDefect", defect=label))  # fmt: skip
    result = server.run(graph)
    placed = result.images(masks)[..., 0] > 0
    assert placed.shape == (2, SIDE, SIDE) and (placed.sum((1, 2)) == 64).all()
    assert placed[:, 34:56, 34:56].sum() == 2 * 64  # four pixels from the edge
    assert "(did not fit: mask 1: larger than the object)" in result.text(report)
    assert len(result.images(learned)) == 3


def test_a_filter_takes_a_foreground_for_each_mask(server, graph):
    boxes = [[10, 10, 30, 30], [60, 60, 80, 80]]
    masks = graph("ProbeMasks", width=SIDE, height=SIDE, boxes=json.dumps(boxes))
    grounds = graph("ProbeMasks", width=SIDE, height=SIDE, boxes="[[0, 0, 40, 40], [0, 0, 40, 40]]")
    rules = {"min_area": 0.0, "max_area": 1.0, "max_parts": 9, "max_border": 1.0}
    node = graph("ADiffFilterMasks", masks=masks, foreground=grounds, **rules)
    report = graph("PreviewAny", source=node[1])
    assert server.run(graph).text(report).split("\n") == ["mask 1: kept", "mask 2: foreground"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "nothing tells where the object is; connect a foreground mask"),
        ({"normals": True}, "the object was not found \\(alpha: normal 1 of 1 has no transparency"),
        ({"foreground": [[5, 5, 9, 9]]}, "none of 1 masks fits on foreground 1 of 1: larger than the object"),
        ({"foreground": [None]}, "foreground \\(96x96\\) is empty"),
        ({"foreground": [[0, 0, 96, 96]], "edge": "near"}, "fills the image and has no edge to be near to"),
        ({"foreground": [[0, 0, 96, 96]], "min_scale": 2.0}, "scale is 2.0 to 1.2"),
    ],
)
def test_what_does_not_fit_is_said(server, graph, given, message):
    if "foreground" in given:
        given = given | {
            "foreground": graph("ProbeMasks", width=SIDE, height=SIDE, boxes=json.dumps(given["foreground"]))
        }
    if "normals" in given:
        given = {"normals": graph("ADiffDrawSurface", product="wood", count=1, size=SIDE, seed=0)}
    place(graph, [[0, 0, 20, 6]], **given)
    with pytest.raises(GraphError, match=message):
        server.run(graph)
