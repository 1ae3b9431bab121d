"""`adiff train-dual` and `adiff generate-dual`, on a small random base model."""

import numpy as np
import pytest
import torch

from adiff import backbone as backbone_module
from adiff import dual as dual_package
from adiff.backbone.diffusers_host import DiffusersBackbone
from adiff.cli import dual as dual_module
from adiff.datasets.images import write_png
from adiff.dual import load_dual
from adiff.dual.layers import BCM, SAIM, new_weights
from adiff.dual.training import FLIPS, DualSettings
from adiff.training.state import Run


@pytest.fixture
def small(backbone, monkeypatch):
    monkeypatch.setattr(backbone_module, "load_backbone", lambda *_, **__: backbone)
    return backbone


@pytest.fixture
def asked(data, tmp_path):
    """The command that trains, without its steps."""
    return ["train-dual", data, "--product", "metal", "--defect", "scratch", "--shots", "2", "--out",
            tmp_path / "dual.safetensors", "--batch", "1", "--rank", "2", "--saim", "low"]  # fmt: skip


def test_the_choices_and_defaults_are_the_librarys():
    assert [saim.value for saim in dual_module.Saim] == list(SAIM)
    assert ["off", *(bcm.value for bcm in dual_module.Bcm)] == list(BCM)
    assert [flips.value for flips in dual_module.Flips] == list(FLIPS)
    settings = DualSettings()
    assert (settings.steps, settings.batch, settings.lr, settings.rank) == (5000, 4, 2e-5, 32)


def test_from_photos_to_a_file_and_to_a_run_that_is_whole(run, refused, small, asked, tmp_path):
    learned = run(*asked, "--steps", "2")
    assert "metal/scratch from 2 shots, 2 steps" in learned.stdout
    model = load_dual(tmp_path / "dual.safetensors")
    assert model.info["shots"] == [f"metal/test/scratch/00{i}.png" for i in range(2)]
    assert len(model.info["held_out"]) == 2 and len(model.info["digests"]) == 2
    assert not (tmp_path / "dual.safetensors.state").exists()
    assert "holds it already" in run(*asked, "--steps", "2").stdout
    out = tmp_path / "run"
    made = run("generate-dual", tmp_path / "dual.safetensors", "-n", "2", "--steps", "2", "--out", out)
    assert "2 pairs of metal/scratch" in made.stdout
    assert run("run", "verify", out).exit_code == 0
    other = ["generate-dual", tmp_path / "dual.safetensors", "-n", "1", "--steps", "2", "--out", out]
    assert "another run (count 2, now 1)" in refused(*other)
    (out / "mine.txt").touch()
    assert "holds mine.txt beside its run" in refused(*other, "--restart")
    (out / "mine.txt").unlink()
    assert "1 pair of" in run(*other, "--restart").stdout
    assert "another settings" in refused(*asked, "--steps", "3")
    assert "--bcm-form is for BCM" in refused(*asked, "--steps", "2", "--bcm-form", "release")


def test_with_bcm_from_found_backgrounds_to_pairs_before_other_photos(run, refused, small, asked, data, tmp_path):
    learned = run(*asked, "--steps", "1", "--bcm", "--bcm-form", "release")
    assert "M of BCM" in learned.stdout
    model = load_dual(tmp_path / "dual.safetensors")
    assert (model.bcm, model.info["foregrounds"]) == ("release", "found")
    made = ["generate-dual", tmp_path / "dual.safetensors", "-n", "1", "--steps", "1", "--out", tmp_path / "run"]
    assert "give the photos with --normals DIR" in refused(*made, "--foreground", data)
    assert run(*made, "--normals", data).exit_code == 0  # those in metal/train/good
    assert "1 pair of metal/scratch" in run(*made, "--restart").stdout


@pytest.fixture
def drawn(small, monkeypatch):
    """Lets any --start be a checkpoint of random weights that its name seeds."""

    def read(path, shapes):
        return new_weights(shapes, torch.Generator().manual_seed(int(path.name)), rank=2, saim="low")

    monkeypatch.setattr(dual_package, "read_release", read)


def test_a_restart_that_was_broken_off_goes_on_though_the_old_file_is_there(run, small, asked, tmp_path, monkeypatch):
    out, states = tmp_path / "dual.safetensors", tmp_path / "dual.safetensors.state"
    assert run(*asked, "--steps", "1").exit_code == 0
    old, whole, steps = out.read_bytes(), Run.step, []

    def break_off(run, loss):
        if len(steps) == 2:
            raise KeyboardInterrupt
        steps.append(run.done)
        return whole(run, loss)

    with monkeypatch.context() as patch:
        patch.setattr(Run, "step", break_off)
        stopped = run(*asked, "--steps", "3", "--restart")
    assert stopped.exit_code == 130 and f"learned is in {states};" in stopped.stderr
    assert out.read_bytes() == old and (states / "dual.safetensors").exists()
    result = run(*asked, "--steps", "3")
    assert result.exit_code == 0 and "3 steps" in result.stdout and not states.exists()
    states.mkdir()
    (states / "dual.safetensors").write_bytes(b"left by a command that was killed at its end")
    assert "holds it already" in run(*asked, "--steps", "3").stdout and not states.exists()


def test_a_loss_that_is_not_finite_keeps_the_last_good_state(run, small, asked, tmp_path, monkeypatch):
    whole = Run.step
    monkeypatch.setattr("adiff.training.state.RECENT", 1)  # steps between two states to go back to
    for good in (0, 2):
        monkeypatch.setattr(Run, "step", lambda run, loss, good=good: run.done < good and whole(run, loss))
        result = run(*asked, "--steps", "3")
        assert result.exit_code == 2 and "not finite" in result.stderr.splitlines()[-1]
        assert (tmp_path / "dual.safetensors").exists() == (good > 0)
    assert load_dual(tmp_path / "dual.safetensors").info["stopped"] == "not finite"


def test_another_start_is_another_training(run, refused, drawn, asked):
    begun = [*asked, "--steps", "1", "--start", "1"]
    assert run(*begun, "--checkpointing").exit_code == 0
    assert "holds it already" in run(*begun).stdout
    assert "another start" in refused(*asked, "--steps", "1")
    assert "another start" in refused(*asked, "--steps", "1", "--start", "2")


def test_another_foreground_is_another_training(run, refused, small, asked, tmp_path):
    objects = tmp_path / "objects"
    command = [*asked, "--steps", "1", "--bcm"]
    for number, top in enumerate((0, 8)):
        for photo in range(2):
            mask = np.zeros((64, 64), bool)
            mask[top : top + 32, 8:40] = True
            write_png(objects / str(number) / f"{photo:03d}.png", mask)
    assert run(*command, "--foreground", objects / "0").exit_code == 0
    assert "holds it already" in run(*command, "--foreground", objects / "0").stdout
    assert "another foreground" in refused(*command, "--foreground", objects / "1")
    assert "another foreground" in refused(*command)  # told by its colour


def test_another_base_is_another_training(run, refused, small, asked, monkeypatch, tiny_parts):
    run(*asked, "--steps", "1")
    other = DiffusersBackbone("other", tiny_parts(1), torch.device("cpu"), torch.float32)
    monkeypatch.setattr(backbone_module, "load_backbone", lambda *_, **__: other)
    assert "another base" in refused(*asked, "--steps", "1")


def test_bad_input_is_one_line(refused, data, tmp_path):
    one = ["train-dual", data, "--product", "metal"]
    assert "has to end in .safetensors" in refused(*one, "--out", tmp_path / "x.pt")
    several = refused(*one, "--out", tmp_path / "x.safetensors")
    assert "metal/hole, metal/scratch" in several and "--defect" in several
    assert "no dual model" in refused("generate-dual", tmp_path / "x.safetensors", "--out", tmp_path / "run")
    assert "give --bcm with it" in refused(*one, "--defect", "hole", "--out", tmp_path / "x.safetensors",
                                           "--foreground", data)  # fmt: skip
    no_rate = refused(*one, "--defect", "hole", "--out", tmp_path / "x.safetensors", "--lr", "0")
    assert "positive learning rate" in no_rate
    few = refused(*one, "--defect", "hole", "--out", tmp_path / "x.safetensors", "--shots", "3", "--early-stop")
    assert "to stop early takes 4 shots or more of each defect, and metal/hole has 3" in few
