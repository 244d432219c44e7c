"""Episodes as plain text: what the policy read, what it did, what it earned."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path

from rollwright.contracts import ACT, Group, RunFolderError, Trajectory, Turn

_INDENT = "    "


def write_transcripts(groups: Sequence[Group], path: str | Path) -> Path:
    """Write groups of episodes as one text file.

    Raises:
        RunFolderError: it cannot be written.
    """
    path = Path(path)
    # Written beside and then renamed, so that a reader never sees half a file.
    temporary = path.with_suffix(f".tmp-{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text("\n\n".join(map(format_group, groups)) + "\n", encoding="utf-8")
        temporary.replace(path)
    except OSError as error:
        raise RunFolderError(f"the transcripts {path} cannot be written: {error.strerror or error}") from error
    return path


def format_group(group: Group) -> str:
    """The group's task and returns, then each of its episodes."""
    returns = ", ".join(f"{value:g}" for value in group.returns)
    head = f"=== group {visible(group.id)}: task {visible(group.task.id)}, seed {group.seed}, returns {returns}"
    return "\n\n".join([head, *map(format_trajectory, group.trajectories)])


def format_trajectory(trajectory: Trajectory) -> str:
    """One episode, turn by turn."""
    parts = [headline(trajectory), *origins(trajectory)]
    parts += [_format_turn(index, turn) for index, turn in enumerate(trajectory.turns)]
    if trajectory.fault:
        parts.append(f"fault: {visible(trajectory.fault)}")
    if trajectory.score is not None and trajectory.score.message:
        parts.append(f"{visible(trajectory.score.verifier)} says: {visible(trajectory.score.message)}")
    return "\n".join(parts)


def headline(trajectory: Trajectory) -> str:
    """How the episode ended, in one line."""
    verdict = {True: "success", False: "no success", None: "no verdict"}[trajectory.success]
    # Below 0: no learner's weights, such as a teacher's episode.
    version = "" if trajectory.version < 0 else f" version {trajectory.version}"
    return (
        f"--- {visible(trajectory.id)}: task {visible(trajectory.task.id)}, seed {trajectory.seed}, "
        f"by {visible(trajectory.policy or trajectory.origin)}{version}: {trajectory.stop_reason.value}, {verdict}, "
        f"return {trajectory.total_reward:g}, {len(trajectory.turns)} turns"
    )


def origins(trajectory: Trajectory) -> list[str]:
    """Where an episode was played, began and was forked, a line each; nothing of what nobody said or is usual."""
    found = []
    if (world := trajectory.world) is not None:
        said = f"world {world.name}, version {world.version}, built as {world.fingerprint}"
        found.append(visible(said))
    start = trajectory.start
    if start.kind != "initial":
        tokens = f" and {start.prefix_tokens} tokens" if start.prefix_tokens else ""
        source = f" of {visible(start.source)}" if start.source else ""
        found.append(f"began at a {start.kind.replace('_', ' ')}, after {start.prefix_turns} turns{tokens}{source}")
    if (branch := trajectory.branch) is not None:
        token = f", token {branch.token}" if branch.token else ""
        found.append(f"branched off from {visible(branch.parent)} at turn {branch.turn}{token}")
    return found


def turn_label(turn: Turn) -> str:
    """What kind of turn it is where it is no act of a first attempt: ` (plan)`, ` (attempt 1)`; else nothing."""
    words = [] if turn.kind == ACT else [visible(turn.kind)]
    words += [f"attempt {turn.attempt}"] if turn.attempt else []
    return f" ({', '.join(words)})" if words else ""


def outcome(turn: Turn) -> str:
    """What one action earned and cost, who wrote it, how it is weighed, and whether it ended the episode."""
    parts = [_rewards(turn.rewards)] if turn.rewards else []
    parts += [f"{visible(at.name)} {at.value:+g} at token {at.position}" for at in turn.rewards_at]
    parts += [f"cost {visible(name)} {value:g}" for name, value in turn.costs.items()]
    parts += _written(turn)
    parts += [name for name in ("terminated", "truncated") if getattr(turn, name)]
    if turn.finish == "length":
        parts.append("action cut at its token limit")
    return ", ".join(parts)


def visible(text: str) -> str:
    """Text that is safe to print: page text may hold terminal commands, and halves of characters."""
    # Escaped and not dropped: what a page really said must stay visible.
    return "".join(char if _printable(char) else char.encode("unicode_escape").decode() for char in text)


def _printable(char: str) -> bool:
    # `isprintable` is false for a no-break space, which is harmless and frequent in pages.
    return char in "\n\t" or (char.isprintable() and not "\ud800" <= char <= "\udfff") or char == "\u00a0"


def _written(turn: Turn) -> list[str]:
    """Who wrote the action where it was not the policy alone, under which mask, and how its tokens are weighed."""
    writers = list(dict.fromkeys(span.producer for span in turn.spans))
    # The usual case is not told, so that the unusual one stands out.
    found = [] if writers in ([], ["policy"]) else [f"written by {' and '.join(writers)}"]
    if turn.sampler_mask is not None:
        found.append(f"sampled under mask {visible(turn.sampler_mask.mask_id) or 'of kept ids'}")
    weights = {"policy": turn.policy_weights, "value": turn.value_weights, "KL": turn.kl_weights}
    named = [name for name, given in weights.items() if given is not None]
    return [*found, f"tokens weighed in {', '.join(named)}"] if named else found


def _rewards(rewards: Mapping[str, float]) -> str:
    return "reward " + ", ".join(f"{visible(name)} {value:+g}" for name, value in rewards.items())


def _format_turn(index: int, turn: Turn) -> str:
    lines = [f"turn {index}{turn_label(turn)}"]
    for message in turn.observed:
        lines += [f"  {message.role}:", textwrap.indent(visible(message.content), _INDENT)]
    lines += [f"  picture: {visible(picture.path or picture.sha256)}" for picture in turn.attachments]
    lines.append("  action:")
    lines.append(textwrap.indent(visible(turn.text) or "(empty)", _INDENT))
    ended = outcome(turn)
    return "\n".join([*lines, f"  -> {ended}"] if ended else lines)
