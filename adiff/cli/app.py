"""The application: its options, its one-line errors and its exit codes.

| exit code | meaning |
|---|---|
| 0 | done |
| 1 | a fault of the program: a traceback is shown; of `run verify` and `run status`: something is wrong with the run |
| 2 | bad input: one line says what came, what was expected, what to do |
| 130 | stopped with Ctrl-C: one line says what is kept |
"""

from __future__ import annotations

import errno
import io
import logging
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from ..errors import InputError
from ..progress import Cancelled
from ..storage import is_unfinished
from ..system import DEVICE, WINDOWS, launched

BAD_INPUT, STOPPED = 2, 130
WAYS_OUT = {
    errno.ENOSPC: "make room, then give the same command again",
    errno.EDQUOT: "make room, then give the same command again",
    errno.EFBIG: "the system allows no file of that length there; give another place",
    errno.EROFS: "nothing can be written there; give another place",
    errno.EACCES: f"{'close the program that has it open, ' * WINDOWS}change its rights, or give another place",
    errno.EPERM: "change its rights, or give another place",
    errno.ENAMETOOLONG: "give a shorter name",
    errno.ENOTDIR: "a file stands where a folder is wanted; give another place",
    errno.EISDIR: "a folder stands where a file is wanted; give another place",
}
"""What to do about an error of the system's own."""
ALONE = ("demo", "evaluate", "generate-dual", "masks", "paste", "surfaces", "train-dual")
"""Commands whose output one process writes: a launcher ends all when a second one finds it taken."""
NO_ROOM = (
    "out of memory; end what else takes memory of the device, take smaller batches or a smaller base model, or compute "
    "elsewhere: adiff --device cpu ..."
)


class OneLineErrors(TyperGroup):
    """Commands whose bad input ends in one line and exit code 2, with --debug in a traceback."""

    def parse_args(self, ctx: typer.Context, args: list[str]) -> list[str]:
        return super().parse_args(ctx, [_at_home(argument) for argument in args])

    def invoke(self, ctx: typer.Context) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as stop:
            _say("stopped", str(stop) or "nothing was changed")
            raise typer.Exit(STOPPED) from None
        except (InputError, OSError) as error:
            if ctx.params.get("debug") or getattr(error, "errno", None) == errno.EPIPE:
                raise
            _say("error", _line_of(error))
            raise typer.Exit(BAD_INPUT) from None
        except RuntimeError as error:
            if ctx.params.get("debug") or not _is_out_of_memory(error):
                raise
            _say("error", NO_ROOM)
            raise typer.Exit(BAD_INPUT) from None

    def main(self, *args: Any, standalone_mode: bool = True, **extra: Any) -> Any:
        if not standalone_mode:
            return super().main(*args, standalone_mode=False, **extra)
        try:
            code = super().main(*args, standalone_mode=False, **extra)
        except Exception as error:
            if not hasattr(error, "format_message"):  # what the parser raises; its class moved between versions
                raise
            where = getattr(getattr(error, "ctx", None), "command_path", "adiff")
            name = getattr(error, "option_name", None)
            told, remedy = error.format_message(), f"{where} --help says more"
            if name in {name for parameter in self.params for name in parameter.opts}:
                told, remedy = f"{name} belongs before the command", f"adiff {name} ..."
            _say("error", f"{told} ({remedy})")
            code = error.exit_code
        sys.exit(code if isinstance(code, int) else 0)


app = typer.Typer(
    name="adiff",
    cls=OneLineErrors,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback(invoke_without_command=True, epilog="Example:  adiff demo")
def root(
    ctx: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Say the version and end.", is_eager=True)] = False,
    debug: Annotated[
        bool, typer.Option("--debug", envvar="ADIFF_DEBUG", help="Show tracebacks and what goes on inside.")
    ] = False,
    device: Annotated[
        str | None,
        typer.Option("--device", metavar="DEVICE", envvar=DEVICE, help="Where to compute: cpu, cuda, cuda:1, "
                     "xpu (Intel), mps (Apple).  [dim]default: the GPU if there is one[/dim]"),
    ] = None,
) -> None:
    """Make image-mask pairs of defects from a few photos of them."""
    from .. import __version__

    if version:
        typer.echo(f"adiff {__version__}")
        raise typer.Exit()
    if ctx.invoked_subcommand is None:
        typer.echo(ctx.get_help())
        raise typer.Exit()
    if (processes := launched()) > 1 and ctx.invoked_subcommand in ALONE:
        raise InputError(
            f"{processes} processes were started for adiff {ctx.invoked_subcommand}, which works in one; start one, as "
            "only train, generate and benchmark divide their work"
        )
    if device:
        os.environ[DEVICE] = device
    _set_up_logging(debug)


def main() -> None:
    """Run the command line; the console script's entry."""
    for stream in (sys.stdout, sys.stderr):  # a file's name need not be text that the terminal can show
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    app()


def printable(text: str) -> str:
    """Text without what a terminal would obey; it may be a stranger's, out of a file."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


@contextmanager
def keeping(what: str | Callable[[], str]) -> Iterator[None]:
    """Say on Ctrl-C what is kept of the work inside; a function is asked only then."""
    try:
        yield
    except (KeyboardInterrupt, Cancelled):
        raise KeyboardInterrupt(what if isinstance(what, str) else what()) from None


def left_of(out: Path) -> str:
    """What Ctrl-C leaves of a data set: nothing while its content is still being checked."""
    return f"{out} is not complete; the same command completes it" if is_unfinished(out) else "nothing was written"


def _at_home(argument: str) -> str:
    """An argument whose ~/, first or behind its option's =, is the home folder: not every shell says so itself."""
    option, equals, value = argument.partition("=") if argument.startswith("--") else ("", "", argument)
    return option + equals + (os.path.expanduser(value) if value.startswith("~/") else value)


def _say(kind: str, text: str) -> None:
    # not by typer.echo, whose stream goes past a running bar, so that the line would end up on the bar's
    print(f"{kind}: {printable(' '.join(text.split()))}", file=sys.stderr)


def _line_of(error: Exception) -> str:
    """What an error says; the system's own lose their number and quotes, and say what to do."""
    if isinstance(error, OSError) and error.strerror:
        what = f"{error.strerror}: {error.filename}" if error.filename else error.strerror
        return f"{what}; {WAYS_OUT[error.errno]}" if error.errno in WAYS_OUT else what
    return str(error)


def _is_out_of_memory(error: RuntimeError) -> bool:
    if "torch" not in sys.modules:
        return False
    from ..devices import is_out_of_memory

    return is_out_of_memory(error)


class _Lines(logging.Handler):
    """Each message as one line on stderr."""

    def emit(self, record: logging.LogRecord) -> None:
        _say(record.levelname.lower(), record.getMessage())


def _set_up_logging(debug: bool) -> None:
    logger = logging.getLogger("adiff")
    logger.handlers = [_Lines()]
    logger.setLevel(logging.DEBUG if debug else logging.WARNING)
    logger.propagate = False
