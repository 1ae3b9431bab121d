"""With an attention that has no gradient (`sage`), the server's or another pack's, the same is learned as without."""

import pytest
import torch

from tests.e2e.checkpoints import running
from tests.e2e.learned import dual_weights, embedding
from tests.e2e.test_training import demo


@pytest.fixture(scope="module")
def sage(comfyui):
    """A server with such an attention."""
    with running(comfyui, "sage.py") as server:
        yield server


def patched(graph):
    of = demo(graph)
    return of | {"model": graph("ProbeNoGradient", model=of["model"])}


def test_embeddings_are_learned(server, sage):
    plain = embedding(server, demo)
    assert all(torch.equal(embedding(sage, of), plain) for of in (demo, patched))


def test_a_dual_model_is_learned(server, sage):
    plain = dual_weights(server, demo)
    for of in (demo, patched):
        other = dual_weights(sage, of)
        assert list(other) == list(plain) and all(torch.equal(other[name], plain[name]) for name in plain)
