"""What travels on our own sockets, one frozen dataclass each, and the menu's category."""

from __future__ import annotations

from dataclasses import dataclass

from comfy_api.latest import io

from ..adiff.library import Defect, Library
from ..adiff.spatial_encoder import SpatialEncoder

CATEGORY = "anomaly diffusion"

DefectSocket = io.Custom("ADIFF_DEFECT")
EncoderSocket = io.Custom("ADIFF_ENCODER")


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
