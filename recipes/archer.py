"""ArCHer: an off-policy critic of whole utterances above, a policy gradient inside each utterance below.

    for each step:
        collect   episodes (not in the offline steps), into the store: the buffer is everything so far; nothing more
                  while it warms up (replay.*, WSRL)
        critic    Q(s, a) -> r + gamma V_slow(s'),   V(s) -> Q_slow(s, a') with a' freshly sampled; two heads of each
        actor     after the warm-up: states from the buffer, fresh a, A = min Q(s, a) - min V(s), -A log pi(a | s);
                  with a token baseline -(A - v(s, a^<t)) log pi(a^t | s, a^<t), and v -> A at each of a's tokens
        sync      the engine to the new weights

The critic learns from old data, the actor only from what it would say now, so no importance ratio is needed.
`algorithm.critic=iql` with `algorithm.actor=awr` is the offline form: V by expectile regression on Q_slow(s, a) of the
stored actions, and the stored actions weighted by exp(A / temperature). `algorithm.critic=fdvl_tv` or `fdvl_chi2` takes
f-DVL's value loss in the expectile's place, `algorithm.actor=dual` its weights in the exponential's. Sources:
arXiv:2402.19446 and its two released repositories, arXiv:2302.08560; docs/methods/archer.md, fdvl.md.

    accelerate launch --config_file accelerate_configs/cpu.yaml recipes/archer.py recipes/text/maze_archer.yaml
"""

from __future__ import annotations

from rollwright.config import prepare_environment

prepare_environment()  # before torch is imported: its thread pools read the environment once

from collections.abc import Iterator, Sequence
from typing import ClassVar, Literal

from pydantic import Field, model_validator
from torch import Tensor

from rollwright.config import Config, Readers, Unread
from rollwright.contracts import Group
from rollwright.critics import (
    DIVERGENCES,
    FreshActions,
    RegressedCriticFit,
    TokenCriticFit,
    WeightedLikelihood,
    actor_weights,
    baseline_critic,
    followed,
    least_advantages,
    loss_of_v,
    one_step_targets,
    open_turn_critic,
    residual_ratio,
    stored_batch,
    with_fresh_actions,
    with_token_baseline,
)
from rollwright.store import data_checks
from rollwright.store.replay import OnlineReplaySettings, Transition, valid_turns
from rollwright.training import (
    OWN_UPDATES,
    LoopConfig,
    PhasedMethod,
    ReplayPhases,
    Training,
    plan_text,
    recipe_config,
    replay_loop,
    run_recipe,
)


class AlgorithmSettings(Config):
    """The two levels."""

    critic: Literal["policy", "iql", "fdvl_tv", "fdvl_chi2"] = Field(
        "policy", description="Whether V is learned from fresh actions, or from stored ones (IQL, f-DVL)."
    )
    actor: Literal["reinforce", "awr", "dual"] = Field(
        "reinforce",
        description="Actions that the policy learns from: fresh ones, or stored ones weighted by exp(A) or "
        "f-DVL's weight.",
    )
    baseline: Literal["none", "token"] = Field(
        "none", description="reinforce: subtract a learned token-level baseline from A."
    )
    gamma: float = Field(0.95, ge=0, le=1, description="Discount per turn.")
    polyak: float = Field(
        0.1, gt=0, le=1, description="Polyak rate at which the target critic follows, per critic step."
    )
    expectile: float = Field(0.9, gt=0, lt=1, description="iql: tau of the expectile loss.")
    alpha: float = Field(
        0.8,
        gt=0.5,
        lt=1,
        description="fdvl: how far V leans towards the best action; for tv, the (2 - 1 / alpha)-quantile.",
    )
    temperature: float = Field(1.0, gt=0, description="awr: temperature in exp(A / temperature).")
    cap: float | None = Field(
        None,
        gt=0,
        description="awr: maximum weight; null = not capped, as in ArCHer's code; IQL and f-DVL use 100.",
    )
    truncated_end: bool = Field(
        False,
        description="Treat a time limit as the task's own end, as the released code does: a cut episode has "
        "no further value.",
    )
    offline_steps: int = Field(0, ge=0, description="Number of initial steps that learn only from `replay.stores`.")
    warmup_steps: int = Field(0, ge=0, description="Number of initial steps in which only the critic learns.")
    actor_updates: int = Field(3, ge=0, description="Optimiser steps of the policy per step of the run.")
    batch_size: int = Field(128, ge=1, description="Number of states per optimiser step of the policy.")

    only_for: ClassVar[Readers] = {
        "expectile": {"critic": ("iql",)},
        "alpha": {"critic": ("fdvl_tv", "fdvl_chi2")},
        "temperature": {"actor": ("awr",)},
        "cap": {"actor": ("awr",)},
    }

    @model_validator(mode="after")
    def _the_actor_has_what_it_needs(self) -> AlgorithmSettings:
        if self.actor == "dual" and self.critic not in DIVERGENCES:
            raise ValueError(f"`actor=dual` weighs by the divergence of `critic`: use {', '.join(DIVERGENCES)}")
        if self.baseline == "token" and self.actor != "reinforce":
            raise ValueError(f"`baseline=token` is of a policy gradient, `actor={self.actor}` imitates: use reinforce")
        return self


class CriticFit(RegressedCriticFit):
    """Q and V of whole utterances."""

    updates: int = Field(50, ge=0, description="Optimiser steps per step of the run.")
    batch_size: int = Field(128, ge=1, description="Number of turns per optimiser step.")


class ArcherReplay(OnlineReplaySettings):
    """Stores, and how much of a batch is theirs."""

    offline_frac: float | None = Field(
        None,
        ge=0,
        le=1,
        description="Share of each batch drawn from `stores` (RLPD: 0.5); null = in proportion to their size.",
    )


class ArcherConfig(LoopConfig):
    """Everything an ArCHer run reads."""

    algorithm: AlgorithmSettings = AlgorithmSettings()
    replay: ArcherReplay = ArcherReplay()
    critic: CriticFit = CriticFit()
    baseline: TokenCriticFit = TokenCriticFit()

    only_for: ClassVar[Readers] = {"baseline": {"algorithm.baseline": ("token",)}}
    unread: ClassVar[Unread] = OWN_UPDATES


def main(argv: list[str] | None = None) -> None:
    """Run ArCHer as the configuration says."""
    config = recipe_config(ArcherConfig, argv, plan=plan_text)
    # Before anything is opened: without stores the offline steps would learn from nothing.
    data_checks.require_stores(config.algorithm.offline_steps, config.replay.stores)
    token_critic = baseline_critic(config.baseline) if config.algorithm.baseline == "token" else None
    with Training.start(config, critic=token_critic) as run:
        replay_loop(run, Archer(run, config))


class Archer(PhasedMethod):
    """The critic, the replayed turns, and one step on each level."""

    def __init__(self, run: Training, config: ArcherConfig) -> None:
        self.run, self.config, self.algorithm = run, config, config.algorithm
        algorithm, self.offline_frac = config.algorithm, config.replay.offline_frac
        offline, batch = algorithm.offline_steps, config.critic.batch_size
        self.phases = ReplayPhases(config.replay, run.store, offline_steps=offline, batch_size=batch)
        # Two of each: the actor takes the smaller one, as a single head overrates actions.
        heads = {"q": 2, "v": 2}
        # Q keeps the squared error, or the loss that `critic.loss` names.
        losses = {"v": loss_of_v(algorithm.critic, expectile=algorithm.expectile, alpha=algorithm.alpha)}
        self.critic = open_turn_critic(
            config, run.learner, run.codec, config.critic, heads, name="critic", losses=losses, polyak=algorithm.polyak
        )
        self.fresh = FreshActions(run.engine, run.collector.sampling, seed=config.run.seed)
        run.attach(self.critic)  # into checkpoints; the buffer is read from the store again
        self.phases.require_usable(run.codec, run.learner.policy)

    def draw(self, step: int, groups: Sequence[Group]) -> None:
        """Look at what there is."""
        # After a cut that left no next prompt there is nothing to bootstrap from, unless a limit counts as the end.
        self.turns = valid_turns(self.table, needs_next=not self.algorithm.truncated_end)
        self.actor_rests = step < self.algorithm.warmup_steps
        self.fresh.begin(step)  # draws are counted within a step, so that a resumed run draws the same

    def fit(self) -> dict[str, float]:
        """Steps of temporal differences on both heads of Q and V, each head to its own slow copy."""
        metrics: dict[str, float] = {}
        for batch, judged in self.critic_batches():
            states, acted = [t.prompt_ids for t in batch], [t.prompt_ids + t.action_ids for t in batch]
            targets = self.targets(batch, judged)
            metrics = self.critic.update({"q": (acted, targets["q"]), "v": (states, targets["v"])})
        if metrics:
            metrics |= {f"critic/{name}_mean": float(rows.mean()) for name, rows in targets.items()}
        return metrics

    def critic_batches(self) -> Iterator[tuple[list[Transition], list[tuple[int, ...]]]]:
        """Batches of turns, and the states of each with the actions that V is the value of.

        The policy stands still while the critic is fitted, so one call samples the fresh actions of all batches.
        """
        count, size = self.config.critic.updates if len(self.turns) else 0, self.config.critic.batch_size
        turns = self.sample(count * size)
        # IQL and f-DVL never ask for the value of an action that is not among the data.
        acting = with_fresh_actions(turns, self.fresh) if self.algorithm.critic == "policy" else turns
        judged = [t.prompt_ids + t.action_ids for t in acting]
        for at in range(0, len(turns), size):
            yield turns[at : at + size], judged[at : at + size]

    def targets(self, batch: Sequence[Transition], judged: Sequence[tuple[int, ...]]) -> dict[str, Tensor]:
        """[2, n] each, by the slow copies: r + gamma V(s') for Q, and Q of the judged actions for V."""
        cut = self.algorithm.truncated_end
        # Where the task has ended there is no next state to read.
        follows = [batch[k].next_prompt_ids for k in followed(batch, truncated_end=cut)]
        slow = self.critic.read([*judged, *follows], slow=True)  # together, so that common prefixes are read once
        v, q = slow["v"][:, len(judged) :], slow["q"][:, : len(judged)]
        return {"q": one_step_targets(batch, v, gamma=self.algorithm.gamma, truncated_end=cut), "v": q}

    def update(self) -> dict[str, float]:
        """Steps of policy gradient (or of weighted imitation) under the critic's advantage; none in the warm-up."""
        metrics: dict[str, float] = {}
        how, rests = self.algorithm, self.actor_rests or not len(self.turns)
        for number in range(0 if rests else how.actor_updates):
            batch = self.sample(how.batch_size)
            if how.actor == "reinforce":
                if number:
                    self.run.sync()  # the next actions must be those of the policy that is trained
                batch = with_fresh_actions(batch, self.fresh)
            advantages = least_advantages(self.critic, batch)
            weights = actor_weights(advantages, how.actor, critic=how.critic, temperature=how.temperature, cap=how.cap)
            tokens = stored_batch(batch, weights.tolist())
            if how.baseline == "token":
                # Read before the update, which fits the baseline with the same batch.
                tokens = with_token_baseline(tokens, self.run.learner.values(tokens))
                metrics = {"archer/residual_ratio": residual_ratio(tokens)}
            # No ratio: a fresh action is the policy's own, and a stored one is imitated.
            metrics |= self.run.learner.update(tokens, WeightedLikelihood())
            metrics |= {"archer/advantage_mean": float(advantages.mean())}
        return metrics


if __name__ == "__main__":
    run_recipe(main)
