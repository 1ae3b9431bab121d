"""Uplift: the rows, their budget, going on after a stop, and refusing to mix evaluations."""

import json
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from adiff.datasets.images import write_png
from adiff.errors import InputError
from adiff.evaluation import uplift as module
from adiff.evaluation.localizer import LocalizerSettings
from adiff.evaluation.material import read_run
from adiff.evaluation.splits import read_split
from adiff.evaluation.uplift import PAINTED, ROWS, Painter, measure_uplift
from adiff.generation import GenerationSettings
from adiff.progress import Cancelled
from adiff.training import AnomalySettings

TINY = LocalizerSettings(size=16, width=8, steps=2, batch=2, check_every=1)


def go(work, out, runs=None, **options):
    runs = [read_run(folder) for folder in runs or [work.run]]
    split = read_split(work.data, "metal", {run.key[1]: 2 for run in runs})
    return measure_uplift(runs, split, out, **{"settings": TINY, "seeds": 1, "count": 5, **options})


def test_every_row_has_its_pairs_and_the_same_budget(work, tmp_path):
    rows = go(work, tmp_path / "out")
    assert [row["row"] for row in rows] == list(ROWS)
    for row in rows:
        pairs, synthetic = row["pairs"], row["row"] != "real"
        assert pairs["real"] == (0 if row["row"] == "generated" else 2)
        assert pairs["synthetic"] + pairs["validation"] == (5 if synthetic else 0)
        assert (pairs["validation"] > 0) == synthetic and len(row["curve"]) == (2 if synthetic else 0)
        assert row["metrics"]["pixel_auroc"] is not None and len(row["per_image"]) == 3
    record = json.loads((tmp_path / "out" / "uplift.json").read_text())
    assert len(record["split"]["test"]) == 3 and not set(record["split"]["test"]) & set(record["split"]["train"])


def test_the_pairs_of_several_runs_are_mixed(work, tmp_path, monkeypatch):
    taken, synthetic = [], module._synthetic

    def noted(*given):
        found = synthetic(*given)
        taken.append({example.image.tobytes() for example in found[0]})
        return found

    monkeypatch.setattr(module, "_synthetic", noted)
    both, options = [work.run, work.holes], {"rows": ["real + generated"]}
    (row,) = go(work, tmp_path / "out", both, **options, count=None)
    assert row["pairs"]["real"] == 4 and row["pairs"]["synthetic"] + row["pairs"]["validation"] == 16
    for number, alone in enumerate(both):
        go(work, tmp_path / str(number), [alone], **options, count=None)
    mixed, scratches, holes = taken
    assert mixed == scratches | holes and len(scratches) == len(holes) == 8
    assert json.loads((tmp_path / "out" / "uplift.json").read_text())["run"] == [read_run(one).record() for one in both]
    assert json.loads((tmp_path / "0" / "uplift.json").read_text())["run"] == read_run(work.run).record()
    with pytest.raises(InputError, match="holds another evaluation .*run"):
        go(work, tmp_path / "out", [work.run, work.run], **options, count=16)


def test_what_is_undefined_is_said_once(work, tmp_path, caplog, monkeypatch):
    opened = module.open_material
    monkeypatch.setattr(module, "open_material", lambda *given: replace(opened(*given), test_normals=[]))
    rows = go(work, tmp_path / "out", rows=("real", "generated"))
    assert all(row["metrics"]["image_auroc"] is None for row in rows)
    assert caplog.text.count("metal/scratch: undefined for") == 1 and "image_auroc, image_ap" in caplog.text
    assert len(caplog.messages) == 1


def test_progress_names_the_row_and_how_many_there_are(work, tmp_path, stopper, monkeypatch):
    told, names = stopper(), []
    monkeypatch.setattr(told, "start", lambda total, what: names.append(what))
    go(work, tmp_path / "out", rows=["real", "generated"], seeds=2, progress=told)
    assert names == ["1 of 4, real, seed 0: localizer", "2 of 4, generated, seed 0: localizer",
                     "3 of 4, real, seed 1: localizer", "4 of 4, generated, seed 1: localizer"]  # fmt: skip


def test_rows_that_paint_do_so_on_the_runs_base_model(work, tmp_path, backbone):
    painter = Painter(
        backbone, AnomalySettings(steps=1, batch=2, draws=1, crop=False, early_stop=False), GenerationSettings(steps=1)
    )  # fmt: skip
    rows = go(work, tmp_path / "out", rows=PAINTED, count=2, painter=painter)
    assert [row["row"] for row in rows] == ["real + textual-inversion", "real + prompt-to-prompt"]
    for pairs in (row["pairs"] for row in rows):
        assert pairs["real"] == 2 and pairs["synthetic"] + pairs["validation"] == 2
    tokens = load_file(tmp_path / "out" / "textual_inversion.safetensors")["e_a"]
    plan = json.loads((work.run / "run.json").read_text())
    (work.run / "run.json").write_text(json.dumps({**plan, "base": {"name": "other", "fingerprint": "f" * 64}}))
    with pytest.raises(InputError, match="painted on base 'other', not on 'tiny'"):
        go(work, tmp_path / "out", rows=PAINTED, count=2, painter=painter)
    assert torch.equal(load_file(tmp_path / "out" / "textual_inversion.safetensors")["e_a"], tokens)
    with pytest.raises(InputError, match="'real . textual-inversion' paints with a base model; give the one of"):
        go(work, tmp_path / "new", rows=PAINTED)


def test_a_stopped_evaluation_goes_on_and_whole_rows_stay(work, tmp_path, stopper, monkeypatch):
    rows = ("real", "generated")
    whole = go(work, tmp_path / "whole", rows=rows, seeds=2)
    seen = []
    train = module.train_localizer
    monkeypatch.setattr(module, "train_localizer", lambda *a, **k: seen.append(1) or train(*a, **k))
    calls = iter((stopper(), stopper(), stopper(1)))

    class Listener:
        def start(self, total, what):
            self.own = next(calls)

        def update(self, done, **info):
            self.own.update(done, **info)

        def finish(self):
            pass

    with pytest.raises(Cancelled):
        go(work, tmp_path / "out", rows=rows, seeds=2, progress=Listener())
    assert len(list((tmp_path / "out" / "rows").iterdir())) == 2 and len(seen) == 3
    resumed = go(work, tmp_path / "out", rows=rows, seeds=2)
    assert len(seen) == 5
    assert [{**row, "seconds": 0} for row in resumed] == [{**row, "seconds": 0} for row in whole]


def test_what_does_not_fit_is_refused(work, tmp_path):
    go(work, tmp_path / "out", rows=("real",))
    mask = work.root / "ground_truth" / "scratch" / "004_mask.png"
    before = mask.read_bytes()
    mask.write_bytes((mask.parent / "003_mask.png").read_bytes())  # the name is the same
    with pytest.raises(InputError, match=r"another evaluation \(shots differ\)"):
        go(work, tmp_path / "out", rows=("real",))
    mask.write_bytes(before)
    texture = tmp_path / "t.png"
    draem = partial(go, work, tmp_path / "draem", rows=("real + draem",), textures=[texture])
    write_png(texture, np.full((8, 8, 3), 9, np.uint8))
    draem()
    write_png(texture, np.full((8, 8, 3), 99, np.uint8))
    with pytest.raises(InputError, match=r"another evaluation \(texture_digests differ\)"):
        draem()
    with pytest.raises(InputError, match=r"another evaluation \(count differ\)"):
        go(work, tmp_path / "out", rows=("real",), count=4)
    with pytest.raises(InputError, match="9 synthetic pairs asked for; 8 pairs"):
        go(work, tmp_path / "new", count=9)
    with pytest.raises(InputError, match="no row 'fake'; choose from real, real"):
        go(work, tmp_path / "new", rows=("fake",))
    assert not (tmp_path / "new").exists()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("x")
    with pytest.raises(InputError, match="is not empty and holds no uplift.json"):
        go(work, tmp_path / "mine")
    (tmp_path / "out" / "rows" / "real-0.json").write_text("{")
    with pytest.raises(InputError, match="real-0.json is damaged"):
        go(work, tmp_path / "out", rows=("real",))
