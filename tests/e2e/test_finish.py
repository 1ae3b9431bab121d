"""Pairs on disk: aligned, whole, never overwritten, the graph inside."""

import hashlib
import json
from itertools import count

import numpy as np
import pytest
from PIL import Image

from tests.e2e.comfyui import Graph, GraphError, Link
from tests.e2e.scenes import make_scene

folders = (f"pairs-{number}" for number in count())
WORKFLOW = {"nodes": [], "links": [], "version": 0.4}


@pytest.fixture(scope="module")
def photos(server):
    """Photos in ComfyUI's input folder, by size; the second is no multiple of 8."""
    rng = np.random.default_rng(0)
    made = {}
    for width, height in ((64, 64), (109, 75)):
        pixels = rng.integers(0, 256, (height, width, 3), np.uint8)
        name = f"photo-{width}.png"
        Image.fromarray(pixels).save(server.base / "input" / name)
        made[width, height] = (name, pixels)
    return made


def pair_graph(server, photo: str, size: tuple[int, int], folder: str, *, box, seed=5, refine=False, **saved):
    """Load Image -> ... -> Save Pairs. box: of the mask, pixels. Returns (graph, nodes by name)."""
    graph = Graph()
    scene = make_scene(server, graph)
    image = graph("LoadImage", image=photo)
    normal = graph("VAEEncode", pixels=image, vae=scene.vae)
    mask = graph("ProbeMasks", width=size[0], height=size[1], boxes=json.dumps([box]))
    sampled = scene.ours(normal=normal, mask=mask, positive=scene.condition(mask), seed=seed, blending="fresh noise")
    given = {"feather_radius": 1.5, "refine": refine}
    pair = graph("ADiffFinishPair", normal=image, samples=sampled, mask=mask, vae=scene.vae, **given)
    target = {"folder": folder, "product": "metal", "defect": "scratch", **saved}
    kept = graph("ADiffSavePairs", images=pair, masks=pair[1], change=pair[2], measures=pair[3], **target)
    return graph, {"save": kept, "measures": graph("PreviewAny", source=pair[3])}


@pytest.mark.parametrize(("size", "box"), [((64, 64), [13, 17, 50, 44]), ((109, 75), [20, 9, 90, 60])])
def test_a_pair_is_aligned_and_keeps_the_photo_around_the_mask(server, photos, size, box):
    name, photo = photos[size]
    folder = next(folders)
    graph, nodes = pair_graph(server, name, size, folder, box=box)
    result = server.run(graph, WORKFLOW)
    root = server.base / "output" / folder / "metal"
    image = Image.open(root / "test" / "scratch" / "000000.png")
    mask = np.asarray(Image.open(root / "ground_truth" / "scratch" / "000000_mask.png"))
    wanted = np.zeros((size[1], size[0]), dtype=bool)
    wanted[box[1] : box[3], box[0] : box[2]] = True
    assert np.array_equal(mask, wanted * np.uint8(255))
    assert np.array_equal(np.asarray(image)[~wanted], photo[~wanted])
    assert not np.array_equal(np.asarray(image)[wanted], photo[wanted])
    assert json.loads(image.text["workflow"]) == WORKFLOW
    assert json.loads(image.text["prompt"])[nodes["save"].node]["class_type"] == "ADiffSavePairs"
    (measured,) = json.loads(result.text(nodes["measures"]))
    assert measured["leak"] == 0
    assert 0 <= measured["fill"] <= 1
    record = json.loads((root / "pairs" / "scratch" / "000000.json").read_text())
    assert record["fill"] == measured["fill"]
    assert record["normal"] == f"{hashlib.sha256(photo.tobytes()).hexdigest()[:16]}.png"
    assert (record["seed"], record["library"].partition(" @")[0]) == (5, "things.safetensors / metal / scratch")
    assert result.images(nodes["save"]).shape == (1, size[1], 3 * size[0], 3)


def saved_as(server, folder: str) -> dict:
    """The record of a folder's first pair."""
    return json.loads((server.base / "output" / folder / "metal" / "pairs" / "scratch" / "000000.json").read_text())


def test_a_pair_saved_in_a_loop_says_what_it_was_made_from(server, photos):
    """Its node is not in the graph that was queued."""
    folder = next(folders)
    graph, nodes = pair_graph(server, photos[64, 64][0], (64, 64), folder, box=[13, 17, 50, 44])
    saved = graph.nodes[nodes["save"].node]["inputs"]
    inputs = {name: saved.pop(name) for name in ("images", "masks")}
    settings = {name: saved[name] for name in ("folder", "product", "defect")}
    graph.nodes[nodes["save"].node] = {
        "class_type": "ProbeSaveLoop",
        "inputs": inputs | {"settings": json.dumps(settings)},
    }
    graph("PreviewAny", source=nodes["save"])
    server.run(graph)
    record = saved_as(server, folder)
    assert (record["seed"], record["library"].partition(" @")[0]) == (5, "things.safetensors / metal / scratch")


def test_a_pair_says_the_seed_that_a_primitive_gives_and_no_defect_that_a_node_chose(server, photos):
    folder = next(folders)
    graph, _ = pair_graph(server, photos[64, 64][0], (64, 64), folder, box=[13, 17, 50, 44])
    kinds = {node["class_type"]: node["inputs"] for node in graph.nodes.values()}
    seed = graph("PrimitiveInt", value=77)
    words = graph("ProbeWords", words=json.dumps([kinds["ADiffLoadDefect"]["defect"]]))
    kinds["ADiffKSampler"]["seed"] = [seed.node, seed.slot]
    kinds["ADiffLoadDefect"]["defect"] = [words.node, words.slot]
    server.run(graph)
    record = saved_as(server, folder)
    assert record["seed"] == 77 and "library" not in record


def test_a_pair_says_the_seed_that_a_node_computed_if_one_sampler_painted_it(server, photos):
    folder, twice = next(folders), next(folders)
    graph, _ = pair_graph(server, photos[64, 64][0], (64, 64), folder, box=[13, 17, 50, 44])
    kinds = {node["class_type"]: node["inputs"] for node in graph.nodes.values()}
    width = graph("GetImageSize", image=Link(*kinds["ADiffFinishPair"]["normal"]))
    kinds["ADiffKSampler"]["seed"] = [width.node, width.slot]
    server.run(graph)
    assert saved_as(server, folder)["seed"] == 64
    same = ("model", "positive", "negative", "steps", "cfg", "sampler_name", "scheduler", "denoise")
    given = {name: kinds["ADiffKSampler"][name] for name in same}
    again = graph("KSampler", **given, seed=5, latent_image=Link(*kinds["ADiffFinishPair"]["samples"]))
    kinds["ADiffFinishPair"]["samples"] = [again.node, again.slot]
    kinds["ADiffSavePairs"]["folder"] = twice
    server.run(graph)
    assert "seed" not in saved_as(server, twice)


def test_a_normal_image_has_one_name_in_pairs_and_exports(server, photos):
    """By which both go into the same part."""
    name, _ = photos[64, 64]
    folder = next(folders)
    server.run(pair_graph(server, name, (64, 64), folder, box=[13, 17, 50, 44])[0])
    graph = Graph()
    given = {"format": "folder", "product": "", "validation": 0.0, "polygons": False}
    graph("ADiffExportPairs", folder=folder, normals=graph("LoadImage", image=name), **given)
    server.run(graph)
    images = json.loads((server.base / "output" / f"{folder}-folder" / "provenance.json").read_text())["images"]
    pair, normal = sorted(images.values(), key=lambda about: "file" in about)
    assert pair["normal"] == normal["file"]


def test_nothing_is_ever_overwritten(server, photos):
    name, _ = photos[64, 64]
    folder = next(folders)
    images = server.base / "output" / folder / "metal" / "test" / "scratch"
    for number in range(3):
        graph, _ = pair_graph(server, name, (64, 64), folder, box=[13, 17, 50, 44], seed=number)
        before = {path.name: path.read_bytes() for path in images.glob("*")}
        server.run(graph)
        after = {path.name: path.read_bytes() for path in images.glob("*")}
        assert sorted(after) == [f"{i:06d}.png" for i in range(number + 1)]
        assert before.items() <= after.items()


def test_a_refined_mask_lies_in_the_drawn_one(server, photos):
    name, _ = photos[64, 64]
    folder = next(folders)
    graph, _ = pair_graph(server, name, (64, 64), folder, box=[13, 17, 50, 44], refine=True)
    server.run(graph)
    path = server.base / "output" / folder / "metal" / "ground_truth" / "scratch" / "000000_mask.png"
    mask = np.asarray(Image.open(path)) > 0
    assert mask.any()
    mask[17:44, 13:50] = False
    assert not mask.any()


CROSS = ([20, 60, 90, 66], [50, 30, 56, 99])
"""Left, top, right, bottom of its bars, pixels."""


def measured_beside_shots(server, **given):
    """Measures and image of an unpainted demo pair under CROSS, with what else Finish Pair is given."""
    graph = Graph()
    demo = graph("ADiffLoadDemoModel")
    label = server.option("ADiffLoadDefect", "defect", "demo (built in) / wood / hole")
    defect = graph("ADiffLoadDefect", defect=label)
    checkpoint = graph("CheckpointLoaderSimple", ckpt_name="sd15.safetensors")
    image = graph("ADiffDrawSurface", product="wood", count=1, size=128, seed=1)
    latent = graph("VAEEncode", pixels=image, vae=demo[1])
    bars = [graph("ProbeMasks", width=128, height=128, boxes=json.dumps([box])) for box in CROSS]
    mask = graph("MaskComposite", destination=bars[0], source=bars[1], x=0, y=0, operation="add")
    links = {"defect": defect, "demo": demo, "sd15": checkpoint}
    pair = graph(
        "ADiffFinishPair", normal=image, samples=latent, mask=mask, vae=demo[1], feather_radius=0.0, refine=False,
        **{name: links[value] for name, value in given.items()},
    )  # fmt: skip
    shown, image = graph("PreviewAny", source=pair[3]), graph("PreviewImage", images=pair)
    result = server.run(graph)
    (measures,) = json.loads(result.text(shown))
    return measures, result.images(image)[0]


def test_pairs_are_compared_with_the_shots_as_far_as_the_graph_tells_of_them(server):
    bare, _ = measured_beside_shots(server)
    assert set(bare) == {"fill", "leak", "seam", "refined_iou", "area", "components", "border", "normal"}
    new, _ = measured_beside_shots(server, defect="defect")
    assert set(new) - set(bare) == {"novelty"}
    assert 0.2 < new["novelty"] <= 1  # a cross is no hole
    alike, _ = measured_beside_shots(server, defect="defect", model="demo")
    assert set(alike) - set(new) == {"likeness", "likeness_shots"}
    assert alike["likeness"] > alike["likeness_shots"] > 0  # what is still wood is no hole
    assert bare.items() <= new.items() <= alike.items()


def test_the_likeness_is_the_engine_s(server):
    """The same numbers from the demo model as `adiff generate` loads it."""
    from adiff.backbone import demo_library_path, load_backbone
    from adiff.library import load_library
    from adiff.scoring import ShotReference, describe, likeness, novelty

    backbone, library = load_backbone("demo"), load_library(demo_library_path())
    shots = ShotReference.of(library, ("wood", "hole"), backbone)
    mask = np.zeros((128, 128), bool)
    for left, top, right, bottom in CROSS:
        mask[top:bottom, left:right] = True
    measures, image = measured_beside_shots(server, defect="defect", model="demo")
    wanted = likeness(describe(backbone, [image], [mask])[0], shots.descriptors)
    assert measures["likeness"] == pytest.approx(wanted, rel=0.01)  # Preview Image cuts off what is below a level
    assert measures["likeness_shots"] == pytest.approx(shots.spread)
    assert measures["novelty"] == pytest.approx(novelty(mask, shots.masks))


def test_a_model_that_the_defect_was_not_learned_on_gives_no_likeness_and_says_so(server):
    measures, _ = measured_beside_shots(server, defect="defect", model="sd15")
    assert "novelty" in measures and "likeness" not in measures
    assert "wood/hole in demo (built in): no likeness" in server.log


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"folder": "../outside"}, "leads out of ComfyUI's output folder"),
        ({"folder": "inside/../../outside"}, "leads out of ComfyUI's output folder"),
        ({"folder": "/tmp/outside"}, "leads out of ComfyUI's output folder"),
        ({"product": "../metal"}, "product '../metal' has '/' in it"),
        ({"product": ".."}, "product '..'"),
        ({"defect": "a/b"}, "defect 'a/b' has '/' in it"),
        ({"defect": "good"}, "would count as normal"),
    ],
)
def test_a_name_that_leads_elsewhere_is_refused(server, photos, changes, message):
    name, _ = photos[64, 64]
    given = {"folder": next(folders)} | changes
    graph, _ = pair_graph(server, name, (64, 64), box=[13, 17, 50, 44], **given)
    with pytest.raises(GraphError, match=message):
        server.run(graph)
    assert not (server.base / "outside").exists()


@pytest.mark.parametrize(
    ("what", "count", "size", "message"),
    [
        ("change", 1, 64, "the images are 2 of 64 x 64, their change 1 of 64 x 64; connect both"),
        ("change", 2, 32, "the images are 2 of 64 x 64, their change 2 of 32 x 32; connect both"),
        ("masks", 1, 32, "the masks are 32 x 32, the images 64 x 64; connect both outputs of the same node"),
    ],
)
def test_what_does_not_belong_together_is_refused_before_anything_is_written(server, what, count, size, message):
    graph, folder = Graph(), next(folders)
    images = graph("ADiffDrawSurface", product="metal", count=2, size=64, seed=1)
    side = size if what == "masks" else 64
    given = {"masks": graph("ProbeMasks", width=side, height=side, boxes="[[8, 8, 24, 24]]")}
    if what == "change":
        given["change"] = graph("ADiffDrawSurface", product="metal", count=count, size=size, seed=1)
    graph("ADiffSavePairs", images=images, folder=folder, product="metal", defect="scratch", **given)
    with pytest.raises(GraphError, match=message):
        server.run(graph)
    assert not (server.base / "output" / folder).exists()


def test_a_batch_is_saved_with_its_records(server):
    graph, folder = Graph(), next(folders)
    images = graph("ADiffDrawSurface", product="metal", count=3, size=64, seed=1)
    mask = graph("ProbeMasks", width=64, height=64, boxes="[[8, 8, 24, 24]]")
    target = {"folder": folder, "product": "metal", "defect": "scratch"}
    saved = graph("ADiffSavePairs", images=images, masks=mask, **target)
    result = server.run(graph)
    root = server.base / "output" / folder / "metal"
    assert len(list((root / "test" / "scratch").glob("*.png"))) == 3
    assert len(list((root / "ground_truth" / "scratch").glob("*.png"))) == 3
    assert result.images(saved).shape == (3, 64, 128, 3)
    listed = result.outputs[saved.node]["pairs"]  # for the page's assets and for programs
    names = [name for i in range(3) for name in (f"test/scratch/{i:06d}.png", f"ground_truth/scratch/{i:06d}_mask.png")]
    assert [f"{one['subfolder']}/{one['filename']}" for one in listed] == [f"{folder}/metal/{name}" for name in names]
    assert {one["type"] for one in listed} == {"output"}
