"""Inception Score and IC-LPIPS against the packages' own code, and what is said where they cannot be had."""

import functools
import sys

import numpy as np
import pytest
import torch

from adiff.datasets.readers import read_dataset
from adiff.errors import InputError
from adiff.evaluation import published
from adiff.evaluation.material import read_run
from adiff.evaluation.published import InceptionReader, LpipsReader, check_packages, measure_published, weights_file
from adiff.evaluation.quality import class_score
from adiff.evaluation.splits import split_shots

NET = "squeeze"
"""The smallest of the networks that lpips looks through."""


@pytest.fixture(scope="module")
def trunk(tmp_path_factory):
    """Random weights as torchvision names them."""
    pytest.importorskip("lpips")
    from torchvision.models import squeezenet1_1

    path = tmp_path_factory.mktemp("weights") / "squeeze.pth"
    torch.save(squeezenet1_1(weights=None).state_dict(), path)
    return path


@pytest.fixture(scope="module")
def inception(tmp_path_factory):
    """torch-fidelity's network with random weights, and their file."""
    module = pytest.importorskip("torch_fidelity.feature_extractor_inceptionv3")

    class Random(module.FeatureExtractorInceptionV3):
        def load_state_dict(self, state_dict):
            pass

    path = tmp_path_factory.mktemp("weights") / "inception.pth"
    torch.save({}, path)
    network = Random("inception", ["logits_unbiased"], str(path))
    torch.save(network.state_dict(), path)
    return network, path


def image(seed, size=40):
    return np.random.default_rng(seed).integers(0, 256, (size, size, 3), np.uint8)


@pytest.mark.parametrize("images, parts", [(40, 10), (37, 10), (12, 1)])
def test_our_score_is_torch_fidelitys(images, parts):
    metric = pytest.importorskip("torch_fidelity.metric_isc")
    logits = torch.randn(images, 30, generator=torch.Generator().manual_seed(images)) * 3
    due = metric.isc_features_to_metric(logits, splits=parts, shuffle=False)
    p = logits.double().softmax(1).numpy()
    mean, deviation = class_score(p, parts)
    assert mean == pytest.approx(due[metric.KEY_METRIC_ISC_MEAN], abs=1e-6)
    assert deviation == pytest.approx(due[metric.KEY_METRIC_ISC_STD], abs=1e-6)


def test_our_distance_is_that_of_lpips(trunk):
    reader = LpipsReader(trunk, 32, NET)
    one, other = image(1, 32), image(2, 32)
    x, y = (torch.from_numpy(i).permute(2, 0, 1)[None].float() / 127.5 - 1 for i in (one, other))
    due = float(reader.whole(x, y))
    assert due > 1e-3 and reader.distance(reader(one), reader(other)) == pytest.approx(due, abs=1e-6)
    assert reader.distance(reader(one), reader(one)) == 0


def test_the_trunks_weights_are_the_files(trunk):
    reader, state = LpipsReader(trunk, 32, NET), torch.load(trunk, weights_only=True)
    assert torch.equal(reader.whole.net.slice1[0].weight, state["features.0.weight"])
    assert torch.equal(reader.whole.net.slice3[1].squeeze.weight, state["features.6.squeeze.weight"])


def test_the_classes_are_torch_fidelitys(inception):
    network, path = inception
    one = image(3)
    due = network(torch.from_numpy(one).permute(2, 0, 1)[None])[0][0]
    assert torch.equal(InceptionReader(path)(one), due) and due.shape == (1008,)


def test_a_run_is_measured_and_files_and_packages_are_recorded(work, trunk, monkeypatch):
    pytest.importorskip("torch_fidelity")
    random = torch.Generator().manual_seed(0)
    monkeypatch.setattr(published, "InceptionReader", lambda path: lambda image: torch.randn(7, generator=random))
    monkeypatch.setattr(published, "LpipsReader", functools.partial(LpipsReader, net=NET))
    shots, _ = split_shots(read_dataset(work.data, ["metal"], ["scratch"]), ("metal", "scratch"), 2)
    record = measure_published([read_run(work.run)], shots, inception=trunk, vgg=trunk, size=32)
    assert 1 <= record["inception_score"] <= 7 and record["inception_score_deviation"] is None
    assert record["ic_lpips"] > 0 and sum(record["clusters"]) == record["images"] == 8
    assert {name: len(one["sha256"]) for name, one in record["networks"].items()} == {"inception": 64, "vgg": 64}
    assert set(record["packages"]) == {"torch-fidelity", "lpips", "torchvision"}


def test_files_of_other_networks_are_refused(trunk, tmp_path):
    torch.save({"features.0.weight": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(InputError, match="does not hold torchvision's network"):
        LpipsReader(tmp_path / "other.pth", 32, NET)
    torch.save([object], tmp_path / "code.pth")
    for reader in (InceptionReader, functools.partial(LpipsReader, net=NET)):
        with pytest.raises(InputError, match="more than weights"):
            reader(tmp_path / "code.pth")


def test_a_network_that_is_not_inception_is_refused(trunk):
    pytest.importorskip("torch_fidelity")
    with pytest.raises(InputError, match="does not hold torch-fidelity's Inception-v3"):
        InceptionReader(trunk)


def test_weights_that_cannot_be_had_are_said_and_an_alternative_named(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))

    def nothing(url, path, digest, progress):
        assert (digest, progress) == ("397923af", False)
        raise OSError("no way out")

    monkeypatch.setattr(torch.hub, "download_url_to_file", nothing)
    with pytest.raises(InputError, match=r"VGG-16 could not be had .*no way out.* --lpips FILE, or --features FILE"):
        weights_file(None, published.VGG_URL, "VGG-16", "--lpips")
    with pytest.raises(FileNotFoundError, match="no file of weights at"):
        weights_file(tmp_path / "none.pth", published.VGG_URL, "VGG-16", "--lpips")
    (tmp_path / "checkpoints" / "vgg16-397923af.pth").write_bytes(b"x")
    found = weights_file(None, published.VGG_URL, "VGG-16", "--lpips")  # downloaded before
    assert found == tmp_path / "checkpoints" / "vgg16-397923af.pth"


def test_packages_that_are_missing_are_said_and_an_alternative_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "lpips", None)
    with pytest.raises(InputError, match=r"pip install 'anomaly-diffusion\[quality\]', or --features FILE"):
        check_packages()
