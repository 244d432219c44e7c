"""Dropout: an update computes what was sampled, whatever dropout a model's configuration names."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel, GPTNeoXConfig, GPTNeoXForCausalLM, OPTConfig, OPTForCausalLM

from rollwright.config import build
from rollwright.contracts.errors import ConfigError
from rollwright.critics.critic_body import policy_body
from rollwright.critics.turn_critic import TurnCriticSettings, ValueLearner
from rollwright.learner.learner import Learner
from rollwright.learner.objective import PolicyObjective
from rollwright.learner.optimisation import OptimiserSettings
from rollwright.learner.policy_losses import Ppo
from rollwright.learner.token_critic import CriticSettings, Squared
from rollwright.models.loading import with_lora
from rollwright.models.starting_model import ModelSettings
from tests.token_batches import SpelledTurn, batch_of, per_turn

VOCAB = 32
PPO = PolicyObjective(loss=Ppo(), correction="none", kl_coef=0.1)


def gpt2() -> Any:
    return GPT2LMHeadModel(GPT2Config(vocab_size=VOCAB, n_positions=64, n_embd=32, n_layer=2, n_head=2))


def opt() -> Any:  # dropout by functions, which look at no nn.Dropout, and whole layers dropped
    config = OPTConfig(
        vocab_size=VOCAB, hidden_size=32, ffn_dim=64, num_hidden_layers=2, num_attention_heads=2, layerdrop=0.3
    )
    return OPTForCausalLM(config)


def neox() -> Any:
    config = GPTNeoXConfig(
        vocab_size=VOCAB,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        attention_dropout=0.2,
        hidden_dropout=0.2,
    )
    return GPTNeoXForCausalLM(config)


@pytest.fixture(params=[gpt2, opt, neox])
def model(request: pytest.FixtureRequest) -> Any:
    torch.manual_seed(0)
    return request.param().eval()


def batch() -> list[SpelledTurn]:
    generator = torch.Generator().manual_seed(1)
    draws = torch.randint(3, VOCAB, (8, 10), generator=generator).tolist()
    return [
        SpelledTurn(
            prompt_ids=row[:4],
            action_ids=row[4:],
            logprobs_sampled=(-3.0,) * 6,
            advantages=(1.0 if index % 2 else -1.0,) * 6,
            sequence=index,
        )
        for index, row in enumerate(draws)
    ]


def updated(learner: Learner, loss: PolicyObjective = PPO) -> dict[str, float]:
    """Metrics of two steps that hardly move, on old and reference log-probs of the policy itself."""
    segments = batch()
    rows = per_turn(learner.logprobs, segments)
    segments = [replace(one, logprobs_ref=row.tolist()) for one, row in zip(segments, rows, strict=True)]
    return learner.update(batch_of(segments), loss, minibatches=2)


def test_a_policy_at_rest_is_neither_clipped_nor_away_from_itself(model: Any) -> None:
    metrics = updated(Learner(Accelerator(cpu=True), model, learning_rate=1e-12))
    assert metrics["policy/ratio_clipped_frac"] == 0
    assert abs(metrics["policy/kl_old_mean"]) < 1e-6
    assert abs(metrics["policy/kl_ref_mean"]) < 1e-6


def test_dropout_is_there_for_who_asks(model: Any) -> None:
    metrics = updated(Learner(Accelerator(cpu=True), model, learning_rate=1e-12, dropout=True))
    assert abs(metrics["policy/kl_ref_mean"]) > 1e-4


@pytest.mark.parametrize("rate", [0.0, 0.5])
def test_the_dropout_of_an_adapter_is_a_key_of_its_own(model: Any, rate: float) -> None:
    adapted = with_lora(model, rank=4, dropout=rate)
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter)
    metrics = updated(Learner(Accelerator(cpu=True), adapted, learning_rate=1e-12))
    assert (abs(metrics["policy/kl_ref_mean"]) > 1e-4) == (rate > 0)


def test_critics_that_begin_as_the_policy_have_no_dropout_either(model: Any) -> None:
    learner = Learner(
        Accelerator(cpu=True), model, learning_rate=1e-12, critic=CriticSettings(learning_rate=1e-12, loss=Squared())
    )
    segments = [replace(one, returns=(1.0,) * 6) for one in batch()]
    seen = training_of(
        learner._critic.module.body, lambda: learner.update(batch_of(segments), replace(PPO, kl_coef=0.0))
    )  # type: ignore[union-attr]
    assert seen == {False}
    turns = ValueLearner(
        Accelerator(cpu=True),
        policy_body(model),
        TurnCriticSettings(heads={"v": 1}),
        OptimiserSettings(learning_rate=1e-12),
        name="turns",
    )
    body = turns._fast.module.body
    assert training_of(body, lambda: turns.update_tokens(batch(), {}, lambda rows, _: rows["v"][0].square())) == {False}


def training_of(body: Any, call: Any) -> set[bool]:
    """In which modes the modules of a transformer were run while something was called."""
    seen: set[bool] = set()
    hooks = [m.register_forward_pre_hook(lambda m, _: seen.add(m.training)) for m in body.modules()]
    try:
        call()
    finally:
        for hook in hooks:
            hook.remove()
    return seen


def test_an_adapters_dropout_without_an_adapter_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"learner\.dropout"):
        build(ModelSettings, {"lora_dropout": 0.1})
