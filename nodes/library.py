"""Libraries in a graph: open, join and save them, and take a defect out."""

from __future__ import annotations

import folder_paths
from comfy_api.latest import io, ui

from ..adiff.curation import state_of
from ..adiff.errors import InputError
from ..adiff.library import Library, save_library
from ..adiff.library_edit import PREFER, merge, remove, revise
from ..adiff.spatial_encoder import save_encoder
from .files import (
    ENCODERS,
    LIBRARIES,
    SUFFIX,
    encoder_holding,
    find_library,
    found_or_why,
    library_names,
    library_path,
    new_file,
    place_of,
)
from .search import found_by
from .sockets import (
    CATEGORY,
    IN_GRAPH,
    DefectSocket,
    EncoderSocket,
    LearnedDefect,
    LibrarySocket,
    LoadedEncoder,
    LoadedLibrary,
)  # fmt: skip
from .written import FileWriter

REFUSE = "refuse"
"""What happens to a defect that two libraries hold: an error."""
NOTHING = "-"
"""What is written into a field to take out what the library says there; an empty field leaves it."""


class LoadLibrary(io.ComfyNode):
    """A file -> LIBRARY."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Declare inputs and outputs."""
        return io.Schema(
            node_id="ADiffLoadLibrary",
            display_name="Load Library",
            category=f"{CATEGORY}/train",
            **found_by("embeddings"),
            description="All defects of a library, to add to it. Libraries lie in models/adiff_libraries. To paint one "
            "of its defects use Load Defect.",
            inputs=[io.Combo.Input("library", options=library_names(), tooltip="File of the library")],
            outputs=[LibrarySocket.Output("LIBRARY", display_name="library", tooltip="All of its defects")],
        )

    @classmethod
    def validate_inputs(cls, library: str) -> bool | str:
        """Say where the file belongs instead of "value not in list"."""
        return found_or_why(find_library, library)

    @classmethod
    def fingerprint_inputs(cls, library: str) -> str:
        """Run again when the file has changed."""
        return state_of(library_path(library))

    @classmethod
    def execute(cls, library: str) -> io.NodeOutput:
        """Open the library."""
        return io.NodeOutput(find_library(library))


class PickDefect(io.ComfyNode):
    """LIBRARY -> DEFECT."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Declare inputs and outputs."""
        return io.Schema(
            node_id="ADiffPickDefect",
            display_name="Pick Defect",
            category=f"{CATEGORY}/train",
            **found_by("embedding"),
            description="Takes one defect out of a library in the graph, to paint it without saving first.",
            inputs=[
                LibrarySocket.Input("library", tooltip="From Train Defects, Train Masks or Merge Libraries"),
                io.String.Input("defect", default="", tooltip="product/defect; empty takes the first one"),
            ],
            outputs=[DefectSocket.Output("DEFECT", display_name="defect", tooltip="The learned defect")],
        )

    @classmethod
    def execute(cls, library: LoadedLibrary, defect: str) -> io.NodeOutput:
        """Look it up."""
        inner = library.library
        entry = inner.get(defect.strip()) if defect.strip() else next(iter(inner.defects.values()))
        return io.NodeOutput(LearnedDefect(library.source, inner, entry))


class MergeLibraries(io.ComfyNode):
    """LIBRARY + LIBRARY -> LIBRARY."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Declare inputs and outputs."""
        return io.Schema(
            node_id="ADiffMergeLibraries",
            display_name="Merge Libraries",
            category=f"{CATEGORY}/train",
            **found_by("embeddings"),
            description="Joins two libraries of one base model and one spatial encoder, for instance a saved one and "
            "what was just learned with its encoder.",
            inputs=[
                LibrarySocket.Input("first", tooltip="For instance from Load Library"),
                LibrarySocket.Input("second", tooltip="For instance from Train Defects"),
                io.Combo.Input(
                    "prefer", options=[REFUSE, *PREFER], default=REFUSE,
                    tooltip="Which defect counts where both have one of the same name: refuse is an error, first or "
                    "last takes that library's",
                ),
            ],
            outputs=[LibrarySocket.Output("LIBRARY", display_name="library", tooltip="The defects of both")],
        )  # fmt: skip

    @classmethod
    def execute(cls, first: LoadedLibrary, second: LoadedLibrary, prefer: str) -> io.NodeOutput:
        """Join them."""
        named = {f"the first library ({first.source})": first.library, f"the second ({second.source})": second.library}
        return io.NodeOutput(LoadedLibrary(IN_GRAPH, merge(named, None if prefer == REFUSE else prefer)))


class EditLibrary(io.ComfyNode):
    """LIBRARY -> LIBRARY with one defect renamed, noted on, tagged or removed."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Declare inputs and outputs."""
        leaves = f"; empty leaves what it says, {NOTHING} takes it out"
        return io.Schema(
            node_id="ADiffEditLibrary",
            display_name="Edit Library",
            category=f"{CATEGORY}/train",
            **found_by("embeddings", "rename", "tags"),
            description="Renames, tags, describes or removes one defect of a library. No file changes until Save "
            "Library writes it; the library panel in the sidebar changes files directly.",
            inputs=[
                LibrarySocket.Input("library", tooltip="From Load Library, Train Defects or Merge Libraries"),
                io.String.Input("defect", default="", tooltip="product/defect; empty takes the first one"),
                io.String.Input("new_name", default="", tooltip="product/defect; empty keeps the name"),
                io.String.Input("tags", default="", tooltip=f"Separated by commas, in the place of its tags{leaves}"),
                io.String.Input("licence", default="", tooltip=f"Under which others may use it{leaves}"),
                io.String.Input("author", default="", tooltip=f"Who learned it{leaves}"),
                io.String.Input("notes", default="", tooltip=f"Anything else{leaves}"),
                io.Boolean.Input("remove", default=False, tooltip="Take the defect out of the library"),
            ],
            outputs=[LibrarySocket.Output("LIBRARY", display_name="library", tooltip="To Save Library")],
        )

    @classmethod
    def execute(
        cls, library: LoadedLibrary, defect: str, new_name: str, tags: str, licence: str, author: str, notes: str,
        remove: bool,
    ) -> io.NodeOutput:  # fmt: skip
        """Change a copy."""
        inner = library.library
        name = defect.strip() or next(iter(inner.defects.values())).name
        edited = _edited(inner, name, remove, new_name.strip(), tags, licence=licence, author=author, notes=notes)
        return io.NodeOutput(LoadedLibrary(IN_GRAPH, edited))


class SaveLibrary(FileWriter):
    """LIBRARY -> a file that Load Defect lists, and its encoder's."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Declare inputs and outputs."""
        return io.Schema(
            node_id="ADiffSaveLibrary",
            display_name="Save Library",
            category=f"{CATEGORY}/train",
            **found_by("embeddings"),
            description="Writes a library into models/adiff_libraries, where Load Defect finds it, and its encoder "
            "into models/adiff_encoders, unless a file there has it already.",
            is_output_node=True,
            inputs=[
                LibrarySocket.Input("library", tooltip="From Train Defects, Train Masks or Merge Libraries"),
                io.String.Input("name", default="my defects", tooltip="Name of the file, without a folder"),
                io.Boolean.Input(
                    "overwrite", default=False, tooltip="Replace a file of this name; off: such a file is an error"
                ),
                EncoderSocket.Input(
                    "encoder", optional=True,
                    tooltip="From Train Defects: the encoder that the defects were learned with",
                ),
            ],
            outputs=[io.String.Output("NAME", display_name="name", tooltip="The library's name in Load Defect's list")],
        )  # fmt: skip

    @classmethod
    def execute(
        cls, library: LoadedLibrary, name: str, overwrite: bool, encoder: LoadedEncoder | None = None
    ) -> io.NodeOutput:
        """Write the encoder first, so that no library waits for its encoder."""
        name = name.strip().removesuffix(SUFFIX)
        path = new_file(LIBRARIES, name, overwrite)
        lines = [_encoder_line(library, name, overwrite, encoder)]
        save_library(path, library.library)
        cls.wrote(path)
        held = ", ".join(entry.name for entry in library.library.defects.values())
        report = "\n".join([f"{place_of(path)}: {held}", *filter(None, lines)])
        return io.NodeOutput(path.name, ui=ui.PreviewText(report))


def _edited(library: Library, name: str, gone: bool, new_name: str, tags: str, **notes: str) -> Library:
    """The library with one defect changed as the fields say; InputError for fields that contradict each other."""
    given = {field: "" if text.strip() == NOTHING else text.strip() for field, text in notes.items() if text.strip()}
    words = None if not tags.strip() else [] if tags.strip() == NOTHING else tags.split(",")
    if not gone:
        return revise(library, name, new_name=new_name or None, notes=given, tags=words)
    if new_name or given or words is not None:
        known = library.get(name).name
        raise InputError(f"{known} is to be removed and to be changed; turn remove off, or empty the other fields")
    return remove(library, [name])


def _encoder_line(library: LoadedLibrary, name: str, overwrite: bool, encoder: LoadedEncoder | None) -> str:
    """See to it that the library's encoder lies in a file, and say in which; empty if it needs none."""
    wanted = library.library.encoder_fingerprint
    if encoder is not None and encoder.fingerprint != wanted:
        needs = f"belongs to {wanted[:8]}" if wanted else "needs none"
        raise InputError(f"the encoder is {encoder.fingerprint[:8]}, the library {needs}; connect what trained it")
    if wanted is None:
        return ""
    there = encoder_holding(wanted)
    if there is not None:
        return f"its encoder: {there}"
    if encoder is None:
        raise InputError(
            f"the library's encoder {wanted[:8]} lies in no file in models/{ENCODERS}, and without it its defects miss "
            "their masks; connect Train Defects' encoder"
        )
    if folder_paths.get_full_path(ENCODERS, f"{name}{SUFFIX}") is not None:  # another library's
        name = f"{name}-{wanted[:8]}"
    path = new_file(ENCODERS, name, overwrite)
    shots = {entry.name: entry.info.get("shots", []) for entry in library.library.defects.values()}
    save_encoder(path, encoder.network, {"shots": shots})
    return f"its encoder: {place_of(path)}"
