"""The user's error is one line, and a ValueError."""

from adiff.errors import InputError, all_reasons


def test_line_breaks_are_joined():
    error = InputError("a file\n  of\r\nsomebody else")
    assert str(error) == "a file of somebody else" and isinstance(error, ValueError)


def test_each_reason_is_told_once():
    assert all_reasons("baca") == "b; a; c" and all_reasons("abcdefg") == "a; b; c; d; e and 2 more"
