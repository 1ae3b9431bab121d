"""`adiff evaluate`: from a real run of the tiny model to the tables, and what it refuses."""

import errno
import json
import shutil
import sys
from dataclasses import replace

import numpy as np
import pytest

from adiff.cli import evaluate
from adiff.cli.evaluate import Network
from adiff.datasets.images import write_png
from adiff.evaluation import classification, localization, published, quality
from adiff.evaluation.localizer_file import load_localizer
from adiff.evaluation.networks import NETWORKS
from adiff.library import load_library, save_library

FAST = ("--size", "16", "--steps", "2")


@pytest.fixture
def made(run, library, data, tmp_path):
    """A run of four pairs of metal/scratch, and two good images for testing."""
    for index in range(2):
        write_png(data / "metal" / "test" / "good" / f"{index}.png", np.full((64, 64, 3), 150 + index, np.uint8))
    folder = tmp_path / "made"
    result = run("generate", library, "metal/scratch", "--normals", data / "metal" / "train" / "good", "--masks",
                 data / "metal" / "ground_truth" / "scratch", "-n", "4", "--steps", "2", "--out", folder)  # fmt: skip
    assert result.exit_code == 0, result.stderr
    return folder


@pytest.fixture
def taught(run, library, data, tmp_path):
    """Make a run of a library that was learned from some shots of metal/scratch, by their numbers."""

    def make(name, *numbers):
        shots = [f"metal/test/scratch/{number:03d}.png" for number in numbers]
        known = load_library(library)
        entry = replace(known.get("metal/scratch"), info={"shots": shots})
        save_library(library, replace(known, defects={**known.defects, entry.key: entry}))
        result = run("generate", library, "metal/scratch", "--normals", data / "metal" / "train" / "good", "--masks",
                     data / "metal" / "ground_truth" / "scratch", "-n", "2", "--steps", "2",
                     "--out", tmp_path / name)  # fmt: skip
        assert result.exit_code == 0, result.stderr
        return tmp_path / name

    return make


def test_what_taught_a_run_never_tests_it(run, refused, data, taught, tmp_path):
    first, second = taught("first", 0, 1), taught("second", 0, 2)
    assert json.loads((second / "run.json").read_text())["shots"] == [f"metal/test/scratch/00{n}.png" for n in (0, 2)]
    result = run("evaluate", "localization", data, first, second, *FAST, "--out", tmp_path / "out")
    assert result.exit_code == 0 and "cannot be told" not in result.stderr
    assert "1 of 2 pairs of" in result.stderr and "are left out: the normal images" in result.stderr
    split = json.loads((tmp_path / "out" / "localization.json").read_text())["split"]
    assert split["train"] == [f"metal/test/scratch/00{n}.png" for n in (0, 1, 2)]
    assert split["test"] == ["metal/test/scratch/003.png"]
    told = refused("evaluate", "uplift", data, first, "--shots", "1", "--out", tmp_path / "up")
    assert "first was learned from 2 shots, and metal/test/scratch/001.png, one of them, would test" in told
    assert not (tmp_path / "up").exists()


def test_a_run_that_does_not_say_what_taught_it_is_warned_of(run, data, made, tmp_path):
    result = run("evaluate", "localization", data, made, *FAST, "--out", tmp_path / "out")
    assert result.exit_code == 0 and "does not say which shots taught" in result.stderr


def test_localization_writes_its_table_its_record_and_the_network(run, data, made, tmp_path):
    result = run("evaluate", "localization", data, made, "--shots", "1", *FAST, "--out", tmp_path / "out")
    assert result.exit_code == 0, result.stderr
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        "localization.json", "localization.md", "localizer.safetensors"
    ]  # fmt: skip
    record = json.loads((tmp_path / "out" / "localization.json").read_text())
    assert record["images"] == {"defective": 3, "normal": 2} and 0 <= record["metrics"]["pro"] <= 1
    assert record["split"]["train"] == ["metal/test/scratch/000.png"] and "torch" in record["versions"]
    assert (tmp_path / "out" / "localization.md").read_text() == result.stdout
    assert result.stdout.splitlines()[2].startswith("| scratch | ")


@pytest.mark.parametrize(
    ("command", "work"),
    [("localization", localization), ("classification", classification), ("quality", quality)],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_place_that_cannot_be_written_is_told_first(refused, data, made, tmp_path, monkeypatch, command, work):
    def never(*_, **__):
        raise AssertionError("the work has begun")

    monkeypatch.setattr(work, f"measure_{command}", never)
    (tmp_path / "file").touch()
    options = ("--features", tmp_path / "file") if command == "quality" else ()
    out = tmp_path / "file" / "x"
    told = refused("evaluate", command, data, made, "--shots", "1", *options, "--out", out)
    assert told.startswith(f"error: Not a directory: {out}") and "give another place" in told


@pytest.mark.parametrize("command", ["localization", "quality"])
def test_what_a_full_disk_breaks_off_is_given_again(run, data, made, tmp_path, monkeypatch, command):
    def full(path, _text):
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(quality, "measure_quality", lambda *_, **__: {
        "class_score": 1.0, "cluster_distance": None, "network": {"kind": "resnet34", "file": "x"}
    })  # fmt: skip
    options = ("--features", tmp_path / "x") if command == "quality" else FAST
    given = ("evaluate", command, data, made, "--shots", "1", *options, "--out", tmp_path / "out")
    with monkeypatch.context() as patch:
        patch.setattr(evaluate, "write_text", full)
        stopped = run(*given)
    assert stopped.exit_code == 2 and stopped.stderr.endswith("; make room, then give the same command again\n")
    assert not (tmp_path / "out").exists()
    assert run(*given).exit_code == 0 and (tmp_path / "out" / f"{command}.md").exists()


def test_uplift_writes_rows_and_a_table_and_goes_on(run, data, made, tmp_path):
    arguments = ("evaluate", "uplift", data, made, "--shots", "1", *FAST, "--out", tmp_path / "out", "--seeds", "2",
                 "--row", "real", "--row", "real + crop-paste", "--row", "generated", "-n", "3")  # fmt: skip
    first = run(*arguments)
    assert first.exit_code == 0, first.stderr
    assert [line.split(" | ")[0] for line in first.stdout.splitlines()[2:]] == [
        "| real", "| real + crop-paste", "| generated"
    ]  # fmt: skip
    assert len(list((tmp_path / "out" / "rows").iterdir())) == 6
    before = {p.name: p.stat().st_mtime_ns for p in (tmp_path / "out" / "rows").iterdir()}
    assert run(*arguments).stdout == first.stdout
    assert before == {p.name: p.stat().st_mtime_ns for p in (tmp_path / "out" / "rows").iterdir()}
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert [row["row"] for row in report["rows"]] == ["real", "real + crop-paste", "generated"]


def test_another_network_is_trained_and_named_in_the_record(run, data, made, tmp_path):
    result = run("evaluate", "localization", data, made, "--shots", "1", "--network", "draem", "--size", "32",
                 "--steps", "1", "--out", tmp_path / "out")  # fmt: skip
    assert result.exit_code == 0, result.stderr
    settings = json.loads((tmp_path / "out" / "localization.json").read_text())["settings"]
    assert (settings["network"], settings["width"], settings["lr"]) == ("draem", 64, 1e-4)
    assert load_localizer(tmp_path / "out" / "localizer.safetensors").kind == "draem"


def test_networks_are_those_of_the_library():
    assert [network.value for network in Network] == list(NETWORKS)


def test_quality_without_packages_or_weights_says_what_else_there_is(refused, data, made, tmp_path, monkeypatch):
    given = ("evaluate", "quality", data, made, "--shots", "1", "--out", tmp_path / "out")
    assert "give one or the others" in refused(*given, "--features", tmp_path / "a", "--lpips", tmp_path / "b")
    monkeypatch.setitem(sys.modules, "torch_fidelity", None)
    assert "or --features FILE for the same formulas on a ResNet-34 of yours" in refused(*given)
    assert not (tmp_path / "out").exists()


def test_published_quality_goes_by_its_own_names(run, refused, data, made, tmp_path, monkeypatch):
    pytest.importorskip("lpips")
    pytest.importorskip("torch_fidelity")
    given = {}

    def measured(runs, shots, **options):
        given.update(options, shots=len(shots), runs=len(runs))
        return {"inception_score": 1.5, "ic_lpips": None}

    monkeypatch.setattr(published, "measure_published", measured)
    shutil.copytree(made, tmp_path / "again")
    result = run("evaluate", "quality", data, made, tmp_path / "again", "--shots", "1", "--lpips", "vgg.pth",
                 "--out", tmp_path / "out")  # fmt: skip
    assert result.exit_code == 0, result.stderr
    assert result.stdout.splitlines()[2:] == ["| Inception Score | 1.500 |", "| IC-LPIPS | undefined |"]
    assert (given["shots"], given["inception"], given["vgg"].name, given["size"]) == (1, None, "vgg.pth", 256)
    record = json.loads((tmp_path / "out" / "quality.json").read_text())
    assert record["shots"] == ["metal/test/scratch/000.png"] and given["runs"] == len(record["runs"]) == 2
    shutil.copytree(made, tmp_path / "other")
    plan = json.loads((made / "run.json").read_text())
    (tmp_path / "other" / "run.json").write_text(json.dumps({**plan, "defect": "dent"}))
    told = refused("evaluate", "quality", data, made, tmp_path / "other", "--out", tmp_path / "new")
    assert "other of metal/dent; images are compared with their own defect's shots: measure each" in told


def test_what_does_not_fit_is_refused(refused, data, made, library, tmp_path):
    out = ("--out", tmp_path / "out")
    assert "holds no run.json" in refused("evaluate", "uplift", data, data, *out)
    for command in ("uplift", "localization", "classification", "quality"):
        given = ("--features", tmp_path / "none.pth") if command == "quality" else ()
        told = refused("evaluate", command, data, made, made / ".." / "made", *given, *out)
        assert f"the run {made / '..' / 'made'} is given twice; give it once" in told
    assert "both --shots and --library" in refused(
        "evaluate", "uplift", data, made, "--shots", "1", "--library", library, *out
    )
    assert "none is recorded" in refused("evaluate", "localization", data, made, "--library", library, *out)
    for given, why in ((("--textures", data), "a row of DRAEM's"), (("--base", "demo"), "a row that is painted")):
        told = refused("evaluate", "uplift", data, made, "--row", "real", *given, *out)
        assert f"{given[0]} does nothing without {why}" in told
    assert "no row 'magic'" in refused("evaluate", "uplift", data, made, "--shots", "1", "--row", "magic", *out)
    plan = json.loads((made / "run.json").read_text())
    (made / "run.json").write_text(json.dumps({**plan, "base": {"name": "v1-5", "fingerprint": "1" * 64}}))
    told = refused("evaluate", "uplift", data, made, "--shots", "1", "--row", "real + textual-inversion", *out)
    assert f"{made} was painted on base 'v1-5', not on " in told and "give it with --base" in told
    assert "two or more defects" in refused("evaluate", "classification", data, made, "--shots", "1", *out)
    assert "no file of weights at" in refused(
        "evaluate", "quality", data, made, "--shots", "1", "--features", tmp_path / "none.pth", *out
    )
    assert "is left to test on" in refused("evaluate", "localization", data, made, "--shots", "4", *out)
    assert "expected multiples of 16" in refused("evaluate", "uplift", data, made, "--size", "20", *out)
    write_png(data / "metal" / "ground_truth" / "scratch" / "002_mask.png", np.zeros((64, 64), bool))
    told = refused("evaluate", "localization", data, made, "--shots", "1", *FAST, *out)  # one line: nothing was trained
    assert "002_mask.png (64x64) is empty" in told
    (data / "metal" / "ground_truth" / "scratch" / "002_mask.png").unlink()
    assert "1 of 4 images" in refused("evaluate", "uplift", data, made, "--shots", "1", *out)
    (made / "pairs" / "000003.json").unlink()
    assert "3 of 4 pairs" in refused("evaluate", "uplift", data, made, "--shots", "1", *out)
    assert not (tmp_path / "out").exists()
    assert "is not empty" in refused("evaluate", "localization", data, made, "--out", data)


def test_without_normal_images_for_testing_some_are_set_aside(run, data, made, tmp_path):
    shutil.rmtree(data / "metal" / "test" / "good")
    result = run("evaluate", "localization", data, made, "--shots", "1", *FAST, "--out", tmp_path / "out")
    assert result.exit_code == 0, result.stderr
    split = json.loads((tmp_path / "out" / "localization.json").read_text())["split"]
    assert split["test_normals"] == ["metal/train/good/002.png"] and len(split["train_normals"]) == 2


@pytest.mark.parametrize("command", ["localization", "uplift", "classification", "quality"])
def test_every_command_has_help_with_an_example(run, command):
    result = run("evaluate", command, "--help")
    assert result.exit_code == 0 and f"Example:  adiff evaluate {command}" in result.stdout
