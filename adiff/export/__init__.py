"""Data sets out of runs, in the formats that training programs read."""

from .dataset import FORMATS, Exported, export_runs
from .runs import Run, read_runs

__all__ = ["FORMATS", "Exported", "Run", "export_runs", "read_runs"]
