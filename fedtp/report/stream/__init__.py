"""The report of a stream study: how well each model did over time, what drift did to it, and what it cost."""

from fedtp.report.stream.report import stream_report
from fedtp.report.stream.results import StreamResults

__all__ = ["StreamResults", "stream_report"]
