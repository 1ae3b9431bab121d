"""Annotated photos as a data set in MVTec AD's layout."""

import json
import logging
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import ExifTags, Image

from adiff.annotations import dataset, read_annotations, write_dataset
from adiff.datasets.images import read_photo
from adiff.datasets.readers import read_dataset
from adiff.errors import InputError
from adiff.evaluation.splits import read_split

DENT, SCRATCH = {"segmentation": [[2, 3, 5, 3, 5, 6, 2, 6]]}, {"segmentation": [[8, 1, 12, 1, 12, 2, 8, 2]]}


@pytest.fixture
def make(coco, photos, tmp_path):
    """Import COCO marks of the photos into OUT."""

    def call(*marks, out=tmp_path / "out", changes=None, **options):
        return write_dataset(read_annotations([coco(*marks, **changes or {})], photos), out, **options)

    return call


def test_photos_masks_and_normal_images(make, photos, tmp_path, masks):
    made = make((0, "dent", DENT), (1, "scratch", SCRATCH), (0, "dent", SCRATCH))
    out = made.out
    assert made.shots == {"dent": 1, "scratch": 1} and made.normals == 2
    assert made.told().startswith(f"1 photo of dent, 1 photo of scratch, 2 without marks as normal in {out}")
    assert "`adiff train 'two words' --out" in replace(made, out=Path("two words")).told()
    for place, number in (("test/dent", 0), ("test/scratch", 1), ("train/good", 2), ("train/good", 3)):
        assert (out / place / f"{number}.png").read_bytes() == (photos / f"{number}.png").read_bytes()
    found = masks(out)
    assert list(found) == ["ground_truth/dent/0_mask.png", "ground_truth/scratch/1_mask.png"]
    assert (
        found["ground_truth/dent/0_mask.png"].sum() == 16 + 10 and found["ground_truth/scratch/1_mask.png"].sum() == 10
    )
    found = read_dataset(out)
    assert {key: len(shots) for key, shots in found.shots.items()} == {("out", "dent"): 1, ("out", "scratch"): 1}
    assert len(found.normals["out"]) == 2 and not (out / "groups.json").exists()


def test_labels_wanted_and_labels_as_one(make, tmp_path, masks):
    marks = (0, "dent", DENT), (0, "scratch", SCRATCH), (1, "scratch", SCRATCH)
    some = make(*marks, labels=["dent"])
    assert some.shots == {"dent": 1} and some.normals == 2  # a photo with other marks is none without
    one = make(*marks, out=tmp_path / "one", as_one="flaw", good=False)
    assert one.shots == {"flaw": 2} and one.normals == 0 and not (one.out / "train").exists()
    assert masks(one.out)["ground_truth/flaw/0_mask.png"].sum() == 16 + 10
    with pytest.raises(InputError, match="no mark has the label 'rust'; there: dent, scratch"):
        make(*marks, labels=["rust"])


def test_a_photo_of_several_defects_is_one_photo(make, caplog):
    marks = [(n, name, shape) for n in (0, 1) for name, shape in (("dent", DENT), ("scratch", SCRATCH))]
    with caplog.at_level(logging.WARNING, "adiff"):
        out = make(*marks).out
    assert "photos of several defects: 2; each is there once for each" in caplog.text
    assert json.loads((out / "groups.json").read_text())["test/dent/0.png"] == "0"
    split = read_split(out, "out", {"dent": 1, "scratch": 1})
    teach, test = ({shot.image.name for shot in part} for part in (split.train, split.test))
    assert not teach & test


def test_marks_that_are_lines_or_boxes(make, caplog):
    with caplog.at_level(logging.WARNING, "adiff"):
        made = make((0, "dent", {"bbox": [2, 3, 4, 4]}), (1, "dent", {"segmentation": [[1, 1, 2, 2]]}), (0, "dent", {}))
    assert "marks without an area, as points or lines: 2 of 3" in caplog.text
    assert "marks that are boxes: 1 of 3; their masks are rectangles" in caplog.text
    assert made.shots == {"dent": 1} and made.normals == 2  # not the photo of which only a line is known
    with pytest.raises(InputError, match="none of 4 photos has a mark with an area"):
        make((1, "dent", {}))


def test_labels_with_their_product(make, caplog):
    made = make((0, "metal/dent", DENT), (1, "wood/dent", SCRATCH))
    assert made.shots == {"metal/dent": 1, "wood/dent": 1} and made.normals == 0
    assert "photos without marks: 2; they are left out, as they may be of any of metal, wood" in caplog.text
    assert (made.out / "wood" / "test" / "dent" / "1.png").exists()


def test_normal_images_are_of_the_product_whose_marked_photos_lie_nearest(make, photos, caplog):
    """Also of one product alone, of which other products' are none."""
    names = ["metal/bad/0.png", "metal/good/1.png", "wood/2.png", "wood/3.png", "other/4.png"]
    for number, name in enumerate(names):
        (photos / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(photos / f"{number % 4}.png", photos / name)
    changes = {"images": [{"id": number + 1, "file_name": name} for number, name in enumerate(names)]}
    marks = (0, "metal/dent", DENT), (2, "wood/dent", SCRATCH)
    with caplog.at_level(logging.WARNING, "adiff"):
        made = make(*marks, changes=changes)
    assert {key: [path.name for path in paths] for key, paths in read_dataset(made.out).normals.items()} == {
        "metal": ["1.png"], "wood": ["3.png"],
    }  # fmt: skip
    assert made.normals == 2 and caplog.messages == [
        "photos without marks: 1; they are left out, as they may be of any of metal, wood; put each product's photos "
        "into a folder of their own"
    ]
    one = make(*marks, out=photos.parent / "one", changes=changes, labels=["metal/dent"])
    assert [path.name for path in read_dataset(one.out).normals["metal"]] == ["1.png"]
    assert make(*marks, out=photos.parent / "as-one", changes=changes, as_one="dent").normals == 3


@pytest.mark.parametrize("label", ["good", "Good", "normal", "OK", "metal/good"])
def test_what_is_marked_as_good_is_normal(make, caplog, label):
    """By the photo as a whole, a box or an outline."""
    other = "metal/dent" if "/" in label else "dent"
    marks = (0, other, DENT), (0, label, SCRATCH), (1, label, {}), (2, label, {"bbox": [0, 0, 16, 12]})
    with caplog.at_level(logging.WARNING, "adiff"):
        made = make(*marks)
    assert made.shots == {other: 1} and made.normals == 3 and len(read_dataset(made.out).shots) == 1
    assert f"marks called {label}: 3 of 4; they are no defect" in caplog.text
    assert "without an area" not in caplog.text and "boxes" not in caplog.text
    with pytest.raises(InputError, match=f"the label '{label}' is no defect"):
        make(*marks, labels=[label])
    with pytest.raises(InputError, match="a defect called 'Good' would count as normal"):
        make(*marks, as_one="Good")
    with pytest.raises(InputError, match="none of 4 photos has a mark with an area"):
        make((0, label, DENT))


def test_flags_of_photos_without_marks(labelme, photos, tmp_path, caplog):
    """What labelme calls the photo as a whole."""
    square = ("dent", "polygon", [[2, 3], [5, 3], [5, 6], [2, 6]])
    labelme(0, square, flags={"good": False, "dent": True, "blurred": True})
    labelme(1, flags={"Good": True, "dent": False})
    labelme(2, flags={"good": False, "dent": True})
    with caplog.at_level(logging.WARNING, "adiff"):
        made = write_dataset(read_annotations([photos]), tmp_path / "out")
    assert made.shots == {"dent": 1} and made.normals == 2
    assert sorted(path.name for path in (made.out / "train" / "good").iterdir()) == ["1.png", "3.png"]  # 3: no file
    assert caplog.messages == ["photos without marks that are flagged dent: 1; they are left out: outline what is "
                               "there, or flag them good alone"]  # fmt: skip
    for flags in (None, {}, [], {"a/b\n": True, "good": True}, {"x" * 99: 1}):
        labelme(2, flags=flags)
        found = next(one for one in read_annotations([photos]) if one.image.name == "2.png")
        assert found.flags == (("a/b\n", "good") if flags and "good" in flags else ())


@pytest.mark.parametrize("label", ["a/b/c", "../x", "con", "a\x00b", "x" * 70])
def test_labels_that_are_no_folders(make, tmp_path, label):
    if label == "a/b/c":
        assert make((0, label, DENT)).shots == {"a-b-c": 1}
        return
    with pytest.raises(InputError, match="label"):
        make((0, label, DENT))
    assert not (tmp_path / "out").exists()


def test_labels_that_look_alike(make):
    with pytest.raises(InputError, match="the labels Dent, dent differ only in case or look"):
        make((0, "Dent", DENT), (1, "dent", DENT))
    assert make((0, "Dent", DENT), (1, "dent", DENT), as_one="dent").shots == {"dent": 2}


def test_photos_of_one_name(labelme, photos, tmp_path):
    marks = ("dent", "polygon", [[2, 3], [5, 3], [5, 6], [2, 6]])
    labelme(0, marks)
    other = tmp_path / "other"
    other.mkdir()
    for name in ("0.json", "0.png"):
        (other / name).write_bytes((photos / name).read_bytes())
    made = write_dataset(read_annotations([photos, other]), tmp_path / "out")
    assert sorted(path.stem for path in (made.out / "test" / "dent").iterdir()) == ["other-0", "photos-0"]


def test_photos_of_one_name_in_splits(tmp_path, photos):
    """YOLO's folders above such photos are called the same, too."""
    for split in ("train", "valid"):
        shutil.copytree(photos, tmp_path / "yolo" / split / "images")
        (tmp_path / "yolo" / split / "labels").mkdir()
        (tmp_path / "yolo" / split / "labels" / "0.txt").write_text("0 0.5 0.5 0.2 0.2\n")
    (tmp_path / "yolo" / "data.yaml").write_text("names: [dent]")
    made = write_dataset(read_annotations([tmp_path / "yolo"]), tmp_path / "out")
    assert sorted(path.stem for path in (made.out / "test" / "dent").iterdir()) == ["train-images-0", "valid-images-0"]
    assert made.normals == 6
    twin = tmp_path / "yolo" / "valid" / "images" / "0.jpg"
    twin.write_bytes((photos / "0.png").read_bytes())
    with pytest.raises(InputError, match="0.jpg and .*0.png differ in their suffix alone"):
        read_annotations([tmp_path / "yolo"])


def test_a_photo_that_a_tag_turns(coco, photos, tmp_path):
    tag = Image.Exif()
    tag[ExifTags.Base.Orientation] = 6
    with Image.open(photos / "0.png") as image:
        image.save(photos / "0.jpg", exif=tag)
    size = {"file_name": "0.jpg", "height": 12, "width": 16}
    path = coco((0, "dent", DENT), images=[{"id": 1, **size}])
    with pytest.raises(
        InputError, match="0.jpg is 12x16, its annotation says 16x12; its EXIF tag turns it, .* take the"
    ):
        write_dataset(read_annotations([path], photos), tmp_path / "out")
    with Image.open(photos / "0.jpg") as image:
        image.save(photos / "0.jpg", exif=Image.Exif())  # as told
    assert write_dataset(read_annotations([path], photos), tmp_path / "out").shots == {"dent": 1}


def test_each_photo_is_decoded_once(make, monkeypatch):
    opened = []
    monkeypatch.setattr(dataset, "read_photo", lambda path: opened.append(path) or read_photo(path))
    make((0, "dent", DENT), (0, "scratch", SCRATCH), (1, "dent", DENT))
    assert len(opened) == len(set(opened)) == 4


def test_again_completes_what_is_missing(make, tmp_path, monkeypatch):
    out = make((0, "dent", DENT), (1, "scratch", SCRATCH)).out
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    (out / "test" / "dent" / "0.png").unlink()
    (out / "ground_truth" / "dent" / "0_mask.png").unlink()
    make((0, "dent", DENT), (1, "scratch", SCRATCH))
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before
    with pytest.raises(InputError, match="holds a set with content"):
        make((0, "dent", SCRATCH))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "x").touch()
    with pytest.raises(InputError, match="is not empty and holds no import.json"):
        make((0, "dent", DENT), out=tmp_path / "mine")


@pytest.mark.parametrize(
    ("shape", "changes", "told"),
    [
        ({"segmentation": [[20, 20, 30, 20, 30, 30]]}, {}, "cover nothing in it"),
        ({"segmentation": [[0, 0, 16, 0, 16, 12, 0, 12]]}, {}, "cover all of it"),
        (
            DENT,
            {"images": [{"id": 1, "file_name": "0.png", "height": 9, "width": 9}]},
            "is 16x12, its annotation says 9x9",
        ),
    ],
)
def test_what_does_not_fit_is_told_before_anything_is_written(make, tmp_path, shape, changes, told):
    with pytest.raises(InputError, match=told):
        make((0, "dent", shape), changes=changes)
    assert not (tmp_path / "out").exists()
