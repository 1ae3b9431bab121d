"""Networks of the user's that describe defects: which layer is taken, what it gives, files that are refused."""

import json
import shutil

import numpy as np
import pytest
import torch
from torch import nn
from torchvision import models
from transformers import BertConfig, BertModel, Dinov2WithRegistersConfig, Dinov2WithRegistersModel
from transformers.utils import logging

from adiff.errors import InputError
from adiff.features import DEVIATION, MEAN, SIDE, FeatureNetwork, as_map, load_features
from adiff.scoring import ShotReference, describe

SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}


@pytest.fixture(scope="module")
def images():
    return torch.rand(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0)) * 2 - 1


def scaled(images):
    """As torchvision's networks want them."""
    mean, deviation = (torch.tensor(values)[:, None, None] for values in (MEAN, DEVIATION))
    return ((images + 1) / 2 - mean) / deviation


@pytest.fixture(scope="module")
def shufflenet(tmp_path_factory):
    """torchvision's smallest, random, in a file named as it names them; with the network."""
    torch.manual_seed(0)
    network = models.shufflenet_v2_x0_5(weights=None).eval()
    path = tmp_path_factory.mktemp("weights") / "shufflenet_v2_x0_5-0123abcd.pth"
    torch.save(network.state_dict(), path)
    return path, network


@pytest.fixture(scope="module")
def dinov2(tmp_path_factory):
    """A small random DINOv2 with registers in a folder of Hugging Face's; with the network."""
    torch.manual_seed(0)
    network = Dinov2WithRegistersModel(Dinov2WithRegistersConfig(**SMALL, patch_size=14, image_size=518)).eval()
    folder = tmp_path_factory.mktemp("dinov2")
    network.save_pretrained(folder)
    return folder, network


def test_maps_of_channels_first_of_channels_last_and_of_tokens():
    first = torch.arange(2.0 * 3 * 4 * 4).reshape(2, 3, 4, 4)
    tokens = torch.cat([torch.zeros(2, 5, 3), first.flatten(2).transpose(1, 2)], 1)
    for output in (first, first.permute(0, 2, 3, 1), tokens, tokens[:, 5:], (tokens, None)):
        assert torch.equal(as_map(output), first)
    too_many = torch.zeros(2, 9 + 16, 3)  # is 5 x 5
    assert as_map(too_many).shape == (2, 3, 5, 5) and as_map(torch.zeros(2, 15 + 16 + 3, 3)) is None
    assert as_map(torch.zeros(2, 3)) is None and as_map(torch.zeros(2, 4, 4, 3).long()) is None and as_map(()) is None


def test_the_third_stage_of_a_file_of_torchvisions(shufflenet, images):
    path, network = shufflenet
    features = load_features(path)
    x = scaled(images)
    with torch.no_grad():
        due = network.stage3(network.stage2(network.maxpool(network.conv1(x))))
    assert torch.allclose(features.encode(images), due, atol=1e-5) and due.shape[2:] == (14, 14)
    about = features.record()
    assert (about["network"], about["layer"], len(about["sha256"])) == ("shufflenet_v2_x0_5", "stage3", 64)


def test_other_classes_and_half_precision_are_no_matter(shufflenet, images, tmp_path):
    path, network = shufflenet
    state = {name: value.half() if value.is_floating_point() else value for name, value in network.state_dict().items()}
    state["fc.weight"], state["fc.bias"] = torch.zeros(3, 1024), torch.zeros(3)
    torch.save(state, tmp_path / path.name)
    found, due = (load_features(one).encode(images) for one in (tmp_path / path.name, path))
    assert torch.allclose(found, due, atol=0.05) and not torch.equal(found, due)


def test_the_cells_tokens_of_a_folder_of_hugging_faces(dinov2, images):
    folder, network = dinov2
    (folder / "preprocessor_config.json").unlink(missing_ok=True)
    features = load_features(folder)
    with torch.no_grad():
        tokens = network(scaled(images)).last_hidden_state[:, 5:]
    assert torch.allclose(features.encode(images), tokens.transpose(1, 2).reshape(2, 32, 16, 16), atol=1e-5)
    assert features.record()["network"] == "Dinov2WithRegistersModel"
    told = {"image_mean": [0.5] * 3, "image_std": [0.25] * 3}
    (folder / "preprocessor_config.json").write_text(json.dumps(told))
    with torch.no_grad():
        tokens = network(((images + 1) / 2 - 0.5) / 0.25).last_hidden_state[:, 5:]
    found = load_features(folder).encode(images)
    assert torch.allclose(found, tokens.transpose(1, 2).reshape(2, 32, 16, 16), atol=1e-5)


class Twice(nn.Module):
    """Its activation is used at two sizes, its block gives less than what is in it, and a long sequence does too."""

    def __init__(self):
        super().__init__()
        self.stem, self.relu = nn.Conv2d(3, 4, 16, 16), nn.ReLU()
        self.features = nn.Sequential(nn.Conv2d(4, 5, 1), Block())

    def forward(self, x):
        return self.features(self.relu(self.relu(self.stem(x))))


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner, self.pool = nn.Conv2d(5, 6, 1), nn.MaxPool2d(2)

    def forward(self, x):
        return self.pool(self.inner(x))


def test_no_layer_inside_a_block_that_coarsens_and_none_that_is_used_twice():
    network = Twice()
    assert FeatureNetwork(network, "twice", "0").layer == "features.0"
    network.features[0] = nn.Identity()
    network.features[1] = nn.MaxPool2d(2)
    network.relu = nn.ReLU()
    assert FeatureNetwork(network, "twice", "0").layer == "features.0"
    del network.features[0]
    assert FeatureNetwork(network, "twice", "0").layer == "stem"
    with pytest.raises(InputError, match="twice has no layer of 14 x 14 cells"):
        FeatureNetwork(nn.Sequential(nn.Conv2d(3, 4, 32, 32)), "twice", "0")


def test_defects_are_described_by_it(shufflenet):
    """f: mean and deviation of the map under the mask, which covers half of the view here."""
    features = load_features(shufflenet[0])
    rng = np.random.default_rng(0)
    image, mask = rng.integers(0, 255, (SIDE, SIDE, 3), np.uint8), np.zeros((SIDE, SIDE), bool)
    mask[:, : SIDE // 2] = True
    found = describe(features, [image], [mask])[0]
    z = features.encode(torch.from_numpy(image).permute(2, 0, 1)[None].float() / 127.5 - 1)[0, :, :, :7].flatten(1)
    assert np.allclose(found, torch.cat([z.mean(1), z.std(1, correction=0)]).numpy(), atol=1e-4)
    shots = ShotReference(mask[None], found[None], features, ("a.png",))
    assert np.array_equal(shots.describe(None, image, mask), found) and shots.record()["shots"] == ["a.png"]
    assert ShotReference(mask[None]).record() is None


def test_loading_leaves_the_bars_and_words_of_transformers_as_they_were(dinov2):
    before = logging.get_verbosity(), logging.is_progress_bar_enabled()
    load_features(dinov2[0])
    assert (logging.get_verbosity(), logging.is_progress_bar_enabled()) == before and before[1]


def test_weights_that_are_not_finite_are_refused(shufflenet, tmp_path):
    path, network = shufflenet
    state = {name: value.clone() for name, value in network.state_dict().items()}
    state["conv1.0.weight"][0] = float("nan")
    torch.save(state, tmp_path / path.name)
    with pytest.raises(InputError, match="shufflenet_v2_x0_5 gives numbers that are not finite"):
        load_features(tmp_path / path.name)


def test_what_is_no_network_is_refused(shufflenet, dinov2, tmp_path):
    path, network = shufflenet
    with pytest.raises(FileNotFoundError, match="no file or folder of a network"):
        load_features(tmp_path / "none.pth")
    other = tmp_path / "mine.pth"
    torch.save(network.state_dict(), other)
    with pytest.raises(InputError, match="mine.pth does not begin with the name of one of torchvision's networks"):
        load_features(other)
    with pytest.raises(InputError, match="holds other weights than resnet18's, as its name says: conv1.weight is miss"):
        load_features(other.rename(tmp_path / "resnet18-mine.pth"))
    torch.save([1, 2], tmp_path / path.name)
    with pytest.raises(InputError, match="no table of weights"):
        load_features(tmp_path / path.name)
    (tmp_path / path.name).write_bytes(path.read_bytes()[:5000])
    with pytest.raises(InputError, match="is damaged"):
        load_features(tmp_path / path.name)
    with pytest.raises(InputError, match="lacks config.json or model.safetensors"):
        load_features(tmp_path)
    BertModel(BertConfig(**SMALL, intermediate_size=32, vocab_size=50)).save_pretrained(tmp_path / "bert")
    with pytest.raises(InputError, match="BertModel cannot look at an image of 224 pixels"):
        load_features(tmp_path / "bert")
    (tmp_path / "bert" / "model.safetensors").write_bytes(b"x" * 100)
    with pytest.raises(InputError, match="is not a whole safetensors file"):
        load_features(tmp_path / "bert")


@pytest.mark.parametrize("changed, said", [
    ({"hidden_size": 10**9}, "has a number of 1000000000; no network is that large"),
    ({"num_hidden_layers": 10_000}, "more than 256 layers"),
    ({"hidden_size": 2048}, "far fewer than config.json tells of"),
    ({"num_hidden_layers": 3, "hidden_size": 32}, r"lacks \d+ of the network's weights, the first is encoder.layer.2."),
    ({"model_type": "nothing"}, "cannot be loaded"),
])  # fmt: skip
def test_a_folder_whose_config_is_anothers_is_refused(dinov2, tmp_path, changed, said):
    """Without building what it tells of, and nothing is left random."""
    folder = tmp_path / "dinov2"
    shutil.copytree(dinov2[0], folder)
    told = json.loads((folder / "config.json").read_bytes())
    (folder / "config.json").write_text(json.dumps({**told, **changed}))
    with pytest.raises(InputError, match=said):
        load_features(folder)
