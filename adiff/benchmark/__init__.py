"""A benchmark: a matrix of methods, defects and seeds, resumable cell by cell, with a report of what came out.

Read in this order: `matrix` (what a cell is), `suites` (which cells answer which question), `target` (on which files),
`bench` (how one cell is made and measured), `run` (the matrix, one line a cell), `turns` (several processes at it),
`summary` and `report`.
"""

from .bench import Bench
from .matrix import FULL, QUICK, Budget, Cell, Recipe, Variant
from .measures import Weights
from .report import write_report
from .run import Failures, run_matrix
from .suites import SUITES, Suite, cells_of, variants_of
from .target import Unit, open_units

__all__ = [
    "FULL",
    "QUICK",
    "SUITES",
    "Bench",
    "Budget",
    "Cell",
    "Failures",
    "Recipe",
    "Suite",
    "Unit",
    "Variant",
    "Weights",
    "cells_of",
    "open_units",
    "run_matrix",
    "variants_of",
    "write_report",
]
