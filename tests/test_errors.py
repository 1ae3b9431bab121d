"""The user's error is one line, and a ValueError."""

from adiff.errors import InputError


def test_line_breaks_are_joined():
    error = InputError("a file\n  of\r\nsomebody else")
    assert str(error) == "a file of somebody else" and isinstance(error, ValueError)
