"""The real shots of a defect as another network than the base model sees them (METHOD 6)."""

from __future__ import annotations

from dataclasses import replace

from comfy_api.latest import io

from ..adiff.curation import state_of
from ..adiff.errors import InputError
from ..adiff.features import load_features
from ..adiff.scoring import ShotReference, describe
from .files import FEATURES, feature_names, find_features, found_or_why
from .search import found_by
from .sockets import CATEGORY, DatasetSocket, DefectDataset, DefectSocket, LearnedDefect


class DescribeShots(io.ComfyNode):
    """DEFECT + DATASET -> DEFECT."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Declare inputs and outputs."""
        return io.Schema(
            node_id="ADiffDescribeShots",
            display_name="Describe Shots",
            category=f"{CATEGORY}/finish",
            **found_by("DINO", "features", "similarity"),
            description="Has pairs compared with the real shots by a network of yours instead of the model's "
            f"autoencoder. Networks lie in models/{FEATURES}: torchvision's weights, named as resnet50-11ad3fa6.pth, "
            "or folders of Hugging Face's, as of DINOv2.",
            inputs=[
                DefectSocket.Input("defect", tooltip="The defect that is painted"),
                DatasetSocket.Input(
                    "dataset", tooltip="From Load Defect Dataset or Add Shots: the photos that it was learned from"
                ),
                io.Combo.Input("features", options=feature_names(), tooltip="File of the network"),
            ],
            outputs=[
                DefectSocket.Output("DEFECT", display_name="defect", tooltip="For Finish Pair and Filter Pairs"),
                io.String.Output("REPORT", display_name="report", tooltip="How far the shots are from each other"),
            ],
        )  # fmt: skip

    @classmethod
    def validate_inputs(cls, features: str) -> bool | str:
        """Say where the file belongs instead of "value not in list"."""
        return found_or_why(find_features, features)

    @classmethod
    def fingerprint_inputs(cls, features: str) -> str:
        """Run again when the file has changed."""
        path = find_features(features)
        return state_of(path / "model.safetensors" if path.is_dir() else path)

    @classmethod
    def execute(cls, defect: LearnedDefect, dataset: DefectDataset, features: str) -> io.NodeOutput:
        """Look at the shots, on the CPU, where the pairs are looked at too."""
        entry = defect.entry
        if entry.key not in dataset.shots:
            there = ", ".join("/".join(key) for key in dataset.shots)
            raise InputError(f"{dataset.name} holds no shots of {entry.name}; it holds {there}")
        shots, eye = dataset.shots[entry.key], load_features(find_features(features))
        seen = describe(eye, [image for image, _ in shots.pairs], shots.masks)
        reference = ShotReference(entry.shot_masks, seen, eye, shots.files)
        apart = reference.spread
        told = "one alone" if apart is None else f"{apart:.3g} to the nearest other, in the median"
        report = f"{len(seen)} shots of {entry.name} seen by {eye.name} at {eye.layer}: {told}"
        return io.NodeOutput(replace(defect, shots=reference), report)
