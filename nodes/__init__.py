"""The nodes that a graph is built of: schema, adaptation to ComfyUI, one library call each."""

from comfy_api.latest import ComfyExtension, io

from .condition import AnomalyConditioning
from .demo import DrawSurface, LoadDemoModel
from .finish import FinishPair, SavePairs
from .load import LoadDefect, LoadSpatialEncoder
from .mask import FilterMasks, GenerateMasks
from .sample import AnomalyKSampler, ApplyReweighting


class AnomalyDiffusion(ComfyExtension):
    """The pack."""

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        """Return the nodes in the order in which a graph uses them."""
        return [
            LoadDefect, LoadSpatialEncoder, LoadDemoModel, DrawSurface, GenerateMasks, FilterMasks,
            AnomalyConditioning, ApplyReweighting, AnomalyKSampler, FinishPair, SavePairs,
        ]  # fmt: skip
