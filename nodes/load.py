"""Load a learned defect, load a spatial encoder."""

from __future__ import annotations

from comfy_api.latest import io

from ..adiff.curation import state_of
from ..adiff.spatial_encoder import load_encoder
from .files import BUILT_IN, defect_labels, encoder_names, encoder_path, find_defect, found_or_why, learned_state
from .search import found_by
from .sockets import CATEGORY, DefectSocket, EncoderSocket, LoadedEncoder


class LoadDefect(io.ComfyNode):
    """One list over all libraries."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Declare inputs and outputs."""
        return io.Schema(
            node_id="ADiffLoadDefect",
            display_name="Load Defect",
            category=f"{CATEGORY}/load",
            **found_by("AnomalyDiffusion", "textual inversion", "embedding"),
            description="A defect that was learned from a few photos. Libraries lie in models/adiff_libraries.",
            inputs=[
                io.Combo.Input(
                    "defect", options=defect_labels(),
                    tooltip="library / product / defect; of your own ones with the first digits of the fingerprint",
                )
            ],
            outputs=[DefectSocket.Output("DEFECT", display_name="defect", tooltip="The learned defect")],
        )  # fmt: skip

    @classmethod
    def validate_inputs(cls, defect: str) -> bool | str:
        """Say which library is missing instead of "value not in list"."""
        return found_or_why(find_defect, defect)

    @classmethod
    def fingerprint_inputs(cls, defect: str) -> str:
        """Run again when what was learned has changed, but not for a note or another defect of its library."""
        return learned_state(find_defect(defect))

    @classmethod
    def execute(cls, defect: str) -> io.NodeOutput:
        """Open the library."""
        return io.NodeOutput(find_defect(defect))


class LoadSpatialEncoder(io.ComfyNode):
    """The network that turns a mask into tokens."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Declare inputs and outputs."""
        return io.Schema(
            node_id="ADiffLoadSpatialEncoder",
            display_name="Load Spatial Encoder",
            category=f"{CATEGORY}/load",
            **found_by("AnomalyDiffusion", "mask encoder"),
            description="The encoder that tells the model where the mask is. It belongs to the defects that were "
            "learned with it. Encoders lie in models/adiff_encoders.",
            inputs=[
                io.Combo.Input("encoder", options=encoder_names(), default=BUILT_IN, tooltip="File of the encoder")
            ],
            outputs=[EncoderSocket.Output("ENCODER", display_name="encoder", tooltip="The spatial encoder E")],
        )

    @classmethod
    def validate_inputs(cls, encoder: str) -> bool | str:
        """Say where the file belongs: ComfyUI does not check the choice."""
        return found_or_why(encoder_path, encoder)

    @classmethod
    def fingerprint_inputs(cls, encoder: str) -> str:
        """Run again when the file has changed."""
        return state_of(encoder_path(encoder))

    @classmethod
    def execute(cls, encoder: str) -> io.NodeOutput:
        """Open the encoder."""
        network, about = load_encoder(encoder_path(encoder))
        return io.NodeOutput(LoadedEncoder(encoder, network, about["fingerprint"]))
