"""Edits of libraries: what comes out, and what is refused with both sides named."""

import logging
from dataclasses import replace

import pytest
import torch

from adiff.errors import InputError
from adiff.library import Defect, Library, load_library, save_library
from adiff.library_edit import HeldTwice, add_learned, merge, note, remove, rename, revise, split, tag, tags_of

D = 4
BASE = "a" * 64
ENCODER = "e" * 64


def make(*names, value=0.0, encoder=ENCODER, what="anomaly", **changes):
    """A library of named defects, whose embeddings are filled with `value`."""
    defects = {}
    for name in names:
        product, defect = name.split("/")
        defects[product, defect] = Defect(product, defect, **{what: torch.full((2, D), value)}, info={"steps": 3})
    content = {"base_fingerprint": BASE, "base_name": "demo", "context_dim": D, "encoder_fingerprint": encoder}
    return Library(defects, **{**content, **changes})


def names_of(library):
    return [defect.name for defect in library.defects.values()]


def test_a_merge_holds_all_in_order_and_survives_the_file(tmp_path):
    joined = merge({"a": make("m/x", "m/y", info={"by": "a"}), "b": make("n/x", info={"by": "b", "of": "b"})})
    save_library(tmp_path / "c.safetensors", joined)
    assert names_of(joined) == ["m/x", "m/y", "n/x"]
    assert set(names_of(load_library(tmp_path / "c.safetensors"))) == {"m/x", "m/y", "n/x"}
    assert (joined.base_fingerprint, joined.encoder_fingerprint) == (BASE, ENCODER)
    assert joined.info == {"by": "a", "of": "b"}


def test_what_is_learned_is_added_and_the_rest_of_an_entry_stays():
    library = note(make("m/x", "m/y"), "m/x", {"author": "Ada"})
    learned = replace(make("m/x", what="mask", value=2.0).get("m/x"), info={"shots": ["a"], "mask": {"loss": 1}})
    seen = replace(learned, likeness=torch.ones(1, 3))
    added = add_learned(library, {seen.key: seen, ("m", "z"): replace(seen, defect="z")}, "mask")
    assert names_of(added) == ["m/x", "m/y", "m/z"]
    entry = added.get("m/x")
    assert torch.equal(entry.anomaly, torch.zeros(2, D)) and torch.equal(entry.mask, torch.full((2, D), 2.0))
    assert entry.info == {"shots": ["a"], "mask": {"loss": 1}, "steps": 3, "author": "Ada"}
    assert torch.equal(entry.likeness, torch.ones(1, 3))


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (
            {"context_dim": 8, "base_name": "xl"},
            r"one\.st is for context width 4 \(base 'demo'\), two\.st for 8 .*'xl'",
        ),
        (
            {"base_fingerprint": "b" * 64, "base_name": "tuned"},
            r"one\.st .*'demo' \(aaaaaaaa\), two\.st .*'tuned' \(bbbb",
        ),
        ({"encoder": "f" * 64}, "one.st was learned with spatial encoder eeeeeeee, two.st with ffffffff"),
    ],
)
def test_a_merge_across_base_models_or_encoders_is_refused(other, said):
    with pytest.raises(InputError, match=said):
        merge({"one.st": make("m/x"), "two.st": make("m/y", **other)})


def test_the_same_weights_under_another_name_are_one_base():
    assert merge({"a": make("m/x"), "b": make("m/y", base_name="renamed")}).base_name == "demo"


def test_one_name_twice_is_refused_unless_told_which_counts():
    libraries = {"a": make("m/x", value=1.0), "b": make("m/x", "m/y", value=2.0), "c": make("m/x", value=3.0)}
    with pytest.raises(HeldTwice, match="a and b both hold m/x; rename one, or let the first or the last count$"):
        merge(libraries)
    assert merge(libraries, "first").get("m/x").anomaly[0, 0] == 1
    assert merge(libraries, "last").get("m/x").anomaly[0, 0] == 3
    with pytest.raises(InputError, match="prefer 'newest' is unknown"):
        merge(libraries, "newest")


@pytest.mark.parametrize("prefer", [None, "first"])
def test_names_of_two_libraries_that_look_alike_are_refused(prefer):
    one, other = make("metal/hole"), make("metal/Hole")
    with pytest.raises(InputError, match="metal/hole and metal/Hole differ only in letters that look alike"):
        merge({"a": one, "b": other}, prefer)


def test_one_library_is_nothing_to_merge():
    with pytest.raises(InputError, match="at least two"):
        merge({"a": make("m/x")})


def test_a_library_of_masks_alone_takes_the_other_s_encoder(caplog):
    masks = make("m/y", what="mask", encoder=None)
    assert merge({"masks": masks, "both": make("m/x")}).encoder_fingerprint == ENCODER
    assert (
        merge({"masks": replace(masks, encoder_fingerprint="f" * 64), "b": make("m/x")}).encoder_fingerprint == ENCODER
    )
    assert not caplog.records


def test_appearances_without_an_encoder_are_merged_with_a_warning(caplog):
    with caplog.at_level(logging.WARNING, "adiff"):
        assert merge({"plain": make("m/y", encoder=None), "b": make("m/x")}).encoder_fingerprint == ENCODER
    assert "defects of plain were learned without" in caplog.text


def test_split_takes_what_is_named():
    part = split(make("m/x", "m/y", "m/z"), ["m/z", "m/x", "m/z"])
    assert names_of(part) == ["m/z", "m/x"] and part.encoder_fingerprint == ENCODER
    with pytest.raises(InputError, match="holds no 'm/w'"):
        split(make("m/x"), ["m/x", "m/w"])
    with pytest.raises(InputError, match="no defect was named"):
        split(make("m/x"), [])


def test_rename_keeps_place_tensors_and_record():
    renamed = rename(make("m/x", "m/y", value=5.0), "m/x", "n/ü")
    assert names_of(renamed) == ["n/ü", "m/y"]
    assert renamed.get("n/ü").anomaly[0, 0] == 5 and renamed.get("n/ü").info == {"steps": 3}


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("m/w", "m/z", "holds no 'm/w'"),
        ("m/x", "m/y", "holds a m/y already"),
        ("m/x", "m/x", "holds a m/x already"),
        ("m/x", "z", "PRODUCT/DEFECT"),
        ("m/x", "../z", "'..'"),
        ("m/x", "m/CON", "device on Windows"),
        ("m/x", "m/a\nb", "control characters"),
        ("m/x", "m/" + "a" * 65, "65 characters"),
    ],
)
def test_names_that_do_not_do_are_refused(old, new, said):
    with pytest.raises(InputError, match=said):
        rename(make("m/x", "m/y"), old, new)


def test_remove_leaves_the_others():
    assert names_of(remove(make("m/x", "m/y", "m/z"), ["m/x", "m/z"])) == ["m/y"]
    with pytest.raises(InputError, match="holds no 'm/w'"):
        remove(make("m/x"), ["m/w"])
    with pytest.raises(InputError, match="nothing would be left"):
        remove(make("m/x", "m/y"), ["m/x", "m/y"])


def test_notes_are_set_kept_and_taken_out():
    library = note(make("m/x"), "m/x", {"author": "Ada", "licence": "CC0-1.0", "notes": None})
    assert library.get("m/x").info == {"steps": 3, "author": "Ada", "licence": "CC0-1.0"}
    again = note(library, "m/x", {"author": "", "notes": "from line 2"})
    assert again.get("m/x").info == {"steps": 3, "licence": "CC0-1.0", "notes": "from line 2"}
    assert library.get("m/x").info["author"] == "Ada"  # the edit is of a copy


@pytest.mark.parametrize(
    ("name", "fields", "said"),
    [
        ("m/x", {"author": None}, "nothing to note"),
        ("m/x", {"steps": "9"}, "'steps' is no note"),
        ("m/w", {"author": "Ada"}, "holds no 'm/w'"),
        ("m/x", {"author": "A\ud800"}, "lone surrogate"),
    ],
)
def test_notes_that_do_not_do_are_refused(name, fields, said):
    with pytest.raises(InputError, match=said):
        note(make("m/x"), name, fields)


def test_a_record_that_is_no_table_is_refused():
    library = make("m/x")
    library.defects["m", "x"] = replace(library.get("m/x"), info=["shots"])
    with pytest.raises(InputError, match="record of m/x is no table"):
        note(library, "m/x", {"author": "Ada"})
    with pytest.raises(InputError, match="record of b is no table"):
        merge({"a": make("m/x"), "b": make("m/y", info=[1])})


@pytest.mark.parametrize(
    ("new", "said"),
    [
        ("m/a\N{FULLWIDTH SOLIDUS}b", "looks like a separator, a dot or a space"),
        ("m/a\N{FULLWIDTH REVERSE SOLIDUS}b", "looks like a separator, a dot or a space"),
        ("m/a\N{DIVISION SLASH}b", "looks like a separator"),
        ("\N{TWO DOT LEADER}/z", "looks like a separator, a dot or a space"),
        ("m/\N{FULLWIDTH FULL STOP}\N{FULLWIDTH FULL STOP}", "looks like a separator, a dot or a space"),
        ("m/\N{FULLWIDTH LATIN CAPITAL LETTER C}ON", "device on Windows"),
        ("COM\N{SUPERSCRIPT ONE}/z", "device on Windows"),
        ("m/con.txt", "device on Windows"),
        ("m/a\N{RIGHT-TO-LEFT OVERRIDE}gnp", "what does not show"),
        ("m/y\N{ZERO WIDTH SPACE}", "what does not show"),
        ("m/Y", "holds a m/y already, which looks like 'm/Y'"),
        ("m/\N{FULLWIDTH LATIN SMALL LETTER Y}", "holds a m/y already"),
    ],
    ids=ascii,
)
def test_names_that_look_like_others_are_refused(new, said):
    with pytest.raises(InputError, match=said):
        rename(make("m/x", "m/y"), "m/x", new)


@pytest.mark.parametrize("new", ["m/X", "\u91d1\u5c5e/\u5212\u75d5\uff1a\u6df1", "m/\u00e9raflure", "m/\u06cc"])
def test_names_of_all_scripts_may_be_given(new):
    assert names_of(rename(make("m/x", "m/y"), "m/x", new)) == [new, "m/y"]


def test_tags_take_the_place_of_those_before():
    library = tag(make("m/x"), "m/x", [" line 2 ", "rare", "", "Rare"])
    assert library.get("m/x").info == {"steps": 3, "tags": ["line 2", "Rare"]} and tags_of(library.get("m/x"))
    assert tag(library, "m/x", []).get("m/x").info == {"steps": 3}
    assert tags_of(Defect("m", "x", info={"tags": "rare"})) == tags_of(Defect("m", "x", info=[1])) == []


@pytest.mark.parametrize(
    ("tags", "said"),
    [
        (["a,b"], "','"),
        (["a\nb"], "control characters"),
        (["a" * 41], "41 characters"),
        (list(map(str, range(33))), "33 tags"),
    ],
)
def test_tags_that_do_not_do_are_refused(tags, said):
    with pytest.raises(InputError, match=said):
        tag(make("m/x"), "m/x", tags)


def test_a_revision_changes_what_it_is_told():
    library = revise(make("m/x", "m/y"), "m/x", new_name="n/z", notes={"author": "Ada", "notes": None}, tags=["rare"])
    assert names_of(library) == ["n/z", "m/y"]
    assert library.get("n/z").info == {"steps": 3, "author": "Ada", "tags": ["rare"]}
    with pytest.raises(InputError, match="nothing to note on m/x"):
        revise(make("m/x"), "m/x", new_name="m/x", notes={"author": None})
