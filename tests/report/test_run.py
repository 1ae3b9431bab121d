"""From a run's files to its page; the command on it is one that the command line takes."""

import json
import math
import os
import shlex
import shutil
import subprocess
from dataclasses import asdict, fields

import pytest
import typer

from adiff.cli import app
from adiff.datasets.images import write_png
from adiff.errors import InputError
from adiff.generation import GenerationSettings
from adiff.rejection import reject_pairs
from adiff.report import page, report_of_run, report_of_runs
from adiff.report.run import OPTIONS, rebuilt_command, settings_of
from adiff.run_record import broken_path
from adiff.storage import write_json
from tests.e2e.comfyui import ROOT
from tests.e2e.test_browser import browser

PLAN = {
    "format": 1, "product": "metal", "defect": "rust", "count": 5, "seed": 3, "settings": asdict(GenerationSettings()),
    "masks": {"kind": "learned", "embedding": "c" * 64, "rules": {"min_area": 0.01}, "sampling": {"steps": 25}},
    "normals": [f"{i}.png" for i in range(9)], "base": {"name": "demo", "fingerprint": "f" * 64}, "embedding": "a" * 64,
    "encoder": None, "environment": {"torch": "2.9", "python": "3.12"},
}  # fmt: skip


@pytest.fixture
def folder(tmp_path, make_pair):
    """A run of five pairs, of which three are finished; the normal images are beside it."""
    write_json(tmp_path / "run" / "run.json", PLAN)
    for number in range(3):
        pair, name = make_pair(number), f"{number:06d}"
        write_png(tmp_path / "run" / "image" / f"{name}.png", pair.generated)
        write_png(tmp_path / "run" / "mask" / f"{name}_mask.png", pair.mask)
        write_png(tmp_path / "normals" / f"{number}.png", pair.normal)
        record = {"id": name, "product": "metal", "defect": "rust", "normal": f"{number}.png", "seed": 3, "fill": 0.5}
        write_json(tmp_path / "run" / "pairs" / f"{name}.json", record)
    return tmp_path / "run"


def test_the_report_shows_the_run(folder, read_page):
    page = read_page(report_of_run(folder, normals=folder.parent / "normals"))
    assert page.astray == [] and (folder / "report.html").is_file()
    assert [card["data-id"] for card in page.all("figure", class_="pair")] == ["000000", "000001", "000002"]
    assert "metal / rust" in page.words and "from seed 3. The run wants 5 pairs; 3 are finished." in page.words
    assert page.all("input", class_="slider")
    assert shlex.split(rebuilt_command(PLAN))[:4] == ["adiff", "generate", "LIB", "metal/rust"]
    assert rebuilt_command(PLAN) in page.text and "places in capitals" in page.words
    assert "torch 2.9" not in page.words and "2.9" in page.words  # a list of terms, without a space between


@pytest.mark.parametrize("of", ["one", "two"])
def test_a_pair_that_is_rejected_while_the_report_is_made_is_a_reject_in_it(folder, read_page, monkeypatch, of):
    taken, tiles_of = [], page.tiles_of

    def tiles_of_a_first_pair(pair, *more, **options):
        if not taken:
            taken.append(reject_pairs(folder, [2]))
        return tiles_of(pair, *more, **options)

    monkeypatch.setattr(page, "tiles_of", tiles_of_a_first_pair)
    runs = [folder, shutil.copytree(folder, folder.with_name("other"))]
    told = read_page(report_of_runs(runs) if of == "two" else report_of_run(folder))
    shown = [card["data-id"] for card in told.all("figure", class_="pair")]
    assert shown == ["000000", "000001", *["000000", "000001", "000002"] * (of == "two")]
    assert "by hand" in told.words and (of == "two" or "2 are finished, 1 given up" in told.words)


def test_pairs_of_one_run_can_be_ticked(folder, read_page):
    page = read_page(report_of_run(folder))
    (basket,) = page.all("div", class_="basket")
    assert basket["data-run"] == "run" and page.all("input", class_="chosen")
    shutil.copytree(folder, folder.with_name("other"))
    both = read_page(report_of_runs([folder, folder.with_name("other")]))
    assert not both.all("div", class_="basket") and not both.all("input", class_="chosen")


TICKS = """
import { withPage } from %s;
console.log(JSON.stringify(await withPage({ width: 1200, height: 900 }, async (page) => {
  const errors = [], told = [];
  page.on("pageerror", (error) => errors.push(String(error)));
  const command = () => page.locator(".basket pre").textContent();
  await page.goto(%s);
  told.push(await page.locator(".basket").isHidden());
  await page.locator(".take-out input").nth(0).check();
  told.push(await command());
  await page.locator(".pair .stack").nth(2).click();
  await page.keyboard.press("x");
  told.push(await command(), await page.locator("dialog .chosen").isChecked());
  await page.locator("dialog .close").click();
  await page.locator(".basket .clear").click();
  told.push(await page.locator(".basket").isHidden(), errors);
  return told;
})));
"""
"""Ticks a pair on its card, another one in the viewer with x, and clears both."""


def test_ticks_become_the_command_that_rejects(folder, tmp_path):
    node, chromium = browser()
    place = folder.rename(tmp_path / "my run's")
    page = report_of_run(place)
    script = tmp_path / "ticks.mjs"
    script.write_text(TICKS % (json.dumps((ROOT / "tools/templates/page.mjs").as_uri()), json.dumps(page.as_uri())))
    environment = {**os.environ, "CHROMIUM": chromium}
    done = subprocess.run([node, script], capture_output=True, text=True, env=environment, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    hidden, first, both, checked, cleared, errors = json.loads(done.stdout)
    assert hidden and checked and cleared and errors == []
    assert shlex.split(first) == ["adiff", "run", "reject", str(place), "000000"]
    assert shlex.split(both) == ["adiff", "run", "reject", str(place), "000000", "000002"]


def test_without_normals_there_is_no_slider(folder, read_page, tmp_path):
    page = read_page(report_of_run(folder, out=tmp_path / "elsewhere" / "page.html"))
    assert not page.all("input", class_="slider") and "--normals DIR" in page.words
    assert len(page.all("figure", class_="pair")) == 3 and not (folder / "report.html").exists()


def test_command_and_seconds_are_those_recorded(folder, read_page):
    assert "Time" not in read_page(report_of_run(folder)).words
    recorded = {"command": "adiff generate a.safetensors", "seconds": {"load": 1, "pairs": 61}}
    write_json(folder / "run.json", {**PLAN, **recorded})
    page = read_page(report_of_run(folder))
    assert "adiff generate a.safetensors" in page.words and "pairs 1 min 01 s" in page.words
    assert "1 min 02 sin all" in page.words  # two lines of a tile
    assert "places in capitals" not in page.words
    write_json(folder / "run.json", {**PLAN, "seconds": {"all": 2.0}})
    page = read_page(report_of_run(folder))
    assert "2.0 sin all" in page.words and "Time" not in page.words  # of one phase there is no more to say


@pytest.mark.parametrize("spent", [10**400, math.inf, math.nan, True, "1", [1]], ids=lambda spent: str(spent)[:9])
def test_seconds_that_no_run_takes_are_passed_over(folder, read_page, spent):
    write_json(folder / "run.json", {**PLAN, "seconds": {"load": 1, "pairs": 61}})
    text = (folder / "run.json").read_text("utf-8").replace("61", json.dumps(spent))
    (folder / "run.json").write_text(text, "utf-8")
    assert "1.0 sin all" in read_page(report_of_run(folder)).words


def test_only_the_pairs_shown_are_opened(folder, read_page):
    (folder / "image" / "000002.png").unlink()
    page = read_page(report_of_run(folder, limit=2))
    assert [card["data-id"] for card in page.all("figure", class_="pair")] == ["000000", "000001"]
    assert "2 of 3 shown" in page.words
    with pytest.raises(InputError, match="000002.png does not exist"):
        report_of_run(folder, limit=3)


def test_a_run_whose_pairs_all_broke_the_limits_shows_why(folder, make_pair, read_page):
    for number in range(3):
        (folder / "pairs" / f"{number:06d}.json").unlink()
    pair, reject = make_pair(), {"id": "000000-0", "reasons": ["fill 0.12 below 0.5"]}
    write_png(folder / "rejects" / "image" / "000000-0.png", pair.generated)
    write_png(folder / "rejects" / "mask" / "000000-0_mask.png", pair.mask)
    write_json(folder / "rejects" / "pairs" / "000000-0.json", reject)
    page = read_page(report_of_run(folder))
    assert "metal / rust" in page.words and "1 fill below 0.5" in page.words
    assert len(page.all("figure", class_="reject")) == 1 and not page.all("figure", class_="pair")


def test_what_is_no_run_or_damaged_is_refused(folder, tmp_path):
    with pytest.raises(InputError, match="holds no run.json"):
        report_of_run(tmp_path)
    (folder / "pairs" / "000001.json").write_text("{")
    with pytest.raises(InputError, match="000001.json is damaged"):
        report_of_run(folder)
    for path in (folder / "pairs").iterdir():
        path.unlink()
    with pytest.raises(InputError, match="no finished pair yet"):
        report_of_run(folder)
    for content in ("{", "[1]", "[" * 100_000):
        (folder / "run.json").write_text(content)
        with pytest.raises(InputError, match="run.json is damaged"):
            report_of_run(folder)
    assert not (folder / "report.html").exists()


def test_settings_are_laid_out_flat_and_short():
    sections = settings_of(PLAN)
    assert sections["run"] == {
        "product": "metal", "defect": "rust", "count": 5, "seed": 3, "normals": "9: 0.png to 8.png",
        "embedding": "a" * 12, "encoder": None, "base": "demo", "base fingerprint": "f" * 12,
    }  # fmt: skip
    assert sections["masks"] == {
        "kind": "learned", "embedding": "c" * 12, "rules.min_area": 0.01, "sampling.steps": 25,
    }  # fmt: skip
    assert sections["generation"] == asdict(GenerationSettings())
    limited = settings_of({"filter": {"limits": {"min_fill": 0.5}, "tries": 2}})
    assert limited == {"run": {"filter.limits.min_fill": 0.5, "filter.tries": 2}}
    several = settings_of({"defects": ["a", "b"], "masks": [{"kind": "folder", "files": ["x"]}, {"kind": "learned"}]})
    assert several["masks of a"] == {"kind": "folder", "files": ["x"]} and several["masks of b"] == {"kind": "learned"}
    fits, limits = [{"value": 2.0, "gaps": {"2": 0.5}}, {"value": 3.0}], [{"fill": 0.1}, {"fill": 0.2}]
    several = settings_of({"defects": ["a", "b"], "guidance": fits, "filter": {"limits": limits}})
    assert several["run"] == {
        "defects": ["a", "b"], "guidance.a.value": 2.0, "guidance.a.gaps.2": 0.5, "guidance.b.value": 3.0,
        "filter.limits.a.fill": 0.1, "filter.limits.b.fill": 0.2,
    }  # fmt: skip


def test_a_dual_run_is_told_as_one(folder, read_page):
    plan = {**PLAN, "method": "dual", "masks": {"kind": "part"}, "normals": [], "backgrounds": {"kind": "photos"},
            "settings": {"steps": 20, "guidance": 1.5, "batch": 4, "tries": 8}}  # fmt: skip
    write_json(folder / "run.json", plan)
    for path in (folder / "pairs").iterdir():
        write_json(path, {**json.loads(path.read_text()), "normal": None, "fill": None})
    page = read_page(report_of_run(folder, normals=folder.parent / "normals"))
    assert "Whole images, made with their defects by the base model demo" in page.words
    assert "None" not in page.text and "No comparison" not in page.words and "median fill" not in page.words
    assert not page.all("input", class_="by-fill") and page.all("input", class_="by-text")  # it would hide every pair
    words = shlex.split(rebuilt_command(plan))
    made = typer.main.get_command(app).commands["generate-dual"].make_context("generate-dual", words[2:])
    assert (made.params["count"], made.params["steps"], made.params["guidance"]) == (5, 20, 1.5)
    assert str(made.params["normals"]) == "NORMALS" and str(made.params["dual"]) == "DUAL"


@pytest.mark.parametrize("plan", [{}, {"base": 3, "masks": "x", "settings": [], "normals": 7, "defects": 1}])
def test_a_plan_of_another_shape_still_has_settings_and_a_command(plan):
    assert settings_of(plan) is not None and rebuilt_command(plan).startswith("adiff generate LIB")


def test_the_command_holds_what_is_not_the_default_and_parses(tmp_path):
    changed = {"steps": 7, "crop": False, "reweighting": "paper", "severity": 1.5, "eta": 0.5}
    plan = {**PLAN, "settings": {**PLAN["settings"], **changed}, "defects": ["rust", "dent", "two words"],
            "masks": [{"kind": "folder"}] * 3, "base": {"name": "sd"}}  # fmt: skip
    words = shlex.split(rebuilt_command(plan))
    made = typer.main.get_command(app).commands["generate"].make_context("generate", words[2:])
    asked = {"steps": 7, "crop": False, "severity": 1.5, "count": 5, "seed": 3, "base": "BASE"}
    assert {name: made.params[name] for name in asked} == asked and made.params["reweighting"] == "paper"
    assert [*made.params["defects"]] == ["metal/rust", "metal/dent", "metal/two words"]
    assert len(made.params["masks"]) == 3
    assert "--eta" not in words and "--guidance" not in words
    plan["settings"] |= {"level": 3.0, "strength": 0.5}  # the level does nothing with `paper`, and would be refused
    words = shlex.split(rebuilt_command(plan))
    assert "--level" not in words and "--strength" in words


@pytest.mark.parametrize(
    ("about", "options"),
    [
        ({"source": {"kind": "learned"}, "on": {"kind": "found", "way": "border colour"}},
         ["--place", "move", "--find", "border-colour"]),
        ({"source": {"kind": "shots"}, "on": {"kind": "files"}, "spread": {}},
         ["--place", "learned", "--foreground", "FOREGROUND", "--vary-shots"]),
    ],
)  # fmt: skip
def test_the_command_of_placed_masks(about, options):
    words = shlex.split(rebuilt_command({**PLAN, "masks": {"kind": "placed", **about}}))
    assert words[words.index("--normals") + 2 :][: len(options)] == options
    typer.main.get_command(app).commands["generate"].make_context("generate", words[2:])


def test_settings_without_an_option_are_named(folder, read_page):
    write_json(folder / "run.json", {**PLAN, "settings": {**PLAN["settings"], "eta": 0.5, "unheard of": 1}})
    assert "without an option of the command: eta." in read_page(report_of_run(folder)).words


def test_every_option_is_one_of_the_command_and_a_setting():
    generate = typer.main.get_command(app).commands["generate"]
    assert set(OPTIONS) <= {parameter.name for parameter in generate.params}
    assert set(OPTIONS) <= {field.name for field in fields(GenerationSettings)}


def test_the_records_are_grouped_by_defect(folder, read_page):
    path = folder / "pairs" / "000001.json"
    write_json(path, {**json.loads(path.read_text()), "defect": "dent"})
    page = read_page(report_of_run(folder))
    assert [card["data-defect"] for card in page.all("figure", class_="pair")] == ["metal/rust"] * 2 + ["metal/dent"]


@pytest.fixture
def filtered(folder, make_pair):
    """The run with limits: of pair 0 one try was rejected, of pair 3 both, pair 4 is broken."""
    write_json(folder / "run.json", {**PLAN, "filter": {"limits": {"min_fill": 0.5, "max_seam": 2.0}, "tries": 2}})
    for name, reasons in (("000000-0", ["fill 0.1 below 0.5"]), ("000003-0", ["fill 0.2 below 0.5", "seam 3 above 2"]),
                          ("000003-1", ["seam 2.5 above 2"])):  # fmt: skip
        pair, place = make_pair(9), folder / "rejects"
        write_png(place / "image" / f"{name}.png", pair.generated)
        write_png(place / "mask" / f"{name}_mask.png", pair.mask)
        write_json(place / "pairs" / f"{name}.json", {"id": name, "normal": "0.png", "reasons": reasons})
    write_json(broken_path(folder, 4), {"id": "000004", "normal": "4.png", "reason": "4.png is damaged"})
    return folder


def test_rejects_are_shown_with_their_reasons(filtered, read_page):
    page = read_page(report_of_run(filtered))
    assert page.astray == []
    assert [one["data-id"] for one in page.all("figure", class_="reject")] == ["000000-0", "000003-0", "000003-1"]
    assert "The run wants 5 pairs; 3 are finished, 1 given up." in page.words
    assert "metal / rust: 3 rejected tries; 1 pair given up" in page.words
    assert all(told in page.words for told in ("2 fill below 0.5", "2 seam above 2", "fill 0.2 below 0.5", "seam 3"))
    assert "Pairs that could not be made: 1, as 4.png is damaged." in page.words
    assert "--min-fill 0.5 --max-seam 2.0 --tries 2" in page.text


def test_the_command_holds_the_limits_and_parses(tmp_path):
    plan = {**PLAN, "filter": {"limits": {"min_fill": 0.5}, "tries": 3},
            "settings": {**PLAN["settings"], "refine": True}}  # fmt: skip
    words = shlex.split(rebuilt_command(plan))
    made = typer.main.get_command(app).commands["generate"].make_context("generate", words[2:])
    assert (made.params["min_fill"], made.params["tries"], made.params["refine"]) == ("0.5", 3, True)
    several = {**PLAN, "filter": {"limits": [{"min_fill": 0.5}, {"min_fill": 0.4}], "tries": 3}}
    assert "--min-fill" not in rebuilt_command(several)


def test_the_masks_places_are_drawn(folder, read_page):
    page = read_page(report_of_run(folder))
    # a box of 25 x 25 of 40 x 40 pixels in each of three pairs
    assert "most often covered: 100 % of the masks" in page.words
    (picture,) = [image for image in page.all("img") if image.get("alt") == "heat map of the masks of metal/rust"]
    assert picture["src"].startswith("data:image/png;base64,")
