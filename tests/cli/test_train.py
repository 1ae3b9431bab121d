"""`adiff train`: what it learns goes into the library, what it is given wrongly stays out of it."""

import dataclasses
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from adiff import backbone as backbone_module
from adiff import training
from adiff.cli.options import Normalisation, Timesteps
from adiff.datasets.images import write_png
from adiff.library import load_library, save_library
from adiff.spatial_encoder import load_encoder
from adiff.training import loop

FEW = ("--shots", "2", "--steps", "3")


def test_both_embeddings_are_learned_and_recorded(run, tiny, data, tmp_path):
    out = tmp_path / "lib.safetensors"
    result = run("train", data, "--out", out, "--seed", "4", *FEW)
    assert result.exit_code == 0, result.stderr
    assert "2 defects" in result.stdout and "the demo's own, frozen" in result.stderr
    library = load_library(out)
    assert set(library.defects) == {("metal", "scratch"), ("metal", "hole")}
    assert library.base_fingerprint == tiny.fingerprint
    for entry in library.defects.values():
        assert entry.anomaly.shape == (8, 16) and entry.mask.shape == (4, 16)
        assert entry.preview.shape == (3, 96, 96) and entry.shot_masks.shape == (2, 64, 64)
    info = library.get("metal/scratch").info
    assert info["shots"] == ["metal/test/scratch/000.png", "metal/test/scratch/001.png"]
    assert info["held_out"] == ["metal/test/scratch/002.png", "metal/test/scratch/003.png"]
    assert (info["anomaly"]["steps"], info["anomaly"]["seed"]) == (3, 4) and info["mask"]["loss"] > 0
    assert info["versions"]["adiff"]
    assert not list(tmp_path.glob("*.state"))


def test_only_what_is_asked_for(run, tiny, data, tmp_path):
    out = tmp_path / "lib.safetensors"
    run("train", data, "--out", out, "--defect", "hole", "--what", "masks", *FEW)
    (entry,) = load_library(out).defects.values()
    assert entry.name == "metal/hole" and entry.anomaly is None and entry.mask is not None
    run("train", data, "--out", out, "--defect", "hole", "--what", "defects", *FEW)
    again = load_library(out).defects["metal", "hole"]
    assert again.anomaly is not None and np.array_equal(again.mask, entry.mask)


def test_defects_are_added_and_old_ones_kept(run, tiny, data, tmp_path):
    out = tmp_path / "lib.safetensors"
    run("train", data, "--out", out, "--defect", "hole", *FEW)
    before = load_library(out).defects["metal", "hole"]
    result = run("train", data, "--out", out, *FEW)
    assert "kept as they are: metal/hole" in result.stderr
    after = load_library(out)
    assert set(after.defects) == {("metal", "scratch"), ("metal", "hole")}
    assert np.array_equal(after.defects["metal", "hole"].anomaly, before.anomaly)
    bytes_before = out.read_bytes()
    assert "holds all of it already" in run("train", data, "--out", out, *FEW).stdout
    assert out.read_bytes() == bytes_before


def test_a_restart_learns_anew_what_is_asked_and_keeps_the_rest(run, tiny, data, tmp_path):
    out = tmp_path / "lib.safetensors"
    run("train", data, "--out", out, *FEW)
    run("library", "note", out, "metal/scratch", "--author", "Ada")
    before, old = load_library(out), out.read_bytes()
    asked = ("train", data, "--out", out, "--defect", "scratch", "--restart")
    said = run(*asked, "--shots", "3", "--steps", "3", "--seed", "1").stdout
    after = load_library(out)
    assert torch.equal(after.get("metal/hole").anomaly, before.get("metal/hole").anomaly)
    again = after.get("metal/scratch")
    assert not torch.equal(again.anomaly, before.get("metal/scratch").anomaly)
    assert len(again.info["shots"]) == len(again.shot_masks) == 3 and again.info["author"] == "Ada"
    kept = tmp_path / "lib.previous.safetensors"
    assert kept.read_bytes() == old and f"is kept in {kept}" in said
    assert run(*asked, "--what", "masks", "--shots", "3", "--steps", "3", "--seed", "2").exit_code == 0
    last = load_library(out).get("metal/scratch")
    assert torch.equal(last.anomaly, again.anomaly) and not torch.equal(last.mask, again.mask)


def test_a_restart_that_is_refused_loses_nothing(run, refused, tiny, data, tmp_path, monkeypatch):
    """Other shots for one part, another encoder or base model for what stays: the state that waits stays too."""
    out, new = tmp_path / "lib.safetensors", tmp_path / "new.safetensors"
    run("train", data, "--out", out, "--defect", "hole", *FEW)
    given = ("train", data, "--out", out, "--defect", "scratch", *FEW)
    with monkeypatch.context() as patch:
        patch.setattr(tiny, "encode", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        assert run(*given, "--restart").exit_code == 130
    (tmp_path / "lib.previous.safetensors").write_bytes(b"older")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert "metal/hole in" in (line := refused(*given, "--encoder", new, "--restart")) and "spatial encoder" in line
    masks = ("train", data, "--out", out, "--defect", "hole", "--what", "masks", "--restart", "--steps", "3")
    assert "--restart with --what both" in refused(*masks, "--shots", "1")
    monkeypatch.setattr(tiny, "fingerprint", "e" * 64)
    assert "was learned on base 'demo'" in refused(*given, "--restart")
    assert {path: path.read_bytes() for path in before} == before and not new.exists()
    assert run("train", data, "--out", out, *FEW, "--restart").exit_code == 0  # all that it holds
    assert load_library(out).base_fingerprint == "e" * 64 and len(load_library(out).defects) == 2


def test_a_restart_broken_off_early_empties_nothing_of_a_later_training(run, tiny, data, tmp_path, monkeypatch):
    """One defect's, broken off while its views are drawn; another's then, broken off at a step and gone on with."""
    out, given = tmp_path / "lib.safetensors", ("train", data, "--shots", "2", "--steps", "3")
    assert run(*given, "--defect", "hole", "--out", out).exit_code == 0
    with monkeypatch.context() as patch:
        patch.setattr(tiny, "encode", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        assert run(*given, "--defect", "hole", "--out", out, "--restart").exit_code == 130
    with monkeypatch.context() as patch:
        patch.setattr(tiny, "predict_noise", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        assert run(*given, "--defect", "scratch", "--out", out).exit_code == 130
    assert run(*given, "--defect", "scratch", "--out", out).exit_code == 0
    assert set(load_library(out).defects) == {("metal", "scratch"), ("metal", "hole")}
    assert not list(tmp_path.glob("*.state"))


def test_a_restart_replaces_no_file_of_another_kind(refused, tiny, data, tmp_path):
    out = tmp_path / "shipped" / "encoder.safetensors"
    before = out.read_bytes()
    said = refused("train", data, "--out", out, "--restart", *FEW)
    assert "is a file of kind spatial_encoder, no library, and would be lost; give another file" in said
    said = refused("train-dual", data, "--defect", "hole", "--out", out, "--restart", "--steps", "1")
    assert "no dual model, and would be lost" in said and out.read_bytes() == before


def test_what_others_edit_meanwhile_stays(run, tiny, data, tmp_path, monkeypatch):
    out, whole = tmp_path / "lib.safetensors", tiny.predict_noise
    run("train", data, "--out", out, "--defect", "hole", *FEW)

    def meanwhile(*given):
        monkeypatch.setattr(tiny, "predict_noise", whole)
        assert run("library", "note", out, "metal/hole", "--author", "Ada").exit_code == 0
        return whole(*given)

    monkeypatch.setattr(tiny, "predict_noise", meanwhile)
    assert run("train", data, "--out", out, "--defect", "scratch", *FEW).exit_code == 0
    library = load_library(out)
    assert set(library.defects) == {("metal", "scratch"), ("metal", "hole")}
    assert library.get("metal/hole").info["author"] == "Ada"


def test_masks_for_an_imported_appearance_bring_its_shots(run, tiny, data, tmp_path):
    out, vectors = tmp_path / "lib.safetensors", tmp_path / "rust.safetensors"
    save_file({"emb_params": torch.zeros(2, 16)}, vectors)
    run("library", "import", vectors, "metal/hole", "--to", out)
    result = run("train", data, "--out", out, "--defect", "hole", "--what", "masks", *FEW)
    assert result.exit_code == 0 and "metal/hole  2" in result.stdout
    entry = load_library(out).get("metal/hole")
    assert entry.anomaly.shape == (2, 16) and entry.mask.shape == (4, 16) and entry.shot_masks.shape == (2, 64, 64)
    assert entry.info["imported"] and len(entry.info["shots"]) == 2


def test_a_restart_keeps_the_encoder_of_the_library_that_it_puts_aside(run, tiny, data, tmp_path):
    out, encoder = tmp_path / "lib.safetensors", tmp_path / "enc.safetensors"
    asked = ("train", data, "--out", out, "--defect", "hole", "--what", "defects", "--encoder", encoder, *FEW)
    run(*asked)
    assert run(*asked, "--seed", "1", "--restart").exit_code == 0
    previous = load_encoder(tmp_path / "lib.previous.encoder.safetensors")[1]
    assert previous["fingerprint"] == load_library(tmp_path / "lib.previous.safetensors").encoder_fingerprint
    assert load_encoder(encoder)[1]["fingerprint"] == load_library(out).encoder_fingerprint != previous["fingerprint"]


def test_an_encoder_that_another_library_needs_stays(run, refused, tiny, data, tmp_path):
    out, other = tmp_path / "lib.safetensors", tmp_path / "model.safetensors"
    own = tmp_path / "lib.encoder.safetensors"
    asked = ("train", data, "--defect", "hole", "--what", "defects", *FEW)
    assert "are both" in refused(*asked, "--out", out, "--encoder", out) and not out.exists()
    save_file({"weight": torch.zeros(2)}, other)
    before = other.read_bytes()
    assert "would be lost" in refused(*asked, "--out", out, "--encoder", other, "--restart")
    assert other.read_bytes() == before
    own.write_bytes(before)
    tiny.name, asked = "sd15", (*asked, "--base", "sd15.safetensors", "--out", out)  # learns an encoder of its own
    assert "the encoder of a library that is not at" in refused(*asked)
    assert "would be lost" in refused(*asked, "--restart")
    assert own.read_bytes() == before and not out.exists()


def test_an_interrupted_training_takes_no_other_encoder_for_its_own(run, refused, tiny, data, tmp_path, monkeypatch):
    out, precious = tmp_path / "lib.safetensors", tmp_path / "precious.safetensors"
    given = ("train", data, "--defect", "hole", "--what", "defects", *FEW)
    run(*given, "--out", tmp_path / "other.safetensors", "--encoder", precious)
    before, own = precious.read_bytes(), tmp_path / "own.safetensors"
    with monkeypatch.context() as patch:
        patch.setattr(tiny, "encode", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        assert run(*given, "--out", out, "--encoder", own).exit_code == 130
    assert "--freeze-encoder uses it" in refused(*given, "--out", out, "--encoder", precious)
    assert precious.read_bytes() == before and not out.exists()
    own.write_bytes(before)  # killed between the encoder and the library
    assert run(*given, "--out", out, "--encoder", own, "--seed", "1").exit_code == 0
    assert "holds all of it already" in run(*given, "--out", out, "--encoder", own).stdout


def test_masks_leave_the_state_of_interrupted_appearances(run, tiny, data, tmp_path, monkeypatch):
    out, given = tmp_path / "lib.safetensors", ("train", data, "--defect", "hole", *FEW)
    state = tmp_path / "lib.safetensors.state" / "anomalies.safetensors"
    with monkeypatch.context() as patch:
        patch.setattr(tiny, "predict_noise", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        patch.setitem(loop.fit.__kwdefaults__, "save_every", -1.0)
        assert run(*given, "--out", out, "--what", "defects").exit_code == 130
    assert state.exists()
    assert run(*given, "--out", out, "--what", "masks").exit_code == 0 and state.exists()
    assert run(*given, "--out", out).exit_code == 0
    assert not state.parent.exists()


def test_an_own_encoder_is_learned_and_then_read(run, refused, tiny, data, tmp_path):
    out, encoder = tmp_path / "lib.safetensors", tmp_path / "enc.safetensors"
    run("train", data, "--out", out, "--defect", "hole", "--what", "defects", "--encoder", encoder, *FEW)
    learned = load_encoder(encoder)[1]
    assert load_library(out).encoder_fingerprint == learned["fingerprint"]
    more = ("train", data, "--out", out, "--defect", "scratch", "--what", "defects", *FEW)
    assert "--freeze-encoder" in refused(*more, "--encoder", encoder)
    result = run(*more, "--encoder", encoder, "--freeze-encoder")
    assert result.exit_code == 0, result.stderr
    assert load_encoder(encoder)[1]["fingerprint"] == learned["fingerprint"]
    assert load_library(out).get("metal/scratch").info["anomaly"]["encoder"] == learned["fingerprint"]


def test_another_encoder_does_not_spoil_a_library(run, refused, tiny, data, tmp_path):
    out = tmp_path / "lib.safetensors"
    run("train", data, "--out", out, "--defect", "hole", *FEW)
    before = out.read_bytes()
    result = run("train", data, "--out", out, "--defect", "scratch", "--encoder", tmp_path / "new.safetensors", *FEW)
    assert result.exit_code == 2 and "belong to spatial encoder" in result.stderr
    assert out.read_bytes() == before and not (tmp_path / "new.safetensors").exists()


def test_ctrl_c_keeps_the_state_and_the_same_command_ends_alike(run, tiny, data, tmp_path, monkeypatch):
    arguments = ("train", data, "--shots", "2", "--steps", "6", "--defect", "hole")
    run(*arguments, "--out", tmp_path / "unbroken.safetensors")
    out = tmp_path / "lib.safetensors"
    whole, calls = tiny.predict_noise, []

    def break_off(*given):
        calls.append(given)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return whole(*given)

    monkeypatch.setattr(tiny, "predict_noise", break_off)
    result = run(*arguments, "--out", out)
    assert result.exit_code == 130 and str(out) in result.stderr.splitlines()[-1]
    assert not out.exists() and list((tmp_path / "lib.safetensors.state").iterdir())
    monkeypatch.setattr(tiny, "predict_noise", whole)
    assert run(*arguments, "--out", out).exit_code == 0
    ours, unbroken = (load_library(path).get("metal/hole") for path in (out, tmp_path / "unbroken.safetensors"))
    assert np.allclose(ours.anomaly, unbroken.anomaly, atol=1e-6) and np.allclose(ours.mask, unbroken.mask, atol=1e-6)
    assert not list(tmp_path.glob("*.state"))


def test_a_restart_that_was_broken_off_goes_on_though_the_old_library_is_there(run, tiny, data, tmp_path, monkeypatch):
    out, given = tmp_path / "lib.safetensors", ("--shots", "2", "--defect", "hole", "--steps")
    assert run("train", data, *given, "3", "--out", out).exit_code == 0
    run("train", data, *given, "6", "--out", tmp_path / "unbroken.safetensors")
    old, whole = out.read_bytes(), tiny.predict_noise
    for calls in (4, 5):  # while the defects are learned, then the masks
        steps = []

        def break_off(*given, steps=steps, calls=calls):
            steps.append(given)
            if len(steps) == calls:
                raise KeyboardInterrupt
            return whole(*given)

        monkeypatch.setattr(tiny, "predict_noise", break_off)
        result = run("train", data, *given, "6", "--out", out, *(["--restart"] if calls == 4 else []))
        assert result.exit_code == 130 and "without --restart goes on" in result.stderr.replace("\n", " ")
        assert (out.read_bytes() == old) == (calls == 4)
    monkeypatch.setattr(tiny, "predict_noise", whole)
    other = run("train", data, "--defect", "scratch", "--shots", "2", "--steps", "3", "--out", out)
    assert other.exit_code == 2 and "belongs to a training with other settings or shots" in other.stderr
    result = run("train", data, *given, "6", "--out", out)
    assert result.exit_code == 0 and "holds all of it" not in result.stdout
    ours, unbroken = (load_library(path).get("metal/hole") for path in (out, tmp_path / "unbroken.safetensors"))
    assert np.allclose(ours.anomaly, unbroken.anomaly, atol=1e-6) and np.allclose(ours.mask, unbroken.mask, atol=1e-6)
    assert not list(tmp_path.glob("*.state")) and (tmp_path / "lib.previous.safetensors").read_bytes() == old


def test_a_training_stopped_before_its_first_step_does_not_say_that_something_is_learned(
    run, tiny, data, tmp_path, monkeypatch
):  # fmt: skip
    out, given = tmp_path / "lib.safetensors", ("--shots", "2", "--defect", "hole", "--steps", "3")
    assert run("train", data, *given, "--out", out).exit_code == 0

    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(tiny, "encode", stop)
    for path in (tmp_path / "new.safetensors", out):
        result = run("train", data, *given, "--out", path, "--restart")
        assert result.exit_code == 130
        assert "stopped: nothing is learned yet; the same command begins again" in " ".join(result.stderr.split())


@pytest.mark.parametrize("again", [(), ("--restart",)])
def test_the_old_library_survives_a_restart_killed_before_it_wrote_a_state(
    run, tiny, data, tmp_path, monkeypatch, again
):  # fmt: skip
    out, given = tmp_path / "lib.safetensors", ("--shots", "2", "--defect", "hole", "--steps", "3")
    assert run("train", data, *given, "--out", out).exit_code == 0
    old, whole, calls = out.read_bytes(), tiny.predict_noise, []

    def die(*given):
        calls.append(given)
        if len(calls) == 4:  # the first of the masks
            raise KeyboardInterrupt
        return whole(*given)

    with monkeypatch.context() as patch:
        patch.setattr(tiny, "predict_noise", die)
        patch.setattr(loop, "save_state", lambda *_: None)  # killed: it could not be written
        assert run("train", data, *given, "--seed", "1", "--out", out, "--restart").exit_code == 130
    assert load_library(out).get("metal/hole").mask is None
    assert run("train", data, *given, "--seed", "1", "--out", out, *again).exit_code == 0
    assert (tmp_path / "lib.previous.safetensors").read_bytes() == old and not list(tmp_path.glob("*.state"))
    new = out.read_bytes()
    assert run("train", data, *given, "--seed", "2", "--out", out, "--restart").exit_code == 0
    assert (tmp_path / "lib.previous.safetensors").read_bytes() == new  # of another training


def test_a_finished_restart_leaves_no_mark_that_would_empty_the_library(run, tiny, data, tmp_path, monkeypatch):
    """Killed after the library was written; then another defect is added, and that is broken off."""
    out, given = tmp_path / "lib.safetensors", ("--shots", "2", "--steps", "3", "--out")
    assert run("train", data, "--defect", "hole", *given, out).exit_code == 0
    with monkeypatch.context() as patch:
        patch.setattr("adiff.cli.begun.clear_folder", lambda *_: None)
        assert run("train", data, "--defect", "hole", *given, out, "--restart").exit_code == 0
    assert "holds all of it already" in run("train", data, "--defect", "hole", *given, out).stdout
    whole, calls = tiny.predict_noise, []

    def break_off(*given):
        calls.append(given)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return whole(*given)

    with monkeypatch.context() as patch:
        patch.setattr(tiny, "predict_noise", break_off)
        assert run("train", data, "--defect", "scratch", *given, out).exit_code == 130
    assert run("train", data, "--defect", "scratch", *given, out).exit_code == 0
    assert {defect for _, defect in load_library(out).defects} == {"hole", "scratch"}


def test_what_a_finished_training_could_not_remove_is_removed_next_time(run, tiny, data, tmp_path, monkeypatch):
    """Killed after the library was written and before its states were gone; those of other defects stay."""
    out, given = tmp_path / "lib.safetensors", ("--shots", "2", "--steps", "3")
    with monkeypatch.context() as patch:
        patch.setattr("adiff.cli.train.discard_learned", lambda *_: None)
        patch.setitem(loop.fit.__kwdefaults__, "save_every", -1.0)
        assert run("train", data, "--defect", "hole", *given, "--out", out).exit_code == 0
    states = tmp_path / "lib.safetensors.state"
    written = {path.name: path.read_bytes() for path in states.iterdir()}
    assert "holds all of it already" in run("train", data, "--defect", "hole", *given, "--out", out).stdout
    assert len(written) == 2 and not states.exists()
    states.mkdir()
    for name, content in written.items():
        (states / name).write_bytes(content)
    library = load_library(out)
    save_library(out, dataclasses.replace(library, defects={("metal", "dent"): dataclasses.replace(
        library.get("metal/hole"), defect="dent", info={})}))  # fmt: skip
    for path in (data / "metal/test/hole", data / "metal/ground_truth/hole"):
        path.rename(path.with_name("dent"))
    assert "holds all of it already" in run("train", data, "--defect", "dent", *given, "--out", out).stdout
    assert {path.name for path in states.iterdir()} == set(written)


@pytest.mark.parametrize(("good_calls", "kept"), [(0, False), (2, True)])
def test_a_loss_that_is_not_finite_stops_and_says_so(run, tiny, data, tmp_path, monkeypatch, good_calls, kept):
    out, whole, calls = tmp_path / "lib.safetensors", tiny.predict_noise, []
    monkeypatch.setattr("adiff.training.state.RECENT", 1)

    def diverge(*given):
        calls.append(given)
        return whole(*given) * (1 if len(calls) <= good_calls else np.nan)

    monkeypatch.setattr(tiny, "predict_noise", diverge)
    result = run("train", data, "--out", out, "--defect", "hole", "--what", "defects", *FEW)
    assert result.exit_code == 2 and "not finite" in result.stderr.splitlines()[-1]
    assert out.exists() == kept
    if kept:
        assert load_library(out).get("metal/hole").info["anomaly"]["stopped"] == "not finite"
        assert load_library(out).get("metal/hole").anomaly.isfinite().all()


def test_with_four_shots_one_decides_when_to_stop(run, tiny, data, tmp_path, monkeypatch):
    """The measure falls once, then rises: a stop five measures later."""
    measures = iter([0.5, 0.4, *[0.6] * 99])
    monkeypatch.setattr("adiff.training.anomaly._Inversion.held_out_loss", lambda *_: lambda: next(measures))
    out = tmp_path / "lib.safetensors"
    given = ("train", data, "--defect", "scratch", "--shots", "4", "--what", "defects")
    result = run(*given, "--steps", "200", "--out", out)
    assert result.exit_code == 0, result.stderr
    assert "appearances: stopped early at step 70" in result.stdout and "step 20, the lowest loss" in result.stdout
    about = load_library(out).get("metal/scratch").info["anomaly"]
    assert (about["steps"], about["best"], about["stopped"]) == (70, 20, "early")
    assert about["validation"] == "metal/test/scratch/003.png"
    assert [held for _, _, held in about["curve"] if held] == [0.5, 0.4, 0.6, 0.6, 0.6, 0.6, 0.6]
    whole = tmp_path / "whole.safetensors"
    result = run(*given, "--steps", "12", "--no-early-stop", "--out", whole)
    about = load_library(whole).get("metal/scratch").info["anomaly"]
    assert (about["steps"], about["best"], about["stopped"], about["validation"]) == (12, 12, "", None)
    assert "held-out" not in result.stdout


def test_to_stop_early_takes_a_shot_that_can_be_held_out(run, refused, tiny, data, tmp_path):
    """Of what is still to be learned; who does not ask for it learns from all."""
    out = tmp_path / "lib.safetensors"
    given = ("train", data, "--out", out, "--what", "masks", "--steps", "1")
    told = refused(*given, "--shots", "3", "--early-stop")
    assert "4 shots or more of each defect, and metal/hole has 3; do without it" in told and not out.exists()
    assert run(*given, "--shots", "3", "--defect", "hole").exit_code == 0
    assert run(*given, "--shots", "3", "--defect", "hole", "--early-stop").exit_code == 0  # nothing is left to learn


def test_settings_reach_the_training(run, tiny, data, tmp_path, monkeypatch):
    seen, whole = [], training.train_anomalies
    monkeypatch.setattr(training, "train_anomalies", lambda *a, **k: (seen.append(k["settings"]), whole(*a, **k))[1])
    loaded = []
    monkeypatch.setattr(backbone_module, "load_backbone", lambda *given: (loaded.append(given), tiny)[1])
    given = ("--batch", "3", "--timesteps", "min-snr", "--normalisation", "release", "--what", "defects")
    given = (*given, "--base", "demo", "--precision", "bfloat16", "--compile")
    run("train", data, "--out", tmp_path / "lib.safetensors", "--defect", "hole", *given, *FEW)
    assert loaded == [("demo", None, "bfloat16", [], True)]
    assert seen == [training.AnomalySettings(steps=3, batch=3, timesteps="min-snr", normalisation="release")]


@pytest.mark.parametrize("given", [("--normalisation", "release"), ("--encoder", "new"), ("--freeze-encoder",)])
def test_what_masks_do_not_use_is_refused(refused, tiny, data, tmp_path, given):
    told = refused("train", data, "--out", tmp_path / "lib.safetensors", "--what", "masks", *given, *FEW)
    assert f"{given[0]} does nothing with --what masks; leave it out" in told


def test_the_choices_are_the_library_s():
    assert tuple(law.value for law in Timesteps) == training.LAWS
    assert tuple(one.value for one in Normalisation) == training.NORMALISATIONS


def test_the_same_image_twice_is_named(run, tiny, data, tmp_path):
    scratch = data / "metal/test/scratch"
    shutil.copyfile(scratch / "000.png", scratch / "003.png")
    shutil.copyfile(scratch / "000.png", scratch / "001.png")
    result = run("train", data, "--out", tmp_path / "lib.safetensors", "--defect", "scratch", *FEW)
    assert result.exit_code == 0, result.stderr
    said = " ".join(result.stderr.split())
    assert "metal/test/scratch/001.png and metal/test/scratch/000.png are the same image" in said
    assert "scratch/003.png is held out for tests and is the same image as metal/test/scratch/000.png" in said
    assert "002.png" not in said


def test_a_shot_that_changes_while_a_training_is_interrupted_is_named(run, refused, tiny, data, tmp_path, monkeypatch):
    out, calls, whole = tmp_path / "lib.safetensors", [], tiny.predict_noise

    def break_off(*given):
        calls.append(given)
        if len(calls) == 5:  # the defects are learned with 3 steps, then the masks
            raise KeyboardInterrupt
        return whole(*given)

    given = ("train", data, "--out", out, "--defect", "hole", *FEW)
    monkeypatch.setattr(tiny, "predict_noise", break_off)
    assert run(*given).exit_code == 130 and load_library(out).get("metal/hole").mask is None
    path = data / "metal/test/hole/001.png"
    before = path.read_bytes()
    shutil.copyfile(data / "metal/test/hole/002.png", path)
    assert "metal/test/hole/001.png changed since the library's metal/hole was learned" in refused(*given)
    path.write_bytes(before)
    assert run(*given).exit_code == 0 and load_library(out).get("metal/hole").mask is not None


def test_a_training_goes_on_with_the_same_loras_alone(run, tiny, data, tmp_path, monkeypatch):
    """A LoRA that leaves the cross-attention's keys and values as they are is no other base of the library's."""
    given = ("train", data, "--out", tmp_path / "lib.safetensors", "--defect", "hole", *FEW)
    with monkeypatch.context() as patch:
        patch.setattr(tiny, "predict_noise", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        assert run(*given).exit_code == 130
    tiny.weights = "a" * 64
    assert "belongs to a training with other settings or shots: another base" in " ".join(run(*given).stderr.split())


def test_a_shot_that_changes_before_anything_is_learned_is_named(run, tiny, data, tmp_path, monkeypatch):
    given = ("train", data, "--out", tmp_path / "lib.safetensors", "--defect", "hole", *FEW)
    with monkeypatch.context() as patch:
        patch.setattr(tiny, "predict_noise", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        assert run(*given).exit_code == 130
    write_png(data / "metal/ground_truth/hole/000_mask.png", np.eye(64, dtype=bool))
    result = run(*given)
    assert result.exit_code == 2
    assert "since it was begun metal/hole: metal/test/hole/000.png has changed" in result.stderr


def change(data, what: str) -> None:
    """Spoil the data set in one of the ways of the issue's list."""
    scratch, masks = data / "metal/test/scratch", data / "metal/ground_truth/scratch"
    if what == "no images":
        shutil.rmtree(data / "metal")
    elif what == "no mask":
        (masks / "000_mask.png").unlink()
    elif what == "no image":
        (scratch / "000.png").unlink()
    elif what == "sizes":
        write_png(masks / "000_mask.png", np.eye(32, dtype=bool))
    elif what in ("empty", "full"):
        write_png(masks / "000_mask.png", np.full((64, 64), what == "full"))
    elif what == "truncated":
        (scratch / "000.png").write_bytes((scratch / "000.png").read_bytes()[:200])
    elif what == "corrupt":
        (scratch / "000.png").write_bytes(b"not an image")


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("no images", "no images"), ("no mask", "000.png"), ("no image", "000_mask.png"), ("sizes", "32x32"),
        ("empty", "is empty"), ("full", "whole image"), ("truncated", "000.png"), ("corrupt", "000.png"),
    ],
)  # fmt: skip
def test_bad_data_is_refused_before_anything_is_written(refused, data, tmp_path, what, said):
    change(data, what)
    assert said in refused("train", data, "--out", tmp_path / "lib.safetensors", *FEW)
    assert not list(tmp_path.glob("lib*"))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--product", "wood"), "metal"),
        (("--defect", "rust"), "hole"),
        (("--shots", "5"), "5"),
        (("--encoder", "none.safetensors", "--freeze-encoder"), "none.safetensors"),
    ],
)
def test_what_is_not_there_is_listed(refused, data, tmp_path, arguments, said):
    assert said in refused("train", data, "--out", tmp_path / "lib.safetensors", *arguments)
    assert not list(tmp_path.glob("lib*"))


def test_paths_are_checked(refused, tiny, data, tmp_path):
    assert ".safetensors" in refused("train", data, "--out", tmp_path / "lib.pt")
    assert "does not exist" in refused("train", tmp_path / "nowhere", "--out", tmp_path / "lib.safetensors")
    (tmp_path / "lib.safetensors").write_bytes(b"mine")
    assert "lib.safetensors" in refused("train", data, "--out", tmp_path / "lib.safetensors", *FEW)
    assert (tmp_path / "lib.safetensors").read_bytes() == b"mine"


def test_one_shot_works_with_a_warning_and_grey_masks_are_recorded(run, tiny, data, tmp_path):
    mask = np.zeros((64, 64), np.uint8)
    mask[10:30, 10:30], mask[9, 10:30] = 255, 90
    write_png(data / "metal/ground_truth/scratch/000_mask.png", mask)
    out = tmp_path / "lib.safetensors"
    result = run("train", data, "--out", out, "--defect", "scratch", "--shots", "1", "--steps", "2")
    assert result.exit_code == 0, result.stderr
    assert "one shot only" in result.stderr and "greys" in result.stderr
    there = len(list((data / "metal/test/scratch").iterdir()))
    assert f"learning metal/scratch from 1 of {there} shots" in result.stderr
    entry = load_library(out).get("metal/scratch")
    assert entry.info["grey_masks"] == ["000_mask.png"] and entry.shot_masks.shape[0] == 1
    assert not entry.shot_masks[0, 9].any() and entry.shot_masks[0, 10, 10]


@pytest.mark.parametrize("what", ["defects", "masks"])
def test_steps_that_do_not_reach_all_defects_are_refused_and_nothing_changes(
    run, refused, tiny, data, tmp_path, listing, what
):
    asked = ("train", data, "--out", tmp_path / "lib.safetensors", "--what", what, "--shots", "2")
    run(*asked, "--steps", "2", "--batch", "1")
    before = listing(tmp_path)
    said = refused(*asked, "--steps", "1", "--batch", "1", "--restart")
    assert "of 2 defects 1 would be drawn" in said and "at least 2 steps" in said
    assert listing(tmp_path) == before


def test_a_defect_beside_one_of_the_same_letters_is_refused(run, refused, tiny, data, tmp_path):
    out = tmp_path / "lib.safetensors"
    run("train", data, "--out", out, "--defect", "hole", *FEW)
    run("library", "rename", out, "metal/hole", "Metal/HOLE")
    assert "Metal/HOLE and metal/hole differ only in" in refused("train", data, "--out", out, "--defect", "hole", *FEW)
