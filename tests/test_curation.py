"""Edits of library files in place: states told apart, others' changes kept, the latest edits taken back."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from adiff import curation
from adiff.curation import ChangedMeanwhile, Journal, edit_library, state_of
from adiff.errors import InputError
from adiff.library import Defect, Library, load_library, save_library
from adiff.library_edit import note, remove, rename

D = 4
NAMES = ("m/x", "m/y", "m/z")


def make_defect(name, value=0.0):
    product, defect = name.split("/")
    masks = np.arange(2 * 16 * 16).reshape(2, 16, 16) % 3 == 0
    preview = torch.full((3, 8, 8), int(value), dtype=torch.uint8)
    return Defect(product, defect, torch.full((2, D), value), preview=preview, info={"steps": 3}, shot_masks=masks)


def make_library(names=NAMES, base="a" * 64):
    entries = [make_defect(name, float(number)) for number, name in enumerate(names)]
    return Library({entry.key: entry for entry in entries}, base, "demo", D)


@pytest.fixture
def path(tmp_path):
    save_library(tmp_path / "lib.safetensors", make_library())
    return tmp_path / "lib.safetensors"


@pytest.fixture
def journal():
    return Journal()


def names_in(path):
    return [entry.name for entry in load_library(path).defects.values()]


def contents(library):
    """All that a library holds, in its order."""
    tensors = [(d.anomaly.tolist(), d.preview.tolist(), d.shot_masks.tolist()) for d in library.defects.values()]
    return [(*held, d.name, d.info) for held, d in zip(tensors, library.defects.values(), strict=True)]


def by(function, *given):
    return lambda library: function(library, *given)


def test_an_edit_is_written_and_nothing_else_stays(path):
    edited = edit_library(path, by(rename, "m/x", "n/x"))
    assert names_in(path) == [entry.name for entry in edited.defects.values()] == ["n/x", "m/y", "m/z"]
    assert [one.name for one in path.parent.iterdir()] == ["lib.safetensors"]


def test_every_edit_is_another_state_even_if_the_clock_stands_still(path, monkeypatch):
    def save_at_once(where, library):
        save_library(where, library)
        os.utime(where, ns=(10**18, 10**18))

    monkeypatch.setattr(curation, "save_library", save_at_once)
    states = [state_of(path)]
    for old, new in (("m/x", "m/a"), ("m/a", "m/b"), ("m/b", "m/c")):
        edit_library(path, by(rename, old, new))
        states.append(state_of(path))
    assert len(set(states)) == len(states)


def test_what_changed_since_it_was_seen_is_left_alone(path):
    seen = state_of(path)
    edit_library(path, by(rename, "m/x", "n/x"), seen)
    whole = path.read_bytes()
    with pytest.raises(ChangedMeanwhile, match="lib.safetensors has been changed by somebody else"):
        edit_library(path, by(remove, ["m/y"]), seen)
    assert path.read_bytes() == whole


def test_what_changes_during_the_edit_is_left_alone(path):
    def meanwhile(library):
        save_library(path, make_library(("m/x", "m/new one")))
        return rename(library, "m/x", "m/w")

    with pytest.raises(ChangedMeanwhile, match="during the edit"):
        edit_library(path, meanwhile)
    assert names_in(path) == ["m/x", "m/new one"]


def test_an_edit_that_fails_leaves_file_and_folder_as_they_were(path, monkeypatch):
    whole = path.read_bytes()
    with pytest.raises(InputError, match="holds no"):
        edit_library(path, by(rename, "m/w", "m/v"))

    def full(_where, _library):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(curation, "save_library", full)
    with pytest.raises(OSError, match="No space"):
        edit_library(path, by(rename, "m/x", "m/v"))
    assert path.read_bytes() == whole and [one.name for one in path.parent.iterdir()] == ["lib.safetensors"]


def test_a_file_that_is_not_there_is_not_made(tmp_path):
    with pytest.raises(FileNotFoundError, match="no library at"):
        edit_library(tmp_path / "none.safetensors", by(remove, ["m/x"]))
    assert not list(tmp_path.iterdir())


ADDING = """
import sys
from pathlib import Path
from adiff.curation import edit_library
from adiff.library_edit import tag
path, name = Path(sys.argv[1]), sys.argv[2]
print("ready", flush=True)
sys.stdin.readline()
for number in range(10):
    edit_library(path, lambda library: tag(library, name, [str(number)]))
"""


def test_processes_that_edit_at_once_lose_nothing(path):
    process = subprocess.Popen(
        [sys.executable, "-c", ADDING, str(path), "m/x"], cwd=Path(__file__).parents[1], text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    with process:
        assert process.stdout.readline() == "ready\n"
        process.stdin.write("go\n")
        process.stdin.flush()
        for number in range(10):
            edit_library(path, lambda library, number=number: note(library, "m/z", {"notes": str(number)}))
    assert process.returncode == 0
    infos = [entry.info for entry in load_library(path).defects.values()]
    assert infos == [{"steps": 3, "tags": ["9"]}, {"steps": 3}, {"steps": 3, "notes": "9"}]


def noting(*names):
    def edit(library):
        for name in names:
            library = note(library, name, {"author": "Ada"})
        return library

    return edit


@pytest.mark.parametrize(
    ("names", "edit"),
    [
        (["m/y"], by(remove, ["m/y"])),
        (["m/z"], by(remove, ["m/z"])),
        (["m/y"], by(rename, "m/y", "n/y")),
        (["m/y"], noting("m/y")),
        (["m/z", "m/x"], by(remove, ["m/z", "m/x"])),
        (["m/y", "m/x"], by(remove, ["m/y", "m/x"])),
        (["m/z", "m/x"], noting("m/z", "m/x")),
    ],
    ids=["removed", "last removed", "renamed", "noted", "ends removed", "two removed", "two noted"],
)
def test_an_edit_is_taken_back_whole(path, journal, names, edit):
    number, edited = journal.edit(path, names, edit)
    assert contents(edited) == contents(load_library(path)) != contents(make_library())
    step, _ = journal.take_back(number, path)
    assert [change.before.name for change in step.changes] == names
    assert contents(load_library(path)) == contents(make_library())
    with pytest.raises(LookupError):
        journal.take_back(number, path)


def test_an_edit_is_of_its_file_alone(path, journal):
    number, _ = journal.edit(path, ["m/y"], by(remove, ["m/y"]))
    with pytest.raises(LookupError):
        journal.take_back(number, path.with_name("other.safetensors"))


def test_taking_back_keeps_what_others_did_beside_it(path, journal):
    removed, _ = journal.edit(path, ["m/x"], by(remove, ["m/x"]))
    renamed, _ = journal.edit(path, ["m/y"], by(rename, "m/y", "n/y"))
    edit_library(path, by(note, "m/z", {"author": "Ada"}))
    journal.take_back(removed, path)
    assert names_in(path) == ["m/x", "n/y", "m/z"]
    journal.take_back(renamed, path)
    library = load_library(path)
    assert [entry.name for entry in library.defects.values()] == list(NAMES)
    assert library.get("m/z").info == {"steps": 3, "author": "Ada"} and library.get("m/y").anomaly[0, 0] == 1


def test_what_was_edited_again_is_not_taken_back(path, journal):
    number, _ = journal.edit(path, ["m/y"], by(note, "m/y", {"author": "Ada"}))
    edit_library(path, by(note, "m/y", {"author": "Bo"}))
    with pytest.raises(ChangedMeanwhile, match="m/y has been changed or removed since"):
        journal.take_back(number, path)
    edit_library(path, by(note, "m/y", {"author": "Ada"}))
    journal.take_back(number, path)
    assert load_library(path).get("m/y").info == {"steps": 3}


def test_of_an_edit_of_several_all_is_taken_back_or_nothing(path, journal):
    noted, _ = journal.edit(path, ["m/x", "m/z"], noting("m/x", "m/z"))
    edit_library(path, by(note, "m/z", {"author": "Bo"}))
    whole = path.read_bytes()
    with pytest.raises(ChangedMeanwhile, match="m/z has been changed or removed since"):
        journal.take_back(noted, path)
    assert path.read_bytes() == whole
    removed, _ = journal.edit(path, ["m/x", "m/y"], by(remove, ["m/x", "m/y"]))
    edit_library(path, by(rename, "m/z", "m/y"))
    whole = path.read_bytes()
    with pytest.raises(InputError, match="holds a m/y again"):
        journal.take_back(removed, path)
    assert path.read_bytes() == whole
    edit_library(path, by(rename, "m/y", "m/z"))
    journal.take_back(removed, path)
    assert names_in(path) == list(NAMES)


@pytest.mark.parametrize("names", [[], ["m/x", "m/x"], ["m/x", "m/w"], ["m/x", "m/y", "m/z", "m/w"]], ids=str)
def test_an_edit_of_no_defect_of_too_many_or_of_one_twice_is_refused(path, names):
    whole, journal = path.read_bytes(), Journal(most=3)
    with pytest.raises(InputError, match="0 defects in one edit|named twice|holds no|4 defects in one edit"):
        journal.edit(path, names, by(remove, names))
    assert path.read_bytes() == whole


def test_a_name_that_is_taken_again_stays(path, journal):
    number, _ = journal.edit(path, ["m/y"], by(remove, ["m/y"]))
    edit_library(path, by(rename, "m/z", "m/y"))
    with pytest.raises(InputError, match="holds a m/y again"):
        journal.take_back(number, path)
    edit_library(path, by(rename, "m/y", "m/z"))
    journal.take_back(number, path)
    assert names_in(path) == list(NAMES)


def test_a_defect_does_not_return_into_another_model_s_library(path, journal):
    number, _ = journal.edit(path, ["m/y"], by(remove, ["m/y"]))
    save_library(path, replace(make_library(("m/x",)), base_fingerprint="b" * 64))
    with pytest.raises(ChangedMeanwhile, match="another library by now"):
        journal.take_back(number, path)


def test_only_the_latest_edits_are_kept(path):
    journal = Journal(most=2)
    numbers = [journal.edit(path, ["m/x"], by(note, "m/x", {"notes": str(n)}))[0] for n in range(3)]
    with pytest.raises(LookupError):
        journal.take_back(numbers[0], path)
    journal.take_back(numbers[2], path)
    assert load_library(path).get("m/x").info["notes"] == "1"


def test_an_edit_of_several_counts_as_many(path):
    journal = Journal(most=2)
    first, _ = journal.edit(path, ["m/x"], noting("m/x"))
    both, _ = journal.edit(path, ["m/y", "m/z"], noting("m/y", "m/z"))
    with pytest.raises(LookupError):
        journal.take_back(first, path)
    journal.take_back(both, path)
    assert [entry.info.get("author") for entry in load_library(path).defects.values()] == ["Ada", None, None]
