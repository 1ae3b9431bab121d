"""What travels on our own sockets, one frozen dataclass each, and the menu's category."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from comfy_api.latest import io

from ..adiff.learning import Shots
from ..adiff.library import Defect, Key, Library
from ..adiff.spatial_encoder import SpatialEncoder

CATEGORY = "anomaly diffusion"

DefectSocket = io.Custom("ADIFF_DEFECT")
EncoderSocket = io.Custom("ADIFF_ENCODER")
DatasetSocket = io.Custom("ADIFF_DATASET")
LibrarySocket = io.Custom("ADIFF_LIBRARY")
IN_GRAPH = "this graph"
"""The source of what was learned here and lies in no file yet."""


def base_inputs(model: str, empty: str) -> list[io.Input]:
    """The inputs of a node that works on a whole base model; model, empty: what these are for, in words."""
    return [
        io.Model.Input("model", tooltip=f"The SD 1.x model {model}"),
        io.Vae.Input("vae", tooltip="The model's VAE"),
        io.Conditioning.Input("empty", tooltip=f"The empty prompt, for {empty}"),
    ]


@dataclass(frozen=True, eq=False)
class LearnedDefect:
    """source: the library's name in the list; library: all of it; entry: the defect chosen."""

    source: str
    library: Library
    entry: Defect


@dataclass(frozen=True, eq=False)
class LoadedEncoder:
    """name: in the list; network: E; fingerprint: sha256 of its weights."""

    name: str
    network: SpatialEncoder
    fingerprint: str


@dataclass(frozen=True, eq=False)
class DefectDataset:
    """name: in the list; shots: opened, of each defect."""

    name: str
    shots: Mapping[Key, Shots]


@dataclass(frozen=True, eq=False)
class LoadedLibrary:
    """source: the library's name in the list, or IN_GRAPH; library: all of it."""

    source: str
    library: Library
