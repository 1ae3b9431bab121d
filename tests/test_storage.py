import json
import os
from concurrent.futures import ThreadPoolExecutor

import pytest

from adiff.storage import write_json, write_text, write_whole


def names(folder):
    return [path.name for path in folder.iterdir()]


def test_a_file_and_its_folders_are_made_and_nothing_else(tmp_path):
    write_whole(tmp_path / "a" / "b.bin", lambda path: path.write_bytes(b"new"))
    assert (tmp_path / "a" / "b.bin").read_bytes() == b"new"
    assert names(tmp_path) == ["a"] and names(tmp_path / "a") == ["b.bin"]


def test_the_target_is_untouched_until_the_writer_is_done(tmp_path):
    target = tmp_path / "x"
    target.write_bytes(b"old")

    def write(path):
        path.write_bytes(b"new")
        assert path != target and path.parent == tmp_path and target.read_bytes() == b"old"

    write_whole(target, write)
    assert target.read_bytes() == b"new"


@pytest.mark.parametrize("cut", ["write", "replace"])
@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt()])
def test_a_failure_leaves_the_old_file_alone(tmp_path, monkeypatch, cut, error):
    target = tmp_path / "x"
    target.write_bytes(b"old")

    def fail(*_):
        raise error

    def write(path):
        path.write_bytes(b"half")
        if cut == "write":
            fail()

    if cut == "replace":
        monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(type(error)):
        write_whole(target, write)
    assert target.read_bytes() == b"old" and names(tmp_path) == ["x"]


def test_writers_of_one_file_do_not_meet(tmp_path):
    used = []

    def write(path):
        used.append(path)
        path.write_bytes(b"x")

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: write_whole(tmp_path / "x", write), range(20)))
    assert len(set(used)) == 20 and names(tmp_path) == ["x"]


def test_a_name_of_full_length_can_be_written(tmp_path):
    name = "n" * 250 + ".json"
    write_json(tmp_path / name, 1)
    assert names(tmp_path) == [name]


def test_json_reads_back_with_letters_and_names_that_are_no_text(tmp_path):
    content = {"größe": "瑕疵", "file": b"photo\xe9.png".decode("utf-8", "surrogateescape")}
    write_json(tmp_path / "x.json", content)
    written = (tmp_path / "x.json").read_bytes()
    assert json.loads(written.decode("utf-8")) == content
    assert "größe".encode() in written and written.endswith(b"}\n")


def test_text_keeps_its_line_ends(tmp_path):
    write_text(tmp_path / "x.txt", "a\nb\r\nc")
    assert (tmp_path / "x.txt").read_bytes() == b"a\nb\r\nc"
