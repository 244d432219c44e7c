"""Trajectories on disk: written, read, checked, drawn from, taken in from elsewhere.

Lives here: the store (`trajectory_store`, `store_files`, `store_rows`, `store_checks`), scores given afterwards
(`rescoring`), checks of training data (`data_checks`), random access to turns (`replay/`), logs of others
(`importers/`).
May import: generation and what stands above it.
"""

from rollwright.store.rescoring import score_store
from rollwright.store.store_rows import unpack_text
from rollwright.store.trajectory_store import TABLES, Ref, TrajectoryStore

__all__ = [
    "TABLES",
    "Ref",
    "TrajectoryStore",
    "score_store",
    "unpack_text",
]
