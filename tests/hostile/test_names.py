"""Names that become folders."""

import sys

import pytest
import torch
from safetensors.torch import save_file

NAMES = {
    "metal": "not PRODUCT/DEFECT", "a/b/c": "not PRODUCT/DEFECT", "metal/": "0 characters",
    "metal/..": "ends with a dot", "../scratch": "ends with a dot", "metal/a\\b": "separators",
    "metal/a:b": "separators", "metal/\x07bell": "control", "metal/\x1b[2Jx": "control",
    "metal/line\nbreak": "control", "metal/" + "x" * 65: "65 characters",
    "CON/scratch": "device on Windows", "metal/com1.png": "device on Windows", "metal/nul": "device on Windows",
    "metal/scr\u202eatch": "does not show", "metal/scr\u200batch": "does not show",
    "metal/scr\u2028atch": "does not show", "metal/scratch\ufeff": "does not show",
    "metal/ x": "starts or ends with a space",
}  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_names_that_could_leave_a_folder_are_refused_by_every_command(refused, place, tiny, name):
    library, new = place / "lib.safetensors", place / "new.safetensors"
    save_file({"emb_params": torch.zeros(8, 768)}, place / "rust.safetensors")
    for arguments in (
        ("library", "rename", library, "metal/scratch", name),
        ("library", "remove", library, name),
        ("library", "split", library, name, "--out", new),
        ("library", "note", library, name, "--author", "Ada"),
        ("library", "export", library, name, "--out", new),
        ("library", "import", place / "rust.safetensors", name, "--to", new),
        ("masks", library, name, "--out", place / "new"),
        ("generate", library, name, "--normals", place / "normals", "--out", place / "new"),
    ):
        line = refused(*arguments)
        assert NAMES[name] in line and line.isprintable()


@pytest.mark.parametrize("name", ["CON", "a:b", "x" * 65, "\x07bell", "ends with a dot."])
@pytest.mark.skipif(sys.platform == "win32", reason="such folders cannot be made there")
def test_names_of_a_data_set_are_checked_before_anything_is_learned(refused, place, tiny, name, train):
    for kind in ("test", "ground_truth"):
        (place / "data" / "metal" / kind / "scratch").rename(place / "data" / "metal" / kind / name)
    assert "defect " in refused(*train())
