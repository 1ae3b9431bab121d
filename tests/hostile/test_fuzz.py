"""Damaged files of every kind that is read: a short run of `benchmarks.fuzz`; docs/reliability.md has the long one."""

import random

import pytest

from benchmarks.fuzz import Trial
from benchmarks.mutations import mutate
from benchmarks.readers import Reader, all_readers

READERS = {reader.name: reader for reader in all_readers()}
CASES = 30


@pytest.mark.parametrize("name", READERS)
def test_damaged_files_are_read_or_refused_in_the_documented_way(tmp_path, name, caplog):
    trial = Trial(READERS[name], tmp_path / "place", tmp_path / "found")
    faults = [trial.case(mutate(trial.whole, random.Random(f"{name} {n}")), str(n)) for n in range(CASES)]
    assert [fault for fault in faults if fault] == [] and trial.strangers() == []
    assert trial.outcomes["refused"] > 0


def test_what_is_not_documented_is_found(tmp_path):
    """A reader that leaks its own errors, and one that writes outside its folder."""

    def careless(path):
        data = path.read_bytes()
        (path.parent.parent / "stranger").write_bytes(data)
        return data.decode()

    reader = Reader("careless", "a.txt", lambda folder: (folder / "a.txt").write_text("x"), careless)
    trial = Trial(reader, tmp_path / "place", tmp_path / "found")
    assert trial.case(b"\xff", "one").startswith("UnicodeDecodeError") and trial.case(b"y", "two") is None
    assert (tmp_path / "found" / "one.txt").read_bytes() == b"\xff"
    (tmp_path / "place" / "other").touch()
    assert trial.strangers() == ["other"]


def test_damage_follows_from_its_number():
    whole = (b"\x89PNG\r\n\x1a\n" + bytes(40), b'{"a": [1, {"b": "c"}]}', b"text")
    for data in whole:
        assert mutate(data, random.Random("1")) == mutate(data, random.Random("1"))
        assert len({mutate(data, random.Random(str(n))) for n in range(20)}) > 15
