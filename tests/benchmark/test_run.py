"""The matrix: cells end to end, a killed run that goes on, cells that fail, folders that hold something else."""

import json
from dataclasses import replace

import pytest

from adiff.benchmark import Budget, Cell, Failures, Recipe, Variant, Weights, run_matrix
from adiff.benchmark.pairs import make_runs
from adiff.benchmark.run import read_rows, time_left
from adiff.errors import InputError
from adiff.generation import GenerationSettings
from adiff.progress import Cancelled, NullProgress

FAST = GenerationSettings(steps=2, guidance=1.0, reweighting="off", crop=False)


def cells(work, *variants, seeds=1):
    return [Cell("uplift", variant, unit, seed)
            for seed in range(seeds) for unit in work.units for variant in variants]  # fmt: skip


REAL = Variant("real", Recipe(source=None, real=True))
PASTED = Variant("real + cutpaste", Recipe(source="cutpaste", real=True), "real")
OURS = Variant("generated", Recipe(generation=FAST), "real")
PAINTED = Variant("p2p", Recipe(source="prompt-to-prompt", spatial=False, masked=False, generation=FAST, detect=False))
UNMASKED = Variant("unmasked", Recipe(masked=False, spatial=False, generation=FAST, detect=False), "generated")


def numbers(rows):
    return [{**row, "seconds": None, "spent": None} for row in rows]


def test_cells_end_to_end(work):
    out = work.bench().out
    wanted = cells(work, OURS, PASTED, UNMASKED, PAINTED)
    assert run_matrix(work.bench(), "metal", wanted, command="adiff x") == Failures(4, 0)
    ours, pasted, unmasked, painted = read_rows(out)
    assert ours["measures"]["leak"] == 0 and 0 <= ours["measures"]["pixel_ap"] <= 1 and ours["measures"]["gap"] > 0
    assert ours["pairs"]["real"] == 0 and ours["pairs"]["synthetic"] + ours["pairs"]["validation"] == 3
    assert pasted["pairs"]["real"] == 2 and pasted["measures"]["fill"] > 0.5 and len(pasted["per_image"]) == 4
    assert "pixel_ap" not in unmasked["measures"] and unmasked["recipe"]["masked"] is False
    assert painted["measures"]["fill"] is None and painted["measures"]["area"] == ours["measures"]["area"]
    assert len(work.drawn) == 3  # the masks of all three painted cells are the same
    assert len(list((out / "learned").glob("metal-0-*"))) == 3  # e_a with E, without both, masks
    runs = {row["runs"][0] for row in (ours, pasted, unmasked, painted)}
    assert len(runs) == 4 and runs == {path.name for path in (out / "runs").iterdir()}
    plan = json.loads((out / "benchmark.json").read_text())
    assert plan["commands"] == ["adiff x"] and plan["units"]["metal/scratch"]["train"] == [
        "metal/test/scratch/000.png", "metal/test/scratch/001.png"
    ]  # fmt: skip
    assert ours["spent"] >= sum(ours["seconds"].values()) - 0.2


def test_mixed_pairs_are_every_other_one_of_both_sources(work):
    bench, unit = work.bench(), work.units[0]
    recipe = replace(OURS.recipe, mixed="crop-paste")
    with bench.turns:
        ours, pasted = make_runs(bench.workshop, unit, recipe, 0, bench.out / "mixed", NullProgress())
    assert (ours.plan.get("method"), pasted.plan["method"]) == (None, "crop-paste")
    numbers = [[int(record["id"]) for record in run.records] for run in (ours, pasted)]
    every = range(bench.budget.pairs)
    assert numbers == [list(every[0::2]), list(every[1::2])]


def test_filtered_pairs_keep_the_shots_limits(work):
    filtered = Variant("filtered", replace(OURS.recipe, filtered=True, detect=False), "generated")
    bench = work.bench()
    run_matrix(bench, "metal", cells(work, OURS, filtered))
    made = {row["variant"]: row for row in read_rows(bench.out)}
    assert "filtered" not in made["generated"]["recipe"]  # lines of older benchmarks stay those of the same cells
    plans = [json.loads((bench.out / "runs" / row["runs"][0] / "run.json").read_text()) for row in made.values()]
    assert [plan["filter"] is not None for plan in plans] == [False, True]
    assert set(plans[1]["filter"]["limits"]) == {"min_fill", "max_likeness", "min_novelty"}


class Killer:
    """A listener that stops the work at the second piece whose name holds a word."""

    def __init__(self, word):
        self.word, self.seen = word, 0

    def start(self, total, what):
        self.seen += self.word in what

    def update(self, done, **info):
        if self.seen == 2:
            raise Cancelled

    def finish(self):
        pass


def test_what_is_undefined_is_said_once_a_unit(work, caplog):
    (unit,) = work.units
    unit = replace(unit, split=replace(unit.split, test_normals=()))
    wanted = [replace(cell, unit=unit) for cell in cells(work, REAL, PASTED, seeds=2)]
    assert run_matrix(work.bench(), "metal", wanted) == Failures(4, 0)
    assert [line.split(" for ")[0] for line in caplog.messages] == ["metal/scratch: undefined"]


def test_a_stopped_matrix_goes_on_with_the_cells_left(work):
    wanted = cells(work, REAL, PASTED, OURS)
    run_matrix(work.bench("whole"), "metal", wanted)
    with pytest.raises(Cancelled):
        run_matrix(work.bench(), "metal", wanted, progress=Killer("localizer"))
    out = work.bench().out
    (first,) = read_rows(out)
    assert first["variant"] == "real"
    told = []
    assert run_matrix(work.bench(), "metal", wanted, tell=lambda *line: told.append(line)) == Failures(3, 0)
    assert len(told) == 2 and read_rows(out)[0] == first
    assert "metal/scratch, seed 0: done" in told[0][0] and told[0][1] > told[1][1] == 0
    assert numbers(read_rows(out)) == numbers(read_rows(work.bench("whole").out))
    run_matrix(work.bench(), "metal", wanted, tell=lambda *line: told.append(line))
    assert len(told) == 2  # nothing is left


def test_more_cells_may_follow_and_changed_ones_are_measured_again(work):
    run_matrix(work.bench(), "metal", cells(work, REAL), command="one")
    changed = replace(REAL, recipe=replace(REAL.recipe, shots=1))
    run_matrix(work.bench(), "metal", cells(work, changed, PASTED, seeds=1), command="two")
    rows = read_rows(work.bench().out)
    assert [row["variant"] for row in rows] == ["real", "real + cutpaste"] and rows[0]["recipe"]["shots"] == 1
    assert json.loads((work.bench().out / "benchmark.json").read_text())["commands"] == ["one", "two"]


def test_a_cell_that_fails_is_a_line_and_is_tried_again(work, monkeypatch):
    from adiff.benchmark import bench as module

    many = Variant("ten", Recipe(source=None, real=True, shots=10))
    detect = module.detect
    monkeypatch.setattr(module, "detect", lambda *a: (_ for _ in ()).throw(RuntimeError("out of\nmemory")))
    assert run_matrix(work.bench(), "metal", cells(work, REAL, many)) == Failures(0, 2)
    real, ten = read_rows(work.bench().out)
    assert real["error"] == "RuntimeError: out of memory" and "measures" not in real
    monkeypatch.setattr(module, "detect", detect)
    assert run_matrix(work.bench(), "metal", cells(work, REAL, many)) == Failures(1, 1)
    real, ten = read_rows(work.bench().out)
    assert "error" not in real and ten["error"].startswith("InputError: 10 shots of metal/scratch asked for; 2 of 6")


def test_a_full_disk_ends_the_run(work, monkeypatch):
    from adiff.benchmark import bench as module

    def full(*_):
        raise OSError(28, "No space left on device", "x.png")

    monkeypatch.setattr(module, "detect", full)
    with pytest.raises(OSError, match="No space"):
        run_matrix(work.bench(), "metal", cells(work, REAL))
    assert read_rows(work.bench().out) == []


def test_another_benchmark_in_the_folder_is_refused(work):
    wanted = cells(work, REAL)
    run_matrix(work.bench(), "metal", wanted)
    other = Budget(pairs=4, detector=work.bench().budget.detector)
    with pytest.raises(InputError, match=r"another benchmark \(budget differ\)"):
        run_matrix(work.bench(budget=other), "metal", wanted)
    marked = work.bench()
    marked.workshop = replace(marked.workshop, foreground=work.data / "metal" / "ground_truth")
    with pytest.raises(InputError, match=r"another benchmark \(foreground differ\)"):
        run_matrix(marked, "metal", wanted)
    mask = work.data / "metal" / "ground_truth" / "scratch" / "004_mask.png"
    before = mask.read_bytes()
    mask.write_bytes((mask.parent / "003_mask.png").read_bytes())  # the name is the same
    with pytest.raises(InputError, match=r"files of metal/scratch differ"):
        run_matrix(work.bench(), "metal", wanted)
    mask.write_bytes(before)
    run_matrix(work.bench(), "metal", wanted)
    (work.data / "metal" / "test" / "scratch" / "005.png").unlink()
    (work.data / "metal" / "ground_truth" / "scratch" / "005_mask.png").unlink()
    from adiff.benchmark import open_units

    changed = [replace(cell, unit=open_units(work.data, [], ["scratch"])[0][0]) for cell in wanted]
    with pytest.raises(InputError, match=r"files of metal/scratch differ"):
        run_matrix(work.bench(), "metal", changed)
    foreign = work.bench("foreign")
    foreign.out.mkdir()
    (foreign.out / "notes.txt").write_text("x")
    with pytest.raises(InputError, match="holds notes.txt and no benchmark.json"):
        run_matrix(foreign, "metal", changed)


def test_weights_that_are_newly_given_are_taken_for_finished_cells_too(work, tmp_path, monkeypatch):
    from adiff.benchmark import bench as module

    def bench(*contents):
        made = work.bench()
        paths = [tmp_path / name for name in ("resnet34.pth", "inception.pth")]
        for path, content in zip(paths, contents, strict=False):
            path.write_bytes(content)
        made.weights = Weights(*paths[: len(contents)])
        made.weighed = made.weights.record()
        return made

    measured = []
    monkeypatch.setattr(module, "of_product", lambda *a: measured.append(a[3]) or {"accuracy": 0.5})
    whole = cells(work, Variant("all", Recipe(source="cutpaste", detect=False, whole=True)), REAL)
    for _ in range(2):
        run_matrix(bench(), "metal", whole)
    assert len(measured) == 1
    told = []
    for _ in range(2):
        run_matrix(bench(b"one"), "metal", whole, tell=lambda line, left: told.append(line))
    assert len(measured) == 2 and len(told) == 1  # `real` has no use for them
    run_matrix(bench(b"one", b"two"), "metal", whole)
    assert len(measured) == 3 and set(read_rows(bench().out)[0]["weights"]) == {"features", "inception"}
    before = read_rows(bench().out)
    with pytest.raises(InputError, match=r"measured with other weights \(features, inception\); give the same files"):
        run_matrix(bench(), "metal", whole)
    with pytest.raises(InputError, match=r"measured with other weights \(features\)"):
        run_matrix(bench(b"three", b"two"), "metal", whole)
    run_matrix(bench(), "metal", cells(work, REAL))
    assert read_rows(bench().out) == before


@pytest.mark.parametrize("text", ["{", "[]", '{"suite": "uplift"}', "null"])
def test_a_damaged_line_is_named(tmp_path, text):
    (tmp_path / "rows.jsonl").write_text('{"suite": "a", "variant": "b", "unit": "c", "seed": 0}\n' + text + "\n")
    with pytest.raises(InputError, match="line 2 of .*rows.jsonl is damaged"):
        read_rows(tmp_path)


def test_the_time_left_goes_by_what_cells_of_the_kind_took(work):
    todo = cells(work, REAL, PASTED)
    assert time_left(todo, {}) is None
    assert time_left(todo, {("uplift", "real"): [10.0, 20.0]}) == 30.0  # cutpaste as its suite: 15
    assert time_left(todo, {("uplift", "real"): [10.0], ("uplift", "real + cutpaste"): [4.0]}) == 14.0
    assert time_left(todo, {("steps", "10 steps"): [7.0]}) == 14.0
