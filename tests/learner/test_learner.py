"""The learner: one gradient however the batch is split, nothing moves on a NaN, and it learns."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from transformers import LlamaForCausalLM

from rollwright.batching.token_batch import TokenBatch, TokenLoss
from rollwright.contracts.errors import ConfigError, NonFiniteUpdate
from rollwright.learner.learner import Learner
from rollwright.learner.objective import PolicyObjective
from rollwright.learner.optimisation import OptimiserSettings, split_minibatches
from rollwright.learner.policy_losses import Ppo, Reinforce
from rollwright.learner.ranks import check_world
from rollwright.learner.token_critic import CriticSettings, Squared
from rollwright.maths.losses import AGGREGATIONS, Aggregation
from rollwright.models.loading import with_lora
from rollwright.models.tiny_model import tiny_llama
from tests.token_batches import SpelledTurn, batch_of, per_turn

VOCAB = 32
REINFORCE = PolicyObjective(loss=Reinforce(), correction="none")


@pytest.fixture(scope="module")
def accelerator() -> Accelerator:
    return Accelerator(cpu=True)


@pytest.fixture
def make_learner(accelerator: Accelerator) -> Iterator[Any]:
    def make(policy: Any = None, **settings: Any) -> Learner:
        defaults: dict[str, Any] = {"learning_rate": 1e-2, "token_budget": 64}
        return Learner(accelerator, policy or tiny_llama(VOCAB, hidden=32), **(defaults | settings))

    yield make


def segment(prompt: tuple[int, ...], action: tuple[int, ...], *, sequence: object, **fields: Any) -> SpelledTurn:
    n = len(action)
    columns = {"mask": (True,) * n, "logprobs_sampled": (-1.0,) * n, "advantages": (1.0,) * n} | fields
    return SpelledTurn(prompt_ids=prompt, action_ids=action, sequence=sequence, **columns)


def trajectories(count: int = 6) -> list[SpelledTurn]:
    """Two-turn histories of different lengths from one start, with masked tokens and different advantages."""
    generator = torch.Generator().manual_seed(0)
    segments = []
    for k in range(count):
        first = tuple(torch.randint(0, VOCAB, (1 + k % 3,), generator=generator).tolist())
        second = tuple(torch.randint(0, VOCAB, (1 + k % 4,), generator=generator).tolist())
        mask = tuple(i != 1 for i in range(len(second)))
        gain = float(torch.randn((), generator=generator))
        segments.append(segment((1, 2, 3), first, sequence=k, advantages=(gain,) * len(first)))
        segments.append(segment((1, 2, 3, *first, 4), second, sequence=k, mask=mask, advantages=(-gain,) * len(second)))
    return segments


def weights_of(learner: Learner) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in learner.weights()}


def assert_same_weights(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor], **tolerance: float) -> None:
    assert left.keys() == right.keys()
    for name in left:
        torch.testing.assert_close(left[name], right[name], **(tolerance or {"rtol": 0.0, "atol": 0.0}), msg=name)


def gradients(
    make_learner: Any, segments: list[SpelledTurn], objective: PolicyObjective, **settings: Any
) -> list[torch.Tensor]:
    """The clipped gradient of one update, read out of Adam's first moment; Adam's first step itself is only a sign."""
    learner = make_learner(tiny_llama(VOCAB, hidden=32).double(), **settings)
    learner.update(batch_of(segments), objective)
    moments = learner.state_dict()["policy"]["optimizer"]["state"]
    return [moments[key]["exp_avg"] / 0.1 for key in sorted(moments)]


# --- one gradient --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("aggregation", AGGREGATIONS)
@pytest.mark.parametrize("layout", ["tree", "padded", "auto"])
def test_the_split_into_micro_batches_changes_no_gradient(
    make_learner: Any, aggregation: Aggregation, layout: str
) -> None:
    length = 8 if aggregation == "constant" else None
    objective = replace(REINFORCE, aggregation=aggregation, max_length=length, entropy_coef=0.1)
    whole = gradients(make_learner, trajectories(), objective, token_budget=1000, layout="padded")
    for budget in (1, 12, 1000):
        split = gradients(make_learner, trajectories(), objective, token_budget=budget, layout=layout)
        for mine, theirs in zip(split, whole, strict=True):
            torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-8)


def test_the_gradient_is_that_of_the_formula(make_learner: Any) -> None:
    segments, model = trajectories(), tiny_llama(VOCAB, hidden=32).double()
    total, count = torch.zeros((), dtype=torch.float64), 0
    for one in segments:
        ids = torch.tensor([[*one.prompt_ids, *one.action_ids]])
        logprobs = model(input_ids=ids).logits[0, len(one.prompt_ids) - 1 : -1].log_softmax(-1)
        for t, token in enumerate(one.action_ids):
            if one.mask[t]:
                total, count = total - one.advantages[t] * logprobs[t, token], count + 1
    (total / count).backward()
    expected = math.sqrt(sum(float(p.grad.square().sum()) for p in model.parameters() if p.grad is not None))
    metrics = make_learner(tiny_llama(VOCAB, hidden=32).double()).update(batch_of(segments), REINFORCE)
    assert metrics["optim/grad_norm"] == pytest.approx(expected, rel=1e-5)
    assert metrics["optim/loss"] == pytest.approx(float(total.detach()) / count, rel=1e-5)


def test_masked_tokens_do_not_matter(make_learner: Any) -> None:
    def spoil(one: SpelledTurn) -> SpelledTurn:
        gains = [a if keep else 1e9 for a, keep in zip(one.advantages, one.mask, strict=True)]
        return replace(one, advantages=gains)

    masked = segment((1, 2, 3), (9, 9, 9), sequence="never sampled", mask=(False,) * 3)
    objective = replace(REINFORCE, aggregation="seq-mean-token-mean")
    batches = (trajectories(), [*map(spoil, trajectories()), masked])
    plain, spoiled = [gradients(make_learner, batch, objective) for batch in batches]
    for mine, theirs in zip(spoiled, plain, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-8)


def test_a_fresh_batch_has_ratio_one(make_learner: Any) -> None:
    ppo = PolicyObjective(loss=Ppo(), correction="none")
    first, second = make_learner(), make_learner()
    metrics = first.update(batch_of(trajectories()), ppo)
    second.update(batch_of(trajectories()), REINFORCE)
    assert metrics["policy/kl_old_mean"] == 0 and metrics["policy/ratio_clipped_frac"] == 0
    assert_same_weights(weights_of(first), weights_of(second), rtol=1e-4, atol=1e-6)


def test_old_log_probs_are_those_before_the_first_of_several_steps(make_learner: Any) -> None:
    @dataclass(frozen=True)
    class Spy:
        seen: list[torch.Tensor]
        aggregation: Aggregation = "token-mean"
        max_length: int | None = None
        with_entropy: bool = False
        whole_sequences: bool = False

        def __call__(self, tokens: TokenBatch) -> TokenLoss:
            assert tokens.logprobs is not None and tokens.logprobs_old is not None
            self.seen.append((tokens.logprobs - tokens.logprobs_old).detach().abs().max())
            return TokenLoss(losses=-tokens.logprobs * tokens.advantages, metrics={})

    spy = Spy([])
    learner = make_learner(token_budget=1000)
    learner.update(batch_of(trajectories()), spy, epochs=3)
    assert float(spy.seen[0]) < 1e-6 < 1e-3 < float(spy.seen[1]) < float(spy.seen[2])
    assert learner.step == 3


def test_minibatches_keep_sequences_whole() -> None:
    import random

    parts = split_minibatches(batch_of(trajectories(7)), 3, random.Random(0))
    owners = [{one.sequence for one in part.segments} for part in parts]
    assert sorted(len(owner) for owner in owners) == [2, 2, 3]
    assert len(set.union(*owners)) == 7 and sum(len(part.segments) for part in parts) == 14


def test_scores_come_back_in_the_callers_order(make_learner: Any) -> None:
    learner, segments = make_learner(token_budget=10), trajectories()
    rows = per_turn(learner.logprobs, segments)
    for one, row in zip(segments, rows, strict=True):
        torch.testing.assert_close(per_turn(learner.logprobs, [one])[0], row)
        assert len(row) == len(one.action_ids)


# --- nothing moves on a bad batch ----------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_moves_nothing(make_learner: Any, bad: float) -> None:
    learner = make_learner(token_budget=8, critic=CriticSettings(learning_rate=1e-2, loss=Squared()))
    segments = [replace(one, returns=(0.0,) * len(one.action_ids)) for one in trajectories()]
    learner.update(batch_of(segments), REINFORCE)
    before, saved = weights_of(learner), copy.deepcopy(learner.state_dict())
    broken = [*segments[:-1], replace(segments[-1], advantages=(bad,) * len(segments[-1].action_ids))]
    with pytest.raises(NonFiniteUpdate, match="step 1: the policy loss"):
        learner.update(batch_of(broken), REINFORCE)
    assert_same_weights(weights_of(learner), before)
    assert learner.step == 1
    # Nothing of the broken batch is left in the gradients either: the next step is that of a learner that never saw it.
    learner.update(batch_of(segments), REINFORCE)
    fresh = make_learner(token_budget=8, critic=CriticSettings(learning_rate=1e-2, loss=Squared()))
    fresh.load_state_dict(saved)
    fresh.update(batch_of(segments), REINFORCE)
    assert_same_weights(weights_of(learner), weights_of(fresh))


def test_a_gradient_that_is_not_finite_moves_nothing(make_learner: Any) -> None:
    learner = make_learner()
    before = weights_of(learner)
    next(learner.policy.parameters()).register_hook(lambda gradient: gradient * math.inf)
    with pytest.raises(NonFiniteUpdate, match="step 0: the gradient norm of the policy"):
        learner.update(batch_of(trajectories()), REINFORCE)
    assert_same_weights(weights_of(learner), before)
    assert learner.step == 0


def test_a_batch_without_any_unmasked_token_is_refused(make_learner: Any) -> None:
    with pytest.raises(ValueError, match="no unmasked action token"):
        make_learner().update(batch_of([segment((1,), (2,), sequence=0, mask=(False,))]), REINFORCE)


def test_processes_that_did_not_join_are_noticed(accelerator: Accelerator, monkeypatch: pytest.MonkeyPatch) -> None:
    check_world(accelerator)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match="2 processes were started but accelerate joined 1"):
        check_world(accelerator)


# --- it learns -----------------------------------------------------------------------------------------------------


def bandit_probability(learner: Learner, steps: int, *, wanted: int = 7) -> float:
    """REINFORCE with the batch mean as baseline; the reward is 1 for one token of the vocabulary."""
    generator = torch.Generator().manual_seed(0)
    prompt = (1, 2, 3)

    def probabilities() -> torch.Tensor:
        with torch.no_grad():
            return learner.policy(input_ids=torch.tensor([prompt])).logits[0, -1].softmax(-1)

    for _ in range(steps):
        actions = torch.multinomial(probabilities(), 64, replacement=True, generator=generator)
        rewards = (actions == wanted).float()
        gains = (rewards - rewards.mean()).tolist()
        batch = [
            segment(prompt, (a,), sequence=k, advantages=(gain,))
            for k, (a, gain) in enumerate(zip(actions.tolist(), gains, strict=True))
        ]
        learner.update(batch_of(batch), REINFORCE)
    return float(probabilities()[wanted])


def test_reinforce_solves_a_bandit_with_32_arms(make_learner: Any) -> None:
    learner = make_learner(learning_rate=3e-3)
    assert bandit_probability(learner, 0) < 0.1
    assert bandit_probability(learner, 40) > 0.95


def test_the_same_seed_learns_the_same_weights(make_learner: Any) -> None:
    runs = [make_learner(), make_learner()]
    for learner in runs:
        bandit_probability(learner, 5)
    assert_same_weights(weights_of(runs[0]), weights_of(runs[1]))


@pytest.mark.parametrize("kind", ["model", "head"])
def test_the_critic_learns_values_that_depend_on_the_state(make_learner: Any, kind: str) -> None:
    # What comes next pays 1 after the token 5 and -1 after the token 6; the value is read before the action token.
    learner = make_learner(critic=CriticSettings(kind=kind, learning_rate=1e-2, loss=Squared()))  # type: ignore[arg-type]
    batch = [
        segment((1, token), (9, 8), sequence=token, returns=(gain, gain), advantages=(0.0, 0.0))
        for token, gain in ((5, 1.0), (6, -1.0))
    ]
    assert [row.tolist() for row in per_turn(learner.values, batch)] == [[0.0, 0.0], [0.0, 0.0]]
    before = weights_of(learner)
    for _ in range(60):
        metrics = learner.update(batch_of(batch), REINFORCE)
    assert [float(row[0]) for row in per_turn(learner.values, batch)] == pytest.approx([1.0, -1.0], abs=0.2)
    assert metrics["critic/loss"] < 0.02
    assert_same_weights(weights_of(learner), before)  # advantages were 0: the critic trained nothing of the policy


def test_a_critic_needs_targets_and_values_need_a_critic(make_learner: Any) -> None:
    with pytest.raises(ValueError, match="the critic has no targets"):
        make_learner(critic=CriticSettings()).update(batch_of(trajectories()), REINFORCE)
    with pytest.raises(ConfigError, match="has no critic"):
        per_turn(make_learner().values, trajectories())


# --- LoRA, references, weights, checkpoints ------------------------------------------------------------------------


def test_lora_trains_the_adapter_and_hands_out_merged_weights(make_learner: Any) -> None:
    base = {name: p.clone() for name, p in tiny_llama(VOCAB, hidden=32).named_parameters()}
    learner = make_learner(with_lora(tiny_llama(VOCAB, hidden=32), rank=4), reference="adapter")
    assert_same_weights(weights_of(learner), base)  # a new adapter is the identity
    before = per_turn(learner.logprobs, trajectories())
    learner.update(batch_of(trajectories()), REINFORCE)

    trained = weights_of(learner)
    changed = {name for name in base if not torch.equal(base[name], trained[name])}
    assert changed and all("proj" in name for name in changed)
    merged = LlamaForCausalLM(learner.policy.config)
    missing, unexpected = merged.load_state_dict(trained, strict=False)
    assert missing == ["lm_head.weight"] and not unexpected  # tied to the embedding
    merged.tie_weights()
    ids = torch.tensor([[1, 2, 3, 4, 5]])
    torch.testing.assert_close(merged(input_ids=ids).logits, learner.policy(input_ids=ids).logits)

    after = per_turn(learner.logprobs, trajectories())
    assert not torch.allclose(torch.cat(after), torch.cat(before), atol=1e-3)
    torch.testing.assert_close(torch.cat(per_turn(learner.reference_logprobs, trajectories())), torch.cat(before))


def test_a_copied_reference_stays_where_the_policy_began(make_learner: Any) -> None:
    learner = make_learner(reference="copy")
    before = torch.cat(per_turn(learner.logprobs, trajectories()))
    learner.update(batch_of(trajectories()), REINFORCE)
    torch.testing.assert_close(torch.cat(per_turn(learner.reference_logprobs, trajectories())), before)
    with pytest.raises(ConfigError, match="has no reference"):
        per_turn(make_learner().reference_logprobs, trajectories())
    with pytest.raises(ConfigError, match="needs a policy with a LoRA adapter"):
        make_learner(reference="adapter")


def test_a_tied_head_is_handed_out_once(make_learner: Any) -> None:
    names = [name for name, _ in make_learner().weights()]
    assert "lm_head.weight" not in names and "model.embed_tokens.weight" in names and len(names) == len(set(names))
    untied = make_learner(tiny_llama(VOCAB, hidden=32, tied=False))
    assert "lm_head.weight" in [name for name, _ in untied.weights()]


@pytest.mark.parametrize("lora", [False, True])
def test_save_pretrained_is_the_policy(make_learner: Any, tmp_path: Path, lora: bool) -> None:
    model = tiny_llama(VOCAB, hidden=32)
    learner = make_learner(with_lora(model, rank=4) if lora else model)
    learner.update(batch_of(trajectories()), REINFORCE)
    learner.save_pretrained(tmp_path)
    loaded = LlamaForCausalLM.from_pretrained(tmp_path)
    ids = torch.tensor([[1, 2, 3, 4, 5]])
    torch.testing.assert_close(loaded(input_ids=ids).logits, learner.policy(input_ids=ids).logits)


@pytest.mark.parametrize("lora", [False, True])
def test_a_resumed_learner_goes_on_bit_for_bit(make_learner: Any, tmp_path: Path, lora: bool) -> None:
    def make() -> Learner:
        model = tiny_llama(VOCAB, hidden=32)
        policy = with_lora(model, rank=4) if lora else model
        return make_learner(policy, warmup_steps=5, critic=CriticSettings(learning_rate=1e-2, loss=Squared()))

    segments = [replace(one, returns=one.advantages) for one in trajectories()]
    straight = make()
    for _ in range(2):
        straight.update(batch_of(segments), REINFORCE, minibatches=2)
    straight.save_state(tmp_path)
    resumed = make()
    resumed.load_state(tmp_path)
    for learner in (straight, resumed):
        learner.update(batch_of(segments), REINFORCE, minibatches=2)
    assert resumed.step == straight.step == 6
    assert_same_weights(weights_of(resumed), weights_of(straight))
    assert torch.equal(torch.cat(per_turn(resumed.values, segments)), torch.cat(per_turn(straight.values, segments)))
    with pytest.raises(ValueError, match="whether they have a critic"):
        make_learner().load_state(tmp_path)


def test_the_learning_rate_warms_up_and_stays() -> None:
    settings = OptimiserSettings(learning_rate=4.0, warmup_steps=4)
    assert [settings.rate(step) for step in range(6)] == [1.0, 2.0, 3.0, 4.0, 4.0, 4.0]
    assert OptimiserSettings(learning_rate=4.0).rate(0) == 4.0


# --- filters -------------------------------------------------------------------------------------------------------


def drifted(names: tuple[int, ...], learner: Learner) -> list[SpelledTurn]:
    """The trajectories, the named sequences as if sampled by a policy that gave each token e times less."""
    plain = trajectories()
    now = [row.tolist() for row in per_turn(learner.logprobs, plain)]
    shift = [1.0 if one.sequence in names else 0.0 for one in plain]
    return [replace(one, logprobs_sampled=[x - s for x in row]) for one, row, s in zip(plain, now, shift, strict=True)]


@pytest.mark.parametrize("correction", ["token_mask", "sequence_mask"])
@pytest.mark.parametrize("aggregation", AGGREGATIONS)
def test_what_a_mask_drops_also_leaves_the_denominator(
    make_learner: Any, correction: str, aggregation: Aggregation
) -> None:
    length = 8 if aggregation == "constant" else None
    plain = replace(REINFORCE, aggregation=aggregation, max_length=length, correction="none")
    segments = drifted((0,), make_learner(tiny_llama(VOCAB, hidden=32).double()))
    masked = gradients(make_learner, segments, replace(plain, correction=correction), token_budget=12)
    # Dr. GRPO's constant counts every sequence, dropped or not; the others only what is left
    empty = [replace(one, mask=(False,) * len(one.action_ids)) if one.sequence == 0 else one for one in segments]
    alone = gradients(make_learner, empty, plain, token_budget=1000)
    for mine, theirs in zip(masked, alone, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-8)


def test_a_step_whose_tokens_are_all_filtered_away_moves_nothing(make_learner: Any) -> None:
    learner = make_learner()
    segments = drifted(tuple({one.sequence for one in trajectories()}), learner)
    before = weights_of(learner)
    metrics = learner.update(batch_of(segments), PolicyObjective(correction="sequence_mask"))
    assert_same_weights(before, weights_of(learner))
    assert metrics["policy/filtered_frac"] == 1.0 and learner.step == 0
