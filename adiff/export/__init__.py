"""Data sets out of runs, in the formats that training programs read."""

from .dataset import FORMATS, Exported, TakenError, export_runs
from .runs import Run, read_runs, read_saved

__all__ = ["FORMATS", "Exported", "Run", "TakenError", "export_runs", "read_runs", "read_saved"]
