"""`adiff paste`: a run of pasted pairs, which the other commands take."""

import json

import pytest


@pytest.fixture
def start(run, data, tmp_path):
    def call(*options, defect="scratch"):
        given = ("--product", "metal", "--defect", defect, "--normals", data, "--out", tmp_path / "run")
        return run("paste", data, *given, "-n", "4", *options)

    return call


def test_a_run_is_made_asked_after_checked_and_exported(run, start, data, tmp_path):
    result = start("--shots", "1")
    assert result.exit_code == 0, result.stderr
    assert result.stdout == f"4 pairs of metal/scratch in {tmp_path / 'run'}; report: {tmp_path / 'run/report.html'}\n"
    plan = json.loads((tmp_path / "run" / "run.json").read_text())
    assert plan["method"] == "crop-paste" and plan["command"].startswith("adiff paste ") and len(plan["shots"]) == 1
    status = run("run", "status", tmp_path / "run")
    assert status.exit_code == 0 and "metal/scratch by crop-paste, seed 0" in status.stdout
    assert "4 of 4, 0 left" in " ".join(status.stdout.split())
    checked = run("run", "verify", tmp_path / "run", "--normals", data / "metal/train/good")
    assert checked.exit_code == 0, checked.stderr
    exported = run("export", tmp_path / "run", "--format", "yolo", "--out", tmp_path / "yolo")
    assert exported.exit_code == 0, exported.stderr
    assert start("--shots", "1").exit_code == 0


def test_a_restart_that_cannot_begin_loses_nothing(start, data, tmp_path, listing):
    assert start().exit_code == 0
    before = listing(tmp_path / "run")
    assert start("--restart", "--seed", "1").exit_code == 0
    assert listing(tmp_path / "run") != before
    before = listing(tmp_path / "run")
    for path in (data / "metal" / "train" / "good").iterdir():
        path.write_bytes(path.read_bytes()[:40])
    result = start("--restart")
    assert result.exit_code == 2 and "removes" not in result.stderr and listing(tmp_path / "run") == before


@pytest.mark.parametrize("method", ["cutpaste", "draem"])
def test_other_methods(start, tmp_path, method):
    assert start("--method", method).exit_code == 0
    assert json.loads((tmp_path / "run" / "run.json").read_text())["method"] == method


def test_pasted_defects_lie_on_the_object(start, tmp_path, data):
    result = start("--place", "move", "--find", "whole-picture")
    assert result.exit_code == 0, result.stderr
    assert json.loads((tmp_path / "run" / "run.json").read_text())["masks"]["objects"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--place", "learned"), "turned and scaled anyway; give --place move"),
        (("--find", "alpha"), "--find goes with --place move"),
        (("--textures", "somewhere"), "--textures goes with --method draem"),
        (("--shots", "99"), "99 shots of metal/scratch asked for"),
    ],
)
def test_what_does_not_go_together_is_refused(refused, data, tmp_path, options, said):
    given = ("--product", "metal", "--defect", "scratch", "--normals", data, "--out", tmp_path / "run")
    assert said in refused("paste", data, *given, *options)
    assert not (tmp_path / "run").exists()


def test_one_defect_is_asked_for(refused, data, tmp_path):
    said = refused("paste", data, "--normals", data, "--out", tmp_path / "run")
    assert "one defect is pasted, and there are" in said and "give --product and --defect" in said
