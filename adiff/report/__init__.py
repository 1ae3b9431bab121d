"""The report of a run, of several, or of a demo: one HTML page that needs nothing beside it, pictures included."""

from .measures import MEASURES, summarise
from .page import Rejects, Report, write_report
from .run import report_of_run
from .runs import report_of_runs

__all__ = ["MEASURES", "Rejects", "Report", "report_of_run", "report_of_runs", "summarise", "write_report"]
