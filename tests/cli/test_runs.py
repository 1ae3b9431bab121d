"""`adiff run status`, `verify` and `report`: on a real run's files, whole and damaged in every way."""

import inspect
import json
import os
import time

import numpy as np
import pytest
import typer

from adiff import run_record
from adiff.cli import app, verification
from adiff.cli import runs as module
from adiff.datasets.images import write_png
from adiff.generation import files
from adiff.generation import run as generation
from adiff.rejection import put_back, reject_pairs
from adiff.run_record import broken_path, reject_path
from adiff.storage import short_digest, write_json
from adiff.workers import Claims

COUNT, BATCH = 5, 2


def write_run(folder, done=range(COUNT), **changes):
    """A run of 5 pairs in batches of 2, of which `done` exist; the normal image is all 100."""
    plan = {
        "format": 1, "product": "metal", "defect": "rust", "count": COUNT, "seed": 3,
        "settings": {"steps": 30, "batch": BATCH, "crop": None}, "base": {"name": "demo", "fingerprint": "f" * 64},
    }  # fmt: skip
    write_json(folder / "run.json", {**plan, **changes})
    write_png(folder.parent / "normals" / "n.png", np.full((8, 10, 3), 100, np.uint8))
    for number in done:
        image, mask = np.full((8, 10, 3), 100, np.uint8), np.zeros((8, 10), bool)
        mask[2:4, 3:6] = True
        image[mask] = 200
        write_png(folder / "image" / f"{number:06d}.png", image)
        write_png(folder / "mask" / f"{number:06d}_mask.png", mask)
        about = {"id": f"{number:06d}", "product": "metal", "defect": "rust", "normal": "n.png", "leak": 0.0}
        write_json(folder / "pairs" / f"{number:06d}.json", about)
    return folder


@pytest.fixture
def folder(tmp_path):
    return write_run(tmp_path / "run")


def test_pairs_are_rejected_and_put_back(run, refused, folder):
    result = run("run", "reject", folder, "000001", "3", "000001")
    assert result.stdout == f"2 pairs rejected, in {folder / 'rejects'}; 3 pairs left in {folder}\n"
    lines = run("run", "status", folder).stdout
    assert "3 of 5, 2 given up, 0 left" in lines and "2 (by hand 2), in " in lines
    assert run("run", "verify", folder, "--json").exit_code == 0
    assert run("run", "restore", folder, "3").stdout == f"1 pair put back; 4 pairs in {folder}\n"
    assert "'x' is no pair's number" in refused("run", "reject", folder, "x")
    assert "pair 000001 of" in (told := refused("run", "reject", folder, "1")) and "is a reject already" in told
    assert "there is no run at" in refused("run", "restore", folder / "gone", "1")


def test_a_pair_that_is_rejected_meanwhile_is_no_fault(run, folder, monkeypatch):
    look, paths = [], run_record.record_paths

    def listed(folder):
        found = paths(folder)
        if not look:
            look.append(reject_pairs(folder, [2]))
        return found

    monkeypatch.setattr(module, "record_paths", listed)
    lines = run("run", "status", folder).stdout
    assert "4 of 5, 1 given up, 0 left" in lines
    put_back(folder, [2])
    look.clear()
    monkeypatch.setattr(verification, "record_paths", listed)
    assert f"{folder}: 4 of 5 pairs, all of them are whole" in run("run", "verify", folder).stdout


@pytest.fixture
def verify(run, folder):
    """Verify the run against its normal image; returns the exit code and what is wrong."""

    def call(*more):
        result = run("run", "verify", folder, "--normals", folder.parent / "normals", "--json", *more)
        told = json.loads(result.stdout)
        assert result.exit_code == (1 if told["wrong"] else 0) and told.pop("run") == str(folder)
        return told

    return call


@pytest.mark.parametrize("command", ["status", "verify", "report"])
def test_the_commands_have_help_with_an_example_that_parses(run, command):
    made = typer.main.get_command(app).commands["run"].commands[command]
    assert f"Example:  adiff run {command}" in run("run", command, "--help").stdout
    made.make_context(command, made.epilog.split()[4:])
    assert f" {command} " in run("run").stdout


def test_the_names_are_those_that_runs_are_written_under():
    written = inspect.getsource(generation) + inspect.getsource(files)
    assert all(f'"{name}"' in written for name in ("run.json", "image", "mask"))


def test_status_counts_pairs_and_batches(run, tmp_path):
    folder = write_run(tmp_path / "run", done=(0, 1, 2))
    about = json.loads(run("run", "status", folder, "--json").stdout)
    assert (about["done"], about["left"], about["count"]) == (3, 2, 5)
    assert about["batches"] == {"done": 1, "begun": 1, "of": 3, "size": 2}
    assert about["settings"]["steps"] == 30


def test_the_last_batch_may_be_smaller(run, tmp_path):
    folder = write_run(tmp_path / "run", done=(4,))
    assert json.loads(run("run", "status", folder, "--json").stdout)["batches"]["done"] == 1


def test_status_tells_the_seconds_since_the_last_pair(run, folder):
    for age, path in zip((500, 90, 400, 300, 200), sorted((folder / "pairs").iterdir()), strict=True):
        os.utime(path, (time.time() - age,) * 2)
    assert 90 <= json.loads(run("run", "status", folder, "--json").stdout)["seconds_since_last"] < 120


def test_status_in_words(run, tmp_path):
    folder = write_run(tmp_path / "run", done=())
    lines = {line[:10].strip(): line[11:] for line in run("run", "status", folder).stdout.splitlines()}
    assert lines["run"].endswith("run: metal/rust on demo, seed 3")
    assert (lines["pairs"], lines["batches"]) == ("0 of 5, 5 left", "0 of 3 of 2 each")
    assert (lines["last pair"], lines["settings"]) == ("none yet", "steps 30, batch 2")


@pytest.mark.parametrize("changes, told, words", [
    ({}, None, None),
    ({"guidance": {"value": 3.0, "gaps": {"2": 0.5, "3": 0.4}, "shots": 5}}, {"rust": 3.0}, "found: 3 for rust"),
    ({"guidance": [{"value": 1.5}, {"value": 4}], "defects": ["rust", "dent"]}, {"rust": 1.5, "dent": 4},
     "found: 1.5 for rust, 4 for dent"),
    ({"guidance": [{"value": 1.5}]}, {"rust": 1.5}, "found: 1.5 for rust"),
    ({"guidance": [{"value": "much"}, 3]}, None, None),
])  # fmt: skip
def test_status_tells_the_guidance_that_a_run_has_found(run, tmp_path, changes, told, words):
    folder = write_run(tmp_path / "run", **changes)
    assert json.loads(run("run", "status", folder, "--json").stdout)["guidance"] == told
    lines = dict(line.split(maxsplit=1) for line in run("run", "status", folder).stdout.splitlines())
    assert lines.get("guidance") == words


def test_status_tells_rate_and_time_left(run, tmp_path):
    """Batches of 2 written 10 s apart: 2 pairs in 10 s after the first batch, so 1 left takes 5 s; old ones are out."""
    folder, now = write_run(tmp_path / "run", done=range(4)), time.time()
    for age, path in zip((11, 11, 1, 1), sorted((folder / "pairs").iterdir()), strict=True):
        os.utime(path, (now - age,) * 2)
    about = json.loads(run("run", "status", folder, "--json").stdout)
    assert (about["pairs_per_second"], about["seconds_left"]) == (0.2, 5.0)
    assert module.rate_of([]) is None and module.rate_of([5.0, 5.0]) is None
    assert module.rate_of([0.0, 10_000.0, 10_010.0]) == 0.1
    lines = {line[:10].strip(): line[11:] for line in run("run", "status", folder).stdout.splitlines()}
    assert lines["rate"] == "0.2 pairs/s, 5 s left at that" and lines["workers"].startswith("none; the command")


def test_status_tells_rejects_and_broken_pairs_with_exit_code_1(run, tmp_path):
    limits = {"limits": {"min_fill": 0.5}, "tries": 2}
    folder = write_run(tmp_path / "run", done=(0, 1), filter=limits)
    tries = {(1, 0): ["fill 0.1 below 0.5"], (2, 0): ["dent: fill 0.1 below 0.5", "seam 3 above 2"],
             (2, 1): ["fill 0.2 below 0.5"]}  # fmt: skip
    for (number, attempt), reasons in tries.items():
        write_json(reject_path(folder, number, attempt), {"id": f"{number:06d}-{attempt}", "reasons": reasons})
    result = run("run", "status", folder, "--json")
    about = json.loads(result.stdout)
    assert result.exit_code == 0 and about["rejects"] == {"tries": 3, "reasons": {"fill": 3, "seam": 1}}
    assert (about["done"], about["rejected"], about["left"], about["broken"]) == (2, 1, 2, [])
    write_json(broken_path(folder, 3), {"id": "000003", "normal": "n.png", "reason": "n.png is damaged"})
    result = run("run", "status", folder)
    lines = {line[:10].strip(): line[11:] for line in result.stdout.splitlines()}
    assert result.exit_code == 1 and lines["pairs"] == "2 of 5, 1 given up, 1 broken, 1 left"
    assert lines["batches"] == "2 of 3 of 2 each"  # nothing is left to do in these
    assert lines["rejects"].startswith("3 (fill 3, seam 1), in ")
    assert lines["broken"] == "1, the first is 000003: n.png is damaged"


def test_status_names_who_works_on_a_run(run, tmp_path):
    folder = write_run(tmp_path / "run", done=(0,))
    with Claims(folder) as claims:
        claims.take(1)
        (worker,) = json.loads(run("run", "status", folder, "--json").stdout)["workers"]
        assert (worker["pid"], worker["batches"]) == (os.getpid(), [1])
        assert f"process {os.getpid()} on " in run("run", "status", folder).stdout


def test_a_refined_mask_is_held_against_the_one_that_was_painted(folder, verify):
    asked = np.zeros((8, 10), bool)
    asked[2:5, 3:6] = True
    write_png(folder / "mask" / "000001_asked.png", asked)
    assert verify() == {"pairs": 5, "wrong": [], "notes": []}
    overwrite("image", "000001.png", pixel((4, 4), 90))(folder)  # changed, but outside the refined mask only
    assert verify()["wrong"] == []
    overwrite("image", "000001.png", pixel((5, 4), 90))(folder)
    assert "differs from n.png by up to 10 levels" in verify()["wrong"][0]
    write_png(folder / "mask" / "000001_asked.png", np.roll(asked, 1))
    assert verify()["wrong"] == ["000001: its mask is no part of the one that was painted"]


def test_status_of_several_runs_is_a_line_each_and_their_sum(run, refused, tmp_path):
    first, second = write_run(tmp_path / "a"), write_run(tmp_path / "b", done=(0, 1, 2), defect="dent")
    write_json(broken_path(second, 3), {"id": "000003", "normal": "n.png", "reason": "n.png is damaged"})
    for age, path in zip((6, 6, 1), sorted((second / "pairs").iterdir()), strict=True):
        os.utime(path, (1e9 - age,) * 2)
    result = run("run", "status", first, second)
    assert result.exit_code == 1 and result.stdout.splitlines() == [
        f"{first}: metal/rust, 5 of 5, 0 left",
        f"{second}: metal/dent, 3 of 5, 1 broken, 1 left, 0.2 pairs/s, 5 s left at that",
        "2 runs: 8 of 10, 1 broken, 1 left",
    ]
    told = json.loads(run("run", "status", first, second, "--json").stdout)
    assert [(one["run"], one["done"]) for one in told] == [(str(first), 5), (str(second), 3)]
    assert all(f"the run {first} is given twice" in refused("run", one, first, first) for one in ("status", "verify"))
    assert json.loads(run("run", "status", first, "--json").stdout)["run"] == str(first)


def test_several_runs_are_verified_each(run, refused, tmp_path):
    first, second = write_run(tmp_path / "a"), write_run(tmp_path / "b", done=(0,))
    (first / "image" / "000001.png").unlink()
    normals = ("--normals", tmp_path / "normals")
    result = run("run", "verify", first, second, *normals)
    assert result.exit_code == 1 and result.stdout.splitlines()[0] == f"{first}: 000001: image/000001.png is missing"
    assert result.stdout.splitlines()[1].startswith(f"{first}: 5 of 5 pairs, things wrong: 1; where")
    assert result.stdout.splitlines()[2] == f"{second}: 1 of 5 pairs, all of them are whole"
    told = json.loads(run("run", "verify", first, second, *normals * 2, "--json").stdout)
    assert [(one["run"], one["pairs"], len(one["wrong"])) for one in told] == [(str(first), 5, 1), (str(second), 1, 0)]
    assert "--normals given 3 times, RUN 2 times" in refused("run", "verify", first, second, *normals * 3)


def test_a_count_beyond_reason_takes_no_time(run, tmp_path):
    folder = write_run(tmp_path / "run", done=(0,), count=10**15)
    assert json.loads(run("run", "status", folder, "--json").stdout)["batches"]["of"] == 5 * 10**14


@pytest.mark.parametrize("command", ["status", "verify", "report"])
@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"format": 2}, "format 2, this version reads up to 1; update adiff"),
        ({"count": "many"}, "damaged: count is 'many'"),
        ({"count": 0}, "damaged: count is '0'"),
        ({"settings": {"batch": True}}, "damaged: batch is 'True'"),
        ({"settings": []}, "it has no settings"),
        ({"base": None}, "damaged: base is 'None'"),
    ],
)
def test_a_damaged_run_json_is_refused(refused, tmp_path, command, changes, said):
    assert said in refused("run", command, write_run(tmp_path / "run", done=(), **changes))


@pytest.mark.parametrize("command", ["status", "verify", "report"])
def test_what_is_no_run_is_refused(refused, tmp_path, folder, command):
    assert "there is no run at" in refused("run", command, tmp_path / "none")
    assert "holds no run.json" in refused("run", command, tmp_path / "normals")
    for content in ("{", "[1]", "[" * 100_000, "\udcff"):
        (folder / "run.json").write_bytes(content.encode("utf-8", "surrogateescape"))
        assert "run.json is damaged" in refused("run", command, folder)


def test_a_whole_run_is_whole(run, folder, verify):
    assert verify() == {"pairs": 5, "wrong": [], "notes": []}
    result = run("run", "verify", folder)
    assert result.exit_code == 0 and "5 of 5 pairs, all of them are whole" in result.stdout
    assert "note: what lies outside the masks was not compared" in result.stdout


def overwrite(kind, name, change):
    """A damage: what a function makes of a picture of the run."""

    def damage(folder):
        from PIL import Image

        with Image.open(folder / kind / name) as picture:
            pixels = np.array(picture)
        write_png(folder / kind / name, change(pixels))

    return damage


def pixel(at, value):
    def change(pixels):
        pixels[at] = value
        return pixels

    return change


def truncate(kind, name):
    def damage(folder):
        path = folder / kind / name
        path.write_bytes(path.read_bytes()[:-30])

    return damage


def record(**changes):
    def damage(folder):
        path = folder / "pairs" / "000001.json"
        write_json(path, {**json.loads(path.read_text()), **changes})

    return damage


def of_two_defects(labels):
    """A pair that shows two defects; labels: of the pixels of its mask, or None for no file."""

    def damage(folder):
        record(defects=["rust", "dent"])(folder)
        if labels is not None:
            whole = np.zeros((8, 10), np.uint8)
            whole[2:4, 3:6] = labels
            write_png(folder / "mask" / "000001_labels.png", whole)

    return damage


def made_a_folder(name):
    def damage(folder):
        (folder / name).unlink()
        (folder / name).mkdir()

    return damage


@pytest.mark.parametrize("command", ["status", "verify"])
def test_a_stranger_s_run_sends_nothing_to_the_terminal(run, folder, command):
    write_run(folder, defect="\x1b[2J", settings={"batch": BATCH, "\x1b]0;x\x07": "\x1b[2J"})
    record(id="\x1b[2J", normal="\x1b[2J")(folder)
    if os.name != "nt":  # which has no such names
        (folder / "image" / ".\x1b[2J.tmp").write_bytes(b"")
    result = run("run", command, folder)
    assert "\x1b" not in result.stdout and "\\x1b[2J" in result.stdout


def test_labels_that_are_those_of_the_defects_are_whole(folder, verify):
    of_two_defects([1, 2, 2])(folder)
    assert verify()["wrong"] == []


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (of_two_defects(None), "mask/000001_labels.png is missing"),
        (of_two_defects([1, 2, 0]), "its labels mark other pixels than its mask"),
        (of_two_defects([1, 1, 1]), "not those of 2 defects: 2 is too many or missing"),
        (of_two_defects([1, 2, 3]), "not those of 2 defects: 3 is too many or missing"),
        (made_a_folder("pairs/000001.json"), "its record cannot be read: "),
        (made_a_folder("image/000001.png"), "image/000001.png is missing"),
        (lambda f: (f / "pairs" / "000001.json").write_text("[" * 99999), "000001.json is damaged (no JSON: "),
        (lambda f: (f / "image" / "000001.png").unlink(), "image/000001.png is missing"),
        (lambda f: (f / "mask" / "000001_mask.png").unlink(), "mask/000001_mask.png is missing"),
        (lambda f: (f / "pairs" / "000001.json").write_text("{"), "000001.json is damaged"),
        (lambda f: (f / "pairs" / "000001.json").write_text("[]"), "no JSON object"),
        (truncate("image", "000001.png"), "damaged or cut short"),
        (truncate("mask", "000001_mask.png"), "damaged or cut short"),
        (overwrite("image", "000001.png", lambda p: p[:, :9]), "its image is 9 x 8 pixels, its mask 10 x 8"),
        (overwrite("mask", "000001_mask.png", np.zeros_like), "its mask is empty"),
        (overwrite("mask", "000001_mask.png", pixel((0, 0), 7)), "1 pixels that are neither 0 nor 255"),
        (overwrite("mask", "000001_mask.png", lambda p: np.stack([p] * 3, -1)), "expected 8-bit grey"),
        (overwrite("image", "000001.png", pixel((7, 9, 1), 103)), "differs from n.png by up to 3 levels"),
        (overwrite("image", "000001.png", lambda p: p[:, :, 0]), "its normal image n.png (8, 10, 3) uint8"),
        (record(id="000002"), "its record's id is '000002', expected '000001'"),
        (record(defect="dent"), "its record's defect is 'dent', expected 'rust'"),
        (record(normal="other.png"), "its normal image 'other.png' is not among those given"),
        (record(normal=None), "its normal image 'None' is not"),
    ],
)
def test_each_damage_is_found_and_named(folder, verify, damage, said):
    damage(folder)
    told = verify()
    assert len(told["wrong"]) == 1 and told["wrong"][0].startswith("000001: ") and said in told["wrong"][0]


def test_a_pair_beyond_the_run_s_count_is_wrong(tmp_path, folder, verify):
    write_run(folder, done=range(7), count=6)
    assert verify()["wrong"] == ["000006: the run wants 6 pairs only"]


def test_a_normal_image_that_does_not_open_is_wrong(folder, verify):
    (folder.parent / "normals" / "n.png").write_bytes(b"x")
    assert len(verify()["wrong"]) == 5


def test_a_normal_image_that_was_replaced_is_told(folder, verify):
    normal, record = folder.parent / "normals" / "n.png", folder / "pairs" / "000001.json"
    write_json(record, {**json.loads(record.read_text()), "files": [short_digest(normal)]})
    assert verify()["wrong"] == []
    write_png(normal, np.full((8, 10, 3), 101, np.uint8))
    told = verify()["wrong"]
    assert told[0] == "000000: it differs from n.png by up to 1 levels outside its mask"  # an older record
    assert told[1] == told[0].replace("000000", "000001") + "; the file has changed since it was painted"
    write_png(normal, np.full((9, 10, 3), 101, np.uint8))
    assert verify()["wrong"][1].endswith("(9, 10, 3) uint8; the file has changed since it was painted")


def test_what_an_interruption_leaves_is_noted_and_not_wrong(folder, verify):
    (folder / "image" / ".12.abcd.tmp").write_bytes(b"x")
    (folder / ".13.abcd.tmp").write_bytes(b"x")
    (folder / "pairs" / "000004.json").unlink()
    told = verify()
    assert told["wrong"] == [] and told["pairs"] == 4
    assert sorted(note.split()[0] for note in told["notes"]) == [
        ".13.abcd.tmp", "image/.12.abcd.tmp", "image/000004.png", "mask/000004_mask.png",
    ]  # fmt: skip


def test_what_is_wrong_is_listed_in_words_with_exit_code_1(run, folder):
    (folder / "image" / "000001.png").unlink()
    (folder / "mask" / "000003_mask.png").unlink()
    result = run("run", "verify", folder)
    assert result.exit_code == 1
    assert result.stdout.splitlines()[:2] == [
        "000001: image/000001.png is missing",
        "000003: mask/000003_mask.png is missing",
    ]
    assert "5 of 5 pairs, things wrong: 2; where a pair's record in pairs/ is removed" in result.stdout


def test_normals_that_are_not_there_are_refused(refused, folder, tmp_path):
    assert "does not exist" in refused("run", "verify", folder, "--normals", tmp_path / "none")


def test_whole_images_of_a_dual_model_are_compared_with_none(folder, verify):
    write_run(folder, method="dual")
    for path in (folder / "pairs").iterdir():
        write_json(path, {**json.loads(path.read_text()), "normal": None})
    told = verify()
    assert told["wrong"] == [] and [note.partition(":")[0] for note in told["notes"]] == [
        "its images are a dual model's, whole ones"
    ]


def test_the_labels_of_a_pair_belong_to_it(folder, verify):
    for number in (1, 9):
        write_png(folder / "mask" / f"{number:06d}_labels.png", np.zeros((8, 10), np.uint8))
    assert verify()["notes"] == ["mask/000009_labels.png belongs to no finished pair"]


def test_the_report_is_written_into_the_run_or_elsewhere(run, folder, tmp_path):
    result = run("run", "report", folder, "--normals", folder.parent / "normals")
    assert result.exit_code == 0 and result.stdout.strip() == str(folder / "report.html")
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert all(f'data-id="{number:06d}"' in page for number in range(COUNT)) and 'class="slider"' in page
    assert run("run", "report", folder, "--out", tmp_path / "new" / "page.html", "--limit", 2).exit_code == 0
    page = (tmp_path / "new" / "page.html").read_text(encoding="utf-8")
    assert page.count('class="pair"') == 2 and 'class="slider"' not in page
    assert json.loads(run("run", "verify", folder, "--json").stdout)["wrong"] == []


def test_several_runs_are_reported_on_one_page(run, refused, folder, tmp_path):
    other = write_run(tmp_path / "other", done=(0,))
    normals = ("--normals", folder.parent / "normals")
    result = run("run", "report", folder, other, *normals)
    assert result.exit_code == 0 and result.stdout.strip() == str(tmp_path / "comparison.html")
    assert (tmp_path / "comparison.html").read_text(encoding="utf-8").count('class="pair"') == COUNT + 1
    for runs, times in (([folder], 2), ([folder, other], 3)):
        assert f"--normals given {times} times" in refused("run", "report", *runs, *normals * times)


def test_normals_are_those_of_the_run_s_product(run, folder, tmp_path):
    other = write_run(tmp_path / "other", done=(0,))
    place = tmp_path / "data" / "metal" / "train" / "good"
    place.mkdir(parents=True)
    (folder.parent / "normals" / "n.png").rename(place / "n.png")
    assert json.loads(run("run", "verify", other, "--normals", tmp_path / "data", "--json").stdout)["wrong"] == []
    assert run("run", "report", folder, other, "--normals", tmp_path / "data").exit_code == 0
    assert 'class="slider"' in (tmp_path / "comparison.html").read_text(encoding="utf-8")


def test_a_report_that_cannot_be_made_leaves_nothing(refused, folder, tmp_path, listing):
    before = listing(tmp_path)
    assert "does not exist" in refused("run", "report", folder, "--normals", tmp_path / "none")
    assert "is a folder; give the name of a page" in refused("run", "report", folder, "--out", tmp_path)
    (folder.parent / "normals" / "n.png").rename(folder.parent / "normals" / "m.png")
    assert "n.png does not exist" in refused("run", "report", folder, "--normals", folder.parent / "normals")
    (folder.parent / "normals" / "m.png").rename(folder.parent / "normals" / "n.png")
    assert listing(tmp_path) == before
    empty = write_run(tmp_path / "empty", done=())
    assert "holds no finished pair yet" in refused("run", "report", empty)


def test_a_run_as_it_is_generated_is_whole(run, library, data, tmp_path):
    normals = data / "metal" / "train" / "good"
    shots = data / "metal" / "ground_truth" / "scratch"
    arguments = (
        "--normals",
        normals,
        "--masks",
        shots,
        "--out",
        tmp_path / "made",
        "-n",
        3,
        "--steps",
        2,
        "--batch",
        2,
    )
    assert run("generate", library, "metal/scratch", *arguments).exit_code == 0
    result = run("run", "verify", tmp_path / "made", "--normals", normals, "--json")
    assert json.loads(result.stdout) == {"run": str(tmp_path / "made"), "pairs": 3, "wrong": [], "notes": []}
    about = json.loads(run("run", "status", tmp_path / "made", "--json").stdout)
    assert about["batches"] == {"done": 2, "begun": 0, "of": 2, "size": 2} and about["left"] == 0
