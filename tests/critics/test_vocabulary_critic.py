"""Token-level Q: chains of action tokens across turns, the heads, and acting with logits + beta Q."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator

from rollwright.config import load_config
from rollwright.contracts.errors import ConfigError
from rollwright.contracts.record import StopReason, Turn
from rollwright.critics.critic_body import CriticBody
from rollwright.critics.critic_learner import CriticLearner
from rollwright.critics.critic_targets import ColumnLoss, Columns, Readings
from rollwright.critics.replay_updates import stored_batch
from rollwright.critics.token_q import decode_with
from rollwright.critics.token_steps import token_steps
from rollwright.critics.vocabulary_critic import (
    FrozenVocabularyLearner,
    Perturbation,
    VocabularyQ,
    VocabularyQSettings,
    vocabulary_q,
)
from rollwright.generation.engine import Sampling
from rollwright.generation.scripted_engine import ScriptedEngine
from rollwright.generation.transformers_engine import TransformersEngine
from rollwright.learner.optimisation import OptimiserSettings
from rollwright.models.loading import load_policy
from rollwright.models.tiny_model import make_tiny_model
from rollwright.recipes.ilql import IlqlConfig
from rollwright.recipes.mc import McConfig
from rollwright.store.replay import TurnTable
from rollwright.training.token_q_config import TokenQConfig
from tests import builders


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tiny")
    make_tiny_model(path, texts=["some words to make a vocabulary of"], hidden=32, layers=2, context_length=64, seed=0)
    return path


def turn(prompt: tuple[int, ...], action: tuple[int, ...], reward: float) -> Turn:
    return builders.turn(prompt, action, reward or None)


@pytest.fixture
def table(tmp_path: Path) -> TurnTable:
    """E A A E A, as the LMRL-Gym card has it (state positions 0, 1, 3; next states 1, 3, end), and one that was cut."""
    ended = (turn((5,), (6, 7), 1.0), turn((5, 6, 7, 8), (9,), 2.0))
    cut = (turn((10,), (11,), 4.0),)
    return builders.table_of(
        tmp_path / "store",
        builders.episode("a", *ended),
        builders.episode("b", *cut, stop=StopReason.MAX_TURNS, next_prompt_ids=(10, 12)),
    )


def test_the_next_state_skips_the_environment_and_crosses_turns(table: TurnTable) -> None:
    steps = token_steps(table, np.arange(3))
    assert steps.rewards.tolist() == [0.0, 1.0, 2.0, 4.0] and steps.index.tolist() == [0, 0, 0, 1]
    # One value per action token, then the state after the cut trajectory.
    values = torch.tensor([10.0, 11.0, 13.0, 20.0, 99.0])
    assert len(steps.readings) == 4
    assert steps.next_values(values).tolist() == [11.0, 13.0, 0.0, 99.0], "terminated: 0; truncated: what comes next"


def test_gamma_counts_action_tokens_only(table: TurnTable) -> None:
    steps = token_steps(table, np.arange(3))
    assert steps.returns(0.5).tolist() == [0.0 + 0.5 * (1.0 + 0.5 * 2.0), 1.0 + 0.5 * 2.0, 2.0, 4.0]


def critic(folder: Path, *, bias: float = 0.0) -> CriticLearner:
    torch.manual_seed(0)
    policy, _ = load_policy(folder, "float32")
    module = vocabulary_q(policy, VocabularyQSettings(width=16, bias=bias))
    return CriticLearner(Accelerator(), module, OptimiserSettings(learning_rate=1e-2), polyak=0.1)


@pytest.mark.long
def test_heads_learn_the_value_of_the_token_taken(table: TurnTable, folder: Path) -> None:
    learner, segments = critic(folder, bias=-4.4), stored_batch(table.transitions([0, 2]), [0.0, 0.0]).segments
    first = learner.read_tokens(segments)
    assert torch.equal(first["q"], torch.full((2, 3), -4.4)) and torch.equal(first["v"], torch.full((1, 3), -4.4))
    targets = torch.tensor([1.0, -1.0, 2.0])

    def loss(values: Readings, columns: Columns) -> torch.Tensor:
        return (values["q"] - columns["q"]).square().sum(dim=0)

    for _ in range(200):
        learner.update_tokens(segments, {"q": targets}, loss)
    assert (learner.read_tokens(segments)["q"] - targets).abs().max() < 0.1
    module = learner.module
    assert isinstance(module, VocabularyQ)
    # What acting sees after prompt and half an action is what was learned at that position.
    table_q = module.next_token_q([(5,), (5, 6), (10,)])
    assert table_q[0, 6] == pytest.approx(1.0, abs=0.1) and table_q[1, 7] == pytest.approx(-1.0, abs=0.1)
    assert table_q[2, 11] == pytest.approx(2.0, abs=0.1)


def sample(engine: TransformersEngine, count: int) -> list[tuple[int, ...]]:
    async def ask() -> list[tuple[int, ...]]:
        wanted = [engine.generate((5, 6), Sampling(max_tokens=3, seed=i), request_id=str(i)) for i in range(count)]
        return [generation.token_ids for generation in await asyncio.gather(*wanted)]

    return asyncio.run(ask())


def test_a_new_critic_acts_as_the_policy_and_a_large_beta_follows_q(folder: Path) -> None:
    model, _ = load_policy(folder, "float32")
    learner = critic(folder)
    module = learner.module
    assert isinstance(module, VocabularyQ)
    engine = TransformersEngine(model, seed=1)
    try:
        plain = sample(engine, 6)
        engine.perturb(Perturbation(critic=module, beta=16.0))
        assert sample(engine, 6) == plain, "its last layers are zero: Q is the same for every token"
        with torch.no_grad():
            for head in module.heads.q:
                head[-1].bias[9] = 5.0  # token 9 is worth 5 everywhere
            module.heads.q[0][-1].bias[8] = 50.0  # only one head thinks so of token 8: the smaller one counts
        assert sample(engine, 6) == [(9, 9, 9)] * 6
        engine.perturb(Perturbation(critic=module, beta=0.0))
        assert sample(engine, 6) == plain
        engine.perturb(None)
        assert sample(engine, 6) == plain
    finally:
        engine.close()


def test_acting_reads_each_token_once_and_sees_what_whole_sequences_say(folder: Path) -> None:
    module = critic(folder).module
    assert isinstance(module, VocabularyQ)
    torch.manual_seed(0)
    for head in module.heads.q:
        torch.nn.init.normal_(head[-1].weight)
    read: list[int] = []
    module.body.register_forward_pre_hook(
        lambda _, args, words: read.append(words["input_ids"].numel()), with_kwargs=True
    )
    act, zeros = Perturbation(critic=module, beta=1.0), torch.zeros(1, module.heads.q[0][-1].out_features)

    def check(sequences: list[tuple[int, ...]], *, tokens: int) -> None:
        read.clear()
        found, counted = act(sequences, zeros), sum(read)
        assert counted == tokens
        for ids, row in zip(sequences, found, strict=True):
            torch.testing.assert_close(row, module.next_token_q([ids])[0], rtol=1e-5, atol=1e-5)

    check([(5, 6), (7, 8, 9), (5, 6)], tokens=6)  # two distinct, padded to the longer
    check([(5, 6, 4), (7, 8, 9, 1), (5, 6, 3)], tokens=3)  # the two that were one part
    check([(5, 6, 3, 2), (4, 4, 4)], tokens=1 + 3)  # some have ended, one is new
    check([(4, 4, 4, 9), (5, 6, 3, 2, 7)], tokens=2)  # in another order
    with torch.no_grad():
        next(module.body.parameters()).mul_(1.5)
    check([(4, 4, 4, 9, 1), (5, 6, 3, 2, 7, 7)], tokens=5 + 6 + 1)  # other weights: all is read again, one padded

    def fail(*_: Any) -> None:
        raise RuntimeError("out of memory")

    failing = module.body.norm.register_forward_pre_hook(fail)  # keys and values have been added by then
    with pytest.raises(RuntimeError, match="out of memory"):
        act([(4, 4, 4, 9, 1, 1)], zeros)
    failing.remove()
    check([(4, 4, 4, 9, 1, 1)], tokens=6)


def frozen(folder: Path) -> FrozenVocabularyLearner:
    torch.manual_seed(0)
    made = vocabulary_q(load_policy(folder, "float32")[0], VocabularyQSettings(width=16))
    optimiser = OptimiserSettings(learning_rate=1e-2)
    return FrozenVocabularyLearner(Accelerator(), CriticBody(made.body), made.heads, optimiser, polyak=0.1)


def both_pulled(values: Readings, columns: Columns) -> torch.Tensor:
    pulled = (values["q"] - columns["both"]).square().sum(dim=0) + (values["v"][0] - columns["both"]).square()
    return pulled + 0.1 * values["cql"].sum(dim=0)


def towards(*targets: float) -> tuple[Columns, ColumnLoss]:
    """Q and V are to say the same, and a little conservatism."""
    return {"both": torch.tensor(targets)}, both_pulled


def test_frozen_heads_learn_what_they_learn_on_layers_that_are_held_still(table: TurnTable, folder: Path) -> None:
    segments = stored_batch(table.transitions([0, 2]), [0.0, 0.0]).segments
    whole, heads = critic(folder), frozen(folder)
    whole.module.body.requires_grad_(False)  # type: ignore[union-attr]
    heads.scaling.fix = lambda hidden: None  # type: ignore[method-assign, assignment]
    for _ in range(20):
        expected, found = (one.update_tokens(segments, *towards(1.0, -1.0, 2.0)) for one in (whole, heads))
        assert found == pytest.approx(expected, rel=1e-4)
    for slow in (False, True):
        expected, found = (one.read_tokens(segments, slow=slow) for one in (whole, heads))
        for name, rows in expected.items():  # type: ignore[assignment]
            torch.testing.assert_close(found[name], rows, rtol=0, atol=1e-4)
    assert sum(len(rows) for rows in heads._hidden.values()) == 3, "one state per action token"


@pytest.mark.parametrize("slow", [False, True])
def test_a_frozen_critic_acts_as_it_reads(table: TurnTable, folder: Path, slow: bool) -> None:
    segments, learner = stored_batch(table.transitions([0, 2]), [0.0, 0.0]).segments, frozen(folder)
    acting = learner.slow if slow else learner.module  # made before the first update, as engines are told of it
    for _ in range(30):
        learner.update_tokens(segments, *towards(1.0, -1.0, 2.0))
    read = learner.read_tokens(segments, slow=slow)["q"].min(dim=0).values
    assert not torch.equal(learner.scaling.factor, torch.ones(32))
    shown = acting.next_token_q([(5,), (5, 6), (10,)])
    torch.testing.assert_close(shown[[0, 1, 2], [6, 7, 11]], read, rtol=0, atol=1e-4)


def test_a_resumed_frozen_critic_goes_on_bit_for_bit(table: TurnTable, folder: Path, tmp_path: Path) -> None:
    segments = stored_batch(table.transitions([0, 2]), [0.0, 0.0]).segments
    learner, again = frozen(folder), frozen(folder)
    learner.update_tokens(segments[:1], *towards(1.0, -1.0))
    learner.save_state(tmp_path)
    again.load_state(tmp_path)
    assert torch.equal(again.scaling.shift, learner.scaling.shift)
    results = [one.update_tokens(segments, *towards(1.0, -1.0, 2.0)) for one in (learner, again)]
    assert results[0] == results[1]
    first, second = (one.slow.next_token_q([(5, 6)]) for one in (learner, again))
    assert torch.equal(first, second)


@torch.no_grad()
def test_a_critic_may_read_with_the_lower_layers(folder: Path) -> None:
    policy = load_policy(folder, "float32")[0]
    half = vocabulary_q(policy, VocabularyQSettings(width=16), depth=0.5)
    assert len(half.body.layers) == 1 and len(policy.model.layers) == 2
    zeros = torch.zeros(1, policy.config.vocab_size)
    assert torch.equal(Perturbation(critic=half, beta=8.0)([(5, 6, 7)], zeros), zeros)
    lower = policy.model(input_ids=torch.tensor([[5, 6]]), output_hidden_states=True).hidden_states[1]
    found = half.body(input_ids=torch.tensor([[5, 6]])).last_hidden_state
    torch.testing.assert_close(found, policy.model.norm(lower), rtol=0, atol=1e-5)


@pytest.mark.parametrize(("config", "yaml"), [(IlqlConfig, "maze_ilql.yaml"), (McConfig, "maze_mc.yaml")])
def test_a_server_is_refused_when_the_settings_are_read(config: type[TokenQConfig], yaml: str) -> None:
    file = str(Path(__file__).resolve().parents[2] / "recipes" / "text" / yaml)
    for name in ("vllm", "transformers", "auto"):
        assert load_config(config, [file, f"engine.name={name}"]).engine.name == name
    with pytest.raises(ConfigError, match=r"engine\.name=vllm or transformers, not vllm_server"):
        load_config(config, [file, "engine.name=vllm_server"])


def test_an_engine_or_a_critic_out_of_reach_is_refused(folder: Path) -> None:
    module = critic(folder).module
    with pytest.raises(ConfigError, match="not scripted"):
        decode_with(ScriptedEngine(["up"], lambda _: (5,)), module, beta=1.0)
    engine = TransformersEngine(load_policy(folder, "float32")[0])
    try:
        next(module.parameters()).data = torch.empty(0)  # what ZeRO-3 leaves on every rank
        with pytest.raises(ConfigError, match="whole on each rank"):
            decode_with(engine, module, beta=1.0)
    finally:
        engine.close()
