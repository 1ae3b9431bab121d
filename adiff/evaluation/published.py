"""Inception Score and IC-LPIPS as published: torch-fidelity's Inception-v3, and lpips on VGG-16.

| symbol | meaning | shape |
|---|---|---|
| f_l | features of stage l, of length 1 at each place | (C, h, w) |
| w_l | the learned weights of stage l's channels | (C,) |

Inception Score: exp(E KL(p(y|x) || p(y))) (Salimans et al., NeurIPS 2016, sec. 4). LPIPS: sum over stages of the mean
over places of w_l (f_l - f_l')^2 (Zhang et al., CVPR 2018, Eq. 1); IC-LPIPS: its mean within clusters around the
nearest shot (Ojha et al., CVPR 2021, sec. 4.1, with VGG-16 as in their release). The packages are the optional extra
`quality`. Weights come from files of the user's or, once, from where the packages take them; w_l are part of lpips.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from ..datasets.readers import Shot
from ..devices import best_device, device_of
from ..errors import InputError
from ..geometry import resize_image
from ..pixels import as_images
from ..progress import NullProgress, Progress
from ..tensor_files import read_pickled, sha256_of
from .material import Run, open_examples
from .quality import Features, RunFeatures, cluster_distance, parts_for

PACKAGES = ("torch-fidelity", "lpips", "torchvision")
LAYER = "logits_unbiased"
"""What torch-fidelity takes the Inception Score from."""
NET = "vgg"
VGG_URL = "https://download.pytorch.org/models/vgg16-397923af.pth"
"""Where torchvision, and so lpips, takes VGG-16 from."""
OTHERWISE = "or --features FILE for the same formulas on a ResNet-34 of yours, recorded under another name"


class InceptionReader:
    """What torch-fidelity's Inception-v3 tells of an image; weights: its file."""

    def __init__(self, weights: Path):
        read_pickled(weights)  # torch-fidelity would unpickle anything: let it see weights only
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

        try:
            self._network = FeatureExtractorInceptionV3("inception", [LAYER], str(weights)).to(best_device())
        except RuntimeError as error:
            reason = " ".join(str(error).split())[:80]
            raise InputError(
                f"{weights} does not hold torch-fidelity's Inception-v3 ({reason}); give the file that it downloads"
            ) from None

    @torch.no_grad()
    def __call__(self, image: np.ndarray) -> Tensor:
        """Image (H, W, 3) uint8 -> logits (1008,), on the CPU."""
        levels = torch.from_numpy(image.copy()).to(device_of(self._network))
        return self._network(rearrange(levels, "h w c -> 1 c h w"))[0][0].cpu()


class LpipsReader:
    """LPIPS in two steps, so that an image's features serve all its distances.

    weights: torchvision's file of the net. size: what images are resized to, pixels; at 256 an image's features take
    32 MB, those of a cluster of 50 take 1.6 GB.
    """

    def __init__(self, weights: Path, size: int = 256, net: str = NET):
        import lpips

        self.size, self._normalize = size, lpips.normalize_tensor
        # pnet_rand: without it the trunk is downloaded here; its own is put in below
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # lpips calls torchvision in an old way
            self.whole = lpips.LPIPS(net=net, pnet_rand=True, verbose=False)
        self.whole.net.load_state_dict(_trunk(weights, self.whole.net))
        self.whole.to(best_device()).eval().requires_grad_(False)
        self._weights = [lin.model[-1].weight[0] for lin in self.whole.lins]

    @torch.no_grad()
    def __call__(self, image: np.ndarray) -> Features:
        """Image (H, W, 3) uint8 -> f of each stage."""
        x = as_images(resize_image(image, self.size, self.size))[None].to(device_of(self.whole))
        return tuple(self._normalize(stage)[0] for stage in self.whole.net(self.whole.scaling_layer(x)))

    def distance(self, a: Features, b: Features) -> float:
        """LPIPS of two images by their features."""
        stages = zip(a, b, self._weights, strict=True)
        return float(sum(((one - other).square() * w).sum(0).mean() for one, other, w in stages))


def measure_published(
    runs: Sequence[Run],
    shots: Sequence[Shot],
    *,
    inception: Path | None = None,
    vgg: Path | None = None,
    size: int = 256,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Inception Score and IC-LPIPS of runs' images, clustered by the shots that taught; the record.

    inception, vgg: files of weights; None: torch-fidelity's and torchvision's own, downloaded once. size: of LPIPS'
    images, pixels. Raises InputError where a package or weights are not to be had.
    """
    check_packages()
    from torch_fidelity.feature_extractor_inceptionv3 import URL_INCEPTION_V3
    from torch_fidelity.metric_isc import KEY_METRIC_ISC_MEAN, KEY_METRIC_ISC_STD, isc_features_to_metric

    progress = progress or NullProgress()
    files = {
        "inception": weights_file(inception, URL_INCEPTION_V3, "Inception-v3", "--inception"),
        "vgg": weights_file(vgg, VGG_URL, "VGG-16", "--lpips"),
    }
    told, classes, reader = {}, InceptionReader(files["inception"]), LpipsReader(files["vgg"], size)
    real = [reader(example.image) for example in open_examples(shots)]

    def features_of(number: int, image: np.ndarray) -> Features:
        if number not in told:
            told[number] = classes(image)
        return reader(image)

    distance, sizes = cluster_distance(RunFeatures(runs, features_of, progress), real, reader.distance)
    progress.finish()
    parts = parts_for(len(told))
    logits = torch.stack([told[number] for number in range(len(told))])
    score = isc_features_to_metric(logits, splits=parts)
    return {
        "inception_score": score[KEY_METRIC_ISC_MEAN],
        "inception_score_deviation": score[KEY_METRIC_ISC_STD] if parts > 1 else None,
        "parts": parts, "ic_lpips": distance, "clusters": sizes, "images": len(told), "size": size,
        "networks": {name: {"file": path.name, "sha256": sha256_of(path)} for name, path in files.items()},
        "packages": {name: version(name) for name in PACKAGES},
    }  # fmt: skip


def check_packages() -> None:
    """Raise InputError unless the optional packages are there."""
    try:
        import lpips  # noqa: F401
        import torch_fidelity  # noqa: F401
    except ImportError as error:
        raise InputError(
            f"IS and IC-LPIPS need torch-fidelity and lpips ({error}); pip install 'anomaly-diffusion[quality]', "
            f"{OTHERWISE}"
        ) from None


def weights_file(given: Path | None, url: str, what: str, option: str) -> Path:
    """The user's file, or the one that was downloaded from `url`, now or before.

    Raises FileNotFoundError for a file that is not there, InputError if nothing can be downloaded.
    """
    if given is not None:
        if not given.is_file():
            raise FileNotFoundError(f"there is no file of weights at {given}")
        return given
    name = url.rpartition("/")[2]
    path = Path(torch.hub.get_dir()) / "checkpoints" / name
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        digest = re.search(r"-([0-9a-f]{8,})\.", name)
        try:
            torch.hub.download_url_to_file(url, str(path), digest[1] if digest else None, progress=False)
        except (OSError, RuntimeError) as error:  # no network, or another file than the name's digest says
            raise InputError(
                f"the weights of {what} could not be had from {url} ({' '.join(str(error).split())[:80]}); give them "
                f"with {option} FILE, {OTHERWISE}"
            ) from None
    return path


def _trunk(weights: Path, net: torch.nn.Module) -> dict[str, Tensor]:
    """torchvision's weights under lpips' names: slice2.5.weight is features.5.weight; InputError for another file."""
    state = read_pickled(weights)
    names = {name: f"features.{name.partition('.')[2]}" for name in net.state_dict()}
    due = {name: tensor.shape for name, tensor in net.state_dict().items()}
    if not isinstance(state, dict) or any(
        getattr(state.get(theirs), "shape", None) != due[name] for name, theirs in names.items()
    ):
        raise InputError(f"{weights} does not hold torchvision's network that LPIPS looks through; give vgg16's file")
    return {name: state[theirs] for name, theirs in names.items()}
