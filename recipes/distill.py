"""On-policy distillation: the student plays its own episodes, a teacher scores every token that the student sampled.

    for each step:
        collect   G groups of K episodes of the student, by its own prompts
        score     by the reward, where its advantage is mixed in
        teach     the teacher reads the same actions behind its own prompts: another model, or the student's weights
                  with a hint that the student is not given; x = log pi(a) - log nu(a) of every token
        credit    A = w A_RL + clip(-c x), with w from `rl_from` to `rl_to`
        update    policy gradient on the student's tokens; or on w A_RL, beside a divergence over the vocabulary
        sync      the engine to the new weights; the teacher follows, where it is to

`algorithm.form=sampled` reads one log-prob per token; full, top_k and jsd compare distributions. `distill.hint_from`
says what the teacher knows and the student does not. Sources: arXiv:2306.13649 (GKD), arXiv:2604.24005 (TCOD),
arXiv:2601.19897 (SDFT), arXiv:2601.20802 (SDPO); see docs/methods/distill.md.

    accelerate launch --config_file accelerate_configs/cpu.yaml recipes/distill.py recipes/text/lock_distill.yaml
"""

from __future__ import annotations

from rollwright.config import prepare_environment

prepare_environment()  # before torch is imported: its thread pools read the environment once

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import ClassVar, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor

from rollwright.batching import TokenBatch, flatten, with_members
from rollwright.config import Config, Readers
from rollwright.curriculum import turn_depth
from rollwright.learner import PolicyObjective, Ppo, TeacherObjective
from rollwright.maths.advantages import dr_grpo, grpo
from rollwright.maths.losses import Aggregation, Rest, discounted_ahead, distillation_advantages
from rollwright.methods import TeacherSettings, TurnTeacher, distillation_metrics, log_ratios, require_teachable
from rollwright.training import LoopConfig, Training, close_play, open_world, plan_text, recipe_config, run_recipe


class AlgorithmSettings(Config):
    """The divergence, what is mixed with it, and how deep episodes go."""

    form: Literal["sampled", "full", "top_k", "jsd"] = Field(
        "sampled",
        description="sampled: the log-ratio of the sampled token as its advantage. full: reverse KL over the "
        "vocabulary. top_k: over the student's likeliest tokens. jsd: GKD's Jensen-Shannon divergence.",
    )
    coef: float = Field(1.0, ge=0, description="Coefficient c of the log-ratio or of the divergence.")
    clip: float = Field(5.0, gt=0, description="sampled: -c x is clipped to this on both sides.")
    gamma: float = Field(
        0.0, ge=0, le=1, description="sampled: discount of the log-ratios of later tokens; 1 = the KL of the sequence."
    )
    top_k: int = Field(32, ge=1, description="top_k: number of tokens.")
    rest: Rest = Field("tail", description="top_k: what becomes of the other tokens' probability.")
    beta: float = Field(0.5, gt=0, lt=1, description="jsd: from forward KL (0) to reverse KL (1).")
    rl_from: float = Field(0.0, ge=0, description="Weight w of the reward's advantage at the first step.")
    rl_to: float = Field(0.0, ge=0, description="Weight w after `rl_steps` steps.")
    rl_steps: int = Field(0, ge=0, description="Steps from `rl_from` to `rl_to`, in a straight line.")
    advantage: Literal["grpo", "dr_grpo"] = Field("grpo", description="Estimator of the reward's advantage.")
    unit: Literal["turn", "episode"] = Field(
        "turn", description="What a sequence is in the aggregation: turn and seq-mean-token-mean give the turn-mean."
    )
    aggregation: Aggregation = Field("seq-mean-token-mean", description="How token losses are reduced to one number.")
    clip_eps: float = Field(0.2, gt=0, le=1, description="PPO's clip of the ratio, on both sides.")
    depth: Literal["whole", "growing"] = Field(
        "whole", description="growing: at first only the first turns of an episode are played (TCOD, F2B)."
    )
    depth_first: int = Field(1, ge=1, description="growing: turns at the first step.")
    depth_every: int = Field(6, ge=1, description="growing: steps until one more turn is played.")
    depth_most: int = Field(30, ge=1, description="growing: maximum number of turns.")

    only_for: ClassVar[Readers] = {
        **{name: {"form": ("sampled",)} for name in ("clip", "gamma")},
        **{name: {"form": ("top_k",)} for name in ("top_k", "rest")},
        "beta": {"form": ("jsd",)},
        **{name: {"depth": ("growing",)} for name in ("depth_first", "depth_every", "depth_most")},
    }

    @model_validator(mode="after")
    def _numbers_fit_together(self) -> AlgorithmSettings:
        if self.depth_most < self.depth_first:
            raise ValueError(f"`depth_most={self.depth_most}` is below `depth_first={self.depth_first}`: raise it")
        if self.aggregation == "constant":
            raise ValueError("`aggregation=constant` is Dr. GRPO's for whole episodes: use one of the means here")
        return self

    @property
    def mixes(self) -> bool:
        """Whether a reward has a say at any step."""
        return self.rl_from > 0 or self.rl_to > 0

    def rl_weight(self, step: int) -> float:
        """w at a step."""
        along = min(1.0, step / self.rl_steps) if self.rl_steps else 1.0
        return self.rl_from + (self.rl_to - self.rl_from) * along


class DistillConfig(LoopConfig):
    """Everything a run of distillation reads."""

    algorithm: AlgorithmSettings = AlgorithmSettings()
    distill: TeacherSettings = TeacherSettings()

    @model_validator(mode="after")
    def _parts_fit_together(self) -> DistillConfig:
        form, rollout = self.algorithm.form, self.rollout
        if self.distill.teacher == "script" and form != "sampled":
            raise ValueError(
                f"`distill.teacher=script` has a score of the sampled token alone, and `algorithm.form={form}` "
                "compares distributions: use algorithm.form=sampled"
            )
        if rollout.max_staleness:
            raise ValueError(
                f"`rollout.max_staleness={rollout.max_staleness}` would distil what older weights sampled: the "
                "log-ratio is that of the policy which acted. Set it to 0"
            )
        if self.algorithm.mixes and rollout.group_size < 2:
            raise ValueError(
                "`algorithm.rl_from` or `rl_to` above 0 compares the episodes of a group, but `rollout.group_size` is "
                "1: use 2 or more, or set both to 0"
            )
        return self


def main(argv: list[str] | None = None) -> None:
    """Run the recipe on these words of a command line; None is this process's own."""
    config = recipe_config(DistillConfig, argv, plan=plan_text)
    algorithm, rollout = config.algorithm, config.rollout
    require_world(config)
    with Training.start(config) as run:
        teacher = TurnTeacher(
            config.distill,
            run.learner,
            run.collector,
            run.codec,
            temperature=rollout.temperature,
            context=rollout.context,
            longest=run.engine.context_length,
            top_k={"sampled": None, "top_k": algorithm.top_k}.get(algorithm.form, 0),
        )
        run.attach(teacher)
        objective = objective_of_form(algorithm, teacher)
        for step in run.steps():
            with depth_of(run, algorithm, step) as told:
                groups = run.score(run.collect(step))
            weight = algorithm.rl_weight(step)
            # Siblings are compared only where a reward has a say.
            usable = with_members(groups, 2 if algorithm.mixes else 1)
            batch = flatten(usable) if usable else None
            if batch is not None:
                with run.learning():
                    batch = batch.with_columns(logprobs_old=run.learner.logprobs(batch))
                    batch = teacher.taught(batch, usable)
                told |= distillation_metrics(batch) | {
                    "distill/rl_weight": weight,
                    "distill/teacher_version": teacher.version,
                }
            if batch is None or not batch.mask.any():
                run.finish(step, groups, told | {"optim/skipped_count": 1.0})
                continue
            batch = batch.with_columns(advantages=credit(batch, algorithm, weight))
            metrics = run.update(apart(batch) if algorithm.unit == "turn" else batch, objective)
            run.sync()
            teacher.follow(step)
            run.finish(step, groups, told | metrics)


def credit(batch: TokenBatch, algorithm: AlgorithmSettings, weight: float) -> Tensor:
    """[N] w A_RL, plus clip(-c x) where that is the form; 0 at tokens without a teacher, which are masked."""
    found = torch.zeros(len(batch))
    if weight:
        estimator = grpo if algorithm.advantage == "grpo" else dr_grpo
        found = weight * estimator(batch.scores, batch.group_index)[batch.sequence_index]
    if algorithm.form == "sampled":
        x = torch.where(batch.mask, log_ratios(batch), torch.nan)
        ahead = discounted_ahead(x, batch.sequence_index, num_sequences=batch.num_sequences, gamma=algorithm.gamma)
        told = distillation_advantages(ahead, torch.zeros_like(ahead), coef=algorithm.coef, clip=algorithm.clip)
        found = found + told.nan_to_num(0.0)
    return found


def objective_of_form(algorithm: AlgorithmSettings, teacher: TurnTeacher) -> PolicyObjective | TeacherObjective:
    """The usual policy loss; for distributions, the divergence beside it."""
    clip = Ppo(clip_low=algorithm.clip_eps, clip_high=algorithm.clip_eps)
    usual = PolicyObjective(loss=clip, aggregation=algorithm.aggregation)
    if algorithm.form == "sampled":
        return usual
    return TeacherObjective(
        head=teacher.head,
        policy=usual,
        divergence=algorithm.form,
        coef=algorithm.coef,
        top_k=algorithm.top_k,
        rest=algorithm.rest,
        beta=algorithm.beta,
    )


def apart(batch: TokenBatch) -> TokenBatch:
    """The batch with every turn as a sequence of its own: means over sequences are then means over turns."""
    segments = tuple(replace(segment, sequence=place) for place, segment in enumerate(batch.segments))
    count, owners = len(segments), batch.trajectory_index.tolist()
    episodes = tuple(batch.trajectories[owner] for owner in owners)
    index = torch.arange(count)
    return replace(batch, segments=segments, trajectory_index=index, num_sequences=count, trajectories=episodes)


@contextmanager
def depth_of(run: Training, algorithm: AlgorithmSettings, step: int) -> Iterator[dict[str, float]]:
    """While training episodes are played: no more turns than the curriculum allows; evaluations are not touched."""
    usual = run.collector.limits
    if algorithm.depth == "whole":
        yield {}
        return
    depth = turn_depth(
        step, first=algorithm.depth_first, every=algorithm.depth_every, most=min(algorithm.depth_most, usual.max_turns)
    )
    run.collector.limits = replace(usual, max_turns=depth)
    try:
        yield {"distill/depth_turns": float(depth)}
    finally:
        run.collector.limits = usual


def require_world(config: DistillConfig) -> None:
    """Raises ConfigError, before any weight is loaded, where the world or the teacher's folder cannot teach."""
    world = open_world(config.world)
    try:
        require_teachable(config.distill, world, policy=config.model.path)
    finally:
        close_play(world, None, None)


if __name__ == "__main__":
    run_recipe(main)
