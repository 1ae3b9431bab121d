"""`adiff masks`: masks and their record, within a foreground if there is one."""

import json
import multiprocessing
import os
import shutil
import signal

import numpy as np
import pytest
from PIL import Image

import adiff.generation
from adiff.cli.masks import Edge
from adiff.cli.objects import Find, Place
from adiff.datasets.images import write_png
from adiff.foreground import WAYS
from adiff.generation import GeneratedMask, MaskSampling
from adiff.generation.placing import PLACES
from adiff.masks import best_aligned_iou
from adiff.placement import EDGES


class Calls(list):
    """(count, seed) of each call; settings: of the last one."""


@pytest.fixture
def sampled(monkeypatch):
    """Stand-in for the sampler: a 16 x 16 square whose place follows from the seed; counts the calls."""
    calls = Calls()

    def sample(backbone, embedding, count, *, rules, shots, settings, seed, progress):
        calls.append((count, seed))
        calls.settings = settings
        made = []
        for index in range(count):
            rng = np.random.default_rng((*seed, index))
            top, left = rng.integers(0, 49, 2)
            mask = np.zeros((64, 64), bool)
            mask[top : top + 16, left : left + 16] = True
            made.append(GeneratedMask(mask, best_aligned_iou(mask, shots), index))
        return made

    monkeypatch.setattr(adiff.generation, "sample_masks", sample)
    return calls


def test_masks_and_their_record(run, library, sampled, tmp_path):
    result = run("masks", library, "metal/scratch", "-n", "3", "--out", tmp_path / "out", "--seed", "5")
    assert result.exit_code == 0, result.stderr
    record = json.loads((tmp_path / "out" / "masks.json").read_text())
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["000.png", "001.png", "002.png", "masks.json"]
    assert [about["candidate"] for about in record["masks"]] == [0, 1, 2] and sampled == [(3, (5, 0))]
    for about in record["masks"]:
        picture = np.asarray(Image.open(tmp_path / "out" / about["file"]))
        assert picture.shape == (64, 64) and set(np.unique(picture)) == {0, 255}
        assert about["area"] == pytest.approx((picture > 0).mean(), abs=1e-5)
        assert about["iou"] == pytest.approx(256 / 480, abs=1e-4)  # a 16 x 16 square in a shot's 20 x 24 rectangle
    assert f"{record['median_iou']:.2f}" in result.stdout


def test_how_masks_are_sampled_is_asked_for_and_recorded(run, library, sampled, tmp_path):
    told = ("--mask-denoise", "0.6", "--mask-steps", "30", "--mask-guidance", "4", "--mask-threshold", "0.7")
    for name, given, expected in (("own", (), (12, 2.0, 1.0, 0.6)), ("told", told, (30, 4.0, 0.6, 0.7))):
        result = run("masks", library, "metal/scratch", "-n", "1", "--out", tmp_path / name, *given)
        assert result.exit_code == 0 and sampled.settings == MaskSampling(*expected), result.stderr
        settings = json.loads((tmp_path / name / "masks.json").read_text())["settings"]
        assert tuple(settings[key] for key in ("steps", "guidance", "denoise", "threshold")) == expected


def objects_of(folder):
    """Masks of two objects, the left and the right part of the picture."""
    left = np.zeros((64, 64), bool)
    left[:, :40] = True
    for name, mask in (("left.png", left), ("right.png", ~left[:, ::-1])):
        write_png(folder / name, mask)
    return folder


def placed_in(out):
    """The records of a folder of masks, each with its mask."""
    record = json.loads((out / "masks.json").read_text())
    return record, [(about, np.asarray(Image.open(out / about["file"])) > 0) for about in record["masks"]]


@pytest.mark.parametrize("place", ["stay", "move", "learned"])
def test_masks_lie_on_the_foreground_that_the_record_names(run, library, sampled, tmp_path, place):
    objects, out = objects_of(tmp_path / "objects"), tmp_path / "out"
    given = ("-n", "6", "--out", out, "--foreground", objects, "--place", place, "--seed", "3")
    result = run("masks", library, "metal/hole", *given)
    assert result.exit_code == 0, result.stderr
    record, masks = placed_in(out)
    assert len(masks) == 6 and (len(sampled) > 1) == (place == "stay") and record["settings"]["place"] == place
    for about, mask in masks:
        assert mask.any() and (np.asarray(Image.open(objects / about["foreground"]))[mask] == 255).all()
        assert place != "move" or mask.sum() == 256 and (about["turn"], about["scale"]) == (0, 1)
        assert place != "learned" or mask.sum() > 350  # the shots' masks have 480 pixels, those drawn 256
    if place != "stay":
        assert [about["foreground"] for about, _ in masks] == 3 * ["left.png", "right.png"]
    again = run("masks", library, "metal/hole", *given[:3], tmp_path / "again", *given[4:])
    assert again.exit_code == 0
    assert all((a == b).all() for (_, a), (_, b) in zip(masks, placed_in(tmp_path / "again")[1], strict=True))


def test_masks_are_turned_scaled_and_kept_from_the_edge(run, library, sampled, tmp_path):
    write_png(tmp_path / "objects" / "a.png", np.pad(np.ones((64, 100), bool), 8))
    given = ("--turn", "45", "--scale", "0.5:0.75", "--edge", "away", "--margin", "10")
    result = run("masks", library, "metal/hole", "-n", "4", "--out", tmp_path / "out", "--foreground",
                 tmp_path / "objects", *given)  # fmt: skip
    assert result.exit_code == 0, result.stderr
    record, masks = placed_in(tmp_path / "out")
    assert record["settings"]["scale"] == [0.5, 0.75] and record["settings"]["margin"] == 10
    inner = np.pad(np.ones((44, 80), bool), 18)
    assert len({about["turn"] for about, _ in masks}) == 4
    for about, mask in masks:
        assert mask.shape == (80, 116) and not (mask & ~inner).any() and 0.5 <= about["scale"] <= 0.75
        assert mask.sum() == pytest.approx((1.25 * about["scale"]) ** 2 * 256, rel=0.25)  # 80 rows for 64


@pytest.fixture
def show(tmp_path):
    """Writes three normal images with a bright object in the middle to a folder of normals/."""

    def write(folder, first=0):
        for number in range(3):
            picture = np.full((64, 64, 3), (10, 20, 10), np.uint8)
            picture[10:50, 5 + number : 45] = 200
            write_png(tmp_path / "normals" / folder / f"{first + number}.png", picture)

    return write


def test_the_object_is_found_in_normal_images_and_kept_beside_the_masks(run, refused, library, sampled, tmp_path, show):
    show("")
    where = ("-n", "2", "--out", tmp_path / "out", "--normals", tmp_path / "normals")
    result = run("masks", library, "metal/hole", *where)
    assert result.exit_code == 0, result.stderr
    for about, mask in placed_in(tmp_path / "out")[1]:
        found = np.asarray(Image.open(tmp_path / "out" / "foreground" / about["foreground"])) > 0
        assert 1400 < found.sum() <= 1600 and not (mask & ~found).any() and about["normal"] == about["foreground"]
    line = refused("masks", library, "metal/hole", *where[:3], tmp_path / "new", *where[4:], "--find", "alpha")
    assert "the image has no transparency; mark it with --foreground DIR, or give --find whole-picture" in line
    assert not (tmp_path / "new").exists()


def test_a_photo_in_which_no_object_can_be_told_is_named_and_left_out(run, library, sampled, tmp_path, show):
    show("")
    write_png(tmp_path / "normals" / "00 blank.png", np.full((64, 64, 3), 90, np.uint8))
    result = run("masks", library, "metal/hole", "-n", "3", "--out", tmp_path / "out", "--normals",
                 tmp_path / "normals")  # fmt: skip
    assert result.exit_code == 0, result.stderr
    assert "1 of 4 normal images get no mask, the first 00 blank.png: " in " ".join(result.stderr.split())
    assert {about["normal"] for about, _ in placed_in(tmp_path / "out")[1]} == {"0.png", "1.png", "2.png"}


def test_normals_are_those_of_the_defect_s_product(run, refused, library, sampled, tmp_path, show):
    """As for `adiff generate`: DIR/PRODUCT/train/good, else DIR/PRODUCT, else DIR."""
    for number, folder in enumerate(("", "wood", "metal", "metal/train/good")):
        show(folder, first=10 * number)

    def looked_at(out):
        result = run("masks", library, "metal/hole", "-n", "3", "--out", out, "--normals", tmp_path / "normals")
        assert result.exit_code == 0, result.stderr
        return {about["normal"] for about, _ in placed_in(out)[1]}

    assert looked_at(tmp_path / "a") == {"30.png", "31.png", "32.png"}
    shutil.rmtree(tmp_path / "normals/metal/train")
    assert looked_at(tmp_path / "b") == {"20.png", "21.png", "22.png"}
    shutil.rmtree(tmp_path / "normals/metal")
    assert looked_at(tmp_path / "c") == {"0.png", "1.png", "2.png"}
    (tmp_path / "normals/metal").mkdir()
    where = ("--out", tmp_path / "d", "--normals", tmp_path / "normals")
    assert "normal images of metal: " in refused("masks", library, "metal/hole", *where)


def test_too_small_a_foreground_is_said_and_nothing_written(refused, library, sampled, tmp_path):
    tiny_object = np.zeros((64, 64), bool)
    tiny_object[:4, :4] = True
    write_png(tmp_path / "objects" / "a.png", tiny_object)
    where = ("--out", tmp_path / "out", "--foreground", tmp_path / "objects")
    assert "0 of 2 masks" in refused("masks", library, "metal/hole", "-n", "2", *where, "--place", "stay")
    line = refused("masks", library, "metal/hole", "-n", "2", *where)
    assert "none of 2 masks fits on foreground 1 of 1: larger than the object (2)" in line
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--find", "alpha"), "--find goes with --normals"),
        (("--turn", "20"), "--turn places masks on an object; give its masks with --foreground, or --normals"),
        (("--place", "stay"), "--place places masks on an object"),
        (("--foreground", "objects", "--normals", "objects"), "both --foreground and --normals"),
        (("--foreground", "objects", "--place", "stay", "--edge", "near"), "leave out --turn, --scale and --edge"),
        (("--foreground", "objects", "--place", "learned", "--scale", "1:2"), "leave out --turn and --scale"),
        (("--foreground", "objects", "--scale", "2"), "--scale 2 is no LOW:HIGH"),
        (("--foreground", "objects", "--scale", "2:1"), "scale is 2.0 to 1.0"),
        (("--foreground", "nowhere"), "does not exist"),
    ],
)
def test_options_that_do_not_go_together(refused, library, sampled, tmp_path, monkeypatch, options, message):
    objects_of(tmp_path / "objects")
    monkeypatch.chdir(tmp_path)
    assert message in refused("masks", library, "metal/hole", "--out", tmp_path / "out", *options)
    assert not (tmp_path / "out").exists()


def test_choices_are_the_library_s():
    assert tuple(one.value for one in Edge) == EDGES
    assert tuple(one.way for one in Find) == WAYS
    assert tuple(one.value for one in Place) == PLACES


@pytest.mark.parametrize("broken", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_write_that_breaks_off_leaves_no_half_set(run, library, sampled, tmp_path, monkeypatch, broken):
    rename, made = os.replace, []

    def fail_at_the_third(source, target):
        made.append(target)
        if len(made) == 3:
            raise broken
        rename(source, target)

    monkeypatch.setattr("adiff.storage.os.replace", fail_at_the_third)
    result = run("masks", library, "metal/scratch", "-n", "3", "--out", tmp_path / "out")
    assert result.exit_code == (2 if isinstance(broken, OSError) else 130) and len(made) == 3
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork, and no kill -9")
@pytest.mark.parametrize(("write", "left"), [(1, []), (4, ["000.png", "foreground", "masks.json"])])
def test_after_a_kill_the_same_call_begins_anew(run, refused, library, sampled, tmp_path, listing, write, left):
    """The writes are the record, the object found, three masks, and the record again."""
    pixels = np.full((64, 64, 3), 255, np.uint8)
    pixels[8:56, 8:56] = 60
    write_png(tmp_path / "normals" / "a.png", pixels)
    given = ("masks", library, "metal/scratch", "-n", "3", "--normals", tmp_path / "normals", "--find", "border-colour")
    out = tmp_path / "out"

    def work():
        rename, written = os.replace, []

        def kill_before(source, target):
            written.append(target)
            if len(written) == write:
                os.kill(os.getpid(), signal.SIGKILL)
            rename(source, target)

        os.replace = kill_before
        run(*given, "--out", out)

    process = multiprocessing.get_context("fork").Process(target=work, daemon=True)
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    assert sorted(path.name for path in out.iterdir() if not path.name.startswith(".")) == left
    if left:  # what somebody has put beside them since is not removed
        (out / "mine.png").touch()
        assert "is not empty" in refused(*given, "--out", out) and (out / "000.png").exists()
        (out / "mine.png").unlink()
    again, whole = (run(*given, "--out", folder) for folder in (out, tmp_path / "whole"))
    assert again.exit_code == whole.exit_code == 0, again.stderr
    assert listing(out) == listing(tmp_path / "whole") and "foreground/a.png" in listing(out)
    assert "is not empty" in refused(*given, "--out", out)


def test_what_does_not_fit_is_refused(refused, library, tmp_path, tiny):
    out = ("--out", tmp_path / "out")
    assert "metal/scratch, metal/hole" in refused("masks", library, "metal/rust", *out)
    assert "PRODUCT/DEFECT" in refused("masks", library, "metal", *out)
    told = refused("masks", library, "metal/hole", *out, "--foreground", tmp_path, "--margin", "20")
    assert "--margin does nothing without --edge near, or away" in told
    told = refused("masks", library, "metal/hole", *out, "--vary-shots", "--mask-denoise", "0.6")
    assert "--mask-denoise does nothing with --vary-shots" in told
    assert "no library at" in refused("masks", tmp_path / "none.safetensors", "metal/hole", *out)
    write_png(tmp_path / "black" / "a.png", np.zeros((64, 64), bool))
    assert "is empty" in refused("masks", library, "metal/hole", *out, "--foreground", tmp_path / "black")
    tiny.context_dim = 32
    assert "16" in refused("masks", library, "metal/hole", *out)
    assert not (tmp_path / "out").exists()
    assert "not empty" in refused("masks", library, "metal/hole", "--out", tmp_path)


def test_masks_varied_from_the_shots_need_no_model(run, library, sampled, tmp_path, monkeypatch):
    monkeypatch.setattr(adiff.backbone, "load_backbone", lambda *_, **__: pytest.fail("the base model was opened"))
    for name in ("one", "again"):
        result = run("masks", library, "metal/scratch", "-n", "4", "--vary-shots", "--out", tmp_path / name)
        assert result.exit_code == 0, result.stderr
    record, found = placed_in(tmp_path / "one")
    assert record["settings"]["varied"] is True and not sampled
    shots = 480 / 64**2
    assert all(mask.mean() == pytest.approx(shots, rel=0.2) for _, mask in found)
    assert len({mask.tobytes() for _, mask in found}) == 4
    assert all(np.array_equal(a, b) for (_, a), (_, b) in zip(found, placed_in(tmp_path / "again")[1], strict=True))
    placed = run("masks", library, "metal/scratch", "-n", "4", "--vary-shots", "--out", tmp_path / "placed",
                 "--scale", "0.3:0.6", "--foreground", objects_of(tmp_path / "objects"))  # fmt: skip
    assert placed.exit_code == 0, placed.stderr
    assert {about["foreground"] for about, _ in placed_in(tmp_path / "placed")[1]} == {"left.png", "right.png"}
