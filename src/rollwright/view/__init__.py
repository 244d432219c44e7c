"""What a person reads of a run: the live page, `report.html` and plain-text transcripts.

Lives here: the server and the answers of `rollwright view` (`live/`), its page (`assets/`), metric explanations and
reference curves (`reference/`), the same page frozen into one file (`report_page`, `frozen_page`), what a run was in
lines (`run_story`), episodes as text (`transcripts`), what is wrong with a run (`doctor/`) and tables of runs
(`records/`).
May import: evaluation and what stands above it.
"""

from rollwright.view.doctor.diagnosis import RULES, Diagnosis, diagnose, examine, format_diagnosis
from rollwright.view.doctor.rule_findings import DoctorRule, Finding
from rollwright.view.live.page_server import PageServer
from rollwright.view.live.run_catalogue import RunCatalogue
from rollwright.view.records.run_query import RunTable, query_runs
from rollwright.view.records.run_record import RunRecord, read_records
from rollwright.view.report_page import write_report
from rollwright.view.transcripts import format_group, format_trajectory, headline, write_transcripts

__all__ = [
    "RULES",
    "Diagnosis",
    "DoctorRule",
    "Finding",
    "PageServer",
    "RunCatalogue",
    "RunRecord",
    "RunTable",
    "diagnose",
    "examine",
    "format_diagnosis",
    "format_group",
    "format_trajectory",
    "headline",
    "query_runs",
    "read_records",
    "write_report",
    "write_transcripts",
]
