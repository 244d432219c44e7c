"""What turn-level critics read with: a frozen body is read once and learns the same heads; an encoder of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from torch import Tensor
from transformers import BertConfig, BertModel, RobertaConfig, RobertaModel, T5Config, T5Model

from rollwright.batching.packing import PackedBatch
from rollwright.contracts.errors import ConfigError, NonFiniteUpdate
from rollwright.critics.critic_body import CriticBody, cut_to, other_body, policy_body
from rollwright.critics.frozen_critic import FrozenValueLearner
from rollwright.critics.turn_critic import TurnCriticSettings, ValueLearner, readings
from rollwright.learner.optimisation import OptimiserSettings
from rollwright.models.loading import load_policy
from rollwright.models.tiny_model import make_tiny_model
from rollwright.recipes import digirl

TEXTS = ("open the red door", "open the blue door and wait", "close it")
SETTINGS = OptimiserSettings(learning_rate=3e-3)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tiny")
    make_tiny_model(path, texts=list(TEXTS), hidden=32, layers=2, context_length=64, seed=0)
    return path


@pytest.fixture(scope="module")
def states(folder: Path) -> list[tuple[int, ...]]:
    tokenizer = load_policy(folder)[1]
    return [tuple(tokenizer(text)["input_ids"]) for text in TEXTS]


def learner(kind: Any, body: CriticBody, **more: Any) -> Any:
    torch.manual_seed(0)
    shape = TurnCriticSettings(heads={"v": 2, "q": 2}, width=16)
    return kind(Accelerator(), body, shape, SETTINGS, **({"polyak": 0.3} | more))


def towards(states: Any, targets: Tensor) -> Any:
    """Both heads are to say the same of these states."""
    return {name: (states, targets) for name in ("v", "q")}


def plain(folder: Path) -> CriticBody:
    torch.manual_seed(7)
    body = policy_body(load_policy(folder)[0])
    with torch.no_grad():
        for parameter in body.module.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return body


class Counted(FrozenValueLearner):
    """Knows how many sequences its body has read."""

    reads = 0

    def _compute(self, packed: PackedBatch) -> dict[str, Tensor]:
        self.reads += len(packed.slots)
        return super()._compute(packed)


def test_frozen_heads_learn_what_they_learn_on_a_body_that_is_held_still(folder: Path, states: Any) -> None:
    still = plain(folder)
    still.module.requires_grad_(False)
    whole, frozen = learner(ValueLearner, still), learner(Counted, plain(folder))
    frozen.scaling.fix = lambda hidden: None  # the heads of a trained body see its states as they are
    targets = torch.tensor([1.0, -2.0, 0.5])
    for _ in range(20):
        expected, found = (critic.update(towards(states, targets)) for critic in (whole, frozen))
        assert found == pytest.approx(expected, rel=1e-4)
    for slow in (False, True):
        expected, found = (critic.read(states, slow=slow) for critic in (whole, frozen))
        for name in ("v", "q"):
            torch.testing.assert_close(found[name], expected[name], rtol=0, atol=1e-4)
    assert not torch.allclose(frozen.read(states)["v"], frozen.read(states, slow=True)["v"], atol=1e-3)
    assert frozen.reads == 3, "each sequence is read once"


def test_a_frozen_critic_learns_and_its_body_does_not(folder: Path, states: Any) -> None:
    body = plain(folder)
    before = [p.clone() for p in body.module.parameters()]
    critic, targets = learner(FrozenValueLearner, body), torch.tensor([1.0, -2.0, 0.5])
    for _ in range(300):
        critic.update(towards(states, targets))
    assert (critic.read(states)["v"] - targets).abs().max() < 0.1
    assert all(torch.equal(*pair) for pair in zip(before, body.module.parameters(), strict=True))


def test_a_resumed_frozen_critic_goes_on_bit_for_bit(folder: Path, states: Any, tmp_path: Path) -> None:
    critic, targets = learner(FrozenValueLearner, plain(folder)), torch.tensor([1.0, -2.0, 0.5])
    critic.update(towards(states[:1], targets[:1]))
    critic.update(towards(states[:2], targets[:2]))  # the second is read beside none, later it would be beside others
    critic.save_state(tmp_path)
    again = learner(Counted, plain(folder))
    again.load_state(tmp_path)
    assert again.update(towards(states, targets)) == critic.update(towards(states, targets))
    assert torch.equal(again.read(states, slow=True)["q"], critic.read(states, slow=True)["q"])
    assert (again.step, again.reads) == (3, 1), "what was known is known again"


def test_the_oldest_states_are_forgotten(folder: Path, states: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rollwright.critics.frozen_critic._MOST_BYTES", 2 * 4 * 32)
    critic = learner(Counted, plain(folder))
    values = critic.read(states)["v"]
    assert len(critic._hidden) == 2
    torch.testing.assert_close(critic.read(states)["v"], values)
    assert critic.reads == 4


def test_heads_see_deviations_from_what_was_read_first(folder: Path, states: Any) -> None:
    critic = learner(FrozenValueLearner, plain(folder))
    assert (critic.read(states)["v"] == 0).all()
    critic.update(towards(states, torch.tensor([1.0, -2.0, 0.5])))
    hidden = torch.cat(list(critic._hidden.values()))
    scaled = critic.scaling(hidden)
    assert len(hidden) == 3 and hidden.mean(dim=0).abs().max() > 0.1
    torch.testing.assert_close(scaled.mean(dim=0), torch.zeros(32), rtol=0, atol=1e-5)
    torch.testing.assert_close(scaled.square().mean(dim=0), torch.ones(32), rtol=0.05, atol=0)
    shift, factor = critic.scaling.shift.clone(), critic.scaling.factor.clone()
    critic.read([(5, 6, 7, 8)])
    critic.update(towards([(5, 6, 7, 8)], torch.tensor([1.0])))
    assert torch.equal(critic.scaling.shift, shift) and torch.equal(critic.scaling.factor, factor), "for good"


@torch.no_grad()
def test_a_body_can_be_cut_to_its_lower_layers(folder: Path, states: Any, tmp_path: Path) -> None:
    policy, tokenizer = load_policy(folder)
    whole = policy_body(policy).module(input_ids=torch.tensor([states[0]]), output_hidden_states=True)
    half = cut_to(policy_body(policy), 0.5)
    assert len(half.module.layers) == 1 and len(policy_body(policy).module.layers) == 2
    found = learner(FrozenValueLearner, half).states(readings(states[:1]))[0]
    torch.testing.assert_close(found, half.module.norm(whole.hidden_states[1])[0, -1], rtol=0, atol=1e-5)
    assert cut_to(policy_body(policy), 1.0).module.config.num_hidden_layers == 2
    encoder = cut_to(other_body(saved_encoder(tmp_path, tokenizer, "bert"), tokenizer), 0.1)
    assert len(encoder.module.encoder.layer) == 1
    learner(ValueLearner, encoder).read(states)
    with pytest.raises(ConfigError, match="0 stacks of 7"):
        policy.config.num_hidden_layers = 7
        cut_to(CriticBody(policy), 0.5)


def test_bad_numbers_and_a_missing_copy_are_errors(folder: Path, states: Any) -> None:
    critic = learner(FrozenValueLearner, plain(folder), polyak=None)
    before = critic.read(states)["v"]
    with pytest.raises(NonFiniteUpdate):
        critic.update(towards(states, torch.tensor([1.0, float("nan"), 0.0])))
    assert torch.equal(critic.read(states)["v"], before)
    with pytest.raises(ConfigError, match="no slow copy"):
        critic.read(states, slow=True)
    with pytest.raises(ValueError, match="empty"):
        critic.read([()])


def saved_encoder(folder: Path, tokenizer: Any, kind: str, positions: int = 12) -> Path:
    shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    shape |= {"vocab_size": len(tokenizer), "max_position_embeddings": positions}
    torch.manual_seed(5)
    if kind == "roberta":
        model: Any = RobertaModel(RobertaConfig(**shape, pad_token_id=1))
    elif kind == "bert":
        model = BertModel(BertConfig(**shape))
    else:
        model = T5Model(T5Config(vocab_size=len(tokenizer), d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("kind", ["bert", "roberta"])
@torch.no_grad()
def test_an_encoder_reads_each_sequence_as_if_it_were_alone(
    folder: Path, states: Any, tmp_path: Path, kind: str
) -> None:
    tokenizer = load_policy(folder)[1]
    body = other_body(saved_encoder(tmp_path, tokenizer, kind), tokenizer)
    own = body.own_ids(states)
    assert body.foreign and len({len(ids) for ids in own}) > 1, "rows of one length need no mask"
    critic = learner(FrozenValueLearner, body)
    found = critic.states(readings(own))
    for ids, state in zip(own, found, strict=True):
        alone = body.module(input_ids=torch.tensor([ids])).last_hidden_state[0, -1]
        torch.testing.assert_close(state, alone, rtol=0, atol=1e-5)


def test_a_long_sequence_keeps_its_end(folder: Path, tmp_path: Path) -> None:
    tokenizer = load_policy(folder)[1]
    body = other_body(saved_encoder(tmp_path, tokenizer, "roberta", positions=12), tokenizer)
    long = tuple(tokenizer("open the red door and the blue door and wait " * 9)["input_ids"])
    (own,) = body.own_ids([long])
    assert len(own) == 10, "RoBERTa's positions begin behind its padding id"
    assert tokenizer.decode(long).strip().endswith(tokenizer.decode(own).strip())
    learner(ValueLearner, body).read([long])


@pytest.mark.long
def test_an_encoder_is_trained_with_its_heads(folder: Path, states: Any, tmp_path: Path) -> None:
    tokenizer = load_policy(folder)[1]
    body = other_body(saved_encoder(tmp_path, tokenizer, "bert"), tokenizer)
    before = [p.clone() for p in body.module.parameters()]
    critic, targets = learner(ValueLearner, body), torch.tensor([1.0, -2.0, 0.5])
    assert body.module.config.hidden_dropout_prob == 0 and body.module.pooler is None
    for _ in range(150):
        critic.update(towards(states, targets))
    assert (critic.read(states)["v"] - targets).abs().max() < 0.1
    moved = [not torch.equal(*pair) for pair in zip(before, body.module.parameters(), strict=True)]
    assert sum(moved) > len(moved) - 3, "only embeddings of what never came may stay"


def test_a_model_that_cannot_be_read_with_is_an_error(folder: Path, tmp_path: Path) -> None:
    tokenizer = load_policy(folder)[1]
    with pytest.raises(ConfigError, match="no model folder"):
        other_body(tmp_path / "nowhere", tokenizer)
    with pytest.raises(ConfigError, match="cannot be read"):
        other_body(tmp_path, tokenizer)
    with pytest.raises(ConfigError, match="encoder and decoder"):
        other_body(saved_encoder(tmp_path / "t5", tokenizer, "t5"), tokenizer)


SMALL = [
    "recipes/text/maze_digirl.yaml",
    "model.path=tiny",
    "model.tiny_hidden=32",
    "model.tiny_layers=1",
    "algorithm.actor=awr",
    "~algorithm.top_frac",
    "rollout.groups_per_step=3",
    "rollout.max_turns=4",
    "run.steps=2",
    "evaluation.seeds_per_task=1",
    "evaluation.max_turns=2",
]


@pytest.mark.slow
@pytest.mark.usefixtures("at_root")
def test_a_recipe_reads_with_what_it_is_told_to(folder: Path, tmp_path: Path) -> None:
    encoder = saved_encoder(tmp_path / "bert", load_policy(folder)[1], "bert", positions=64)
    bodies = [f"step_critic.model={encoder}", "instruction_critic.frozen=true"]
    digirl.main([*SMALL, *bodies, f"run.folder={tmp_path / 'run'}"])
    (last,) = sorted((tmp_path / "run" / "checkpoints").glob("step_*"))[-1:]
    saved = {name: torch.load(last / f"{name}.pt", weights_only=True) for name in ("v_step", "v_instruction")}
    assert "body.encoder.layer.0.output.dense.weight" in saved["v_step"]["fast"]["weights"]
    assert len(saved["v_instruction"]["hidden"]) > 0 and saved["v_instruction"]["step"] > 0
    with pytest.raises(ConfigError, match="no model folder"):
        digirl.main([*SMALL, f"step_critic.model={tmp_path / 'nowhere'}", f"run.folder={tmp_path / 'wrong'}"])
