"""A run's folder as its readers see it."""

import json
import tracemalloc

import pytest

from adiff.errors import InputError
from adiff.run_record import (
    FORMAT,
    Records,
    broken_path,
    given_up,
    is_settled,
    read_plan,
    read_records,
    read_rejects,
    record_path,
    record_paths,
    reject_path,
    settled_ids,
    tries_of,
    undisturbed,
)
from adiff.storage import write_json


def test_records_come_by_id_and_strangers_stay_out(tmp_path):
    for number in (1_000_000, 2, 10):
        record_path(tmp_path, number).parent.mkdir(exist_ok=True)
        record_path(tmp_path, number).write_text(json.dumps({"id": f"{number:06d}"}))
    for stranger in ("notes", "12", "0000003", "9" * 19, "\u0660" * 6, "000004-1"):
        (tmp_path / "pairs" / f"{stranger}.json").write_text("[]")
    assert [record["id"] for record in read_records(tmp_path)] == ["000002", "000010", "1000000"]
    damages = {"{": "no JSON: .*", "{}": "it says to be of pair 'None'", '{"id": "000002"}': ".* '000002'"}
    for damaged, why in damages.items():
        record_path(tmp_path, 10).write_text(damaged)
        assert len(record_paths(tmp_path)) == 3
        said = f"000010.json is damaged \\({why}\\); remove it, or its folder, to make it again"
        with pytest.raises(InputError, match=said):
            read_records(tmp_path)
        with pytest.raises(InputError, match=said):
            Records(tmp_path)[1]


def test_records_are_read_when_they_are_looked_at(tmp_path):
    for number in range(5):
        name = f"{number:06d}"
        write_json(record_path(tmp_path, number), {"id": name, "product": "metal", "defect": "ab"[number % 2]})
    records = Records(tmp_path)
    assert len(records) == 5 and records[-1]["id"] == "000004" and records == read_records(tmp_path) != records[:4]
    assert [int(record["id"]) for record in records[1::2]] == [1, 3] and records != [] == Records(tmp_path / "none")
    kinds = records.by_kind()
    assert {kind: [int(one["id"]) for one in of_kind] for kind, of_kind in kinds.items()} == {
        ("metal", "a"): [0, 2, 4], ("metal", "b"): [1, 3],
    }  # fmt: skip
    record_path(tmp_path, 3).write_text("{")
    with pytest.raises(InputError, match="000003.json is damaged .*; remove it, or its folder, to make it again"):
        list(records)
    assert records[2]["id"] == "000002"
    record_path(tmp_path, 3).unlink()  # as one that is rejected
    assert [one["id"] for one in records] == ["000000", "000001", "000002", "000004"] and len(records) == 5
    assert [int(one["id"]) for one in records.by_kind()["metal", "b"]] == [1]
    with pytest.raises(IndexError):
        records[5]


def test_the_records_of_many_pairs_take_no_memory(tmp_path):
    """20 000 numbers of 8 bytes; the records themselves would take 30 MB and more."""
    tracemalloc.start()
    records = Records(tmp_path, range(20_000))
    assert len(records) == 20_000 and tracemalloc.get_traced_memory()[1] < 500_000
    tracemalloc.stop()


def test_a_folder_without_run_json_and_a_newer_one_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no run at"):
        read_plan(tmp_path / "none")
    with pytest.raises(InputError, match="holds no run.json; give the folder"):
        read_plan(tmp_path)
    (tmp_path / "all" / "metal-dent").mkdir(parents=True)
    (tmp_path / "all" / "metal-dent" / "run.json").write_text("{}")
    with pytest.raises(InputError, match=r"runs have folders in it \(metal-dent\); give one of them, or .*all/\*"):
        read_plan(tmp_path / "all")
    for content, said in (("[]", "no JSON object"), ("[" * 99999, "no JSON: "), ('{"format": 2}', f"up to {FORMAT}")):
        (tmp_path / "run.json").write_text(content)
        with pytest.raises(InputError, match=said):
            read_plan(tmp_path)


def test_what_is_settled_is_told_by_names_alone(tmp_path):
    """Pair 1 exists, pair 2 lost its last of two tries, pair 3 one of them, pair 4 is broken; nothing is opened."""
    for path in (record_path(tmp_path, 1), reject_path(tmp_path, 1, 0), reject_path(tmp_path, 2, 0),
                 reject_path(tmp_path, 2, 1), reject_path(tmp_path, 3, 0), broken_path(tmp_path, 4)):  # fmt: skip
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("not JSON")
    for stranger in ("pairs/notes.json", "rejects/pairs/000009.json", "broken/x.json"):
        (tmp_path / stranger).write_text("[]")
    assert settled_ids(tmp_path, 2) == {1, 2, 4} and given_up(tmp_path, 2) == {2}
    assert [is_settled(tmp_path, number, 2) for number in range(6)] == [False, True, True, False, True, False]
    assert settled_ids(tmp_path / "none", 2) == set()
    with pytest.raises(InputError, match="000001-0.json is damaged"):
        read_rejects(tmp_path)


def test_the_tries_of_a_run():
    assert tries_of({"filter": {"tries": 3}}) == 3
    for plan in ({}, {"filter": None}, {"filter": []}, {"filter": {"tries": True}}, {"filter": {"tries": -1}}):
        assert tries_of(plan) == 1


def test_a_run_is_looked_at_again_while_pairs_are_taken_out(tmp_path):
    for number in range(9):
        write_json(record_path(tmp_path, number), {"id": f"{number:06d}"})
    seen, few, many, gains = [], iter(range(2)), iter(range(2, 9)), iter(range(9, 20))

    def look(losses):
        record = record_path(tmp_path, next(gains))
        write_json(record, {"id": record.stem})  # of a worker: no reason to look again
        seen.append(len(read_records(tmp_path)))
        for number in losses:
            record_path(tmp_path, number).unlink()
            raise FileNotFoundError(number)
        return "seen"

    assert undisturbed([tmp_path], lambda: look(few)) == "seen" and seen == [10, 10, 10]
    with pytest.raises(InputError, match="pairs of .* are being taken out or put back; give the same command when"):
        undisturbed([tmp_path], lambda: look(many))
    seen.clear()
    with pytest.raises(ZeroDivisionError):
        undisturbed([tmp_path], lambda: look([]) and 1 / 0)
    with pytest.raises(InputError, match="damaged"):
        undisturbed([tmp_path], lambda: look([]) and read_plan(damaged(tmp_path)))
    assert len(seen) == 2


def damaged(folder):
    (folder / "run.json").write_text("{")
    return folder
