"""The localizer's networks: their shapes and channels, where they start from, and one that is not installed."""

import sys

import pytest
import torch

from adiff.errors import InputError
from adiff.evaluation.localizer import Example, LocalizerSettings, score, train_localizer
from adiff.evaluation.localizer_file import load_localizer, save_localizer
from adiff.evaluation.networks import NETWORKS, PRIOR, DraemNetwork, Localizer, new_network

OWN = ("small", "draem")


@pytest.mark.parametrize("kind", OWN)
def test_a_network_keeps_the_size_and_starts_from_the_prior(kind):
    network = new_network(kind, 8)
    assert network(torch.zeros(2, 3, 32, 64)).shape == (2, 1, 32, 64)
    assert network.head.bias.detach().sigmoid().numpy() == pytest.approx(PRIOR, rel=1e-5)


@pytest.mark.parametrize("kind", OWN)
def test_an_image_scores_the_same_alone_and_in_a_batch(kind):
    network, x = new_network(kind, 8), torch.rand(3, 3, 32, 32)
    network(x)  # statistics of a batch, which must not be used below
    network.eval()
    assert torch.allclose(network(x)[1:2], network(x[1:2]), atol=1e-5)


def test_the_small_network_needs_no_statistics():
    network, x = Localizer(8), torch.rand(3, 3, 16, 16)
    assert torch.allclose(network(x)[1:2], network(x[1:2]), atol=1e-5)


def test_draem_has_the_channels_of_the_release():
    network = DraemNetwork(8)
    down = [tuple(block[0].weight.shape[:2]) for block in network.down]
    up = [tuple(block[0].weight.shape[:2]) for block in network.up]
    assert down == [(8, 3), (16, 8), (32, 16), (64, 32), (64, 64), (64, 64)]
    assert up == [(64, 64 + 64), (32, 32 + 64), (16, 16 + 32), (8, 8 + 16), (8, 8 + 8)]


def test_every_level_of_draem_reaches_the_result():
    network, x = DraemNetwork(8).eval(), torch.rand(1, 3, 32, 32)
    network(x).sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for name, p in network.named_parameters() if "0." in name)


@pytest.mark.parametrize("kind", [*OWN, "smp"])
def test_it_is_trained_saved_and_opened(kind, tmp_path):
    if kind == "smp":
        pytest.importorskip("segmentation_models_pytorch")
    image, mask = torch.randint(255, (40, 32, 3), dtype=torch.uint8).numpy(), torch.zeros(40, 32).bool().numpy()
    mask[4:9, 5:9] = True
    settings = LocalizerSettings(kind, size=32, width=8, steps=2, batch=2, check_every=1)
    trained = train_localizer([], [Example(image, mask)], [image], [Example(image, mask)], settings=settings)
    save_localizer(tmp_path / "a.safetensors", trained)
    back = load_localizer(tmp_path / "a.safetensors")
    assert (back.kind, back.width, back.size) == (kind, 8, 32) and not back.network.training
    assert (score(back, image)[1] == score(trained, image)[1]).all() and score(back, image)[1].shape == (40, 32)


def test_each_network_has_its_own_width_and_rate():
    for name, kind in NETWORKS.items():
        settings = LocalizerSettings(name)
        assert (settings.width, settings.lr) == (kind.width, kind.lr)
    assert LocalizerSettings("draem", width=8, lr=0.5).lr == 0.5


def test_a_package_that_is_missing_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "segmentation_models_pytorch", None)
    with pytest.raises(InputError, match=r"smp needs segmentation-models-pytorch .* or choose small or draem"):
        new_network("smp", 16)
