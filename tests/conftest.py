"""A base model of the real architecture that is small and random, and what the parts learned on it look like."""

import logging
import os

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel

from adiff.backbone.diffusers_host import DiffusersBackbone
from adiff.backbone.loading import Parts
from adiff.datasets.images import write_png
from adiff.progress import Cancelled
from adiff.spatial_encoder import SpatialEncoder
from adiff.training.views import VIEWS

SIZE, CONTEXT = 64, 768
WORKERS = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
if WORKERS > 1:  # each, with the commands that it starts, has its share of the cores
    torch.set_num_threads(max(1, torch.get_num_threads() // WORKERS))
    os.environ["OMP_NUM_THREADS"] = str(torch.get_num_threads())


def build_parts(seed=0, channels=(32, 64), heads=2):
    """A U-Net of two levels, an autoencoder of four, 64 pixels, and a null context of 12 tokens."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        unet = UNet2DConditionModel(
            sample_size=SIZE // 8,
            block_out_channels=channels,
            layers_per_block=1,
            down_block_types=("CrossAttnDownBlock2D",) * len(channels),
            up_block_types=("CrossAttnUpBlock2D",) * len(channels),
            attention_head_dim=heads,
            cross_attention_dim=CONTEXT,
        )
        vae = AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            block_out_channels=(8, 8, 16, 16),
            layers_per_block=1,
            latent_channels=4,
            norm_num_groups=8,
            sample_size=SIZE,
        )
        return Parts(unet, vae, torch.randn(1, 12, CONTEXT))


@pytest.fixture(autouse=True)
def logging_as_it_was():
    """A command that runs in this process takes the messages for itself."""
    yield
    logger = logging.getLogger("adiff")
    logger.handlers, logger.propagate = [], True
    logger.setLevel(logging.NOTSET)


@pytest.fixture(scope="session")
def tiny_parts():
    """A maker of new parts, for tests that change them: `tiny_parts(seed=0)`."""
    return build_parts


@pytest.fixture(scope="session")
def text_encoder():
    """SD 1.x's text encoder with one layer of its twelve; nothing may change it."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = CLIPTextConfig(vocab_size=49408, hidden_size=CONTEXT, intermediate_size=3072, num_hidden_layers=1,
                                num_attention_heads=12, hidden_act="quick_gelu", projection_dim=CONTEXT)  # fmt: skip
        return CLIPTextModel(config).eval()


@pytest.fixture(scope="session")
def diffusers_folder(text_encoder, tmp_path_factory):
    """The tiny base model of seed 1 as a diffusers folder; nothing may change it."""
    path, parts = tmp_path_factory.mktemp("saved"), build_parts(1)
    for name, part in (("unet", parts.unet), ("vae", parts.vae), ("text_encoder", text_encoder)):
        part.save_pretrained(path / name)
    return path


@pytest.fixture(scope="session")
def backbone():
    """The tiny base model; nothing may change it."""
    return DiffusersBackbone("tiny", build_parts(), torch.device("cpu"), torch.float32)


@pytest.fixture
def large_backbone(backbone, monkeypatch):
    """The tiny base model as one that is not small, with the empty prompt of a text encoder."""
    monkeypatch.setattr(backbone, "native_size", 256)
    monkeypatch.setattr(backbone, "null_context", 20 * torch.randn(1, 77, CONTEXT))
    return backbone


@pytest.fixture
def small_card(backbone, monkeypatch):
    """Lets the tiny base model have no memory for more than `most` pictures or samples; tells how many it was given."""

    def limit(most, *names):
        given = []

        def limited(name):
            whole = getattr(type(backbone), name)

            def call(self, first, *more, **how):
                given.append(len(first))
                if len(first) > most:
                    raise torch.cuda.OutOfMemoryError("not this much")
                return whole(self, first, *more, **how)

            return call

        for name in names:
            monkeypatch.setattr(type(backbone), name, limited(name))
        return given

    return limit


@pytest.fixture
def encoder():
    return SpatialEncoder("small")


def box_mask(top=20, left=24, height=16, width=20, size=SIZE):
    mask = np.zeros((size, size), bool)
    mask[top : top + height, left : left + width] = True
    return mask


@pytest.fixture(scope="session")
def make_mask():
    """A maker of rectangles: `make_mask(top, left, height, width, size)`."""
    return box_mask


@pytest.fixture(scope="session")
def shots():
    """Two defects with 2 and 1 shots."""
    rng = np.random.default_rng(0)

    def shot(top):
        image, mask = rng.integers(90, 110, (SIZE, SIZE, 3), np.uint8), box_mask(top)
        image[mask] = 230
        return image, mask

    return {("metal", "hole"): [shot(10), shot(30)], ("wood", "stain"): [shot(20)]}


class Stopper:
    """A listener that stops the work once `after` steps are done, and remembers what it was told.

    What comes before the steps, views that are encoded, does not count.
    """

    def __init__(self, after=None):
        self.after, self.told, self.ended, self.before = after, [], False, False

    def start(self, total, what):
        self.total, self.before = total, what == VIEWS

    def update(self, done, **info):
        if self.before:
            return
        self.told.append((done, info))
        if done == self.after:
            raise Cancelled

    def finish(self):
        self.ended = True


@pytest.fixture
def stopper():
    return Stopper


@pytest.fixture
def normals(tmp_path):
    """Three files of noise."""
    rng = np.random.default_rng(1)
    paths = [tmp_path / "normals" / f"{i}.png" for i in range(3)]
    for path in paths:
        write_png(path, rng.integers(0, 255, (SIZE, SIZE, 3), np.uint8))
    return paths
