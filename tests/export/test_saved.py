"""What a graph's Save Pairs wrote: read as runs, and exports that grow with it."""

import json

import numpy as np
import pytest
from pycocotools.coco import COCO

from adiff.datasets.images import name_of, write_png
from adiff.datasets.writers import write_mvtec_pair
from adiff.errors import InputError
from adiff.export import TakenError, export_runs, read_runs, read_saved
from adiff.storage import write_json

RECORD = {"fill": 0.5, "seed": 7, "library": "steel.safetensors / metal / scratch @0123456789"}


def save(root, number, product="metal", defect="scratch", **told):
    mask = np.zeros((8, 10), bool)
    mask[2:4, 3 : 5 + number] = True
    image = np.full((8, 10, 3), 40 + number, np.uint8)
    write_mvtec_pair(root, product, defect, f"{number:06d}", image, mask, text={"prompt": "{}"}, record=RECORD | told)


@pytest.fixture
def saved(tmp_path):
    root = tmp_path / "adiff"
    for number in range(3):
        save(root, number)
    save(root, 0, defect="dent")
    save(root, 0, "wood", "hole")
    return root


def test_each_product_and_defect_is_a_run(saved):
    (saved / "metal" / "test" / "scratch" / "mine.png").write_bytes(b"a stranger's")
    (saved / "metal" / "test" / "good").mkdir()
    runs = read_runs([saved])
    assert [(run.name, run.categories, run.ids) for run in runs] == [
        ("metal-dent", ("metal/dent",), ("000000",)),
        ("metal-scratch", ("metal/scratch",), ("000000", "000001", "000002")),
        ("wood-hole", ("wood/hole",), ("000000",)),
    ]


def test_names_that_would_meet_are_numbered(tmp_path):
    for product, defect in (("a-b", "c"), ("a", "b-c"), ("big part", "A")):
        save(tmp_path / "adiff", 0, product, defect)
    assert [run.name for run in read_saved(tmp_path / "adiff")] == ["a-b-c", "a-b-c-2", "big-part-A"]
    runs = read_runs([tmp_path / "adiff"])
    assert sum(export_runs(runs, tmp_path / "out", "yolo").pairs.values()) == 3
    assert len(list((tmp_path / "out" / "images" / "train").iterdir())) == 3


def test_pairs_come_through_with_the_graph_and_their_origin(saved, tmp_path):
    made = export_runs(read_runs([saved]), tmp_path / "out", "coco")
    assert made.told("there") == "5 pairs of metal/dent, metal/scratch, wood/hole in there, as coco"
    coco = COCO(tmp_path / "out" / "annotations" / "instances_train.json")
    image = next(one for one in coco.imgs.values() if one["file_name"] == "metal-scratch-000002.png")
    assert image["adiff"] == {"synthetic": True, "run": "metal-scratch", "pair": "000002", "seed": 7,
                              "library": RECORD["library"]}  # fmt: skip
    (one,) = coco.loadAnns(coco.getAnnIds(image["id"]))
    assert one["bbox"] == [3, 2, 4, 2] and one["area"] == 8
    source = saved / "metal" / "test" / "scratch" / "000002.png"
    assert (tmp_path / "out" / "images" / "train" / image["file_name"]).read_bytes() == source.read_bytes()


def test_a_pair_without_image_or_record_is_none_and_one_without_mask_is_damaged(saved, tmp_path):
    (saved / "metal" / "test" / "scratch" / "000000.png").unlink()
    (saved / "metal" / "pairs" / "scratch" / "000001.json").unlink()
    runs = read_runs([saved])
    assert runs[1].ids == ("000002",)
    (saved / "metal" / "ground_truth" / "scratch" / "000002_mask.png").unlink()
    with pytest.raises(InputError, match="pair 000002 of .*metal is damaged: .*remove its image to leave it out"):
        export_runs(runs, tmp_path / "out", "coco")


def test_an_export_grows_with_what_is_saved(saved, tmp_path, caplog):
    options = {"format": "coco", "validation": 0.5, "extend": True}
    export_runs(read_runs([saved]), tmp_path / "out", **options)
    assert "pairs of metal tell no normal image" in caplog.text
    before = {path.name: path.parent.name for path in (tmp_path / "out").rglob("*.png")}
    for number in range(3, 6):
        save(saved, number)
    made = export_runs(read_runs([saved]), tmp_path / "out", **options)
    assert sum(made.pairs.values()) == 8
    after = {path.name: path.parent.name for path in (tmp_path / "out").rglob("*.png")}
    assert before.items() < after.items()  # all there, each in its split
    export_runs(read_runs([saved]), tmp_path / "new", **options)
    for name in ("export.json", "annotations/instances_train.json", "annotations/instances_val.json"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "new" / name).read_bytes()


def parts_of(out):
    """Normal image -> the parts in which pairs of it are, and image -> part, of an export in folders."""
    images = json.loads((out / "provenance.json").read_text())["images"]
    found = {}
    for path, about in images.items():
        found.setdefault(about["normal"], set()).add(path.split("/")[0])
    return found, {path.split("/", 1)[1]: path.split("/")[0] for path in images}


def test_pairs_of_one_normal_image_go_into_one_part_and_stay_there(tmp_path, caplog):
    root, out = tmp_path / "adiff", tmp_path / "out"
    options = {"format": "folder", "validation": 0.3, "extend": True}
    before = {}
    for photos in (3, 9, 30):  # photos that come later have places between those there were
        for number in range(photos * 2):
            if not (root / "metal" / "pairs" / "scratch" / f"{number:06d}.json").exists():
                for defect in ("scratch", "dent"):
                    save(root, number, defect=defect, normal=f"{number // 2}.png")
        made = export_runs(read_runs([root]), out, **options)
        of_photos, after = parts_of(out)
        assert len(of_photos) == photos and all(len(parts) == 1 for parts in of_photos.values())
        assert before.items() <= after.items() and all(made.pairs.values()) and sum(made.pairs.values()) == 4 * photos
        before = after
    assert caplog.text == "" and len([path for path in out.rglob("*/images/*.png")]) == 120
    export_runs(read_runs([root]), out, **options | {"extend": False})  # it is the same one
    with pytest.raises(TakenError, match="differs in seed"):
        export_runs(read_runs([root]), out, **options, seed=1)


@pytest.mark.parametrize("seed", range(4))
def test_a_photo_goes_where_its_saved_pairs_go(make_run, tmp_path, caplog, seed):
    """A file is known by its pixels: Save Pairs tells no name."""
    root, out, good = tmp_path / "adiff", tmp_path / "out", tmp_path / "good"
    names = {}  # by the pixels: by the file
    for number in range(7):  # as many as the run was painted into, under their names
        pixels = np.full((8, 10, 3), 90 + number, np.uint8)
        write_png(good / f"{number}.png", pixels)
        names[name_of(pixels)] = f"{number}.png"
        save(root, number, normal=name_of(pixels))
    normals = {"metal": sorted(good.iterdir())}
    runs = read_runs([root, make_run(pairs=7)])
    export_runs(runs, out, "folder", normals=normals, validation=0.4, seed=seed)
    parts = {}
    for path, about in json.loads((out / "provenance.json").read_text())["images"].items():
        name = about.get("file") or names.get(about["normal"], about["normal"])
        parts.setdefault(name, []).append(path.split("/")[0])
    assert len(parts) == 7 and all(len(of_photo) == 3 and len(set(of_photo)) == 1 for of_photo in parts.values())
    assert sum(of_photo[0] == "val" for of_photo in parts.values()) == 3 and caplog.text == ""


def test_a_saved_photo_that_is_none_of_the_normals_is_warned_of(normals, tmp_path, caplog):
    for number in range(4):
        save(tmp_path / "adiff", number, normal=f"{number:016x}.png")
    options = {"format": "folder", "normals": {"metal": normals}}
    export_runs(read_runs([tmp_path / "adiff"]), tmp_path / "all", **options)
    assert caplog.text == ""
    export_runs(read_runs([tmp_path / "adiff"]), tmp_path / "parted", **options, validation=0.5)
    assert "some are none of those added" in caplog.text


def test_one_normal_image_cannot_be_split(tmp_path):
    for number in range(4):
        save(tmp_path / "adiff", number, normal="a.png")
    with pytest.raises(InputError, match="leaves none for val; .* or pairs of more normal images"):
        export_runs(read_runs([tmp_path / "adiff"]), tmp_path / "out", "coco", validation=0.5)


def test_a_pair_that_took_the_number_of_another_photo_s_does_not_join(tmp_path):
    """It may belong into the other part, where the image of that name would stay."""
    root, out = tmp_path / "adiff", tmp_path / "out"
    options = {"format": "folder", "validation": 0.5, "extend": True}
    for number in range(6):
        save(root, number, normal=f"{number}.png")
    export_runs(read_runs([root]), out, **options)
    moved = parts_of(out)[0]
    other = next(name for name, part in moved.items() if part != moved["5.png"])
    save(root, 5, normal=other)
    with pytest.raises(TakenError, match="differs in pairs"):
        export_runs(read_runs([root]), out, **options)
    for number in range(6):
        save(root, number, normal="1.png")  # none is left for a part as it was
    with pytest.raises(TakenError, match="differs in pairs"):
        export_runs(read_runs([root]), out, **options)


def test_an_export_does_not_grow_over_what_is_gone_or_new_in_kind(saved, tmp_path):
    export_runs(read_runs([saved]), tmp_path / "out", "coco")
    before = (tmp_path / "out" / "annotations" / "instances_train.json").read_bytes()
    (saved / "metal" / "test" / "scratch" / "000001.png").unlink()
    save(saved, 3)
    with pytest.raises(TakenError, match="differs in pairs"):
        export_runs(read_runs([saved]), tmp_path / "out", "coco", extend=True)
    save(saved, 1)
    save(saved, 0, defect="bend")
    with pytest.raises(TakenError, match="differs in pairs"):
        export_runs(read_runs([saved]), tmp_path / "out", "coco", extend=True)
    record = json.loads((tmp_path / "out" / "export.json").read_text())
    record["settings"]["pairs"] = {"metal-scratch": "three"}
    write_json(tmp_path / "out" / "export.json", record)
    with pytest.raises(TakenError, match="differs in pairs"):
        export_runs(read_runs([saved]), tmp_path / "out", "coco", extend=True)
    assert (tmp_path / "out" / "annotations" / "instances_train.json").read_bytes() == before
