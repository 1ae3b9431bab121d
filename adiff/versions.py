"""Versions of what a result depends on, for the records of libraries, runs and reports."""

from importlib.metadata import PackageNotFoundError, version

from . import __version__


def versions() -> dict[str, str]:
    """Return package -> version; a package that is not installed as such is left out."""
    found = {"adiff": __version__}
    for name in ("torch", "diffusers", "numpy"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
