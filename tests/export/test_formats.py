"""Every format comes back through a reader: pycocotools, the data set readers, XML, YAML's and VOC's own rules."""

import json
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image, ImageDraw
from pycocotools.coco import COCO

from adiff.annotations import read_annotations, write_dataset
from adiff.datasets.images import write_png
from adiff.datasets.readers import read_dataset, read_shot, read_shots
from adiff.errors import InputError
from adiff.export import FORMATS, export_runs, read_runs


def pixels_of(path):
    with Image.open(path) as image:
        return np.array(image)


@pytest.fixture
def several(make_run, tmp_path):
    """A run of two defects in each image, and where to export it."""
    return read_runs([make_run("run", "metal", "scratch", "dent")]), tmp_path / "out"


@pytest.mark.parametrize("polygons", [False, True], ids=["run lengths", "polygons"])
def test_coco(several, labels_of, normals, polygons, capsys):
    runs, out = several
    export_runs(runs, out, "coco", polygons=polygons, validation=0.4, normals={"metal": normals})
    seen = 0
    for split in ("train", "val"):
        coco = COCO(out / "annotations" / f"instances_{split}.json")
        assert [c["name"] for c in coco.loadCats(coco.getCatIds())] == ["metal/scratch", "metal/dent"]
        assert coco.dataset["info"]["synthetic"] and coco.dataset["info"]["runs"][0]["embedding"] == "e" * 64
        for image in coco.imgs.values():
            pixels = pixels_of(out / "images" / split / image["file_name"])
            assert pixels.shape[:2] == (image["height"], image["width"])
            anns = coco.loadAnns(coco.getAnnIds(image["id"]))
            if not image["adiff"]["synthetic"]:
                assert anns == [] and image["adiff"]["file"] in {path.name for path in normals}
                continue
            labels = labels_of(int(image["adiff"]["pair"]), 2)
            assert [ann["category_id"] for ann in anns] == [1, 2]
            for ann in anns:
                mask = labels == ann["category_id"]
                rows, columns = np.nonzero(mask)
                assert np.array_equal(coco.annToMask(ann).astype(bool), mask) and ann["area"] == mask.sum()
                assert ann["bbox"] == [columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1]
            seen += 1
    assert seen == 5


def test_an_mvtec_layout_without_normal_images_says_what_it_lacks(several, normals):
    runs, out = several
    assert "there is no train/good" in export_runs(runs, out, "mvtec").told()
    whole = export_runs(runs, out.with_name("whole"), "mvtec", normals={"metal": normals})
    assert "train/good" not in whole.told() and "train/good" not in export_runs(runs, out.with_name("v"), "voc").told()


def test_yolo(several, labels_of, normals):
    yaml = pytest.importorskip("yaml")
    runs, out = several
    made = export_runs(runs, out, "yolo", normals={"metal": normals})
    about = yaml.safe_load((out / "data.yaml").read_text())
    assert about["names"] == {0: "metal/scratch", 1: "metal/dent"}
    assert about["train"] == about["val"] == "images/train"  # there is no validation split, which it says
    assert "its scores tell nothing\nval: images/train" in (out / "data.yaml").read_text()
    assert "its scores tell nothing" in made.told()
    provenance = json.loads((out / about["adiff"]["provenance"]).read_text())
    assert provenance["synthetic"] and provenance["images"]["train/000001.png"]["seed"] == 3
    images = sorted((out / "images" / "train").iterdir())
    assert len(images) == 5 + len(normals)
    for image in images:
        text = (out / "labels" / "train" / f"{image.stem}.txt").read_text()
        if image.stem.startswith("normal_"):
            assert text == ""
            continue
        labels = labels_of(int(image.stem), 2)
        height, width = labels.shape
        got = np.zeros_like(labels)
        for line in text.splitlines():
            number, *places = line.split()
            corners = (np.array(places, np.float32).reshape(-1, 2) * (width, height)).astype(int)
            part = Image.new("L", (width, height))
            ImageDraw.Draw(part).polygon([tuple(corner) for corner in corners.tolist()], fill=1, outline=1)
            got[np.array(part) > 0] = int(number) + 1
        assert np.array_equal(got, labels)
        assert len(text.splitlines()) == 3  # the second defect is of two parts


def test_names_that_look_like_comments_come_back_from_voc(make_run, tmp_path):
    run = make_run("run", "#3", "scratch", "background")
    export_runs(read_runs([run]), tmp_path / "out", "voc")
    photos = read_annotations([tmp_path / "out"])
    assert {mark.label for photo in photos for mark in photo.marks} == {"#3/scratch", "#3/background"}


def test_voc(several, labels_of, normals):
    runs, out = several
    export_runs(runs, out, "voc", validation=0.4, normals={"metal": normals})
    named = "background:0,0,0::", "metal/scratch:128,0,0::", "metal/dent:0,128,0::"
    assert (out / "labelmap.txt").read_text().splitlines()[1:] == list(named)
    lists = {p.stem: p.read_text().split() for p in (out / "ImageSets" / "Segmentation").iterdir()}
    assert sorted(lists["train"] + lists["val"]) == lists["trainval"] and len(lists["trainval"]) == 9
    for stem in lists["trainval"]:
        root = ElementTree.parse(out / "Annotations" / f"{stem}.xml").getroot()
        shape = pixels_of(out / "JPEGImages" / root.findtext("filename")).shape
        assert shape == tuple(int(root.findtext(f"size/{name}")) for name in ("height", "width", "depth"))
        classes = pixels_of(out / "SegmentationClass" / f"{stem}.png")
        if stem.startswith("normal_"):
            assert not classes.any() and root.find("object") is None
            continue
        labels = labels_of(int(stem), 2)
        assert np.array_equal(classes, labels)
        assert np.array_equal(pixels_of(out / "SegmentationObject" / f"{stem}.png"), labels)
        first, second = root.iter("object")
        columns = np.nonzero(labels == 1)[1]
        assert (first.findtext("name"), second.findtext("name")) == ("metal/scratch", "metal/dent")
        assert int(first.findtext("bndbox/xmin")) == columns.min() + 1  # from 1
        assert int(first.findtext("bndbox/xmax")) == columns.max() + 1
        assert (first.findtext("truncated"), second.findtext("truncated")) == ("0", "1")  # a dent's pixel at the border
        assert json.loads(root.findtext("adiff"))["synthetic"]


def test_yolo_comes_back_through_supervision(several, labels_of):
    """It rounds corners to whole pixels, where ultralytics cuts them."""
    supervision = pytest.importorskip("supervision")
    runs, out = several
    export_runs(runs, out, "yolo")
    folders = (str(out / kind / "train") for kind in ("images", "labels"))
    data = supervision.DetectionDataset.from_yolo(*folders, str(out / "data.yaml"), force_masks=True)
    assert data.classes == ["metal/scratch", "metal/dent"] and len(data) == 5
    for path, _, found in data:
        labels = labels_of(int(path[-10:-4]), 2)
        for number in (0, 1):
            assert np.array_equal(found.mask[found.class_id == number].any(0), labels == number + 1)


def test_a_yolo_set_with_a_validation_split_has_nothing_to_say(several):
    runs, out = several
    assert "scores" not in export_runs(runs, out, "yolo", validation=0.4).told()
    assert "val: images/val\n" in (out / "data.yaml").read_text() and "scores" not in (out / "data.yaml").read_text()


def test_voc_comes_back_through_torchvision(several, labels_of):
    """Its readers want VOCdevkit/VOC2012 and images called .jpg."""
    datasets = pytest.importorskip("torchvision.datasets")
    runs, out = several
    devkit = out / "VOCdevkit" / "VOC2012"
    export_runs(runs, devkit, "voc")
    for number, (image, marked) in enumerate(datasets.VOCSegmentation(out, "2012", "trainval")):
        assert np.array_equal(np.array(image), pixels_of(runs[0].images / f"{number:06d}.png"))
        assert np.array_equal(np.array(marked), labels_of(number, 2))
    boxes = datasets.VOCDetection(out, "2012", "train")
    _, told = boxes[1]
    assert [one["name"] for one in told["annotation"]["object"]] == ["metal/scratch", "metal/dent"]


def test_voc_colours_are_those_of_the_development_kit(several):
    runs, out = several
    export_runs(runs, out, "voc")
    with Image.open(out / "SegmentationClass" / "000000.png") as image:
        assert image.getpalette()[:9] == [0, 0, 0, 128, 0, 0, 0, 128, 0]
        assert image.getpalette()[3 * 255 :] == [224, 224, 192]


@pytest.mark.parametrize("format", ["mvtec", "folder"])
def test_folders_come_back_through_the_reader(make_run, labels_of, normals, tmp_path, format):
    runs, out = read_runs([make_run("a"), make_run("b", "metal", "scratch", "dent")]), tmp_path / "out"
    export_runs(runs, out, format, normals={"metal": normals})
    data = read_dataset(out if format == "mvtec" else out / "metal")
    assert {key: len(shots) for key, shots in data.shots.items()} == {
        ("metal", "scratch"): 5, ("metal", "scratch+dent"): 5,
    }  # fmt: skip
    assert len(data.normals["metal"]) == 4
    shot = data.shots["metal", "scratch+dent"][2]
    assert shot.image.name == "b-000002.png"
    photo, marked = read_shot(shot)
    assert np.array_equal(marked.mask, labels_of(2, 2) > 0)
    assert np.array_equal(photo.pixels, pixels_of(tmp_path / "b" / "image" / "000002.png"))


def test_mvtec_keeps_provenance_and_tests_on_some_normals(make_run, normals, tmp_path):
    out = tmp_path / "out"
    made = export_runs(read_runs([make_run()]), out, "mvtec", validation=0.5, normals={"metal": normals})
    assert made.pairs == {"train": 5, "val": 0}
    assert len(list((out / "metal/train/good").iterdir())) == made.normals["train"]
    assert len(list((out / "metal/test/good").iterdir())) == made.normals["val"] > 0
    about = json.loads((out / "metal/pairs/scratch/000004.json").read_text())
    assert about == {"synthetic": True, "run": "run", "pair": "000004", "seed": 3, "normal": "4.png"}
    with Image.open(out / "metal/test/scratch/000004.png") as image:
        assert json.loads(image.text["adiff"]) == about


@pytest.mark.parametrize("format", FORMATS)
def test_a_photo_that_its_exif_tag_turns_lies_upright_for_every_reader(make_run, tmp_path, format):
    exif, turned = Image.Exif(), np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)
    exif[0x0112] = 6  # a quarter turn clockwise
    (tmp_path / "normals").mkdir()
    Image.fromarray(turned).save(tmp_path / "normals" / "n.png", exif=exif)
    normals = {"metal": [tmp_path / "normals" / "n.png"]}
    export_runs(read_runs([make_run()]), tmp_path / "out", format, normals=normals)
    (path,) = (path for path in (tmp_path / "out").rglob("normal_000000.*") if path.suffix in (".png", ".jpg")
               if "Segmentation" not in str(path))  # fmt: skip
    assert np.array_equal(pixels_of(path), np.rot90(turned, -1))


@pytest.mark.parametrize("format", FORMATS)
def test_images_of_16_bits_are_what_pillow_shows(make_run, tmp_path, format, caplog):
    grey = np.linspace(0, 65535, 12 * 16).reshape(12, 16).astype(np.uint16)
    run = make_run(pairs=1)
    write_png(run / "image" / "000000.png", grey)
    write_png(tmp_path / "normals" / "n.png", grey)
    export_runs(read_runs([run]), tmp_path / "out", format, normals={"metal": [tmp_path / "normals" / "n.png"]})
    stems = ("000000", "normal_000000")
    paths = [path for path in (tmp_path / "out").rglob("*") if path.stem in stems and path.suffix in (".png", ".jpg")
             and not {"masks", "ground_truth"} & {part.name for part in path.parents}
             and "Segmentation" not in str(path)]  # fmt: skip
    assert len(paths) == 2
    for path in paths:
        with Image.open(path) as image:
            assert np.array_equal(np.asarray(image.convert("RGB"))[:, :, 0], np.rint(grey / 257))
    assert "2 images of 16 bits" in caplog.text


def test_folders_with_a_validation_share(make_run, tmp_path):
    export_runs(read_runs([make_run()]), tmp_path / "out", "folder", validation=0.4)
    counts = [len(read_dataset(tmp_path / "out" / s / "metal").shots["metal", "scratch"]) for s in ("train", "val")]
    assert counts == [3, 2]


@pytest.mark.parametrize("validation", [0.0, 0.4])
def test_folders_list_which_mask_is_whose(several, normals, validation):
    runs, out = several
    export_runs(runs, out, "folder", validation=validation, normals={"metal": normals})
    listed = []
    for path in out.rglob("metadata.jsonl"):
        for line in map(json.loads, path.read_text().splitlines()):
            image, good = line["file_name"], line["file_name"].startswith("metal/normal/normal_")
            mask = None if good else image.replace("/images/", "/masks/").replace(".png", "_mask.png")
            assert good or (path.parent / mask).is_file()
            told = {"mask_file_name": mask, "product": "metal", "defect": None if good else "scratch+dent"}
            assert line == {"file_name": image, **told}
            listed.append(path.parent / image)
    files = (path for path in out.rglob("*") if path.suffix in (".png", ".jpg") and path.parent.name != "masks")
    assert sorted(listed) == sorted(files)
    assert len(listed) == 9


def test_folders_come_back_through_hugging_face(several, normals, labels_of, tmp_path):
    datasets = pytest.importorskip("datasets")
    runs, out = several
    export_runs(runs, out, "folder", validation=0.4, normals={"metal": normals})
    read = datasets.load_dataset("imagefolder", data_dir=str(out), cache_dir=str(tmp_path / "cache"))
    rows = [row for split in ("train", "validation") for row in read[split]]
    pairs = [row for row in rows if row["mask"] is not None]
    assert (len(rows), len(pairs)) == (9, 5) and {row["defect"] for row in pairs} == {"scratch+dent"}
    masks = [labels_of(number, 2) > 0 for number in range(5)]
    assert all(any(np.array_equal(np.array(row["mask"]) > 0, mask) for mask in masks) for row in pairs)


@pytest.mark.parametrize("format", ["mvtec", "folder"])
def test_a_defect_called_good_is_refused_where_it_means_normal(make_run, tmp_path, format):
    with pytest.raises(InputError, match="metal/good would count as normal"):
        export_runs(read_runs([make_run("run", "metal", "good")]), tmp_path / "out", format)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("format", "polygons"), [("coco", False), ("coco", True), ("yolo", False), ("voc", False)])
def test_it_comes_back_through_import(make_run, normals, labels_of, tmp_path, format, polygons):
    run, out = make_run("run", "metal", "scratch", "dent", pairs=4), tmp_path / "exported"
    export_runs(read_runs([run]), out, format, polygons=polygons, validation=0.4, normals={"metal": normals})
    made = write_dataset(read_annotations([out]), tmp_path / "back")
    assert made.shots == {"metal/dent": 4, "metal/scratch": 4} and made.normals == 4
    dataset = read_dataset(made.out)
    for number, name in enumerate(("scratch", "dent"), 1):
        shots = dataset.shots["metal", name]
        for shot, (photo, mask) in zip(shots, read_shots(shots), strict=True):
            pair = int(shot.image.stem)
            assert np.array_equal(mask.mask, labels_of(pair, 2) == number)
            assert np.array_equal(photo.rgb, pixels_of(run / "image" / f"{pair:06d}.png"))
