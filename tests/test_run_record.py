"""A run's folder as its readers see it."""

import json

import pytest

from adiff.errors import InputError
from adiff.run_record import FORMAT, read_plan, read_records, record_path, record_paths


def test_records_come_by_id_and_strangers_stay_out(tmp_path):
    for number in (1_000_000, 2, 10):
        record_path(tmp_path, number).parent.mkdir(exist_ok=True)
        record_path(tmp_path, number).write_text(json.dumps({"id": number}))
    (tmp_path / "pairs" / "notes.json").write_text("[]")
    assert [record["id"] for record in read_records(tmp_path)] == [2, 10, 1_000_000]
    record_path(tmp_path, 10).write_text("{")
    assert len(record_paths(tmp_path)) == 3
    with pytest.raises(InputError, match="000010.json is damaged .*; remove it, or its folder, to make it again"):
        read_records(tmp_path)


def test_a_folder_without_run_json_and_a_newer_one_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no run at"):
        read_plan(tmp_path / "none")
    with pytest.raises(InputError, match="holds no run.json; give the folder"):
        read_plan(tmp_path)
    for content, said in (("[]", "no JSON object"), ("[" * 99999, "no JSON: "), ('{"format": 2}', f"up to {FORMAT}")):
        (tmp_path / "run.json").write_text(content)
        with pytest.raises(InputError, match=said):
            read_plan(tmp_path)
