"""Trajectories on disk: written, read, checked, drawn from, taken in from elsewhere.

Lives here: the store (`trajectory_store`), its rows (`store_rows`, `turn_rows`), their columns by version and what a
row must hold (`store_checks`), its files (`store_files`) and pictures (`attachments`), older stores brought up to date
(`upgrade`), scores given afterwards (`rescoring`), checks of training data (`data_checks`), what the learner found
out about tokens (`token_log`), random access to turns
(`replay/`), logs of others (`importers/`).
May import: generation and what stands above it.
"""

from rollwright.store.rescoring import score_store
from rollwright.store.store_checks import TABLES
from rollwright.store.store_files import shard_files
from rollwright.store.token_log import TokenColumns, TokenLog
from rollwright.store.trajectory_store import Ref, TrajectoryStore
from rollwright.store.turn_rows import common_length, pack_text, unpack_text
from rollwright.store.upgrade import Upgraded, upgrade_store

__all__ = [
    "TABLES",
    "Ref",
    "TokenColumns",
    "TokenLog",
    "TrajectoryStore",
    "Upgraded",
    "common_length",
    "pack_text",
    "score_store",
    "shard_files",
    "unpack_text",
    "upgrade_store",
]
