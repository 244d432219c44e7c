"""Answers that were paid for once, kept on disk: one small file per question, named by the hash of its content.

A file is written beside its place and renamed, so that any number of processes may share a folder, and one that is
killed leaves nothing half-written behind. Nothing is ever changed; deleting the folder forgets everything.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rollwright.contracts import RunFolderError

log = logging.getLogger(__name__)


class AnswerCache:
    """Question (any JSON) to answer (text).

    Args:
        folder: made where it does not exist.

    Raises:
        RunFolderError: the folder cannot be created.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder).expanduser()
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunFolderError(
                f"the cache {self.folder} cannot be created: {error.strerror}. Name another folder"
            ) from error

    def get(self, question: Mapping[str, Any]) -> str | None:
        """The answer that was kept, None where there is none. A damaged file counts as none."""
        path = self._path(question)
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            # The question is kept too: an answer is never taken for another question's.
            return str(found["answer"]) if found["question"] == _plain(question) else None
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError) as error:
            log.warning("%s cannot be read and is asked again: %s", path, error)
            return None

    def put(self, question: Mapping[str, Any], answer: str) -> None:
        """Keep an answer. A full disk costs a warning, not the run."""
        path, beside = self._path(question), None
        try:
            path.parent.mkdir(exist_ok=True)
            # The temporary file lies in the same folder: a rename is atomic only within one file system.
            with tempfile.NamedTemporaryFile("w", dir=path.parent, suffix=".tmp", delete=False, encoding="utf-8") as f:
                beside = f.name
                json.dump({"question": _plain(question), "answer": answer}, f)
                f.flush()
                os.fsync(f.fileno())  # else a power cut after the rename may leave an empty file under the final name
            os.replace(beside, path)
        except OSError as error:
            log.warning("an answer could not be kept in %s: %s", self.folder, error)
            if beside is not None:
                Path(beside).unlink(missing_ok=True)

    def __len__(self) -> int:
        """Whole answers in the folder."""
        # The pattern leaves out the .tmp files of writers that were killed.
        return sum(1 for _ in self.folder.glob("??/*.json"))

    def _path(self, question: Mapping[str, Any]) -> Path:
        # Sorted keys: the order in which a caller fills the fields must not cost a second payment.
        digest = hashlib.sha256(json.dumps(question, sort_keys=True).encode()).hexdigest()
        return self.folder / digest[:2] / f"{digest[2:]}.json"


def _plain(question: Mapping[str, Any]) -> Any:
    """As it reads after a way through JSON: tuples become lists."""
    return json.loads(json.dumps(question))
