"""The command that a report tells: parsed again it asks for the same, and it really makes the run again."""

import html
import os
import re
import shlex

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from adiff.cli import app
from adiff.cli.command import given_command
from adiff.datasets.images import write_png

AWKWARD = "a b/it's \"$x\" & ü"
"""A folder's name with what a shell would take apart."""
OPTIONS = {
    "normals": ("--normals", AWKWARD), "out": ("--out", AWKWARD), "masks": ("--masks", AWKWARD, "--masks", "n"),
    "count": ("-n", 3), "every": ("--all",), "per_defect": ("--per-defect", 4), "base": ("--base", f"{AWKWARD}.ckpt"),
    "lora": ("--lora", f"{AWKWARD}.safetensors:-0.5", "--lora", "l.safetensors"), "encoder": ("--encoder", AWKWARD),
    "crop": ("--no-crop",), "severity": ("--severity", 1.25), "reweighting": ("--reweighting", "paper"),
    "strength": ("--strength", 0.5), "level": ("--level", 1.75), "distance": ("--distance", "vae"),
    "blending": ("--blending", "fixed"), "precision": ("--precision", "bfloat16"),
    "steps": ("--steps", 7), "guidance": ("--guidance", 1.5), "batch": ("--batch", 2),
    "preview_decoder": ("--preview-decoder", AWKWARD), "resume": ("--restart",), "seed": ("--seed", 9),
    "min_fill": ("--min-fill", 0.25), "max_seam": ("--max-seam", 3.5), "max_likeness": ("--max-likeness", "auto"),
    "min_novelty": ("--min-novelty", 0.125), "auto_filter": ("--auto-filter",), "tries": ("--tries", 5),
    "features": ("--features", f"{AWKWARD}.pth"), "photos": ("--photos", AWKWARD), "refine": ("--refine",),
    "place": ("--place", "learned"), "foreground": ("--foreground", AWKWARD), "find": ("--find", "border-colour"),
    "vary_shots": ("--vary-shots",), "mask_denoise": ("--mask-denoise", 0.5),
    "mask_steps": ("--mask-steps", 30), "mask_guidance": ("--mask-guidance", 4.0),
    "mask_threshold": ("--mask-threshold", 0.75), "ray": ("--ray", "10.0.0.1:6379"),
    "workers": ("--workers", 3), "by_name": ("--by-name",),
}  # fmt: skip


def context(*arguments):
    command = typer.main.get_command(app).commands["generate"]
    return command.make_context("generate", [str(argument) for argument in arguments])


def parsed(command):
    program, name, *arguments = shlex.split(command)
    assert (program, name) == ("adiff", "generate")
    return context(*arguments).params


def test_every_option_of_generate_is_here():
    params = typer.main.get_command(app).commands["generate"].params
    assert {p.name for p in params if p.param_type_name == "option" and p.name != "help"} == set(OPTIONS)


@pytest.mark.parametrize("option", OPTIONS)
def test_each_option_comes_back(option):
    needed = [word for name in ("normals", "out") if name != option for word in OPTIONS[name]]
    given = context(f"{AWKWARD}.safetensors", "metal/two words", *needed, *OPTIONS[option])
    told = given_command(given)
    assert parsed(told) == given.params
    assert given.params[option] != context("LIB", "m/d", "--normals", "a", "--out", "b").params[option]


@pytest.mark.parametrize("arguments", [("LIB", "--all"), ("LIB", "m/a", "m/b"), ("--", "-l", "m/a")])
def test_arguments_come_back_with_nothing_that_was_not_given(arguments):
    given = context("--normals", "n", "--out", "o", *arguments)
    assert parsed(given_command(given)) == given.params
    assert len(shlex.split(given_command(given))) == 2 + 4 + len(arguments)


def test_parameters_can_be_told_otherwise():
    given = context("LIB", "m/a", "--normals", "n", "--out", "deep/run", "--restart")
    assert given_command(given, out="run", resume=None, seed=5) == (
        "adiff generate LIB m/a --normals n --out run --seed 5"
    )


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such names of files")
def test_the_command_of_a_report_makes_the_run_again(run, library, data, tmp_path, listing, monkeypatch):
    """By its own words alone, in another place; masks and library lie where a shell would take their names apart."""
    folder, other = tmp_path / AWKWARD, tmp_path / "elsewhere"
    other.mkdir()
    for top in (8, 30):
        mask = np.zeros((64, 64), bool)
        mask[top : top + 20, 10:34] = True
        write_png(folder / "masks" / f"{top}.png", mask)
    library.rename(folder / "lib.safetensors")
    given = ("--normals", data / "metal/train/good", "--masks", folder / "masks", "--severity", 1.5, "--no-crop",
             "-n", 2, "--steps", 2, "--batch", 1, "--seed", 4)  # fmt: skip
    result = run("generate", folder / "lib.safetensors", "metal/scratch", "--out", folder / "my run", *given)
    assert result.exit_code == 0, result.stderr
    page = (folder / "my run" / "report.html").read_text(encoding="utf-8")
    (told,) = {html.unescape(text) for text in re.findall(r">(adiff generate [^<]*)<", page)}
    monkeypatch.chdir(other)
    program, *words = shlex.split(told)
    assert CliRunner().invoke(app, words).exit_code == 0
    assert program == "adiff" and listing(other / "my run") == listing(folder / "my run")
