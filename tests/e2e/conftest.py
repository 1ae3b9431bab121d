"""A running ComfyUI with the pack, test models and a graph to fill; skipped where there is none to run."""

import os

import pytest

from tests.e2e.checkpoints import running
from tests.e2e.comfyui import Graph, NotThere, find_comfyui


@pytest.fixture(scope="session")
def comfyui():
    """ComfyUI's folder and interpreter; ADIFF_REQUIRE_COMFYUI=1 makes its absence a failure."""
    try:
        return find_comfyui()
    except NotThere as absent:
        if os.environ.get("ADIFF_REQUIRE_COMFYUI") == "1":
            pytest.fail(str(absent), pytrace=False)
        pytest.skip(str(absent))


@pytest.fixture(scope="session")
def server(comfyui):
    """One server for all tests; its folder goes when they are done."""
    with running(comfyui) as server:
        yield server


@pytest.fixture
def graph():
    """An empty graph."""
    return Graph()
