"""Several runs as one set: names, splits, completion after a stop, and what is refused."""

import json
from shutil import copyfile

import numpy as np
import pytest

from adiff.datasets.images import write_png
from adiff.datasets.readers import read_dataset
from adiff.errors import InputError
from adiff.export import export_runs, read_runs
from adiff.export.dataset import FORMATS
from adiff.export.splits import Splits
from adiff.progress import Cancelled
from adiff.rejection import reject_pairs
from adiff.storage import is_unfinished, run_lock, write_json

OPTIONS = {"voc": {"validation": 0.4}, "coco": {"validation": 0.4, "polygons": True}}


def listing(folder):
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_runs_are_named_after_their_folders_and_numbered_where_they_meet(make_run):
    runs = read_runs([make_run("x/run"), make_run("y/run"), make_run("z/run-2"), make_run("z/no good:name")])
    assert [run.name for run in runs] == ["run", "run-2", "run-2-2", "no-good-name"]


def test_one_run_keeps_its_ids_and_several_get_their_names(make_run, tmp_path):
    runs = [make_run("a", pairs=2), make_run("b", pairs=2)]
    export_runs(read_runs(runs[:1]), tmp_path / "one", "yolo")
    export_runs(read_runs(runs), tmp_path / "two", "yolo")
    names = {out: sorted(p.name for p in (tmp_path / out / "images/train").iterdir()) for out in ("one", "two")}
    assert names["one"] == ["000000.png", "000001.png"]
    assert names["two"] == ["a-000000.png", "a-000001.png", "b-000000.png", "b-000001.png"]


def test_a_run_made_again_with_the_same_seed_is_warned_of(make_run, tmp_path, caplog):
    runs = [make_run("a", pairs=2), make_run("b", pairs=3), make_run("c", "metal", "dent"), make_run("d", pairs=2)]
    write_png(runs[3] / "image" / "000000.png", np.zeros((12, 16, 3), np.uint8))
    export_runs(read_runs(runs), tmp_path / "out", "folder")
    (told,) = [record.getMessage() for record in caplog.records]
    assert told.startswith(f"{runs[1]} holds the pairs of {runs[0]} again (000000 is one image in both)")


def test_categories_of_several_runs_are_counted_once(make_run, tmp_path):
    runs = read_runs([make_run("a", "metal", "dent"), make_run("b", "metal", "scratch", "dent"), make_run("c", "wood")])
    made = export_runs(runs, tmp_path / "out", "coco")
    assert made.categories == ("metal/dent", "metal/scratch", "wood/scratch")


def split_in(out, runs):
    """Normal photo -> the splits of the pairs painted into it, of an export in folders."""
    splits = {}
    for path in out.rglob("*/images/*.png"):
        run, number = path.stem.rsplit("-", 1)
        record = json.loads((runs[run] / "pairs" / f"{number}.json").read_text())
        splits.setdefault((record["product"], record["normal"]), set()).add(path.relative_to(out).parts[0])
    return splits


@pytest.mark.parametrize("seed", range(5))
def test_no_normal_image_is_behind_pairs_of_both_splits(make_run, tmp_path, normals, seed):
    runs = {"a": make_run("a", pairs=20), "b": make_run("b", "metal", "dent", pairs=9, photos=10)}
    made = export_runs(read_runs([*runs.values()]), tmp_path / "out", "folder", validation=0.3, seed=seed,
                       normals={"metal": normals})  # fmt: skip
    splits = split_in(tmp_path / "out", runs)
    assert {len(of_one) for of_one in splits.values()} == {1} and sum(made.pairs.values()) == 29
    about = json.loads((tmp_path / "out" / "provenance.json").read_text())["images"]
    for path, one in about.items():  # what is added as a normal image goes where its pairs go
        if not one["synthetic"]:
            assert {path.split("/")[0]} == splits.get(("metal", one["file"]), {path.split("/")[0]})


def test_pairs_that_come_move_none(make_run, tmp_path):
    options = {"validation": 0.3, "extend": True}
    for pairs in (5, 20):
        made = export_runs(read_runs([make_run(pairs=20)]), tmp_path / "whole", "folder", **options)
        for record in sorted((tmp_path / "run" / "pairs").iterdir())[pairs:]:
            record.unlink()
        export_runs(read_runs([tmp_path / "run"]), tmp_path / "grown", "folder", **options)
    assert listing(tmp_path / "grown") == listing(tmp_path / "whole")
    assert made.pairs["val"] == 6  # 2 of 7 photos, three pairs each


def test_pairs_that_fill_gaps_join_too(make_run, tmp_path):
    """Broken ones that were mended, or what one of many workers had not yet made."""
    options = {"validation": 0.3, "extend": True}
    export_runs(read_runs([make_run(pairs=20)]), tmp_path / "whole", "folder", **options)
    records = sorted((tmp_path / "run" / "pairs").iterdir())
    lost = {path: path.read_text() for path in (*records[:2], records[7], *records[11:])}
    for path in lost:
        path.unlink()
    export_runs(read_runs([tmp_path / "run"]), tmp_path / "grown", "folder", **options)
    for path in (*records[:1], *records[12:]):
        path.write_text(lost.pop(path))
    records[2].unlink()
    with pytest.raises(InputError, match="differs in pairs"):
        export_runs(read_runs([tmp_path / "run"]), tmp_path / "grown", "folder", **options)
    make_run(pairs=20)
    export_runs(read_runs([tmp_path / "run"]), tmp_path / "grown", "folder", **options)
    assert listing(tmp_path / "grown") == listing(tmp_path / "whole")


def test_what_extends_and_what_does_not_is_told(make_run, tmp_path):
    one, other = (read_runs([make_run(name=name)])[0] for name in ("one", "other"))
    export_runs([one], tmp_path / "out", "folder")
    for extend, told in (False, "adds what has come since"), (True, "takes the same runs, with pairs that have come"):
        with pytest.raises(InputError, match=f"differs in pairs.*--extend {told}"):
            export_runs([one, other], tmp_path / "out", "folder", extend=extend)


def test_the_share_of_photos_is_met_as_nearly_as_can_be():
    photos = [("metal", f"{number:03d}.png") for number in range(40)] + [("wood", "a"), ("wood", "b"), ("tile", "a")]
    splits = Splits(photos, 0.2, 0)
    aside = [photo for photo in photos if splits.of_photo(*photo) == "val"]
    assert [sum(product == one for product, _ in aside) for one in ("metal", "wood", "tile")] == [8, 1, 0]
    assert aside != [photo for photo in photos if Splits(photos, 0.2, 1).of_photo(*photo) == "val"]
    assert splits.of_photo("tile", "a\udcff.png") in ("train", "val")  # a name that is no UTF-8, as Python reads it
    assert {Splits(photos, 0.0, 0).of_photo(*photo) for photo in photos} == {"train"}
    assert [Splits(photos[-2:-1] + photos[-3:-2], 0.99, 0).of_photo(*one) for one in photos[-3:-1]].count("train") == 1


def test_whole_images_are_split_evenly_by_number(make_run, tmp_path):
    splits = [Splits((), 0.2, 0).of_number(number) for number in range(1000)]
    assert splits[:10].count("val") == 2 and splits[:100].count("val") == 20 and abs(splits.count("val") - 200) < 3
    assert splits != [Splits((), 0.2, 1).of_number(number) for number in range(1000)]
    assert all(splits[first::5].count("val") in range(38, 43) for first in range(5))  # masks used in turn fall to both
    made = export_runs(read_runs([make_run(pairs=10, photos=0)]), tmp_path / "out", "folder", validation=0.2)
    assert made.pairs == {"train": 8, "val": 2}


def test_a_single_normal_image_cannot_be_split(make_run, tmp_path):
    runs = read_runs([make_run(photos=1)])
    with pytest.raises(InputError, match="0.4 of 5 images leaves none for val; .*goes where its normal image goes"):
        export_runs(runs, tmp_path / "out", "coco", validation=0.4)
    assert not (tmp_path / "out").exists()


def test_an_export_that_was_split_otherwise_is_left_alone(make_run, tmp_path):
    runs = read_runs([make_run()])
    export_runs(runs, tmp_path / "out", "coco", validation=0.4)
    record = json.loads((tmp_path / "out" / "export.json").read_text())
    del record["settings"]["split"]
    write_json(tmp_path / "out" / "export.json", record)
    with pytest.raises(InputError, match="differs in split"):
        export_runs(runs, tmp_path / "out", "coco", validation=0.4, extend=True)


def test_a_pair_without_its_record_is_no_pair(make_run, tmp_path):
    folder = make_run()
    (folder / "pairs" / "000002.json").unlink()
    (folder / "pairs" / "notes.json").write_text("{")
    made = export_runs(read_runs([folder]), tmp_path / "out", "yolo")
    assert made.pairs == {"train": 4, "val": 0}
    assert not (tmp_path / "out/images/train/000002.png").exists()


@pytest.mark.parametrize("format", FORMATS)
def test_the_same_export_again_takes_what_was_made_anew(make_run, tmp_path, format):
    folder, options = make_run(), OPTIONS.get(format, {})
    export_runs(read_runs([folder]), tmp_path / "out", format, **options)
    for part, ending in (("image", ""), ("mask", "_mask")):
        copyfile(folder / part / f"000001{ending}.png", folder / part / f"000003{ending}.png")
    export_runs(read_runs([folder]), tmp_path / "out", format, **options)
    export_runs(read_runs([folder]), tmp_path / "new", format, **options)
    assert listing(tmp_path / "out") == listing(tmp_path / "new")


@pytest.mark.parametrize("format", FORMATS)
def test_a_stopped_export_lists_nothing_and_is_completed(make_run, tmp_path, stopper, format):
    runs, options = read_runs([make_run()]), OPTIONS.get(format, {})
    with pytest.raises(Cancelled):
        export_runs(runs, tmp_path / "out", format, progress=stopper(after=2), **options)
    lists = ("annotations/*.json", "data.yaml", "ImageSets/*", "metadata.jsonl", "provenance.json")
    assert not [path for pattern in lists for path in (tmp_path / "out").glob(pattern)]
    with pytest.raises(InputError, match="out is not complete: .* which removes unfinished.txt at its end"):
        read_dataset(tmp_path / "out")
    leftover = next(path for path in (tmp_path / "out").rglob("*.png")).with_name(f".{'0' * 16}.{'1' * 16}.tmp")
    leftover.write_bytes(b"half")
    export_runs(runs, tmp_path / "out", format, **options)
    export_runs(runs, tmp_path / "new", format, **options)
    assert listing(tmp_path / "out") == listing(tmp_path / "new") and not is_unfinished(tmp_path / "out")


def test_an_export_that_is_stopped_while_it_grows_is_not_complete(make_run, tmp_path, stopper):
    folder = make_run()
    (folder / "pairs" / "000003.json").rename(tmp_path / "later.json")
    export_runs(read_runs([folder]), tmp_path / "out", "mvtec")
    (tmp_path / "later.json").rename(folder / "pairs" / "000003.json")
    with pytest.raises(Cancelled):
        export_runs(read_runs([folder]), tmp_path / "out", "mvtec", extend=True, progress=stopper(after=2))
    assert is_unfinished(tmp_path / "out")
    export_runs(read_runs([folder]), tmp_path / "out", "mvtec", extend=True)
    assert not is_unfinished(tmp_path / "out")


def test_the_runs_stay_as_they_are(make_run, tmp_path):
    folder = make_run()
    before = listing(folder)
    export_runs(read_runs([folder]), tmp_path / "out", "coco")
    assert listing(folder) == before


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"polygons": True}, "differs in polygons"),
        ({"validation": 0.4, "seed": 1}, "differs in validation, seed"),
        ({"format": "yolo"}, "differs in format"),
    ],
)
def test_another_export_is_left_alone(make_run, tmp_path, change, said):
    runs, asked = read_runs([make_run()]), {"format": "coco", **change}
    export_runs(runs, tmp_path / "out", "coco")
    before = listing(tmp_path / "out")
    with pytest.raises(InputError, match=said):
        export_runs(runs, tmp_path / "out", **asked)
    assert listing(tmp_path / "out") == before


def test_the_seed_counts_where_images_are_drawn_for_validation(make_run, tmp_path):
    runs, drawn, whole = read_runs([make_run()]), tmp_path / "drawn", tmp_path / "whole"
    export_runs(runs, drawn, "coco", validation=0.4)
    with pytest.raises(InputError, match="differs in seed"):
        export_runs(runs, drawn, "coco", validation=0.4, seed=1)
    export_runs(runs, whole, "coco")
    about = json.loads((whole / "export.json").read_text())
    write_json(whole / "export.json", {**about, "settings": {**about["settings"], "seed": 3}})  # of an older version
    export_runs(runs, whole, "coco")


def test_a_run_that_has_grown_is_another_export(make_run, tmp_path):
    export_runs(read_runs([make_run(pairs=3)]), tmp_path / "out", "coco")
    with pytest.raises(InputError, match="differs in pairs"):
        export_runs(read_runs([make_run(pairs=4)]), tmp_path / "out", "coco")


def test_what_an_older_version_laid_out_otherwise_does_not_grow(make_run, tmp_path):
    """Its images would lie in two places, half of them twice."""
    runs = read_runs([make_run()])
    for format in ("coco", "voc"):
        export_runs(runs, tmp_path / format, format)
        record = json.loads((tmp_path / format / "export.json").read_text())
        del record["settings"]["layout"]
        write_json(tmp_path / format / "export.json", record)
    export_runs(runs, tmp_path / "voc", "voc", extend=True)
    with pytest.raises(InputError, match="differs in layout.*remove it or give a new folder"):
        export_runs(runs, tmp_path / "coco", "coco", extend=True)


def test_folders_that_are_not_free_are_refused(make_run, tmp_path):
    runs, out = read_runs([make_run()]), tmp_path / "out"
    for inside in (tmp_path / "run", tmp_path / "run" / "image" / "set"):
        with pytest.raises(InputError, match="which is exported; give a folder outside it"):
            export_runs(runs, inside, "coco")
    out.mkdir()
    (out / "mine.txt").write_text("x")
    with pytest.raises(InputError, match="is not empty and holds no export.json"):
        export_runs(runs, out, "coco")
    (out / "export.json").write_text("[]")
    with pytest.raises(InputError, match="export.json is damaged"):
        export_runs(runs, out, "coco")
    with run_lock(tmp_path / "busy"), pytest.raises(InputError, match="is writing to"):
        export_runs(runs, tmp_path / "busy", "coco")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"format": "csv"}, "no format 'csv'; choose from mvtec, coco, yolo, voc, folder"),
        ({"format": "voc", "polygons": True}, "voc holds always pixels"),
        ({"format": "coco", "validation": 1.0}, "share of 1.0; expected 0 or more, below 1"),
        ({"format": "mvtec", "validation": 0.2}, "give --normals too"),
    ],
)
def test_options_that_do_not_fit_write_nothing(make_run, tmp_path, options, said):
    with pytest.raises(InputError, match=said):
        export_runs(read_runs([make_run()]), tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_normal_images_that_do_not_open_are_named_before_anything_is_written(make_run, normals, tmp_path):
    for path in normals[1:3]:
        path.write_bytes(path.read_bytes()[:40])
    first, second = normals[1].name, normals[2].name
    with pytest.raises(InputError, match=f"do not open: 2, as .*{first} .*; .*{second} .*; put them"):
        export_runs(read_runs([make_run()]), tmp_path / "out", "folder", normals={"metal": normals})
    assert not (tmp_path / "out").exists()
    export_runs(read_runs([make_run()]), tmp_path / "out", "folder", normals={"metal": [normals[0], normals[3]]})


def test_what_is_no_run_is_refused(make_run, tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no run at"):
        read_runs([tmp_path / "none"])
    with pytest.raises(InputError, match="holds no run.json"):
        read_runs([tmp_path])
    with pytest.raises(InputError, match="holds no finished pair yet"):
        read_runs([make_run("empty", pairs=0)])
    rejects = make_run("rejects", pairs=3)
    reject_pairs(rejects, range(3))
    with pytest.raises(InputError, match=f"no pair: all 3 were rejected and are in {rejects / 'rejects'}; .* restore"):
        read_runs([rejects])
    folder = make_run()
    with pytest.raises(InputError, match="is given twice"):
        read_runs([folder, folder / ".." / "run"])
    plan = json.loads((folder / "run.json").read_text())
    for change, said in (
        ({"format": 2}, "format 2, this version reads up to 1"),
        ({"product": 3}, "names no product and defect"),
        ({"defects": []}, "names no product and defect"),
        ({"product": "../up"}, "separators, control characters"),
        ({"normals": 5}, "its normals are no list"),
    ):
        write_json(folder / "run.json", plan | change)
        with pytest.raises(InputError, match=said):
            read_runs([folder])
    (folder / "run.json").write_text("{")
    with pytest.raises(InputError, match="run.json is damaged"):
        read_runs([folder])


def swap_record(folder):
    about = json.loads((folder / "pairs" / "000001.json").read_text())
    write_json(folder / "pairs" / "000001.json", about | {"product": "../../up"})


def test_a_pair_that_is_taken_out_meanwhile_is_named(make_run, tmp_path):
    runs = read_runs([make_run()])
    reject_pairs(runs[0].folder, [1])
    for validation in (0.0, 0.4):
        with pytest.raises(InputError, match="^pair 000001 of .*run was taken out meanwhile; export again, to"):
            export_runs(runs, tmp_path / f"set{validation}", "coco", validation=validation)


DAMAGE = {
    "image cut short": lambda f: (f / "image/000001.png").write_bytes((f / "image/000001.png").read_bytes()[:60]),
    "no image": lambda f: (f / "image/000001.png").unlink(),
    "no mask": lambda f: (f / "mask/000001_mask.png").unlink(),
    "mask of another size": lambda f: write_png(f / "mask/000001_mask.png", np.eye(5, dtype=bool)),
    "record cut short": lambda f: (f / "pairs/000001.json").write_text('{"id": '),
    "record of another pair": swap_record,
    "no labels": lambda f: (f / "mask/000001_labels.png").unlink(),
    "labels of one defect": lambda f: copyfile(f / "mask/000001_mask.png", f / "mask/000001_labels.png"),
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_pair_is_named_and_nothing_is_listed(make_run, tmp_path, damage):
    folder = make_run("run", "metal", "scratch", "dent")
    damage(folder)
    with pytest.raises(InputError, match="pair 000001 of .*run is damaged: "):
        export_runs(read_runs([folder]), tmp_path / "out", "coco")
    assert not (tmp_path / "out" / "annotations").exists()
