"""Edit Library: what it changes in a graph, and what it refuses."""

from dataclasses import replace

import pytest

from adiff.library import load_library, save_library
from adiff.library_edit import remove, revise
from tests.e2e.comfyui import Graph, GraphError
from tests.e2e.libraries import make_many
from tests.e2e.scenes import masks


@pytest.fixture
def source(server):
    """A library of three defects in the list."""
    path = server.base / "models" / "adiff_libraries" / "to edit.safetensors"
    save_library(path, make_many(3))
    yield path
    path.unlink()


def edited(server, **fields):
    """What Save Library wrote behind Edit Library."""
    graph = Graph()
    given = {name: "" for name in ("defect", "new_name", "tags", "licence", "author", "notes")} | {"remove": False}
    loaded = graph("ADiffLoadLibrary", library="to edit.safetensors")
    graph("ADiffSaveLibrary", library=graph("ADiffEditLibrary", library=loaded, **(given | fields)), name="edited",
          overwrite=True)  # fmt: skip
    path = server.base / "models" / "adiff_libraries" / "edited.safetensors"
    try:
        server.run(graph)
        return load_library(path)
    finally:
        path.unlink(missing_ok=True)


def test_one_defect_is_changed_and_the_file_is_not(server, source):
    whole = source.read_bytes()
    fields = {"new_name": "oak/scratch", "tags": "a, b", "licence": "-", "notes": " line 3 "}
    library = edited(server, defect="wood/scratch 1", **fields)
    assert [entry.name for entry in library.defects.values()] == ["metal/scratch 1", "oak/scratch", "tile/scratch 1"]
    about = library.get("oak/scratch").info
    assert about == {"shots": ["0.png", "1.png"], "author": "Ada", "tags": ["a", "b"], "notes": "line 3"}
    assert source.read_bytes() == whole


def test_the_first_is_taken_where_none_is_named_and_tags_are_taken_out(server, source):
    assert edited(server, author="Bo").get("metal/scratch 1").info["author"] == "Bo"
    assert "tags" not in edited(server, defect="tile/scratch 1", tags="-").get("tile/scratch 1").info


def test_a_library_that_was_deleted_is_written_again(server, source):
    assert list(edited(server, author="Cy").defects) == list(edited(server, author="Cy").defects)


def test_a_defect_is_removed(server, source):
    left = edited(server, defect="tile/scratch 1", remove=True)
    assert [entry.name for entry in left.defects.values()] == ["metal/scratch 1", "wood/scratch 1"]


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({}, "nothing to note on metal/scratch 1"),
        ({"defect": "wood/hole"}, "the library holds no 'wood/hole'; it holds metal/scratch 1"),
        ({"remove": True, "author": "Ada"}, "is to be removed and to be changed"),
        ({"new_name": "wood/scratch 1"}, "holds a wood/scratch 1 already"),
        ({"new_name": "../x"}, "ends with a dot"),
        ({"new_name": "wood/COM\u00b9"}, "looks like a device on Windows"),
        ({"tags": "x" * 41}, "41 characters"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_what_does_not_do_is_refused(server, source, fields, said):
    with pytest.raises(GraphError, match=said):
        edited(server, **fields)


def test_what_a_defect_gives_runs_again_for_what_was_learned_not_for_notes_or_other_defects(server, source):
    """Painting takes minutes, and a library gets its next defect while others are painted."""
    label = "to edit.safetensors / metal / scratch 1"

    def runs_again(change):
        save_library(source, change(load_library(source)))
        graph = Graph()
        taken = graph("ADiffAnomalyConditioning", defect=graph("ADiffLoadDefect", defect=label),
                      mask=masks(graph, [[1, 1, 4, 4]]), strength=1.0)  # fmt: skip
        graph("PreviewAny", source=taken)
        return taken.node not in server.run(graph).cached

    assert runs_again(lambda library: library)
    assert not runs_again(lambda library: revise(library, "metal/scratch 1", tags=["rare"]))
    assert not runs_again(lambda library: remove(library, ["tile/scratch 1"]))
    learned = make_many(11).get("metal/hole 1")
    again = replace(learned, product="metal", defect="scratch 1")
    assert runs_again(lambda library: replace(library, defects={**library.defects, again.key: again}))
