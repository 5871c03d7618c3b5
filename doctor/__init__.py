from .examination import examine
from .report import Finding, Report

__all__ = ["Finding", "Report", "examine"]
