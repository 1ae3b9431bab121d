"""Units: which files teach and which test; nothing is in both."""

import json
from dataclasses import replace

import pytest

from adiff.benchmark.target import check_disjoint, open_units
from adiff.errors import InputError


def names(unit):
    return {part: {path.split("/", 1)[1] for path in files} for part, files in unit.split.record().items()}


def test_a_third_teaches_the_rest_tests_and_no_file_does_both(data):
    units, _ = open_units(data, [], [])
    assert [unit.name for unit in units] == ["metal/hole", "metal/scratch"]
    for unit in units:
        parts = names(unit)
        defect = unit.defects[0]
        assert parts["train"] == {f"test/{defect}/000.png", f"test/{defect}/001.png"}
        assert parts["test"] == {f"test/{defect}/{i:03d}.png" for i in range(2, 6)}
        assert parts["train_normals"] == {f"train/good/train{i}.png" for i in range(4)}
        assert parts["test_normals"] == {"test/good/test0.png", "test/good/test1.png"}
        every = [name for files in unit.split.record().values() for name in files]
        assert len(every) == len(set(every))


def test_groups_stay_together_and_are_taken_whole(data):
    groups = {f"test/scratch/{i:03d}.png": f"part{i % 3}" for i in range(6)} | {"train/good/train3.png": "part2"}
    (data / "metal" / "groups.json").write_text(json.dumps(groups))
    (unit,), _ = open_units(data, [], ["scratch"])
    parts = names(unit)
    assert parts["train"] == {"test/scratch/000.png", "test/scratch/003.png"}
    assert parts["test"] == {f"test/scratch/{i:03d}.png" for i in (1, 2, 4, 5)}
    assert parts["dropped"] == {"train/good/train3.png"}
    teach = {groups[name] for name in parts["train"]}
    assert not teach & {groups[name] for name in parts["test"]}


def test_a_rule_takes_groups_out_of_names_and_a_number_may_break_one(data):
    (unit,), _ = open_units(data, [], ["scratch"], rule=r"scratch/00([024])", teach=1)
    assert names(unit)["train"] == {"test/scratch/000.png"}
    (whole,), _ = open_units(data, [], ["scratch"], rule=r"(scratch)/00[0-3]", teach=2)
    assert names(whole)["train"] == {"test/scratch/000.png", "test/scratch/001.png"}
    assert names(whole)["dropped"] == {"test/scratch/002.png", "test/scratch/003.png"}


def test_a_whole_product_is_one_unit(data):
    (unit,), _ = open_units(data, [], [], whole=True)
    assert unit.name == "metal" and unit.defects == ("hole", "scratch") and len(unit.split.test) == 8


def test_shots_are_the_first_of_those_that_may_teach(data):
    (unit,), _ = open_units(data, [], ["scratch"], teach=4)
    assert [shot.image.stem for shot in unit.teaching("scratch", None)] == ["000", "001", "002", "003"]
    assert [shot.image.stem for shot in unit.teaching("scratch", 1)] == ["000"]
    assert len(unit.teaching("scratch", 0.5)) == 3  # half of all six
    with pytest.raises(InputError, match="5 shots of metal/scratch asked for; 4 of 6 may teach"):
        unit.teaching("scratch", 5)


def test_half_may_teach_under_a_name_of_its_own(data):
    (unit,), _ = open_units(data, [], ["scratch"], one_in=2, note="half")
    assert unit.name == "metal/scratch, half" and len(unit.teaching("scratch", 0.5)) == 3 == len(unit.split.test)


def test_a_file_in_two_parts_is_refused(data):
    split = open_units(data, [], ["scratch"])[0][0].split
    check_disjoint(split)
    with pytest.raises(InputError, match=r"000.png is among the shots that teach and among the shots that test"):
        check_disjoint(replace(split, test=split.train))
    with pytest.raises(InputError, match="among the normal images that teach and among the normal images that test"):
        check_disjoint(replace(split, test_normals=split.train_normals[:1]))


def test_what_cannot_be_split_is_left_out_with_the_reason(data):
    for kind in ("test", "ground_truth"):
        for path in sorted((data / "metal" / kind / "hole").iterdir())[1:]:
            path.unlink()
    units, left_out = open_units(data, [], [], note="half")
    assert [unit.name for unit in units] == ["metal/scratch, half"] and list(left_out) == ["metal/hole, half"]
    assert left_out["metal/hole, half"].startswith("no shot of metal/hole is left to test on: 1 teach")
    with pytest.raises(InputError, match="no shot of metal/hole is left"):
        open_units(data, [], [], whole=True)


def test_too_many_shots_leave_nothing_to_test_on(data):
    with pytest.raises(InputError, match="no shot of metal/scratch is left to test on"):
        open_units(data, [], ["scratch"], teach=6)
    with pytest.raises(InputError, match="7 shots of metal/scratch asked for, but there are 6"):
        open_units(data, [], ["scratch"], teach=7)
