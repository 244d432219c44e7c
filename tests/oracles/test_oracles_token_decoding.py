"""What decoding with values of tokens must not depend on (arXiv:2206.11871, ILQL).

Logits get beta Q added, in which V would cancel: a function of the state in both Q and V changes no probability and no
token that an engine samples. What differs from token to token does.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from torch import Tensor, nn

from rollwright.critics.critic_learner import CriticLearner
from rollwright.critics.fresh_actions import sample_actions
from rollwright.critics.token_q import decode_with
from rollwright.critics.vocabulary_critic import Perturbation, VocabularyQ, VocabularyQSettings, vocabulary_q
from rollwright.generation.engine import Sampling
from rollwright.generation.transformers_engine import TransformersEngine
from rollwright.learner.optimisation import OptimiserSettings
from rollwright.models.loading import load_policy
from rollwright.models.tiny_model import make_tiny_model

HIDDEN = 32
PROMPTS = [(5, 6), (7,), (9, 8, 4), (6, 6, 6, 2)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tiny")
    make_tiny_model(
        path, texts=["some words to make a vocabulary of"], hidden=HIDDEN, layers=1, context_length=64, seed=0
    )
    return path


class Shifted(nn.Module):
    """A head and a function of the state, the same for every token."""

    def __init__(self, head: nn.Module, shift: nn.Module) -> None:
        super().__init__()
        self.head, self.shift = head, shift

    def forward(self, hidden: Tensor) -> Tensor:
        added: Tensor = self.head(hidden) + self.shift(hidden)
        return added


def shift(module: VocabularyQ, size: float) -> None:
    """Add one function of the state to every head of Q and to V."""
    first, last = nn.Linear(HIDDEN, 8), nn.Linear(8, 1)
    nn.init.normal_(first.weight)
    nn.init.normal_(last.weight, std=size)
    moved = nn.Sequential(first, nn.Tanh(), last).requires_grad_(False)
    for number, head in enumerate(list(module.heads.q)):
        module.heads.q[number] = Shifted(head, moved)
    module.heads.v = Shifted(module.heads.v, moved)  # type: ignore[assignment]


def last_layer(head: nn.Module) -> nn.Linear:
    inner = head.head if isinstance(head, Shifted) else head
    assert isinstance(inner, nn.Sequential) and isinstance(inner[-1], nn.Linear)
    return inner[-1]


def opinionated(folder: Path) -> VocabularyQ:
    """A critic whose heads differ from token to token and from one another."""
    torch.manual_seed(0)
    critic = vocabulary_q(load_policy(folder, "float32")[0], VocabularyQSettings(width=32))
    module = CriticLearner(Accelerator(), critic, OptimiserSettings(learning_rate=3e-3), polyak=0.2).module
    assert isinstance(module, VocabularyQ)
    for head in module.heads.q:
        nn.init.normal_(last_layer(head).weight, std=0.3)
    return module


@torch.no_grad()
def test_a_function_of_the_state_in_q_and_v_changes_no_probability(folder: Path) -> None:
    module = opinionated(folder)
    logits = torch.randn(len(PROMPTS), module.next_token_q(PROMPTS).shape[1])
    act = Perturbation(critic=module, beta=4.0)
    plain_q, plain = module.next_token_q(PROMPTS), act(PROMPTS, logits)
    shift(module, size=3.0)
    moved_q, moved = module.next_token_q(PROMPTS), Perturbation(critic=module, beta=4.0)(PROMPTS, logits)
    by_state = (moved_q - plain_q).mean(dim=1)
    torch.testing.assert_close(moved_q - plain_q, by_state[:, None].expand_as(plain_q), rtol=0, atol=1e-4)
    assert by_state.abs().max() > 0.5 and (by_state[0] - by_state[1]).abs() > 0.1, "it must be worth cancelling"
    torch.testing.assert_close(moved.softmax(dim=-1), plain.softmax(dim=-1), rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(moved - plain, 4.0 * by_state[:, None].expand_as(plain), rtol=0, atol=1e-3)
    assert (plain.softmax(dim=-1) - logits.softmax(dim=-1)).abs().max() > 0.05, "while Q itself does change them"


def test_an_engine_samples_the_same_tokens_under_a_shifted_q(folder: Path) -> None:
    model, _ = load_policy(folder, "float32")
    module, engine = opinionated(folder), TransformersEngine(model, seed=1)

    def sample() -> list[tuple[int, ...]]:
        asks = [PROMPTS[k % len(PROMPTS)] for k in range(12)]
        drawn = sample_actions(engine, asks, Sampling(max_tokens=4), key="same")
        return [generation.token_ids for generation in drawn]

    try:
        alone = sample()
        decode_with(engine, module, beta=6.0)
        plain = sample()
        shift(module, size=3.0)
        decode_with(engine, module, beta=6.0)
        assert sample() == plain and plain != alone
        with torch.no_grad():
            for head in module.heads.q:
                last_layer(head).bias[9] += 5.0
        assert sample() != plain, "one token's value is no function of the state"
    finally:
        engine.close()
