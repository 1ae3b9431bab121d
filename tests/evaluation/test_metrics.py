"""Metrics: worked out by hand, against scikit-learn and torchmetrics, and against their own definitions written out."""

import tracemalloc

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from adiff.errors import InputError
from adiff.evaluation import metrics
from adiff.evaluation.metrics import (
    auroc,
    average_precision,
    f1_max,
    image_metrics,
    image_score,
    pixel_metrics,
    pro,
)

EXACT = {"abs": 1e-6, "rel": 0}


def slow_pro(scores, masks, limit):
    """Bergmann et al.'s definition, curve and all: a point for each threshold, the trapezoids cut off at the limit."""
    parts = []
    for one, mask in zip(scores, masks, strict=True):
        labels, count = ndimage.label(mask, structure=np.ones((3, 3)))
        parts += [one[labels == k] for k in range(1, count + 1)]
    normal = np.concatenate([one[~mask] for one, mask in zip(scores, masks, strict=True)])
    if not parts or not len(normal):
        return None
    thresholds = np.unique(np.concatenate([one.ravel() for one in scores]))[::-1, None]
    rates = [0.0, *(normal >= thresholds).mean(1)]
    overlaps = [0.0, *np.mean([(part >= thresholds).mean(1) for part in parts], axis=0)]
    area = 0.0
    for k in range(len(thresholds)):
        (x0, x1), (y0, y1) = rates[k : k + 2], overlaps[k : k + 2]
        if x0 < limit and x1 > x0:
            end = min(x1, limit)
            area += (end - x0) * (y0 + y0 + (y1 - y0) * (end - x0) / (x1 - x0)) / 2
    return area / limit


def scene(seed, images=2, size=9, levels=None, share=0.2):
    """Random scores and masks; levels: so many different scores, which makes ties."""
    rng = np.random.default_rng(seed)
    masks = rng.random((images, size, size)) < share
    scores = rng.standard_normal((images, size, size)).astype(np.float32) + masks
    return (np.round(scores * levels / 4) if levels else scores).astype(np.float32), masks


def test_by_hand():
    scores, labels = np.array([0.9, 0.8, 0.7, 0.6, 0.5]), np.array([True, False, True, False, False])
    assert auroc(scores, labels) == pytest.approx(5 / 6)  # five of the six pairs are in order
    assert average_precision(scores, labels) == pytest.approx((1 + 2 / 3) / 2)
    assert f1_max(scores, labels) == pytest.approx(4 / 5)  # at 0.7: two found, one false
    ties = np.full(5, 0.5)
    assert auroc(ties, labels) == 0.5 and average_precision(ties, labels) == 0.4 and f1_max(ties, labels) == 4 / 7


def test_pro_by_hand():
    """Regions of 1 and 2 pixels in a row of 7; normal 4. Overlap 1/2 from rate 0, 3/4 from 1/4, 1 from 1/2."""
    mask = np.array([[1, 0, 0, 1, 1, 0, 0]], bool)
    scores = np.array([[0.9, 0.1, 0.2, 0.7, 0.5, 0.8, 0.6]], np.float32)
    assert pro([scores], [mask], limit=1) == pytest.approx((1 / 4) * (1 / 2) + (1 / 4) * (3 / 4) + 1 / 2)
    assert pro([scores], [mask], limit=0.25) == pytest.approx(1 / 2)
    assert pro([scores], [mask], limit=0.3) == pytest.approx((0.25 * 0.5 + 0.05 * 0.75) / 0.3)


@pytest.mark.parametrize("levels", [None, 2, 8])
@pytest.mark.parametrize("share", [0.01, 0.2, 0.97])
@pytest.mark.parametrize("seed", range(3))
def test_against_scikit_learn_and_torchmetrics(seed, share, levels):
    reference = pytest.importorskip("sklearn.metrics")
    torchmetrics = pytest.importorskip("torchmetrics.functional.classification")
    scores, masks = scene(seed, levels=levels, share=share)
    s, y = scores.ravel(), masks.ravel()
    precision, recall, _ = reference.precision_recall_curve(y, s)
    f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-30)
    got = pixel_metrics(scores, masks)
    assert got["pixel_auroc"] == pytest.approx(reference.roc_auc_score(y, s), **EXACT)
    assert got["pixel_ap"] == pytest.approx(reference.average_precision_score(y, s), **EXACT)
    assert got["pixel_f1_max"] == pytest.approx(f1.max(), **EXACT)
    # torchmetrics would squeeze scores outside [0, 1] through a sigmoid, in float32
    ranks = torch.from_numpy(np.unique(s, return_inverse=True)[1] / s.size)
    target = torch.from_numpy(y.astype(np.int64))
    assert got["pixel_auroc"] == pytest.approx(float(torchmetrics.binary_auroc(ranks, target)), **EXACT)
    assert got["pixel_ap"] == pytest.approx(float(torchmetrics.binary_average_precision(ranks, target)), **EXACT)
    assert (auroc(s, y), average_precision(s, y), f1_max(s, y)) == tuple(list(got.values())[:3])


@given(
    seed=st.integers(0, 10**6), levels=st.sampled_from((None, 1, 3, 20)), limit=st.sampled_from((0.05, 0.3, 1.0)),
    share=st.sampled_from((0.003, 0.1, 0.5, 0.95)),
)  # fmt: skip
@settings(deadline=None, max_examples=40)
def test_pro_is_its_definition(seed, levels, limit, share):
    scores, masks = scene(seed, levels=levels, share=share)
    due = slow_pro(scores, masks, limit)
    assert pro(scores, masks, limit) == (None if due is None else pytest.approx(due, **EXACT))


def corners():
    """Two regions that meet at a corner, one whole image, one empty mask."""
    touching = np.zeros((6, 6), bool)
    touching[1:3, 1:3] = touching[3:5, 3:5] = True
    return {
        "touching": [touching],
        "beside": [np.roll(touching, 1, 0) | touching],
        "whole": [touching, np.ones((6, 6), bool)],
        "empty": [touching, np.zeros((6, 6), bool)],
        "one pixel": [np.arange(36).reshape(6, 6) == 17],
        "all but one": [np.arange(36).reshape(6, 6) != 17],
    }


@pytest.mark.parametrize("case", corners())
@pytest.mark.parametrize("tied", [False, True])
def test_pro_of_corner_cases_is_its_definition(case, tied):
    masks = corners()[case]
    rng = np.random.default_rng(0)
    scores = [np.round(rng.random(m.shape), 1 if tied else 9).astype(np.float32) for m in masks]
    assert pro(scores, masks) == pytest.approx(slow_pro(scores, masks, 0.3), **EXACT)


@pytest.mark.parametrize("limit", [0.05, 0.3, 1.0])
@pytest.mark.parametrize("levels", [None, 3])
def test_pro_against_anomalib(limit, levels):
    """anomalib gives 0 where PRO is undefined, and finds no region in a mask that marks the whole image ("whole")."""
    reference = pytest.importorskip("anomalib.metrics.aupro")
    cases = [scene(3, images=4, size=40, levels=levels, share=share) for share in (0.003, 0.2, 0.9)]
    for masks in (np.stack(masks) for name, masks in corners().items() if name != "whole"):
        cases.append((scene(4, images=len(masks), size=6, levels=levels)[0], masks))
    for scores, masks in cases:
        metric = reference._AUPRO(fpr_limit=limit)
        metric.update(torch.from_numpy(scores), torch.from_numpy(masks))
        assert pro(scores, masks, limit) == pytest.approx(float(metric.compute()), **EXACT)


def test_parts_that_touch_at_corners_are_one_region():
    mask = np.zeros((4, 4), bool)
    mask[0, 0] = mask[1, 1] = mask[1, 2] = True
    scores = np.zeros((4, 4), np.float32)
    scores[0, 0] = 1
    alone = (2 / 3) * (0.3 / 2)  # the other two wait for the tie of all normal pixels: a straight line to rate 1
    assert pro([scores], [mask]) == pytest.approx((1 / 3 * 0.3 + alone * 0.3) / 0.3)


def test_chunks_change_nothing(monkeypatch):
    scores, masks = scene(5, images=6, levels=12)
    whole = pixel_metrics(scores, masks)
    monkeypatch.setattr(metrics, "CHUNK", 7)
    assert pixel_metrics(scores, masks) == pytest.approx(whole, abs=1e-12)


def test_images_of_several_sizes_and_precisions():
    (a, m), (b, k) = scene(1, images=1, size=9), scene(2, images=1, size=14)
    both = pixel_metrics([a[0], b[0].astype(np.float64)], [m[0], k[0]])
    flat = np.concatenate([a.ravel().astype(np.float64), b.ravel()]), np.concatenate([m.ravel(), k.ravel()])
    assert both["pixel_auroc"] == pytest.approx(auroc(*flat)) and both["pixel_ap"] == average_precision(*flat)


@pytest.mark.parametrize("all_on", [False, True])
def test_one_class_only_is_undefined(all_on):
    scores, masks = np.random.default_rng(0).random((2, 4, 4)).astype(np.float32), np.full((2, 4, 4), all_on)
    assert set(pixel_metrics(scores, masks).values()) == {None}
    assert pro(scores, masks) is None
    assert set(image_metrics([0.1, 0.2], [all_on] * 2).values()) == {None}
    assert set(pixel_metrics([], []).values()) == {None} and set(image_metrics([], []).values()) == {None}


def test_perfect_and_inverted():
    masks = corners()["empty"]
    scores = [m.astype(np.float32) for m in masks]
    assert set(pixel_metrics(scores, masks).values()) == {1.0}
    inverted = pixel_metrics([-s for s in scores], masks)
    assert inverted["pixel_auroc"] == inverted["pro"] == 0


def test_bad_scores_are_refused():
    scores, masks = scene(0)
    scores[1, 2, 3] = np.nan
    with pytest.raises(InputError, match="1 scores are not finite"):
        pixel_metrics(scores, masks)
    with pytest.raises(InputError, match="2 scores are not finite"):
        image_metrics([np.inf, np.nan, 0], [True, False, False])
    with pytest.raises(ValueError, match=r"\(9, 9\) with labels \(9, 8\)"):
        pro(scores[:1], masks[:1, :, :8])
    with pytest.raises(ValueError, match="uint8"):
        pro(masks.astype(np.uint8), masks)
    with pytest.raises(ValueError, match="limit 0"):
        pro(scores, masks, limit=0)


def test_the_score_of_an_image_is_its_best_pool():
    scores = np.zeros((40, 30), np.float32)
    scores[5:8, 10:12] = 21.0
    assert image_score(scores) == pytest.approx(6 * 21 / 21**2)
    corner = np.zeros((30, 30), np.float32)
    corner[:11, :11] = 1  # all that a pool around the corner pixel sees; beyond the border it sees zeros
    assert image_score(corner) == pytest.approx(121 / 441)
    pooled = torch.nn.functional.avg_pool2d(torch.from_numpy(scores)[None, None], 21, 1, 10)
    assert image_score(scores) == pytest.approx(float(pooled.max()), rel=1e-6)


@pytest.mark.parametrize("share", [0.02, 0.6])
def test_memory_is_at_most_three_times_the_scores(monkeypatch, share):
    monkeypatch.setattr(metrics, "CHUNK", 2**14)  # what is looked up at a time is for larger scores than these
    rng = np.random.default_rng(0)
    scores = rng.random((48, 128, 128), np.float32)
    masks = np.zeros(scores.shape, bool)
    masks[:, : int(128 * share)] = True
    tracemalloc.start()
    pixel_metrics(scores, masks)
    more = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert scores.nbytes + more <= 3 * scores.nbytes
