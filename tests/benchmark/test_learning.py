"""What is learned once for all cells that share it."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from adiff.benchmark import learning as module
from adiff.benchmark.learning import KeptMasks
from adiff.benchmark.matrix import Recipe
from adiff.benchmark.pairs import make_runs
from adiff.datasets.images import Photo, read_photo, write_png
from adiff.generation.sources import Batch
from adiff.progress import NullProgress
from adiff.spatial_encoder import SpatialEncoder, fingerprint, load_encoder

from .conftest import TINY


class Source:
    """Masks of a column each, another every time."""

    def __init__(self):
        self.calls = []

    def masks(self, backbone, photos, batch):
        self.calls.append(list(batch.ids))
        found = []
        for number in batch.ids:
            mask = np.zeros((8, 8), bool)
            mask[:, number] = True
            found.append((mask, {"kind": "learned", "iou": len(self.calls)}))
        return found

    def record(self, base):
        return {"kind": "source"}


def test_masks_are_drawn_once_for_all_runs(backbone, tmp_path, monkeypatch):
    photos = [Photo(np.zeros((8, 8, 3), np.uint8), tmp_path)] * 2
    source = Source()
    kept = KeptMasks(source, tmp_path / "masks", 0)
    first = kept.masks(backbone, photos, Batch(0, 0, range(2)))
    again = KeptMasks(source, tmp_path / "masks", 0).masks(backbone, photos, Batch(0, 0, range(2)))
    assert source.calls == [[0, 1]] and kept.record(None) == {"kind": "source"}
    for (mask, record), (other, told) in zip(first, again, strict=True):
        assert np.array_equal(mask, other) and record == told and mask.sum() == 8
    (tmp_path / "masks" / "000001.json").unlink()  # killed before it was written
    kept.masks(backbone, photos, Batch(0, 0, range(2)))
    assert source.calls == [[0, 1], [0, 1]]
    (tried,) = kept.masks(backbone, photos[:1], Batch(5, 1, [1]))  # a further try at a pair, which wants another mask
    assert source.calls[2:] == [[1]] and tried[1]["iou"] == 3
    assert kept.masks(backbone, photos, Batch(0, 0, range(2)))[1][1]["iou"] == 2


@pytest.mark.parametrize(("spatial_tokens", "fixed"), [(None, True), (2, False)])
def test_the_encoder_is_the_given_one_or_learned_with_its_tokens(work, monkeypatch, spatial_tokens, fixed):
    monkeypatch.setattr(module, "SpatialEncoder", lambda variant, **more: SpatialEncoder("small", **more))  # is faster
    workshop, unit = work.bench().workshop, work.units[0]
    recipe = Recipe(tokens=2, spatial_tokens=spatial_tokens)
    learned = workshop.learn(unit, recipe, 0, NullProgress())
    entry = learned.library.defects["metal", "scratch"]
    assert entry.anomaly.shape == (2, 768) and learned.library.encoder_fingerprint == fingerprint(learned.encoder)
    assert (fingerprint(learned.encoder) == fingerprint(load_encoder(work.encoder)[0])) == fixed
    assert learned.encoder.tokens == (spatial_tokens or 4)
    assert entry.info["shots"] == ["metal/test/scratch/000.png", "metal/test/scratch/001.png"]


def test_what_was_learned_is_read_and_other_recipes_learn_their_own(work):
    workshop, unit = work.bench().workshop, work.units[0]
    plain = Recipe(spatial=False)
    first = workshop.learn(unit, plain, 0, NullProgress())
    assert first.encoder is None and first.library.encoder_fingerprint is None
    folders = set(workshop.out.iterdir())
    again = workshop.learn(unit, replace(plain, mask_tokens=2, real=True), 0, NullProgress())
    assert set(workshop.out.iterdir()) == folders
    key = "metal", "scratch"
    assert torch.equal(first.library.defects[key].anomaly, again.library.defects[key].anomaly)
    for other, seed in ((plain, 1), (replace(plain, shots=1), 0), (replace(plain, masked=False), 0)):
        embedding = workshop.learn(unit, other, seed, NullProgress()).library.defects[key].anomaly
        assert not torch.equal(first.library.defects[key].anomaly, embedding)
    assert len(set(workshop.out.iterdir())) == 4


def test_masks_are_placed_on_the_object_if_the_budget_says_so(work, data, tmp_path):
    """A dark part on grey: squares that are drawn elsewhere lie on it, in folders of their own."""
    part = np.zeros((64, 64), bool)
    part[30:62, 2:40] = True
    for number in range(4):
        write_png(data / "metal/train/good" / f"train{number}.png", np.where(part, 60, 200).astype(np.uint8))
    unit, recipe = work.units[0], Recipe(spatial=False)
    placed = work.bench(budget=replace(TINY, place="move")).workshop
    photos = [read_photo(path) for path in unit.split.train_normals[:3]]
    (source,) = placed.masks(unit, recipe, 0, NullProgress()).values()
    masks = [mask for mask, _ in source.masks(placed.backbone, photos, Batch(0, 0, range(3)))]
    assert all(mask.sum() == 24 * 24 and not (mask & ~part).any() for mask in masks)
    folders = set(placed.out.iterdir())
    stayed = work.bench().workshop
    (source,) = stayed.masks(unit, recipe, 0, NullProgress()).values()
    assert source.masks(stayed.backbone, photos, Batch(0, 0, range(3)))[0][0][10:34, 8:32].all()
    assert len(set(stayed.out.iterdir()) - folders) == 1
    assert "place" not in TINY.record() and placed.budget.record()["place"] == "move"


@pytest.mark.parametrize("source", ["crop-paste", "cutpaste", "draem"])
def test_pasted_pairs_lie_on_the_object_too(work, data, tmp_path, source):
    part = np.zeros((64, 64), bool)
    part[20:62, 2:50] = True
    for number in range(4):
        write_png(data / "metal/train/good" / f"train{number}.png", np.where(part, 60, 200).astype(np.uint8))
    recipe, folders = Recipe(source=source), []
    for place, always in (("stay", False), ("move", True)):
        workshop = work.bench(budget=replace(TINY, pairs=8, place=place)).workshop
        (run,) = make_runs(workshop, work.units[0], recipe, 0, tmp_path / "runs", NullProgress())
        masks = [read_photo(path).pixels > 0 for path in sorted((run.folder / "mask").iterdir())]
        assert len(masks) == 8 and any((mask & ~part).any() for mask in masks) != always
        folders.append(run.folder)
    assert folders[0] != folders[1]
