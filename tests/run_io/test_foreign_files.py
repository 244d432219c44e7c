"""Files of others: pipes are not waited for, and settings that multiply are refused."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from rollwright.run_io import metric_row, open_regular, settings_tree


def test_a_pipe_a_device_and_a_folder_are_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "file").write_bytes(b"word")
    for path in (tmp_path / "pipe", Path("/dev/zero"), tmp_path, tmp_path / "absent", tmp_path / "a\0b"):
        with pytest.raises(OSError):
            open_regular(path)
    with open_regular(tmp_path / "file") as file:
        assert file.read() == b"word"


DOUBLED = "a0: &a0 [x, x]\n" + "".join(f"a{n + 1}: &a{n + 1} [*a{n}, *a{n}]\n" for n in range(40))


@pytest.mark.parametrize("text", [DOUBLED, "a: &a {b: *a}", "!!bool x", "!!int ''", "[1]", "a: [", "[" * 1500])
def test_settings_that_cannot_be_are_refused(text: str) -> None:
    with pytest.raises(ValueError):
        settings_tree(text)


def test_settings_are_a_tree() -> None:
    assert settings_tree("") == {}
    assert settings_tree("a: &a [1]\nb: {c: *a}") == {"a": [1], "b": {"c": [1]}}


def test_a_line_of_metrics_has_a_step_and_numbers_that_a_float_holds() -> None:
    assert metric_row(b'{"step": 1, "a/b": 2}') == {"step": 1, "a/b": 2}
    assert metric_row('{"step": 1, "a/b": 1%s}' % ("0" * 400)) == {"step": 1, "a/b": float("inf")}
    for line in ('{"step": 1%s}' % ("0" * 400), '{"step": 1%s}' % ("0" * 20), '{"step": true}', "[1]", "{", b"\xff"):
        assert metric_row(line) is None
