"""A network that says where the defect is, learned from pairs and normal images (METHOD 3, "Localisation").

| symbol | meaning | shape |
|---|---|---|
| x | images, resized to S x S | (B, 3, S, S) in [-1, 1] |
| m | masks | (B, 1, S, S) in {0, 1} |
| p | predicted chance of a defect at each pixel, sigmoid(logits) | (B, 1, S, S) |
| gamma | focusing of the loss | float |

Focal loss (Lin et al., ICCV 2017, Eq. 4, without alpha): -(1 - p_t)^gamma log p_t, p_t = p where m is 1 and 1 - p
elsewhere. The networks themselves are in `networks`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..backbone.precision import AUTO, dtype_of
from ..devices import best_device, device_of
from ..errors import InputError
from ..generation.seeds import derived_seed, rng_for
from ..geometry import resize_image, resize_mask
from ..pixels import as_images
from ..progress import NullProgress, Progress
from .choice import Choice
from .metrics import average_precision
from .networks import GROUPS, NETWORKS, new_network


@dataclass(frozen=True)
class LocalizerSettings:
    """network: of NETWORKS. size: side of its images, pixels, a multiple of 16, of 32 for the larger networks.

    width: channels of its first level, of 8. lr: peak learning rate. real_share: of a batch's pairs, where both real
    and synthetic ones are given. jitter: largest change of brightness and contrast. check_every: steps between two
    looks at the validation pairs. Raises InputError for what is not possible.
    """

    network: str = "small"
    size: int = 128
    width: int | None = None
    steps: int = 400
    batch: int = 8
    lr: float | None = None
    gamma: float = 2.0
    real_share: float = 0.5
    jitter: float = 0.1
    check_every: int = 50

    def __post_init__(self) -> None:
        if self.network not in NETWORKS:
            raise InputError(f"there is no network {self.network!r}; choose from {', '.join(NETWORKS)}")
        kind = NETWORKS[self.network]
        for name in ("width", "lr"):  # each network has its own
            if getattr(self, name) is None:
                object.__setattr__(self, name, getattr(kind, name))
        if self.size % kind.multiple or self.size < kind.multiple or self.width < GROUPS or self.width % GROUPS:
            due = f"expected multiples of {kind.multiple} and of {GROUPS}"
            raise InputError(f"size {self.size}, width {self.width} for the network {self.network}; {due}")
        if min(self.steps, self.check_every) < 1 or self.batch < 2:
            raise InputError(f"{self.steps} steps of {self.batch}; expected at least 1 step, batches of at least 2")


class Example(NamedTuple):
    """image: (H, W, 3) uint8. mask: (H, W) bool."""

    image: np.ndarray
    mask: np.ndarray

    def resized(self, size: int) -> Example:
        """The same at size x size pixels."""
        return Example(resize_image(self.image, size, size), resize_mask(self.mask, size, size))


def focal_loss(logits: Tensor, m: Tensor, gamma: float) -> Tensor:
    """Mean focal loss over all pixels; logits and m: the same shape."""
    cross_entropy = F.binary_cross_entropy_with_logits(logits, m, reduction="none")
    p = logits.sigmoid()
    return ((p * (1 - m) + (1 - p) * m) ** gamma * cross_entropy).mean()  # the factor is 1 - p_t


@dataclass(frozen=True, eq=False)
class Trained:
    """network: in the state that is kept. step: that state's. curve: (step, mean AP of the validation pairs).

    kind, width: what `networks.new_network` made it of.
    """

    network: nn.Module
    size: int
    step: int
    curve: tuple[tuple[int, float], ...]
    kind: str = "small"
    width: int = 16


def train_localizer(
    real: Sequence[Example],
    synthetic: Sequence[Example],
    normals: Sequence[np.ndarray],
    validation: Sequence[Example] = (),
    *,
    settings: LocalizerSettings | None = None,
    seed: int = 0,
    device: torch.device | str | None = None,
    progress: Progress | None = None,
) -> Trained:
    """Train on pairs, real or synthetic or both, and normal images (H, W, 3) uint8, half a batch each.

    validation: pairs; of the states that are as good on them as the best one the latest is kept (`Choice`). Without
    them the last state is. device: default: the GPU if there is one; the network stays there. Raises InputError without
    any pair or any normal image. Cancelled goes through: nothing is kept. Learns in bfloat16 where the device computes
    in it.
    """
    settings, progress = settings or LocalizerSettings(), progress or NullProgress()
    if not normals or not (real or synthetic):
        raise InputError(f"{len(real) + len(synthetic)} pairs and {len(normals)} normal images; give at least one each")
    size = settings.size
    pools = [_prepare(pool, size) for pool in (real, synthetic) if pool]
    shares = [1.0] if len(pools) == 1 else [settings.real_share, 1 - settings.real_share]
    plain = np.stack([resize_image(image, size, size) for image in normals])
    held = _prepare(validation, size) if validation else None
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derived_seed(seed, "localizer"))
        network = new_network(settings.network, settings.width)
    network.to(device or best_device())
    optimiser = torch.optim.AdamW(network.parameters(), settings.lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, settings.steps)
    where, rng, curve, choice = device_of(network), rng_for(seed, "batches"), [], Choice()
    narrow = dtype_of(AUTO, where) == torch.bfloat16
    progress.start(settings.steps, "localizer")
    for step in range(1, settings.steps + 1):
        x, m = _batch(pools, shares, plain, settings, rng)
        network.train()
        with torch.autocast(where.type, torch.bfloat16, enabled=narrow):
            logits = network(x.to(where))
        loss = focal_loss(logits.float(), m.to(where), settings.gamma)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        if held is not None and (step % settings.check_every == 0 or step == settings.steps):
            found = _validate(network, *held)
            curve.append((step, float(found.mean())))
            choice.look(step, found, network)
        progress.update(step, loss=loss.item())
    progress.finish()
    if choice.state:
        network.load_state_dict(choice.state)
    network.eval().requires_grad_(False)
    return Trained(network, size, choice.step or settings.steps, tuple(curve), settings.network, settings.width)


def _prepare(pool: Sequence[Example], size: int) -> tuple[np.ndarray, np.ndarray]:
    """Images (n, S, S, 3) uint8 and masks (n, S, S) bool."""
    images, masks = zip(*(one.resized(size) for one in pool), strict=True)
    return np.stack(images), np.stack(masks)


def _batch(
    pools: Sequence[tuple[np.ndarray, np.ndarray]], shares: Sequence[float], plain: np.ndarray,
    settings: LocalizerSettings, rng: np.random.Generator,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """A random batch, flipped, turned by quarters, changed in brightness and contrast."""
    images, masks = [], []
    for place in range(settings.batch):
        if place % 2:
            image, mask = plain[rng.integers(len(plain))], np.zeros((settings.size, settings.size), bool)
        else:
            of_images, of_masks = pools[rng.choice(len(pools), p=shares)]
            index = rng.integers(len(of_images))
            image, mask = of_images[index], of_masks[index]
        turns, flip = int(rng.integers(4)), bool(rng.integers(2))
        image, mask = (np.rot90(array[:, ::-1] if flip else array, turns) for array in (image, mask))
        images.append(image)
        masks.append(mask)
    x = as_images(np.stack(images))
    gain, shift = (torch.from_numpy(rng.uniform(-settings.jitter, settings.jitter, (len(x), 1, 1, 1))).float()
                   for _ in range(2))  # fmt: skip
    return x * (1 + gain) + shift, torch.from_numpy(np.stack(masks))[:, None].float()


@torch.no_grad()
def _validate(network: nn.Module, images: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """Pixel AP of each prepared pair, (n,); 0 where its mask is empty or full."""
    network.eval()
    where = device_of(network)
    scores = (network(as_images(image[None]).to(where)).cpu().numpy().ravel() for image in images)
    return np.array([average_precision(own, mask.ravel()) or 0.0 for own, mask in zip(scores, masks, strict=True)])


@torch.no_grad()
def score(trained: Trained, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Score an image (H, W, 3) uint8 of any size: p at the network's size (S, S) and at the image's (H, W), float32."""
    small = resize_image(image, trained.size, trained.size)
    p = trained.network(as_images(small[None]).to(device_of(trained.network))).sigmoid().cpu()
    large = F.interpolate(p, size=image.shape[:2], mode="bilinear", align_corners=False)
    return p[0, 0].numpy(), large[0, 0].numpy()


Scorer = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
"""Image (H, W, 3) uint8 -> scores at the detector's own size and at the image's."""
