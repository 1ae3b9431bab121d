"""Add Shots: photos of Load Image with masks painted on them are learned from as a folder of the same would be."""

import json
import re

import numpy as np
import pytest
import torch
from PIL import Image

from adiff.datasets.images import name_of
from adiff.datasets.readers import read_dataset, read_shots
from adiff.training.shots import digest_of
from tests.e2e.comfyui import GraphError
from tests.e2e.test_training import break_off_and_go_on, demo, save, states, stored, train

SIZES = {"a.png": (96, 128), "b.png": (128, 96), "c.png": (64, 64)}
"""Height and width of each photo."""
BOX = slice(20, 36), slice(24, 44)
"""Rows and columns of the defect."""


@pytest.fixture(scope="module")
def photos(server):
    """Photos in ComfyUI's input folder as its mask editor saves them: file -> (image, mask).

    What was painted is transparent, with a soft edge.
    """
    rng, found = np.random.default_rng(0), {}
    for name, size in SIZES.items():
        image, alpha = rng.integers(80, 100, (*size, 3), np.uint8), np.full(size, 255, np.uint8)
        image[BOX] = 230
        alpha[18:38, 22:46], alpha[BOX] = 128, 100  # 128 of 255 is less than half painted
        Image.fromarray(np.dstack([image, alpha])).save(server.base / "input" / name)
        found[name] = image, alpha < 128
    plain = found["a.png"][0] // 2
    Image.fromarray(plain).save(server.base / "input" / "plain.png")
    faint = np.dstack([plain, np.full(plain.shape[:2], 200, np.uint8)])
    Image.fromarray(faint).save(server.base / "input" / "faint.png")
    return found


def add(graph, name, dataset=None, product="metal", defect="dent", masks=None):
    """A photo, or the outputs of a node, added to a dataset: [0] dataset, [1] picture, [2] report."""
    loaded = graph("LoadImage", image=name) if isinstance(name, str) else name
    given = {"images": loaded, "masks": masks or loaded[1], "product": product, "defect": defect}
    return graph("ADiffAddShots", **given, dataset=dataset)


def chain(graph):
    dataset = None
    for name in SIZES:
        dataset = add(graph, name, dataset)
    return dataset


def folder_of(server, photos):
    for name, (image, mask) in photos.items():
        for part, picture in (("images", image), ("masks", mask)):
            (server.base / "input" / "metal" / part).mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture).save(server.base / "input" / "metal" / part / name)


def test_painted_masks_teach_what_a_folder_of_the_same_teaches(server, graph, photos):
    folder_of(server, photos)
    added = chain(graph)
    loaded = graph("ADiffLoadDefectDataset", data="metal", product="", defect="dent", shots=8)
    for dataset, name in ((added, "painted"), (loaded, "folder")):
        learned = train(graph, demo(graph), dataset)
        masks = graph("ADiffTrainMasks", library=learned, dataset=dataset, **demo(graph), steps=2, batch=2,
                      learning_rate=0.02, seed=0, early_stop=False, preview_every=0)  # fmt: skip
        save(graph, masks, name)
    pictures = [graph("PreviewImage", images=one[1]) for one in (added, loaded)]
    reports = [graph("PreviewAny", source=one[2]) for one in (added, loaded)]
    result = server.run(graph)
    painted, folder = (stored(server, name).defects["metal", "dent"] for name in ("painted", "folder"))
    assert torch.equal(painted.anomaly, folder.anomaly) and torch.equal(painted.mask, folder.mask)
    assert painted.info["digests"] == folder.info["digests"] == [digest_of(pair)[:16] for pair in photos.values()]
    assert painted.info["shots"] == [name_of(image) for image, _ in photos.values()]
    assert painted.info["held_out"] == painted.info["grey_masks"] == []
    one, other = (result.images(picture) for picture in pictures)
    assert np.array_equal(one, other)
    one, other = (result.text(report) for report in reports)
    assert one == other == "metal/dent: 3 shots of 128 x 96, 64 x 64, 96 x 128, masks 2.6 to 7.81 % of the image"
    assert not states(server)


def test_shots_are_added_to_those_of_a_dataset(server, graph, photos):
    folder_of(server, {name: photos[name] for name in ("a.png", "b.png")})
    loaded = graph("ADiffLoadDefectDataset", data="metal", product="", defect="dent", shots=1)
    more = add(graph, "plain.png", loaded, masks=graph("LoadImage", image="a.png")[1])
    other = add(graph, "c.png", more, defect="hole")
    batch = graph("ADiffDrawSurface", product="wood", count=2, size=64, seed=1)
    boxes = graph("ProbeMasks", width=32, height=32, boxes="[[8, 8, 16, 16], [0, 0, 31, 31]]")
    both = add(graph, batch, other, product="wood", masks=boxes)
    report = graph("PreviewAny", source=both[2])
    save(graph, train(graph, demo(graph), both, steps=2), "added")
    told = server.run(graph).text(report).splitlines()
    assert told[0].startswith("metal/dent: 2 shots of 128 x 96, masks 2.6 to 2.6 % of the image, ")
    assert told[1].startswith("metal/hole: 1 shot of 64 x 64, masks 7.81")
    assert told[2] == "wood/dent: 2 shots of 64 x 64, masks 6.25 to 93.8 % of the image; 1 mark more than 75 %: " \
                      "white marks the defect, else invert them"  # fmt: skip
    entry = stored(server, "added").defects["metal", "dent"]
    assert entry.info["shots"] == ["images/a.png", name_of(photos["a.png"][0] // 2)]
    assert "images/b.png" in entry.info["held_out"]


def test_a_list_is_one_dataset(server, graph, photos):
    """As a loader gives a folder's photos, which differ in size: ComfyUI runs other nodes once for each of them."""
    listed = graph("ProbeListed", files=json.dumps(list(SIZES)))
    names = graph("ProbeWords", words='["dent", "hole"]')
    one, several = add(graph, listed), add(graph, listed, defect=names)
    learned = train(graph, demo(graph), one)
    masks = graph("ADiffTrainMasks", library=learned, dataset=one, **demo(graph), steps=2, batch=2,
                  learning_rate=0.02, seed=0, early_stop=False, preview_every=0)  # fmt: skip
    save(graph, masks, "listed")
    pictures = [graph("PreviewImage", images=made[1]) for made in (one, chain(graph))]
    reports = [graph("PreviewAny", source=made[2]) for made in (one, several)]
    result = server.run(graph)
    info = stored(server, "listed").defects["metal", "dent"].info
    assert info["digests"] == [digest_of(pair)[:16] for pair in photos.values()]
    assert info["shots"] == [name_of(image) for image, _ in photos.values()]
    picture, other = (result.images(picture) for picture in pictures)
    assert np.array_equal(picture, other)
    told, apart = (result.text(report) for report in reports)
    assert told == "metal/dent: 3 shots of 128 x 96, 64 x 64, 96 x 128, masks 2.6 to 7.81 % of the image"
    assert [line.partition(" of ")[0] for line in apart.splitlines()] == ["metal/dent: 1 shot", "metal/hole: 2 shots"]


def test_a_photo_with_another_mask_is_still_one_that_taught(server, graph, photos):
    other = graph("ProbeMasks", width=128, height=96, boxes="[[0, 0, 8, 8]]")
    table = graph("ADiffScoreDataset", dataset=chain(graph), taught=add(graph, "a.png", masks=other))
    measures = graph("PreviewAny", source=table[2])
    assert '"images": 2' in server.run(graph).text(measures)


def test_save_pairs_writes_them_as_files_to_train_on(server, graph, photos):
    for name in SIZES:
        loaded = graph("LoadImage", image=name)
        graph("ADiffSavePairs", images=loaded, masks=loaded[1], folder="shots", product="metal", defect="dent")
    server.run(graph)
    dataset = read_dataset(server.base / "output" / "shots", ["metal"], ["dent"])
    read = [(photo.rgb, mask.mask) for photo, mask in read_shots(dataset.shots["metal", "dent"])]
    assert sorted(map(digest_of, read)) == sorted(map(digest_of, photos.values()))


def test_a_cancelled_training_goes_on(server, graph, photos):
    learned = train(graph, demo(graph), chain(graph), steps=12)
    save(graph, learned, "gone on")
    break_off_and_go_on(server, graph, learned, learned[3], at=5, steps=12)


def nothing_is_painted(graph):
    return add(graph, "plain.png")


def painted_too_faintly(graph):
    return add(graph, "faint.png")


def mask_of_another_photo(graph):
    return add(graph, "a.png", masks=graph("LoadImage", image="b.png")[1])


def one_mask_for_two_photos(graph):
    return add(graph, graph("ADiffDrawSurface", product="wood", count=2, size=64, seed=1),
               masks=graph("LoadImage", image="c.png")[1])  # fmt: skip


def product_is_a_path(graph):
    return add(graph, "a.png", product="metal/sheet")


def defect_has_no_name(graph):
    return add(graph, "a.png", defect="")


def one_of_a_list_is_bare(graph):
    return add(graph, graph("ProbeListed", files='["a.png", "plain.png"]'))


def several_datasets(graph):
    return add(graph, "b.png", graph("ADiffLoadDefectDataset", product="", defect="", shots=1, data=graph(
        "ProbeWords", words='["built in: metal/scratch", "built in: wood/hole"]')))  # fmt: skip


def names_look_alike(graph):
    return add(graph, "b.png", add(graph, "a.png"), product="Metal")


def photo_is_there_already(graph):
    return add(graph, "a.png", chain(graph))


def photo_comes_twice(graph):
    batch = graph("ImageBatch", image1=graph("LoadImage", image="c.png"), image2=graph("LoadImage", image="c.png"))
    return add(graph, batch, masks=graph("ProbeMasks", width=64, height=64, boxes="[[0, 0, 8, 8], [8, 8, 16, 16]]"))


def dual_of_two_defects(graph):
    return graph("ADiffTrainDual", dataset=add(graph, "b.png", add(graph, "a.png"), defect="hole"), **demo(graph),
                 name="two", overwrite=False, steps=1, batch=1, learning_rate=1e-3, rank=4, saim="low", bcm="off",
                 flips="none", size=64, seed=3, early_stop=False, preview_every=0, checkpointing="auto")  # fmt: skip


CASES = {
    nothing_is_painted: r"mask 1 of 1 marks nothing; paint where the defect is, as in Load Image's mask editor",
    painted_too_faintly: r"mask 1 of 1 marks nothing \(its largest value is 0\.22, marks start at 0\.5\); paint",
    mask_of_another_photo: r"the mask is 96 x 128, the image 128 x 96; draw the mask on this image",
    one_mask_for_two_photos: r"1 masks for 2 photos; give one for each photo",
    product_is_a_path: r"product 'metal/sheet' has '/' in it",
    defect_has_no_name: r"defect '' has 0 characters",
    one_of_a_list_is_bare: r"mask 2 of 2 marks nothing; paint",
    several_datasets: r"2 datasets; give one",
    names_look_alike: r"metal/dent and Metal/dent differ only in letters that look alike",
    photo_is_there_already: r"photo 1 of 1 is among the shots of metal/dent already; give it once",
    photo_comes_twice: r"photo 2 of 2 is among the shots of metal/dent already; give it once",
    dual_of_two_defects: r"this graph holds 2 \(metal/dent, metal/hole\); .*or add shots of that one alone",
}


@pytest.mark.parametrize("build", CASES, ids=lambda build: build.__name__)
def test_the_node_says_what_is_wrong(server, graph, photos, build):
    graph("PreviewAny", source=build(graph)[2])
    with pytest.raises(GraphError) as raised:
        server.run(graph)
    assert re.search(CASES[build], str(raised.value)), str(raised.value)
