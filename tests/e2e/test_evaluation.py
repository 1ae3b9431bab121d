"""Pasting, learning to find a defect and measuring in a graph: results, a cancel, files, and what is wrong is said."""

import json

import numpy as np
import pytest

from adiff.baselines import METHODS
from adiff.evaluation.localizer_file import load_localizer
from adiff.evaluation.networks import NETWORKS
from tests.e2e.comfyui import Graph, GraphError
from tests.e2e.scenes import masks
from tests.e2e.test_training import Listener, drawn

SETTINGS = {"network": "small", "size": 32, "steps": 4, "batch": 2, "seed": 0, "name": "", "overwrite": False}


def surface(graph, count, seed, size=64):
    return graph("ADiffDrawSurface", product="metal", count=count, size=size, seed=seed)


def paste(graph, normals, method="crop-paste", count=4, **more):
    """Paste Baseline: [0] image, [1] mask."""
    return graph("ADiffPasteBaseline", normals=normals, method=method, count=count, seed=1, **more)


def train(graph, pairs, normals, **changes):
    """Train Localizer: [0] localizer, [1] curve, [2] report."""
    return graph("ADiffTrainLocalizer", images=pairs, masks=pairs[1], normals=normals, **SETTINGS | changes)


def show(graph, image):
    return graph("SaveImage", images=image, filename_prefix="e2e")


def test_choices_are_those_of_the_engine(server):
    assert tuple(server.options("ADiffPasteBaseline", "method")) == tuple(METHODS)
    assert tuple(server.options("ADiffTrainLocalizer", "network")) == tuple(NETWORKS)


@pytest.mark.parametrize("method", METHODS)
def test_pasted_pairs_change_nothing_outside_their_masks(server, graph, method):
    normals = surface(graph, 1, 3)
    given = {"shots": drawn(graph)} if method == "crop-paste" else {"masks": masks(graph, [[2, 2, 5, 4], [4, 4, 6, 7]])}
    pairs = paste(graph, normals, method, **given)
    shown = graph("MaskToImage", mask=pairs[1])
    seen = [show(graph, one) for one in (pairs, shown, normals)]
    result = server.run(graph)
    images, on, normal = (result.images(one).astype(int) for one in seen)
    assert images.shape == (4, 64, 64, 3)
    on = on[..., 0] > 0
    changed = np.abs(images - normal).max(-1) > 0
    assert not (changed & ~on).any() and (changed.any((1, 2))).all()
    if method != "crop-paste":  # the masks take turns
        assert on[0].sum() == on[2].sum() == 3 * 2 * 64 and on[1].sum() == 2 * 3 * 64


def test_a_localizer_is_trained_saved_and_judged_on_what_it_has_not_seen(server, graph):
    normals, dataset = surface(graph, 3, 1), drawn(graph, shots=2)
    learned = train(graph, paste(graph, normals, shots=dataset), normals, shots=dataset, name="found")
    scored = graph("ADiffScoreDataset", dataset=drawn(graph, shots=5), taught=dataset, localizer=learned,
                   normals=surface(graph, 2, 9, size=96))  # fmt: skip
    seen = graph("ADiffLocalize", localizer=learned, image=surface(graph, 2, 5, size=48))
    pictures = [show(graph, one) for one in (learned[1], scored, scored[1], seen[1], graph("MaskToImage", mask=seen))]
    texts = [graph("PreviewAny", source=one) for one in (learned[2], scored[2], seen[3], seen[2])]
    with Listener(server.url) as events:
        result = server.run(graph)
        events.wait_for(lambda kind, data: kind == "progress" and data["node"] == learned.node and data["value"] == 4)
    curve, table, sheet, overlay, heat = (result.images(one) for one in pictures)
    assert overlay.shape == heat.shape == (2, 48, 48, 3)
    assert all(len(np.unique(one)) > 20 for one in (curve, table, sheet))
    report, measures, scores, highest = (result.text(one) for one in texts)
    assert "small: 4 pairs, 2 real shots, 3 normal images, 4 steps" in report and f"{server.default}/found" in report
    told = json.loads(measures)
    assert list(told) == ["metal/scratch"] and told["metal/scratch"]["images"] == 3  # two of the five taught
    assert told["metal/scratch"]["normals"] == 2 and 0 <= told["metal/scratch"]["metrics"]["pro"] <= 1
    assert "novelty" not in told["metal/scratch"]["masks"]
    assert scores.startswith("image 1: 0.") and 0 <= float(highest) <= 1
    trained = load_localizer(server.default / "found.safetensors")
    assert (trained.size, trained.kind) == (32, "small")
    again = Graph()
    opened = again("ADiffLoadLocalizer", localizer="found.safetensors")
    same = again("ADiffLocalize", localizer=opened, image=surface(again, 2, 5, size=48))
    picture = show(again, again("MaskToImage", mask=same))
    assert np.array_equal(server.run(again).images(picture), heat)


def test_pairs_are_scored_without_a_localizer(server, graph):
    dataset = drawn(graph, shots=2)
    pairs = paste(graph, surface(graph, 1, 1), shots=dataset, count=3)
    scored = graph("ADiffScoreDataset", images=pairs, masks=pairs[1], taught=dataset)
    text = graph("PreviewAny", source=scored[2])
    told = json.loads(server.run(graph).text(text))["pairs"]
    assert told["images"] == 3 and "metrics" not in told
    assert 0 < told["masks"]["area"]["least"] <= told["masks"]["area"]["mean"] <= told["masks"]["area"]["most"] < 1
    assert 0 <= told["masks"]["novelty"]["mean"] <= 1


def test_a_training_is_cancelled(server, graph):
    normals = surface(graph, 2, 1)
    learned = train(graph, paste(graph, normals, "draem"), normals, steps=100_000, name="never")
    graph("PreviewAny", source=learned[2])
    with Listener(server.url) as events:
        name = server.queue(graph)
        events.wait_for(lambda kind, data: kind == "progress" and data["node"] == learned.node and data["value"] >= 2)
        server.interrupt()
        result = server.wait(name)
    assert [kind for kind, _ in result.events][-1] == "execution_interrupted"
    assert not (server.default / "never.safetensors").exists()


def test_what_is_wrong_is_said(server):
    def told(build):
        graph = Graph()
        graph("PreviewAny", source=build(graph, surface(graph, 1, 1)))
        with pytest.raises(GraphError) as raised:
            server.run(graph)
        return str(raised.value)

    def boxes(graph, size):
        return masks(graph, [[2, 2, 4, 4]], size // 8, size // 8)

    assert "no shots for crop-paste" in told(lambda graph, normals: paste(graph, normals))
    assert "connect either a dataset or images" in told(lambda graph, normals: graph("ADiffScoreDataset")[2])
    assert "images without masks" in told(lambda graph, normals: graph("ADiffScoreDataset", images=normals)[2])
    assert "all shots of built in: metal/scratch taught" in told(
        lambda graph, normals: graph("ADiffScoreDataset", dataset=drawn(graph), taught=drawn(graph))[2]
    )
    assert "the masks are 32 x 32, the images 64 x 64" in told(
        lambda graph, normals: graph("ADiffTrainLocalizer", images=normals, masks=boxes(graph, 32), normals=normals,
                                     **SETTINGS)[2]
    )  # fmt: skip
    assert "already; choose another name" in told(
        lambda graph, normals: graph("ADiffTrainLocalizer", images=normals, masks=boxes(graph, 64), normals=normals,
                                     **SETTINGS | {"name": "found"})[2]
    )  # fmt: skip
    assert "there is no localizer 'gone'" in told(
        lambda graph, normals: graph("ADiffLocalize", image=normals,
                                     localizer=graph("ADiffLoadLocalizer", localizer="gone"))[3]
    )  # fmt: skip
