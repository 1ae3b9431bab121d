from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from adiff.cli.options import Loras, Seed, parse_loras
from adiff.errors import InputError


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (None, []),
        (["a.safetensors"], [("a.safetensors", 1.0)]),
        (["a.safetensors:0.8", "b.safetensors:-2"], [("a.safetensors", 0.8), ("b.safetensors", -2.0)]),
        (["C:\\loras\\a.safetensors"], [("C:\\loras\\a.safetensors", 1.0)]),
        (["C:\\loras\\a.safetensors:.5"], [("C:\\loras\\a.safetensors", 0.5)]),
        (["odd:name:1e-1"], [("odd:name", 0.1)]),
        (["odd:name"], [("odd:name", 1.0)]),
    ],
)
def test_a_weight_is_what_stands_behind_the_last_colon(given, expected):
    assert parse_loras(given) == [(Path(file), weight) for file, weight in expected]


@pytest.mark.parametrize("text", ["a.safetensors:nan", "a.safetensors:inf", ":1", "", "5"])
def test_what_is_no_file_or_no_weight_is_refused(text):
    with pytest.raises(InputError, match="no FILE"):
        parse_loras([text])


def test_the_option_comes_many_times_and_its_help_is_whole():
    app, seen = typer.Typer(rich_markup_mode="rich"), []

    @app.command()
    def work(lora: Loras = None):
        seen.append(lora)

    assert CliRunner().invoke(app, ["--lora", "a:1", "--lora", "b"]).exit_code == 0
    assert CliRunner().invoke(app, []).exit_code == 0
    assert seen == [["a:1", "b"], None] or seen == [["a:1", "b"], []]
    assert "FILE[:WEIGHT]" in CliRunner().invoke(app, ["--help"]).stdout


def test_a_seed_has_64_bits():
    app = typer.Typer()

    @app.command()
    def main(seed: Seed = 0) -> None:
        typer.echo(seed)

    assert CliRunner().invoke(app, ["--seed", str(2**64 - 1)]).output.strip() == str(2**64 - 1)
    refused = CliRunner().invoke(app, ["--seed", str(2**64)])
    assert refused.exit_code == 2 and "give a number below 2^64" in " ".join(refused.output.replace("│", " ").split())
