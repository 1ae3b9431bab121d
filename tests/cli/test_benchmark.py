"""`adiff benchmark`: from data to report with the tiny model, and what it refuses."""

import json
import multiprocessing
import os
import shlex
from dataclasses import replace

import numpy as np
import pytest
import torch

from adiff import benchmark as engine
from adiff.benchmark import FULL, Budget
from adiff.cli import benchmark as module
from adiff.evaluation.localizer import LocalizerSettings
from adiff.generation import GeneratedMask, sources
from adiff.storage import FILLING, UNFINISHED, write_text

TINY = Budget(pairs=2, learn_steps=1, mask_steps=1, detector=LocalizerSettings(size=16, width=8, steps=2, batch=2))


@pytest.fixture
def cheap(tiny, monkeypatch):
    """A budget that costs nothing, and masks that pass the rules."""
    mask = np.zeros((64, 64), bool)
    mask[10:34, 12:36] = True
    monkeypatch.setattr(engine, "QUICK", TINY)
    monkeypatch.setattr(
        sources, "sample_masks", lambda backbone, e, count, **_: [GeneratedMask(mask, 0.5, i) for i in range(count)]
    )


def rows(out):
    return [json.loads(text) for text in (out / "rows.jsonl").read_text().splitlines()]


def test_a_folder_is_measured_and_the_same_command_goes_on(run, data, cheap, tmp_path):
    out = tmp_path / "out"
    arguments = ("benchmark", data, "--product", "metal", "--defect", "scratch", "--suite", "uplift", "--quick",
                 "--out", out)  # fmt: skip
    first = run(*arguments)
    assert first.exit_code == 0, first.stderr
    cells = len(engine.SUITES["uplift"].variants)
    assert first.stdout.startswith(f"{cells} of {cells} cells measured, 0 failed: ")
    assert {path.name for path in out.iterdir()} == {
        "benchmark.json", "rows.jsonl", "summary.json", "report.html", "report.md", "sheets", "learned", "runs"
    }  # fmt: skip
    plan, before = json.loads((out / "benchmark.json").read_text()), (out / "rows.jsonl").read_bytes()
    assert plan["target"] == "data" and plan["commands"] == [
        f"adiff benchmark {shlex.quote(str(data))} --out out --suite uplift --product metal --defect scratch --quick"
    ]  # fmt: skip
    (out / "rows.jsonl").write_text("\n".join((out / "rows.jsonl").read_text().splitlines()[1:]) + "\n")
    again = run(*arguments)
    assert again.exit_code == 0 and again.stderr.count(": done") == 1
    assert sorted(row["variant"] for row in rows(out)) == sorted(json.loads(x)["variant"] for x in before.splitlines())
    (out / "mine.txt").write_text("x")
    assert "mine.txt beside its benchmark" in run(*arguments, "--restart").stderr
    (out / "mine.txt").unlink()
    drawn = ("benchmark", "surfaces", *arguments[6:])
    for given, told in (
        ((*arguments[:2], "--product", "wood", *arguments[6:]), "no product 'wood'"),
        ((*drawn, "--product", "steel"), "no withheld product 'steel'"),
        ((*drawn, "--shots", "99"), "99 shots of 12 drawn images asked for"),
    ):
        assert told in run(*given, "--restart").stderr and (out / "rows.jsonl").exists()


@pytest.fixture
def few_surfaces(monkeypatch):
    """One kind of them, three images, small."""
    monkeypatch.setattr(module, "QUICK_IMAGES", 3)
    monkeypatch.setattr(module, "TEACHING", {3: 2})
    monkeypatch.setattr(module, "SIZE", 64)
    monkeypatch.setattr(module, "SHOTS", 1)
    monkeypatch.setattr(module, "_withheld", lambda given: [("wood", "hole")])


def test_surfaces_that_were_killed_at_their_very_end_are_completed(run, cheap, few_surfaces, tmp_path):
    out = tmp_path / "bench"
    arguments = ("benchmark", "surfaces", "--suite", "grid", "--variant", "AAR", "--quick", "--out", out)
    assert run(*arguments).exit_code == 0
    write_text(out / "data" / UNFINISHED, FILLING)
    assert run(*arguments).exit_code == 0 and not (out / "data" / UNFINISHED).exists()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_two_processes_draw_the_surfaces_once_and_measure_each_cell_once(
    run, cheap, few_surfaces, tmp_path, monkeypatch
):
    out = tmp_path / "bench"
    arguments = ("benchmark", "surfaces", "--suite", "grid", "--variant", "AAR", "--quick", "--out", out)

    def start(number):
        torch.set_num_threads(1)  # a forked process has none of its parent's
        result = run(*arguments)
        (tmp_path / f"{number}.txt").write_text(f"{result.exit_code} {result.stderr}")

    both = [multiprocessing.get_context("fork").Process(target=start, args=(number,)) for number in range(2)]
    for process in both:
        process.start()
    for process in both:
        process.join(120)
    told = [(tmp_path / f"{number}.txt").read_text() for number in range(2)]
    assert [text[:2] for text in told] == ["0 ", "0 "] and "".join(told).count(": done") == 2, told
    assert sorted(path.name for path in out.iterdir()) == [
        "benchmark.json", "data", "learned", "report.html", "report.md", "rows.jsonl", "runs", "sheets", "summary.json"
    ]  # fmt: skip
    assert {row["unit"] for row in rows(out)} == {"wood/hole"}
    assert sorted(row["variant"] for row in rows(out)) == ["AAR", "neither"]
    assert all(row["measures"]["leak"] == 0 for row in rows(out))
    files = json.loads((out / "benchmark.json").read_text())["units"]["wood/hole"]
    assert (len(files["train"]), len(files["test"])) == (2, 1) and not set(files["train"]) & set(files["test"])
    drawn = (out / "data" / "wood" / "test" / "hole" / "000.png").stat().st_mtime_ns
    assert run(*arguments).exit_code == 0
    assert (out / "data" / "wood" / "test" / "hole" / "000.png").stat().st_mtime_ns == drawn


def test_mvtec_takes_whole_products_and_published_numbers(run, data, cheap, tmp_path):
    out = tmp_path / "out"
    result = run("benchmark", "mvtec", "--data", data, "--base", "demo", "--suite", "paper", "--quick", "--out", out)
    assert result.exit_code == 0, result.stderr
    (row,) = rows(out)
    assert row["unit"] == "metal" and row["defects"] == ["hole", "scratch"] and 0 <= row["measures"]["accuracy"] <= 1
    assert "| published |" in (out / "report.md").read_text() and "66.1" in (out / "report.md").read_text()


def test_a_benchmark_of_nothing_but_failures_says_so(run, data, cheap, tmp_path):
    out = tmp_path / "out"
    result = run("benchmark", data, "--defect", "hole", "--suite", "uplift", "--quick", "--out", out, "--pairs", "2")
    assert result.exit_code == 0
    (data / "metal" / "train" / "good" / "000.png").write_bytes(b"x")
    failing = run("benchmark", data, "--defect", "hole", "--suite", "uplift", "--quick", "--out", tmp_path / "bad")
    assert failing.exit_code == 1 and "0 of" in failing.stdout and "is no image this reads" in failing.stderr
    assert "is no image this reads" in (tmp_path / "bad" / "report.md").read_text()


def test_a_defect_with_one_shot_costs_only_its_own_cells(run, data, cheap, tmp_path):
    for kind in ("test", "ground_truth"):
        for path in sorted((data / "metal" / kind / "scratch").iterdir())[1:]:
            path.rename(tmp_path / f"{kind}-{path.name}")
    out = tmp_path / "out"
    asked = ("benchmark", data, "--product", "metal", "--suite", "uplift", "--variant", "real", "--quick", "--out", out)
    result = run(*asked)
    assert result.exit_code == 0 and result.stdout.startswith("1 of 1 cells measured, 0 failed"), result.stderr
    assert "warning: metal/scratch is left out: no shot of metal/scratch is left to test on" in result.stderr
    for page in ("report.md", "report.html"):
        assert "metal/scratch was not measured: no shot of metal/scratch" in (out / page).read_text()
    for kind in ("test", "ground_truth"):
        for path in tmp_path.glob(f"{kind}-*"):
            path.rename(data / "metal" / kind / "scratch" / path.name.removeprefix(f"{kind}-"))
    result = run(*asked)
    assert result.exit_code == 0 and result.stdout.startswith("2 of 2 cells measured"), result.stderr
    assert "was not measured" not in (out / "report.md").read_text()


def test_what_does_not_fit_is_refused(refused, data, tiny, tmp_path):
    out = ("--out", tmp_path / "out")
    assert "mvtec needs --data" in refused("benchmark", "mvtec", *out)
    assert "mvtec needs --data" in refused("benchmark", "mvtec", "--data", data, *out)
    assert "--data goes with mvtec" in refused("benchmark", data, "--data", data, *out)
    assert "does not exist" in refused("benchmark", tmp_path / "none", *out)
    assert "no withheld product 'gasket'" in refused("benchmark", "surfaces", "--product", "gasket", *out)
    assert "12 shots of 12 drawn" in refused("benchmark", "surfaces", "--quick", "--shots", "12", *out)
    assert "is left to test on" in refused("benchmark", data, "--defect", "hole", "--shots", "3", *out)
    assert "'magic' is not one of" in refused("benchmark", data, "--suite", "magic", *out)
    assert "no variant 'magic'; choose from real; " in refused("benchmark", data, "--variant", "magic", *out)
    assert "--dual-steps goes with --suite dual" in refused("benchmark", data, "--dual-steps", "9", *out)
    assert "--dual-lr goes with --suite dual" in refused("benchmark", data, "--dual-lr", "1e-4", *out)
    assert "positive learning rate; got 150, 0" in refused("benchmark", data, "--suite", "dual", "--dual-lr", "0", *out)
    weights = tmp_path / "resnet34.pth"
    weights.write_bytes(b"x")
    assert "--features goes with --suite paper" in refused("benchmark", data, "--features", weights, *out)
    paper = ("benchmark", data, "--suite", "paper", *out)
    assert "resnet34.pth" in refused(*paper, "--features", weights)
    assert "give both --inception and --lpips" in refused(*paper, "--lpips", weights)
    assert "no weights at" in refused(*paper, "--features", tmp_path / "none.pth")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("x")
    assert "holds mine.txt and no benchmark.json" in refused("benchmark", data, "--defect", "hole", *out)


@pytest.mark.parametrize(
    "asked, got",
    [
        ((None, None), (150, 1e-3)), ((1500, None), (1500, 1e-3)), ((5000, None), (5000, 2e-5)),
        ((5000, 1e-4), (5000, 1e-4)), ((None, 1e-4), (150, 1e-4)),
    ],
)  # fmt: skip
def test_dual_models_are_learned_as_asked_and_long_ones_at_the_papers_rate(asked, got):
    budget = module._of_dual(FULL, ("dual",), *asked)
    assert (budget.dual_steps, budget.dual_lr) == got and replace(budget, dual_steps=150, dual_lr=1e-3) == FULL
