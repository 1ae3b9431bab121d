"""Help pages: one for each node, naming what the node has, with pictures that are there."""

import ast
import re

import pytest

from tools.templates.schema import OURS, ROOT, read_snapshot

DOCS = ROOT / "web" / "docs"
CORE = {"Load Image", "Load Checkpoint", "CLIP Text Encode", "VAE Encode", "VAE Decode", "Preview Image", "Preview Any",
        "Set Latent Noise Mask", "InvertMask", "Conditioning (Concat)"}  # fmt: skip
"""ComfyUI's own nodes, by their names in the graph."""
MESSAGES = "\0".join(
    constant.value
    for path in (*(ROOT / "nodes").glob("*.py"), *(ROOT / "adiff").rglob("*.py"))
    for constant in ast.walk(ast.parse(path.read_text("utf-8")))
    if isinstance(constant, ast.Constant) and isinstance(constant.value, str)
)
"""Every text of the source."""
NAMES = dict(
    found
    for path in (ROOT / "nodes").glob("*.py")
    for found in re.findall(r'node_id="(\w+)",\s+display_name="([^"]+)"', path.read_text("utf-8"))
)
"""Names in the graph, by id."""


@pytest.fixture(scope="module")
def schema():
    return read_snapshot(OURS)


@pytest.fixture(params=sorted(DOCS.glob("*.md")), ids=lambda path: path.stem)
def page(request):
    return request.param


def rows_of(text):
    """First cells of all table rows but headings, split at commas."""
    cells = [line.split("|")[1] for line in text.splitlines() if line.startswith("|")]
    return {name.strip() for cell in cells for name in cell.split(",")} - {"Input", "Output", "---"}


def test_every_node_has_a_page(schema):
    assert {path.stem for path in DOCS.glob("*.md")} == set(schema) == set(NAMES)


def test_tables_name_every_input_and_output(schema, page):
    definition = schema[page.stem]
    expected = {one.name for one in definition.inputs} | {name for name, _ in definition.outputs}
    assert rows_of(page.read_text("utf-8")) == expected


def test_choices_are_those_of_the_node(schema, page):
    text = page.read_text("utf-8")
    for one in schema[page.stem].inputs:
        if one.name in ("reweighting", "distance", "blending"):
            missing = [option for option in one.options["options"] if f"`{option}`" not in text]
            assert not missing, f"{one.name}: {missing}"


def test_a_picture_of_its_use(page):
    pictures = re.findall(r"!\[([^\]]+)\]\(([^)]+)\)", page.read_text("utf-8"))
    assert [source for _, source in pictures] == [f"images/{page.stem}.jpg"]
    for _, source in pictures:
        assert (DOCS / source).is_file()
        assert (DOCS / source).stat().st_size < 150_000


def test_the_title_is_the_name_in_the_graph(page):
    assert page.read_text("utf-8").startswith(f"# {NAMES[page.stem]}\n\n")


def test_other_nodes_are_called_by_their_names(page):
    known = CORE | set(NAMES.values())
    named = re.findall(r"(?<!\*)\*([^*\n]+)\*(?!\*)", page.read_text("utf-8"))
    assert {name for name in named if name not in known} == set()


def test_messages_are_those_of_the_code(page):
    for message in re.findall(r'"([^"\n]+)"', page.read_text("utf-8")):
        for part in message.split("..."):
            assert part.strip() in MESSAGES, part
