"""The application: help without torch, one-line errors, exit codes."""

import dataclasses
import functools
import inspect
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
import typer
from typer.testing import CliRunner

from adiff.backbone import demo_library_path
from adiff.cli import EXAMPLES, app, options, paste
from adiff.cli.app import NO_ROOM, WAYS_OUT, OneLineErrors, keeping
from adiff.datasets.images import write_png
from adiff.errors import InputError
from adiff.library import Defect, Library, save_library
from adiff.progress import Cancelled
from adiff.run_record import FORMAT, record_path
from adiff.storage import write_json

COMMANDS = ("demo", "surfaces", "train", "masks", "generate", "export", "train-dual", "generate-dual")


def in_process(code: str) -> subprocess.CompletedProcess:
    environment = {**os.environ, "COLUMNS": "80"}
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)


def told_of_torch(arguments: list[str]) -> subprocess.CompletedProcess:
    """Run a command in a process that says at its end whether torch was imported."""
    return in_process(
        "import sys\n"
        "from adiff.cli import main\n"
        f"sys.argv = ['adiff', *{arguments}]\n"
        "try: main()\n"
        "except SystemExit as end: print('ended:', end.code, 'torch' in sys.modules)"
    )


def test_the_help_comes_without_torch():
    code = (
        "import sys\n"
        "from adiff.cli import main\n"
        "sys.argv = ['adiff', '--help']\n"
        "try: main()\n"
        "except SystemExit as end: assert end.code == 0, end.code\n"
        "heavy = {'torch', 'numpy', 'scipy', 'diffusers', 'PIL', 'jinja2', 'safetensors', 'rich.progress', 'hashlib'}\n"
        "heavy &= set(sys.modules)\n"
        "print('heavy:', sorted(heavy))"
    )
    result = in_process(code)
    assert result.returncode == 0, result.stderr
    assert "heavy: []" in result.stdout
    for command in COMMANDS:
        assert f" {command} " in result.stdout


def test_a_library_is_listed_without_torch(tmp_path):
    library = tmp_path / "lib.safetensors"
    defects = {("metal", name): Defect("metal", name, mask=torch.zeros(2, 4)) for name in ("rust", "dent")}
    save_library(library, Library(defects, "f" * 64, "demo", 4))
    none = tmp_path / "none.safetensors"
    shown = "metal/dent\n  shapes\n    mask                2 x 4\n"
    for arguments, told in (
        (["list", str(library)], "metal/rust\nmetal/dent\n"),
        (["show", str(library), "metal/dent"], shown),
        (["show", str(none)], ""),
    ):
        result = told_of_torch(["library", *arguments])
        assert result.stdout == f"{told}ended: {0 if told else 2} False\n", result.stderr


def test_a_folder_or_name_that_is_not_there_is_told_without_torch(data, tmp_path):
    """It takes seconds to import; the data are read without it, too."""
    out = ["--out", str(tmp_path / "out.safetensors")]
    told = {
        "folder nowhere does not exist": ["train-dual", "nowhere", *out],
        "no product 'wod'": ["paste", str(data), "--product", "wod", "--normals", str(data), *out],
        "no run at nowhere": ["export", "nowhere", *out],
        "there is no run at nowhere": ["run", "report", "nowhere"],
        "nowhere does not exist": ["import", "nowhere", *out],
        "--margin does nothing": ["masks", "nowhere", "metal/rust", "--margin", "3", *out],
        "does nothing with --what masks": ["train", "nowhere", "--what", "masks", "--freeze-encoder", *out],
    }
    code = (
        "import sys\n"
        "from adiff.cli import main\n"
        f"for arguments in {list(told.values())}:\n"
        "    sys.argv = ['adiff', *arguments]\n"
        "    try: main()\n"
        "    except SystemExit as end: print(end.code, 'torch' in sys.modules)"
    )
    result = in_process(code)
    assert result.stdout == "2 False\n" * len(told), result.stderr
    assert all(one in line for one, line in zip(told, result.stderr.splitlines(), strict=True)), result.stderr


def test_pairs_are_exported_and_photos_imported_without_torch(tmp_path):
    for place, level in (("image/000000.png", 90), ("mask/000000_mask.png", 0)):
        pixels = np.full((32, 32), level, np.uint8)
        pixels[8:16, 8:16] = 255
        write_png(tmp_path / "run" / place, pixels)
    record = {"id": "000000", "product": "metal", "defect": "rust", "normal": "a.png"}
    write_json(record_path(tmp_path / "run", 0), record)
    plan = {"format": FORMAT, "product": "metal", "defect": "rust", "count": 1, "seed": 0}
    write_json(tmp_path / "run" / "run.json", plan)
    made = str(tmp_path / "made")
    for arguments in (
        ["export", str(tmp_path / "run"), "--format", "folder", "--out", made],
        ["import", made, "--out", str(tmp_path / "back")],
    ):
        result = told_of_torch(arguments)
        assert result.stdout.endswith("ended: 0 False\n"), result.stdout + result.stderr


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example_and_a_seed(run, command):
    result = run(command, "--help")
    assert result.exit_code == 0
    assert f"Example:  adiff {command}" in result.stdout and "--seed" in result.stdout


@pytest.mark.parametrize("example", EXAMPLES.values())
def test_the_examples_parse(example):
    _, name, *arguments = example.split()
    command = typer.main.get_command(app).commands[name]
    command.make_context(name, arguments)  # raises for what is missing, unknown or out of range


def test_bare_adiff_shows_the_help_and_the_version_is_the_package_s(run):
    assert "Usage" in run().stdout and run().exit_code == 0
    from adiff import __version__

    assert run("--version").stdout == f"adiff {__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nonsense"], "No such command 'nonsense'"),
        (["surfaces"], "--out"),
        (["surfaces", "--out", "x", "--images", "many"], "--images"),
        (["surfaces", "--out", "x", "--sizes", "3"], "--sizes"),
        (["surfaces", "--out", "x", "--seed", "-1"], "--seed"),
        (["generate", "l", "a/b", "--normals", "n", "--out", "o", "--reweighting", "strong"], "strong"),
    ],
)
def test_wrong_usage_is_one_line(refused, arguments, said):
    line = refused(*arguments)
    assert said in line and "--help says more" in line


def make_app(raised: BaseException) -> typer.Typer:
    """An application whose command raises."""
    made = typer.Typer(cls=OneLineErrors, pretty_exceptions_enable=False)

    @made.callback()
    def root(debug: bool = typer.Option(False, "--debug", envvar="ADIFF_DEBUG")):
        pass

    @made.command()
    def work():
        with keeping("half of it is in x"):
            raise raised

    return made


@pytest.mark.parametrize(
    ("raised", "code", "line"),
    [
        (InputError("no\nimages  here"), 2, "error: no images here"),
        (FileNotFoundError("there is no library at x"), 2, "error: there is no library at x"),
        (FileNotFoundError(2, "No such file or directory", "a.png"), 2, "error: No such file or directory: a.png"),
        (OSError(28, "No space"), 2, "error: No space; make room, then give the same command again"),
        (OSError(30, "Read-only", "/x"), 2, "error: Read-only: /x; nothing can be written there; give another place"),
        (PermissionError(13, "Denied", "/x"), 2, f"error: Denied: /x; {WAYS_OUT[13]}"),
        (InputError("of kind '\x1b[2J\u202e'"), 2, "error: of kind '\\x1b[2J\\u202e'"),
        (torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate"), 2, f"error: {NO_ROOM}"),
        (KeyboardInterrupt(), 130, "stopped: half of it is in x"),
        (Cancelled(), 130, "stopped: half of it is in x"),
    ],
)
def test_errors_are_one_line_and_a_code(raised, code, line):
    result = CliRunner().invoke(make_app(raised), ["work"])
    assert (result.exit_code, result.stderr, result.stdout) == (code, line + "\n", "")


def test_stopped_before_its_work_a_command_does_not_say_that_what_was_there_is_lost():
    """Of a run that is begun and given again: while the model is loaded."""
    app = make_app(KeyboardInterrupt())

    @app.command()
    def load():
        raise KeyboardInterrupt

    result = CliRunner().invoke(app, ["load"])
    assert (result.exit_code, result.stderr) == (130, "stopped: nothing was changed\n")


@pytest.mark.parametrize("out", [("--out=~/new",), ("--out", "~/new")])
def test_a_path_at_home_makes_no_folder_called_tilde(run, tmp_path, monkeypatch, out):
    home, here = tmp_path / "home", tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    monkeypatch.setattr("os.path.expanduser", lambda path: path.replace("~", str(home)))
    result = run("surfaces", *out, "--product", "wood", "--images", "2", "--size", "64")
    assert result.exit_code == 0, result.stderr
    assert (home / "new").is_dir() and not list(here.iterdir())


@pytest.mark.parametrize("how", ["option", "environment"])
def test_debug_shows_the_traceback(how):
    arguments = ["--debug", "work"] if how == "option" else ["work"]
    environment = {} if how == "option" else {"ADIFF_DEBUG": "1"}
    result = CliRunner().invoke(make_app(InputError("bad")), arguments, env=environment)
    assert isinstance(result.exception, InputError)


def test_faults_of_the_program_are_not_hidden():
    result = CliRunner().invoke(make_app(ZeroDivisionError("fault")), ["work"])
    assert isinstance(result.exception, ZeroDivisionError)


@pytest.mark.skipif(os.name == "nt", reason="Windows sends Ctrl-C to all processes of a console")
def test_ctrl_c_ends_a_real_process_with_130(tmp_path):
    code = "import sys; from adiff.cli import main; sys.argv = ['adiff', *sys.argv[1:]]; main()"
    arguments = ["surfaces", "--out", str(tmp_path / "set"), "--images", "400", "--size", "64"]
    # a runner that was itself started in the background passes on an ignored Ctrl-C
    heed = functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    process = subprocess.Popen(
        [sys.executable, "-c", code, *arguments], stderr=subprocess.PIPE, text=True, preexec_fn=heed
    )
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob("set/wood/train/good/00*.png")):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    stderr = process.communicate(timeout=60)[1]
    assert process.returncode == 130
    assert stderr.count("\n") == 1 and "the same command completes them" in stderr


def test_the_choices_are_the_library_s():
    from adiff import baselines, blending, reweighting
    from adiff.backbone import precision

    assert {mode.value for mode in options.Reweighting} == set(reweighting.MODES)
    assert {kind.value for kind in options.Distance} == set(reweighting.DISTANCES)
    assert {kind.value for kind in options.Blending} == set(blending.KINDS)
    assert {one.value for one in options.Precision} == set(precision.PRECISIONS)
    assert [one.value for one in paste.Method] == list(baselines.METHODS)


def test_the_defaults_of_generate_are_the_library_s():
    from adiff.cli.generate import generate
    from adiff.generation import GenerationSettings

    defaults = {name: p.default for name, p in inspect.signature(generate).parameters.items()}
    for setting in dataclasses.fields(GenerationSettings):
        if setting.name in defaults:
            offered = getattr(defaults[setting.name], "value", defaults[setting.name])
            offered = float(offered) if isinstance(setting.default, float) else offered  # `auto` is a text
            assert offered == setting.default, setting.name


def test_the_device_is_said_before_the_command(monkeypatch):
    monkeypatch.setenv("ADIFF_DEVICE", "")
    command = ["masks", str(demo_library_path()), "metal/scratch", "--out", "x"]
    named = CliRunner().invoke(app, ["--device", "nix", *command])
    assert named.exit_code == 2 and "there is no device 'nix' on this machine; there: cpu" in named.stderr
    behind = CliRunner().invoke(app, [*command, "--device", "cpu"])
    assert behind.exit_code == 2
    assert behind.stderr == "error: --device belongs before the command (adiff --device ...)\n"


def test_a_command_that_works_in_one_process_refuses_a_launcher_s_several(run, refused, monkeypatch, tmp_path):
    given = ("masks", tmp_path / "none.safetensors", "metal/dent", "--out", tmp_path / "masks")
    for name, value in {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    assert "2 processes were started for adiff masks, which works in one; start one" in refused(*given)
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert "no library at" in refused(*given)
