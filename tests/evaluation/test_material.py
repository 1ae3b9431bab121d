"""What is opened: finished runs only, no pair that was painted into a test image, the shots that a library names."""

import json
import os

import numpy as np
import pytest
import torch

from adiff import run_record
from adiff.datasets.images import read_photo, write_png
from adiff.embedding import embedding_fingerprint
from adiff.errors import InputError
from adiff.evaluation import material
from adiff.evaluation.material import check_untaught, open_pairs, read_run, shots_of
from adiff.evaluation.splits import read_split
from adiff.library import Defect, Library
from adiff.rejection import put_back, reject_pairs
from adiff.run_record import read_records
from adiff.workers import Claims


def test_the_pairs_come_with_the_names_of_their_normal_images(work):
    run = read_run(work.run)
    pairs, names = open_pairs(run, read_split(work.data, "metal", {"scratch": 2}), 32)
    assert run.key == ("metal", "scratch") and names == [f"{i % 4:03d}.png" for i in range(8)]
    image, mask = work.defective("scratch pair 3", work.surface("train3"))
    assert np.array_equal(pairs[3].image, image) and np.array_equal(pairs[3].mask, mask)


def test_pairs_painted_into_test_images_do_not_teach(work, tmp_path):
    split = read_split(work.data, "metal", {"scratch": 2})
    of_test = work.defective("x", read_photo(work.root / "test" / "good" / "001.png").rgb)
    of_train = work.defective("y", read_photo(work.root / "train" / "good" / "001.png").rgb)
    elsewhere = work.defective("z")
    pairs = [("001.png", *of_test), ("001.png", *of_train), ("other.png", *elsewhere)]
    found, names = open_pairs(read_run(work.write_run(tmp_path / "mixed", pairs)), split, 32)
    assert names == ["001.png"] and np.array_equal(found[0].image, of_train[0])
    with pytest.raises(InputError, match="none of the 2 pairs .* painted into one of the 4 normal images"):
        open_pairs(read_run(work.write_run(tmp_path / "leaky", [pairs[0], pairs[2]])), split, 32)


def test_a_refined_mask_hides_no_pair_painted_into_a_test_image(work, tmp_path):
    """Where it was painted, and not where the refined mask is, a pair differs from its normal image."""
    split = read_split(work.data, "metal", {"scratch": 2})
    image, mask = work.defective("x", read_photo(work.root / "test" / "good" / "001.png").rgb)
    refined = mask & (np.cumsum(mask).reshape(mask.shape) > mask.sum() // 2)
    run = work.write_run(tmp_path / "refined", [("001.png", image, refined)])
    write_png(run / "mask" / "000000_asked.png", mask)
    with pytest.raises(InputError, match="none of the 1 pairs"):
        open_pairs(read_run(run), split, 32)


def test_a_pair_that_is_put_back_meanwhile_does_not_make_a_run_unfinished(work, monkeypatch):
    reject_pairs(work.run, [1])
    assert len(read_run(work.run).records) == 7
    broken_ids, back = run_record.broken_ids, []

    def asked(folder):  # after the pairs that exist are listed, and before those that were given up
        if not back:
            back.append(put_back(folder, [1]))
        return broken_ids(folder)

    monkeypatch.setattr(run_record, "broken_ids", asked)
    assert len(read_run(work.run).records) == 8


def test_a_run_of_other_masks_is_another_one(work):
    before = read_run(work.run).record()
    plan = json.loads((work.run / "run.json").read_text())
    (work.run / "run.json").write_text(json.dumps({**plan, "command": "moved"}))
    assert read_run(work.run).record() == before
    (work.run / "run.json").write_text(json.dumps({**plan, "filter": {"tries": 3}}))
    assert read_run(work.run).record() != before
    (work.run / "run.json").write_text(json.dumps(plan))
    record = next((work.run / "pairs").iterdir())
    record.write_text(json.dumps({**json.loads(record.read_text()), "files": ["of another mask"]}))
    assert read_run(work.run).record() != before


def test_unfinished_damaged_and_foreign_runs_are_refused(work, tmp_path):
    with pytest.raises(InputError, match="holds no run.json"):
        read_run(tmp_path)
    (work.run / "pairs" / "000007.json").unlink()
    with pytest.raises(InputError, match="has 7 of 8 pairs: it was interrupted, or .* completes it"):
        read_run(work.run)
    for path in (work.run / "pairs").iterdir():
        path.unlink()
    (work.run / "broken").mkdir()
    for number in range(8):
        (work.run / "broken" / f"{number:06d}.json").write_text("{}")
    with pytest.raises(InputError, match="has none of 8 pairs: all were rejected or could not be made"):
        read_run(work.run)
    plan = json.loads((work.run / "run.json").read_text())
    several = json.dumps({**plan, "defects": ["a", "b"]})
    for content, said in (("{", "damaged"), ("[]", "damaged"), (several, "several")):
        (work.run / "run.json").write_text(content)
        with pytest.raises(InputError, match=said):
            read_run(work.run)


def test_a_run_that_is_being_written_is_refused_until_it_is_whole(work, monkeypatch):
    last = work.run / "pairs" / "000007.json"
    content = last.read_text()
    last.unlink()
    with Claims(work.run) as claims:
        claims.take(0)
        with pytest.raises(InputError, match=f"has 7 of 8 pairs: process {os.getpid()} on .* is writing it; wait"):
            read_run(work.run)

    def read_meanwhile(folder):
        found = read_records(folder)
        last.write_text(content)
        return found

    monkeypatch.setattr(material, "read_records", read_meanwhile)  # the last pair comes just after
    with pytest.raises(InputError, match="of 8 pairs"):
        read_run(work.run)
    last.write_text(content)
    assert len(read_run(work.run).records) == 8


def test_the_library_of_the_run_says_which_shots_taught(work):
    embedding = torch.ones(8, 4)
    path = work.run / "run.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "embedding": embedding_fingerprint(embedding)}))
    names = ["metal/test/scratch/001.png"]

    def library(tensor):
        entry = Defect("metal", "scratch", tensor, info={"shots": names})
        return Library({entry.key: entry}, "f" * 64, "demo", 4)

    assert shots_of(read_run(work.run), library(embedding)) == names
    with pytest.raises(InputError, match="was not made with this library's metal/scratch"):
        shots_of(read_run(work.run), library(embedding + 1))


def test_a_run_that_names_its_shots_is_not_tested_on_them(work, caplog):
    path = work.run / "run.json"
    names = ["metal/test/scratch/000.png", "metal/test/scratch/001.png"]
    path.write_text(json.dumps({**json.loads(path.read_text()), "shots": names}))
    run = read_run(work.run)
    assert shots_of(run, None) == names
    check_untaught(run, read_split(work.data, "metal", {"scratch": names}))
    assert not caplog.records
    with pytest.raises(InputError, match="learned from 2 shots, and metal/test/scratch/001.png, one of them, would"):
        check_untaught(run, read_split(work.data, "metal", {"scratch": 1}))
    check_untaught(run, read_split(work.root, "metal", {"scratch": names}))  # the product's own folder
    assert "cannot be told" not in caplog.text
    with pytest.raises(InputError, match="and test/scratch/001.png, one of them, would test"):
        check_untaught(run, read_split(work.root, "metal", {"scratch": 1}))
    path.write_text(json.dumps({**json.loads(path.read_text()), "shots": ["old/007.png"]}))
    check_untaught(read_run(work.run), read_split(work.data, "metal", {"scratch": 1}))
    assert "learned from old/007.png, which is not in" in caplog.text and "cannot be told" in caplog.text
    path.write_text(json.dumps({**json.loads(path.read_text()), "shots": None}))
    assert shots_of(read_run(work.run), None) is None


def test_a_dual_run_needs_no_normal_images_and_tells_its_shots(work):
    path = work.run / "run.json"
    names = ["metal/test/scratch/001.png"]
    path.write_text(json.dumps({**json.loads(path.read_text()), "method": "dual", "shots": names}))
    for record in (work.run / "pairs").glob("*.json"):
        content = json.loads(record.read_text())
        content.pop("normal")
        record.write_text(json.dumps(content))
    run = read_run(work.run)
    assert shots_of(run, None) == names
    split = read_split(work.data, "metal", {"scratch": names})
    pairs, told = open_pairs(run, split, 32)
    assert len(pairs) == len(set(told)) == 8 and pairs[0].image.shape == (32, 32, 3)
