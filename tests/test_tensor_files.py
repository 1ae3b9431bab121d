"""Files of tensors: what is written is what safetensors reads, and nothing else lies beside it meanwhile."""

import pytest
import torch
from safetensors.torch import load_file

from adiff.tensor_files import NAMES, open_safetensors, write_tensors


@pytest.mark.parametrize("dtype", NAMES)
def test_what_is_written_is_read_by_safetensors(tmp_path, dtype):
    path, rng = tmp_path / "a.safetensors", torch.Generator().manual_seed(0)
    whole = (100 * torch.randn(3, 5, generator=rng)).to(dtype)
    tensors = {"é": whole, "turned": whole.T, "part": whole[:, 1:3], "one": whole[0, 0], "none": whole[:0]}
    write_tensors(path, tensors, {"told": '{"a": "ü"}'})
    found = load_file(path)
    assert set(found) == set(tensors)
    assert all(torch.equal(found[name], tensor) and found[name].dtype == dtype for name, tensor in tensors.items())
    with open_safetensors(path, "file") as file:
        assert file.metadata() == {"told": '{"a": "ü"}'}


def test_nothing_else_is_written_that_a_killed_process_would_leave(tmp_path):
    seen = []

    class Watched(dict):
        def values(self):
            for value in super().values():
                seen.append([path.name for path in tmp_path.iterdir()])
                yield value

    write_tensors(tmp_path / "a.tmp", Watched(a=torch.zeros(2), b=torch.ones(2)), {})
    assert seen == [["a.tmp"]] * 2
