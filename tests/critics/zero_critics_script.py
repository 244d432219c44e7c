"""Started by test_zero_critics.py, alone or as two ranks: critics in training beside a policy, whole or with LoRA.

python tests/critics/zero_critics_script.py FOLDER
"""

from __future__ import annotations

from rollwright.config.launch_env import prepare_environment

prepare_environment()

import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import BertConfig, BertModel

from rollwright.batching import Segment, TokenBatch
from rollwright.contracts.errors import ConfigError
from rollwright.critics.critic_body import CriticBody, policy_body
from rollwright.critics.frozen_critic import FrozenValueLearner
from rollwright.critics.outcome_values import fit_outcomes, success_probability
from rollwright.critics.turn_critic import TurnCriticSettings, ValueLearner
from rollwright.learner.learner import Learner
from rollwright.learner.objective import PolicyObjective
from rollwright.learner.optimisation import OptimiserSettings
from rollwright.learner.policy_losses import Reinforce
from rollwright.learner.ranks import open_accelerator, under_deepspeed
from rollwright.learner.weights import gathered
from rollwright.maths import outcome_loss
from rollwright.models.loading import with_lora
from rollwright.models.tiny_model import tiny_llama

VOCAB, STEPS = 32, 5
STATES = [tuple((5 + 3 * k + i) % VOCAB for i in range(2 + k % 5)) for k in range(7)]
SHAPES = {
    "archer": ({"q": 2, "v": 2}, 0.3),
    "v_instruction": ({"v": 1}, None),
    "v_step": ({"v": 2}, None),
    "frozen": ({"v": 2}, 0.3),
    "encoder": ({"v": 1}, None),
}
REINFORCE = PolicyObjective(loss=Reinforce(), correction="none")


def encoder() -> CriticBody:
    """A tiny one that looks both ways and has ids of its own."""
    shape: dict[str, Any] = {
        "hidden_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 64,
    }
    shape |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        module = BertModel(BertConfig(vocab_size=VOCAB + 2, **shape), add_pooling_layer=False).eval()
    return CriticBody(module, lambda ids: (VOCAB, *ids, VOCAB + 1))


class Quintet:
    """A policy, ArCHer's critic with its slow copy, DigiRL's two, one whose body is frozen, and an encoder."""

    def __init__(self, lora_rank: int, *, saved: Path | None = None) -> None:
        """Opened, and put back, in the order of a run: the learner's state is loaded before there are critics."""
        torch.manual_seed(0)
        model = tiny_llama(VOCAB, hidden=32, layers=1)
        policy = with_lora(model, rank=lora_rank, seed=0) if lora_rank else model
        self.learner = Learner(open_accelerator(), policy, learning_rate=1e-3, token_budget=9)
        if saved:
            self.learner.load_state(saved)
        self.critics: dict[str, ValueLearner | FrozenValueLearner] = {}
        for name, (heads, polyak) in SHAPES.items():
            torch.manual_seed(1)
            kind = FrozenValueLearner if name == "frozen" else ValueLearner
            self.critics[name] = kind(
                self.learner.accelerator,
                encoder() if name == "encoder" else policy_body(self.learner.policy),
                TurnCriticSettings(heads=heads, width=16),
                OptimiserSettings(learning_rate=3e-3),
                losses={} if polyak else {"v": outcome_loss},
                polyak=polyak,
                token_budget=9,
                name=name,
            )
            if saved:
                self.critics[name].load_state(saved)

    def step(self, number: int) -> dict[str, float]:
        """Of three steps one has a single state: a rank is left without work."""
        states = STATES[: 1 if number % 3 == 2 else 7]
        labels = torch.tensor([float(k % 2) for k in range(len(states))]).numpy()
        metrics = self.bootstrapped(states)
        for name in ("v_instruction", "v_step", "frozen", "encoder"):
            metrics |= fit_outcomes(self.critics[name], "v", states, labels)
        promised = success_probability(self.critics["v_step"], "v", states)
        batch = TokenBatch.of([acted(k) for k in range(len(states))])
        gains = torch.as_tensor(labels, dtype=torch.float32) - promised
        batch = batch.with_columns(logprobs_sampled=torch.full((len(batch),), -3.0), advantages=gains[batch.turn_index])
        return metrics | self.learner.update(batch, REINFORCE)

    def bootstrapped(self, states: list[tuple[int, ...]]) -> dict[str, float]:
        """Q towards 1 + 0.9 V_slow, V towards Q_slow, each head towards its own."""
        critic = self.critics["archer"]
        slow = critic.read(states, slow=True)
        targets = {"q": 1.0 + 0.9 * slow["v"], "v": slow["q"]}
        return critic.update({name: (states, rows) for name, rows in targets.items()})

    def save(self, folder: Path) -> None:
        self.learner.save_state(folder)
        for critic in self.critics.values():
            critic.save_state(folder)

    def weights(self) -> dict[str, Tensor]:
        named = {f"policy.{name}": tensor.clone() for name, tensor in self.learner.weights()}
        for name, critic in self.critics.items():
            module = critic.heads if isinstance(critic, FrozenValueLearner) else critic.module
            for key, parameter in module.named_parameters():
                with gathered([parameter]):
                    named[f"{name}.fast.{key}"] = parameter.detach().clone()
        archer = self.critics["archer"]
        assert isinstance(archer, ValueLearner)
        named |= {f"archer.slow.{key}": p.clone() for key, p in archer.slow.named_parameters()}
        return named


def acted(k: int) -> Segment:
    ids = tuple((7 + k + i) % VOCAB for i in range(1 + k % 3))
    return Segment(prompt_ids=STATES[k], action_ids=ids, sequence=k)


def train(folder: Path, *, lora_rank: int, cut: int | None) -> None:
    """Losses, norms and weights of a run; from step `cut` on also of one that was resumed there."""
    run = Quintet(lora_rank)
    rows = []
    for number in range(STEPS):
        if number == cut:
            run.save(folder)
        rows.append(run.step(number))
    saved = {"rows": rows, "weights": run.weights()}
    run.learner.accelerator.free_memory()
    if cut is not None:
        again = Quintet(lora_rank, saved=folder)
        saved["resumed_rows"] = [again.step(number) for number in range(cut, STEPS)]
        saved["resumed_weights"] = again.weights()
        again.learner.accelerator.free_memory()
    if run.learner.ranks.first:
        torch.save(saved, folder / "run.pt")


def main() -> None:
    stage = 0
    if under_deepspeed():  # without this DeepSpeed leaves parameters as small as these whole on every rank
        plugin = open_accelerator().state.deepspeed_plugin
        stage = plugin.zero_stage
        plugin.deepspeed_config["zero_optimization"]["stage3_param_persistence_threshold"] = 0
    for name in ("whole", "lora"):
        (Path(sys.argv[1]) / name).mkdir(exist_ok=True)
    train(Path(sys.argv[1]) / "whole", lora_rank=0, cut=3)
    if stage < 3:
        train(Path(sys.argv[1]) / "lora", lora_rank=2, cut=None)
        return
    try:
        Quintet(lora_rank=2)
        raise AssertionError("a critic started from a sharded LoRA policy")
    except ConfigError as error:
        assert "use ZeRO-1 or ZeRO-2" in str(error)


if __name__ == "__main__":
    main()
