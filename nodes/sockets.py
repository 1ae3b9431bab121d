"""What travels on our own sockets, one frozen dataclass each, and the menu's category.

Preview Any shows what `str` says of it, and ComfyUI sends that to the page with every error: never the numbers inside.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from comfy_api.latest import io
from torch import Tensor

from ..adiff.crops import Crop
from ..adiff.learning import Shots
from ..adiff.library import Defect, Key, Library
from ..adiff.scoring import ShotReference
from ..adiff.spatial_encoder import SpatialEncoder

if TYPE_CHECKING:
    from ..adiff.dual import DualModel
    from ..adiff.evaluation.localizer import Trained

CATEGORY = "anomaly diffusion"

DefectSocket = io.Custom("ADIFF_DEFECT")
EncoderSocket = io.Custom("ADIFF_ENCODER")
DatasetSocket = io.Custom("ADIFF_DATASET")
LibrarySocket = io.Custom("ADIFF_LIBRARY")
LocalizerSocket = io.Custom("ADIFF_LOCALIZER")
CropSocket = io.Custom("ADIFF_CROP")
DualSocket = io.Custom("ADIFF_DUAL")
IN_GRAPH = "this graph"
"""The source of what was learned here and lies in no file yet."""


def base_inputs(model: str, empty: str) -> list[io.Input]:
    """The inputs of a node that works on a whole base model; model, empty: what these are for, in words."""
    return [
        io.Model.Input("model", tooltip=f"The SD 1.x model {model}"),
        io.Vae.Input("vae", tooltip="The model's VAE"),
        io.Conditioning.Input("empty", tooltip=f"The empty prompt, for {empty}"),
    ]


def seed_input(tooltip: str, renewed: bool = True) -> io.Input:
    """A seed. renewed: it is another one when the graph is run again; one of a training stays, so a cancelled one goes
    on.
    """
    most = 0xFFFFFFFFFFFFFFFF if renewed else 0xFFFFFFFF
    return io.Int.Input("seed", default=0, min=0, max=most, control_after_generate=renewed, tooltip=tooltip)


def training_seed() -> io.Input:
    """The seed of a training."""
    return seed_input("The same seed and inputs learn the same", renewed=False)


def preview_input(every: int) -> io.Input:
    """How often a training shows what it has learned."""
    return io.Int.Input(
        "preview_every", default=every, min=0, max=10_000, tooltip="Steps between live previews; 0 shows none"
    )


@dataclass(frozen=True, eq=False)
class LearnedDefect:
    """source: the library's name in the list; library: all of it; entry: the defect chosen.

    shots: what its pairs are compared with, if not what the library says of them.
    """

    source: str
    library: Library
    entry: Defect
    shots: ShotReference | None = None

    def __str__(self) -> str:
        return f"{self.entry.name} of {self.source}"


@dataclass(frozen=True, eq=False)
class LoadedEncoder:
    """name: in the list; network: E; fingerprint: sha256 of its weights."""

    name: str
    network: SpatialEncoder
    fingerprint: str

    def __str__(self) -> str:
        return f"{self.name} @{self.fingerprint[:8]}"


@dataclass(frozen=True, eq=False)
class DefectDataset:
    """name: in the list; shots: opened, of each defect."""

    name: str
    shots: Mapping[Key, Shots]

    def __str__(self) -> str:
        return f"{self.name}: " + ", ".join("/".join(key) for key in self.shots)


@dataclass(frozen=True, eq=False)
class LoadedLocalizer:
    """source: the file's name in the list, or IN_GRAPH; trained: the network and what it was trained at."""

    source: str
    trained: Trained

    def __str__(self) -> str:
        return f"{self.source}, {self.trained.kind} at {self.trained.size} pixels"


@dataclass(frozen=True, eq=False)
class LoadedLibrary:
    """source: the library's name in the list, or IN_GRAPH; library: all of it."""

    source: str
    library: Library

    def __str__(self) -> str:
        return f"{self.source}: " + ", ".join(entry.name for entry in self.library.defects.values())


@dataclass(frozen=True, eq=False)
class CroppedPhotos:
    """photos: IMAGE (B, H, W, 3); crops: the views of each photo, one or more; size: pixels of a view's side."""

    photos: Tensor
    crops: tuple[tuple[Crop, ...], ...]
    size: int

    def __str__(self) -> str:
        return f"{sum(map(len, self.crops))} crops of {self.size} pixels, of {len(self.photos)} photos"


@dataclass(frozen=True, eq=False)
class LoadedDual:
    """source: the file's name in the list; model: what it holds."""

    source: str
    model: DualModel

    def __str__(self) -> str:
        return f"{self.model.name} of {self.source}"
