"""Runs and trainings that are not what is asked for, or that somebody else is at."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from adiff.cli import app
from adiff.datasets.images import read_mask, write_png
from adiff.storage import LOCK, run_lock

SIZE = 64
RUNS = {
    "newer": ({"format": 99}, "run.json is of format 99, this version reads up to 1; update adiff"),
    "of others": (["mine"], "run.json"),
    "damaged": ("{", "run.json is damaged"),
    "deep": ("[" * 99999, "run.json is damaged"),
}


@pytest.mark.parametrize("command", ["generate", "status", "verify"])
@pytest.mark.parametrize("kind", RUNS)
def test_a_record_that_is_not_a_runs_is_named(refused, place, tiny, kind, command, generate):
    content, said = RUNS[kind]
    (place / "run").mkdir()
    (place / "run" / "run.json").write_text(content if isinstance(content, str) else json.dumps(content))
    assert said in refused(*(generate() if command == "generate" else ("run", command, place / "run")))


def test_a_folder_with_something_else_in_it_is_not_written_to(refused, place, tiny, generate):
    for name, said in (("data", "holds no run"), ("lib.safetensors", "is a file")):
        assert said in refused(*generate(out=name))
    assert "not empty" in refused("masks", place / "lib.safetensors", "metal/scratch", "--out", place / "data")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("--steps", 3), "settings.steps 1, now 3"),
        (("--guidance", 3.5), "settings.guidance 2.0, now 3.5"),
        (("--reweighting", "off"), "settings.reweighting balanced, now off"),
        (("--seed", 7), "seed 0, now 7"),
        (("-n", 3), "count 2, now 3"),
        (("--batch", 1), "settings.batch 2, now 1"),
        (("--encoder", "enc.safetensors"), "encoder"),
    ],
)
def test_a_run_goes_on_with_its_own_settings_only(refused, place, tiny, change, said, done, generate):
    done(*generate())
    line = refused(*generate(*(place / c if c == "enc.safetensors" else c for c in change)))
    assert "holds another run" in line and said in line


def test_a_training_goes_on_with_its_own_settings_only(refused, place, tiny, backbone, monkeypatch, done):
    calls, whole = [], type(backbone).predict_noise

    def stop(*given):
        calls.append(given)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return whole(*given)

    with monkeypatch.context() as patch:
        patch.setattr(type(backbone), "predict_noise", stop)
        given = ("train", place / "data", "--out", place / "new.safetensors", "--what", "masks")
        result = CliRunner().invoke(app, [str(a) for a in (*given, "--shots", 2, "--steps", 3)])
        assert result.exit_code == 130
    for change in (
        ("--shots", 2, "--steps", 4),
        ("--shots", 3, "--steps", 3),
        ("--shots", 2, "--steps", 3, "--seed", 1),
    ):
        assert "belongs to a training with other settings or shots" in refused(*given, *change)
    done(*given, "--shots", 2, "--steps", 3)


def test_a_mask_of_one_pixel_does_not_vanish_where_it_is_made_smaller(place, tiny, done, generate):
    for index, side in enumerate((SIZE * 16, SIZE)):
        dot = np.zeros((side, side), bool)
        dot[-1, 0] = True
        write_png(place / "dots" / f"{index}.png", dot)
    done(*generate(masks="dots"))
    for index in range(2):
        assert read_mask(place / "run" / "mask" / f"{index:06d}_mask.png").mask.sum() == 1


@pytest.mark.parametrize("value", [0, 100])
def test_a_mask_that_marks_nothing_is_refused_and_the_run_goes_on_with_a_better_one(
    refused, place, tiny, value, done, generate
):
    write_png(place / "none" / "0.png", np.full((SIZE, SIZE), value, np.uint8))
    assert "is empty" in refused(*generate(masks="none"))
    (place / "masks" / "0.png").replace(place / "none" / "0.png")
    done(*generate(masks="none"))


@pytest.mark.parametrize("value", [0, 255])
def test_the_last_of_many_masks_is_looked_at_before_the_first_pair(refused, place, tiny, value, generate):
    write_png(place / "masks" / "1.png", np.full((SIZE, SIZE), value, np.uint8))
    assert str(Path("masks/1.png")) in refused(*generate())
    assert str(Path("masks/1.png")) in refused(*generate("--restart"))


def test_a_run_that_goes_on_elsewhere_says_what_may_differ(place, tiny, done, generate):
    done(*generate())
    record = json.loads((place / "run" / "run.json").read_text())
    assert "begun elsewhere" not in done(*generate())
    record["environment"] |= {"threads": 99, "device": "cuda"}
    (place / "run" / "run.json").write_text(json.dumps(record))
    said = done(*generate())
    assert "was begun elsewhere (device cuda, now cpu; threads 99, now " in said and "2 grey levels" in said


@pytest.mark.parametrize("size", [(3, 2), (17, 40), (40, 200)])
def test_a_normal_that_is_smaller_than_the_crop_is_painted_in_whole(place, tiny, size, done, generate):
    mask = np.zeros(size, bool)
    mask[1, 1] = True
    write_png(place / "small" / "0.png", np.full((*size, 3), 128, np.uint8))
    write_png(place / "dots" / "0.png", mask)
    for crop in ("--crop", "--no-crop"):
        done(*generate(crop, normals="small", masks="dots", out=f"run{crop}"))
        assert len(list((place / f"run{crop}" / "image").iterdir())) == 2


def test_the_second_process_that_samples_masks_says_who_is_the_first(refused, place, tiny):
    with run_lock(place / "new"):
        line = refused("masks", place / "lib.safetensors", "metal/scratch", "--out", place / "new")
    assert f"process {os.getpid()} on " in line


@pytest.mark.parametrize("command", ["generate", "generate --restart", "train", "train --restart"])
def test_the_second_process_on_one_run_says_who_is_the_first(refused, place, tiny, command, done, train, generate):
    if command.startswith("generate"):
        done(*generate())
    folder = place / ("run" if command.startswith("generate") else "new.safetensors.state")
    given = generate() if command.startswith("generate") else train()
    with run_lock(folder):
        line = refused(*given, *(["--restart"] if "restart" in command else []))
    assert f"process {os.getpid()} on " in line and f"is writing to {folder}" in line


@pytest.mark.parametrize("command", ["generate", "train"])
def test_the_lock_of_a_killed_process_is_nobodys(place, tiny, command, done, train, generate):
    folder = place / ("run" if command == "generate" else "new.safetensors.state")
    folder.mkdir()
    (folder / LOCK).write_text('{"pid": 1, "host": "a", "since": "b"}\n')
    (folder / ".0123456789abcdef.0123456789abcdef.tmp").write_bytes(b"half")
    done(*(generate() if command == "generate" else train()))
    left = {path.name for path in folder.iterdir()} if folder.exists() else set()
    assert not any(name.startswith(".") for name in left)
