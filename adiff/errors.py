"""The error a user can put right: bad input, said in one line."""

from collections.abc import Iterable


class InputError(ValueError):
    """Input that cannot be used: what came, what was expected, what to do, in one line.

    The command line turns it into exit code 2 and that line; nodes show it as it is. Line breaks are joined, so that a
    message built from somebody else's text stays one line.
    """

    __module__ = "adiff.errors"  # in ComfyUI it were the pack's path, with which the page would begin the line

    def __init__(self, message: str):
        super().__init__(" ".join(str(message).split()))


def listed(names: Iterable[str], most: int = 5, between: str = ", ") -> str:
    """The first few names, and how many more."""
    names = list(names)
    return between.join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def all_reasons(reasons: Iterable[object]) -> str:
    """Different reasons, each once: all that has to be put right, not the first of it alone."""
    return listed(dict.fromkeys(map(str, reasons)), between="; ")
