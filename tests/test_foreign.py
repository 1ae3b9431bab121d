"""Textual inversions of other programs: each layout read exactly, everything else refused in one line."""

import os
import pickle
import struct
import zipfile
from collections import OrderedDict
from dataclasses import dataclass

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from adiff.backbone import prompt_context
from adiff.errors import InputError
from adiff.foreign import MAX_TOKENS, add_foreign, behind_text_encoder, read_embedding, write_embedding
from adiff.library import Defect, Library

D = 6
VECTORS = torch.arange(3 * D, dtype=torch.float32).reshape(3, D) / 7


@dataclass
class Base:
    name: str = "sd15"
    fingerprint: str = "a" * 64
    context_dim: int = D


def a1111(vectors, **more):
    return {"string_to_token": {"*": 265}, "string_to_param": {"*": vectors}, "name": "rust", "step": 500, **more}


def parameters(**vectors):
    return torch.nn.ParameterDict({name: torch.nn.Parameter(value) for name, value in vectors.items()})


@pytest.mark.parametrize(
    ("name", "content", "layout"),
    [
        ("a.pt", a1111(VECTORS, sd_checkpoint=None, sd_checkpoint_name=None), "a1111"),
        ("a.pt", a1111(torch.nn.Parameter(VECTORS)), "a1111"),
        (
            "a.PT",
            {"string_to_token": {"*": torch.tensor(265)}, "string_to_param": parameters(**{"*": VECTORS})},
            "a1111",
        ),
        ("learned_embeds.bin", {"<rust>": VECTORS}, "diffusers"),
        ("learned_embeds.bin", OrderedDict({"<rust>": VECTORS.double()}), "diffusers"),
        ("a.pt", VECTORS, "tensor"),
        ("a.safetensors", {"emb_params": VECTORS}, "a1111"),
        ("a.safetensors", {"emb_params": VECTORS, "step": torch.tensor(3)}, "a1111"),
        ("learned_embeds.safetensors", {"<rust>": VECTORS}, "diffusers"),
    ],
)
def test_every_layout_gives_its_vectors(tmp_path, name, content, layout):
    path = tmp_path / name
    save_file(content, path) if name.endswith(".safetensors") else torch.save(content, path)
    foreign = read_embedding(path)
    assert torch.equal(foreign.vectors, VECTORS) and foreign.vectors.dtype == torch.float32
    assert (foreign.source["file"], foreign.source["format"]) == (name, layout)
    assert not foreign.vectors.requires_grad


def test_the_old_format_of_torch_is_read(tmp_path):
    torch.save(a1111(VECTORS), tmp_path / "a.pt", _use_new_zipfile_serialization=False)
    assert torch.equal(read_embedding(tmp_path / "a.pt").vectors, VECTORS)


def test_one_vector_is_one_token_and_halves_become_floats(tmp_path):
    torch.save({"<rust>": VECTORS[1].half()}, tmp_path / "a.bin")
    vectors = read_embedding(tmp_path / "a.bin").vectors
    assert vectors.shape == (1, D) and torch.equal(vectors[0], VECTORS[1].half().float())


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"string_to_param": {"*": torch.zeros(8, 1280)}}, "released AnomalyDiffusion.*1280"),
        (
            {"string_to_token": {}, "string_to_param": parameters(a=torch.zeros(8, 1280), b=torch.zeros(8, 1280))},
            "released AnomalyDiffusion.*BERT.*spatial",
        ),
        (
            {"input_layer.0.weight": torch.zeros(4, 3), "styles.0.linear.weight": torch.zeros(2, 2),
             "latlayer1.weight": torch.zeros(2, 2)},
            "released AnomalyDiffusion's spatial encoder.*1280",
        ),
        ({"clip_l": torch.zeros(2, 768), "clip_g": torch.zeros(2, 1280)}, "SDXL"),
        ({"string_to_param": {"*": VECTORS, "+": VECTORS}}, r"2 tensors \(\*, \+, ...\), not one"),
        ({"string_to_param": {"*": "text"}}, "holds no tensor"),
        ({"string_to_param": 3}, "holds no tensor"),
        ({"a": VECTORS, "b": VECTORS}, "2 tensors"),
        ({"\x1b[2Ja": VECTORS, "b" * 9000: VECTORS}, r"2 tensors \(\?\[2Ja, b{60}, ...\)"),
        ({}, "holds no tensor"),
        ([VECTORS], "no table of tensors"),
        ({"<x>": torch.zeros(2, 3, D)}, r"shape \(2, 3, 6\)"),
        ({"<x>": torch.zeros(())}, "shape"),
        ({"<x>": torch.zeros(0, D)}, "shape"),
        ({"<x>": torch.zeros(MAX_TOKENS + 1, D)}, "1 to 77 tokens"),
        ({"<x>": torch.zeros(1, dtype=torch.float32).expand(10**12, 768)}, "1 to 77 tokens"),
        ({"<x>": torch.zeros(1, dtype=torch.float32).expand(2, 10**14)}, "1 to 77 tokens"),
        ({"<x>": torch.zeros(2, D, dtype=torch.int64)}, "int64"),
        ({"<x>": torch.zeros(2, D, device="meta")}, "no plain tensor"),
        ({"<x>": torch.zeros(2, D).to_sparse()}, "no plain tensor"),
        ({"<x>": torch.full((2, D), float("nan"))}, "not finite"),
        ({"<x>": torch.full((2, D), 1e300, dtype=torch.float64)}, "not finite"),
    ],
)  # fmt: skip
def test_what_is_no_embedding_for_us_is_refused_by_name(tmp_path, content, said):
    torch.save(content, tmp_path / "a.pt")
    with pytest.raises(InputError, match=said) as caught:
        read_embedding(tmp_path / "a.pt")
    assert str(tmp_path / "a.pt") in str(caught.value) and len(str(caught.value)) < 500


class Payload:
    """A pickle that would make a folder."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("how", ["zip", "old", "pickle", "beside"])
def test_a_pickle_payload_is_not_run(tmp_path, how):
    path, trap = tmp_path / "a.pt", tmp_path / "trap"
    if how == "pickle":
        path.write_bytes(pickle.dumps(Payload(trap)))
    else:
        content = a1111(VECTORS, name=Payload(trap)) if how == "beside" else Payload(trap)
        torch.save(content, path, _use_new_zipfile_serialization=how != "old")
    with pytest.raises(InputError, match="more than weights.*convert it to .safetensors") as caught:
        read_embedding(path)
    assert not trap.exists()
    assert "weights_only" not in str(caught.value)  # torch's own advice is to open it unsafely
    assert "PyTorch" not in str(caught.value)


@pytest.mark.parametrize("name", ["a.pt", "a.bin", "a.safetensors"])
@pytest.mark.parametrize("share", [0.0, 0.02, 0.5, 0.98])
def test_a_truncated_file_is_refused(tmp_path, name, share):
    path = tmp_path / name
    save_file({"x": VECTORS}, path) if name.endswith(".safetensors") else torch.save({"x": VECTORS}, path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(InputError, match="damaged"):
        read_embedding(path)


def test_headers_that_claim_too_much_are_refused(tmp_path):
    (tmp_path / "a.safetensors").write_bytes(struct.pack("<Q", 2**40) + b"{}")
    header = b'{"x":{"dtype":"F32","shape":[1000000000,768],"data_offsets":[0,3072000000000]}}'
    (tmp_path / "b.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + bytes(64))
    for name in ("a.safetensors", "b.safetensors"):
        with pytest.raises(InputError, match="damaged or no safetensors"):
            read_embedding(tmp_path / name)


def test_other_files_are_refused(tmp_path):
    (tmp_path / "a.png").write_bytes(b"")
    with pytest.raises(InputError, match="expected a .safetensors, .pt or .bin"):
        read_embedding(tmp_path / "a.png")
    with pytest.raises(FileNotFoundError, match="no embedding at"):
        read_embedding(tmp_path / "none.pt")
    with zipfile.ZipFile(tmp_path / "z.pt", "w") as file:
        file.writestr("archive/other.txt", "x")
    with pytest.raises(InputError, match="damaged"):
        read_embedding(tmp_path / "z.pt")
    save_file({"w": VECTORS}, tmp_path / "l.safetensors", {"kind": "library"})
    with pytest.raises(InputError, match="kind 'library'.*library merge"):
        read_embedding(tmp_path / "l.safetensors")


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data(), st.booleans())
def test_damage_never_ends_in_another_error(tmp_path, data, old):
    path = tmp_path / "a.pt"
    torch.save(a1111(VECTORS), path, _use_new_zipfile_serialization=not old)
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(bytes(content))
    try:
        assert read_embedding(path).vectors.isfinite().all()
    except InputError:
        pass


def library(**changes):
    entry = Defect("metal", "rust", anomaly=VECTORS, info={"author": "Ada", "seed": 1})
    return Library(
        {entry.key: entry}, **{"base_fingerprint": "a" * 64, "base_name": "sd15", "context_dim": D, **changes}
    )


def foreign(tmp_path, vectors=VECTORS):
    save_file({"emb_params": vectors}, tmp_path / "x.safetensors")
    return read_embedding(tmp_path / "x.safetensors")


def test_an_import_is_added_with_its_source(tmp_path):
    mine = foreign(tmp_path, VECTORS + 1)
    added = add_foreign(library(), ("metal", "dent"), "anomaly", mine, Base())
    entry = added.get("metal/dent")
    assert torch.equal(entry.anomaly, VECTORS + 1) and entry.mask is None
    assert entry.info["imported"] == {"anomaly": mine.source} and len(mine.source["sha256"]) == 64
    both = add_foreign(added, ("metal", "rust"), "mask", mine, Base())
    assert torch.equal(both.get("metal/rust").anomaly, VECTORS) and torch.equal(
        both.get("metal/rust").mask, VECTORS + 1
    )
    assert both.get("metal/rust").info["author"] == "Ada"


def test_an_import_that_does_not_fit_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"x.safetensors is 6 wide, the context of base 'sd15' 768"):
        add_foreign(library(), ("metal", "dent"), "anomaly", foreign(tmp_path), Base(context_dim=768))
    with pytest.raises(InputError, match="metal/rust has an anomaly embedding already"):
        add_foreign(library(), ("metal", "rust"), "anomaly", foreign(tmp_path), Base())
    with pytest.raises(InputError, match="'shape' is no embedding"):
        add_foreign(library(), ("metal", "rust"), "shape", foreign(tmp_path), Base())


def test_an_import_is_the_prompt_of_it_alone_where_the_base_has_a_text_encoder(tmp_path, diffusers_folder):
    mine, base = foreign(tmp_path, torch.randn(3, 768)), Base(context_dim=768)
    placed = behind_text_encoder(mine, str(diffusers_folder), base)
    assert torch.equal(placed.vectors, prompt_context(str(diffusers_folder), mine.vectors))
    assert placed.source == {**mine.source, "words": 3}
    assert behind_text_encoder(mine, "demo", base) is mine
    with pytest.raises(InputError, match="x.safetensors is 768 wide, the context of base 'sd15' 6"):
        behind_text_encoder(mine, str(diffusers_folder), Base())
    width = {"base_fingerprint": "a" * 64, "base_name": "sd15", "context_dim": 768}
    whole = add_foreign(Library({}, **width), ("metal", "rust"), "anomaly", placed, base)
    write_embedding(tmp_path / "out.safetensors", whole, "metal/rust", "anomaly")
    own = read_embedding(tmp_path / "out.safetensors")
    assert behind_text_encoder(own, str(diffusers_folder), base) is own and len(own.vectors) == 77


def test_an_export_is_what_a1111_and_diffusers_read_and_comes_back(tmp_path):
    path = tmp_path / "out.safetensors"
    write_embedding(path, library(), "metal/rust", "anomaly")
    stored = load_file(path)
    assert set(stored) == {"emb_params"} and torch.equal(stored["emb_params"], VECTORS)
    assert torch.equal(read_embedding(path).vectors, VECTORS) and read_embedding(path).source["format"] == "adiff"


def test_what_is_not_there_is_not_exported(tmp_path):
    with pytest.raises(InputError, match="metal/rust has no mask embedding"):
        write_embedding(tmp_path / "out.safetensors", library(), "metal/rust", "mask")
    with pytest.raises(InputError, match="holds no 'metal/dent'"):
        write_embedding(tmp_path / "out.safetensors", library(), "metal/dent", "mask")
    assert not (tmp_path / "out.safetensors").exists()
