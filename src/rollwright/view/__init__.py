"""What a person reads of a run: `report.html` and plain-text transcripts.

Lives here: the page (`report_page`, `report_template`, `charts`), what a run was in lines (`run_story`) and episodes as
text (`transcripts`).
May import: evaluation and what stands above it.
"""

from rollwright.view.report_page import write_report
from rollwright.view.transcripts import format_group, format_trajectory, headline, write_transcripts

__all__ = [
    "format_group",
    "format_trajectory",
    "headline",
    "write_report",
    "write_transcripts",
]
