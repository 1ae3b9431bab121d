"""Rows of an evaluation as a Markdown table: means and spreads over seeds, differences to the control, paired tests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import mean, stdev
from typing import Any

import numpy as np
from scipy import stats

SHOWN = {"pixel_ap": "pixel AP", "pixel_auroc": "pixel AUROC", "pixel_f1_max": "pixel F1-max", "pro": "PRO",
         "image_auroc": "image AUROC", "image_ap": "image AP", "image_f1_max": "image F1-max"}  # fmt: skip
UNDEFINED = "undefined"
MAIN = "pixel_ap"
"""The metric whose differences are tested."""


def summarise_rows(rows: Sequence[Mapping[str, Any]], control: str) -> list[dict[str, Any]]:
    """One entry for each kind of row, in their order: mean and standard deviation of each metric over the seeds.

    A metric that is undefined for a seed is left out of the mean; None where it is for all. difference: of MAIN to the
    control, seed by seed: mean, standard deviation, how many seeds are better. by_image: mean difference of the
    defective test images, each one's own AP averaged over the seeds, and p: its paired, two-sided Wilcoxon signed-rank
    test; None without a difference. It may have the other sign than that of all pixels together, for which false alarms
    in normal images count too.
    """
    kinds = list(dict.fromkeys(row["row"] for row in rows))
    by_kind = {kind: {row["seed"]: row for row in rows if row["row"] == kind} for kind in kinds}
    entries = []
    for kind, of_kind in by_kind.items():
        values = {name: [v for row in of_kind.values() if (v := row["metrics"][name]) is not None] for name in SHOWN}
        entry: dict[str, Any] = {"row": kind, "seeds": len(of_kind), "step": [row["step"] for row in of_kind.values()]}
        entry["metrics"] = {name: _spread(of_metric) for name, of_metric in values.items()}
        if kind != control and control in by_kind:
            entry |= _compare(of_kind, by_kind[control])
        entries.append(entry)
    return entries


def _spread(values: Sequence[float]) -> dict[str, float | None] | None:
    """Mean and standard deviation, the latter None for a single value; None for no value."""
    return {"mean": mean(values), "deviation": stdev(values) if len(values) > 1 else None} if values else None


def _compare(rows: Mapping[int, Mapping[str, Any]], control: Mapping[int, Mapping[str, Any]]) -> dict[str, Any]:
    """The difference to the control of the seeds that both have."""
    seeds = [seed for seed in rows if seed in control]
    both = [(rows[seed]["metrics"][MAIN], control[seed]["metrics"][MAIN]) for seed in seeds]
    gains = [one - other for one, other in both if one is not None and other is not None]
    by_image = (
        np.array([of[seed]["per_image"] for seed in seeds], float).reshape(len(seeds), -1) for of in (rows, control)
    )
    ours, theirs = (values.mean(0) for values in by_image)
    known = (ours - theirs)[np.isfinite(ours - theirs)]
    return {"difference": _spread(gains), "better": sum(gain > 0 for gain in gains),
            "by_image": float(known.mean()) if len(known) else None, "p": paired_test(known)}  # fmt: skip


def paired_test(differences: np.ndarray) -> float | None:
    """Two-sided p of the Wilcoxon signed-rank test, (n,); undefined values are left out; None if nothing differs."""
    known = differences[np.isfinite(differences)]
    return float(stats.wilcoxon(known).pvalue) if (known != 0).any() else None


def markdown(entries: Sequence[Mapping[str, Any]], control: str) -> str:
    """The table of `summarise_rows`, metrics in hundredths, mean ± standard deviation over seeds."""
    tested = f"{SHOWN[MAIN]} against {control}", "better seeds", "image by image", "its p"
    head = ["learned from", *SHOWN.values(), *tested]
    lines = [f"| {' | '.join(head)} |", f"|---|{'---:|' * (len(head) - 1)}"]
    for entry in entries:
        cells = [entry["row"], *(_cell(entry["metrics"][name]) for name in SHOWN)]
        if "difference" in entry:
            p = "-" if entry["p"] is None else p_value(entry["p"])
            by_image = UNDEFINED if entry["by_image"] is None else f"{100 * entry['by_image']:+.1f}"
            cells += [_cell(entry["difference"], "+"), f"{entry['better']}/{entry['seeds']}", by_image, p]
        else:
            cells += [""] * 4
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def p_value(p: float) -> str:
    """A test's p as it is shown, to three places."""
    return f"{p:.3f}" if p >= 0.001 else "<0.001"


def _cell(spread: Mapping[str, float | None] | None, sign: str = "") -> str:
    if spread is None:
        return UNDEFINED
    deviation = spread["deviation"]
    return f"{100 * spread['mean']:{sign}.1f}" + ("" if deviation is None else f" ± {100 * deviation:.1f}")
