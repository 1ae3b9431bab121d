"""The nodes that a graph is built of: schema, adaptation to ComfyUI, one library call each."""

from comfy_api.latest import ComfyExtension, io

from .condition import AnomalyConditioning
from .crop import CropToMask, Stitch
from .dataset import LoadDefectDataset
from .demo import DrawSurface, LoadDemoModel
from .describe import DescribeShots
from .dual import DualSampler, LoadDual
from .evaluate import LoadLocalizer, Localize, ScoreDataset, TrainLocalizer
from .export import ExportPairs
from .filter import FilterPairs
from .finish import FinishPair, SavePairs
from .guidance import FitGuidance
from .library import EditLibrary, LoadLibrary, MergeLibraries, PickDefect, SaveLibrary
from .load import LoadDefect, LoadSpatialEncoder
from .mask import FilterMasks, GenerateMasks, VaryShotMasks
from .paste import PasteBaseline
from .place import PlaceMasks
from .sample import AnomalyKSampler, ApplyReweighting
from .shots import AddShots
from .train import TrainDefects, TrainMasks
from .train_dual import TrainDual


class AnomalyDiffusion(ComfyExtension):
    """The pack."""

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        """Return the nodes in the order in which a graph uses them."""
        return [
            LoadDefect, LoadSpatialEncoder, LoadDemoModel, DrawSurface, GenerateMasks, FilterMasks,
            AnomalyConditioning, ApplyReweighting, AnomalyKSampler, FinishPair, SavePairs,
            LoadDefectDataset, TrainDefects, TrainMasks, LoadLibrary, MergeLibraries, EditLibrary, SaveLibrary,
            PickDefect,
            CropToMask, Stitch, PlaceMasks, FilterPairs,
            TrainDual, LoadDual, DualSampler,
            PasteBaseline, TrainLocalizer, LoadLocalizer, Localize, ScoreDataset,
            ExportPairs, VaryShotMasks, DescribeShots, AddShots, FitGuidance,
        ]  # fmt: skip
