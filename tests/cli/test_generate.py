"""`adiff generate`: options reach the run, the right encoder is found, what does not fit is refused."""

import dataclasses

import pytest

import adiff.generation
from adiff.library import load_library, save_library
from adiff.spatial_encoder import SpatialEncoder, fingerprint, save_encoder


@pytest.fixture
def runs(monkeypatch):
    """Stand-in for the run: keeps what it was called with."""
    calls = []

    def generate_run(backbone, library, key, encoder, normals, masks, **options):
        calls.append({"key": key, "encoder": encoder, "normals": normals, "masks": masks, **options})
        pairs = [{"id": "00000", "fill": 0.75, "leak": 0.0, "area": 0.1}]
        return adiff.generation.RunResult(options["out"], pairs, 1.0)

    monkeypatch.setattr(adiff.generation, "generate_run", generate_run)
    return calls


@pytest.fixture
def start(run, library, data, tmp_path):
    def call(*options, defect="metal/scratch"):
        out = ("--normals", data / "metal/train/good", "--out", tmp_path / "run")
        return run("generate", library, defect, *out, *options)

    return call


def test_options_reach_the_run(start, runs, tmp_path):
    result = start("-n", "3", "--steps", "7", "--guidance", "1.5", "--reweighting", "paper", "--strength", "0.5",
                   "--distance", "vae", "--blending", "fixed", "--batch", "2", "--no-crop", "--seed", "9")  # fmt: skip
    assert result.exit_code == 0, result.stderr
    assert "1 pairs of metal/scratch" in result.stdout and "median fill 0.75" in result.stdout
    (call,) = runs
    settings = call["settings"]
    chosen = ("steps", "guidance", "reweighting", "strength", "distance", "blending", "batch", "crop")
    assert [getattr(settings, name) for name in chosen] == [7, 1.5, "paper", 0.5, "vae", "fixed", 2, False]
    assert (call["count"], call["seed"], call["out"]) == (3, 9, tmp_path / "run")
    assert [path.name for path in call["normals"]] == ["000.png", "001.png", "002.png"]
    assert type(call["masks"]).__name__ == "LearnedMasks"


def test_masks_of_a_folder_are_used(start, runs, data):
    assert start("--masks", data / "metal/ground_truth/hole").exit_code == 0
    assert type(runs[0]["masks"]).__name__ == "FolderMasks"
    assert runs[0]["settings"].crop is None


def test_restart_clears_a_run_and_nothing_else(start, runs, tmp_path):
    for name in ("run.json", "image/000000.png", "pairs/000000.json"):
        (tmp_path / "run" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "run" / name).write_text("{}")
    (tmp_path / "run" / "notes.txt").write_text("mine")
    result = start("--restart")
    assert result.exit_code == 2 and "notes.txt" in result.stderr and not runs
    (tmp_path / "run" / "notes.txt").unlink()
    start()
    assert (tmp_path / "run" / "run.json").exists()
    assert start("--restart").exit_code == 0 and not (tmp_path / "run").exists() and len(runs) == 2


def test_ctrl_c_says_where_the_pairs_are(start, runs, monkeypatch, tmp_path):
    stopped = adiff.generation.RunResult(tmp_path / "run", [], 1.0, cancelled=True)
    monkeypatch.setattr(adiff.generation, "generate_run", lambda *_, **__: stopped)
    result = start()
    assert result.exit_code == 130 and result.stderr.startswith(f"stopped: finished pairs are in {tmp_path / 'run'}")


@pytest.mark.parametrize("place", ["lib.encoder.safetensors", "encoder.safetensors"])
def test_the_encoder_beside_the_library_is_found_by_its_fingerprint(start, runs, library, place, tmp_path):
    own = SpatialEncoder("small", dim=load_library(library).context_dim, seed=7)
    save_library(library, dataclasses.replace(load_library(library), encoder_fingerprint=fingerprint(own)))
    result = start()
    assert result.exit_code == 2 and "--encoder" in result.stderr and not runs
    save_encoder(tmp_path / place, own, {})
    assert start().exit_code == 0
    assert fingerprint(runs[0]["encoder"]) == fingerprint(own)


def test_another_encoder_is_used_with_a_warning(start, runs, library, tmp_path):
    other = SpatialEncoder("small", dim=load_library(library).context_dim, seed=7)
    save_encoder(tmp_path / "other.safetensors", other, {})
    result = start("--encoder", tmp_path / "other.safetensors")
    assert result.exit_code == 0 and "spatial encoder" in result.stderr
    assert fingerprint(runs[0]["encoder"]) == fingerprint(other)


def test_what_does_not_fit_is_refused(refused, start, library, data, tmp_path, tiny, runs):
    out = ("--out", tmp_path / "run")
    normals = ("--normals", data / "metal/train/good")
    assert "metal/scratch, metal/hole" in refused("generate", library, "metal/rust", *normals, *out)
    assert "appearance of metal/hole was not learned" in refused("generate", library, "metal/hole", *normals, *out)
    assert "does not exist" in refused("generate", library, "metal/scratch", "--normals", tmp_path / "no", *out)
    (tmp_path / "none").mkdir()
    assert "no images" in refused("generate", library, "metal/scratch", "--normals", tmp_path / "none", *out)
    given = ("generate", library, "metal/scratch", *normals, *out)
    assert "no spatial encoder" in refused(*given, "--encoder", tmp_path / "none.safetensors")
    assert "a defect library" in refused(*given, "--encoder", library)
    tiny.context_dim = 32
    assert "width 16" in refused(*given)
    assert not runs and not (tmp_path / "run").exists()


def test_pairs_are_really_made(start, data, tmp_path, listing):
    """No stand-in here: the run of the tiny model, its folder, its files again after an interruption."""
    options = ("-n", "3", "--steps", "2", "--batch", "2", "--masks", data / "metal/ground_truth/hole")
    result = start(*options)
    assert result.exit_code == 0, result.stderr
    made = listing(tmp_path / "run")
    assert {name for name in made if name.startswith("image")} == {f"image/00000{i}.png" for i in range(3)}
    (tmp_path / "run" / "pairs" / "000001.json").unlink()
    assert start(*options).exit_code == 0 and listing(tmp_path / "run") == made
    result = start(*options, "--seed", "1")
    assert result.exit_code == 2 and "another run" in result.stderr and listing(tmp_path / "run") == made
