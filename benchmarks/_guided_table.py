"""RLGF and PPO with tables in place of networks; world, collector, guide, roll-ins, masks, GAE and loss are real.

A policy is a row of logits for each state, a critic a number for each. What `recipes/rlgf.py` does with a language
model is done here in seconds, so that many seeds fit into a table.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

import torch
from torch import Tensor

from rollwright.batching import TokenBatch, flatten, flatten_guided
from rollwright.batching.value_estimators import Gae
from rollwright.contracts import ActionRule, Group, Message, Observation, Span, World, episode_seed
from rollwright.curriculum import RollIns, UniformCurriculum
from rollwright.generation import Generation, Sampling
from rollwright.maths import guided_masks, guided_mode
from rollwright.maths.losses import PpoClip, policy_loss
from rollwright.rollout import Collector, EngineActor, FaultLog, Limits, MixedActor, RolloutSettings
from rollwright.rollout.guides.scripted_guides import TeacherGuide
from rollwright.training import OnPolicy, Requests


class Latest:
    """A context of the latest observation alone, in characters."""

    def __init__(self, words: Words) -> None:
        self.words, self.ids = words, tuple[int, ...]()

    def observe(self, observation: Observation) -> tuple[Message, ...]:
        self.ids = tuple(map(ord, observation.text))
        return ()

    def prompt_ids(self, reserve: int) -> tuple[int, ...]:
        return self.ids

    def act(self, generation: Generation) -> str:
        return self.words.decode_action(generation.token_ids)


class Words:
    """Every action is one token."""

    def __init__(self, actions: Sequence[str]) -> None:
        self.actions = tuple(actions)

    def encode_action(self, text: str) -> tuple[int, ...]:
        return (self.actions.index(text.strip()),)

    def decode_action(self, ids: Sequence[int]) -> str:
        return self.actions[ids[0]]


class Tables:
    """Logits and values by state, behind the engine's contract; draws are fixed by the request's seed."""

    name, version, context_length = "tables", 0, 100_000

    def __init__(self, actions: int, *, rate: float, weak: float, seed: int) -> None:
        self.places: dict[tuple[int, ...], int] = {}
        # Start logits: uniform, or slightly wrong at random.
        self.logits = weak * torch.randn(512, actions, generator=torch.Generator().manual_seed(seed))
        self.logits.requires_grad_()
        self.values = {name: torch.zeros(512, requires_grad=True) for name in ("policy", "guide")}
        self.moves = torch.optim.Adam([self.logits], lr=rate)
        # One optimiser per critic, kept over every change of mode.
        self.fits = {name: torch.optim.Adam([table], lr=rate) for name, table in self.values.items()}

    def state(self, prompt: tuple[int, ...]) -> int:
        return self.places.setdefault(prompt, len(self.places))

    async def generate(self, prompt_ids: tuple[int, ...], sampling: Sampling, *, request_id: str) -> Generation:
        odds = self.logits[self.state(prompt_ids)].detach().log_softmax(-1)
        action = random.Random(f"{request_id}/{sampling.seed}").choices(range(len(odds)), odds.exp().tolist())[0]
        span = Span(start=0, end=1, version=0)
        return Generation(token_ids=(action,), logprobs=(float(odds[action]),), finish_reason="stop", spans=(span,))

    def close(self) -> None: ...


class Learner:
    """The update of one step, in the two modes of RLGF."""

    def __init__(self, tables: Tables, *, gamma: float, gae_lambda: float, epochs: int) -> None:
        self.tables, self.epochs = tables, epochs
        self.estimator = Gae(gamma=gamma, gae_lambda=gae_lambda)

    def learn(self, groups: Sequence[Group], mode: str) -> None:
        """PPO++ on what follows the prefixes; AggreVaTeD inside them, and its critic behind them."""
        if mode == "ppo++":
            batch = flatten(groups)
            everything = torch.ones(len(batch), dtype=torch.bool)
            self.step(batch, everything, everything, "policy")
            return
        found = flatten_guided(groups)
        policy, value = guided_masks(found.positions, found.prefix, mode="aggrevated")
        self.step(found.tokens, policy & found.own, value, "guide")

    def step(self, batch: TokenBatch, policy: Tensor, value: Tensor, critic: str) -> None:
        tables = self.tables
        states = torch.tensor([tables.state(turn.prompt_ids) for turn in batch.turns])
        actions = torch.tensor([turn.action_ids[0] for turn in batch.turns])
        values = tables.values[critic]
        found = self.estimator(batch, values.detach()[states])
        old = tables.logits.detach().log_softmax(-1)[states, actions]
        for _ in range(self.epochs):
            now = tables.logits.log_softmax(-1)[states, actions]
            each = policy_loss(
                now,
                old,
                found.advantages,
                policy,
                batch.sequence_index,
                num_sequences=batch.num_sequences,
                level="token",
                clip=PpoClip(low=0.2, high=0.2),
            ).losses
            if policy.any():
                move(tables.moves, each[policy].mean())
            if value.any():
                move(tables.fits[critic], 0.5 * (values[states] - found.returns)[value].square().mean())


def move(optimiser: torch.optim.Optimizer, loss: Tensor) -> None:
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()


def train(
    world: World,
    actions: Sequence[str],
    *,
    method: str,
    seed: int,
    env_steps: int,
    episodes: int,
    beta: float = 0.8,
    switch_frac: float = 1 / 3,
    rate: float = 0.1,
    weak: float = 0.0,
    gamma: float = 1.0,
    judged: int = 64,
) -> dict[str, float]:
    """Train until so many environment steps are spent, then play held-out episodes by the policy alone.

    Args:
        method: of RLGF, or "ppo". switch_frac: share of the budget after which D2LOLS begins PPO++.

    Returns:
        `success` (of the held-out episodes), `returns` (their mean), `env_steps` and own `episodes` that were spent.
    """
    words = Words(actions)
    tables = Tables(len(actions), rate=rate, weak=weak, seed=seed)
    guide = TeacherGuide(world, words.encode_action)
    actor = MixedActor(EngineActor(tables), guide=guide, overseer=None, codec=words, rule=ActionRule("all"))
    made = Collector(
        world,
        actor,
        lambda: Latest(words),
        sampling=Sampling(max_tokens=1),
        limits=Limits(max_turns=world.max_turns),
        faults=FaultLog(None),
    )
    rolls = RollIns(made.collect, seed=seed, beta=0.0 if method == "ppo" else beta, horizon=world.max_turns)
    rollout = RolloutSettings(group_size=1, groups_per_step=episodes)
    curriculum = UniformCurriculum(world.tasks("train"), seed=seed)
    source = OnPolicy(Requests(rollout, curriculum, seed=seed), rolls.play)
    learner = Learner(tables, gamma=gamma, gae_lambda=0.95, epochs=4)
    spent, step = 0.0, 0
    while spent < env_steps:
        late = 10**9 if spent < switch_frac * env_steps else 0
        named = "ppo++" if method == "ppo" else method
        mode = guided_mode(named, step=step, seed=seed, ppo_frac=0.8, switch_step=late)  # type: ignore[arg-type]
        rolls.begin(step, mode)
        learner.learn(source.take(step), mode)
        spent += rolls.metrics()["rlgf/env_steps_count"]
        step += 1
    tasks = world.tasks("test")
    wanted = [(task, n) for task in tasks for n in range(max(1, judged // len(tasks)))]
    requests = [made.request(f"judge/{task.id}/{n}", task, episode_seed("test", task.id, n)) for task, n in wanted]
    played = made.play(requests)
    made.close()
    return {
        "success": sum(bool(t.success) for t in played) / len(played),
        "returns": sum(t.total_reward for t in played) / len(played),
        "env_steps": spent,
        "episodes": float(step * episodes),
    }
