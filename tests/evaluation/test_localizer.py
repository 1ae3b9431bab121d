"""The localizer: its loss, what it learns, which state it keeps, and its file."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from adiff.errors import InputError
from adiff.evaluation.localization import measure, measure_localization
from adiff.evaluation.localizer import Example, LocalizerSettings, focal_loss, score, train_localizer
from adiff.evaluation.localizer_file import load_localizer, save_localizer
from adiff.evaluation.material import read_run
from adiff.evaluation.metrics import average_precision
from adiff.evaluation.splits import read_split
from adiff.progress import Cancelled

TINY = LocalizerSettings(size=16, width=8, steps=40, batch=4, lr=1e-2, check_every=10)


def bright(seed, height=16, width=16):
    """Grey noise with a white square."""
    rng = np.random.default_rng(seed)
    image, mask = rng.integers(80, 120, (height, width, 3), np.uint8), np.zeros((height, width), bool)
    top, left = rng.integers(0, 10, 2)
    mask[top : top + 5, left : left + 5] = True
    image[mask] = 230
    return Example(image, mask)


def grey(seed, height=16, width=16):
    return np.random.default_rng(100 + seed).integers(80, 120, (height, width, 3), np.uint8)


@pytest.fixture(scope="module")
def trained():
    return train_localizer([], [bright(i) for i in range(4)], [grey(i) for i in range(3)], [bright(9)], settings=TINY)


def test_focal_loss_by_hand():
    logits = torch.tensor([[0.0, math.log(3)]])  # p = 1/2 and 3/4
    m = torch.tensor([[1.0, 0.0]])
    due = (0.5**2 * math.log(2) + 0.75**2 * math.log(4)) / 2
    assert float(focal_loss(logits, m, 2.0)) == pytest.approx(due)
    plain = torch.nn.functional.binary_cross_entropy_with_logits(logits, m)
    assert float(focal_loss(logits, m, 0.0)) == pytest.approx(float(plain))


def test_it_finds_what_it_was_shown(trained):
    defective, normals = [bright(i) for i in (20, 21, 22)], [grey(7), grey(8)]
    tested = measure(lambda image: score(trained, image), defective, normals, of="metal/scratch")
    assert tested.metrics["pixel_auroc"] > 0.95 and tested.metrics["pixel_ap"] > 0.5
    assert len(tested.per_image) == 3 and all(0 < ap <= 1 for ap in tested.per_image)


def test_the_same_seed_is_the_same_network_and_the_global_generator_is_left_alone():
    state = torch.get_rng_state()

    def make(seed):
        settings = LocalizerSettings(size=16, width=8, steps=3, batch=2)
        return train_localizer([bright(0)], [bright(1)], [grey(0)], settings=settings, seed=seed).network.state_dict()

    first, again, other = make(1), make(1), make(2)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)
    assert torch.equal(state, torch.get_rng_state())


def test_the_state_that_validation_chooses_is_kept_and_without_it_the_last():
    rng = np.random.default_rng(0)
    held = [Example(grey(50 + i), rng.random((16, 16)) < 0.3) for i in range(3)]  # nothing to be found: up and down
    settings = LocalizerSettings(size=16, width=8, steps=8, batch=2, lr=1e-2, check_every=1)
    kept = train_localizer([bright(0)], [], [grey(0)], held, settings=settings)
    curve = dict(kept.curve)
    assert list(curve) == list(range(1, 9)) and len(set(curve.values())) > 3 and kept.step < 8
    own = [average_precision(score(kept, one.image)[0].ravel(), one.mask.ravel()) for one in held]
    assert np.mean(own) == pytest.approx(curve[kept.step], abs=1e-4)
    last = train_localizer([bright(0)], [], [grey(0)], settings=settings)
    assert last.step == 8 and last.curve == ()


def test_real_and_synthetic_pairs_share_a_batch_as_asked():
    """With a real share of 1 the synthetic pairs, all of them nonsense, change nothing."""
    settings = LocalizerSettings(size=16, width=8, steps=2, batch=2, real_share=1.0)
    nonsense = [Example(grey(i), ~bright(i).mask) for i in range(3)]
    both, other = (
        train_localizer([bright(0)], pairs, [grey(0)], settings=settings).network.state_dict()
        for pairs in (nonsense, nonsense[::-1])
    )
    assert all(torch.equal(both[name], other[name]) for name in both)


@pytest.mark.parametrize("size", [(16, 16), (40, 23), (9, 70)])
def test_images_of_any_size_are_scored_at_their_own(trained, size):
    own, large = score(trained, grey(1, *size))
    assert own.shape == (16, 16) and large.shape == size and large.dtype == np.float32
    assert 0 <= large.min() and large.max() <= 1
    if size == (16, 16):
        assert np.array_equal(own, large)


def test_an_image_whose_mask_is_empty_counts_as_normal(trained):
    empty = Example(grey(7), np.zeros((16, 16), bool))
    with_normals, with_empty = (
        measure(lambda image: score(trained, image), [bright(20), *one], normals, of=None)
        for one, normals in (([], [grey(7)]), ([empty], []))
    )
    assert with_empty.metrics == with_normals.metrics and with_empty.metrics["image_auroc"] is not None
    assert with_empty.per_image == (*with_normals.per_image, None)


def test_undefined_metrics_are_none_and_said(trained, caplog):
    with caplog.at_level("WARNING", logger="adiff"):
        tested = measure(lambda image: score(trained, image), [bright(1)], [], of="metal/scratch")
    assert tested.metrics["image_auroc"] is None and tested.metrics["pixel_ap"] is not None
    assert "metal/scratch: undefined for 1 defective and 0 normal images: image_auroc" in caplog.text


def test_localization_says_once_of_each_defect_what_is_undefined(work, caplog):
    runs, settings = [read_run(work.run), read_run(work.holes)], LocalizerSettings(size=16, width=8, steps=1, batch=2)
    split = replace(read_split(work.data, "metal", {"scratch": 2, "hole": 2}), test_normals=())
    _, record = measure_localization(runs, split, settings=settings)
    assert record["metrics"]["image_auroc"] is None
    said = [line.split(" for ")[0] for line in caplog.messages if "undefined" in line]
    assert sorted(said) == ["metal/hole: undefined", "metal/scratch: undefined"]


def test_the_file_comes_back_and_others_are_refused(trained, tmp_path):
    save_localizer(tmp_path / "a.safetensors", trained)
    back = load_localizer(tmp_path / "a.safetensors")
    assert (back.size, back.step) == (16, trained.step)
    image = bright(3).image
    assert np.array_equal(score(back, image)[1], score(trained, image)[1])
    save_file({"x": torch.zeros(2)}, tmp_path / "b.safetensors")
    tensors = trained.network.state_dict()
    good = {"adiff_format": "1", "kind": "localizer", "size": "16", "step": "1", "network": "small", "width": "8"}
    for name, value in {"network": "huge", "width": "16", "size": "20", "step": "x"}.items():
        save_file(tensors, tmp_path / "changed.safetensors", {**good, name: value})
        with pytest.raises(InputError, match="damaged localizer"):
            load_localizer(tmp_path / "changed.safetensors")
    with pytest.raises(InputError, match="no localizer of format 1"):
        load_localizer(tmp_path / "b.safetensors")
    (tmp_path / "c.safetensors").write_bytes(b"abc")
    with pytest.raises(InputError, match="not a whole safetensors file"):
        load_localizer(tmp_path / "c.safetensors")
    with pytest.raises(FileNotFoundError, match="no localizer at"):
        load_localizer(tmp_path / "d.safetensors")


def test_bad_settings_no_pairs_and_a_stop(stopper):
    draem = {"network": "draem"}
    for bad in ({"size": 20}, {"width": 12}, {"steps": 0}, {"batch": 1}, {**draem, "size": 48}, {**draem, "size": 0}):
        with pytest.raises(InputError, match="expected"):
            LocalizerSettings(**bad)
    with pytest.raises(InputError, match="no network 'big'; choose from small, draem, smp"):
        LocalizerSettings(network="big")
    with pytest.raises(InputError, match="0 pairs and 1 normal images"):
        train_localizer([], [], [grey(0)], settings=TINY)
    with pytest.raises(InputError, match="1 pairs and 0 normal images"):
        train_localizer([bright(0)], [], [], settings=TINY)
    with pytest.raises(Cancelled):
        train_localizer([bright(0)], [], [grey(0)], settings=TINY, progress=stopper(2))
