"""Several runs on one page."""

import json
import os
import shutil
import subprocess

import pytest

from adiff.datasets.images import write_png
from adiff.errors import InputError
from adiff.report import report_of_runs
from adiff.report.measures import MEASURES
from adiff.report.run import Told
from adiff.report.runs import _names, differing
from adiff.storage import write_json


@pytest.fixture
def runs(tmp_path, make_pair):
    """Two runs of the same defect with 2 and 1 pairs, the second with more steps; their normal images."""
    for folder, pairs, steps in (("a/run", 2, 30), ("b/run", 1, 50)):
        out = tmp_path / folder
        plan = {
            "format": 1, "product": "metal", "defect": "rust", "count": pairs, "seed": 3, "base": {"name": "demo"},
            "settings": {"steps": steps, "guidance": 2.0}, "masks": {"kind": "learned"},
        }  # fmt: skip
        write_json(out / "run.json", {**plan, "command": f"adiff generate --steps {steps}"})
        for number in range(pairs):
            pair, name = make_pair(number), f"{number:06d}"
            write_png(out / "image" / f"{name}.png", pair.generated)
            write_png(out / "mask" / f"{name}_mask.png", pair.mask)
            write_png(tmp_path / folder[0] / "normals" / f"{number}.png", pair.normal)
            record = {"id": name, "product": "metal", "defect": "rust", "normal": f"{number}.png", "fill": 0.5}
            write_json(out / "pairs" / f"{name}.json", record)
    return [tmp_path / "a" / "run", tmp_path / "b" / "run"]


def test_runs_stand_side_by_side(runs, read_page, tmp_path):
    path = report_of_runs(runs, normals=[run.parent / "normals" for run in runs])
    page = read_page(path)
    assert path == tmp_path / "a" / "comparison.html" and page.astray == []
    names = [card["data-defect"] for card in page.all("figure", class_="pair")]
    assert names == ["metal/rust (a/run)"] * 2 + ["metal/rust (b/run)"] and page.all("input", class_="slider")
    assert "adiff generate --steps 30" in page.text and "adiff generate --steps 50" in page.text
    for name, pairs, steps in (("a", 2, 30), ("b", 1, 50)):
        own = f"<dl><dt>count</dt><dd>{pairs}</dd><dt>steps</dt><dd>{steps}</dd></dl>"
        assert f"<h4>{name}/run</h4>{own}" in page.source
    assert not (runs[0] / "report.html").exists()


def test_the_table_of_measures_fits_a_page_of_1300_pixels(runs, tmp_path):
    """Of all measures, and names that tell the runs' settings."""
    chromium = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no browser to test with: chromium is needed")
    for run in runs:
        run.rename(run.with_name(name := f"severity-1.5-guidance-auto-{run.parent.name}"))
        for path in (run.with_name(name) / "pairs").iterdir():
            measures = {measure.name: 0.123 for measure in MEASURES} | {"seam": 10.84, "likeness_shots": 0.3}
            path.write_text(json.dumps({**json.loads(path.read_text()), **measures}))
    page = report_of_runs([next(run.parent.glob("severity*")) for run in runs], out=tmp_path / "page.html")
    told = "document.querySelectorAll('.scroll').forEach(one => document.title = one.scrollWidth - one.clientWidth)"
    page.write_text(page.read_text() + f"<script>{told}</script>")
    command = [chromium, "--headless", "--no-sandbox", "--disable-gpu", "--window-size=1300,1000", "--dump-dom",
               f"--user-data-dir={tmp_path / 'profile'}"]  # fmt: skip
    shown = subprocess.run([*command, page.as_uri()], capture_output=True, text=True, timeout=300).stdout
    assert "<th>refined_iou</th>" in shown and "<title>0</title>" in shown


def test_what_differs_by_hand():
    def told(**plan):
        return Told(plan, [], [], "", [])

    first = told(product="metal", seed=1, settings={"steps": 30, "crop": None}, masks={"steps": 5})
    other = told(product="metal", seed=2, settings={"steps": 30, "crop": None, "refine": True}, masks={"steps": 6})
    assert differing(["one", "two"], [first, other]) == {
        "one": {"seed": 1, "steps": 5}, "two": {"seed": 2, "refine": True, "steps": 6},
        "all runs": {"product": "metal", "steps": 30, "crop": None},
    }  # fmt: skip


def test_names_are_as_long_as_it_takes(tmp_path):
    assert _names([tmp_path / "a", tmp_path / "b"]) == ["a", "b"]
    assert _names([tmp_path / "a" / "r", tmp_path / "b" / "r"]) == ["a/r", "b/r"]


def test_what_cannot_be_compared_is_refused(runs):
    with pytest.raises(InputError, match="is given twice; give it once"):
        report_of_runs([runs[0], runs[0] / ".." / "run"])
