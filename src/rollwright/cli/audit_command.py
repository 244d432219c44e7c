"""`rollwright audit`: a world and its verifier on trial before anything is trained."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rollwright.cli.argument_types import finite_number, key_values, one_or_more, positive_seconds, store_folder
from rollwright.contracts import ConfigError, RollwrightError

# At run time they are imported inside the functions: `--help` and completion need the options alone.
if TYPE_CHECKING:
    from rollwright.checks import AuditPlan, AuditReport, CheckResult, Recorded

_EPILOG = (
    "Exit code: 0 fit, 1 unfit, 3 cannot tell (the report says what is missing), 2 a mistake in the command. "
    "docs/audit.md explains each probe."
)


def add(parser: argparse.ArgumentParser) -> None:
    """The options of `rollwright audit`."""
    parser.epilog = _EPILOG
    parser.add_argument("name", metavar="WORLD", help="a world such as text.maze, or package.module:Attribute")
    parser.add_argument("options", metavar="KEY=VALUE", nargs="*", help="options of the world; values as JSON or text")
    parser.add_argument("--tasks", metavar="N", type=one_or_more, help="tasks at most, of all templates (1000)")
    parser.add_argument("--starts", metavar="N", type=one_or_more, help="starts per task at least (1)")
    parser.add_argument(
        "--quick", action="store_true", help="at most 80 tasks, fewer candidates and replays, no second process"
    )
    parser.add_argument(
        "--reward",
        metavar=("NAME", "KEY=VALUE"),
        nargs="+",
        help="audit this reward on the world's episodes in place of the world's own verdict",
    )
    parser.add_argument(
        "--accept", metavar="T", type=finite_number, default=1.0, help="the reward calls T or more a success (1.0)"
    )
    parser.add_argument(
        "--episodes", metavar="STORE", type=Path, help="episodes of the policy that will train, to measure headroom"
    )
    parser.add_argument("--before", metavar="FILE", type=Path, help="JSON of an earlier audit, to compare the identity")
    parser.add_argument("--json", metavar="FILE", type=Path, help="also write the report as JSON to this file")
    parser.add_argument("--parallel", metavar="N", type=one_or_more, default=4, help="episodes at once (4)")
    parser.add_argument(
        "--call-s", metavar="S", type=positive_seconds, default=60.0, help="longest single call, seconds (60)"
    )
    parser.add_argument("--behaviour", action="store_true", help="print the behaviour digest and nothing else")


def run(arguments: argparse.Namespace) -> None:
    """Audit the world, print the report, and leave with its exit code.

    Raises:
        ConfigError: an option is wrong. DataError: a file that was named is not readable.
        SystemExit: 1 where the world is unfit, 3 where nothing can be said.
    """
    from rollwright.checks import audit_json, behaviour_digest, format_audit

    build = _builder(arguments)
    if arguments.behaviour:
        with _own_code_may_fail(arguments.name):
            # Nothing else on standard output: `_elsewhere` reads the digest there.
            print(behaviour_digest(build(), call_s=arguments.call_s))
        return
    report = _audited(build, arguments)
    print(format_audit(report))
    if arguments.json is not None:
        arguments.json.write_text(audit_json(report) + "\n", encoding="utf-8")
    if report.exit_code:
        raise SystemExit(report.exit_code)


@contextlib.contextmanager
def _own_code_may_fail(name: str) -> Iterator[None]:
    """What the user's own world raises outside of an episode, in `tasks` or `close`, is one paragraph."""
    from rollwright.config import is_own

    try:
        yield
    except RollwrightError:
        raise
    except Exception as error:
        # A world of ours should not fail like this: its traceback has to show.
        if not is_own(name):
            raise
        raise ConfigError(
            f"environment `{name}` cannot be audited: {type(error).__name__}: {error} was raised outside of an "
            "episode, as by its tasks() or close(). -v shows where; `rollwright check-env` tries each method"
        ) from error


def _builder(arguments: argparse.Namespace) -> Callable[[], Any]:
    from rollwright.checks import missing_attributes
    from rollwright.config import create, require

    options = key_values(arguments.options)
    # Before the first world is made, which may start a browser.
    require("envs", arguments.name, options)

    def build() -> Any:
        world = create("envs", arguments.name, options)
        if missing := missing_attributes(world):
            raise ConfigError(
                f"environment `{arguments.name}` is not a world that can be audited: it lacks {', '.join(missing)}. "
                "See rollwright.contracts.environment.World, or start from `rollwright init`"
            )
        return world

    return build


def _audited(build: Callable[[], Any], arguments: argparse.Namespace) -> AuditReport:
    from rollwright.checks import judge_recorded, read_identity, record_panel, reward_recorded, reward_title

    # What can fail at once comes first; the recording takes minutes.
    before = None if arguments.before is None else read_identity(arguments.before)
    groups = None if arguments.episodes is None else _results_of(arguments.episodes)
    reward = None if arguments.reward is None else _reward(arguments.reward)
    plan = _plan(arguments)
    with _own_code_may_fail(arguments.name):
        recorded = asyncio.run(record_panel(build, plan=plan, progress=_progress()))
    if not arguments.quick:
        recorded = _with_check(recorded, _elsewhere(arguments, recorded.identity.behaviour))
    title = ""
    if reward is not None:
        instructions = build().instructions
        recorded = reward_recorded(
            recorded, reward, accept=arguments.accept, instructions=instructions, repeats=plan.repeats
        )
        title = reward_title(reward, arguments.name)
    return judge_recorded(recorded, plan=plan, groups=groups, before=before, subject=title)


def _plan(arguments: argparse.Namespace) -> AuditPlan:
    from rollwright.checks import AuditPlan

    # What was not given keeps the plan's own default; --tasks and --starts win over --quick.
    chosen: dict[str, Any] = {"parallel": arguments.parallel, "call_s": arguments.call_s}
    if arguments.quick:
        chosen |= {"tasks": 80, "constants": 3, "leak_pairs": 2, "replayed": 10}
    for name in ("tasks", "starts"):
        if getattr(arguments, name) is not None:
            chosen[name] = getattr(arguments, name)
    return AuditPlan(**chosen)


def _progress() -> Callable[[str, int, int], None] | None:
    """A line that is overwritten, on a terminal only: a file of the report stays the same."""
    if not sys.stderr.isatty():
        return None

    def tell(what: str, done: int, total: int) -> None:
        # ESC [K clears the line, since a shorter text would leave the end of a longer one.
        print(f"\r\x1b[K{what}: {done} of {total} episodes", end="" if done < total else "\r\x1b[K", file=sys.stderr)

    return tell


def _reward(words: list[str]) -> Any:
    from rollwright.config import create, require

    name, *options = words
    chosen = key_values(options)
    require("rewards", name, chosen)
    return create("rewards", name, chosen)


def _results_of(path: Path) -> dict[str, list[bool]]:
    """For each task whether the stored episodes of the policy succeeded; faults are left out."""
    from rollwright.store import TrajectoryStore

    found: dict[str, list[bool]] = defaultdict(list)
    for trajectory in TrajectoryStore(store_folder(path), mode="read").iter_trajectories():
        # A fault says nothing about the policy, so it is no failure here.
        if not trajectory.stop_reason.is_fault:
            found[trajectory.task.id].append(bool(trajectory.success))
    if not found:
        raise ConfigError(f"--episodes {path}: the store holds no episode that ended without a fault")
    return dict(found)


def _with_check(recorded: Recorded, check: CheckResult) -> Recorded:
    from dataclasses import replace

    return replace(recorded, checks=(*recorded.checks, check))


def _elsewhere(arguments: argparse.Namespace, here: str) -> CheckResult:
    """The behaviour digest in another process, with another order of sets: nothing may depend on either."""
    from rollwright.checks import another_process_check

    command = [sys.executable, "-m", "rollwright.cli", "audit", arguments.name, *arguments.options, "--behaviour"]
    # The path is handed on whole: the module of a user's world may have been found in a folder added later.
    environment = {**os.environ, "PYTHONHASHSEED": "4711", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    try:
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=20 * arguments.call_s, check=False
        )
    except subprocess.TimeoutExpired:
        return another_process_check(here, None, "it gave no answer in time")
    there = done.stdout.strip() if done.returncode == 0 else None
    # The last line of an error is the one that says what happened.
    return another_process_check(here, there, (done.stderr.strip().splitlines() or ["it failed"])[-1])
