"""Which device is taken, which one may be asked for, and what counts as a lack of its memory."""

import pytest
import torch

from adiff import devices
from adiff.backbone import load_backbone
from adiff.devices import best_device, free_cache, is_out_of_memory
from adiff.errors import InputError


class Kind:
    """torch's module for a kind of GPU, of which there are some."""

    def __init__(self, count):
        self.count, self.emptied = count, 0

    def is_available(self):
        return self.count > 0

    def device_count(self):
        return self.count

    def empty_cache(self):
        self.emptied += 1


@pytest.fixture
def there(monkeypatch):
    """Pretend that there are so many GPUs of each kind; returns torch's modules for them."""

    def pretend(**counts):
        kinds = {kind: Kind(counts.get(kind, 0)) for kind in devices.GPUS}
        for kind, module in kinds.items():
            monkeypatch.setattr(torch, kind, module)
        monkeypatch.setattr(torch.backends, "mps", kinds["mps"])
        return kinds

    monkeypatch.delenv("ADIFF_DEVICE", raising=False)
    return pretend


@pytest.mark.parametrize(
    ("counts", "taken"),
    [({}, "cpu"), ({"cuda": 2}, "cuda"), ({"xpu": 1}, "xpu"), ({"mps": 1}, "mps"), ({"cuda": 1, "xpu": 1}, "cuda")],
)
def test_the_gpu_is_taken_if_there_is_one(there, counts, taken):
    there(**counts)
    assert best_device() == torch.device(taken)


@pytest.mark.parametrize("asked", ["cpu", "cuda", "cuda:1", "mps"])
def test_what_is_asked_for_is_taken(there, monkeypatch, asked):
    there(cuda=2, mps=1)
    monkeypatch.setenv("ADIFF_DEVICE", asked)
    assert best_device() == torch.device(asked)


@pytest.mark.parametrize("asked", ["cuda:2", "xpu", "gpu", "cuda:x", "meta"])
def test_a_device_that_is_not_there_is_refused_with_those_that_are(there, monkeypatch, asked):
    there(cuda=2, mps=1)
    monkeypatch.setenv("ADIFF_DEVICE", asked)
    with pytest.raises(InputError, match=f"no device '{asked}' on this machine; there: cpu, cuda:0, cuda:1, mps:0$"):
        best_device()


@pytest.mark.parametrize(("rank", "asked"), [("0", ""), ("1", ""), ("1", "cuda")])
def test_each_process_of_a_launcher_computes_on_its_own_gpu(there, monkeypatch, rank, asked):
    """Whatever the command: all load the base model in one way."""
    there(cuda=2)
    for name, value in {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": "2", "ADIFF_DEVICE": asked}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("adiff.backbone.diffusers_host.DiffusersBackbone", lambda name, parts, device, *_: device)
    assert load_backbone("demo") == torch.device(f"cuda:{rank}")
    monkeypatch.setenv("ADIFF_DEVICE", "cpu")
    assert best_device() == torch.device("cpu")
    monkeypatch.setenv("ADIFF_DEVICE", "cuda:1")
    with pytest.raises(InputError, match="cuda:1 is a single GPU, .* give --device cuda"):
        best_device()
    there(cuda=1)
    monkeypatch.setenv("ADIFF_DEVICE", "cuda")
    monkeypatch.setenv("LOCAL_RANK", "1")
    with pytest.raises(InputError, match="process 2 on this machine has no GPU of its own, of 1 GPU;"):
        best_device()


@pytest.mark.parametrize(("wanted", "device"), [("True", "cpu"), ("False", "cuda")])
def test_the_launcher_may_want_the_cpu(there, monkeypatch, wanted, device):
    there(cuda=1)
    monkeypatch.setenv("ACCELERATE_USE_CPU", wanted)
    assert best_device() == torch.device(device)


def test_cached_memory_is_given_back_on_every_gpu(there):
    kinds = there(cuda=1, mps=1)
    free_cache()
    assert {name: kind.emptied for name, kind in kinds.items()} == {"cuda": 1, "xpu": 0, "mps": 1}


def test_each_kind_s_lack_of_memory_is_known():
    assert is_out_of_memory(torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"))
    assert is_out_of_memory(RuntimeError("MPS backend out of memory (MPS allocated: 5.0 GB, max allowed: 18.1 GB)"))
    assert is_out_of_memory(RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 4 bytes"))
    assert not is_out_of_memory(RuntimeError("shapes cannot be multiplied"))
