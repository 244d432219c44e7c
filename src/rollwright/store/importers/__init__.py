"""Logs and tasks from elsewhere: files in the formats that are about, into a store or a file of tasks, and back.

A format turns rows into records or says why not; nothing of a row is ever evaluated. See docs/bring_your_logs.md.
"""

from rollwright.store.importers.formats import load_format
from rollwright.store.importers.into_store import ALREADY, import_episodes, import_tasks
from rollwright.store.importers.log_records import (
    Format,
    LeftOut,
    LoggedEpisode,
    LogRow,
    RowError,
    Step,
    Values,
    listed,
    split_of,
    whole_number,
    whole_text,
)
from rollwright.store.importers.messages_out import export_messages

__all__ = [
    "ALREADY",
    "Format",
    "LeftOut",
    "LogRow",
    "LoggedEpisode",
    "RowError",
    "Step",
    "Values",
    "export_messages",
    "import_episodes",
    "import_tasks",
    "listed",
    "load_format",
    "split_of",
    "whole_number",
    "whole_text",
]
