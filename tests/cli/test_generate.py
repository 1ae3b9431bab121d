"""`adiff generate`: options reach the run, the right encoder is found, what does not fit is refused."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image

import adiff.generation
import adiff.report
from adiff.datasets.images import write_png
from adiff.errors import InputError
from adiff.features import load_features
from adiff.generation import MaskSampling
from adiff.generation.guidance import LADDER
from adiff.library import load_library, save_library
from adiff.pair_filter import PairFilter
from adiff.rejection import reject_pairs
from adiff.run_record import Records, record_path
from adiff.scoring import describe, likeness, spread
from adiff.spatial_encoder import SpatialEncoder, fingerprint, save_encoder
from adiff.storage import write_json


@pytest.fixture
def runs(monkeypatch):
    """Stand-in for the run: keeps what it was called with."""
    calls = []

    def generate_run(backbone, library, key, encoder, normals, masks, **options):
        calls.append({"key": key, "encoder": encoder, "normals": normals, "masks": masks, **options})
        pairs = [{"id": "00000", "fill": 0.75, "leak": 0.0, "area": 0.1}]
        return adiff.generation.RunResult(options["out"], pairs * options["count"], 1.0)

    monkeypatch.setattr(adiff.generation, "generate_run", generate_run)
    monkeypatch.setattr(adiff.generation, "check_run", lambda *_: None)
    monkeypatch.setattr(adiff.report, "report_of_run", lambda out, **_: out / "report.html")
    return calls


@pytest.fixture
def start(run, library, data, tmp_path):
    def call(*options, defects=("metal/scratch",)):
        out = ("--normals", data / "metal/train/good", "--out", tmp_path / "run")
        return run("generate", library, *defects, *out, *options)

    return call


def test_pairs_that_are_rejected_at_the_end_are_not_counted(start, runs, tmp_path, monkeypatch):
    out = tmp_path / "run"
    write_json(out / "run.json", {"format": 1, "count": 2})
    for number in range(2):
        write_json(record_path(out, number), {"id": f"{number:06d}", "fill": 0.75, "leak": 0.0})

    def generate_run(*_, **options):
        return adiff.generation.RunResult(options["out"], Records(options["out"]), 1.0)

    def report_of_run(out, **_):
        reject_pairs(out, [left.pop()])
        return out / "report.html"

    left = [0, 1]
    monkeypatch.setattr(adiff.generation, "generate_run", generate_run)
    monkeypatch.setattr(adiff.report, "report_of_run", report_of_run)
    assert start("-n", "2").stdout.startswith("1 pair of metal/scratch in ")
    assert start("-n", "2").stdout == f"0 pairs of metal/scratch in {out}; report: {out / 'report.html'}\n"


def test_options_reach_the_run(start, runs, tmp_path):
    result = start("-n", "3", "--steps", "7", "--guidance", "1.5", "--reweighting", "balanced", "--strength", "0.5",
                   "--distance", "vae", "--blending", "fixed", "--batch", "2", "--no-crop", "--seed", "9",
                   "--severity", "1.25", "--level", "3")  # fmt: skip
    assert result.exit_code == 0, result.stderr
    assert "3 pairs of metal/scratch" in result.stdout and "median fill 0.75" in result.stdout
    assert result.stdout.endswith(f" levels; report: {tmp_path / 'run' / 'report.html'}\n")
    (call,) = runs
    settings = call["settings"]
    chosen = ("steps", "guidance", "reweighting", "strength", "level", "distance", "blending", "batch", "crop",
              "severity")  # fmt: skip
    assert [getattr(settings, name) for name in chosen] == [
        7, 1.5, "balanced", 0.5, 3.0, "vae", "fixed", 2, False, 1.25,
    ]  # fmt: skip
    assert (call["count"], call["seed"], call["out"]) == (3, 9, tmp_path / "run")
    assert [path.name for path in call["normals"]] == ["000.png", "001.png", "002.png"]
    assert type(call["masks"]).__name__ == "LearnedMasks" and call["also"] == []
    assert start("--restart", "--reweighting", "paper").exit_code == 0 and runs[1]["settings"].reweighting == "paper"


@pytest.mark.parametrize(("given", "idle"), [
    (("--reweighting", "off", "--strength", "0.5"), "--strength does nothing with --reweighting off; leave it out"),
    (("--reweighting", "off", "--level", "1.25"), "--level does nothing with --reweighting off"),
    (("--reweighting", "uniform", "--distance", "vae"), "--distance does nothing with --reweighting uniform"),
    (("--reweighting", "release", "--level", "2"), "--level does nothing with --reweighting release"),
    (("--preview-decoder", "taesd.safetensors"), "--preview-decoder does nothing with --distance latent"),
    (("--vary-shots", "--mask-denoise", "0.6"), "--mask-denoise does nothing with --vary-shots"),
    (("--masks", "drawn", "--mask-denoise", "0.6"), "--mask-denoise does nothing with --masks"),
    (("--vary-shots", "--mask-guidance", "2"), "--mask-guidance does nothing with --vary-shots"),
])  # fmt: skip
def test_options_that_would_do_nothing_are_refused(start, given, idle):
    result = start(*given)
    assert result.exit_code == 2 and idle in result.stderr


@pytest.mark.parametrize(("given", "value"), [((), 2.0), (("--guidance", "3"), 3.0)])
def test_a_guidance_is_a_number(start, runs, given, value):
    assert start(*given).exit_code == 0
    (call,) = runs
    assert (call["fit"], call["settings"].guidance) == (False, value)


def test_a_guidance_is_fitted_when_asked(run, refused, library, data, tmp_path):
    """No stand-in here: what suits the shots is found, told, and painted with, of several defects each by itself."""
    held, rng = load_library(library), torch.Generator().manual_seed(0)
    options = ("--normals", data / "metal/train/good", "--steps", "2", "--batch", "8", "--guidance", "auto")
    masks = ("--masks", data / "metal/ground_truth/hole")
    place = tmp_path / "run"
    bare = {key: dataclasses.replace(entry, likeness=None) for key, entry in held.defects.items()}
    save_library(library, dataclasses.replace(held, defects=bare))
    said = refused("generate", library, "metal/scratch", *options, *masks, "-n", "2", "--out", place)
    assert "a guidance cannot be fitted to metal/scratch" in said and not place.exists()
    seen = {key: dataclasses.replace(entry, likeness=torch.randn(2, 8, generator=rng)) for key, entry in bare.items()}
    save_library(library, dataclasses.replace(held, defects=seen))
    result = run("generate", library, "metal/scratch", *options, *masks, "-n", "2", "--out", place)
    assert result.exit_code == 0, result.stderr
    plan = json.loads((place / "run.json").read_text())
    found = plan["settings"]["guidance"]
    assert (plan["guidance"]["value"], plan["guidance"]["shots"]) == (found, 2)
    assert "--guidance auto" in plan["command"]
    assert f"2 pairs of metal/scratch in {place}, guidance {found:g}, median fill" in result.stdout
    assert "guidance.value" in (place / "report.html").read_text("utf-8")
    every = ("--all", "--vary-shots", "--per-defect", "1")
    head, row, *_ = run("generate", library, *every, *options, "--out", tmp_path / "runs").stdout.splitlines()
    assert head.split() == ["defect", "pairs", "median", "fill", "guidance"] and float(row.split()[-1]) in LADDER


@pytest.mark.parametrize(("given", "said"), [("much", "--guidance 'much' is no number; give one, or auto"),
                                             ("-1", "guidance is -1.0; it must be at least 0"),
                                             ("nan", "guidance is nan; it must be at least 0")])  # fmt: skip
def test_a_guidance_that_is_none_is_refused(runs, refused, library, data, tmp_path, given, said):
    place = ("--normals", data / "metal/train/good", "--out", tmp_path / "run")
    assert said in refused("generate", library, "metal/scratch", *place, "--guidance", given)
    assert not runs


def test_limits_reach_the_run(start, runs, refused, library, data, tmp_path):
    assert start("--min-fill", "0.5", "--max-seam", "2", "--tries", "3", "--refine").exit_code == 0
    (call,) = runs
    assert call["limits"] == PairFilter(0.5, 2.0) and call["tries"] == 3 and call["settings"].refine
    runs.clear()
    assert start("--auto-filter", "--min-novelty", "0.1").exit_code == 0  # this library describes no shots
    assert runs[0]["limits"] == PairFilter(min_fill="auto", min_novelty=0.1) and runs[0]["tries"] == 4
    runs.clear()
    assert start().exit_code == 0 and runs[0]["limits"] is None
    out = ("--normals", data / "metal/train/good", "--out", tmp_path / "run")
    for bad, said in (
        (("--tries", "3"), "--tries goes with a limit"),
        (("--min-fill", "2"), "min-fill is 2.0; expected a number between 0 and 1, or auto"),
        (("--max-likeness", "near"), "max-likeness is near; expected"),
    ):
        assert said in refused("generate", library, "metal/scratch", *out, *bad)


def test_pairs_that_are_missing_are_told(start, data, tmp_path):
    """No stand-in here: a limit that nothing keeps, and a normal image that does not open."""
    masks = ("--masks", data / "metal/ground_truth/hole", "-n", "2", "--steps", "1")
    result = start(*masks, "--min-fill", "1", "--max-seam", "0", "--tries", "2")
    report = tmp_path / "run" / "report.html"
    assert result.exit_code == 0
    assert result.stdout == f"0 pairs of metal/scratch in {report.parent}; report: {report}\n"
    assert "4 rejected tries; 2 pairs given up" in report.read_text(encoding="utf-8")
    assert "2 of 2 pairs were rejected, in all their tries or by hand" in result.stderr.replace("\n", " ")
    assert len(list((tmp_path / "run" / "rejects" / "image").iterdir())) == 4
    for path in (data / "metal" / "train" / "good").iterdir():
        path.write_bytes(b"x")
    result = start(*masks, "--restart")
    assert result.exit_code == 2 and "error: pairs that were not made: 2, as 00" in result.stderr


def test_masks_of_a_folder_are_used(start, runs, data):
    assert start("--masks", data / "metal/ground_truth/hole").exit_code == 0
    assert type(runs[0]["masks"]).__name__ == "FolderMasks"
    assert runs[0]["settings"].crop is None and list(runs[0]["masks"].normals) == []


def test_masks_go_with_the_normals_that_they_were_placed_on(start, runs, data, tmp_path):
    shutil.copytree(data / "metal/ground_truth/hole", tmp_path / "placed")
    count = len(list((tmp_path / "placed").iterdir()))
    first = min(path.name for path in (tmp_path / "placed").iterdir())
    (tmp_path / "placed" / "masks.json").write_text(json.dumps({"masks": [{"file": first, "normal": "002.png"}]}))
    assert start("--masks", tmp_path / "placed").exit_code == 0
    assert list(runs[0]["masks"].normals) == ["002.png", *(count - 1) * [None]]


def test_masks_of_normals_names_go_onto_these(start, runs, refused, library, data, tmp_path):
    shutil.copytree(data / "metal/ground_truth/hole", tmp_path / "own")
    assert start("--masks", tmp_path / "own", "--by-name").exit_code == 0
    assert list(runs[0]["masks"].normals) == [p.name.replace("_mask", "") for p in runs[0]["masks"].paths]
    normals = ("--normals", data / "metal/train/good", "--out", tmp_path / "run")
    assert "--by-name goes with --masks" in refused("generate", library, "metal/scratch", *normals, "--by-name")
    (tmp_path / "own" / "new.png").write_bytes(next((tmp_path / "own").iterdir()).read_bytes())
    wanted = ("--masks", tmp_path / "own", "--by-name")
    assert "new.png has the name of no normal image" in refused("generate", library, "metal/scratch", *normals, *wanted)


def test_restart_clears_a_run_and_nothing_else(start, runs, tmp_path):
    for name in ("run.json", "image/000000.png", "pairs/000000.json", "report.html"):
        (tmp_path / "run" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "run" / name).write_text("{}")
    (tmp_path / "run" / "notes.txt").write_text("mine")
    result = start("--restart")
    assert result.exit_code == 2 and "notes.txt" in result.stderr and not runs
    assert "--restart removes" not in result.stderr
    (tmp_path / "run" / "notes.txt").unlink()
    start()
    assert (tmp_path / "run" / "run.json").exists()
    result = start("--restart")
    assert result.exit_code == 0 and not (tmp_path / "run").exists() and len(runs) == 2
    assert "--restart removes 1 finished pair\n" in result.stderr


def test_ctrl_c_says_where_the_pairs_are(start, runs, monkeypatch, tmp_path):
    def stop(*_, out, **__):
        (out / "run.json").write_text("{}")
        return adiff.generation.RunResult(out, [], 1.0, cancelled=True)

    monkeypatch.setattr(adiff.generation, "generate_run", stop)
    (tmp_path / "run").mkdir()
    result = start()
    assert result.exit_code == 130 and result.stderr.startswith(f"stopped: finished pairs are in {tmp_path / 'run'}")


def test_ctrl_c_before_a_run_is_begun_says_that_nothing_is_kept(start, runs, monkeypatch, tmp_path):
    def stop(*_, **__):
        raise KeyboardInterrupt  # while a guidance is fitted

    monkeypatch.setattr(adiff.generation, "generate_run", stop)
    result = start("--guidance", "auto")
    assert (result.exit_code, result.stderr) == (130, "stopped: no run is begun yet; the same command begins anew\n")


@pytest.mark.parametrize("place", ["lib.encoder.safetensors", "encoder.safetensors", "merged.encoder.safetensors"])
def test_the_encoder_beside_the_library_is_found_by_its_fingerprint(start, runs, library, place, tmp_path):
    own = SpatialEncoder("small", dim=load_library(library).context_dim, seed=7)
    save_library(library, dataclasses.replace(load_library(library), encoder_fingerprint=fingerprint(own)))
    result = start()
    assert result.exit_code == 2 and "--encoder" in result.stderr and not runs
    (tmp_path / "damaged.encoder.safetensors").write_text("of another library")
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
    line = refused("generate", library, "metal/scratch", "--normals", tmp_path / "none", *out)
    assert "no images" in line and "or in its metal/train/good, metal, train/good, normal or good" in line
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


def test_a_restart_that_is_refused_loses_nothing(start, refused, library, data, tmp_path, listing):
    """No stand-in here: the old run goes only when the new one can be made."""
    masks = ("--masks", data / "metal/ground_truth/hole")
    assert start("-n", "1", "--steps", "1", *masks).exit_code == 0
    made = listing(tmp_path / "run")
    save_encoder(tmp_path / "wide.safetensors", SpatialEncoder("small", dim=32), {})
    write_png(tmp_path / "none" / "0.png", np.zeros((64, 64), bool))
    for bad, said in (
        (("--encoder", tmp_path / "wide.safetensors", *masks), "32 wide"),
        (("--masks", tmp_path / "none"), "is empty"),
        (("--distance", "preview", *masks), "needs a preview decoder"),
        (("--distance", "preview", "--preview-decoder", tmp_path / "none.safetensors", *masks), "is not there"),
        (("--distance", "preview", "--preview-decoder", library, *masks), "no TAESD decoder"),
    ):
        result = start("-n", "1", "--restart", *bad)
        assert result.exit_code == 2 and said in result.stderr, result.stderr
        assert listing(tmp_path / "run") == made


def filed_as(entry, *keys):
    """The same learned defect under several names, as a library's table."""

    def copy(product, defect):
        anomaly, mask = entry.anomaly.clone(), entry.mask.clone()
        return dataclasses.replace(entry, product=product, defect=defect, anomaly=anomaly, mask=mask)

    return {key: copy(*key) for key in keys}


@pytest.fixture
def many(library):
    """The library with three whole defects of two products: metal/scratch, metal/hole, wood/knot."""
    held = load_library(library)
    names = ("metal", "scratch"), ("metal", "hole"), ("wood", "knot")
    defects = filed_as(held.defects["metal", "scratch"], *names)
    save_library(library, dataclasses.replace(held, defects=defects))
    return library


def test_all_defects_are_runs_of_their_own(run, many, runs, data, tmp_path):
    shutil.copytree(data / "metal/train/good", data / "wood")
    (data / "wood" / "002.png").unlink()
    given = ("generate", many, "--all", "--per-defect", "3", "--normals", data, "--out", tmp_path / "runs")
    result = run(*given)
    assert result.exit_code == 0, result.stderr
    keys = [("metal", "scratch"), ("metal", "hole"), ("wood", "knot")]
    assert [call["key"] for call in runs] == keys and {call["count"] for call in runs} == {3}
    assert [call["out"] for call in runs] == [tmp_path / "runs" / "-".join(key) for key in keys]
    normals = [[path.relative_to(data).parent.as_posix() for path in call["normals"]] for call in runs]
    assert normals == [["metal/train/good"] * 3, ["metal/train/good"] * 3, ["wood"] * 2]
    rows = [line.split() for line in result.stdout.splitlines()]
    assert rows[1:4] == [["metal/scratch", "3", "0.75"], ["metal/hole", "3", "0.75"], ["wood/knot", "3", "0.75"]]
    first = tmp_path / "runs" / "metal-scratch" / "report.html"
    assert result.stdout.endswith(f"9 pairs in 3 runs in {tmp_path / 'runs'}; reports: {first} and so on\n")
    runs.clear()
    one = ("generate", many, "metal/scratch", "--normals", data / "metal", "--out", tmp_path / "one")
    assert run(*one).exit_code == 0  # the data folder of a single product, as for `adiff train`
    assert [path.parent for path in runs[0]["normals"]] == [data / "metal/train/good"] * 3
    runs.clear()
    assert run(*given[:3], *given[5:6], data / "wood", *given[7:]).exit_code == 0  # one folder for all
    assert {(len(call["normals"]), call["count"]) for call in runs} == {(2, 16)}


def test_what_cannot_be_made_costs_itself_alone(run, refused, library, data, tmp_path, runs, tiny, monkeypatch):
    given = ("generate", library, "--all", "--normals", data, "--out", tmp_path / "runs")
    held = load_library(library)
    both = held.defects["metal", "scratch"]

    def saved(*defects):
        save_library(library, dataclasses.replace(held, defects={defect.key: defect for defect in defects}))

    def left_out(*options):
        runs.clear()
        result = run(*given, *options)
        said = " ".join(result.stderr.split())
        assert result.exit_code == 2 and [call["key"] for call in runs] == [("metal", "scratch")]
        (_, reason), told = said.split("left out: metal/hole: ", 1), "runs that were not made: 1 of 2: metal/hole: "
        assert reason.count("metal/hole: ") == 1 and told in reason  # before the work, and after it
        return reason

    assert "appearance of metal/hole was not learned" in left_out()
    unmasked = dataclasses.replace(both, defect="hole", anomaly=both.anomaly.clone(), mask=None)
    saved(both, unmasked)
    assert "masks of metal/hole were not learned; `adiff train --what masks` adds them, and --vary" in left_out()
    imported = dataclasses.replace(unmasked, shot_masks=None)
    saved(both, imported)
    assert "--vary-shots does without" not in left_out()
    assert "does not hold the shots' masks of metal/hole" in left_out("--vary-shots")
    saved(both, dataclasses.replace(unmasked, mask=both.mask))

    def check_run(backbone, library, wanted, *_):
        if wanted[0][0] == ("metal", "hole"):
            raise InputError("the likeness cannot be measured")

    monkeypatch.setattr(adiff.generation, "check_run", check_run)
    assert "likeness cannot be measured" in left_out()
    runs.clear()
    saved(imported)
    assert "masks of metal/hole were not learned" in refused(*given) and not runs


def test_all_is_refused_as_a_whole(refused, library, data, tmp_path, runs, tiny):
    given = ("generate", library, "--all", "--normals", data, "--out", tmp_path / "runs")
    held = load_library(library)
    both = held.defects["metal", "scratch"]

    def now(*keys):
        save_library(library, dataclasses.replace(held, defects=filed_as(both, *keys)))

    now(("metal-a", "b"), ("metal", "a-b"))
    assert "metal-a/b and metal/a-b would share the folder metal-a-b" in refused(*given)
    now(("wood", "a"), ("wood", "b"))
    assert "normal images of wood: no images in" in refused(*given)
    now(("metal", "a"))
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "run.json").write_text("{}")
    assert "is the folder of one run" in refused(*given[:-1], tmp_path / "one")
    now()
    assert "holds no defects" in refused(*given)
    assert not runs and not (tmp_path / "runs").exists()


def test_what_fails_among_all_is_named(run, many, data, tmp_path, monkeypatch):
    def generate_run(backbone, library, key, *_, out, **__):
        if key == ("metal", "hole"):
            raise InputError("only 3 of 8 masks passed")
        return adiff.generation.RunResult(out, [], 1.0)

    monkeypatch.setattr(adiff.generation, "generate_run", generate_run)
    monkeypatch.setattr(adiff.report, "report_of_run", lambda out, **_: out / "report.html")
    normals = ("--normals", data / "metal/train/good")
    result = run("generate", many, "--all", *normals, "--out", tmp_path / "runs")
    assert result.exit_code == 2 and "metal-scratch" in result.stdout.replace("/", "-")
    assert "runs that were not made: 1 of 3: metal/hole: only 3 of 8 masks passed" in " ".join(result.stderr.split())
    result = run("generate", many, "metal/hole", *normals, "--out", tmp_path / "runs")
    assert result.exit_code == 2 and "error: only 3 of 8 masks passed" in result.stderr


def test_a_defect_whose_object_is_not_found_costs_itself_alone(run, refused, many, runs, data, parts, tmp_path):
    """Part of the products cannot be told from their background; nothing is placed there at random."""
    shutil.copytree(tmp_path / "parts", tmp_path / "set" / "wood")
    shutil.copytree(data / "metal/train/good", tmp_path / "set" / "metal")
    given = ("generate", many, "--all", "--per-defect", "3", "--place", "move", "--normals", tmp_path / "set")
    result = run(*given, "--out", tmp_path / "runs")
    said = " ".join(result.stderr.split())
    assert result.exit_code == 2 and [call["key"] for call in runs] == [("wood", "knot")]
    assert "runs that were not made: 2 of 3: metal/scratch: " in said and "; metal/hole: " in said
    assert "--foreground DIR" in said and "3 pairs in 1 run in" in result.stdout
    old = tmp_path / "runs/metal-scratch/run.json"
    old.parent.mkdir(parents=True)
    old.write_text("{}")
    run(*given, "--out", tmp_path / "runs", "--restart")
    assert old.exists()  # what cannot be made anew is not removed
    shutil.rmtree(tmp_path / "set" / "wood")
    shutil.copytree(tmp_path / "set" / "metal", tmp_path / "set" / "wood")
    assert "metal/scratch: " in refused(*given, "--out", tmp_path / "none") and not (tmp_path / "none").exists()


def test_restart_of_all_removes_nothing_if_one_run_holds_more(run, many, runs, data, tmp_path):
    other = tmp_path / "runs/metal-other/run.json"  # of a defect that this library does not hold
    for name in ("metal-scratch/run.json", "metal-hole/run.json", "metal-hole/notes.txt", other):
        (tmp_path / "runs" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "runs" / name).write_text("{}")
    normals = data / "metal/train/good"
    given = ("generate", many, "--all", "--normals", normals, "--out", tmp_path / "runs", "--restart")
    result = run(*given)
    assert result.exit_code == 2 and "notes.txt" in result.stderr and not runs
    assert (tmp_path / "runs/metal-scratch/run.json").exists()
    (tmp_path / "runs/metal-hole/notes.txt").unlink()
    for name in ("metal-scratch/pairs/000000.json", "metal-scratch/pairs/000001.json", "metal-hole/pairs/000004.json"):
        (tmp_path / "runs" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "runs" / name).write_text("{}")
    result = run(*given)
    assert result.exit_code == 0 and list((tmp_path / "runs").iterdir()) == [other.parent] and other.exists()
    assert "--restart removes 3 finished pairs of 2 runs\n" in result.stderr
    assert "--restart removes" not in run(*given).stderr


def test_several_defects_go_into_each_image(start, many, runs, data):
    assert start(defects=["metal/hole", "metal/scratch"]).exit_code == 0
    holes, scratches = data / "metal/ground_truth/hole", data / "metal/ground_truth/scratch"
    result = start("--masks", scratches, "--masks", holes, defects=["metal/scratch", "metal/hole"])
    assert result.exit_code == 0 and "16 pairs of metal/scratch and metal/hole" in result.stdout
    learned, drawn = runs
    assert learned["key"] == ("metal", "hole") and [key for key, _ in learned["also"]] == [("metal", "scratch")]
    sources = [drawn["masks"], *(source for _, source in drawn["also"])]
    assert [source.paths[0].parent for source in sources] == [scratches, holes]


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ([], "neither of PRODUCT/DEFECT and --all given; give one of them"),
        (["metal/scratch", "--all"], "both of PRODUCT/DEFECT and --all given"),
        (["metal/scratch", "--per-defect", "3"], "--per-defect goes with --all; give -n"),
        (["--all", "-n", "3"], "--all takes --per-defect N, not -n"),
        (["--all", "--masks", "x"], "--all takes learned masks, not --masks"),
        (["metal/scratch", "--masks", "x", "--masks", "y"], "2 --masks for 1 PRODUCT/DEFECT"),
        (["metal/scratch", "metal/hole", "--masks", "x"], "1 --masks for 2 PRODUCT/DEFECT; give one for each"),
        (["metal/scratch", "--find", "alpha"], "--find goes with --place move, or --place learned"),
        (["metal/scratch", "--foreground", "x"], "--foreground goes with --place move, or --place learned"),
        (["metal/scratch", "--place", "move", "--masks", "x"], "--place is for learned or varied masks"),
        (["metal/scratch", "--place", "move", "--find", "alpha", "--foreground", "x"], "both --foreground and --find"),
    ],
)
def test_options_that_do_not_go_together_are_refused(refused, library, data, tmp_path, asked, said):
    assert said in refused("generate", library, "--normals", data, "--out", tmp_path / "run", *asked)


def test_two_defects_are_really_painted(start, many, tmp_path, data, listing):
    """No stand-in here: masks in pairs, the label maps, and the refusal of masks that touch."""
    for i, (name, left) in enumerate((("a", 4), ("b", 40))):
        mask = np.zeros((64, 64), bool)
        mask[20:36, left : left + 12 + i] = True
        write_png(tmp_path / name / "0.png", mask)
    options = ("-n", "2", "--steps", "1", "--masks", tmp_path / "a", "--masks", tmp_path / "b")
    result = start(*options, defects=["metal/scratch", "metal/hole"])
    assert result.exit_code == 0, result.stderr
    assert "2 pairs of metal/scratch and metal/hole" in result.stdout
    assert {"mask/000000_labels.png", "mask/000001_labels.png"} < set(listing(tmp_path / "run"))
    shutil.rmtree(tmp_path / "run")
    result = start(*options[:-1], tmp_path / "a", defects=["metal/scratch", "metal/hole"])
    assert result.exit_code == 2 and "touch or overlap" in result.stderr and not (tmp_path / "run").exists()


def test_how_learned_masks_are_sampled_is_asked_for(start, runs):
    given = ("--mask-steps", "30", "--mask-guidance", "4", "--mask-denoise", "0.6", "--mask-threshold", "0.7")
    assert start(*given).exit_code == 0
    assert runs[0]["masks"].sampling == MaskSampling(30, 4.0, 0.6, 0.7)


def test_the_shots_masks_are_varied_if_asked_for(start, runs, refused, run, library, data, tmp_path):
    assert start("--vary-shots").exit_code == 0
    (call,) = runs
    assert type(call["masks"]).__name__ == "ShotMasks" and len(call["masks"].shots) == 3
    out = ("--normals", data / "metal/train/good", "--out", tmp_path / "run")
    given = refused("generate", library, "metal/scratch", *out, "--vary-shots", "--masks", tmp_path)
    assert "both --masks and --vary-shots" in given
    opened = load_library(library)
    entry = opened.defects["metal", "scratch"]
    bare = dataclasses.replace(entry, mask=None, shot_masks=None)
    save_library(library, dataclasses.replace(opened, defects={entry.key: bare}))
    assert "does not hold the shots' masks of metal/scratch" in refused(
        "generate", library, "metal/scratch", *out, "--vary-shots"
    )


@pytest.fixture
def parts(tmp_path):
    """Normal images of a dark part on grey, and the same as masks; where the part is, (64, 64) bool."""
    part = np.zeros((64, 64), bool)
    part[8:44, 20:60] = True
    for number in range(3):
        write_png(tmp_path / "parts" / f"{number:03d}.png", np.where(part, 60, 200 + number).astype(np.uint8))
        write_png(tmp_path / "where" / f"{number:03d}.png", part)
    return part


def test_masks_are_placed_on_the_object_as_pairs_are_made(run, refused, library, parts, tmp_path):
    out = tmp_path / "run"
    normals = ("--normals", tmp_path / "parts")
    options = ("--vary-shots", "--place", "move", "-n", "3")
    made = run("generate", library, "metal/scratch", *normals, "--out", out, *options)
    assert made.exit_code == 0, made.stderr
    for path in sorted((out / "mask").iterdir()):
        mask = np.asarray(Image.open(path)) > 0
        assert mask.any() and not (mask & ~parts).any()
    plan = json.loads((out / "run.json").read_text())
    assert plan["masks"]["kind"] == "placed" and plan["masks"]["on"] == {"kind": "found", "way": "border colour"}
    assert "--vary-shots --place move" in plan["command"]
    (tmp_path / "where" / "002.png").unlink()
    given = ("--place", "learned", "--foreground", tmp_path / "where")
    said = refused("generate", library, "metal/scratch", *normals, "--out", tmp_path / "other", "--vary-shots", *given)
    assert "none of 2 masks of the object" in said and not (tmp_path / "other").exists()


def test_how_masks_are_placed_reaches_the_run(start, runs, parts, tmp_path):
    normals = ("--normals", tmp_path / "parts")
    for options in (("move",), ("move", "--find", "whole-picture"), ("learned", "--foreground", tmp_path / "where")):
        assert start(*normals, "--place", *options).exit_code == 0
    found, whole, given = (call["masks"] for call in runs)
    assert [type(one.source).__name__ for one in (found, whole, given)] == ["LearnedMasks"] * 3
    assert [one.objects.record()["kind"] for one in (found, whole, given)] == ["found", "found", "files"]
    assert whole.objects.finder.way == "whole picture"
    assert found.spread is None and given.spread is not None


@pytest.fixture
def network(tmp_path):
    """A random network of torchvision's in a file named after it."""
    path = tmp_path / "shufflenet_v2_x0_5-random.pth"
    torch.manual_seed(0)
    torch.save(torchvision.models.shufflenet_v2_x0_5(weights=None).state_dict(), path)
    return path


def test_likeness_by_a_network_of_the_users(start, refused, library, data, tmp_path, network):
    """The shots are those that the library records; of what it does not know, all of the data."""
    opened = load_library(library)
    entry = opened.defects["metal", "scratch"]
    entry = dataclasses.replace(entry, info={"shots": [f"metal/test/scratch/00{i}.png" for i in (1, 2)]})
    save_library(library, dataclasses.replace(opened, defects={entry.key: entry}))
    given = ("--features", network, "--photos", data)
    made = ("--masks", data / "metal/ground_truth/hole", "-n", "2", "--steps", "1")
    assert start(*made, *given, "--max-likeness", "1000").exit_code == 0
    run = tmp_path / "run"
    plan, record = (json.loads((run / name).read_text()) for name in ("run.json", "pairs/000001.json"))
    assert plan["likeness"]["network"] == "shufflenet_v2_x0_5" and plan["likeness"]["shots"] == entry.info["shots"]
    eye = load_features(network)
    shots = [read_shot_files(data / "metal", "scratch", f"00{i}") for i in (1, 2)]
    seen = describe(eye, *zip(*shots, strict=True))
    pair = np.asarray(Image.open(run / "image/000001.png")), np.asarray(Image.open(run / "mask/000001_mask.png")) > 0
    assert record["likeness"] == pytest.approx(likeness(describe(eye, [pair[0]], [pair[1]])[0], seen), rel=1e-4)
    assert record["likeness_shots"] == pytest.approx(spread(seen), rel=1e-4)
    out = ("generate", library, "metal/scratch", "--normals", data / "metal/train/good", "--out", run)
    assert "likeness differs" in refused(*out, *made)
    for bad, said in (
        (given[:2], "--features and --photos go together"),
        (given[2:], "--features and --photos go together"),
        (("--features", network, "--photos", tmp_path / "none"), "does not exist"),
        (("--features", library, "--photos", data), "does not begin with the name"),
    ):
        assert said in refused(*out, *made, *bad)
    (data / "metal/test/scratch/001.png").rename(data / "metal/test/scratch/009.png")
    (data / "metal/ground_truth/scratch/001_mask.png").rename(data / "metal/ground_truth/scratch/009_mask.png")
    assert "001.png is not among the 4 shots of" in refused(*out, *made, *given)


def read_shot_files(folder, defect, name):
    """(image, mask) of one shot in MVTec's layout."""
    mask = np.asarray(Image.open(folder / "ground_truth" / defect / f"{name}_mask.png"))
    return np.asarray(Image.open(folder / "test" / defect / f"{name}.png")), mask > 0


def test_without_limits_a_network_is_only_recorded(start, runs, data, network):
    assert start("--features", network, "--photos", data).exit_code == 0
    (call,) = runs
    (reference,) = call["references"].values()
    assert len(reference.descriptors) == len(reference.files) == 4 and call["limits"] is None
    runs.clear()
    assert start().exit_code == 0 and runs[0]["references"] is None
