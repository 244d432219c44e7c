"""What a person reads of a run: `report.html` and plain-text transcripts."""

from rollwright.report.page import write_report
from rollwright.report.transcripts import format_group, format_trajectory, write_transcripts

__all__ = ["format_group", "format_trajectory", "write_report", "write_transcripts"]
