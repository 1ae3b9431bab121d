"""Our tokens among others, found by their values (no ComfyUI needed)."""

import importlib.util

import pytest
import torch

from tests.e2e.comfyui import ROOT

HOLE, STAIN = ("0a", "wood/hole"), ("0b", "wood/stain")
"""Fingerprints and names of defects."""


@pytest.fixture
def spans():
    """A fresh nodes/spans.py, without the package around it, which needs ComfyUI."""
    about = importlib.util.spec_from_file_location("spans", ROOT / "nodes" / "spans.py")
    module = importlib.util.module_from_spec(about)
    about.loader.exec_module(module)
    return module


def tokens(count, seed, batch=1):
    return torch.randn(batch, count, 8, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("before", "behind"), [(0, 0), (5, 0), (0, 5), (3, 4)])
def test_ours_are_found_among_others(spans, before, behind):
    ours = tokens(4, 1, batch=2)
    spans.remember(ours, *HOLE)
    context = torch.cat([tokens(before, 2, 2), ours, tokens(behind, 3, 2)], dim=1)
    assert spans.find_span(context) == (before, before + 4)
    assert spans.find_span(context[1:]) == (before, before + 4)


def test_two_of_ours_side_by_side_are_one(spans):
    first, second = tokens(4, 1), tokens(3, 2)
    spans.remember(first, *HOLE)
    spans.remember(second, *HOLE)
    assert spans.find_span(torch.cat([tokens(2, 3), first, second, tokens(2, 4)], dim=1)) == (2, 9)


def test_whose_tokens_they_are_is_told(spans):
    first, second, prompt = tokens(4, 1), tokens(3, 2), tokens(5, 3)
    spans.remember(first, *HOLE)
    spans.remember(second, *STAIN)
    assert spans.defects_in(torch.cat([prompt, second], dim=1)) == dict([STAIN])
    assert spans.defects_in(torch.cat([second, prompt, first, prompt], dim=1)) == dict([STAIN, HOLE])
    assert spans.defects_in(prompt) == spans.defects_in(first + 1e-3) == {}


def test_others_hold_none(spans):
    spans.remember(tokens(4, 1), *HOLE)
    assert spans.find_span(tokens(9, 2)) is None


def test_one_defect_with_and_without_its_place(spans):
    """e_a alone and {e_a, e_s} begin alike; each keeps its length, whichever was made last."""
    short, long = tokens(4, 1), torch.cat([tokens(4, 1), tokens(2, 2)], dim=1)
    prompt = tokens(5, 3)
    for order in ((short, long), (long, short)):
        for one in order:
            spans.remember(one, *HOLE)
        assert spans.find_span(torch.cat([short, prompt], dim=1)) == (0, 4)
        assert spans.find_span(torch.cat([prompt, long], dim=1)) == (5, 11)


def test_half_precision_is_recognised(spans):
    ours = tokens(4, 1).half()
    spans.remember(ours, *HOLE)
    assert spans.find_span(torch.cat([tokens(2, 2).half(), ours], dim=1)) == (2, 6)
