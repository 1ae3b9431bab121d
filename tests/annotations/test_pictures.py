"""Masks as pictures, in the layouts of people and of published data sets."""

import numpy as np
import pytest
from PIL import Image

from adiff.annotations import is_annotated, read_annotations, write_dataset
from adiff.datasets.images import write_png
from adiff.errors import InputError

SIZE = (12, 16)


def save(root, photos=(), masks=(), value=255, size=SIZE):
    """Write photos, and masks of columns 2 to 5 and rows 3 to 6 of the given value."""
    for number, name in enumerate(photos):
        pixels = np.random.default_rng(number).integers(20, 236, (*SIZE, 3), np.uint8)
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(root / name)
    for name in masks:
        mask = np.zeros(size, np.uint8)
        mask[3:7, 2:6] = value
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(mask).save(root / name)


def found(root, *others):
    """What a folder holds: photo -> (label, pixels marked), or () of a normal one."""
    photos = read_annotations([root], *others)
    marks = {one.image.name: [(mark.label, int(mark.draw(SIZE).sum())) for mark in one.marks] for one in photos}
    return {name: one[0] if one else () for name, one in marks.items() if len(one) < 2}


@pytest.mark.parametrize(
    ("photo", "mask", "label"),
    [
        ("image/7.jpg", "mask/7.png", "defect"),
        ("Images/7.JPG", "Masks/7_MASK.PNG", "defect"),
        ("images/7.png", "labels/7.png", "defect"),
        ("img/train/7.png", "gt/train/7.bmp", "defect"),
        ("7.jpg", "7.png", "defect"),
        ("7.jpg", "7_label.bmp", "defect"),
        ("7.png", "7-mask.png", "defect"),
        ("7.png", "7.seg.tif", "defect"),
        ("MT_Crack/Imgs/7.jpg", "MT_Crack/Imgs/7.png", "MT_Crack"),  # magnetic tile
        ("kos01/Part7.jpg", "kos01/Part7_label.bmp", "kos01"),  # KolektorSDD
        ("train/7.png", "train/7_GT.png", "defect"),  # KolektorSDD2
        ("Class1/Train/7.PNG", "Class1/Train/Label/7_label.PNG", "Class1"),  # DAGM
        ("candle/Data/Images/Anomaly/7.JPG", "candle/Data/Masks/Anomaly/7.png", "candle/Anomaly"),  # VisA
        ("01/test/ko/7.png", "01/ground_truth/ko/7.bmp", "01/ko"),  # BTAD
        ("can/test_public/bad/7.png", "can/test_public/ground_truth/bad/7_mask.png", "can/bad"),  # MVTec AD 2
        ("box/test/logical/7.png", "box/ground_truth/logical/7/000.png", "box/logical"),  # MVTec LOCO
        ("bagel/test/crack/rgb/7.png", "bagel/test/crack/gt/7.png", "bagel/crack"),  # MVTec 3D
        ("Defect_images/7.png", "Mask_images/7_mask.png", "defect"),  # AITEX
        ("crack/7.jpg", "mask/crack/7.jpg", "crack"),  # anomalib
    ],
)
def test_layouts(tmp_path, photo, mask, label):
    save(tmp_path, [photo], [mask])
    ((name, told),) = found(tmp_path).items()
    assert photo.endswith(name) and told == (label, 16)


def test_masks_and_photos_in_folders_of_their_own(tmp_path):
    save(tmp_path / "a", ["7.jpg", "more/8.jpg", "9.jpg"])
    save(tmp_path / "b", (), ["7.png", "more/8_mask.png"])
    assert found(tmp_path / "b", tmp_path / "a") == {"7.jpg": ("defect", 16), "8.jpg": ("more", 16)}


def test_several_masks_of_a_photo(tmp_path):
    save(tmp_path, ["test/dent/7.png"], ["ground_truth/dent/7/000.png"])
    other = np.zeros(SIZE, bool)
    other[0, :3] = True
    write_png(tmp_path / "ground_truth/dent/7/001.png", other)
    made = write_dataset(read_annotations([tmp_path]), tmp_path.parent / "out")
    assert made.shots == {"dent": 1}
    assert (np.asarray(Image.open(made.out / "ground_truth/dent/7_mask.png")) > 0).sum() == 19


def test_photos_without_a_defect(tmp_path, caplog):
    save(tmp_path, ["a/1.jpg", "a/2.jpg", "a/3.jpg", "OK/4.jpg"], ["a/1.png"])
    save(tmp_path, (), ["a/2.png"], value=0)
    assert found(tmp_path) == {"1.jpg": ("a", 16), "2.jpg": (), "4.jpg": ()}
    assert "photos without a mask: 1 of 4; they are left out, as they may show defects" in caplog.text
    assert "3.jpg" in caplog.text


def test_normal_images_of_several_products(tmp_path):
    """Of VisA, and of BTAD."""
    root = tmp_path / "sets"
    save(root, [f"candle/Data/Images/{name}.JPG" for name in ("Anomaly/0", "Normal/0", "Normal/1")],
         ["candle/Data/Masks/Anomaly/0.png"])  # fmt: skip
    save(root, [f"01/{name}.png" for name in ("test/ko/0", "test/ok/1", "train/ok/2")], ["01/ground_truth/ko/0.png"])
    out = write_dataset(read_annotations([root]), tmp_path / "out").out
    assert len(list(out.glob("candle/train/good/*"))) == len(list(out.glob("01/train/good/*"))) == 2


@pytest.mark.parametrize("value", [1, 3, 127, 128, 255])
def test_numbers_as_marks(tmp_path, value):
    save(tmp_path, ["7.jpg"], ["7.png"], value)
    assert found(tmp_path) == {"7.jpg": ("defect", 16)}


def test_numbers_of_several_classes_are_told(tmp_path, caplog):
    save(tmp_path, ["7.jpg"])
    classes = np.zeros(SIZE, np.uint8)
    classes[0, :3], classes[5, :4] = 1, 2
    write_png(tmp_path / "7.png", classes)
    assert found(tmp_path) == {"7.jpg": ("defect", 7)}
    assert "masks of several numbers: 1" in caplog.text and "7.png" in caplog.text


def test_soft_edges_and_what_a_jpeg_leaves(tmp_path):
    save(tmp_path, ["7.png", "8.png"])
    soft = np.zeros(SIZE, np.uint8)
    soft[3:7, 2:6], soft[2, 2:12] = 255, np.arange(10, 110, 10)
    write_png(tmp_path / "7_mask.png", soft)
    noise = np.random.default_rng(0).integers(0, 12, SIZE, np.uint8)
    noise[3:7, 2:6] = 250
    Image.fromarray(noise).save(tmp_path / "8_mask.jpg", quality=60)
    assert found(tmp_path) == {"7.png": ("defect", 16), "8.png": ("defect", 16)}


def refused(root, *others):
    with pytest.raises(InputError) as told:
        read_annotations([root], *others)
    return str(told.value)


def test_what_is_no_mask(tmp_path):
    save(tmp_path, ["images/7.jpg", "masks/7.png"])
    assert "masks/7.png is in the place of a mask, and most of it is neither black nor white" in refused(tmp_path)


def test_masks_without_a_photo_or_of_several(tmp_path):
    save(tmp_path, ["a/7.jpg"], ["mask/7.png", "mask/8.png"])
    assert "1 of 2 masks have no photo of their name, the first is" in refused(tmp_path)
    save(tmp_path, ["a/8.jpg", "b/8.png"])
    assert "mask/8.png may be of" in refused(tmp_path)


def test_pictures_of_one_name(tmp_path):
    save(tmp_path, ["7.png", "7.bmp", "8.jpg"], ["8.png"])
    assert "differ in their suffix alone, and either may be the mask; call it 7_mask" in refused(tmp_path)


def test_a_mask_of_another_size(tmp_path):
    save(tmp_path, ["7.jpg"], ["7.png"], size=(12, 15))
    with pytest.raises(InputError, match="is 15x12, its image 16x12; they must have the same size"):
        write_dataset(read_annotations([tmp_path]), tmp_path.parent / "out")


def test_photos_alone_are_no_annotations(tmp_path):
    save(tmp_path, ["good/7.jpg", "8.jpg"])
    assert "no annotations in" in refused(tmp_path)
    assert not is_annotated(tmp_path)
