"""The page that people open to see what became of the rows they handed over."""

from data_prep.report.findings import Before, Copy, CopyKind, CopyPair, Findings
from data_prep.report.page import REPORT, write_report
from data_prep.report.thumbnail import Gallery

__all__ = ["REPORT", "Before", "Copy", "CopyKind", "CopyPair", "Findings", "Gallery", "write_report"]
