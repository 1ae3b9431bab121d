"""Fit Guidance: the cfg with which Anomaly KSampler paints a defect most like its shots."""

import json
import re

import numpy as np
import pytest
from PIL import Image

from adiff.backbone import demo_library_path, load_backbone
from adiff.generation.guidance import LADDER
from adiff.library import load_library
from adiff.scoring import describe
from tests.e2e.comfyui import GraphError
from tests.e2e.scenes import make_scene
from tests.e2e.test_training import Listener

BOXES = [[20, 30, 60, 90], [50, 20, 100, 60]]
"""Left, top, right, bottom of the masks, pixels."""
SAMPLING = {"seed": 5, "steps": 4, "sampler_name": "euler", "scheduler": "normal"}


def fitted(server, graph):
    """Returns what paints, and Fit Guidance."""
    label = server.option("ADiffLoadDefect", "defect", "demo (built in) / wood / hole")
    defect, demo = graph("ADiffLoadDefect", defect=label), graph("ADiffLoadDemoModel")
    encoder = graph("ADiffLoadSpatialEncoder", encoder="demo (built in)")
    image = graph("ADiffDrawSurface", product="wood", count=2, size=128, seed=1)
    mask = graph("ProbeMasks", width=128, height=128, boxes=json.dumps(BOXES))
    positive = graph("ADiffAnomalyConditioning", defect=defect, mask=mask, encoder=encoder, strength=1.0)
    given = {"model": demo, "positive": positive, "negative": demo[2], "mask": mask, **SAMPLING}
    fit = graph("ADiffFitGuidance", defect=defect, vae=demo[1], images=image, **given)
    return {"normal": graph("VAEEncode", pixels=image, vae=demo[1]), **given}, image, demo[1], fit


def test_the_best_value_is_what_the_sampler_paints_most_like_the_shots(server, graph):
    painting, image, vae, fit = fitted(server, graph)
    more = {"denoise": 1.0, "reweighting": "balanced", "reweighting_strength": 1.0, "distance": "latent",
            "blending": "fresh noise"}  # fmt: skip
    latent = graph("ADiffKSampler", **painting, cfg=fit, **more)
    pair = graph("ADiffFinishPair", normal=image, samples=latent, mask=painting["mask"], vae=vae, feather_radius=0.0,
                 refine=False)  # fmt: skip
    shown, told = graph("SaveImage", images=pair, filename_prefix="fit"), graph("PreviewAny", source=fit[2])
    sheet = graph("SaveImage", images=fit[1], filename_prefix="sheet")
    with Listener(server.url) as events:
        result = server.run(graph)
        moved = [data for kind, data in events.seen if kind == "progress" and data["node"] == fit.node]
        pictures = [data for kind, data in events.seen if kind == "preview"]
    head, *lines = result.text(told).splitlines()
    best = float(re.fullmatch(r"wood/hole: cfg ([\d.]+)", head)[1])
    gaps = dict(map(float, re.match(r"cfg ([\d.]+): ([\d.]+) from the shots", line).groups()) for line in lines)
    assert set(gaps) <= set(LADDER) and len(gaps) >= 2 and list(gaps) == sorted(gaps)
    assert [line.endswith(", chosen") for line in lines] == [cfg == best for cfg in gaps]
    masks = np.zeros((2, 128, 128), bool)
    for mask, (left, top, right, bottom) in zip(masks, BOXES, strict=True):
        mask[top:bottom, left:right] = True
    values = [data["value"] for data in moved]
    assert {data["max"] for data in moved} == {len(LADDER) * SAMPLING["steps"]} and values == sorted(values)
    assert values[-1] == len(LADDER) * SAMPLING["steps"] and len(pictures) >= len(gaps)
    seen = describe(load_backbone("demo", "cpu"), list(result.images(shown)), list(masks))
    known = load_library(demo_library_path()).get("wood/hole").likeness.numpy()
    assert np.linalg.norm(seen.mean(0) - known.mean(0)) == pytest.approx(gaps[best], abs=0.02)
    (picture,) = result.images(sheet)
    assert picture.shape[0] > 150 * len(gaps) and Image.fromarray(picture).getcolors(4096) is None


def test_a_defect_whose_shots_are_not_described_is_told(server, graph):
    scene = make_scene(server, graph)
    image = graph("EmptyImage", width=64, height=64, batch_size=1, color=0x808080)
    fit = graph("ADiffFitGuidance", defect=scene.defect, model=scene.model, positive=scene.positive,
                negative=scene.negative, vae=scene.vae, images=image, mask=scene.mask, **SAMPLING)  # fmt: skip
    graph("PreviewAny", source=fit[2])
    with pytest.raises(GraphError, match="a guidance cannot be fitted to metal/scratch"):
        server.run(graph)


def test_a_conditioning_of_another_defect_is_told(server, graph):
    *_, fit = fitted(server, graph)
    label = server.option("ADiffLoadDefect", "defect", "demo (built in) / metal / scratch")
    other = graph("ADiffLoadDefect", defect=label)
    graph.nodes[fit.node]["inputs"]["defect"] = [other.node, other.slot]
    graph("PreviewAny", source=fit[2])
    with pytest.raises(GraphError, match="the positive conditioning paints wood/hole, not metal/scratch as in "):
        server.run(graph)
