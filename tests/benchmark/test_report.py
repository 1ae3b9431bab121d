"""The report: what stands in it, and what must not."""

import json
from html.parser import HTMLParser
from types import SimpleNamespace

import numpy as np
import pytest

from adiff.benchmark import sheets
from adiff.benchmark.report import write_report
from adiff.benchmark.run import place_of
from adiff.benchmark.sheets import GAP, LABEL, TILE, draw_sheet
from adiff.cli.benchmark import _report
from adiff.datasets.images import read_photo, write_png
from adiff.errors import InputError

VOID = {"meta", "img"}


class Page(HTMLParser):
    """The text of a page, and whether every tag is closed."""

    def __init__(self, text):
        super().__init__()
        self.text, self.open, self.tags = "", [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.text += data


def written(out):
    write_report(out)
    page = Page((out / "report.html").read_text(encoding="utf-8"))
    assert not page.open
    return page, (out / "report.md").read_text(encoding="utf-8")


def test_cells_that_are_not_measured_yet_are_counted(folder, line):
    write_report(out := folder([line("all", 0.3)]), left=5)
    assert "5cells not measured yet" in Page((out / "report.html").read_text(encoding="utf-8")).text
    assert ", 5 not measured yet." in (out / "report.md").read_text(encoding="utf-8")
    page, text = written(out)
    assert "not measured yet" not in page.text + text


def test_a_stopped_benchmark_s_report_counts_the_cells_without_a_line(folder, line):
    row = line("all", 0.3)
    out, place = folder([row]), place_of(row)
    _report(out, out / "data", [SimpleNamespace(place=one) for one in (place, (*place[:3], 1), (*place[:3], 2))])
    assert ", 2 not measured yet." in (out / "report.md").read_text(encoding="utf-8")


def test_tables_have_means_spreads_and_numbers(folder, line):
    rows = [line("textual inversion", value, seed=seed) for seed, value in enumerate((0.2, 0.4))]
    rows += [line("all", value, seed=seed, control="textual inversion") for seed, value in enumerate((0.3, 0.6))]
    page, text = written(out := folder(rows))
    row = next(one for one in text.splitlines() if one.startswith("| all |"))
    assert "| **45.0 ± 21.2** |" in row and row.endswith("| 2 | textual inversion | +15.0 ± 7.1 | 2/2 |  |  |")
    assert "45.0 ± 21.2" in page.text and "What does each part of the method add?" in page.text
    assert "adiff benchmark <surfaces> --out bench" in page.text and "demo model was trained on such" in page.text
    means = [attrs for tag, attrs in page.tags if tag == "path" and attrs["class"] == "mean"]
    assert len(means) == 2  # two variants in the plot of AP; fill is the same in all cells
    (drawn,) = (attrs for tag, attrs in page.tags if tag == "svg")
    assert drawn["preserveaspectratio"] == "none"  # as high as the names beside it, however wide
    height = float(drawn["height"]) / 2
    assert f"grid-auto-rows: {height}px" in (out / "report.html").read_text(encoding="utf-8")
    best = [attrs for tag, attrs in page.tags if tag == "td" and attrs.get("class") == "best"]
    assert len(best) == 1 and "textual inversion" in page.text.split("Difference to the control")[1].split("2/2")[0]
    assert not any(value.startswith("http") for _, attrs in page.tags for value in attrs.values() if value)


def test_a_small_p_is_not_told_as_zero(folder, line):
    rows = [line("textual inversion", per_image=[0.0] * 15)]
    rows += [line("all", control="textual inversion", per_image=[number / 100 for number in range(1, 16)])]
    page, text = written(folder(rows))
    assert "| +8.0 | <0.001 |" in text and "+8.0<0.001" in page.text.replace(" ", "")


def test_failures_and_undefined_measures_are_told(folder, line):
    rows = [line("textual inversion", None), line("SAE", error="ValueError: a | b <i>", measures={})]
    out = folder(rows)
    page, text = written(out)
    entries = json.loads((out / "summary.json").read_text(encoding="utf-8"))["suites"]["ablation"]["metal/scratch"]
    assert [(entry["cells"], entry["failed"]) for entry in entries] == [(1, 0), (0, 1)]
    assert "pixel_ap" not in entries[0]["measures"] and entries[0]["undefined"] == ["pixel_ap"]
    assert "| textual inversion | undefined |" in text and "| SAE | failed |" in text
    assert "- ablation, SAE, metal/scratch, seed 0: ValueError: a \\| b <i>" in text
    assert "ValueError: a | b <i>" in page.text


def test_published_numbers_stand_beside_those_of_mvtec_alone(folder, line):
    page, text = written(folder([line("all", 0.5), line("SAE", 0.5)], target="mvtec"))
    row = next(one for one in text.splitlines() if one.startswith("| all |"))
    assert "| 50.0 | 81.4 |" in row and "| – | 99.1 |" in row
    assert "| AnomalyDiffusion (Hu et al., AAAI 2024) | 1.80 | 0.32 | 99.1 | 81.4 |" in text
    assert "SeaS" in page.text


def test_a_suite_of_one_variant_has_a_line_for_each_product(folder, line):
    rows = [line("all", value, suite="paper", unit=unit) for unit, value in (("bottle", 0.2), ("cable", 0.4))]
    page, text = written(folder(rows, target="mvtec"))
    table = text.split("## paper")[1].splitlines()[4:10]
    head, _, every, published, bottle, cable = [[cell.strip() for cell in row.split("|")[1:-1]] for row in table]
    assert head[:2] == ["of", "pixel AP"] and "class score" not in head and "IS" in head and head[-1] == "n"
    assert every[:2] == ["all 2", "30.0 ± 14.1"] and published[:2] == ["published", "81.4"]
    assert (bottle[0], bottle[1], cable[1], cable[-1]) == ("bottle", "20.0", "40.0", "1")
    assert "numbers stacked" in {attrs.get("class") for tag, attrs in page.tags if tag == "table"}


def test_other_targets_have_no_published_column(folder, line):
    page, text = written(folder([line("all", 0.5)]))
    assert "published" not in text and "81.4" not in page.text


def test_a_table_of_all_comes_before_those_of_each(folder, line):
    _, text = written(folder([line("all", 0.2), line("all", 0.4, unit="tile/stain")]))
    heads = [one for one in text.splitlines() if one.startswith("### ")]
    assert heads == ["### all 2", "### metal/scratch", "### tile/stain"]
    assert "| all | 30.0 ± 14.1 |" in text


def test_dual_tells_its_steps_its_differences_and_what_alignment_is(folder, line):
    rows = [line(name, 0.5, suite="dual", control=control, measures={"alignment": value, "gap": 1.0, "fill": None})
            for name, control, value in (("dual alone", "generated alone", 0.4), ("generated alone", "real", 0.55))]
    page, text = written(folder(rows))
    assert "200 steps of an inversion, 150 of a dual model, a detector" in text
    assert "150 of a dual model" in page.text and "-0.15" in page.text  # of the ones that differ
    assert "| dual alone |" in text and "*alignment*: overlap (IoU, 0 for a mask at random)" in text


def test_where_masks_lie_is_told_if_they_were_placed(folder, line):
    out = folder([line("all")])
    page, text = written(out)
    assert "placed on the object" not in page.text + text
    plan = json.loads((out / "benchmark.json").read_text(encoding="utf-8"))
    plan["budget"]["place"] = "move"
    (out / "benchmark.json").write_text(json.dumps(plan))
    page, text = written(out)
    told = "48 pairs of each defect, masks placed on the object (move), 200 steps"
    assert told in page.text and told in text


def test_nothing_measured_is_no_report(folder):
    with pytest.raises(InputError, match="no finished cell"):
        write_report(folder([]))


@pytest.fixture
def runs(folder, line):
    """Two lines with runs of two pairs each, painted into one normal image."""
    out = folder([])
    normal, mask = np.full((32, 32, 3), 90, np.uint8), np.zeros((32, 32), bool)
    mask[4:20, 8:24] = True
    write_png(out / "data" / "metal" / "train" / "good" / "n.png", normal)
    rows = []
    for name, value in (("textual inversion", 10), ("all", 240)):
        folder_of = out / "runs" / name
        for number in range(2):
            pair = f"{number:06d}"
            write_png(folder_of / "image" / f"{pair}.png", np.where(mask[..., None], np.uint8(value), normal))
            write_png(folder_of / "mask" / f"{pair}_mask.png", mask)
            (folder_of / "pairs").mkdir(exist_ok=True)
            (folder_of / "pairs" / f"{pair}.json").write_text(json.dumps({"id": pair, "normal": "n.png"}))
        plan = {"format": 1, "product": "metal", "defect": "scratch", "count": 2}
        (folder_of / "run.json").write_text(json.dumps(plan))
        rows.append(line(name, runs=[name]))
    return out, rows


def test_a_sheet_has_a_line_for_each_variant_below_the_normal_images(runs):
    out, rows = runs
    path = draw_sheet(out / "sheet.png", out, rows, out / "data")
    sheet = read_photo(path).rgb
    left = 24 + LABEL + TILE // 2
    middles = [sheet[76 + line * (TILE + GAP) + TILE // 3, left] for line in range(3)]
    assert [tuple(one) for one in middles] == [(90,) * 3, (10,) * 3, (240,) * 3]
    assert ((sheet[76 : 76 + TILE] == (236, 38, 96)).all(-1)).any()  # the mask's outline
    without = read_photo(draw_sheet(out / "other.png", out, rows, None)).rgb
    assert sheet.shape[0] - without.shape[0] == TILE + GAP


def test_the_normal_images_above_are_those_of_generated_pairs(runs, monkeypatch):
    out, (pasted, ours) = runs
    above = []
    monkeypatch.setattr(sheets, "_normals", lambda run, root: above.append(run.name))
    rows = [{**pasted, "recipe": {"source": "cutpaste"}}, {**ours, "recipe": {"source": "generated"}}]
    draw_sheet(out / "sheet.png", out, rows, out / "data")
    draw_sheet(out / "sheet.png", out, rows[:1], out / "data")
    assert above == ["all", "textual inversion"]


def test_lines_without_pairs_have_no_sheet(runs, line):
    out, _ = runs
    assert draw_sheet(out / "sheet.png", out, [line("real"), line("gone", runs=["gone"])], None) is None
    assert not (out / "sheet.png").exists()


def test_the_page_needs_no_file_beside_it(runs):
    out, rows = runs
    (out / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    page = Page(write_report(out, out / "data").read_text(encoding="utf-8"))
    pictures = [attrs["src"] for tag, attrs in page.tags if tag == "img"]
    assert len(pictures) == 1 and pictures[0].startswith("data:image/png;base64,")
    assert (out / "sheets" / "ablation-metal-scratch.png").is_file()
    assert "](sheets/ablation-metal-scratch.png)" in (out / "report.md").read_text(encoding="utf-8")
