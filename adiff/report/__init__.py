"""The report of a run, or of a demo's several: one HTML page that needs nothing beside it, pictures included."""

from .measures import MEASURES, summarise
from .page import Report, write_report
from .run import report_of_run

__all__ = ["MEASURES", "Report", "report_of_run", "summarise", "write_report"]
