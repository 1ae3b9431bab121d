"""Each format's marks, worked out by hand."""

import base64
import io
import json
import shutil
import time
import tracemalloc
import unicodedata
import zlib

import numpy as np
import pytest
from PIL import Image

from adiff.annotations import is_annotated, read_annotations
from adiff.annotations.marks import circle, united
from adiff.errors import InputError
from adiff.export.voc import write_palette_png

SQUARE = [[2, 3], [5, 3], [5, 6], [2, 6]]
"""Columns 2 to 5, rows 3 to 6."""


def box(rows, columns):
    mask = np.zeros((12, 16), bool)
    mask[rows[0] : rows[1] + 1, columns[0] : columns[1] + 1] = True
    return mask


def drawn(photo):
    return {mark.label: mark.draw((12, 16)) for mark in photo.marks}


FLAT = [value for point in SQUARE for value in point]


@pytest.mark.parametrize(
    ("shape", "wanted"),
    [
        ({"segmentation": [FLAT]}, box((3, 6), (2, 5))),
        ({"segmentation": [[2.9, 3.1, 5.2, 3.9, 5.9, 6.9, 2.01, 6.5]]}, box((3, 6), (2, 5))),
        ({"segmentation": [FLAT, [8, 1, 9, 1, 9, 1]]}, box((3, 6), (2, 5)) | box((1, 1), (8, 9))),
        ({"segmentation": {"size": [12, 16], "counts": "k04800000e3"}}, box((3, 6), (2, 5))),
        ({"segmentation": {"size": [12, 16], "counts": [3 + 24, 4, 165 - 4]}}, box((3, 6), (2, 2))),
        ({"segmentation": [], "bbox": [2, 3, 4, 4]}, box((3, 6), (2, 5))),
        ({"bbox": [2.0, 3.0, 0.5, 0.2]}, box((3, 3), (2, 2))),
        ({"segmentation": [[2, 3, 5, 3]], "bbox": [2, 3, 4, 1]}, box((3, 3), (2, 5))),
    ],
)
def test_coco(coco, photos, shape, wanted):
    first, *rest = read_annotations([coco((0, "dent", shape))], photos)
    assert first.image == photos / "0.png" and first.size == (12, 16)
    assert np.array_equal(drawn(first)["dent"], wanted)
    assert [one.marks for one in rest] == [(), (), ()]
    assert first.marks[0].box == ("bbox" in shape)


def test_coco_with_numbers_as_pandas_writes_them(coco, photos):
    shape = {"segmentation": [FLAT], "image_id": 2.0, "category_id": 1.0}
    images = [{"id": float(n), "file_name": f"{n}.png", "height": 12.0, "width": 16.0} for n in range(4)]
    found = read_annotations([coco((0, "dent", shape), images=images)], photos)
    assert [len(one.marks) for one in found] == [0, 0, 1, 0] and found[2].size == (12, 16)
    for number in (2.5, float("nan"), float("inf"), True):
        told = refused(coco((0, "dent", {**shape, "image_id": number}), images=images), images=photos)
        assert f"annotation 0 has the id {number}; expected a whole number" in told
        told = refused(coco((0, "dent", shape), images=[{**images[0], "id": number}]), images=photos)
        assert "the ids of its images are no whole numbers, or texts" in told


@pytest.mark.parametrize("shape", [{}, {"bbox": [1, 1, 0, 4]}, {"segmentation": [[1, 1, 2, 2]]}, {"bbox": None}])
def test_coco_marks_without_an_area(coco, photos, shape):
    assert read_annotations([coco((0, "dent", shape))], photos)[0].marks[0].draw is None


@pytest.mark.parametrize("place", ["annotations/instances_{}.json", "{}/x.json", "{}.json", "annotations/{}.json"])
def test_coco_finds_its_photos(coco, photos, place):
    path = coco((0, "dent", {"segmentation": [FLAT]}), path=photos.parent / "set" / place.format("train"))
    photos.rename(photos.parent / "set" / "train") if "annotations" in place else photos.rename(path.parent / "images")
    assert len(read_annotations([path])) == len(read_annotations([photos.parent / "set"])) == 4
    if "instances" in place:  # as two files' photos lie in the folders of their splits
        assert len(read_annotations([path], photos.parent / "set")) == 4


def test_a_photo_that_is_nowhere_is_told_in_a_few_words(coco):
    told = refused(coco((0, "dent", {"segmentation": [FLAT]}), images=[{"id": 1, "file_name": "gone.png"}]))
    assert "and 5 more; give the folder of the images (--images)" in told


def test_several_files_that_tell_of_one_photo(coco, photos, tmp_path):
    one = coco((0, "dent", {"segmentation": [FLAT]}))
    other = coco((0, "scratch", {"bbox": [1, 1, 2, 2]}), path=tmp_path / "other.json")
    found = read_annotations([one, other], photos)
    assert len(found) == 4 and set(drawn(found[0])) == {"dent", "scratch"}


def test_coco_beside_other_files(coco, photos):
    """Captions, what Jupyter hides, and lists of results are no annotations of marks."""
    coco((0, "dent", {"segmentation": [FLAT]}), path=photos / "x.json")
    coco((0, "scratch", {"segmentation": [FLAT]}), path=photos / ".ipynb_checkpoints" / "x-checkpoint.json")
    (photos / "captions.json").write_text('{"images": [{"id": 1}], "annotations": [{"image_id": 1, "caption": "x"}]}')
    (photos / "results.json").write_text("[]")
    found = read_annotations([photos])
    assert len(found) == 4 and set(drawn(found[0])) == {"dent"}


@pytest.mark.parametrize("name", ["10:20:30.png", "caf\u00e9.png", "cafe\u0301.png"])
def test_names_that_are_told_and_spelt_otherwise(coco, photos, name):
    (photos / "0.png").rename(photos / unicodedata.normalize("NFD", name))
    path = coco((0, "dent", {"segmentation": [FLAT]}), images=[{"id": 1, "file_name": f"http://host/{name}"}])
    assert len(read_annotations([path], photos)[0].marks) == 1


def test_names_that_label_studio_has_changed(coco, photos):
    """Its export without images, beside the photos as they were uploaded."""
    images = [{"id": n, "file_name": f"images\\\\{n:08x}-{n}.png", "height": 12, "width": 16} for n in (1, 2)]
    path = coco((0, "dent", {"segmentation": [FLAT]}), images=images)
    assert [one.image.name for one in read_annotations([path], photos)] == ["1.png", "2.png"]
    (photos / "00000001-1.png").write_bytes((photos / "3.png").read_bytes())
    assert read_annotations([path], photos)[0].image.name == "00000001-1.png"


def test_two_sizes_of_one_photo(coco, photos, tmp_path):
    one = coco((0, "dent", {"segmentation": [FLAT]}), images=[{"id": 1, "file_name": "0.png"}])
    other = coco((0, "dent", {"segmentation": [FLAT]}), path=tmp_path / "other.json")
    assert read_annotations([one, other], photos)[0].size == (12, 16)
    small = [{"id": 1, "file_name": "0.png", "height": 6, "width": 8}]
    third = coco((0, "dent", {"segmentation": [FLAT]}), path=tmp_path / "third.json", images=small)
    assert "0.png has two sizes in its annotations: (12, 16) and (6, 8)" in refused(other, third, images=photos)


def test_many_marks_and_large_ones():
    tracemalloc.start()
    united(np.zeros((1000, 1000), bool) for _ in range(100))
    assert tracemalloc.get_traced_memory()[1] < 20e6
    tracemalloc.stop()
    start = time.process_time()
    assert circle((500.0, 500.0), 2.0**20)((1000, 1000)).all() and time.process_time() - start < 5


def png_of(mask):
    file = io.BytesIO()
    Image.fromarray(mask.astype(np.uint8) * 255).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


@pytest.mark.parametrize(
    ("shape", "wanted"),
    [
        (("dent", "polygon", SQUARE), box((3, 6), (2, 5))),
        (("dent", "rectangle", [[5.5, 6.2], [2, 3]]), box((3, 6), (2, 5))),
        (("dent", "rectangle", SQUARE), box((3, 6), (2, 5))),
        (("dent", "mask", [[2, 3], [5, 6]], png_of(np.ones((4, 4)))), box((3, 6), (2, 5))),
        (("dent", "mask", [[-1, 10], [3, 14]], png_of(np.ones((5, 5)))), box((10, 11), (0, 3))),
    ],
)
def test_labelme(labelme, photos, shape, wanted):
    labelme(1, shape)
    (photos / "small").mkdir()
    (photos / "small" / "0.png").write_bytes((photos / "0.png").read_bytes())  # not looked at
    found = {one.image.name: one for one in read_annotations([photos])}
    assert np.array_equal(drawn(found["1.png"])["dent"], wanted)
    assert not found["1.png"].marks[0].box and len(found) == 4 and not found["0.png"].marks
    assert len(read_annotations([photos / "1.json"])) == 1  # what lies beside a single file is not looked at


def test_labelme_circles_and_lines(labelme, photos):
    labelme(0, ("hole", "circle", [[8, 6], [8, 3]]), ("scratch", "linestrip", [[1, 1], [4, 4], [5, 5]]))
    hole, scratch = read_annotations([photos / "0.json"])[0].marks
    mask = hole.draw((12, 16))
    assert mask[6, 8] and mask[3, 8] and mask[9, 8] and not mask[2, 8] and not mask[4, 5] and scratch.draw is None


def test_labelme_paths_of_another_system(labelme, photos, tmp_path):
    path = labelme(0, ("dent", "polygon", SQUARE), imagePath="..\\elsewhere\\0.png")
    assert read_annotations([path])[0].image == photos / "0.png"
    (tmp_path / "labels").mkdir()
    path.rename(tmp_path / "labels" / "0.json")
    assert len(read_annotations([tmp_path / "labels"], photos)) == 4


def test_labelme_files_in_a_folder_of_their_own(labelme, photos, tmp_path):
    """None of them may make its photo one without marks."""
    labels = tmp_path / "set" / "labels"
    labels.mkdir(parents=True)
    for number in (0, 1):
        labelme(number, ("dent", "polygon", SQUARE)).rename(labels / f"{number}.json")
    (labels / "0.json").write_bytes(b"\xef\xbb\xbf" + (labels / "0.json").read_bytes())  # as Notepad saves it
    assert [len(one.marks) for one in read_annotations([labels], photos)] == [1, 1, 0, 0]
    shutil.copytree(photos, labels.parent / "images")
    assert "its image '0.png' is not in" in refused(labels.parent)  # and not: no YOLO's labels
    content = json.loads((labels / "1.json").read_text())
    (labels / "1.json").write_text(json.dumps({**content, "imagePath": "0.png"}))
    assert "1.json is no labelme file, or tells of another photo" in refused(labels, images=photos)
    (labels / "1.json").write_text('{"shapes": [')
    told = refused(labels, images=photos)
    assert "1.json is damaged" in told and "mend it, or take it out" in told


def test_labelme_files_that_hold_their_photos(labelme, photos, tmp_path):
    for number in range(4):
        labelme(number, ("dent", "polygon", SQUARE), imageData="x" * 2_000_000)
    assert is_annotated(photos)
    tracemalloc.start()
    assert len(read_annotations([photos])) == 4
    assert tracemalloc.get_traced_memory()[1] < 9e6  # one of them, read and parsed
    tracemalloc.stop()


def bitmap_of(mask, mode="P", deflated=True):
    """A mask as Supervisely writes it: a PNG whose black is transparent, deflated once more; older ones are RGBA."""
    image, file = Image.fromarray(mask.astype(np.uint8)), io.BytesIO()
    if mode == "RGBA":
        image = Image.merge("RGBA", [Image.new("L", image.size)] * 3 + [image])
    elif mode == "P":
        image.putpalette([0, 0, 0, 255, 255, 255])
    image.save(file, "PNG", **({"transparency": 0} if mode == "P" else {}))
    return base64.b64encode(zlib.compress(file.getvalue()) if deflated else file.getvalue()).decode()


def write_supervisely(root, photos, *objects, name="0.png"):
    """A project with one data set, whose photos have these objects; the others have none."""
    ann = root / "wood" / "ann"
    ann.mkdir(parents=True, exist_ok=True)
    for image in photos.glob("*.png"):
        of_photo = objects if image.name == name else ()
        told = [{"classTitle": "dent", "geometryType": kind, **one} for kind, one in of_photo]
        about = {"description": "", "tags": [], "size": {"height": 12, "width": 16}, "objects": told}
        (ann / f"{image.name}.json").write_text(json.dumps(about))
    (root / "meta.json").write_text(json.dumps({"classes": [{"title": "dent", "shape": "any"}], "tags": []}))
    return root


def points(exterior, interior=()):
    return {"points": {"exterior": exterior, "interior": list(interior)}}


@pytest.mark.parametrize(
    ("kind", "one", "wanted"),
    [
        ("polygon", points(SQUARE), box((3, 6), (2, 5))),
        ("polygon", points(SQUARE, [[[3, 4], [4, 4], [4, 5], [3, 5]]]), box((3, 6), (2, 5)) ^ box((4, 5), (3, 4))),
        ("rectangle", points([[2, 3], [5, 6]]), box((3, 6), (2, 5))),
        *(
            (
                "bitmap",
                {"bitmap": {"data": bitmap_of(np.eye(2), *more), "origin": [2, 3]}},
                box((3, 3), (2, 2)) | box((4, 4), (3, 3)),
            )
            for more in (("P",), ("RGBA",), ("L",), ("P", False))
        ),
    ],
)
def test_supervisely(photos, tmp_path, kind, one, wanted):
    root = write_supervisely(tmp_path / "project", photos, (kind, one), ("line", points([[1, 1], [2, 2]])))
    first, *rest = read_annotations([root], photos)
    assert first.image == photos / "0.png" and first.size == (12, 16) and [one.marks for one in rest] == [()] * 3
    mark, line = first.marks
    assert np.array_equal(mark.draw((12, 16)), wanted) and line.draw is None and mark.box == (kind == "rectangle")
    shutil.copytree(photos, root / "wood" / "img")
    assert is_annotated(root)
    for place in (root, root / "wood", root / "wood" / "ann"):
        assert len(read_annotations([place])) == 4
    assert len(read_annotations([root / "wood" / "ann" / "0.png.json"])) == 1


def test_damaged_supervisely(photos, tmp_path):
    bomb = base64.b64encode(zlib.compress(bytes(2**20))).decode()
    for kind, one, told in (
        ("polygon", {}, "object 0 is damaged"), ("polygon", points(3), "object 0 has a place that is no list"),
        ("polygon", {"points": {"exterior": SQUARE, "interior": 3}}, "object 0 has holes that are no list"),
        ("bitmap", {"bitmap": []}, "object 0 is damaged"), ("bitmap", {"bitmap": {"data": ""}}, "no list of x and y"),
        ("polygon", {**points(SQUARE), "classTitle": ""}, "object 0 has the label ''"),
        *(("bitmap", {"bitmap": {"data": data, "origin": [1, 1]}}, "object 0 has a mask that is no PNG")
          for data in (None, "!", "AAAA", bomb)),
    ):  # fmt: skip
        assert told in refused(write_supervisely(tmp_path / "project", photos, (kind, one)), images=photos)
    ann = write_supervisely(tmp_path / "project", photos) / "wood" / "ann"
    assert "its image '0.png' is not in" in refused(ann)
    shutil.copytree(ann, ann.parents[1] / "tile" / "ann")  # whose photos may be others of the same names
    assert "tell of one photo" in refused(ann.parents[1], images=photos)
    (ann / "0.png.json").write_text('{"objects": [3], "size": {}}')
    assert "object 0 is damaged" in refused(ann)
    (ann / "x.json").write_text('{"shapes": []}')
    assert "holds files of Supervisely (0.png.json) and of labelme (x.json); give one kind" in refused(ann)


def test_yolo_of_boxes_only(photos, tmp_path, coco):
    """As CVAT exports YOLO 1.1: polygons are left out of it, and their photos would be ones without marks."""
    root = tmp_path / "cvat"
    shutil.copytree(photos, root / "obj_train_data")
    (root / "obj_train_data" / "0.txt").write_text("0 0.5 0.5 0.1 0.1")
    (root / "obj.data").write_text("classes = 1\ntrain = train.txt\nnames = obj.names\n")
    (root / "obj.names").write_text("dent\n")
    (root / "train.txt").write_text("data/obj_train_data/0.png\n")
    for given in (root, root / "obj.names", root / "obj.data", root / "train.txt"):
        assert "is YOLO 1.1 (obj.names), which holds boxes only" in refused(given)
    assert is_annotated(root)  # so that a graph says it too
    assert len(read_annotations([coco((0, "dent", {"segmentation": [FLAT]}), path=root / "x.json")], photos)) == 4


@pytest.mark.parametrize("names", ["data.yaml", "list.yaml", "classes.txt"])
@pytest.mark.parametrize("deep", [True, False])
def test_yolo(photos, tmp_path, names, deep):
    root = tmp_path / "yolo"
    images, labels = (
        (root / "train" / "images", root / "train" / "labels") if deep else (root / "images", root / "labels")
    )
    images.parent.mkdir(parents=True)
    photos.rename(images)
    labels.mkdir()
    polygon = " ".join(f"{x / 16:.5f} {y / 12:.5f}" for x, y in SQUARE)
    (images / "more").mkdir()
    (images / "3.png").rename(images / "more" / "3.png")
    (labels / "0.txt").write_text(f"1 {polygon}\n\n0 0.25 0.5 0.125 0.25\n")
    (labels / "1.txt").write_text("")
    text = {"data.yaml": "path: /gone\ntrain: ../train/images\nnames:\n  0: dent\n  1: scratch\n",
            "list.yaml": "names: [dent, scratch]\nnc: 2\n", "classes.txt": "dent\nscratch\n"}[names]  # fmt: skip
    path = root / names.replace("list", "data")
    path.write_text(text, encoding="utf-8-sig")
    (images / ".ipynb_checkpoints").mkdir()
    (images / ".ipynb_checkpoints" / "0.png").write_bytes((images / "0.png").read_bytes())
    (labels / "classes.txt").write_text("dent\nscratch\n")
    for given in (root, path):
        first, *rest = read_annotations([given])
        assert np.array_equal(drawn(first)["scratch"], box((3, 6), (2, 5)))
        assert np.array_equal(drawn(first)["dent"], box((4, 6), (3, 4)))
        assert [mark.box for mark in first.marks] == [False, True]
        assert [one.marks for one in rest] == [(), (), ()]


@pytest.mark.parametrize(
    "kind",
    ["labels.txt", "class_names.txt", "labelmap.txt", "labelmap.txt on white", "labelmap.txt without colours",
     "labels.txt in RGB"],
)  # fmt: skip
@pytest.mark.parametrize("deep", ["", "cam"])
def test_voc(photos, tmp_path, kind, deep, caplog):
    root = tmp_path / "voc"
    (root / "JPEGImages").mkdir(parents=True)
    photos.rename(root / "JPEGImages" / deep)
    classes = np.zeros((12, 16), np.uint8)
    classes[3:7, 2:6], classes[8, 8], classes[9, 9] = 2, 1, 255
    path = root / "SegmentationClass" / deep / "0.png"
    if kind in ("labelmap.txt", "labelmap.txt on white"):
        ground, scratch = ((0, 0, 0), (61, 61, 245)) if kind == "labelmap.txt" else ((255, 255, 255), (0, 0, 0))
        pixels = np.array([ground, (250, 50, 83), scratch], np.uint8)[np.where(classes == 255, 0, classes)]
        path.parent.mkdir(parents=True)
        Image.fromarray(pixels).save(path)
        told = [",".join(map(str, colour)) for colour in (ground, scratch)]
        text = f"# label:color_rgb:parts:actions\nbackground:{told[0]}::\ndent:250,50,83::\nscratch:{told[1]}::\n"
    else:
        write_palette_png(path, classes)
        text = "_background_\n" * (kind == "class_names.txt") + "dent\nscratch\n"
        if kind.startswith("labelmap"):
            text = "# label:color_rgb:parts:actions\nbackground:::\ndent:::\nscratch:::\n"
        if kind.endswith("RGB"):
            with Image.open(path) as image:
                image.convert("RGB").save(path)
    (root / kind.split()[0]).write_text(text, encoding="utf-8-sig")
    (photo,) = read_annotations([root])
    assert "photos without an image in SegmentationClass: 3 of 4; they are left out" in caplog.text
    assert photo.image == root / "JPEGImages" / deep / "0.png"
    assert np.array_equal(drawn(photo)["scratch"], box((3, 6), (2, 5)))
    assert np.array_equal(drawn(photo)["dent"], box((8, 8), (8, 8)))


def refused(*paths, images=None):
    with pytest.raises(InputError) as caught:
        for photo in read_annotations(list(paths), images):
            for mark in photo.marks:
                mark.draw((12, 16))
    return str(caught.value)


BROKEN_COCO = {
    "category": ({"category_id": 9}, {}, "annotation 0 is of category 9, which the file does not name"),
    "category list": ({"category_id": [1]}, {}, r"annotation 0 has the id \[1\]"),
    "image": ({"image_id": 99}, {}, "1 images that annotations name are not in its list, the first with the id 99"),
    "image id": ({"image_id": [1]}, {}, r"annotation 0 has the id \[1\]"),
    "polygon": ({"segmentation": [[1, 2, 3]]}, {}, "annotation 0 has a place that is no list of x and y"),
    "number": ({"segmentation": [[1, 2, 3, 4, 5, 1e300]]}, {}, r"annotation 0 has a place at 1e\+300"),
    "text": ({"segmentation": "x"}, {}, "neither polygons nor run lengths"),
    "runs": ({"segmentation": {"size": [12, 16], "counts": "11"}}, {}, "do not add up to 12 x 16"),
    "long runs": ({"segmentation": {"size": [12, 16], "counts": "o" * 9 + "1"}}, {}, "a number is too long"),
    "cut runs": ({"segmentation": {"size": [12, 16], "counts": "o"}}, {}, "in the middle of a number"),
    "negative": ({"segmentation": {"size": [12, 16], "counts": [-1, 193]}}, {}, "do not add up"),
    "size": ({"segmentation": {"size": [16, 12], "counts": "1"}}, {}, r"is of an image of \[16, 12\]"),
    "counts": ({"segmentation": {"size": [12, 16], "counts": 5}}, {}, "neither text nor numbers"),
    "images": ({}, {"images": [3]}, "its images are no list of objects"),
    "categories": ({}, {"categories": {}}, "its categories are no list of objects"),
    "name": ({}, {"categories": [{"id": 1, "name": " "}]}, "category 0 has the label ' '; expected a name"),
    "one id": (
        {},
        {"images": [{"id": 1, "file_name": "0.png"}, {"id": 1, "file_name": "1.png"}]},
        r"image 1 \(1.png\) has the id of another one \(0.png\)",
    ),
    "one photo": (
        {},
        {"images": [{"id": n, "file_name": f"{n}/0.png"} for n in (1, 2)]},
        r"image 1 \(2/0.png\) has the photo of another one \(1/0.png\)",
    ),
    "one category": (
        {},
        {"categories": [{"id": 1, "name": "dent"}, {"id": 1, "name": "scratch"}]},
        "the categories dent and scratch have one id",
    ),
    "kind": ({}, {"images": [{"id": 1, "file_name": "0.gif"}]}, "0.gif is no PNG, JPEG, BMP, TIFF or WebP"),
    "file": ({}, {"images": [{"id": 1, "file_name": "gone.png"}]}, "its image 'gone.png' is not in .*--images"),
}


@pytest.mark.parametrize("what", BROKEN_COCO)
def test_damaged_coco(coco, photos, what):
    import re

    shape, changes, told = BROKEN_COCO[what]
    (photos / "0.gif").touch()
    path = coco((0, "dent", {"segmentation": [FLAT], **shape}), **changes)
    assert re.search(told, refused(path, images=photos))


def test_damaged_labelme(labelme, photos):
    good = ("dent", "polygon", SQUARE)
    for shapes, changes, told in (
        ([("", "polygon", SQUARE)], {}, "shape 0 has the label ''"),
        ([("dent", "polygon", 5)], {}, "shape 0 has a place that is no list"),
        ([("dent", "mask", [[1, 1], [2, 2]], "!")], {}, "shape 0 has a mask that is no PNG"),
        ([good], {"imagePath": 3}, "names no photo"),
        ([good], {"imagePath": "7.png"}, "its image '7.png' is not in"),
        ([good], {"shapes": [4]}, "shape 0 is damaged"),
    ):
        assert told in refused(labelme(0, *shapes, **changes))
    labelme(0, good)
    for text in ("{", "{}"):  # else its photo would pass as one without marks
        (photos / "1.json").write_text(text)
        assert "1.json is" in refused(photos)


def test_damaged_yolo(photos, tmp_path):
    root = tmp_path / "yolo"
    root.mkdir()
    photos.rename(root / "images")
    (root / "labels").mkdir()
    label = root / "labels" / "0.txt"
    label.write_text("0 0.5 0.5 0.1 0.1")
    assert "neither data.yaml nor classes.txt" in refused(root)
    bomb = "a: &a [x]\n" + "".join(
        f"{n}: &{n} [{', '.join([f'*{o}'] * 9)}]\n" for o, n in zip("abcdefghi", "bcdefghij", strict=True)
    )
    for text in (
        f"{bomb}names: *j",
        f"# {'x' * 2**20}",
        "names: 3",
        "names: {a: b}",
        "- x",
        ": [",
        "names: [[1]]",
        "names:\n  0: ''",
    ):
        (root / "data.yaml").write_text(text)
        assert "data.yaml" in refused(root)
    (root / "data.yaml").write_text("names: [dent]")
    for line, told in (
        ("1 0.5 0.5 0.1 0.1", "is of class 1, and names are given for 1"), ("x 1 2", "expected a class"),
        ("0 1 2 3", "has 3 numbers behind its class"), ("0 nan 0 0 0 1 1", "outside"), ("0 1e9 1 1 1", "outside"),
    ):  # fmt: skip
        label.write_text(line)
        assert told in refused(root)
    label.write_bytes(b"\xff\xfe\x00")
    assert "is no text" in refused(root)
    label.rename(root / "labels" / "7.txt")
    assert "1 labels in" in refused(root) and "have no photo in" in refused(root) and "7.txt" in refused(root)
    assert "leave --images out" in refused(root, images=root / "images")


def test_damaged_voc(photos, tmp_path):
    root = tmp_path / "voc"
    root.mkdir()
    photos.rename(root / "JPEGImages")
    path = root / "SegmentationClass" / "0.png"
    write_palette_png(path, np.full((12, 16), 3, np.uint8))
    assert "names no classes; expected labels.txt" in refused(root)
    (root / "labels.txt").write_text("dent\n")
    assert "holds class 3, which has no name; see labelmap.txt" in refused(root)
    write_palette_png(path, np.eye(5, 7, dtype=np.uint8))
    assert "is 5x7, its photo 12x16" in refused(root)
    Image.new("RGB", (16, 12), "red").save(path)
    assert "has the colour 0xff0000, which is none of VOC's" in refused(root)
    (root / "labelmap.txt").write_text("dent:0,0")
    assert "has the colour '0,0'" in refused(root)
    (root / "labelmap.txt").write_text("dent:0,0,1\nscratch::")
    assert "tells a colour for 1 of 2 labels" in refused(root)
    (root / "labelmap.txt").write_text("dent:255,0,0::\nscratch:255,0,0::")
    assert "tells one colour for several labels" in refused(root)
    (root / "labelmap.txt").write_text("dent:0,0,255::")
    assert "holds the colour 0xff0000" in refused(root)
    path.write_bytes(path.read_bytes()[:40])
    assert "damaged or cut short" in refused(root)
    path.rename(path.with_name("9.png"))
    assert "its photo is not in" in refused(root)


def test_what_is_no_annotation(photos, coco, labelme, tmp_path):
    assert "no annotations in" in refused(photos) and "expected COCO's .json" in refused(photos)
    assert "expected COCO's .json" in refused(photos / "0.png")
    (photos / "x.json").write_text('{"images": 3}')
    assert "is no COCO file" in refused(photos / "x.json")
    (photos / "x.json").write_text("[" * 100_000)
    assert "damaged" in refused(photos / "x.json")
    labelme(0, ("dent", "polygon", SQUARE))
    coco((0, "dent", {"segmentation": [FLAT]}), path=photos / "x.json")
    assert "give one kind" in refused(photos)
    assert "does not exist" in refused(photos / "x.json", images=tmp_path / "gone")
    with pytest.raises(FileNotFoundError, match="gone.json does not exist; expected COCO"):
        read_annotations([tmp_path / "gone.json"])


@pytest.mark.parametrize(
    "name", ["../secret.png", "/etc/secret.png", "..\\secret.png", "C:\\secret.png", "..", "a\0b", "a" * 5000 + ".png"]
)
def test_names_that_lead_out_of_the_folder(coco, photos, tmp_path, name):
    (photos / "0.png").rename(tmp_path / "secret.png")
    path = coco((0, "dent", {"segmentation": [FLAT]}), images=[{"id": 1, "file_name": name}])
    assert "is not in" in refused(path, images=photos)


def test_links_that_lead_out_of_the_folder(coco, photos, tmp_path):
    (photos / "0.png").rename(tmp_path / "secret.png")
    (photos / "0.png").symlink_to(tmp_path / "secret.png")
    assert "leads out of" in refused(coco((0, "dent", {"segmentation": [FLAT]})), images=photos)
