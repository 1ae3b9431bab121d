"""The real shots described by a network of the user's: pairs are measured and filtered on its scale."""

import json

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image

from adiff.features import load_features
from adiff.scoring import describe, likeness, spread
from tests.e2e.comfyui import GraphError

BOX = [20, 30, 60, 90]
"""Left, top, right, bottom of the mask, pixels."""


@pytest.fixture(scope="module")
def network(server):
    """torchvision's smallest, random, in ComfyUI's folder of feature networks."""
    path = server.base / "models" / "adiff_features" / "shufflenet_v2_x0_5-random.pth"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        torch.save(torchvision.models.shufflenet_v2_x0_5(weights=None).state_dict(), path)
    return path


@pytest.fixture(scope="module")
def shots(server):
    """Three photos of wood/hole with masks in a folder of ComfyUI's input folder; (image, mask) of each."""
    rng, found = np.random.default_rng(0), []
    for number in range(3):
        image, mask = rng.integers(90, 150, (128, 128, 3), np.uint8), np.zeros((128, 128), bool)
        mask[30 + 10 * number : 70, 20:60] = True
        image[mask] = 20 + 5 * number
        for kind, picture in (("images", image), ("masks", mask)):
            (server.base / "input" / "wood" / kind).mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture).save(server.base / "input" / "wood" / kind / f"{number}.png")
        found.append((image, mask))
    return found


def described(server, graph, network, **given):
    label = server.option("ADiffLoadDefect", "defect", "demo (built in) / wood / hole")
    defect = graph("ADiffLoadDefect", defect=label)
    dataset = graph("ADiffLoadDefectDataset", **{"data": "wood", "product": "", "defect": "hole", "shots": 8} | given)
    return graph("ADiffDescribeShots", defect=defect, dataset=dataset, features=network.name)


def test_the_likeness_and_its_limit_are_the_network_s(server, graph, network, shots):
    told = described(server, graph, network)
    demo = graph("ADiffLoadDemoModel")
    image = graph("ADiffDrawSurface", product="wood", count=1, size=128, seed=1)
    latent = graph("VAEEncode", pixels=image, vae=demo[1])
    mask = graph("ProbeMasks", width=128, height=128, boxes=json.dumps([BOX]))
    pair = graph("ADiffFinishPair", normal=image, samples=latent, mask=mask, vae=demo[1], feather_radius=0.0,
                 refine=False, defect=told)  # fmt: skip
    limits = {"min_fill": 0.0, "max_seam": 0.0, "max_likeness": 0.0, "min_novelty": 0.0}
    sorted_pairs = graph("ADiffFilterPairs", images=pair, masks=pair[1], measures=pair[3], defect=told, **limits)
    shown = [graph("PreviewAny", source=source) for source in (pair[3], told[1], sorted_pairs[6])]
    picture = graph("PreviewImage", images=pair)
    result = server.run(graph)
    measures, report, verdict = (result.text(one) for one in shown)
    (measures,), eye = json.loads(measures), load_features(network)
    seen, on = describe(eye, *zip(*shots, strict=True)), np.zeros((128, 128), bool)
    on[BOX[1] : BOX[3], BOX[0] : BOX[2]] = True
    found = likeness(describe(eye, [result.images(picture)[0]], [on])[0], seen)
    assert measures["likeness"] == pytest.approx(found, rel=0.02)  # Preview Image cuts off what is below a level
    assert measures["likeness_shots"] == pytest.approx(spread(seen), rel=1e-3)
    assert f"3 shots of wood/hole seen by shufflenet_v2_x0_5 at stage3: {spread(seen):.3g} to the nearest" in report
    limit = round(1.5 * max(likeness(one, np.delete(seen, i, axis=0)) for i, one in enumerate(seen)), 3)
    assert found > limit and f"above {limit:g}" in verdict  # bare wood is no hole


def test_what_does_not_fit_is_said(server, graph, network, shots):
    graph("PreviewAny", source=described(server, graph, network, defect="dent")[1])
    with pytest.raises(GraphError, match="wood holds no shots of wood/hole; it holds wood/dent"):
        server.run(graph)


def test_a_network_that_is_not_there_is_refused_before_the_run(server, graph, network, shots):
    graph("PreviewAny", source=described(server, graph, network.with_name("gone.pth"))[1])
    with pytest.raises(GraphError, match="there is no feature network 'gone.pth' in models/adiff_features; put it"):
        server.run(graph)


def test_a_guidance_is_fitted_as_the_network_sees_the_shots(server, graph, network, shots):
    """Whose numbers are small."""
    told, demo = described(server, graph, network), graph("ADiffLoadDemoModel")
    mask = graph("ProbeMasks", width=128, height=128, boxes=json.dumps([BOX]))
    positive = graph("ADiffAnomalyConditioning", defect=told, mask=mask, strength=1.0,
                     encoder=graph("ADiffLoadSpatialEncoder", encoder="demo (built in)"))  # fmt: skip
    fit = graph(
        "ADiffFitGuidance", defect=told, model=demo, positive=positive, negative=demo[2], vae=demo[1], mask=mask,
        images=graph("ADiffDrawSurface", product="wood", count=1, size=128, seed=1), seed=5, steps=2,
        sampler_name="euler", scheduler="normal",
    )  # fmt: skip
    report = graph("PreviewAny", source=fit[2])
    _, *lines = server.run(graph).text(report).splitlines()
    gaps = [float(line.split(": ")[1].split(" ")[0]) for line in lines]
    assert len(set(gaps)) == len(gaps) > 1 and min(gaps) > 0
