"""Quality: both formulas by hand, and on a network from a file."""

import math

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from adiff.datasets.readers import read_dataset
from adiff.errors import InputError
from adiff.evaluation.material import read_run
from adiff.evaluation.quality import class_score, cluster_distance, measure_quality, stage_distance
from adiff.evaluation.resnet import build_network, load_network
from adiff.evaluation.splits import split_shots


def test_the_score_by_hand():
    assert class_score(np.full((8, 4), 0.25), 1) == (pytest.approx(1), 0)  # nothing is told
    assert class_score(np.eye(4)[[0, 1, 2, 3] * 2], 2) == (pytest.approx(4), pytest.approx(0))  # all of it, evenly
    p = np.array([[0.9, 0.1], [0.3, 0.7]])
    kl = [0.9 * math.log(0.9 / 0.6) + 0.1 * math.log(0.1 / 0.4), 0.3 * math.log(0.3 / 0.6) + 0.7 * math.log(0.7 / 0.4)]
    assert class_score(p, 1)[0] == pytest.approx(math.exp(sum(kl) / 2))
    with pytest.raises(InputError, match="2 images for a score over 3 parts"):
        class_score(p, 3)


def points(*values):
    return [(torch.tensor([[[float(value)]]]),) for value in values]


def test_the_distance_within_clusters_by_hand():
    """Around 0: 1, 2, 4, squared distances 1, 4, 9; around 10: 9 and 12, 9; around 100: one, which has none."""
    value, sizes = cluster_distance(points(1, 9, 2, 12, 4, 99), points(0, 10, 100), stage_distance)
    assert value == pytest.approx(((1 + 4 + 9) / 3 + 9) / 2) and sizes == [3, 2, 1]
    value, sizes = cluster_distance(points(1, 2, 4), points(0), stage_distance, most=2)
    assert value == pytest.approx(1) and sizes == [3]
    assert cluster_distance(points(1), points(0), stage_distance) == (None, [1])


def test_the_distance_of_maps_by_hand():
    a = torch.zeros(2, 1, 2), torch.zeros(1, 1, 1)
    b = torch.tensor([[[1.0, 0.0]], [[2.0, 0.0]]]), torch.full((1, 1, 1), 3.0)
    assert stage_distance(a, b) == pytest.approx((1 + 4) / 2 + 9)


def test_a_run_is_measured_on_a_network_from_a_file(work, tmp_path, stopper):
    source, file = build_network(7, None, 5), tmp_path / "w.pth"
    torch.save(source.state_dict(), file)
    network = build_network(3, file, 0)
    assert torch.equal(network.conv1.weight, source.conv1.weight) and network.fc.out_features == 3
    dataset = read_dataset(work.data, ["metal"], ["scratch"])
    shots, _ = split_shots(dataset, ("metal", "scratch"), 2)
    bar = stopper()
    record = measure_quality([read_run(work.run)], shots, file, size=32, progress=bar)
    places = [done for done, _ in bar.told]
    assert places == sorted(places) and places[-1] == 8  # it does not go back for the second round
    assert 1 <= record["class_score"] <= 7 and record["class_score_deviation"] is None
    assert sum(record["clusters"]) == record["images"] == 8 and record["cluster_distance"] > 0
    assert record["network"]["file"] == "w.pth" and len(record["network"]["sha256"]) == 64
    twice = measure_quality([read_run(work.run)] * 2, shots, file, size=32)
    assert twice["images"] == 16 and twice["clusters"] == [2 * size for size in record["clusters"]]
    assert not {name for name in record if "inception" in name.lower() or "lpips" in name.lower()}


def test_other_files_are_refused(tmp_path):
    save_file({"conv1.weight": torch.zeros(64, 3, 7, 7)}, tmp_path / "part.safetensors")
    (tmp_path / "broken.safetensors").write_bytes(b"x")
    torch.save([1], tmp_path / "list.pth")
    wrong = {"part.safetensors": "no ResNet-34", "broken.safetensors": "not a whole", "list.pth": "no table"}
    for name, said in wrong.items():
        with pytest.raises(InputError, match=said):
            load_network(tmp_path / name)
    with pytest.raises(FileNotFoundError, match="no file of weights at"):
        load_network(tmp_path / "none.pth")
