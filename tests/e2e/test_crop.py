"""Small defects at full resolution: crops of large photos, painted and put back."""

import hashlib
import json

import numpy as np
import pytest
from PIL import Image

from tests.e2e.comfyui import GraphError
from tests.e2e.scenes import make_scene

WIDTH, HEIGHT = 320, 200
BOXES = ([0, 180, 12, 200], [150, 60, 166, 70], [300, 8, 316, 20])
"""Three parts far from each other, the first in the corner of the photo; left, top, right, bottom."""


@pytest.fixture(scope="module")
def photos(server):
    """Two photos of noise in ComfyUI's input folder."""
    rng = np.random.default_rng(0)
    made = []
    for number in range(2):
        pixels = rng.integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
        Image.fromarray(pixels).save(server.base / "input" / f"large-{number}.png")
        made.append(pixels)
    return made


def marked(*boxes):
    mask = np.zeros((HEIGHT, WIDTH), dtype=bool)
    for left, top, right, bottom in boxes:
        mask[top:bottom, left:right] = True
    return mask


def drawn(graph, *boxes):
    """One MASK of several rectangles."""
    mask = graph("ProbeMasks", width=WIDTH, height=HEIGHT, boxes=json.dumps(boxes[:1]))
    for box in boxes[1:]:
        more = graph("ProbeMasks", width=WIDTH, height=HEIGHT, boxes=json.dumps([box]))
        mask = graph("MaskComposite", destination=mask, source=more, x=0, y=0, operation="add")
    return mask


def inverted(graph, image, mask, **given):
    """Crop, invert every crop, put them back. Returns (crop node, stitch node)."""
    settings = {"size": 64, "context": 2.5, "parts": "near together"} | given
    crop = graph("ADiffCropToMask", image=image, mask=mask, **settings)
    return crop, graph("ADiffStitch", images=graph("ImageInvert", image=crop), crop=crop[2], feather_radius=0.0)


@pytest.mark.parametrize(("parts", "count"), [("near together", 3), ("one by one", 3), ("together", 1)])
def test_parts_are_painted_and_nothing_else_is_touched(server, photos, graph, parts, count):
    crop, back = inverted(graph, graph("LoadImage", image="large-0.png"), drawn(graph, *BOXES), parts=parts)
    views, image = graph("PreviewImage", images=crop), graph("PreviewImage", images=back)
    mask = graph("PreviewImage", images=graph("MaskToImage", mask=back[1]))
    result = server.run(graph)
    (out,), wanted = result.images(image), marked(*BOXES)
    assert result.images(views).shape == (count, 64, 64, 3)
    assert np.array_equal(out[~wanted], photos[0][~wanted])
    assert np.array_equal(result.images(mask)[0, :, :, 0], wanted * np.uint8(255))
    if count == 3:  # two of the photo's pixels for one of the crop's, or the crop's own: the change comes back
        change = np.abs(out[wanted].astype(int) - photos[0][wanted]).mean()
        assert change > 40


def test_each_image_of_a_batch_has_its_own_box(server, photos, graph):
    images = graph("ImageBatch", image1=graph("LoadImage", image="large-0.png"),
                   image2=graph("LoadImage", image="large-1.png"))  # fmt: skip
    boxes = [[40, 40, 65, 65], [250, 100, 275, 125]]
    masks = graph("ProbeMasks", width=WIDTH, height=HEIGHT, boxes=json.dumps(boxes))
    crop, back = inverted(graph, images, masks)
    views, image = graph("PreviewImage", images=crop), graph("PreviewImage", images=back)
    result = server.run(graph)
    painted = zip(photos, result.images(image), result.images(views), boxes, strict=True)
    for photo, out, view, (left, top, right, bottom) in painted:
        wanted = marked((left, top, right, bottom))
        assert np.array_equal(out[~wanted], photo[~wanted])
        seen = photo[top - 19 : top + 44, left - 19 : left + 44].astype(int)  # 2.5 x 25 pixels, rounded up, in 64
        assert np.abs(np.asarray(Image.fromarray(view).resize((63, 63))) - seen).mean() < 30
        assert np.abs(out[wanted].astype(int) - (255 - photo[wanted])).mean() < 30


def test_a_pair_from_a_crop_is_saved_at_full_size_with_its_measures(server, photos, graph):
    scene = make_scene(server, graph)
    photo = graph("LoadImage", image="large-0.png")
    crop = graph("ADiffCropToMask", image=photo, mask=drawn(graph, *BOXES), size=64, context=2.5, parts="one by one")
    normal = graph("VAEEncode", pixels=crop, vae=scene.vae)
    sampled = scene.ours(normal=normal, mask=crop[1], positive=scene.condition(crop[1]))
    pair = graph("ADiffFinishPair", normal=crop, samples=sampled, mask=crop[1], vae=scene.vae, feather_radius=1.5,
                 refine=True)  # fmt: skip
    back = graph("ADiffStitch", images=pair, crop=crop[2], feather_radius=1.5, masks=pair[1], measures=pair[3])
    graph("ADiffSavePairs", images=back, masks=back[1], measures=back[2], folder="crops", product="metal",
          defect="scratch")  # fmt: skip
    server.run(graph)
    root = server.base / "output" / "crops" / "metal"
    image = np.asarray(Image.open(root / "test" / "scratch" / "000000.png"))
    mask = np.asarray(Image.open(root / "ground_truth" / "scratch" / "000000_mask.png")) > 0
    wanted = marked(*BOXES)
    assert np.array_equal(image[~wanted], photos[0][~wanted]) and (image != photos[0]).any()
    assert all(mask[top:bottom, left:right].any() for left, top, right, bottom in BOXES) and not (mask & ~wanted).any()
    record = json.loads((root / "pairs" / "scratch" / "000000.json").read_text())
    assert record["leak"] == 0 and len(record["parts"]) == 3
    assert record["normal"] == f"{hashlib.sha256(photos[0].tobytes()).hexdigest()[:16]}.png"  # not the crop's
    assert record["area"] == pytest.approx(mask.mean()) and record["components"] >= 3


def test_a_crop_painted_several_times_gives_as_many_photos(server, photos, graph):
    photo = graph("LoadImage", image="large-0.png")
    crop = graph("ADiffCropToMask", image=photo, mask=drawn(graph, *BOXES[1:]), size=64, context=2.5,
                 parts="one by one")  # fmt: skip
    twice = graph("ImageBatch", image1=crop, image2=graph("ImageInvert", image=crop))
    back = graph("ADiffStitch", images=twice, crop=crop[2], feather_radius=0.0)
    image = graph("PreviewImage", images=back)
    same, other = server.run(graph).images(image)
    wanted = marked(*BOXES[1:])
    assert np.array_equal(same[~wanted], photos[0][~wanted]) and np.array_equal(other[~wanted], photos[0][~wanted])
    near = [np.abs(out[wanted].astype(int) - photos[0][wanted]).mean() for out in (same, other)]
    assert near[0] < 25 < 60 < near[1]


def mask_of_another_shape(graph, photo):
    return inverted(graph, photo, graph("ProbeMasks", width=64, height=64, boxes="[[4, 4, 9, 9]]"))[1]


def empty_mask(graph, photo):
    return inverted(graph, photo, graph("ProbeMasks", width=WIDTH, height=HEIGHT, boxes="[null]"))[1]


def images_of_other_crops(graph, photo):
    crop, _ = inverted(graph, photo, drawn(graph, *BOXES))
    return graph("ADiffStitch", images=graph("ImageFromBatch", image=crop, batch_index=0, length=2), crop=crop[2],
                 feather_radius=1.5)  # fmt: skip


def images_that_are_not_square(graph, photo):
    crop, _ = inverted(graph, photo, drawn(graph, BOXES[0]))
    return graph("ADiffStitch", images=photo, crop=crop[2], feather_radius=1.5)


def measures_of_something_else(graph, photo, text="[]"):
    crop, _ = inverted(graph, photo, drawn(graph, BOXES[0]))
    told = graph("PrimitiveString", value=text)
    return graph("ADiffStitch", images=crop, crop=crop[2], feather_radius=1.5, measures=told)


def measures_without_end(graph, photo):
    return measures_of_something_else(graph, photo, "[" * 100_000)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (mask_of_another_shape, "the mask is 64 x 64, the image 320 x 200; draw the mask on this image"),
        (empty_mask, "mask 1 of 1 marks nothing"),
        (images_of_other_crops, "2 images for 3 crops; give as many"),
        (images_that_are_not_square, "the images are 320 x 200; crops are square"),
        (measures_of_something_else, "the measures do not belong to these 1 images"),
        (measures_without_end, "the measures are no JSON"),
    ],
)
def test_what_does_not_fit_is_said(server, photos, graph, build, message):
    graph("PreviewImage", images=build(graph, graph("LoadImage", image="large-0.png")))
    with pytest.raises(GraphError, match=message):
        server.run(graph)
