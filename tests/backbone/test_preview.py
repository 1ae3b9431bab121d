import pytest
import torch
from diffusers import AutoencoderTiny
from safetensors.torch import save_file

from adiff.backbone.preview import PreviewDecoder
from adiff.errors import InputError


@pytest.fixture(scope="module")
def tiny():
    torch.manual_seed(0)
    return AutoencoderTiny().eval()


@pytest.fixture
def file(tiny, tmp_path):
    """As the original project stores it: a list whose layer 0 is the clamp."""
    stored = {}
    for name, tensor in tiny.decoder.state_dict().items():
        _, number, rest = name.split(".", 2)
        stored[f"{int(number) + 1}.{rest}"] = tensor
    path = tmp_path / "taesd_decoder.safetensors"
    save_file(stored, path)
    return path


@torch.no_grad()
def test_the_original_layout_decodes_as_diffusers_does(tiny, file):
    latents = 3 * torch.randn(2, 4, 3, 5)
    out = PreviewDecoder(file)(latents)
    assert out.shape == (2, 3, 24, 40)
    assert torch.equal(out, tiny.decode(latents).sample)


@torch.no_grad()
def test_a_folder_of_diffusers_decodes_the_same(tiny, tmp_path):
    tiny.save_pretrained(tmp_path / "taesd")
    latents = torch.randn(1, 4, 2, 2)
    assert torch.equal(PreviewDecoder(tmp_path / "taesd")(latents.half()), tiny.decode(latents.half().float()).sample)


def test_other_files_are_refused(file, tmp_path):
    with pytest.raises(FileNotFoundError, match="no.safetensors is not there"):
        PreviewDecoder(tmp_path / "no.safetensors")
    save_file({"1.weight": torch.ones(2)}, tmp_path / "other.safetensors")
    with pytest.raises(InputError, match="no TAESD decoder"):
        PreviewDecoder(tmp_path / "other.safetensors")
    file.write_bytes(file.read_bytes()[:-10])
    with pytest.raises(InputError, match="not a whole safetensors file"):
        PreviewDecoder(file)
