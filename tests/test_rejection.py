"""Pairs taken out of a run by hand, and put back: every file goes along, and a run that goes on leaves them there."""

import contextlib
import pathlib
import shutil

import numpy as np
import pytest

from adiff.datasets.images import write_png
from adiff.errors import InputError
from adiff.rejection import OVERRULED, put_back, reject_pairs
from adiff.run_record import BY_HAND, given_up, made_ids, read_rejects
from adiff.storage import read_json_object, write_json

KINDS = ("image/{}.png", "mask/{}_mask.png", "mask/{}_labels.png", "mask/{}_asked.png", "part/{}.png")


def write_pair(folder, name, **about):
    for kind in KINDS:
        write_png(folder / kind.format(name), np.full((4, 4), len(name), np.uint8))
    write_json(folder / "pairs" / f"{name}.json", {"id": name, "fill": 0.5, **about})


@pytest.fixture
def folder(tmp_path):
    """A run of three pairs, of two tries each, with a reject of the last."""
    out = tmp_path / "run"
    write_json(out / "run.json", {"format": 1, "count": 4, "filter": {"limits": {}, "tries": 2}})
    for number in range(3):
        write_pair(out, f"{number:06d}")
    write_pair(out / "rejects", "000002-0", reasons=["fill 0.1 below 0.5"])
    write_pair(out / "rejects", "000003-0", reasons=["fill 0.2 below 0.5"])
    write_pair(out / "rejects", "000003-1", reasons=["fill 0.3 below 0.5"])
    return out


def listing(folder):
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_a_pair_goes_with_all_its_files_and_comes_back_as_it_was(folder):
    before = listing(folder)
    reject_pairs(folder, [1])
    assert made_ids(folder) == {0, 2} and given_up(folder, 2) == {1, 3}
    moved = {name.replace("000001", "rejects/", 1) for name in before}
    assert len(listing(folder)) == len(moved) and not any("000001." in name for name in listing(folder))
    for kind in KINDS:
        assert (folder / "rejects" / kind.format("000001-1")).read_bytes() == before[kind.format("000001")]
    record = read_json_object(folder / "rejects" / "pairs" / "000001-1.json")
    assert record == {"id": "000001-1", "fill": 0.5, "reasons": [BY_HAND]}
    put_back(folder, [1])
    assert listing(folder) == before


def test_no_folder_of_pictures_is_listed(folder, monkeypatch):
    """Else thousands of pairs took as long as their number squared."""
    listed, glob = [], pathlib.Path.glob
    monkeypatch.setattr(pathlib.Path, "glob", lambda path, *pattern: listed.append(path.name) or glob(path, *pattern))
    reject_pairs(folder, [0, 1])
    put_back(folder, [0, 1])
    assert not {"image", "mask", "part"} & set(listed)


def test_a_reject_that_broke_a_limit_is_put_back_with_its_reasons(folder):
    put_back(folder, [3])
    assert made_ids(folder) == {0, 1, 2, 3}
    record = read_json_object(folder / "pairs" / "000003.json")
    assert record == {"id": "000003", "fill": 0.5, OVERRULED: ["fill 0.3 below 0.5"]}
    reject_pairs(folder, [3])
    assert [one["id"] for one in read_rejects(folder)] == ["000002-0", "000003-0", "000003-1"]
    assert OVERRULED not in read_json_object(folder / "rejects" / "pairs" / "000003-1.json")


def test_nothing_is_done_where_one_does_not_fit(folder):
    before = listing(folder)
    with pytest.raises(InputError, match="pair 000003 of .* is a reject already; leave it out"):
        reject_pairs(folder, [0, 3])
    with pytest.raises(InputError, match="holds no pair 000009"):
        reject_pairs(folder, [0, 9])
    with pytest.raises(InputError, match="has no reject of pair 000001"):
        put_back(folder, [3, 1])
    with pytest.raises(InputError, match="pair 000002 of .* exists, though a try of it was rejected"):
        put_back(folder, [2])
    with pytest.raises(FileNotFoundError):
        reject_pairs(folder / "gone", [0])
    assert listing(folder) == before


@pytest.mark.parametrize("stop", range(1, 13))
def test_stopped_anywhere_the_pair_is_there_or_rejected_and_again_ends_the_same(folder, tmp_path, monkeypatch, stop):
    """Each write and each removal may be the last."""
    reject_pairs(shutil.copytree(folder, tmp_path / "whole"), [1])
    done, unlink, copy = 0, pathlib.Path.unlink, shutil.copyfile

    def counted(call):
        def step(*arguments, **options):
            nonlocal done
            done += 1
            if done == stop:
                raise KeyboardInterrupt
            return call(*arguments, **options)

        return step

    with monkeypatch.context() as patched:
        patched.setattr(shutil, "copyfile", counted(copy))
        patched.setattr(pathlib.Path, "unlink", counted(unlink))
        with contextlib.suppress(KeyboardInterrupt):
            reject_pairs(folder, [1])
    made = 1 in made_ids(folder)
    assert made or 1 in given_up(folder, 2)
    for kind in KINDS:
        where, name = (folder, "000001") if made else (folder / "rejects", "000001-1")
        assert (where / kind.format(name)).exists()
    if made:
        reject_pairs(folder, [1])
        for path in folder.rglob("*.tmp"):
            path.unlink()
        assert listing(folder) == listing(tmp_path / "whole")
