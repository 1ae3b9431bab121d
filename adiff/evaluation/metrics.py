"""Metrics of anomaly scores, exact over every threshold: AUROC, AP, F1-max and PRO (METHOD 3).

| symbol | meaning | shape |
|---|---|---|
| s | anomaly scores, higher is more anomalous | one image's: (H, W) floating, finite |
| n | scores of all normal pixels (or images), in rising order | (N,) |
| p | scores of all anomalous ones | (P,) |
| w | weight of each p, together 1 | (P,) |
| above, least | how many n lie above a p, and at or above it | (P,) int |

Every metric here is a sum or a maximum over p alone, because recall, the overlap with a region and their best balance
change at no other threshold: so n is sorted, p is looked up in it, and no curve is ever built. Ties count as the
trapezoid over the common threshold does. A metric that is not defined (nothing anomalous, or nothing normal) is None.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from scipy import ndimage

from ..errors import InputError
from ..geometry import EIGHT, mask_box

FPR_LIMIT = 0.3
"""False positive rate up to which PRO is integrated (Bergmann et al., IJCV 2021, sec. 6.1)."""
CHUNK = 2**17
"""Anomalous pixels that are looked up at a time: they bound the memory beyond a copy of the scores."""
POOL = 21
"""Side of the average pool under an image's score, pixels (the release)."""


def auroc(scores: np.ndarray, labels: np.ndarray) -> float | None:
    """Area under the ROC curve: the chance that an anomalous score exceeds a normal one, ties counting half.

    scores: (n,) floating. labels: (n,) bool, True = anomalous. None unless there are both.
    """
    n, p = _parted(scores, labels)
    return _auroc(n, p) if len(n) and len(p) else None


def average_precision(scores: np.ndarray, labels: np.ndarray) -> float | None:
    """Average precision, the sum over thresholds of the recall's gain times the precision; None as for `auroc`."""
    n, p = _parted(scores, labels)
    return _precision_and_f1(n, p)[0] if len(n) and len(p) else None


def f1_max(scores: np.ndarray, labels: np.ndarray) -> float | None:
    """Largest F1, 2 TP / (2 TP + FP + FN), over all thresholds; None as for `auroc`."""
    n, p = _parted(scores, labels)
    return _precision_and_f1(n, p)[1] if len(n) and len(p) else None


def pro(scores: Sequence[np.ndarray], masks: Sequence[np.ndarray], limit: float = FPR_LIMIT) -> float | None:
    """Per-region overlap (Bergmann et al., IJCV 2021, sec. 6.1): area under mean overlap against false positive rate.

    Regions are the 8-connected parts of each image's mask; the rate is that of all pixels outside masks; the area up to
    `limit` is divided by it. scores: (H, W) each; masks: (H, W) bool. None without any region or any normal pixel.
    """
    if not 0 < limit <= 1:
        raise ValueError(f"limit {limit}; expected a false positive rate above 0, at most 1")
    return _pro(_sorted_pixels(scores, masks, False), scores, masks, limit)


def pixel_metrics(
    scores: Sequence[np.ndarray], masks: Sequence[np.ndarray], limit: float = FPR_LIMIT
) -> dict[str, float | None]:
    """AUROC, AP and F1-max over the pixels of all images together, and PRO; the images may differ in size.

    scores: (H, W) floating each, finite (InputError). masks: (H, W) bool. Returns pixel_auroc, pixel_ap, pixel_f1_max
    and pro, None where undefined. Needs little more memory than a second copy of the scores.
    """
    n, p = _sorted_pixels(scores, masks, False), _sorted_pixels(scores, masks, True)
    if not len(n) or not len(p):
        return dict.fromkeys(("pixel_auroc", "pixel_ap", "pixel_f1_max", "pro"))
    precision, f1 = _precision_and_f1(n, p)
    area = _auroc(n, p)
    del p
    return {"pixel_auroc": area, "pixel_ap": precision, "pixel_f1_max": f1, "pro": _pro(n, scores, masks, limit)}


def image_metrics(scores: Sequence[float] | np.ndarray, labels: Sequence[bool] | np.ndarray) -> dict[str, float | None]:
    """AUROC, AP and F1-max over images, as image_auroc, image_ap and image_f1_max, None where undefined.

    scores: (n,), one an image (`image_score`). labels: (n,), True = anomalous.
    """
    one, on = np.asarray(scores, np.float64), np.asarray(labels, bool)
    values = auroc(one, on), average_precision(one, on), f1_max(one, on)
    return dict(zip(("image_auroc", "image_ap", "image_f1_max"), values, strict=True))


def image_score(scores: np.ndarray, pool: int = POOL) -> float:
    """Score of an image: the largest average of its pixels' scores over pool x pool, zeros beyond the border.

    As the release: one hot pixel makes no defect. scores: (H, W). pool: pixels, odd.
    """
    return float(ndimage.uniform_filter(scores.astype(np.float64), pool, mode="constant").max())


def _parted(scores: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """n and p of flat scores, each in rising order."""
    scores, on = np.asarray(scores), np.asarray(labels).astype(bool)
    _check(scores, on)
    n, p = scores[~on], scores[on]
    n.sort()
    p.sort()
    return n, p


def _check(scores: np.ndarray, mask: np.ndarray) -> None:
    """Raise ValueError for scores and labels that do not fit, InputError for scores that are not finite."""
    if scores.shape != mask.shape:
        raise ValueError(f"scores {scores.shape} with labels {mask.shape}; expected the same shape")
    if scores.dtype.kind != "f":
        raise ValueError(f"scores of type {scores.dtype}; expected floating-point numbers")
    if not np.isfinite(scores).all():
        raise InputError(f"{int((~np.isfinite(scores)).sum())} scores are not finite numbers; look at the detector")


def _sorted_pixels(scores: Sequence[np.ndarray], masks: Sequence[np.ndarray], inside: bool) -> np.ndarray:
    """All scores in the masks, or all outside them, in rising order in one array of their own."""
    counts = []
    for one, mask in zip(scores, masks, strict=True):
        _check(one, mask)
        on = int(np.count_nonzero(mask))
        counts.append(on if inside else mask.size - on)
    pixels = np.empty(sum(counts), np.result_type(np.float32, *{one.dtype for one in scores}))
    end = 0
    for one, mask, count in zip(scores, masks, counts, strict=True):
        pixels[end : end + count] = one[mask.astype(bool) == inside]
        end += count
    pixels.sort()
    return pixels


def _auroc(n: np.ndarray, p: np.ndarray) -> float:
    """Mean over p of (N - (above + least) / 2) / N."""
    total = 0
    for chunk in _chunks(p):
        total += int(np.searchsorted(n, chunk, "left").sum()) + int(np.searchsorted(n, chunk, "right").sum())
    return total / (2 * len(n) * len(p))


def _precision_and_f1(n: np.ndarray, p: np.ndarray) -> tuple[float, float]:
    """AP and F1-max; p in rising order. At the threshold p_i: TP = how many p are at least p_i, FP = least(p_i)."""
    total, best = 0.0, 0.0
    for chunk in _chunks(p):
        true = len(p) - np.searchsorted(p, chunk, "left")
        called = true + (len(n) - np.searchsorted(n, chunk, "left"))
        total += float((true / called).sum())
        best = max(best, float((2 * true / (called + len(p))).max()))
    return total / len(p), best


def _pro(n: np.ndarray, scores: Sequence[np.ndarray], masks: Sequence[np.ndarray], limit: float) -> float | None:
    """PRO with n in rising order.

    Mean overlap is a recall in which each pixel weighs w = 1 / its region's area / number of regions. Alone, a pixel
    makes a curve that is 0 up to x0 = above / N, 1 from x1 = least / N, a straight line between; the area under it up
    to the limit L is 0, L - (x0 + x1) / 2 or (L - x0)^2 / (2 (x1 - x0)). PRO is the mean of these by w.
    """
    total, regions = 0.0, 0
    for p, w, found in _weighted_pixels(scores, masks):
        regions += found
        if not len(n):
            continue
        order = np.argsort(p)  # neighbours in p are neighbours in n: the look-up stays in the cache
        p, w = p[order], w[order]
        x0 = (len(n) - np.searchsorted(n, p, "right")) / len(n)
        x1 = (len(n) - np.searchsorted(n, p, "left")) / len(n)
        slope = (limit - x0) ** 2 / np.maximum(2 * (x1 - x0), np.finfo(np.float64).tiny)
        area = np.where(x1 <= limit, limit - (x0 + x1) / 2, np.where(x0 < limit, slope, 0.0))
        total += float((w * area).sum())
    return total / (regions * limit) if regions and len(n) else None


def _weighted_pixels(
    scores: Sequence[np.ndarray], masks: Sequence[np.ndarray]
) -> Iterator[tuple[np.ndarray, np.ndarray, int]]:
    """Scores in masks, 1 / the area of each one's region and the number of regions, some CHUNK pixels at a time."""
    p: list[np.ndarray] = []
    w: list[np.ndarray] = []
    regions = held = 0
    for one, mask in zip(scores, masks, strict=True):
        if not mask.any():
            continue
        box = mask_box(mask).slices
        labels, count = ndimage.label(mask[box], structure=EIGHT)
        on = labels[labels > 0]
        p.append(one[box][labels > 0])
        w.append(1 / np.bincount(on)[on])
        regions, held = regions + count, held + len(on)
        if held >= CHUNK:
            yield np.concatenate(p), np.concatenate(w), regions
            p, w, regions, held = [], [], 0, 0
    if p:
        yield np.concatenate(p), np.concatenate(w), regions


def _chunks(values: np.ndarray) -> Iterator[np.ndarray]:
    for start in range(0, len(values), CHUNK):
        yield values[start : start + CHUNK]
