"""What an update notes of its tokens: the right numbers at the right tokens, and never another result."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator

from rollwright.batching import TokenBatch, flatten
from rollwright.contracts import Group, Span, Trajectory, Turn
from rollwright.learner import Learner, PolicyObjective, TokenNotes
from rollwright.learner.policy_losses import Ppo
from rollwright.models.tiny_model import tiny_llama
from tests import builders

VOCAB = 32
LOSS = PolicyObjective(loss=Ppo(), correction="none")


def learner() -> Learner:
    torch.manual_seed(0)
    return Learner(Accelerator(cpu=True), tiny_llama(VOCAB, hidden=32), learning_rate=1e-2, token_budget=40)


def groups() -> list[Group]:
    """Three groups of two episodes of two turns; in one turn a guide wrote the middle token."""

    def turn(seed: int) -> Turn:
        ids = torch.randint(1, VOCAB, (7,), generator=torch.Generator().manual_seed(seed)).tolist()
        guided = (Span(start=0, end=1, version=0), Span(start=1, end=2, version=-1, producer="guide"))
        spans = (*guided, Span(start=2, end=3, version=0)) if seed == 3 else ()
        return builders.turn(ids[:4], ids[4:], float(seed % 3), logprobs=-2.0 - seed / 10, spans=spans)

    def played(number: int) -> Trajectory:
        turns = (turn(2 * number), turn(2 * number + 1))
        return builders.episode(f"0/0/{number // 2}/{number % 2}", *turns, task=f"t{number // 2}")

    return [builders.group(played(2 * g), played(2 * g + 1), name=f"g{g}") for g in range(3)]


def batch() -> TokenBatch:
    found = flatten(groups())
    return found.with_columns(advantages=torch.linspace(-1, 1, len(found)))


@pytest.mark.parametrize(("minibatches", "epochs"), [(1, 1), (2, 2)])
def test_each_token_has_its_own_numbers(tmp_path: Path, minibatches: int, epochs: int) -> None:
    whole, policy = batch(), learner()
    before = policy.logprobs(whole)
    notes = TokenNotes(tmp_path, budget=10_000, ranks=policy.ranks)
    tap = notes.tap(whole)
    policy.update(whole, LOSS, minibatches=minibatches, epochs=epochs, tap=tap)
    notes.take(tap)
    notes.write(4, tokenizer=None)
    found = notes.log.read(4)
    assert len(found) == len(whole.turns)
    token = 0
    for s, trajectory in enumerate(whole.trajectories):
        for number, turn in enumerate(trajectory.turns):
            log = found[trajectory.id, number]
            for place, chosen in enumerate(turn.policy_mask):
                if not chosen:
                    assert log["advantages"][place] is None and log["diffs"][place] is None
                    continue
                gap = float(before[token]) - turn.action_logprobs[place]
                assert log["diffs"][place] == pytest.approx(gap, abs=2e-5)
                assert log["advantages"][place] == pytest.approx(float(whole.advantages[token]), rel=1e-5, abs=1e-7)
                assert log["masks"][place] == 1 and int(whole.sequence_index[token]) == s
                token += 1
    assert token == len(whole)


def test_noting_changes_nothing(tmp_path: Path) -> None:
    def trained(budget: int) -> tuple[dict[str, Any], dict[str, float]]:
        policy = learner()
        notes = TokenNotes(tmp_path / str(budget), budget=budget, ranks=policy.ranks)
        tap = notes.tap(batch())
        metrics = policy.update(tap.batch if tap else batch(), LOSS, minibatches=2, epochs=2, tap=tap)
        notes.take(tap)
        return policy.policy.state_dict(), metrics

    (plain, metrics), (noted, also) = trained(0), trained(10_000)
    assert metrics == also and all(torch.equal(plain[name], noted[name]) for name in plain)


def test_the_budget_keeps_whole_episodes_and_one_at_least(tmp_path: Path) -> None:
    ranks = learner().ranks
    whole = batch()
    sizes = whole.lengths.tolist()
    for budget, kept in ((1, 1), (sizes[0], 1), (sizes[0] + sizes[1], 2), (10_000, len(sizes))):
        tap = TokenNotes(tmp_path, budget=budget, ranks=ranks).tap(whole)
        assert tap is not None and tap.num_sequences == kept
    assert TokenNotes(tmp_path, budget=0, ranks=ranks).tap(whole) is None
    assert TokenNotes(tmp_path, budget=9, ranks=ranks).tap(whole.select_turns([1])) is None, "turns without a record"


def test_what_a_loss_left_out_is_marked(tmp_path: Path) -> None:
    policy, whole = learner(), batch()
    whole = whole.masked(torch.arange(len(whole)) % 2 == 0)
    notes = TokenNotes(tmp_path, budget=10_000, ranks=policy.ranks)
    tap = notes.tap(whole)
    policy.update(whole, PolicyObjective(loss=Ppo(), correction="none", entropy_coef=0.01), tap=tap)
    notes.take(tap)
    notes.write(0, tokenizer=None)
    logs = [notes.log.read(0)[t.id, n] for t in whole.trajectories for n in range(len(t.turns))]
    masks = [mask for log in logs for mask in log["masks"] if mask is not None]
    entropies = [entropy for log in logs for entropy in log["entropies"] if entropy is not None]
    assert masks == [int(kept) for kept in whole.mask]
    assert len(entropies) == len(whole) and all(0 < entropy < 3.6 for entropy in entropies)
