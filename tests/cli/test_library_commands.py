"""`adiff library ...`: each command on real files, each refusal in one line with nothing written or changed."""

import json
import os
import re
import shutil

import numpy as np
import pytest
import torch
import typer
from PIL import Image
from safetensors.torch import load_file, save_file

from adiff.cli import app
from adiff.cli.library import Kind, Prefer
from adiff.foreign import KINDS
from adiff.library import Defect, Library, load_library, save_library
from adiff.library_edit import PREFER
from adiff.storage import run_lock

DIM = 16  # of the tiny base model
ESCAPE = "\x1b[2Jgone"


def write(path, *names, value=0.0, **changes):
    """A library of named defects with pictures, whose appearances are filled with `value`."""
    defects = [
        Defect(*name.split("/"), torch.full((8, DIM), value), torch.full((4, DIM), value + 1),
               torch.full((3, 4, 5), 7, dtype=torch.uint8), {"shots": ["000.png"], "anomaly": {"loss": 0.25}},
               np.ones((2, 10, 10), bool))
        for name in names
    ]  # fmt: skip
    content = {"base_fingerprint": "f" * 64, "base_name": "demo", "context_dim": DIM, "encoder_fingerprint": "e" * 64}
    save_library(path, Library({d.key: d for d in defects}, **{**content, **changes}))
    return path


@pytest.fixture
def lib(tmp_path):
    return write(tmp_path / "lib.safetensors", "metal/rust", "metal/dent")


def names_in(path):
    return sorted(defect.name for defect in load_library(path).defects.values())


def ok(result):
    assert result.exit_code == 0, result.stderr
    return result.stdout


COMMANDS = ("list", "show", "merge", "split", "rename", "remove", "note", "preview", "import", "export")


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example_that_parses(run, command):
    made = typer.main.get_command(app).commands["library"].commands[command]
    stdout = ok(run("library", command, "--help"))
    assert f"Example:  adiff library {command}" in stdout
    _, _, _, *arguments = made.epilog.split("Example:")[1].split()
    made.make_context(command, arguments)  # raises for what is missing or unknown


def test_library_alone_shows_its_help(run):
    stdout = ok(run("library"))
    assert all(f" {command} " in stdout for command in COMMANDS)


def test_the_choices_are_the_library_s():
    assert tuple(kind.value for kind in Kind) == KINDS and tuple(prefer.value for prefer in Prefer) == PREFER


def test_list_prints_one_name_a_line(run, refused, lib, tmp_path):
    other = write(tmp_path / "other.safetensors", "wood/knot")
    assert sorted(ok(run("library", "list", lib, other)).splitlines()) == ["metal/dent", "metal/rust", "wood/knot"]
    assert "no library at" in refused("library", "list", tmp_path / "none.safetensors")
    lib.write_bytes(lib.read_bytes()[:-9])
    assert "not a whole safetensors file" in refused("library", "list", other, lib)


def test_show_does_not_fill_the_screen_with_a_curve(run, lib):
    held = load_library(lib)
    entry = held.get("metal/rust")
    entry.info["mask"] = {"curve": [[step, 0.5, None] for step in range(300)]}
    save_library(lib, held)
    assert re.search(r"curve +300 points \(--json tells them\)$", ok(run("library", "show", lib)), re.M)
    assert json.loads(ok(run("library", "show", lib, "--json")))["defects"]["metal/rust"]["info"] == entry.info


def test_show_tells_what_is_there(run, refused, lib):
    everything = ok(run("library", "show", lib))
    assert re.search(r"^base +demo$", everything, re.M) and re.search(r"^context_width +16$", everything, re.M)
    one = ok(run("library", "show", lib, "metal/rust"))
    assert "metal/dent" in everything and "metal/dent" not in one
    assert re.search(r"anomaly +8 x 16$", one, re.M) and re.search(r"loss +0.25$", one, re.M)
    assert re.search(r"shots +000.png$", one, re.M)
    assert "holds no 'metal/hole'" in refused("library", "show", lib, "metal/hole")


def test_show_as_json(run, lib):
    told = json.loads(ok(run("library", "show", lib, "metal/rust", "--json")))
    assert (told["base"], told["context_width"], list(told["defects"])) == ("demo", DIM, ["metal/rust"])
    about = told["defects"]["metal/rust"]
    assert about["shapes"] == {"anomaly": [8, 16], "mask": [4, 16], "preview": [3, 4, 5], "shot_masks": [2, 10, 10]}
    assert about["info"]["anomaly"]["loss"] == 0.25


def test_show_sends_no_stranger_s_escapes_to_the_terminal(run, lib):
    ok(run("library", "note", lib, "metal/rust", "--text", ESCAPE))
    stdout = ok(run("library", "show", lib))
    assert "\x1b" not in stdout and r"\x1b[2Jgone" in stdout


def test_merge_writes_all(run, lib, tmp_path):
    other, out = (
        write(tmp_path / "other.safetensors", "metal/rust", "wood/knot", value=2.0),
        tmp_path / "all.safetensors",
    )
    assert "3 defects" in ok(run("library", "merge", lib, other, "--out", out, "--prefer", "last"))
    assert names_in(out) == ["metal/dent", "metal/rust", "wood/knot"]
    assert load_library(out).get("metal/rust").anomaly[0, 0] == 2


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, "both hold metal/rust"),
        ({"base_fingerprint": "b" * 64, "base_name": "tuned"}, "'tuned' (bbbbbbbb)"),
        ({"encoder_fingerprint": "d" * 64}, "spatial encoder eeeeeeee"),
    ],
)
def test_a_merge_that_does_not_fit_is_refused(refused, lib, tmp_path, changes, said):
    other = write(tmp_path / "other.safetensors", "metal/rust", **changes)
    line = refused("library", "merge", lib, other, "--out", tmp_path / "all.safetensors")
    assert said in line and "lib.safetensors" in line and "other.safetensors" in line
    assert not (tmp_path / "all.safetensors").exists()


def test_a_merge_of_another_width_names_both(refused, lib, tmp_path):
    wide = Defect("metal", "hole", torch.zeros(2, 768))
    other, out = tmp_path / "other.safetensors", tmp_path / "all.safetensors"
    save_library(other, Library({wide.key: wide}, "b" * 64, "sd15", 768))
    assert re.search(
        r"width 16 \(base 'demo'\).*768 \(base 'sd15'\)", refused("library", "merge", lib, other, "--out", out)
    )
    assert not out.exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ("merge", "LIB", "LIB2", "--out"),
        ("split", "LIB", "metal/rust", "--out"),
        ("export", "LIB", "metal/rust", "--out"),
    ],
)
def test_nothing_is_overwritten(refused, lib, tmp_path, arguments):
    other, taken = write(tmp_path / "other.safetensors", "wood/knot"), tmp_path / "taken.safetensors"
    taken.write_bytes(b"mine")
    places = {"LIB": lib, "LIB2": other}
    command = [places.get(word, word) for word in arguments]
    assert "exists" in refused("library", *command, taken) and taken.read_bytes() == b"mine"
    assert "has to end in .safetensors" in refused("library", *command, tmp_path / "new.st")


def test_split_takes_some(run, refused, lib, tmp_path):
    out = tmp_path / "part.safetensors"
    assert "holds no 'metal/hole'" in refused("library", "split", lib, "metal/hole", "--out", out) and not out.exists()
    assert "1 defect\n" in ok(run("library", "split", lib, "metal/rust", "--out", out))
    assert names_in(out) == ["metal/rust"] and names_in(lib) == ["metal/dent", "metal/rust"]


def test_rename_in_the_file(run, lib):
    ok(run("library", "rename", lib, "metal/rust", "steel/rust"))
    assert names_in(lib) == ["metal/dent", "steel/rust"]
    assert load_library(lib).get("steel/rust").shot_masks.shape == (2, 10, 10)


def test_remove_in_the_file(run, lib):
    assert "1 defect\n" in ok(run("library", "remove", lib, "metal/rust"))
    assert names_in(lib) == ["metal/dent"]


def test_a_merge_that_cannot_choose_names_the_option(refused, lib, tmp_path):
    other = shutil.copy(lib, tmp_path / "other.safetensors")
    said = refused("library", "merge", lib, other, "--out", tmp_path / "both.safetensors")
    assert "both hold metal/" in said and said.rstrip().endswith("let the first or the last count, with --prefer")


def test_tags_in_the_file(run, lib):
    ok(run("library", "note", lib, "metal/rust", "--tags", "line 2, rare"))
    assert load_library(lib).get("metal/rust").info["tags"] == ["line 2", "rare"]
    ok(run("library", "note", lib, "metal/rust", "--tags", ""))
    assert "tags" not in load_library(lib).get("metal/rust").info


def test_note_in_the_file(run, lib):
    ok(run("library", "note", lib, "metal/rust", "--author", "Ada", "--licence", "CC0-1.0", "--text", "line 2"))
    ok(run("library", "note", lib, "metal/rust", "--licence", ""))
    info = load_library(lib).get("metal/rust").info
    assert (
        (info["author"], info["notes"]) == ("Ada", "line 2") and "licence" not in info and info["shots"] == ["000.png"]
    )


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("rename", "metal/rust", "metal/dent"), "holds a metal/dent already"),
        (("rename", "metal/rust", "metal/.."), "'..'"),
        (("rename", "metal/hole", "metal/x"), "holds no 'metal/hole'"),
        (("remove", "metal/hole"), "holds no 'metal/hole'"),
        (("remove", "metal/rust", "metal/dent"), "nothing would be left"),
        (("note", "metal/rust"), "nothing to note on metal/rust; give --author, --licence, --text or --tags"),
        (("note", "metal/hole", "--author", "Ada"), "holds no 'metal/hole'"),
    ],
)
def test_a_refused_edit_leaves_the_file(refused, lib, tmp_path, listing, arguments, said):
    before = listing(tmp_path)
    command, *rest = arguments
    assert said in refused("library", command, lib, *rest)
    assert listing(tmp_path) == before


def test_an_edit_that_cannot_be_written_leaves_the_file(refused, lib, tmp_path, listing, monkeypatch):
    before = listing(tmp_path)

    def full(*paths):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    assert "No space left" in refused("library", "remove", lib, "metal/rust")
    assert listing(tmp_path) == before


def test_preview_is_the_picture(run, refused, lib, tmp_path):
    ok(run("library", "preview", lib, "metal/rust", "--out", tmp_path / "rust.png"))
    with Image.open(tmp_path / "rust.png") as picture:
        assert picture.size == (5, 4) and picture.getpixel((0, 0)) == (7, 7, 7)
    assert "exists" in refused("library", "preview", lib, "metal/rust", "--out", tmp_path / "rust.png")
    assert "has to end in .png" in refused("library", "preview", lib, "metal/rust", "--out", tmp_path / "rust.jpg")
    plain = Defect("metal", "rust", torch.zeros(2, DIM))
    save_library(lib, Library({plain.key: plain}, "f" * 64, "demo", DIM))
    assert "has no preview" in refused("library", "preview", lib, "metal/rust", "--out", tmp_path / "new.png")


def test_export_and_import_bring_it_back(run, refused, tiny, lib, tmp_path):
    out = tmp_path / "out.safetensors"
    ok(run("library", "export", lib, "metal/rust", "--what", "mask", "--out", out))
    assert {name: tuple(tensor.shape) for name, tensor in load_file(out).items()} == {"emb_params": (4, DIM)}
    result = run("library", "import", out, "steel/rust", "--to", tmp_path / "new" / "lib.safetensors", "--what", "mask")
    assert "4 tokens" in ok(result) and not result.stderr  # a library's own stands where it stood
    added = load_library(tmp_path / "new" / "lib.safetensors")
    assert torch.equal(added.get("steel/rust").mask, torch.ones(4, DIM)) and added.get("steel/rust").anomaly is None
    assert (added.base_fingerprint, added.base_name) == (tiny.fingerprint, "demo")
    again = ("library", "import", out, "steel/rust", "--to", tmp_path / "new" / "lib.safetensors", "--what", "mask")
    assert "has a mask embedding already" in refused(*again)


def test_import_adds_to_a_library(run, tiny, lib, tmp_path):
    torch.save({"<dent>": torch.ones(DIM)}, tmp_path / "learned_embeds.bin")
    result = run("library", "import", tmp_path / "learned_embeds.bin", "metal/scratch", "--to", lib)
    assert ok(result) and result.stderr.startswith("warning: the base model has no text encoder")
    assert names_in(lib) == ["metal/dent", "metal/rust", "metal/scratch"]
    assert load_library(lib).encoder_fingerprint == "e" * 64


def test_import_takes_a_textual_inversion_through_the_base_models_text_encoder(run, diffusers_folder, tmp_path):
    torch.save({"<dent>": torch.randn(2, 768)}, tmp_path / "learned_embeds.bin")
    lib = tmp_path / "lib.safetensors"
    result = run("library", "import", tmp_path / "learned_embeds.bin", "metal/dent", "--to", lib,
                 "--base", diffusers_folder)  # fmt: skip
    assert "2 tokens" in ok(result) and not result.stderr
    assert load_library(lib).get("metal/dent").anomaly.shape == (77, 768)


class Payload:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("to", ["lib.safetensors", "new.safetensors"])
@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"<x>": torch.zeros(2, 768)}, "768 wide, the context of base 'demo' 16"),
        ({"string_to_token": {}, "string_to_param": {"*": torch.zeros(8, 1280)}}, "released AnomalyDiffusion"),
        ({"<x>": torch.full((2, DIM), float("inf"))}, "not finite"),
        ("payload", "more than weights"),
        ("truncated", "damaged"),
        ("missing", "no embedding at"),
    ],
)  # fmt: skip
def test_a_refused_import_writes_nothing(refused, tiny, lib, tmp_path, listing, content, said, to):
    source = tmp_path / "x.pt"
    if content == "payload":
        torch.save(Payload(tmp_path / "trap"), source)
    elif content == "truncated":
        torch.save({"<x>": torch.zeros(2, DIM)}, source)
        source.write_bytes(source.read_bytes()[:300])
    elif content != "missing":
        torch.save(content, source)
    before = listing(tmp_path)
    assert said in refused("library", "import", source, "metal/scratch", "--to", tmp_path / to)
    assert listing(tmp_path) == before and not (tmp_path / "trap").exists()


def test_an_import_into_what_does_not_fit_is_refused(refused, tiny, tmp_path, listing):
    save_file({"<x>": torch.zeros(2, DIM)}, tmp_path / "x.safetensors")
    other = write(tmp_path / "other.safetensors", "metal/rust", base_fingerprint="b" * 64, base_name="tuned")
    (tmp_path / "broken.safetensors").write_bytes(b"broken")
    before = listing(tmp_path)
    source = tmp_path / "x.safetensors"
    assert "learned on base 'tuned', not on 'demo'" in refused("library", "import", source, "m/x", "--to", other)
    assert "not a whole safet" in refused("library", "import", source, "m/x", "--to", tmp_path / "broken.safetensors")
    assert "has to end in .safetensors" in refused("library", "import", source, "m/x", "--to", tmp_path / "lib.pt")
    assert "PRODUCT/DEFECT" in refused("library", "import", source, "x", "--to", tmp_path / "new.safetensors")
    assert listing(tmp_path) == before


def test_an_import_waits_for_who_edits_the_file(refused, tiny, lib, tmp_path, monkeypatch):
    save_file({"emb_params": torch.zeros(2, DIM)}, tmp_path / "x.safetensors")
    monkeypatch.setattr("adiff.curation.PATIENCE", 0.0)
    with run_lock(tmp_path / ".lib.editing"):
        assert "is writing to" in refused("library", "import", tmp_path / "x.safetensors", "metal/new", "--to", lib)
    assert names_in(lib) == ["metal/dent", "metal/rust"]
