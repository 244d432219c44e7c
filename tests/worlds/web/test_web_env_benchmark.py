"""The benchmark against selenium says in one paragraph what it lacks."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]


def test_a_missing_chromedriver_is_named_with_its_package(tmp_path: Path) -> None:
    results = ROOT / "benchmarks" / "results" / "web_env.md"
    before = results.read_bytes()
    done = subprocess.run(
        [sys.executable, ROOT / "benchmarks" / "web_env.py", "--json"],
        env={**os.environ, "PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2 and done.stdout == ""
    assert "chromedriver, by apt-get install chromium-driver" in done.stderr
    assert "Traceback" not in done.stderr and len(done.stderr.splitlines()) == 1
    assert results.read_bytes() == before
