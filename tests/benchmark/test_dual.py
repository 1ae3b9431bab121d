"""DualAnoDiff in the matrix: models learned once for the cells that share them, pairs without a normal image."""

import numpy as np
import pytest

from adiff.benchmark import Cell, Failures, Recipe, Variant, run_matrix
from adiff.benchmark.run import read_rows
from adiff.dual import DualSettings, load_dual, sampling
from adiff.evaluation.material import read_run
from adiff.generation import GenerationSettings

FAST = GenerationSettings(steps=1)
ALONE = Variant("dual alone", Recipe("dual", generation=FAST))
BOTH = Variant("real + dual", Recipe("dual", real=True, generation=FAST), "dual alone")
OTHER = DualSettings(saim="low", bcm="paper")
LOW = Variant("low", Recipe("dual", generation=FAST, dual=OTHER, detect=False), "dual alone")
REAL = Variant("real", Recipe(source=None, real=True))


@pytest.fixture
def squares(monkeypatch):
    """A random model's parts show nothing: read a square off each."""
    mask = np.zeros((64, 64), bool)
    mask[20:40, 10:30] = True
    monkeypatch.setattr(sampling, "mask_of", lambda part, grey: mask)


def test_cells_of_dual_end_to_end(work, squares):
    out = work.bench().out
    cells = [Cell("dual", variant, unit, 0) for unit in work.units for variant in (REAL, ALONE, BOTH, LOW)]
    assert run_matrix(work.bench(), "metal", cells) == Failures(4, 0)
    real, alone, both, low = (row["measures"] for row in read_rows(out))
    assert set(real) >= {"alignment", "diversity", "pixel_ap"} and "gap" not in real
    assert alone["fill"] is None and alone["leak"] is None and alone["gap"] > 0 and -1 <= alone["alignment"] <= 1
    pairs = [row["pairs"] for row in read_rows(out)[1:3]]  # all of them, though none has a normal image
    assert [one["real"] for one in pairs] == [0, 2] and "pixel_ap" not in low
    assert [one["synthetic"] + one["validation"] for one in pairs] == [3, 3]
    assert {name: alone[name] for name in ("gap", "likeness")} == {name: both[name] for name in ("gap", "likeness")}
    assert low["likeness"] != alone["likeness"]
    models = [load_dual(path) for path in sorted((out / "learned").glob("*/dual.safetensors"))]
    settings = [model.info["settings"] for model in models]
    assert sorted((one["bcm"], one["saim"]) for one in settings) == [("off", "full"), ("paper", "low")]
    assert [(one["steps"], one["lr"]) for one in settings] == [(1, 1e-3)] * 2
    assert all(model.info["shots"] == ["metal/test/scratch/000.png", "metal/test/scratch/001.png"] for model in models)
    assert not list((out / "learned").glob("*/.*"))
    run = read_run(out / "runs" / read_rows(out)[1]["runs"][0])
    assert run.plan["settings"]["steps"] == 1 and len(run.records) == 3 and len(list((out / "runs").iterdir())) == 2

