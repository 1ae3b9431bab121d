"""The library file: what is written comes back, what does not fit is refused in words."""

import json
import logging
import os
from dataclasses import dataclass, replace

import numpy as np
import pytest
import safetensors.torch
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import save_file

from adiff.errors import InputError
from adiff.library import (
    FORMAT,
    Defect,
    Library,
    check_base,
    check_encoder,
    check_name,
    load_library,
    parse_name,
    read_header,
    save_library,
)
from adiff.library_edit import merge, rename, split
from adiff.tensor_files import tensors_of

D = 6


@dataclass
class Base:
    name: str = "demo"
    fingerprint: str = "a" * 64
    context_dim: int = D


def make_library(**changes) -> Library:
    rng = torch.Generator().manual_seed(0)
    masks = np.zeros((2, 10, 10), bool)
    masks[0, 2:5, 3:9] = masks[1, 9, :] = True
    scratch = Defect(
        "metal",
        "scratch",
        anomaly=torch.randn(8, D, generator=rng),
        mask=torch.randn(4, D, generator=rng),
        preview=torch.arange(3 * 4 * 5, dtype=torch.uint8).reshape(3, 4, 5),
        info={"shots": ["test/scratch/000.png"], "steps": 160, "note": "naïve"},
        shot_masks=masks,
        likeness=torch.randn(2, 8, generator=rng),
    )
    only_mask = Defect("Holz", "Riß 2", mask=torch.randn(4, D, generator=rng))
    content = {"base_fingerprint": "a" * 64, "base_name": "demo", "context_dim": D, "encoder_fingerprint": "e" * 64}
    return Library({d.key: d for d in (scratch, only_mask)}, **{**content, "info": {"author": "x"}, **changes})


def test_masks_are_stored_however_they_lie_in_memory(tmp_path):
    library, key = make_library(), ("metal", "scratch")
    entry = library.defects[key]
    turned = replace(entry, shot_masks=np.asfortranarray(entry.shot_masks[:1]))
    save_library(tmp_path / "lib.safetensors", replace(library, defects={key: turned}))
    loaded = load_library(tmp_path / "lib.safetensors").defects[key]
    assert np.array_equal(loaded.shot_masks, entry.shot_masks[:1])


def test_everything_comes_back(tmp_path):
    library = make_library()
    save_library(tmp_path / "new" / "lib.safetensors", library)
    loaded = load_library(tmp_path / "new" / "lib.safetensors")

    for name in ("base_fingerprint", "base_name", "context_dim", "encoder_fingerprint", "info"):
        assert getattr(loaded, name) == getattr(library, name)
    assert set(loaded.defects) == set(library.defects)
    for key, defect in library.defects.items():
        for kind in ("anomaly", "mask", "preview", "likeness"):
            before, after = getattr(defect, kind), getattr(loaded.defects[key], kind)
            assert (before is None and after is None) or (before.dtype == after.dtype and torch.equal(before, after))
        assert loaded.defects[key].info == defect.info
    assert np.array_equal(loaded.defects["metal", "scratch"].shot_masks, library.defects["metal", "scratch"].shot_masks)
    assert loaded.defects["Holz", "Riß 2"].shot_masks is None


def test_the_tensors_have_the_documented_names_and_metadata_is_json(tmp_path):
    save_library(tmp_path / "lib.safetensors", make_library())
    with safe_open(tmp_path / "lib.safetensors", "pt") as file:
        assert set(file.keys()) == {
            "anomaly/metal/scratch",
            "mask/metal/scratch",
            "preview/metal/scratch",
            "shots/metal/scratch",
            "likeness/metal/scratch",
            "mask/Holz/Riß 2",
        }
        assert file.get_tensor("shots/metal/scratch").shape == (2, 10, 2)
        assert json.loads(file.metadata()["defects"])["metal/scratch"]["steps"] == 160


def test_an_older_file_without_descriptors_is_read(tmp_path):
    path = tmp_path / "lib.safetensors"
    save_library(path, make_library())
    with safe_open(path, "pt") as file:
        older = {name: file.get_tensor(name) for name in file.keys() if not name.startswith("likeness/")}
        save_file(older, tmp_path / "older.safetensors", file.metadata())
    entry = load_library(tmp_path / "older.safetensors").get("metal/scratch")
    assert entry.likeness is None and entry.shot_masks.shape == (2, 10, 10)


def test_edits_keep_the_descriptors():
    library = make_library()
    shots = library.get("metal/scratch").likeness
    assert rename(library, "metal/scratch", "steel/scratch").get("steel/scratch").likeness is shots
    other = rename(library, "metal/scratch", "steel/scratch")
    merged = merge({"a": other, "b": split(library, ["metal/scratch"])})
    assert merged.get("metal/scratch").likeness is shots and merged.get("steel/scratch").likeness is shots


def test_half_precision_embeddings_are_stored_as_float32(tmp_path):
    half = Defect("a", "b", anomaly=torch.full((2, D), 0.5, dtype=torch.float16))
    save_library(tmp_path / "lib.safetensors", Library({("a", "b"): half}, "f", "demo", D))
    assert load_library(tmp_path / "lib.safetensors").defects["a", "b"].anomaly.dtype == torch.float32


def test_embeddings_that_share_memory_are_stored_each(tmp_path):
    learned = torch.arange(6.0 * D).reshape(6, D)
    first = Defect("metal", "scratch", anomaly=learned, mask=learned[:4])
    second = Defect("steel", "scratch", anomaly=learned, mask=learned[2:])
    save_library(tmp_path / "lib.safetensors", Library({d.key: d for d in (first, second)}, "a" * 64, "demo", D))
    loaded = load_library(tmp_path / "lib.safetensors")
    for defect in (first, second):
        assert torch.equal(loaded.defects[defect.key].anomaly, defect.anomaly)
        assert torch.equal(loaded.defects[defect.key].mask, defect.mask)


def test_get_finds_or_lists():
    library = make_library()
    assert library.get("metal/scratch") is library.defects["metal", "scratch"]
    with pytest.raises(InputError, match="metal/scratch, Holz/Riß 2"):
        library.get("metal/hole")
    with pytest.raises(InputError, match="'cut' is not PRODUCT/DEFECT.*; the library holds metal/scratch, Holz/Riß 2"):
        library.get("cut")
    many = replace(library, defects={("metal", str(n)): Defect("metal", str(n)) for n in range(9)})
    for name in ("cut", "metal/cut"):
        with pytest.raises(InputError, match="holds metal/0, metal/1, metal/2, metal/3, metal/4 and 4 more$"):
            many.get(name)


def test_another_context_width_is_an_error_naming_both():
    with pytest.raises(InputError, match=r"'demo' with context width 6.*'xl' has width 2048"):
        check_base(make_library(), Base("xl", "b" * 64, 2048))


def test_another_base_of_the_same_width_is_a_warning(caplog):
    check_base(make_library(), Base())
    assert not caplog.records
    with caplog.at_level(logging.WARNING, "adiff"):
        check_base(make_library(), Base("other", "b" * 64))
    assert "aaaaaaaa" in caplog.text and "bbbbbbbb" in caplog.text


def test_another_encoder_is_a_warning(caplog):
    check_encoder(make_library(), "e" * 64)
    check_encoder(make_library(encoder_fingerprint=None), "f" * 64)
    assert not caplog.records
    check_encoder(make_library(), "f" * 64)
    assert "eeeeeeee" in caplog.text and "ffffffff" in caplog.text


@pytest.mark.parametrize(
    "name",
    ["", "x" * 65, "a/b", "a\\b", "a:b", "a\nb", "a\x7fb", "a\u2028b", "\ud800", ".", "..", "a.", "a ", " a",
     "CON", "con", "Com1", "lpt9.txt", "NUL .x"],
)  # fmt: skip
def test_unfit_names_are_refused(name):
    with pytest.raises(InputError):
        check_name(name)


@pytest.mark.parametrize("name", ["scratch", "x" * 64, "Riß 2", "划痕", "a.b", "COM", "console", "com10", "-", "...a"])
def test_fit_names_pass(name):
    assert check_name(name) == name


@given(st.text(max_size=80), st.text(max_size=80))
def test_accepted_names_come_back_from_their_key_and_make_folders(tmp_path_factory, product, defect):
    try:
        check_name(product)
        check_name(defect)
    except InputError:
        return
    assert parse_name(f"{product}/{defect}") == (product, defect)
    folder = tmp_path_factory.getbasetemp() / f"{product}-{defect}"[:60]
    assert folder.parent == tmp_path_factory.getbasetemp()
    assert os.path.normpath(folder) == str(folder)


def test_a_wrong_name_is_not_written(tmp_path):
    bad = Defect("a/b", "c", anomaly=torch.zeros(1, D))
    with pytest.raises(InputError, match="a/b"):
        save_library(tmp_path / "lib.safetensors", Library({("a/b", "c"): bad}, "f", "demo", D))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("tensor", "said"),
    [(torch.zeros(8, D + 1), r"\(8, 7\).*\(tokens, 6\)"), (torch.full((8, D), torch.nan), "not finite")],
)
def test_unfit_embeddings_are_not_written(tmp_path, tensor, said):
    with pytest.raises(InputError, match=said):
        save_library(
            tmp_path / "lib.safetensors",
            Library({("a", "b"): Defect("a", "b", anomaly=tensor)}, "f", "demo", D),
        )
    assert not list(tmp_path.iterdir())


def test_a_missing_file_says_so(tmp_path):
    with pytest.raises(FileNotFoundError, match="no library at"):
        load_library(tmp_path / "none.safetensors")
    with pytest.raises(InputError, match="is a folder, no library"):
        load_library(tmp_path)


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.99])
def test_a_truncated_file_is_refused(tmp_path, share):
    path = tmp_path / "lib.safetensors"
    save_library(path, make_library())
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    for read in (load_library, read_header):
        with pytest.raises(InputError, match="not a whole safetensors file"):
            read(path)


def test_another_kind_of_safetensors_is_refused(tmp_path):
    save_file({"w": torch.zeros(1)}, tmp_path / "a.safetensors")
    with pytest.raises(InputError, match="another program"):
        load_library(tmp_path / "a.safetensors")
    save_file({"w": torch.zeros(1)}, tmp_path / "b.safetensors", {"kind": "spatial_encoder", "adiff_format": "1"})
    with pytest.raises(InputError, match="kind 'spatial_encoder'"):
        load_library(tmp_path / "b.safetensors")


def rewrite(path, metadata=None, tensors=None):
    """Write a library file anew with some of its metadata and tensors changed."""
    with safe_open(path, "pt") as file:
        kept = tensors_of(file)
        old = file.metadata()
    save_file({**kept, **(tensors or {})}, path, {**old, **(metadata or {})})


@pytest.mark.parametrize(
    ("metadata", "tensors", "said"),
    [
        ({"adiff_format": str(FORMAT + 1)}, None, f"format {FORMAT + 1}.*update adiff"),
        ({"adiff_format": "new"}, None, "unknown format"),
        ({"defects": "{"}, None, "damaged"),
        ({"defects": '["x"]'}, None, "damaged"),
        ({"defects": "{}"}, None, "unexpected tensor"),
        ({"context_dim": "7"}, None, r"expected \(tokens, 7\)"),
        ({"shot_sizes": "{}"}, None, "damaged"),
        (None, {"code/metal/scratch": torch.zeros(1)}, "unexpected tensor 'code/metal/scratch'"),
        (None, {"preview/metal/scratch": torch.zeros(3, 4, 4)}, r"expected \(3, height, width\) in uint8"),
        (None, {"likeness/metal/scratch": torch.zeros(4)}, r"\(4,\); expected \(shots, features\)"),
        (None, {"likeness/metal/scratch": torch.zeros(0, 8)}, r"expected \(shots, features\)"),
        (None, {"likeness/metal/scratch": torch.full((2, 8), torch.inf)}, "not finite"),
    ],
)
def test_a_damaged_library_is_refused(tmp_path, metadata, tensors, said):
    path = tmp_path / "lib.safetensors"
    save_library(path, make_library())
    rewrite(path, metadata, tensors)
    with pytest.raises(InputError, match=said) as caught:
        load_library(path)
    assert str(path) in str(caught.value)
    if "expected" not in said and "finite" not in said and "shot_sizes" not in (metadata or {}):
        with pytest.raises(InputError) as of_header:  # it does not take the tensors to see it
            read_header(path)
        assert str(of_header.value) == str(caught.value)


def test_a_name_that_climbs_is_refused_on_reading(tmp_path):
    path = tmp_path / "lib.safetensors"
    save_file(
        {"mask/../x": torch.zeros(4, D)},
        path,
        {"kind": "library", "adiff_format": "1", "base_name": "", "base_fingerprint": "", "context_dim": str(D),
         "encoder_fingerprint": "", "info": "{}", "defects": '{"../x": {}}', "shot_sizes": "{}"},
    )  # fmt: skip
    with pytest.raises(InputError, match=r"'\.\.'"):
        load_library(path)


@pytest.mark.parametrize("fails", ["save", "replace"])
def test_a_failing_write_leaves_the_old_file(tmp_path, monkeypatch, fails):
    path = tmp_path / "lib.safetensors"
    save_library(path, make_library())
    before = path.read_bytes()

    def fail(*args):
        raise OSError("disk full")

    monkeypatch.setattr(*((safetensors.torch, "save") if fails == "save" else (os, "replace")), fail)
    with pytest.raises(OSError, match="disk full"):
        save_library(path, replace(make_library(), info={}))
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["lib.safetensors"]


def test_a_file_that_was_read_can_be_replaced_and_cut(tmp_path):
    """Its tensors are copies: mapped ones keep Windows from replacing the file, and elsewhere follow its bytes."""
    path = tmp_path / "lib.safetensors"
    save_library(path, make_library())
    read = load_library(path)
    path.write_bytes(bytes(path.stat().st_size))
    for key, entry in make_library().defects.items():
        assert entry.anomaly is None or torch.equal(read.defects[key].anomaly, entry.anomaly)
