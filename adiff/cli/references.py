"""Options of `adiff generate` that say by which network pairs are compared with real shots, and with which photos."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from ..errors import InputError
from .options import of_filter

if TYPE_CHECKING:
    from ..generation.run import References
    from ..library import Key, Library

Features = Annotated[
    Path | None,
    of_filter("--features", metavar="FILE", help="Likeness by a network of yours: torchvision's weights, named as "
              "resnet50-11ad3fa6.pth, or a folder of Hugging Face's, as of DINOv2.  [dim]default: the base model's "
              "autoencoder[/dim]"),
]  # fmt: skip
Photos = Annotated[
    Path | None,
    of_filter("--photos", metavar="DATA", help="With [b]--features[/b]: the data that the library was learned from, "
              "for the shots to compare with."),
]  # fmt: skip


def read_references(library: Library, keys: Sequence[Key], features: Path | None, data: Path | None) -> References:
    """The shots of defects as a network sees them, none without one; InputError for what does not fit together.

    They are those that the library records; of a defect for which it records none, all that the data holds.
    """
    if (features is None) != (data is None):
        raise InputError("--features and --photos go together: the network has to see the real shots too")
    if features is None:
        return {}
    from ..datasets.readers import read_dataset, read_shots
    from ..evaluation.splits import split_shots
    from ..features import load_features
    from ..scoring import ShotReference, describe

    eye, found = load_features(features), {}
    for product, defect in dict.fromkeys(keys):
        entry, dataset = library.defects[product, defect], read_dataset(data, [product], [defect])
        shots = list(dataset.shots[product, defect])
        if names := entry.info.get("shots"):
            shots, _ = split_shots(dataset, entry.key, names)
        opened = read_shots(shots)
        seen = describe(eye, [photo.rgb for photo, _ in opened], [mask.mask for _, mask in opened])
        files = tuple(shot.image.relative_to(dataset.root).as_posix() for shot in shots)
        found[entry.key] = ShotReference(entry.shot_masks, seen, eye, files)
    return found
