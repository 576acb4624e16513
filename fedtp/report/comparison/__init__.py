"""The report that sets runs side by side: what they have in common, what sets them apart, and how sure that is."""

from fedtp.report.comparison.report import comparison_report
from fedtp.report.comparison.results import ComparisonResults

__all__ = ["ComparisonResults", "comparison_report"]
