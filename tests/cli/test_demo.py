"""`adiff demo` leaves what it promises, keeps to its own folder and learns withheld defects."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import adiff.generation
from adiff.cli.demo import DEFECTS, SHOTS, _Demo
from adiff.datasets.images import read_photo, write_png
from adiff.datasets.readers import read_dataset
from adiff.datasets.surfaces import WITHHELD
from adiff.generation import RunResult
from adiff.library import load_library


@pytest.fixture
def painted(monkeypatch):
    """Stand-in for the run: darkens a square of each normal and writes a run folder."""

    def generate_run(backbone, library, key, encoder, normals, masks, *, count, out, settings, seed, progress):
        records = []
        for index in range(count):
            normal = normals[index % len(normals)]
            mask = np.zeros((128, 128), bool)
            mask[30:60, 40:70] = True
            image = np.where(mask[..., None], np.uint8(0), read_photo(normal).rgb)
            write_png(out / "image" / f"{index:05d}.png", image)
            write_png(out / "mask" / f"{index:05d}_mask.png", mask)
            measures = {"fill": 0.9, "leak": 0.0, "area": float(mask.mean()), "components": 1.0}
            records.append({"id": f"{index:05d}", "product": key[0], "defect": key[1], "normal": normal.name,
                            "seed": seed, "mask": {"iou": 0.6}, **measures})  # fmt: skip
        return RunResult(out, records, 1.0)

    monkeypatch.setattr(adiff.generation, "generate_run", generate_run)
    monkeypatch.setattr("adiff.cli.demo.ANOMALY", {"steps": 2, "draws": 1})
    monkeypatch.setattr("adiff.cli.demo.MASK", {"steps": 2, "draws": 1})
    monkeypatch.setattr("adiff.cli.demo.IMAGES", SHOTS)


def test_the_demo_leaves_what_it_promises(run, tiny, painted, tmp_path):
    out = tmp_path / "demo"
    result = run("demo", "--out", out, "--pairs", "4", "--seed", "2")
    assert result.exit_code == 0, result.stderr
    promised = {"data", "library.safetensors", "encoder.safetensors", "runs", "dataset", "contact_sheet.png",
                "report.html", "report.json"}  # fmt: skip
    assert {path.name for path in out.iterdir()} == promised
    assert {path.name for path in (out / "runs").iterdir()} == {"-".join(key) for key in DEFECTS}
    library = load_library(out / "library.safetensors")
    assert set(library.defects) == set(DEFECTS)
    assert all(len(entry.info["shots"]) == SHOTS for entry in library.defects.values())
    report = json.loads((out / "report.json").read_text())
    assert len(report["pairs"]) == 4 and report["settings"]["demo"]["seed"] == 2
    assert {"surfaces", "learn defects", "learn masks", "generate", "data set and sheet"} <= set(report["seconds"])
    assert Image.open(out / "contact_sheet.png").width > 800
    assert "metal/scratch" in result.stdout and "0.90" in result.stdout and "report.html" in result.stdout


def test_the_data_set_holds_the_pairs_and_the_normals(run, tiny, painted, tmp_path):
    run("demo", "--out", tmp_path / "demo", "--pairs", "4")
    dataset = read_dataset(tmp_path / "demo" / "dataset")
    assert {key: len(shots) for key, shots in dataset.shots.items()} == dict(zip(DEFECTS, (2, 1, 1), strict=True))
    shot = dataset.shots["metal", "scratch"][0]
    pixels, mask = np.asarray(Image.open(shot.image)), np.asarray(Image.open(shot.mask)) > 0
    assert not pixels[mask].any() and mask.sum() == 900
    for product, _ in DEFECTS:
        for path in dataset.normals[product]:
            original = tmp_path / "demo" / "data" / product / "train" / "good" / path.name
            assert np.array_equal(np.asarray(Image.open(path)), np.asarray(Image.open(original)))


def test_a_demo_that_is_stopped_before_its_first_photo_says_that_nothing_is_there(run, tmp_path, monkeypatch):
    def stopped(*_args, **_options):
        raise KeyboardInterrupt

    monkeypatch.setattr("adiff.backbone.load_backbone", stopped)
    result = run("demo", "--out", tmp_path / "demo")
    assert result.exit_code == 130 and "nothing was written" in result.stderr and not (tmp_path / "demo").exists()


def test_an_interrupted_demo_goes_on(run, tiny, painted, tmp_path, monkeypatch):
    out = tmp_path / "demo"
    whole = adiff.generation.generate_run

    def break_off(*_, out, **__):
        return RunResult(out, [], 1.0, cancelled=True)

    monkeypatch.setattr(adiff.generation, "generate_run", break_off)
    result = run("demo", "--out", out, "--pairs", "3")
    assert result.exit_code == 130 and "the same command goes on" in result.stderr
    learned = (out / "library.safetensors").read_bytes()
    assert not (out / "report.json").exists()
    monkeypatch.setattr(adiff.generation, "generate_run", whole)
    assert run("demo", "--out", out, "--pairs", "3").exit_code == 0
    assert (out / "library.safetensors").read_bytes() == learned and (out / "report.html").exists()


def test_foreign_finished_and_other_folders_are_refused(run, refused, tmp_path, listing):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    (tmp_path / "done").mkdir()
    (tmp_path / "done" / "report.json").write_text("{}")
    before = listing(tmp_path)
    assert "holds no demo" in refused("demo", "--out", tmp_path / "mine")
    assert "is a file" in refused("demo", "--out", tmp_path / "mine" / "notes.txt")
    assert "finished demo" in refused("demo", "--out", tmp_path / "done")
    assert listing(tmp_path) == before


def test_the_demo_learns_what_the_model_has_not_seen():
    assert len(DEFECTS) >= 3 and set(DEFECTS) <= set(WITHHELD)


def test_pairs_are_shared_out():
    shares = {pairs: list(_Demo(Path(), pairs, 0)._shares().values()) for pairs in (1, 3, 24, 26)}
    assert shares == {1: [1], 3: [1, 1, 1], 24: [8, 8, 8], 26: [9, 9, 8]}
