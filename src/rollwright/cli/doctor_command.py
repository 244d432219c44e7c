"""`rollwright doctor`: what is wrong with a run, and what to try."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path


def add(parser: argparse.ArgumentParser) -> None:
    """The options of `rollwright doctor`."""
    parser.add_argument("run", metavar="RUN", type=Path, help="the run folder, also while the run is going on")
    parser.add_argument("--all", action="store_true", help="say for each rule that could not judge what it lacks")
    parser.add_argument("--json", action="store_true", help="print the findings as JSON")
    parser.epilog = "Exit code: 0 where nothing is found, 1 where something is, 2 where RUN is not a run folder."


def run(arguments: argparse.Namespace) -> None:
    """Print the diagnosis.

    Raises:
        DataError: this is not a run folder.
        SystemExit: something was found (code 1).
    """
    from rollwright.view import examine, format_diagnosis

    diagnosis = examine(arguments.run)
    if arguments.json:
        print(json.dumps(asdict(diagnosis), indent=1), flush=True)
    else:
        print(format_diagnosis(diagnosis, str(arguments.run), all_rules=arguments.all), flush=True)
    if diagnosis.findings:
        # So that a script can ask.
        raise SystemExit(1)
