"""Data sets on disk: each layout is found, each fault is named in one line, the split leaks nothing."""

import logging
from pathlib import Path, PurePath

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import ExifTags, Image

from adiff.datasets.images import write_png
from adiff.datasets.readers import (
    Shot,
    few_shot_split,
    list_images,
    natural_key,
    read_dataset,
    read_shot,
    read_shots,
)
from adiff.errors import InputError
from adiff.library import Defect, Library

IMAGE = np.random.default_rng(1).integers(0, 256, size=(8, 10, 3), dtype=np.uint8)
MASK = np.zeros((8, 10), dtype=bool)
MASK[2:4, 3:6] = True


def photo(path: Path):
    write_png(path, IMAGE)


def mask(path: Path):
    write_png(path, MASK)


def mvtec(folder: Path, defects=("crack", "hole"), count=3, good=2):
    for defect in defects:
        for i in range(count):
            photo(folder / "test" / defect / f"{i:03}.png")
            mask(folder / "ground_truth" / defect / f"{i:03}_mask.png")
    for i in range(good):
        photo(folder / "train" / "good" / f"{i:03}.png")
        photo(folder / "test" / "good" / f"{i + 100:03}.png")
    return folder


def plain(folder: Path, stems=("a", "b"), ending="_mask"):
    for stem in stems:
        photo(folder / "images" / f"{stem}.png")
        mask(folder / "masks" / f"{stem}{ending}.png")
    return folder


def names(files):
    return [file.name for file in files]


# layouts


def test_mvtec_with_several_products(tmp_path):
    mvtec(tmp_path / "tile")
    mvtec(tmp_path / "bolt", defects=("dent",))
    data = read_dataset(tmp_path)
    assert set(data.shots) == {("bolt", "dent"), ("tile", "crack"), ("tile", "hole")}
    files = tmp_path / "tile/test/hole/001.png", tmp_path / "tile/ground_truth/hole/001_mask.png"
    assert data.shots["tile", "hole"][1] == Shot("tile", "hole", *files)
    assert names(data.normals["tile"]) == ["000.png", "001.png"]
    assert all("train" in file.parts for file in data.normals["tile"])


def test_mvtec_of_one_product_takes_the_folders_name(tmp_path, monkeypatch):
    mvtec(tmp_path / "tile")
    assert set(read_dataset(tmp_path / "tile").shots) == {("tile", "crack"), ("tile", "hole")}
    monkeypatch.chdir(tmp_path / "tile")
    assert set(read_dataset(".").normals) == {"tile"}


def test_normals_are_test_good_where_there_is_no_train_good(tmp_path):
    photo(mvtec(tmp_path / "tile", good=0) / "test" / "good" / "7.png")
    assert names(read_dataset(tmp_path).normals["tile"]) == ["7.png"]


def test_chosen_products_and_defects_only(tmp_path):
    mvtec(tmp_path / "tile")
    mvtec(tmp_path / "bolt")
    (tmp_path / "bolt" / "test" / "hole" / "000.png").unlink()  # a fault where nobody looks
    data = read_dataset(tmp_path, products=["tile"], defects=["hole"])
    assert set(data.shots) == {("tile", "hole")} and set(data.normals) == {"tile"}


@pytest.mark.parametrize("ending", ["", "_mask", "_MASK"])
def test_plain_folder(tmp_path, ending):
    plain(tmp_path / "bolts", ending=ending)
    photo(tmp_path / "bolts" / "normal" / "n.png")
    data = read_dataset(tmp_path / "bolts")
    assert list(data.shots) == [("bolts", "defect")] and names(data.normals["bolts"]) == ["n.png"]
    assert [(shot.image.stem, shot.mask.stem) for shot in data.shots["bolts", "defect"]] == [
        ("a", f"a{ending}"), ("b", f"b{ending}")]  # fmt: skip


def test_plain_folder_takes_a_single_given_defect_name(tmp_path):
    plain(tmp_path / "bolts")
    assert list(read_dataset(tmp_path / "bolts", defects=["dent"]).shots) == [("bolts", "dent")]
    with pytest.raises(InputError, match="2 defects asked for \\(a, b\\)"):
        read_dataset(tmp_path / "bolts", defects=["a", "b"])


def test_plain_folder_with_defect_folders(tmp_path):
    plain(tmp_path / "bolts" / "dent")
    plain(tmp_path / "bolts" / "rust", stems="c")
    photo(tmp_path / "bolts" / "normal" / "n.png")
    data = read_dataset(tmp_path / "bolts")
    assert {key: len(shots) for key, shots in data.shots.items()} == {("bolts", "dent"): 2, ("bolts", "rust"): 1}
    assert names(data.normals["bolts"]) == ["n.png"]
    assert list(read_dataset(tmp_path / "bolts", defects=["rust"]).shots) == [("bolts", "rust")]


def test_masks_beside_their_photos(tmp_path):
    for stem in ("2", "10", "a_mask"):
        photo(tmp_path / "set" / f"{stem}.JPG".lower())
        mask(tmp_path / "set" / f"{stem}_MASK.png")
    photo(tmp_path / "set" / "normal" / "n.png")
    dataset = read_dataset(tmp_path / "set", defects=["dent"])
    (shots,) = dataset.shots.values()
    assert [(shot.image.name, shot.mask.name) for shot in shots] == [
        ("2.jpg", "2_MASK.png"), ("10.jpg", "10_MASK.png"), ("a_mask.jpg", "a_mask_MASK.png")
    ]  # fmt: skip
    assert list(dataset.shots) == [("set", "dent")] and names(dataset.normals["set"]) == ["n.png"]
    photo(tmp_path / "set" / "3.png")
    with pytest.raises(InputError, match="1 of 4 images in .* have no mask in .*: 3.png"):
        read_dataset(tmp_path / "set")


@pytest.mark.parametrize("layout", [mvtec, plain])
def test_a_photo_with_its_mask_beside_folders_of_others(tmp_path, layout):
    """An example picture, say, does not hide the data set."""
    layout(tmp_path / "inner")
    photo(tmp_path / "example.png")
    mask(tmp_path / "example_mask.png")
    assert all("inner" in key for key in read_dataset(tmp_path).shots)


def test_masks_beside_photos_in_a_folder_and_in_those_in_it(tmp_path):
    for folder in (tmp_path, tmp_path / "dent"):
        photo(folder / "1.png")
        mask(folder / "1_mask.png")
    with pytest.raises(InputError, match=r"holds photos with their masks, and so do folders in it \(dent\); move"):
        read_dataset(tmp_path)


def test_many_masks_beside_their_photos(tmp_path, monkeypatch):
    """Each is looked at a few times, not once for each other one: thousands would take a minute."""
    for number in range(100):
        (tmp_path / f"{number}.png").touch()
        (tmp_path / f"{number}_mask.png").touch()
    compared, equal = [], PurePath.__eq__
    monkeypatch.setattr(PurePath, "__eq__", lambda one, other: compared.append(one) or equal(one, other))
    assert len(read_dataset(tmp_path).shots[tmp_path.name, "defect"]) == 100
    assert len(compared) < 1000


def test_masks_beside_their_photos_in_a_folder_for_each_defect(tmp_path, caplog):
    for defect in ("dent", "scratch"):
        photo(tmp_path / defect / "0.png")
        mask(tmp_path / defect / "0_mask.png")
    photo(tmp_path / "good" / "0.png")
    photo(tmp_path / "rust" / "0.png")
    (tmp_path / "notes").mkdir()
    dataset = read_dataset(tmp_path)
    assert "passed over, as no photo there has a mask: rust" in caplog.text
    assert list(dataset.shots) == [(tmp_path.name, "dent"), (tmp_path.name, "scratch")]
    assert names(dataset.normals[tmp_path.name]) == ["0.png"]


def test_ids_are_in_natural_order(tmp_path):
    plain(tmp_path, stems=("10", "9", "1", "img2", "img10"))
    (shots,) = read_dataset(tmp_path).shots.values()
    assert [shot.image.stem for shot in shots] == ["1", "9", "10", "img2", "img10"]


@given(st.lists(st.text(max_size=8), max_size=6))
def test_natural_order_is_total(texts):
    assert sorted(texts, key=natural_key) == sorted(reversed(texts), key=natural_key)


def test_upper_case_suffixes_and_mixed_ones(tmp_path):
    plain(tmp_path)
    (tmp_path / "images" / "a.png").rename(tmp_path / "images" / "a.PNG")
    (tmp_path / "masks" / "b_mask.png").rename(tmp_path / "masks" / "b_mask.TIFF")
    (shots,) = read_dataset(tmp_path).shots.values()
    assert [shot.image.name for shot in shots] == ["a.PNG", "b.png"] and shots[1].mask.name == "b_mask.TIFF"


def test_an_image_whose_own_name_ends_in_mask(tmp_path):
    plain(tmp_path, stems=("gas_mask",))
    plain(tmp_path, stems=("face_mask",), ending="")
    (shots,) = read_dataset(tmp_path).shots.values()
    assert [shot.mask.name for shot in shots] == ["face_mask.png", "gas_mask_mask.png"]


def test_junk_is_passed_over(tmp_path, caplog):
    folder = mvtec(tmp_path / "tile", defects=("crack",), count=1)
    for place in (tmp_path, folder, folder / "test", folder / "test" / "crack", folder / "ground_truth" / "crack"):
        for name in (".DS_Store", "Thumbs.db", "._000.png", "desktop.ini", "notes.txt"):
            (place / name).write_bytes(b"junk")
        for name in ("__MACOSX", ".ipynb_checkpoints"):
            (place / name / "test").mkdir(parents=True)
    data = read_dataset(tmp_path)
    assert list(data.shots) == [("tile", "crack")] and len(data.shots["tile", "crack"]) == 1
    assert caplog.text == ""


def test_files_of_other_kinds_are_named_in_a_warning(tmp_path, caplog):
    plain(tmp_path)
    (tmp_path / "images" / "c.heic").write_bytes(b"x")
    read_dataset(tmp_path)
    assert "c.heic" in caplog.text and "a.png" not in caplog.text


# faults


def fault(*args, **options) -> str:
    with pytest.raises(InputError) as caught:
        read_dataset(*args, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_nothing_there(tmp_path):
    assert "gone does not exist" in fault(tmp_path / "gone")
    assert "no images found" in fault(tmp_path) and "nothing" in fault(tmp_path)
    photo(tmp_path / "x.png")
    assert "x.png is a file" in fault(tmp_path / "x.png")
    assert "1 image files directly in it" in fault(tmp_path) and "images/ and masks/" in fault(tmp_path)


@pytest.mark.parametrize("folders", [("images", "masks"), ("test/crack", "ground_truth/crack"), ("a/images", "a/masks"),
                                     ("p/test/crack", "p/ground_truth/crack"), ("train/good",)])  # fmt: skip
def test_folders_without_images(tmp_path, folders):
    for folder in folders:
        (tmp_path / folder).mkdir(parents=True)
    assert f"no images of defects in {tmp_path}" in fault(tmp_path)


def test_images_without_masks_are_named(tmp_path):
    folder = mvtec(tmp_path / "tile", count=9)
    for i in range(1, 9):
        (folder / "ground_truth" / "crack" / f"{i:03}_mask.png").unlink()
    said = fault(tmp_path)
    assert "8 of 9 images" in said and "001.png, 002.png" in said and "and 3 more" in said
    assert str(folder / "ground_truth" / "crack") in said and "000.png" not in said


def test_masks_without_images_are_named(tmp_path):
    plain(tmp_path, stems=("a", "b", "c"))
    (tmp_path / "images" / "b.png").unlink()
    assert "1 of 3 masks" in fault(tmp_path) and "b_mask.png" in fault(tmp_path)


def test_a_missing_masks_folder_is_named(tmp_path):
    photo(mvtec(tmp_path / "tile") / "test" / "dent" / "5.png")
    said = fault(tmp_path)
    assert f"expected the folder {tmp_path / 'tile' / 'ground_truth' / 'dent'}" in said and "5_mask.png" in said
    photo(tmp_path / "plain" / "images" / "x.png")
    assert f"expected the folder {tmp_path / 'plain' / 'masks'}" in fault(tmp_path / "plain")


def test_a_missing_images_folder_is_named(tmp_path):
    mask(mvtec(tmp_path / "tile") / "ground_truth" / "dent" / "5_mask.png")
    assert f"expected the folder {tmp_path / 'tile' / 'test' / 'dent'}" in fault(tmp_path)


def test_names_that_are_not_there_list_what_is(tmp_path):
    mvtec(tmp_path / "tile")
    mvtec(tmp_path / "bolt", defects=("dent",))
    assert "no product 'nut'" in fault(tmp_path, ["nut"]) and "there: bolt, tile" in fault(tmp_path, ["nut"])
    assert "there: crack, dent, hole" in fault(tmp_path, defects=["crack", "rust"])
    assert "there: crack, hole" in fault(tmp_path, ["tile"], ["dent"])
    plain(tmp_path / "plain" / "rust")
    assert "there: rust" in fault(tmp_path / "plain", defects=["dent"])
    assert "there: plain" in fault(tmp_path / "plain", ["other"])


def test_two_files_for_one_name(tmp_path):
    plain(tmp_path)
    mask(tmp_path / "masks" / "a.png")
    assert "two masks for the image a" in fault(tmp_path)
    (tmp_path / "masks" / "a.png").unlink()
    write_png(tmp_path / "images" / "a.bmp", IMAGE)
    assert "two images named a" in fault(tmp_path) and "a.bmp and a.png" in fault(tmp_path)


def test_links_that_leave_the_folder_are_refused(tmp_path):
    photo(tmp_path / "elsewhere" / "secret.png")
    folder = plain(tmp_path / "data")
    link = folder / "images" / "c.png"
    link.symlink_to(tmp_path / "elsewhere" / "secret.png")
    assert f"the link {link} leads out of the data folder" in fault(folder)
    link.unlink()
    (folder / "normal").symlink_to(tmp_path / "elsewhere")
    assert "normal leads out" in fault(folder)


def test_links_within_the_folder_and_to_it_are_followed(tmp_path):
    folder = plain(tmp_path / "data", stems=("a",))
    (folder / "images" / "b.png").symlink_to("a.png")
    (folder / "masks" / "b.png").symlink_to(folder / "masks" / "a_mask.png")
    (tmp_path / "link").symlink_to(folder)
    (shots,) = read_dataset(tmp_path / "link").shots.values()
    assert len(shots) == 2 and shots[0].product == "link"


def test_links_to_nothing_and_in_circles_are_refused(tmp_path):
    folder = plain(tmp_path / "data")
    link = folder / "masks" / "c.png"
    link.symlink_to("gone.png")
    assert f"the link {link} leads nowhere" in fault(folder)
    link.unlink()
    link.symlink_to("c.png")
    assert "leads nowhere" in fault(folder)


# opening shots


def test_read_shot_compares_sizes(tmp_path):
    (shots,) = read_dataset(plain(tmp_path)).shots.values()
    opened, marked = read_shot(shots[0])
    assert np.array_equal(opened.pixels, IMAGE) and np.array_equal(marked.mask, MASK)
    write_png(shots[0].mask, MASK[:7])
    with pytest.raises(InputError, match="a_mask.png is 10x7, its image 10x8"):
        read_shot(shots[0])


def test_grey_masks_are_said_once(tmp_path, caplog):
    (shots,) = read_dataset(plain(tmp_path, stems="abc")).shots.values()
    assert len(read_shots(shots)) == 3 and caplog.text == ""
    for shot in shots[:2]:
        write_png(shot.mask, MASK.astype(np.uint8) * 200)
    assert [marked.grey for _, marked in read_shots(shots)] == [True, True, False]
    assert len(caplog.records) == 1 and "2 of 3 masks hold greys" in caplog.text


def test_photos_that_only_a_viewer_turns_are_pointed_out(tmp_path, caplog):
    """Upside down: the sizes agree, and a mask drawn on the pixels as stored is half a turn off."""
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 3
    for name, tags in (("a", [True, False]), ("b", [True, True]), ("c", [False, False])):
        for array, kind, tag in zip((IMAGE, MASK), ("images", "masks"), tags, strict=True):
            path = tmp_path / kind / f"{name}.png"
            path.parent.mkdir(exist_ok=True)
            Image.fromarray(array).save(path, **({"exif": exif} if tag else {}))
    (shots,) = read_dataset(tmp_path).shots.values()
    read_shots(shots)
    assert len(caplog.records) == 1 and "1 of 3 photos are turned by an EXIF tag" in caplog.text
    assert caplog.text.strip().endswith("a.png")


def test_masks_that_may_be_the_other_way_round_are_said_once(tmp_path, caplog):
    (shots,) = read_dataset(plain(tmp_path, stems="abc")).shots.values()
    for shot in shots[:2]:
        write_png(shot.mask, ~MASK)
    assert len(read_shots(shots)) == 3
    assert len(caplog.records) == 1 and "2 of 3 masks mark more than 75 % of their image; white marks" in caplog.text


def test_list_images(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        list_images(tmp_path / "gone")
    with pytest.raises(InputError, match="no images in .*expected .bmp, "):
        list_images(tmp_path)
    for name in ("10.png", "9.PNG"):
        photo(tmp_path / name)
    assert names(list_images(tmp_path)) == ["9.PNG", "10.png"]


# split


def shots_of(count):
    return [Shot("tile", "crack", Path(f"{i}.png"), Path(f"{i}_mask.png")) for i in range(count)]


@pytest.mark.parametrize("count, train", [(1, 1), (2, 1), (3, 1), (5, 1), (6, 2), (22, 7)])
def test_a_third_trains_at_least_one(count, train):
    assert len(few_shot_split(shots_of(count))[0]) == train


def test_the_lowest_ids_train():
    train, test = few_shot_split(list(reversed(shots_of(12))), 3)
    assert names(shot.image for shot in train) == ["0.png", "1.png", "2.png"]
    assert names(shot.image for shot in test)[0] == "3.png" and len(test) == 9


@given(count=st.integers(1, 30), data=st.data())
def test_the_split_is_disjoint_and_whole(count, data):
    n = data.draw(st.one_of(st.none(), st.integers(1, count)))
    train, test = few_shot_split(shots_of(count), n)
    assert not set(train) & set(test) and set(train) | set(test) == set(shots_of(count))
    assert n is None or len(train) == n


def test_bad_splits():
    with pytest.raises(InputError, match="5 shots of tile/crack asked for, but there are 3"):
        few_shot_split(shots_of(3), 5)
    with pytest.raises(InputError, match="0 shots of tile/crack asked for"):
        few_shot_split(shots_of(3), 0)
    with pytest.raises(InputError, match="no shots"):
        few_shot_split([])


def test_one_shot_warns(caplog):
    with caplog.at_level(logging.WARNING):
        few_shot_split(shots_of(4), 2)
        assert caplog.text == ""
        few_shot_split(shots_of(4), 1)
    assert "tile/crack: one shot only (4 are there: --shots N learns from more); " in caplog.text
    few_shot_split(shots_of(1))
    assert "tile/crack: one shot only; " in caplog.text


def test_names_that_look_the_same_belong_together(tmp_path):
    """macOS writes an accented letter as two characters."""
    photo(tmp_path / "images" / "n\u00e4he.png")
    mask(tmp_path / "masks" / "na\u0308he_mask.png")
    ((shot,),) = read_dataset(tmp_path).shots.values()
    assert shot.mask.stem == "na\u0308he_mask"


def test_names_are_found_however_their_accents_are_written(tmp_path):
    """macOS writes an accented letter of a folder's name as two characters; people type one."""
    typed, stored = "r\u00e9sine", "re\u0301sine"
    mvtec(tmp_path / stored, defects=("f\u0302le", "hole"))
    data = read_dataset(tmp_path, [typed], ["hole"])
    assert set(data.shots) == {(stored, "hole")}
    assert set(read_dataset(tmp_path, [stored], ["f\u0302le"]).shots) == {(stored, "f\u0302le")}
    library = Library({(stored, "hole"): Defect(stored, "hole")}, "f" * 64, "demo", 4)
    assert library.get(f"{typed}/hole").key == (stored, "hole")
    with pytest.raises(InputError, match="holds no 'resine/hole'"):
        library.get("resine/hole")
