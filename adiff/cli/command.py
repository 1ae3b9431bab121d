"""The command line that was given: to be told in a report as what makes it again, and what in it would do nothing."""

from __future__ import annotations

import shlex
from enum import Enum
from typing import Any

import typer

from ..errors import InputError


def was_given(ctx: typer.Context, name: str) -> bool:
    """Whether the running command was told a parameter, also one that is its default."""
    source = ctx.get_parameter_source(name)
    return source is not None and not source.name.startswith("DEFAULT")


def check_idle(ctx: typer.Context, beside: str, *names: str) -> None:
    """Raise InputError if one of these parameters was given: it would do nothing beside what else was asked for."""
    for parameter in ctx.command.params:
        if parameter.name in names and was_given(ctx, parameter.name):
            raise InputError(f"{parameter.opts[0]} does nothing {beside}; leave it out")


def given_command(ctx: typer.Context, **instead: Any) -> str:
    """Return the running command as a shell reads it: its arguments, and the options that were given.

    instead: parameter -> another value to tell; None leaves it out.
    """
    arguments: list[str] = []
    options: list[str] = []
    for parameter in ctx.command.params:
        name = parameter.name or ""
        value = instead.get(name, ctx.params.get(name))
        if value is None or (name not in instead and not was_given(ctx, name)):
            continue
        values = value if isinstance(value, (list, tuple)) else [value]
        if parameter.param_type_name == "argument":
            arguments += map(_word, values)
        elif isinstance(value, bool):
            options.append((parameter.opts if value else parameter.secondary_opts)[0])
        else:
            for one in values:
                options += [parameter.opts[0], _word(one)]
    dashed = any(word.startswith("-") for word in arguments)  # taken for an option, were it not behind --
    words = [*options, "--", *arguments] if dashed else [*arguments, *options]
    return shlex.join(["adiff", ctx.info_name or "", *words])


def _word(value: Any) -> str:
    return str(value.value if isinstance(value, Enum) else value)
