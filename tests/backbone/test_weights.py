import json
import struct
import time

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from adiff.backbone import load_backbone
from adiff.backbone.weights import fill, open_weights
from adiff.errors import InputError


def claim(path, name, shape, kind="F32", size=4):
    """A safetensors file of one tensor that is all hole: it takes no room."""
    count = size
    for side in shape:
        count *= side
    header = json.dumps({name: {"dtype": kind, "shape": shape, "data_offsets": [0, count]}}).encode()
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(header)) + header)
        file.truncate(8 + len(header) + count)


def test_shapes_and_metadata_are_there_and_values_when_read(tmp_path):
    save_file({"a": torch.arange(6.0).reshape(2, 3), "b": torch.zeros(())}, tmp_path / "x.safetensors", {"k": "v"})
    with open_weights(tmp_path / "x.safetensors") as weights:
        assert weights.shapes == {"a": (2, 3), "b": ()} and weights.metadata == {"k": "v"}
        assert weights.read("a").tolist() == [[0, 1, 2], [3, 4, 5]]


@pytest.mark.parametrize("old", [False, True])
def test_a_ckpt_gives_its_tensors_and_leaves_the_rest(tmp_path, old):
    content = {"state_dict": {"a": torch.ones(2), 3: torch.zeros(1), "step": 5}, "epoch": 1}
    torch.save(content, tmp_path / "x.CKPT", _use_new_zipfile_serialization=not old)
    with open_weights(tmp_path / "x.CKPT") as weights:
        assert weights.shapes == {"a": (2,), "3": (1,)} and weights.read("a").tolist() == [1, 1]


def test_what_a_large_file_is_is_told_without_reading_it(tmp_path):
    """16 GB that are a LoRA: named in no time and no memory."""
    resource = pytest.importorskip("resource")
    path = tmp_path / "large.safetensors"
    claim(path, "lora_unet_mid_block_attentions_0_proj_in.lora_down.weight", (2**20, 2**12))
    before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
    with pytest.raises(InputError, match="large.safetensors is a LoRA"):
        load_backbone(str(path), "cpu")
    assert time.monotonic() - began < 30  # with the import of diffusers, on a loaded machine; reading takes minutes
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 2**20  # KiB on Linux; the import itself takes some 100 MiB


@pytest.mark.parametrize(
    "content",
    [
        b"", b"x", struct.pack("<Q", 2**40) + b"{}", struct.pack("<Q", 2**63) + b"{}", struct.pack("<Q", 2) + b"{",
        struct.pack("<Q", 2) + b"[]",
        struct.pack("<Q", 71) + b'{"x":{"dtype":"F32","shape":[1000000000],"data_offsets":[0,4000000000]}}',
        struct.pack("<Q", 10**5) + b"[" * 10**5,
    ],
)  # fmt: skip
def test_headers_that_lie_are_refused_in_no_time(tmp_path, content):
    (tmp_path / "x.safetensors").write_bytes(content)
    began = time.monotonic()
    with pytest.raises(InputError, match="x.safetensors is damaged or no safetensors file"):
        with open_weights(tmp_path / "x.safetensors"):
            pass
    assert time.monotonic() - began < 5


def test_another_suffix_is_refused(tmp_path):
    with pytest.raises(InputError, match="x.gguf: weights are a .safetensors or .ckpt file"):
        with open_weights(tmp_path / "x.gguf"):
            pass


def layer():
    with torch.device("meta"):
        return nn.Conv2d(3, 2, 1)


def test_a_module_is_filled_in_float32_and_a_linear_weight_is_a_1_x_1_convolution(tmp_path):
    stored = {
        "w": torch.arange(6).reshape(2, 3).half(),
        "b": torch.ones(2, dtype=torch.bfloat16),
        "more": torch.ones(1),
    }
    save_file(stored, tmp_path / "x.safetensors")
    conv = layer()
    with open_weights(tmp_path / "x.safetensors") as weights:
        fill(conv, {"weight": "w", "bias": "b"}, weights)
    assert conv.weight.shape == (2, 3, 1, 1) and conv.weight.flatten().tolist() == [0, 1, 2, 3, 4, 5]
    assert conv.weight.dtype == conv.bias.dtype == torch.float32


@pytest.mark.parametrize(
    ("weight", "said"),
    [
        (torch.ones(3, 2), r"w is \(3, 2\), expected \(2, 3, 1, 1\)"),
        (torch.ones(2, 3, 1, 2), r"w is \(2, 3, 1, 2\)"),
        (torch.ones(2, 3, dtype=torch.int8), "w holds torch.int8"),
        (None, "the weight w is missing"),
    ],
)
def test_weights_that_do_not_fit_are_refused(tmp_path, weight, said):
    save_file({"b": torch.ones(2), **({} if weight is None else {"w": weight})}, tmp_path / "x.safetensors")
    with open_weights(tmp_path / "x.safetensors") as weights, pytest.raises(InputError, match=said):
        fill(layer(), {"weight": "w", "bias": "b"}, weights)
